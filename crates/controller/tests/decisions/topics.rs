//! Topics created, extended, deleted, and every way in which that is refused.

use controller::decisions;
use protocol::{
    BrokerId, ErrorCode, TopicId,
    grpc::v1::{
        ConfigEntry, CreatePartitionsRequest, CreateTopicsRequest, CreatedTopic, DeleteTopicsRequest,
        NewPartitions, NewTopic, ReplicaAssignment, TopicRef,
    },
};

use crate::cluster::{Cluster, code, dir};

fn wish(name: &str, partitions: i32, replication_factor: i32) -> NewTopic {
    NewTopic {
        name: name.to_owned(),
        partitions,
        replication_factor,
        ..NewTopic::default()
    }
}

fn assigned(name: &str, assignments: &[(i32, &[i32])]) -> NewTopic {
    NewTopic {
        assignments: assignments
            .iter()
            .map(|(partition, brokers)| ReplicaAssignment {
                partition: *partition,
                brokers: brokers.to_vec(),
            })
            .collect(),
        ..wish(name, -1, -1)
    }
}

fn configured(name: &str, key: &str, value: Option<&str>) -> NewTopic {
    NewTopic {
        configs: vec![ConfigEntry {
            key: key.to_owned(),
            value: value.map(str::to_owned),
        }],
        ..wish(name, 1, 1)
    }
}

fn create(cluster: &mut Cluster, topics: Vec<NewTopic>) -> Vec<CreatedTopic> {
    cluster.create_with(&CreateTopicsRequest {
        topics,
        ..CreateTopicsRequest::default()
    })
}

#[test]
fn a_topic_s_configuration_goes_together() {
    let mut cluster = Cluster::with_brokers(&[1], |_| "");
    let lags = |name: &str, least: &str, most: &str| {
        let mut wish = configured(name, "min.compaction.lag.ms", Some(least));
        wish.configs
            .extend(configured(name, "max.compaction.lag.ms", Some(most)).configs);
        wish
    };
    let created = create(&mut cluster, vec![lags("a", "6", "5"), lags("b", "5", "5")]);
    let codes: Vec<_> = created.iter().map(|topic| code(topic.error.as_ref())).collect();
    assert_eq!(codes, [ErrorCode::InvalidConfig, ErrorCode::None]);
    let message = created[0].error.as_ref().map(|error| error.message.as_str());
    assert_eq!(
        message,
        Some("conflict topic config setting min.compaction.lag.ms (6) > max.compaction.lag.ms (5)")
    );
}

#[test]
fn a_topic_is_created_whole() {
    let mut cluster = Cluster::with_brokers(&[1, 2, 3], |_| "");
    let created = create(
        &mut cluster,
        vec![NewTopic {
            configs: configured("x", "retention.ms", Some("5")).configs,
            ..wish("t", 6, 3)
        }],
    )
    .remove(0);
    assert_eq!(code(created.error.as_ref()), ErrorCode::None);
    assert_eq!((created.partitions, created.replication_factor), (6, 3));
    let config = |key: &str| {
        let found = created.configs.iter().find(|config| config.key == key);
        found.and_then(|config| config.value.clone())
    };
    assert_eq!(config("retention.ms").as_deref(), Some("5"));
    assert_eq!(config("min.insync.replicas").as_deref(), Some("2"));
    let topic = cluster.image.topic("t").expect("created");
    assert_eq!(
        topic.id,
        TopicId::from_slice(&created.topic_id).expect("16 bytes")
    );
    let leaders = |id: i32| {
        let partitions = topic.partitions.values();
        partitions.filter(|p| p.leader == Some(BrokerId(id))).count()
    };
    assert_eq!([leaders(1), leaders(2), leaders(3)], [2, 2, 2]);
}

#[test]
fn defaults_are_the_controllers() {
    let mut cluster = Cluster::with_brokers(&[1, 2, 3], |_| "");
    cluster.defaults(&[("num.partitions", "4"), ("default.replication.factor", "2")]);
    let created = create(&mut cluster, vec![wish("t", -1, -1)]).remove(0);
    assert_eq!((created.partitions, created.replication_factor), (4, 2));
}

