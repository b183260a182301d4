//! A node's typed configuration, made from its validated properties.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use anyhow::{Context, bail, ensure};
use broker::config::{
    BrokerConfig, ConnectionLimits, ConsumerGroupSettings, ControllerVoter, GroupSettings, HostPort,
    ListenerConfig, SecurityProtocol,
};
use broker::coordinator::group::{AssignorKind, MigrationPolicy};
use metadata::Endpoint;
use metadata::configs::{NodeDefaults, list_items, node_default};
use protocol::BrokerId;

use super::{
    Properties,
    listeners::{Listener, parse_address, parse_list, security_map},
};

/// How far a broker's internal port lies above its client port where no listener is named for it.
const INTERNAL_PORT_DISTANCE: u16 = 10_000;

/// `process.roles`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct RoleSet {
    broker: bool,
    controller: bool,
}

/// What the controller role is told.
#[derive(Clone, Debug)]
pub(crate) struct ControllerSettings {
    pub(crate) listen: HostPort,
    pub(crate) log_dir: PathBuf,
}

/// Everything one node is told.
#[derive(Clone, Debug)]
pub(crate) struct NodeConfig {
    pub(crate) node_id: BrokerId,
    pub(crate) voters: Vec<ControllerVoter>,
    pub(crate) controller: Option<ControllerSettings>,
    pub(crate) broker: Option<BrokerConfig>,
    pub(crate) properties: Properties,
}

/// Typed reading of properties, with the table's defaults.
struct Reader<'a>(&'a BTreeMap<String, String>);

impl Reader<'_> {
    fn text(&self, key: &str) -> Option<&String> {
        self.0.get(key).filter(|value| !value.trim().is_empty())
    }

    fn or_default(&self, key: &str) -> anyhow::Result<String> {
        self.text(key)
            .cloned()
            .or_else(|| node_default(key).map(str::to_owned))
            .with_context(|| format!("required configuration {key} is missing"))
    }

    fn number<T: std::str::FromStr>(&self, key: &str) -> anyhow::Result<T> {
        let text = self.or_default(key)?;
        text.trim()
            .parse()
            .map_err(|_| anyhow::anyhow!("invalid value {text:?} for configuration {key}"))
    }

    fn millis(&self, key: &str) -> anyhow::Result<Duration> {
        Ok(Duration::from_millis(self.number(key)?))
    }

    fn flag(&self, key: &str) -> anyhow::Result<bool> {
        Ok(self.or_default(key)?.trim().eq_ignore_ascii_case("true"))
    }

    fn list(&self, key: &str) -> Vec<String> {
        let text = self.text(key).map_or("", String::as_str);
        text.split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
            .map(str::to_owned)
            .collect()
    }
}

impl NodeConfig {
    /// Reads the node's keys. Values have been validated one by one; here they must fit each other.
    pub(crate) fn from_properties(properties: Properties) -> anyhow::Result<Self> {
        let reader = Reader(&properties.values);
        let node_id = BrokerId(reader.number("node.id")?);
        let roles = roles(&reader)?;
        let voters = voters(&reader)?;
        let log_dirs = log_dirs(&reader)?;
        let listeners = parse_list("listeners", &reader.or_default("listeners")?)?;
        security_map(reader.text("listener.security.protocol.map"))?;
        let controller_names = controller_listener_names(&reader);
        let controller = if roles.controller {
            Some(controller(
                &reader,
                node_id,
                &voters,
                &listeners,
                &controller_names,
                &log_dirs,
            )?)
        } else {
            None
        };
        let broker = if roles.broker {
            let own = listeners
                .iter()
                .filter(|listener| !controller_names.contains(&listener.name));
            Some(broker(
                &reader,
                node_id,
                &voters,
                own.cloned().collect(),
                log_dirs,
            )?)
        } else {
            None
        };
        Ok(Self {
            node_id,
            voters,
            controller,
            broker,
            properties: properties.clone(),
        })
    }
}

fn roles(reader: &Reader<'_>) -> anyhow::Result<RoleSet> {
    let names = reader.list("process.roles");
    let has = |role: &str| names.iter().any(|name| name == role);
    let roles = RoleSet {
        broker: has("broker"),
        controller: has("controller"),
    };
    ensure!(
        roles.broker || roles.controller,
        "required configuration process.roles is missing: broker, controller, or broker,controller"
    );
    Ok(roles)
}

