//! Configuration at runtime, and what it changes about partitions.

use controller::decisions;
use metadata::ConfigResource;
use protocol::{
    ErrorCode,
    grpc::v1::{AlterConfig, AlterConfigsRequest, AlterConfigsResource, ConfigOp, ConfigResourceType},
};

use crate::cluster::{Cluster, b, code};

fn change(key: &str, op: ConfigOp, value: Option<&str>) -> AlterConfig {
    AlterConfig {
        key: key.to_owned(),
        op: op.into(),
        value: value.map(str::to_owned),
    }
}

fn resource(kind: ConfigResourceType, name: &str, configs: Vec<AlterConfig>) -> AlterConfigsResource {
    AlterConfigsResource {
        resource_type: kind.into(),
        resource_name: name.to_owned(),
        configs,
    }
}

fn alter(cluster: &mut Cluster, resources: Vec<AlterConfigsResource>, replace_all: bool) -> Vec<ErrorCode> {
    let request = AlterConfigsRequest {
        resources,
        validate_only: false,
        replace_all,
    };
    let outcome = decisions::alter_configs(cluster.view(), &request);
    let results = cluster.commit(outcome);
    results.iter().map(|result| code(result.error.as_ref())).collect()
}

fn topic(name: &str, configs: Vec<AlterConfig>) -> Vec<AlterConfigsResource> {
    vec![resource(ConfigResourceType::Topic, name, configs)]
}

#[test]
fn keys_are_set_deleted_extended_and_replaced() {
    let mut cluster = Cluster::with_brokers(&[1], |_| "");
    cluster.create("t", &[1], &[]);
    let t = ConfigResource::Topic("t".parse().expect("valid"));
    let set = vec![
        change("retention.ms", ConfigOp::Set, Some("5")),
        change("cleanup.policy", ConfigOp::Append, Some("compact")),
    ];
    assert_eq!(alter(&mut cluster, topic("t", set), false), [ErrorCode::None]);
    assert_eq!(cluster.image.config(&t, "retention.ms"), Some("5"));
    assert_eq!(cluster.image.config(&t, "cleanup.policy"), Some("delete,compact"));
    let less = vec![change("cleanup.policy", ConfigOp::Subtract, Some("delete"))];
    assert_eq!(alter(&mut cluster, topic("t", less), false), [ErrorCode::None]);
    assert_eq!(cluster.image.config(&t, "cleanup.policy"), Some("compact"));
    let replace = vec![change("segment.ms", ConfigOp::Set, Some("9"))];
    assert_eq!(alter(&mut cluster, topic("t", replace), true), [ErrorCode::None]);
    assert_eq!(cluster.image.config(&t, "retention.ms"), None);
    assert_eq!(cluster.image.config(&t, "segment.ms"), Some("9"));
    let gone = vec![change("segment.ms", ConfigOp::Delete, None)];
    assert_eq!(alter(&mut cluster, topic("t", gone), false), [ErrorCode::None]);
    assert!(!cluster.image.configs.contains_key(&t));
}

#[test]
fn a_bad_change_is_refused_whole() {
    let mut cluster = Cluster::with_brokers(&[1], |_| "");
    cluster.create("t", &[1], &[]);
    let good = || change("retention.ms", ConfigOp::Set, Some("5"));
    for (bad, expected) in [
        (
            change("retention", ConfigOp::Set, Some("5")),
            ErrorCode::InvalidConfig,
        ),
        (
            change("segment.bytes", ConfigOp::Set, Some("x")),
            ErrorCode::InvalidConfig,
        ),
        (
            change("segment.bytes", ConfigOp::Append, Some("1")),
            ErrorCode::InvalidConfig,
        ),
        (
            change("cleanup.policy", ConfigOp::Subtract, Some("delete")),
            ErrorCode::InvalidConfig,
        ),
        (
            change("segment.bytes", ConfigOp::Set, None),
            ErrorCode::InvalidRequest,
        ),
        (good(), ErrorCode::InvalidRequest),
    ] {
        assert_eq!(
            alter(&mut cluster, topic("t", vec![good(), bad]), false),
            [expected]
        );
    }
    assert!(cluster.image.configs.is_empty());
    let kinds = vec![
        resource(ConfigResourceType::Topic, "nope", vec![good()]),
        resource(ConfigResourceType::Unspecified, "t", vec![good()]),
        resource(ConfigResourceType::Broker, "x", vec![good()]),
        resource(
            ConfigResourceType::Broker,
            "1",
            vec![change("node.id", ConfigOp::Set, Some("3"))],
        ),
        resource(ConfigResourceType::Broker, "1", vec![]),
    ];
    assert_eq!(
        alter(&mut cluster, kinds, false),
        [
            ErrorCode::UnknownTopicOrPartition,
            ErrorCode::InvalidRequest,
            ErrorCode::InvalidRequest,
            ErrorCode::InvalidConfig,
            ErrorCode::InvalidRequest,
        ]
    );
    let dynamic = vec![
        resource(
            ConfigResourceType::Broker,
            "1",
            vec![change("log.retention.ms", ConfigOp::Set, Some("3"))],
        ),
        resource(
            ConfigResourceType::Broker,
            "",
            vec![change("log.retention.ms", ConfigOp::Set, Some("4"))],
        ),
    ];
    assert_eq!(
        alter(&mut cluster, dynamic, false),
        [ErrorCode::None, ErrorCode::None]
    );
    let broker = ConfigResource::Broker(b(1));
    assert_eq!(cluster.image.config(&broker, "log.retention.ms"), Some("3"));
}

