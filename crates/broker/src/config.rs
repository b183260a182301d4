//! A broker's configuration: typed, validated, complete.
//!
//! The binary makes it from the properties file, the environment and the command line by way of the
//! table in `metadata::configs`; nothing in this crate parses a property.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use metadata::Endpoint;
use metadata::configs::NodeDefaults;
use protocol::{BrokerId, ClusterId};

use crate::coordinator::group::{AssignorKind, MigrationPolicy};

/// A host (name or address) and a port, as configured: not yet resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// Host name or IP address; an IPv6 address stands without brackets. Empty in a bind address: every
    /// interface.
    pub host: String,
    /// TCP port; 0 in a bind address: any free port.
    pub port: u16,
}

impl HostPort {
    /// A host and a port.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self {
            host: host.into(),
            port,
        }
    }

    /// The address to bind: an empty host means every interface, as in Kafka.
    pub fn to_bind(&self) -> (&str, u16) {
        let host = if self.host.is_empty() {
            "0.0.0.0"
        } else {
            &self.host
        };
        (host, self.port)
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// How a listener protects its connections (`listener.security.protocol.map`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SecurityProtocol {
    /// Neither encryption nor authentication.
    Plaintext,
}

impl SecurityProtocol {
    /// Kafka's name of it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plaintext => "PLAINTEXT",
        }
    }
}

/// One entry of `listeners`: a client port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerConfig {
    /// The listener's name.
    pub name: String,
    /// Where it binds.
    pub bind: HostPort,
    /// How its connections are protected.
    pub security_protocol: SecurityProtocol,
}

/// One entry of `controller.quorum.voters`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControllerVoter {
    /// The controller's `node.id`.
    pub id: BrokerId,
    /// Its internal port.
    pub address: HostPort,
}

/// Bounds on the connections of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// `max.connections`: connections at a time, over all client listeners.
    pub total: usize,
    /// `max.connections.per.ip`.
    pub per_address: usize,
    /// `connections.max.idle.ms`: a connection without a request for so long is closed.
    pub idle: Duration,
}

impl Default for ConnectionLimits {
    /// Kafka's defaults.
    fn default() -> Self {
        Self {
            total: i32::MAX as usize,
            per_address: i32::MAX as usize,
            idle: Duration::from_secs(600),
        }
    }
}

/// What the group coordinator is told; everything is Kafka's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupSettings {
    /// `offsets.topic.num.partitions`.
    pub topic_partitions: i32,
    /// `offsets.topic.replication.factor`.
    pub topic_replication_factor: i32,
    /// `offsets.topic.segment.bytes`.
    pub topic_segment_bytes: u32,
    /// `offset.metadata.max.bytes`.
    pub offset_metadata_max_bytes: usize,
    /// `offsets.commit.timeout.ms`: how long what a coordinator writes may take to be committed.
    pub commit_timeout: Duration,
    /// `offsets.retention.minutes`.
    pub offsets_retention: Duration,
    /// `offsets.retention.check.interval.ms`.
    pub offsets_retention_check: Duration,
    /// `group.min.session.timeout.ms`.
    pub session_timeout_min: Duration,
    /// `group.max.session.timeout.ms`.
    pub session_timeout_max: Duration,
    /// `group.max.size`.
    pub max_size: usize,
    /// `group.initial.rebalance.delay.ms`.
    pub initial_rebalance_delay: Duration,
    /// Groups of the KIP-848 protocol.
    pub consumer: ConsumerGroupSettings,
}

/// What the coordinator is told of groups of the KIP-848 protocol; everything is Kafka's. Their session
/// timeout and heartbeat interval can be set for one group too: [`metadata::configs::GroupTimes`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerGroupSettings {
    /// `group.consumer.assignors`: which ones may be asked for; the first is for who asks for none.
    pub assignors: Vec<AssignorKind>,
    /// `group.consumer.session.timeout.ms`.
    pub session_timeout: Duration,
    /// `group.consumer.heartbeat.interval.ms`.
    pub heartbeat_interval: Duration,
    /// `group.consumer.max.size`.
    pub max_size: usize,
    /// `group.consumer.migration.policy`.
    pub migration: MigrationPolicy,
}