#[test]
fn each_refusal_has_kafka_s_code() {
    let mut cluster = Cluster::with_brokers(&[1, 2, 3], |_| "");
    cluster.fence(3);
    create(&mut cluster, vec![wish("taken", 1, 1), wish("a.b", 1, 1)]);
    let contradiction = NewTopic {
        replication_factor: 1,
        ..assigned("t", &[(0, &[1])])
    };
    let cases = vec![
        (wish("", 1, 1), ErrorCode::InvalidTopicException),
        (wish("..", 1, 1), ErrorCode::InvalidTopicException),
        (wish("a/b", 1, 1), ErrorCode::InvalidTopicException),
        (wish("a_b", 1, 1), ErrorCode::InvalidTopicException),
        (wish("__cluster_metadata", 1, 1), ErrorCode::InvalidTopicException),
        (wish("taken", 1, 1), ErrorCode::TopicAlreadyExists),
        (wish("t", 0, 1), ErrorCode::InvalidPartitions),
        (wish("t", -2, 1), ErrorCode::InvalidPartitions),
        (wish("t", i32::MAX, 1), ErrorCode::InvalidPartitions),
        (wish("t", 1, 0), ErrorCode::InvalidReplicationFactor),
        (wish("t", 1, -2), ErrorCode::InvalidReplicationFactor),
        (wish("t", 1, 3), ErrorCode::InvalidReplicationFactor),
        (wish("t", 1, i32::MAX), ErrorCode::InvalidReplicationFactor),
        (configured("t", "nope", Some("1")), ErrorCode::InvalidConfig),
        (
            configured("t", "segment.bytes", Some("1")),
            ErrorCode::InvalidConfig,
        ),
        (configured("t", "segment.bytes", None), ErrorCode::InvalidConfig),
        (contradiction, ErrorCode::InvalidRequest),
        (assigned("t", &[(1, &[1])]), ErrorCode::InvalidReplicaAssignment),
        (assigned("t", &[(0, &[])]), ErrorCode::InvalidReplicaAssignment),
        (
            assigned("t", &[(0, &[1, 1])]),
            ErrorCode::InvalidReplicaAssignment,
        ),
        (
            assigned("t", &[(0, &[1, 9])]),
            ErrorCode::InvalidReplicaAssignment,
        ),
        (assigned("t", &[(0, &[3])]), ErrorCode::InvalidReplicaAssignment),
        (
            assigned("t", &[(0, &[1]), (1, &[1, 2])]),
            ErrorCode::InvalidReplicaAssignment,
        ),
    ];
    let before = cluster.image.clone();
    for (wish, expected) in cases {
        let created = create(&mut cluster, vec![wish.clone()]).remove(0);
        assert_eq!(code(created.error.as_ref()), expected, "{wish:?}");
    }
    assert_eq!(cluster.image, before);
}

#[test]
fn topics_of_one_request_know_of_each_other() {
    let mut cluster = Cluster::with_brokers(&[1], |_| "");
    let wishes = vec![
        wish("x.y", 1, 1),
        wish("x_y", 1, 1),
        wish("twice", 1, 1),
        wish("twice", 1, 1),
        wish("big", 9_999, 1),
        wish("more", 2, 1),
    ];
    let codes: Vec<_> = create(&mut cluster, wishes)
        .iter()
        .map(|created| code(created.error.as_ref()))
        .collect();
    assert_eq!(
        codes,
        [
            ErrorCode::None,
            ErrorCode::InvalidTopicException,
            ErrorCode::InvalidRequest,
            ErrorCode::InvalidRequest,
            ErrorCode::None,
            ErrorCode::PolicyViolation,
        ]
    );
}

#[test]
fn only_live_replicas_of_an_assignment_begin_in_sync() {
    let mut cluster = Cluster::with_brokers(&[1, 2, 3], |_| "");
    cluster.fence(1);
    let tp = cluster.create("t", &[1, 2, 3], &[]);
    assert_eq!(cluster.state(tp), (Some(2), vec![2, 3], vec![]));
}

/// Found in simulation: such a partition lost its only candidate with that broker's disk and stayed without
/// a leader, although nothing had been acknowledged that the others lacked.
#[test]
fn with_fewer_live_replicas_than_acknowledge_the_others_begin_eligible() {
    let mut cluster = Cluster::with_brokers(&[1, 2, 3], |_| "");
    cluster.fence(1);
    cluster.fence(2);
    let tp = cluster.create("t", &[1, 2, 3], &[]);
    let alone = cluster.create("alone", &[1, 2, 3], &[("min.insync.replicas", "1")]);
    assert_eq!(cluster.state(tp), (Some(3), vec![3], vec![1, 2]));
    assert_eq!(
        cluster.state(alone),
        (Some(3), vec![3], vec![]),
        "what 3 acknowledges alone the others lack"
    );
    let mut wiped = cluster.registration(3);
    wiped.log_dirs = vec![dir(33).to_vec().into()];
    cluster.register(&wiped);
    assert_eq!(cluster.state(tp), (None, vec![], vec![1, 2]));
    assert_eq!(cluster.state(alone), (None, vec![], vec![]));
    cluster.unfence(1);
    assert_eq!(cluster.state(tp), (Some(1), vec![1], vec![2]));
}

