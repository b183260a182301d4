//! Names and numbers that no topic has. No directory is ever made from one.

use std::path::Path;

use kafka_protocol::messages::{
    CreatePartitionsRequest, CreateTopicsRequest, MetadataRequest,
    create_partitions_request::CreatePartitionsTopic,
    create_topics_request::{CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig},
    metadata_request::MetadataRequestTopic,
};
use protocol::ErrorCode;
use uuid::Uuid;

use crate::{
    ground::{TIMEOUT_MS, Topic, only_partition, produce, produce_request},
    scene::Scene,
    support::{Client, batch, text, topic_name},
};

fn create(client: &mut Client, topic: CreatableTopic) -> ErrorCode {
    let request = CreateTopicsRequest::default()
        .with_timeout_ms(TIMEOUT_MS)
        .with_topics(vec![topic]);
    let answer = client.call(7, &request).topics.remove(0);
    assert!(
        answer.error_code == 0 || answer.error_message.is_some_and(|text| !text.is_empty()),
        "an error says why"
    );
    ErrorCode::from_code(answer.error_code).unwrap()
}

fn wished(name: &str, partitions: i32, replication_factor: i16) -> CreatableTopic {
    CreatableTopic::default()
        .with_name(topic_name(name))
        .with_num_partitions(partitions)
        .with_replication_factor(replication_factor)
}

#[test]
fn names_that_are_none() {
    let scene = Scene::shared();
    let mut client = scene.client();
    let long = "x".repeat(250);
    for (what, name) in [
        ("..", ".."),
        (".", "."),
        ("a/b", "a/b"),
        ("../../escape", "../../escape"),
        ("/tmp/escape", "/tmp/escape"),
        ("a NUL b", "a\0b"),
        ("empty", ""),
        ("250 characters", &long),
        ("a blank", "a b"),
        ("ä", "ä"),
    ] {
        let invalid = ErrorCode::InvalidTopicException;
        assert_eq!(create(&mut client, wished(name, 1, 1)), invalid, "{what}");
        let asked = MetadataRequest::default()
            .with_allow_auto_topic_creation(true)
            .with_topics(Some(vec![
                MetadataRequestTopic::default().with_name(Some(topic_name(name))),
            ]));
        let answer = client.call(12, &asked).topics.remove(0);
        assert_eq!(answer.error_code, invalid.code(), "{what}: Metadata");
        let topic = Topic {
            name: name.to_owned(),
            id: Uuid::nil(),
        };
        let answer = only_partition(client.call(9, &produce_request(9, &topic, -1, batch(&[b"x"]))));
        // A real broker looks for the topic and does not judge its name.
        let unknown = ErrorCode::UnknownTopicOrPartition;
        assert_eq!(answer.error_code, unknown.code(), "{what}: Produce");
        scene.after(
            &format!("topic named {what}: CreateTopics, Metadata; Produce"),
            &format!("{}; {}", invalid.name(), unknown.name()),
        );
    }
    // Every directory below the data's is one of a topic that was created by a good name, or our own.
    for directory in scene.directories() {
        let name = directory.file_name().unwrap().to_str().unwrap();
        assert!(
            !name.contains("escape") && !name.starts_with("xxx") && !name.contains(['\0', ' ', 'ä']),
            "{directory:?}"
        );
        assert!(name.len() < 250, "{directory:?}");
    }
    let data = scene.node.data();
    let beside: Vec<_> = std::fs::read_dir(data.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(
        beside.len(),
        2,
        "the data and the log, nothing beside: {beside:?}"
    );
    assert!(!Path::new("/tmp/escape").exists() && !Path::new("/tmp/escape-0").exists());

    // The longest name that is one can be created and written to.
    let longest = "y".repeat(249);
    let topic = scene.topic(&longest);
    assert_eq!(produce(&mut client, &topic, batch(&[b"a"])), 0);
    scene.after("topic named with 249 characters", "NONE");
}

#[test]
fn numbers_that_are_none() {
    let scene = Scene::shared();
    let mut client = scene.client();
    scene.topic("grows");
    let before = scene.resident_mib();
    for partitions in [i32::MAX, i32::MAX - 1, 0, -2, i32::MIN] {
        let code = create(&mut client, wished("numbers", partitions, 1));
        assert_eq!(code, ErrorCode::InvalidPartitions, "{partitions}");
        scene.after(&format!("CreateTopics, {partitions} partitions"), code.name());
    }
    for count in [i32::MAX, 0, -1, i32::MIN, 1] {
        let request = CreatePartitionsRequest::default()
            .with_timeout_ms(TIMEOUT_MS)
            .with_topics(vec![
                CreatePartitionsTopic::default()
                    .with_name(topic_name("grows"))
                    .with_count(count),
            ]);
        let answer = client.call(3, &request).results.remove(0);
        assert_eq!(answer.error_code, ErrorCode::InvalidPartitions.code(), "{count}");
        scene.after(&format!("CreatePartitions, {count}"), "INVALID_PARTITIONS");
    }
    // Other tests have the same node, and what they needed for a while.
    scene.expect_given_back(before, 100, "numbers that are none");

    let many = create(&mut client, wished("numbers", 200_000, 1));
    assert_eq!(many, ErrorCode::InvalidPartitions, "{many}");
    scene.after("CreateTopics, 200,000 partitions", many.name());
    let request = CreateTopicsRequest::default()
        .with_timeout_ms(TIMEOUT_MS)
        .with_validate_only(true)
        .with_topics(vec![wished("half", 6000, 1), wished("too-much", 6000, 1)]);
    let codes: Vec<i16> = client
        .call(7, &request)
        .topics
        .iter()
        .map(|topic| topic.error_code)
        .collect();
    let policy = ErrorCode::PolicyViolation;
    assert_eq!(codes, [0, policy.code()]);
    scene.after("CreateTopics, 2 × 6,000 partitions in one request", policy.name());
    for factor in [2, i16::MAX, 0, -2, i16::MIN] {
        let code = create(&mut client, wished("numbers", 1, factor));
        assert_eq!(code, ErrorCode::InvalidReplicationFactor, "{factor}");
        scene.after(
            &format!("CreateTopics, replication factor {factor} with 1 broker"),
            code.name(),
        );
    }
    let nobody = CreatableReplicaAssignment::default().with_broker_ids(vec![77.into()]);
    let code = create(
        &mut client,
        wished("numbers", -1, -1).with_assignments(vec![nobody]),
    );
    assert_eq!(code, ErrorCode::InvalidReplicaAssignment);
    scene.after("CreateTopics, assigned to broker 77", code.name());
    for (key, value) in [
        ("retension.ms", "1"),
        ("retention.ms", "soon"),
        ("segment.bytes", "-1"),
    ] {
        let config = CreatableTopicConfig::default()
            .with_name(text(key))
            .with_value(Some(text(value)));
        let code = create(&mut client, wished("numbers", 1, 1).with_configs(vec![config]));
        assert_eq!(code, ErrorCode::InvalidConfig, "{key}={value}");
        scene.after(&format!("CreateTopics, {key}={value}"), code.name());
    }
}