impl Default for ConsumerGroupSettings {
    /// Kafka's defaults.
    fn default() -> Self {
        Self {
            assignors: AssignorKind::ALL.to_vec(),
            session_timeout: Duration::from_secs(45),
            heartbeat_interval: Duration::from_secs(5),
            max_size: i32::MAX as usize,
            migration: MigrationPolicy::default(),
        }
    }
}

impl Default for GroupSettings {
    /// Kafka's defaults.
    fn default() -> Self {
        Self {
            topic_partitions: 50,
            topic_replication_factor: 3,
            topic_segment_bytes: 100 << 20,
            offset_metadata_max_bytes: 4096,
            commit_timeout: Duration::from_secs(5),
            offsets_retention: Duration::from_secs(7 * 24 * 3600),
            offsets_retention_check: Duration::from_secs(600),
            session_timeout_min: Duration::from_secs(6),
            session_timeout_max: Duration::from_secs(1800),
            max_size: i32::MAX as usize,
            initial_rebalance_delay: Duration::from_secs(3),
            consumer: ConsumerGroupSettings::default(),
        }
    }
}

/// Everything a broker must be told.
#[derive(Clone, Debug)]
pub struct BrokerConfig {
    /// `node.id`.
    pub node_id: BrokerId,
    /// The cluster this broker must belong to; `None`: what its directories or the quorum say.
    pub cluster_id: Option<ClusterId>,
    /// Client ports.
    pub listeners: Vec<ListenerConfig>,
    /// `advertised.listeners`: what clients are told, one for each listener. Port 0 stands for the port
    /// that the listener of that name was given.
    pub advertised: Vec<Endpoint>,
    /// Where the internal port binds.
    pub internal_listen: HostPort,
    /// What other nodes are told of the internal port; port 0 as for `advertised`.
    pub internal_advertised: HostPort,
    /// `controller.quorum.voters`.
    pub controllers: Vec<ControllerVoter>,
    /// `log.dirs`.
    pub log_dirs: Vec<PathBuf>,
    /// `broker.rack`.
    pub rack: Option<String>,
    /// `broker.heartbeat.interval.ms`.
    pub heartbeat_interval: Duration,
    /// `broker.session.timeout.ms`: without contact to a controller for so long, the broker takes itself
    /// for fenced.
    pub session_timeout: Duration,
    /// How long a controlled shutdown waits for its leaderships to move.
    pub controlled_shutdown_timeout: Duration,
    /// `replica.lag.time.max.ms`.
    pub replica_lag_time_max: Duration,
    /// `socket.request.max.bytes`: the largest Kafka frame.
    pub socket_request_max_bytes: usize,
    /// Bounds on client connections.
    pub connections: ConnectionLimits,
    /// `auto.create.topics.enable`.
    pub auto_create_topics: bool,
    /// `max.request.partition.size.limit`: partitions in one answer to DescribeTopicPartitions.
    pub max_partitions_described: usize,
    /// `ottla.batch.validation=header`: batches from clients are checked by header and CRC alone.
    pub batch_validation_header_only: bool,
    /// Consumer groups and their offsets.
    pub groups: GroupSettings,
    /// Threads for reads and appends.
    pub disk_threads: usize,
    /// Threads that group-commit: the bound on concurrent fdatasyncs.
    pub flush_threads: usize,
    /// `num.recovery.threads.per.data.dir`.
    pub recovery_threads_per_dir: usize,
    /// The node's own values below those of a topic, and of the cluster.
    pub node_defaults: NodeDefaults,
    /// Every key that was set statically, as it was written: for DescribeConfigs.
    pub static_values: BTreeMap<String, String>,
}
