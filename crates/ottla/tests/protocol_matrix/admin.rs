//! CreateTopics, DeleteTopics, CreatePartitions and ElectLeaders: requests that the active controller
//! decides.

use kafka_protocol::messages::{
    CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest, ElectLeadersRequest, MetadataRequest,
    create_partitions_request::CreatePartitionsTopic,
    create_topics_request::{CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig},
    delete_topics_request::DeleteTopicState,
    elect_leaders_request::TopicPartitions,
    metadata_request::MetadataRequestTopic,
    metadata_response::MetadataResponseTopic,
};
use protocol::ErrorCode;
use uuid::Uuid;

use crate::{
    ground::{TIMEOUT_MS, topic},
    support::{Client, DevNode, text, topic_name},
};

pub(crate) fn create_topics(node: &DevNode, version: i16) {
    let mut client = node.client();
    let name = format!("create-topics-{version}");
    let wanted = CreatableTopic::default()
        .with_name(topic_name(&name))
        .with_num_partitions(2)
        .with_replication_factor(1)
        .with_configs(vec![
            CreatableTopicConfig::default()
                .with_name(text("retention.ms"))
                .with_value(Some(text("5000"))),
        ]);
    let request = |topic: CreatableTopic, validate_only| {
        CreateTopicsRequest::default()
            .with_timeout_ms(TIMEOUT_MS)
            .with_validate_only(validate_only)
            .with_topics(vec![topic])
    };

    let tried = client
        .call(version, &request(wanted.clone(), true))
        .topics
        .remove(0);
    assert_eq!(tried.error_code, 0, "{:?}", tried.error_message);
    assert_eq!(
        describe(&mut client, &name).error_code,
        ErrorCode::UnknownTopicOrPartition.code()
    );

    let created = client
        .call(version, &request(wanted.clone(), false))
        .topics
        .remove(0);
    assert_eq!(created.error_code, 0, "{:?}", created.error_message);
    assert_eq!(created.name.as_str(), name);
    if version >= 5 {
        assert_eq!((created.num_partitions, created.replication_factor), (2, 1));
        let configs = created.configs.unwrap();
        let retention = configs
            .iter()
            .find(|config| config.name.as_str() == "retention.ms")
            .unwrap();
        assert_eq!(retention.value, Some(text("5000")));
        assert!(!retention.read_only && !retention.is_sensitive);
    }
    let described = describe(&mut client, &name);
    assert_eq!((described.error_code, described.partitions.len()), (0, 2));
    if version >= 7 {
        assert_eq!(created.topic_id, described.topic_id);
    }

    let mut refusal = |topic: CreatableTopic| {
        let answer = client.call(version, &request(topic, false)).topics.remove(0);
        let has_message = answer.error_message.is_some_and(|message| !message.is_empty());
        assert!(has_message, "a refusal says why");
        answer.error_code
    };
    let other = || wanted.clone().with_name(topic_name("create-topics-refused"));
    assert_eq!(refusal(wanted.clone()), ErrorCode::TopicAlreadyExists.code());
    assert_eq!(
        refusal(other().with_replication_factor(3)),
        ErrorCode::InvalidReplicationFactor.code()
    );
    assert_eq!(
        refusal(other().with_num_partitions(0)),
        ErrorCode::InvalidPartitions.code()
    );
    let nonsense = CreatableTopicConfig::default()
        .with_name(text("retention.ms"))
        .with_value(Some(text("soon")));
    assert_eq!(
        refusal(other().with_configs(vec![nonsense])),
        ErrorCode::InvalidConfig.code()
    );

    let placed = wanted
        .clone()
        .with_name(topic_name(&format!("{name}-placed")))
        .with_num_partitions(-1)
        .with_replication_factor(-1)
        .with_assignments(vec![
            CreatableReplicaAssignment::default()
                .with_partition_index(0)
                .with_broker_ids(vec![1.into()]),
        ]);
    let created = client.call(version, &request(placed, false)).topics.remove(0);
    assert_eq!(created.error_code, 0, "{:?}", created.error_message);
}