fn voters(reader: &Reader<'_>) -> anyhow::Result<Vec<ControllerVoter>> {
    let key = "controller.quorum.voters";
    let mut voters: Vec<ControllerVoter> = Vec::new();
    for entry in reader.list(key) {
        let Some((id, address)) = entry.split_once('@') else {
            bail!("{key}: {entry:?} is not of the form id@host:port");
        };
        let id = BrokerId(
            id.parse()
                .with_context(|| format!("{key}: {id:?} is not a node id"))?,
        );
        let address = parse_address(address).with_context(|| format!("{key}: {entry:?}"))?;
        ensure!(
            voters.iter().all(|voter| voter.id != id),
            "{key}: node {id} is named twice"
        );
        voters.push(ControllerVoter { id, address });
    }
    ensure!(
        !voters.is_empty(),
        "required configuration {key} is missing: id@host:port of every controller"
    );
    Ok(voters)
}

fn log_dirs(reader: &Reader<'_>) -> anyhow::Result<Vec<PathBuf>> {
    let mut dirs = reader.list("log.dirs");
    if dirs.is_empty() {
        dirs = reader.list("log.dir");
    }
    ensure!(
        !dirs.is_empty(),
        "required configuration log.dirs is missing: where this node keeps its data"
    );
    Ok(dirs.into_iter().map(PathBuf::from).collect())
}

fn controller_listener_names(reader: &Reader<'_>) -> Vec<String> {
    let names = reader.list("controller.listener.names");
    let names = if names.is_empty() {
        vec!["CONTROLLER".to_owned()]
    } else {
        names
    };
    names.into_iter().map(|name| name.to_ascii_uppercase()).collect()
}

fn controller(
    reader: &Reader<'_>,
    node_id: BrokerId,
    voters: &[ControllerVoter],
    listeners: &[Listener],
    names: &[String],
    log_dirs: &[PathBuf],
) -> anyhow::Result<ControllerSettings> {
    ensure!(
        voters.iter().any(|voter| voter.id == node_id),
        "node {node_id} has the controller role and is not among controller.quorum.voters"
    );
    let listener = listeners
        .iter()
        .find(|listener| names.contains(&listener.name))
        .with_context(|| {
            format!(
                "listeners has none of controller.listener.names ({}): where would this controller listen?",
                names.join(", ")
            )
        })?;
    let log_dir = reader
        .text("metadata.log.dir")
        .map_or_else(|| log_dirs[0].clone(), PathBuf::from);
    Ok(ControllerSettings {
        listen: listener.address.clone(),
        log_dir,
    })
}