#[test]
fn validate_only_and_auto_create_create_nothing_they_should_not() {
    let mut cluster = Cluster::with_brokers(&[1], |_| "");
    let validated = cluster.create_with(&CreateTopicsRequest {
        topics: vec![wish("t", 1, 1)],
        validate_only: true,
        ..CreateTopicsRequest::default()
    });
    assert_eq!(code(validated[0].error.as_ref()), ErrorCode::None);
    let auto = cluster.create_with(&CreateTopicsRequest {
        topics: vec![wish("__consumer_offsets", 1, 1)],
        auto_create: true,
        ..CreateTopicsRequest::default()
    });
    assert_eq!(code(auto[0].error.as_ref()), ErrorCode::InvalidTopicException);
    assert!(cluster.image.topics.is_empty());
}

#[test]
fn partitions_are_added() {
    let mut cluster = Cluster::with_brokers(&[1, 2, 3], |_| "");
    let offsets = "__consumer_offsets";
    create(
        &mut cluster,
        vec![wish("t", 2, 2), wish("u", 1, 2), wish(offsets, 1, 2)],
    );
    let more = |name: &str, count: i32, assignments: &[&[i32]]| NewPartitions {
        name: name.to_owned(),
        count,
        assignments: assigned(name, &assignments.iter().map(|a| (0, *a)).collect::<Vec<_>>()).assignments,
    };
    let cases = vec![
        (more("nope", 3, &[]), ErrorCode::UnknownTopicOrPartition),
        (more("t", 2, &[]), ErrorCode::InvalidPartitions),
        (more("t", 1, &[]), ErrorCode::InvalidPartitions),
        (more("t", -5, &[]), ErrorCode::InvalidPartitions),
        (more("t", i32::MAX, &[]), ErrorCode::InvalidPartitions),
        (more(offsets, 2, &[]), ErrorCode::InvalidPartitions),
        (more("t", 4, &[&[1, 2]]), ErrorCode::InvalidReplicaAssignment),
        (more("t", 3, &[&[1]]), ErrorCode::InvalidReplicaAssignment),
        (more("t", 3, &[&[1, 7]]), ErrorCode::InvalidReplicaAssignment),
        (more("t", 4, &[]), ErrorCode::None),
        (more("u", 2, &[&[3, 1]]), ErrorCode::None),
    ];
    for (wish, expected) in cases {
        let request = CreatePartitionsRequest {
            topics: vec![wish.clone()],
            ..CreatePartitionsRequest::default()
        };
        let outcome = decisions::create_partitions(cluster.view(), &request, 1);
        let reply = cluster.commit(outcome);
        assert_eq!(code(reply[0].error.as_ref()), expected, "{wish:?}");
    }
    assert_eq!(cluster.image.topic("t").expect("there").partitions.len(), 4);
    let u = cluster.image.topic("u").expect("there");
    let last = u.partitions.values().next_back().expect("two");
    assert_eq!(last.replicas, [BrokerId(3), BrokerId(1)]);
}

#[test]
fn topics_are_deleted_by_name_and_by_id() {
    let mut cluster = Cluster::with_brokers(&[1], |_| "");
    let created = create(
        &mut cluster,
        vec![configured("t", "retention.ms", Some("1")), wish("u", 1, 1)],
    );
    let by_name = |name: &str| TopicRef {
        name: name.to_owned(),
        ..TopicRef::default()
    };
    let by_id = |id: &[u8]| TopicRef {
        topic_id: id.to_vec().into(),
        ..TopicRef::default()
    };
    let request = DeleteTopicsRequest {
        topics: vec![
            by_name("t"),
            by_id(&created[1].topic_id),
            by_name("nope"),
            by_id(&[9; 16]),
            by_name("u"),
        ],
        timeout_ms: 0,
    };
    cluster.defaults(&[("delete.topic.enable", "false")]);
    let refused = decisions::delete_topics(cluster.view(), &request);
    assert_eq!(
        code(refused.reply[0].error.as_ref()),
        ErrorCode::TopicDeletionDisabled
    );
    cluster.defaults(&[]);
    let mut delete = |request: &DeleteTopicsRequest| {
        let outcome = decisions::delete_topics(cluster.view(), request);
        let deleted = cluster.commit(outcome);
        let codes = deleted.iter().map(|deleted| code(deleted.error.as_ref()));
        codes.collect::<Vec<_>>()
    };
    assert_eq!(
        delete(&request),
        [
            ErrorCode::None,
            // By its id and by its name: twice, and so not at all.
            ErrorCode::InvalidRequest,
            ErrorCode::UnknownTopicOrPartition,
            ErrorCode::UnknownTopicId,
            ErrorCode::InvalidRequest,
        ]
    );
    let once = DeleteTopicsRequest {
        topics: vec![by_id(&created[1].topic_id)],
        timeout_ms: 0,
    };
    assert_eq!(delete(&once), [ErrorCode::None]);
    assert!(cluster.image.topics.is_empty() && cluster.image.configs.is_empty());
    assert!(cluster.image.partitions_by_broker.is_empty());
}