pub(crate) fn delete_topics(node: &DevNode, version: i16) {
    let mut client = node.client();
    let name = format!("delete-topics-{version}");
    let by_name = |name: &str| {
        let request = DeleteTopicsRequest::default().with_timeout_ms(TIMEOUT_MS);
        if version >= 6 {
            request.with_topics(vec![
                DeleteTopicState::default().with_name(Some(topic_name(name))),
            ])
        } else {
            request.with_topic_names(vec![topic_name(name)])
        }
    };
    topic(node, &name);
    let deleted = client.call(version, &by_name(&name)).responses.remove(0);
    assert_eq!(deleted.error_code, 0, "{:?}", deleted.error_message);
    assert_eq!(deleted.name, Some(topic_name(&name)));
    assert_eq!(
        describe(&mut client, &name).error_code,
        ErrorCode::UnknownTopicOrPartition.code()
    );
    let again = client.call(version, &by_name(&name)).responses.remove(0);
    assert_eq!(again.error_code, ErrorCode::UnknownTopicOrPartition.code());
    if version >= 6 {
        let created = topic(node, &name);
        let by_id = |id| {
            DeleteTopicsRequest::default()
                .with_timeout_ms(TIMEOUT_MS)
                .with_topics(vec![
                    DeleteTopicState::default().with_name(None).with_topic_id(id),
                ])
        };
        let deleted = client.call(version, &by_id(created.id)).responses.remove(0);
        assert_eq!((deleted.error_code, deleted.topic_id), (0, created.id));
        let unknown = client
            .call(version, &by_id(Uuid::from_u128(3)))
            .responses
            .remove(0);
        assert_eq!(unknown.error_code, ErrorCode::UnknownTopicId.code());
    }
}

pub(crate) fn create_partitions(node: &DevNode, version: i16) {
    let mut client = node.client();
    let topic = topic(node, &format!("create-partitions-{version}"));
    let mut raise = |name: &str, count| {
        let request = CreatePartitionsRequest::default()
            .with_timeout_ms(TIMEOUT_MS)
            .with_topics(vec![
                CreatePartitionsTopic::default()
                    .with_name(topic_name(name))
                    .with_count(count)
                    .with_assignments(None),
            ]);
        let result = client.call(version, &request).results.remove(0);
        assert_eq!(result.name.as_str(), name);
        assert_eq!(result.error_message.is_some(), result.error_code != 0);
        result.error_code
    };
    assert_eq!(raise(&topic.name, 3), 0);
    assert_eq!(raise(&topic.name, 2), ErrorCode::InvalidPartitions.code());
    assert_eq!(raise(&topic.name, 3), ErrorCode::InvalidPartitions.code());
    assert_eq!(raise("not-there", 3), ErrorCode::UnknownTopicOrPartition.code());
    assert_eq!(describe(&mut client, &topic.name).partitions.len(), 3);
}

pub(crate) fn elect_leaders(node: &DevNode, version: i16) {
    let mut client = node.client();
    let topic = topic(node, &format!("elect-leaders-{version}"));
    let of = |name: &str, partition| {
        ElectLeadersRequest::default()
            .with_timeout_ms(TIMEOUT_MS)
            .with_topic_partitions(Some(vec![
                TopicPartitions::default()
                    .with_topic(topic_name(name))
                    .with_partitions(vec![partition]),
            ]))
    };
    let mut code = |request: &ElectLeadersRequest| {
        let answer = client.call(version, request);
        assert_eq!(answer.error_code, 0);
        answer.replica_election_results[0].partition_result[0].error_code
    };
    assert_eq!(code(&of(&topic.name, 0)), ErrorCode::ElectionNotNeeded.code());
    assert_eq!(
        code(&of(&topic.name, 9)),
        ErrorCode::UnknownTopicOrPartition.code()
    );
    if version >= 1 {
        let unclean = of(&topic.name, 0).with_election_type(1);
        assert_eq!(code(&unclean), ErrorCode::ElectionNotNeeded.code());
    }
    let everywhere = of(&topic.name, 0).with_topic_partitions(None);
    let answer = client.call(version, &everywhere);
    assert_eq!((answer.error_code, answer.replica_election_results.len()), (0, 0));
}

/// The topic as Metadata describes it.
fn describe(client: &mut Client, name: &str) -> MetadataResponseTopic {
    let request = MetadataRequest::default()
        .with_allow_auto_topic_creation(false)
        .with_topics(Some(vec![
            MetadataRequestTopic::default().with_name(Some(topic_name(name))),
        ]));
    client.call(12, &request).topics.remove(0)
}