fn broker(
    reader: &Reader<'_>,
    node_id: BrokerId,
    voters: &[ControllerVoter],
    mut listeners: Vec<Listener>,
    log_dirs: Vec<PathBuf>,
) -> anyhow::Result<BrokerConfig> {
    let internal_name = reader
        .text("inter.broker.listener.name")
        .map(|name| name.to_ascii_uppercase());
    let internal_at = match &internal_name {
        Some(name) => Some(
            listeners
                .iter()
                .position(|listener| listener.name == *name)
                .with_context(|| format!("inter.broker.listener.name={name} is not among listeners"))?,
        ),
        None => listeners.iter().position(|listener| listener.name == "INTERNAL"),
    };
    let internal = internal_at.map(|at| listeners.remove(at));
    ensure!(
        !listeners.is_empty(),
        "listeners has no client listener, such as PLAINTEXT://:9092"
    );
    let internal_listen = match &internal {
        Some(internal) => internal.address.clone(),
        None => {
            let port = listeners[0]
                .address
                .port
                .checked_add(INTERNAL_PORT_DISTANCE)
                .with_context(|| {
                    format!(
                        "port {} leaves no room for an internal port {INTERNAL_PORT_DISTANCE} above it: \
                     name one with inter.broker.listener.name",
                        listeners[0].address.port
                    )
                })?;
            HostPort::new("127.0.0.1", port)
        }
    };
    let mut advertised = parse_list(
        "advertised.listeners",
        reader.text("advertised.listeners").map_or("", |text| text),
    )?;
    let internal_advertised = internal
        .as_ref()
        .and_then(|internal| {
            let at = advertised
                .iter()
                .position(|listener| listener.name == internal.name)?;
            Some(advertised.remove(at).address)
        })
        .unwrap_or_else(|| reachable(&internal_listen));
    for listener in &advertised {
        ensure!(
            listeners.iter().any(|own| own.name == listener.name),
            "advertised.listeners names {}, which is not among listeners",
            listener.name
        );
    }
    let endpoints = listeners.iter().map(|listener| {
        let address = advertised
            .iter()
            .find(|advertised| advertised.name == listener.name)
            .map_or_else(
                || reachable(&listener.address),
                |advertised| advertised.address.clone(),
            );
        Endpoint {
            listener: listener.name.clone(),
            host: address.host,
            port: address.port,
            security_protocol: SecurityProtocol::Plaintext.name().to_owned(),
        }
    });
    let endpoints: Vec<Endpoint> = endpoints.collect();
    Ok(BrokerConfig {
        node_id,
        cluster_id: None,
        advertised: endpoints,
        listeners: listeners
            .into_iter()
            .map(|listener| ListenerConfig {
                name: listener.name,
                bind: listener.address,
                security_protocol: SecurityProtocol::Plaintext,
            })
            .collect(),
        internal_listen,
        internal_advertised,
        controllers: voters.to_vec(),
        log_dirs,
        rack: reader.text("broker.rack").cloned(),
        heartbeat_interval: reader.millis("broker.heartbeat.interval.ms")?,
        session_timeout: reader.millis("broker.session.timeout.ms")?,
        controlled_shutdown_timeout: reader.millis("ottla.controlled.shutdown.timeout.ms")?,
        replica_lag_time_max: reader.millis("replica.lag.time.max.ms")?,
        socket_request_max_bytes: reader.number("socket.request.max.bytes")?,
        connections: ConnectionLimits {
            total: reader.number("max.connections")?,
            per_address: reader.number("max.connections.per.ip")?,
            idle: reader.millis("connections.max.idle.ms")?,
        },
        auto_create_topics: reader.flag("auto.create.topics.enable")?,
        max_partitions_described: reader.number("max.request.partition.size.limit")?,
        batch_validation_header_only: reader.or_default("ottla.batch.validation")? == "header",
        groups: groups(reader)?,
        disk_threads: reader.number("num.io.threads")?,
        flush_threads: reader.number("ottla.flush.threads")?,
        recovery_threads_per_dir: reader.number("num.recovery.threads.per.data.dir")?,
        node_defaults: NodeDefaults::new(reader.0.clone()),
        static_values: reader.0.clone(),
    })
}

fn groups(reader: &Reader<'_>) -> anyhow::Result<GroupSettings> {
    let settings = GroupSettings {
        topic_partitions: reader.number("offsets.topic.num.partitions")?,
        topic_replication_factor: reader.number("offsets.topic.replication.factor")?,
        topic_segment_bytes: reader.number("offsets.topic.segment.bytes")?,
        offset_metadata_max_bytes: reader.number("offset.metadata.max.bytes")?,
        commit_timeout: reader.millis("offsets.commit.timeout.ms")?,
        offsets_retention: Duration::from_secs(60 * reader.number::<u64>("offsets.retention.minutes")?),
        offsets_retention_check: reader.millis("offsets.retention.check.interval.ms")?,
        session_timeout_min: reader.millis("group.min.session.timeout.ms")?,
        session_timeout_max: reader.millis("group.max.session.timeout.ms")?,
        max_size: reader.number("group.max.size")?,
        initial_rebalance_delay: reader.millis("group.initial.rebalance.delay.ms")?,
        consumer: consumer_groups(reader)?,
    };
    ensure!(
        settings.session_timeout_min <= settings.session_timeout_max,
        "group.min.session.timeout.ms must not be above group.max.session.timeout.ms"
    );
    Ok(settings)
}

fn consumer_groups(reader: &Reader<'_>) -> anyhow::Result<ConsumerGroupSettings> {
    let assignors = reader.or_default("group.consumer.assignors")?;
    let migration = reader.or_default("group.consumer.migration.policy")?;
    let settings = ConsumerGroupSettings {
        assignors: list_items(&assignors)
            .into_iter()
            .map(|name| AssignorKind::by_name(name).with_context(|| format!("there is no assignor {name}")))
            .collect::<anyhow::Result<_>>()?,
        session_timeout: reader.millis("group.consumer.session.timeout.ms")?,
        heartbeat_interval: reader.millis("group.consumer.heartbeat.interval.ms")?,
        max_size: reader.number("group.consumer.max.size")?,
        migration: MigrationPolicy::by_name(migration.trim())
            .with_context(|| format!("there is no migration policy {migration}"))?,
    };
    for (kind, time) in [
        ("session.timeout.ms", settings.session_timeout),
        ("heartbeat.interval.ms", settings.heartbeat_interval),
    ] {
        let least = reader.millis(&format!("group.consumer.min.{kind}"))?;
        let most = reader.millis(&format!("group.consumer.max.{kind}"))?;
        ensure!(
            (least..=most).contains(&time),
            "group.consumer.{kind} must lie between group.consumer.min.{kind} and group.consumer.max.{kind}"
        );
    }
    ensure!(
        settings.heartbeat_interval < settings.session_timeout,
        "group.consumer.heartbeat.interval.ms must be below group.consumer.session.timeout.ms"
    );
    Ok(settings)
}

