//! Metadata, ApiVersions, InitProducerId, DescribeCluster and DescribeTopicPartitions:
//! what a client learns before it sends a record.

use bytes::{Buf, BufMut, BytesMut};
use kafka_protocol::messages::{
    ApiVersionsRequest, DescribeClusterRequest, DescribeTopicPartitionsRequest, InitProducerIdRequest,
    MetadataRequest, MetadataResponse, TransactionalId, describe_topic_partitions_request::TopicRequest,
    metadata_request::MetadataRequestTopic,
};
use protocol::ErrorCode;
use uuid::Uuid;

use crate::{
    ADVERTISED,
    ground::topic,
    support::{DevNode, text, topic_name},
};

pub(crate) fn metadata(node: &DevNode, version: i16) {
    let topic = topic(node, &format!("metadata-{version}"));
    let mut client = node.client();
    let by_name = |name: &str| MetadataRequestTopic::default().with_name(Some(topic_name(name)));
    let request = MetadataRequest::default()
        .with_allow_auto_topic_creation(true)
        .with_include_topic_authorized_operations(version >= 8)
        .with_include_cluster_authorized_operations((8..=10).contains(&version));

    let answer = client.call(
        version,
        &request.clone().with_topics(Some(vec![by_name(&topic.name)])),
    );
    about_the_cluster(node, version, &answer);
    assert_eq!(answer.topics.len(), 1);
    let described = &answer.topics[0];
    assert_eq!(described.error_code, 0);
    assert_eq!(described.name.as_ref().unwrap().as_str(), topic.name);
    assert!(!described.is_internal);
    assert_eq!(
        described.topic_id,
        if version >= 10 { topic.id } else { Uuid::nil() }
    );
    assert_eq!(described.topic_authorized_operations != i32::MIN, version >= 8);
    assert_eq!(described.partitions.len(), 1);
    let partition = &described.partitions[0];
    assert_eq!((partition.error_code, partition.leader_id.0), (0, 1));
    assert_eq!(partition.leader_epoch, if version >= 7 { 0 } else { -1 });
    assert_eq!(
        (&partition.replica_nodes[..], &partition.isr_nodes[..]),
        (&[1.into()][..], &[1.into()][..])
    );
    assert!(partition.offline_replicas.is_empty());

    // All topics: an empty list in version 0, null from then on; then an empty list is none.
    let all = if version == 0 { Some(Vec::new()) } else { None };
    let answer = client.call(version, &request.clone().with_topics(all));
    let names: Vec<_> = answer
        .topics
        .iter()
        .filter_map(|topic| topic.name.clone())
        .collect();
    assert!(names.contains(&topic_name(&topic.name)), "{names:?}");
    if version > 0 {
        let answer = client.call(version, &request.clone().with_topics(Some(Vec::new())));
        assert!(answer.topics.is_empty());
        about_the_cluster(node, version, &answer);
    }

    if version >= 4 {
        let request = request
            .clone()
            .with_allow_auto_topic_creation(false)
            .with_topics(Some(vec![by_name("not-there")]));
        let answer = client.call(version, &request);
        assert_eq!(
            answer.topics[0].error_code,
            ErrorCode::UnknownTopicOrPartition.code()
        );
        assert_eq!(answer.topics[0].name, Some(topic_name("not-there")));
    }
    let answer = client.call(version, &request.clone().with_topics(Some(vec![by_name("a/b")])));
    assert_eq!(
        answer.topics[0].error_code,
        ErrorCode::InvalidTopicException.code()
    );

    // By id; Kafka allows a null name from version 12 on.
    if version >= 12 {
        let by_id = |id| MetadataRequestTopic::default().with_name(None).with_topic_id(id);
        let ids = vec![by_id(topic.id), by_id(Uuid::from_u128(5))];
        let answer = client.call(version, &request.clone().with_topics(Some(ids)));
        let of = |id| answer.topics.iter().find(|topic| topic.topic_id == id).unwrap();
        assert_eq!(of(topic.id).name, Some(topic_name(&topic.name)));
        let unknown = of(Uuid::from_u128(5));
        assert_eq!(
            (unknown.error_code, &unknown.name),
            (ErrorCode::UnknownTopicId.code(), &None)
        );
    }

    // A topic that is asked for is created, within the same request or the next.
    let wanted = format!("auto-created-{version}");
    let request = request.with_topics(Some(vec![by_name(&wanted)]));
    let created = (0..200).any(|_| client.call(version, &request).topics[0].error_code == 0);
    assert!(created, "the topic was not created");
}

fn about_the_cluster(node: &DevNode, version: i16, answer: &MetadataResponse) {
    assert_eq!(answer.error_code, 0);
    assert_eq!(answer.brokers.len(), 1);
    let broker = &answer.brokers[0];
    assert_eq!(broker.node_id.0, 1);
    assert_eq!(broker.port, i32::from(node.address().port()));
    assert_eq!(broker.rack, None);
    if version >= 1 {
        assert_eq!(answer.controller_id.0, 1);
    }
    assert_eq!(
        answer.cluster_id.as_ref().is_some_and(|id| !id.is_empty()),
        version >= 2
    );
    assert_eq!(
        answer.cluster_authorized_operations != i32::MIN,
        (8..=10).contains(&version)
    );
}