#[test]
fn a_group_s_times_are_set_within_the_limits() {
    let mut cluster = Cluster::with_brokers(&[1], |_| "");
    let session = "consumer.session.timeout.ms";
    let mut set = |key, value| {
        let change = change(key, ConfigOp::Set, Some(value));
        alter(
            &mut cluster,
            vec![resource(ConfigResourceType::Group, "g", vec![change])],
            false,
        )
    };
    assert_eq!(set(session, "50000"), [ErrorCode::None]);
    for (key, bad) in [
        (session, "1000"),
        (session, "soon"),
        ("consumer.heartbeat.interval.ms", "60000"),
        ("retention.ms", "1"),
    ] {
        assert_eq!(set(key, bad), [ErrorCode::InvalidConfig], "{key}={bad}");
    }
    let group = ConfigResource::Group("g".to_owned());
    assert_eq!(cluster.image.config(&group, session), Some("50000"));
    let nameless = resource(
        ConfigResourceType::Group,
        "",
        vec![change(session, ConfigOp::Delete, None)],
    );
    assert_eq!(
        alter(&mut cluster, vec![nameless], false),
        [ErrorCode::InvalidRequest]
    );
    // Replacing all with nothing takes the value back.
    let nothing = resource(ConfigResourceType::Group, "g", vec![]);
    assert_eq!(alter(&mut cluster, vec![nothing], true), [ErrorCode::None]);
    assert_eq!(cluster.image.config(&group, session), None);
}

#[test]
fn a_lower_min_insync_replicas_empties_the_elr_in_the_same_records() {
    let mut cluster = Cluster::with_brokers(&[1, 2, 3], |_| "");
    let tp = cluster.create("t", &[1, 2, 3], &[]);
    let other = cluster.create("u", &[1, 2, 3], &[("min.insync.replicas", "3")]);
    cluster.fence(3);
    cluster.fence(2);
    assert_eq!(cluster.state(tp), (Some(1), vec![1], vec![2]));
    assert_eq!(cluster.state(other), (Some(1), vec![1], vec![2, 3]));
    let lower = || vec![change("min.insync.replicas", ConfigOp::Set, Some("1"))];
    let cluster_wide = vec![resource(ConfigResourceType::Broker, "", lower())];
    assert_eq!(alter(&mut cluster, cluster_wide, false), [ErrorCode::None]);
    assert_eq!(cluster.state(tp), (Some(1), vec![1], vec![]));
    assert_eq!(
        cluster.state(other),
        (Some(1), vec![1], vec![2, 3]),
        "it has its own"
    );
    assert_eq!(alter(&mut cluster, topic("u", lower()), false), [ErrorCode::None]);
    assert_eq!(cluster.state(other), (Some(1), vec![1], vec![]));
}

#[test]
fn allowing_unclean_elections_elects() {
    let mut cluster = Cluster::with_brokers(&[1, 2], |_| "");
    let tp = cluster.create("t", &[1, 2], &[]);
    cluster.set_isr(tp, &[1]);
    cluster.fence(1);
    assert_eq!(cluster.state(tp), (None, vec![], vec![1]));
    let allow = vec![change(
        "unclean.leader.election.enable",
        ConfigOp::Set,
        Some("true"),
    )];
    assert_eq!(alter(&mut cluster, topic("t", allow), false), [ErrorCode::None]);
    assert_eq!(cluster.state(tp), (Some(2), vec![2], vec![]));
    cluster.fence(2);
    cluster.unfence(1);
    assert_eq!(
        cluster.state(tp),
        (Some(1), vec![1], vec![]),
        "unclean at once from now on"
    );
}