/// What others are told of an address that binds every interface: this machine's loopback. A broker on
/// another machine needs `advertised.listeners`, as in Kafka.
fn reachable(bind: &HostPort) -> HostPort {
    let everywhere = matches!(bind.host.as_str(), "" | "0.0.0.0" | "::");
    HostPort::new(if everywhere { "localhost" } else { &bind.host }, bind.port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Layers;

    fn node(extra: &[(&str, &str)]) -> anyhow::Result<NodeConfig> {
        let mut settings = vec![
            "node.id=1".to_owned(),
            "process.roles=broker".to_owned(),
            "controller.quorum.voters=101@127.0.0.1:19192".to_owned(),
            "log.dirs=/tmp/ottla".to_owned(),
            "listeners=PLAINTEXT://127.0.0.1:9092,INTERNAL://127.0.0.1:19092".to_owned(),
        ];
        settings.extend(extra.iter().map(|(key, value)| format!("{key}={value}")));
        NodeConfig::from_properties(Layers::default().with_settings(&settings)?.resolve()?)
    }

    #[test]
    fn a_broker_s_listeners_are_told_apart() {
        let broker = node(&[]).expect("valid").broker.expect("broker role");
        assert_eq!(broker.listeners.len(), 1);
        assert_eq!(broker.internal_listen, HostPort::new("127.0.0.1", 19092));
        assert_eq!(
            (broker.advertised[0].host.as_str(), broker.advertised[0].port),
            ("127.0.0.1", 9092)
        );
        assert_eq!(broker.session_timeout, Duration::from_secs(3));
    }

    #[test]
    fn settings_of_groups_are_kafkas_and_fit_together() {
        let broker = node(&[]).expect("valid").broker.expect("broker role");
        assert_eq!(broker.groups, GroupSettings::default());
        let ours = [
            ("group.consumer.assignors", "range"),
            ("group.consumer.migration.policy", "UPGRADE"),
        ];
        let consumer = node(&ours)
            .expect("valid")
            .broker
            .expect("broker role")
            .groups
            .consumer;
        assert_eq!(consumer.assignors, [AssignorKind::Range]);
        assert_eq!(consumer.migration, MigrationPolicy::Upgrade);
        for (key, value) in [
            ("group.consumer.session.timeout.ms", "44999"),
            ("group.consumer.session.timeout.ms", "60001"),
            ("group.consumer.heartbeat.interval.ms", "4999"),
            ("group.consumer.heartbeat.interval.ms", "15001"),
            ("group.consumer.assignors", "sticky"),
            ("group.consumer.migration.policy", "sideways"),
        ] {
            assert!(node(&[(key, value)]).is_err(), "{key}={value}");
        }
        let quick = [
            ("group.consumer.min.session.timeout.ms", "1000"),
            ("group.consumer.session.timeout.ms", "5000"),
        ];
        assert!(node(&quick).is_err(), "as short as the heartbeat interval");
    }

    #[test]
    fn an_internal_port_is_found_where_none_is_named() {
        let broker = node(&[("listeners", "PLAINTEXT://:9092")])
            .expect("valid")
            .broker
            .expect("broker role");
        assert_eq!(broker.internal_listen.port, 19092);
        assert_eq!(broker.advertised[0].host, "localhost");
    }

    #[test]
    fn what_does_not_fit_is_named() {
        for (key, value, needle) in [
            ("process.roles", "controller", "controller.quorum.voters"),
            ("inter.broker.listener.name", "NOPE", "inter.broker.listener.name"),
            ("advertised.listeners", "OTHER://h:1", "OTHER"),
            ("controller.quorum.voters", "101", "id@host:port"),
            ("node.id", "x", "node.id"),
        ] {
            let error = format!("{:#}", node(&[(key, value)]).expect_err(key));
            assert!(error.contains(needle), "{key}={value}: {error}");
        }
    }
}