pub(crate) fn api_versions(node: &DevNode, version: i16) {
    let mut client = node.client();
    let mut request = ApiVersionsRequest::default();
    if version >= 3 {
        request = request
            .with_client_software_name(text("test"))
            .with_client_software_version(text("1.0"));
    }
    let answer = client.call(version, &request);
    assert_eq!((answer.error_code, answer.api_keys.len()), (0, ADVERTISED.len()));
    if version >= 3 {
        let nameless = client.call(version, &ApiVersionsRequest::default());
        assert_eq!(nameless.error_code, ErrorCode::InvalidRequest.code());
    }
    // The connection lives on.
    assert_eq!(client.call(version, &request).error_code, 0);
}

/// A newer client than the broker is told what to ask with, in a version that every client reads.
#[test]
fn an_unknown_api_versions_version_is_answered_in_version_0() {
    let node = DevNode::shared();
    let mut client = node.client();
    for version in [5, 99, i16::MAX, -1] {
        let mut request = BytesMut::new();
        request.put_i16(18);
        request.put_i16(version);
        request.put_i32(77);
        request.put_slice(b"\xff\xffwhatever a later version may say");
        client.send_frame(&request);
        let mut answer = client.receive_frame().unwrap();
        assert_eq!(answer.get_i32(), 77);
        assert_eq!(answer.get_i16(), ErrorCode::UnsupportedVersion.code());
        assert_eq!(answer.get_i32(), 1, "exactly one key");
        assert_eq!((answer.get_i16(), answer.get_i16(), answer.get_i16()), (18, 0, 4));
        assert!(answer.is_empty());
    }
    assert_eq!(client.call(0, &ApiVersionsRequest::default()).error_code, 0);
}

/// Requests that were sent together are answered one after the other, whatever they are.
#[test]
fn pipelined_requests_are_answered_in_order() {
    let node = DevNode::shared();
    let mut client = node.client();
    let metadata = MetadataRequest::default().with_topics(None);
    let sent: Vec<(i32, i32)> = (0..50)
        .map(|_| {
            (
                client.send(9, &metadata),
                client.send(0, &ApiVersionsRequest::default()),
            )
        })
        .collect();
    for (first, second) in sent {
        assert_eq!(client.receive::<MetadataRequest>(9, first).brokers.len(), 1);
        assert_eq!(client.receive::<ApiVersionsRequest>(0, second).error_code, 0);
    }
}

pub(crate) fn init_producer_id(node: &DevNode, version: i16) {
    let mut client = node.client();
    let request = InitProducerIdRequest::default()
        .with_transactional_id(None)
        .with_transaction_timeout_ms(1000);
    let first = client.call(version, &request);
    assert_eq!((first.error_code, first.producer_epoch), (0, 0));
    let second = client.call(version, &request);
    assert!(first.producer_id.0 >= 0 && second.producer_id.0 > first.producer_id.0);
    let empty = request
        .clone()
        .with_transactional_id(Some(TransactionalId(text(""))));
    assert_eq!(
        client.call(version, &empty).error_code,
        ErrorCode::InvalidRequest.code()
    );
    let transactional = request.with_transactional_id(Some(TransactionalId(text("t"))));
    let refused = client.call(version, &transactional);
    assert_eq!(
        (refused.error_code, refused.producer_id.0, refused.producer_epoch),
        (ErrorCode::TransactionalIdAuthorizationFailed.code(), -1, -1)
    );
}

pub(crate) fn describe_cluster(node: &DevNode, version: i16) {
    let mut client = node.client();
    let request = DescribeClusterRequest::default().with_include_cluster_authorized_operations(true);
    let answer = client.call(
        version,
        &request.clone().with_include_fenced_brokers(version >= 2),
    );
    assert_eq!((answer.error_code, &answer.error_message), (0, &None));
    assert!(!answer.cluster_id.is_empty());
    assert_eq!((answer.controller_id.0, answer.endpoint_type), (1, 1));
    assert_ne!(answer.cluster_authorized_operations, i32::MIN);
    assert_eq!(answer.brokers.len(), 1);
    assert_eq!(answer.brokers[0].port, i32::from(node.address().port()));
    assert!(!answer.brokers[0].is_fenced);
    if version >= 1 {
        let answer = client.call(version, &request.with_endpoint_type(2));
        assert_eq!(answer.error_code, ErrorCode::MismatchedEndpointType.code());
    }
}

pub(crate) fn describe_topic_partitions(node: &DevNode, version: i16) {
    let topic = topic(node, &format!("described-{version}"));
    let named = |name: &str| TopicRequest::default().with_name(topic_name(name));
    let request = DescribeTopicPartitionsRequest::default()
        .with_topics(vec![named(&topic.name), named("described-nowhere")])
        .with_response_partition_limit(2000);
    let mut client = node.client();
    let answer = client.call(version, &request);
    assert_eq!(answer.next_cursor, None);
    let [described, missing] = &answer.topics[..] else {
        panic!("two topics were asked for: {answer:?}");
    };
    assert_eq!(missing.error_code, ErrorCode::UnknownTopicOrPartition.code());
    assert_eq!((described.error_code, described.topic_id), (0, topic.id));
    assert_ne!(described.topic_authorized_operations, i32::MIN);
    let [partition] = &described.partitions[..] else {
        panic!("the topic has one partition: {described:?}");
    };
    assert_eq!((partition.error_code, partition.leader_id.0), (0, 1));
    assert_eq!(
        (&partition.replica_nodes[..], &partition.isr_nodes[..]),
        (&[1.into()][..], &[1.into()][..])
    );
    assert_eq!(partition.eligible_leader_replicas, Some(Vec::new()));
}