#[test]
fn the_controllers_own_min_insync_replicas_becomes_everybody_s() {
    let mut cluster = Cluster::with_brokers(&[1, 2, 3], |_| "");
    cluster.defaults(&[("min.insync.replicas", "3")]);
    let default = ConfigResource::ClusterDefault;
    let outcome = decisions::publish_agreed_defaults(cluster.view());
    cluster.commit(outcome);
    assert_eq!(cluster.image.config(&default, "min.insync.replicas"), Some("3"));
    cluster.defaults(&[("min.insync.replicas", "1")]);
    let outcome = decisions::publish_agreed_defaults(cluster.view());
    assert_eq!(outcome.records, [], "what is set at runtime stays");
}

#[test]
fn validate_only_changes_nothing() {
    let mut cluster = Cluster::with_brokers(&[1], |_| "");
    cluster.create("t", &[1], &[]);
    let request = AlterConfigsRequest {
        resources: topic("t", vec![change("retention.ms", ConfigOp::Set, Some("5"))]),
        validate_only: true,
        replace_all: false,
    };
    let outcome = decisions::alter_configs(cluster.view(), &request);
    assert_eq!(outcome.records, []);
    assert_eq!(code(cluster.commit(outcome)[0].error.as_ref()), ErrorCode::None);
}

#[test]
fn cleaner_threads_are_not_left_without_memory() {
    let mut cluster = Cluster::with_brokers(&[1], |_| "");
    let (threads, buffer) = ("log.cleaner.threads", "log.cleaner.dedupe.buffer.size");
    for name in ["", "1"] {
        let mut set = |key: &str, value: &str| {
            let change = change(key, ConfigOp::Set, Some(value));
            alter(
                &mut cluster,
                vec![resource(ConfigResourceType::Broker, name, vec![change])],
                false,
            )
        };
        assert_eq!(set(buffer, "0"), [ErrorCode::InvalidConfig]);
        assert_eq!(set(threads, "128"), [ErrorCode::InvalidConfig]);
        assert_eq!(set(threads, "4"), [ErrorCode::None]);
        assert_eq!(set(buffer, "4194304"), [ErrorCode::InvalidConfig]);
        assert_eq!(set(buffer, "4194308"), [ErrorCode::None]);
        assert_eq!(set(threads, "5"), [ErrorCode::InvalidConfig]);
    }
}

#[test]
fn compaction_lags_that_contradict_each_other_are_refused() {
    let mut cluster = Cluster::with_brokers(&[1], |_| "");
    let (least, most) = ("min.compaction.lag.ms", "max.compaction.lag.ms");
    cluster.create("t", &[1], &[(least, "100")]);
    let set = |key: &str, value: &str| change(key, ConfigOp::Set, Some(value));
    let delete = |key: &str| change(key, ConfigOp::Delete, None);
    let refused = [ErrorCode::InvalidConfig];
    let done = [ErrorCode::None];
    // The other one stands already, or is changed by the same request.
    assert_eq!(
        alter(&mut cluster, topic("t", vec![set(most, "99")]), false),
        refused
    );
    assert_eq!(
        alter(&mut cluster, topic("t", vec![set(most, "100")]), false),
        done
    );
    assert_eq!(
        alter(&mut cluster, topic("t", vec![set(least, "101")]), false),
        refused
    );
    let both = vec![set(least, "201"), set(most, "200")];
    assert_eq!(alter(&mut cluster, topic("t", both), false), refused);
    let both = vec![set(least, "200"), set(most, "200")];
    assert_eq!(alter(&mut cluster, topic("t", both), false), done);
    // One that goes stands in nobody's way any more.
    let instead = vec![delete(most), set(least, "300")];
    assert_eq!(alter(&mut cluster, topic("t", instead), false), done);
    assert_eq!(alter(&mut cluster, topic("t", vec![set(most, "5")]), true), done);
    // What takes the place of the one that goes may not fit either.
    assert_eq!(
        alter(&mut cluster, topic("t", vec![set(least, "5")]), false),
        done
    );
    let of_cluster = vec![set("log.cleaner.max.compaction.lag.ms", "4")];
    let of_cluster = vec![resource(ConfigResourceType::Broker, "", of_cluster)];
    assert_eq!(alter(&mut cluster, of_cluster, false), done);
    assert_eq!(
        alter(&mut cluster, topic("t", vec![delete(most)]), false),
        refused
    );
    let replaced = vec![delete(least), delete(most)];
    assert_eq!(alter(&mut cluster, topic("t", replaced), false), done);
}
