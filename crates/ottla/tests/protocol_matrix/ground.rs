//! What cases stand on: topics with records in them.

use std::{
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use kafka_protocol::messages::{
    CreateTopicsRequest, ListOffsetsRequest, ProduceRequest, ProduceResponse,
    create_topics_request::CreatableTopic,
    list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
    produce_request::{PartitionProduceData, TopicProduceData},
    produce_response::PartitionProduceResponse,
};
use protocol::ErrorCode;
use uuid::Uuid;

use crate::support::{Client, DevNode, topic_name};

/// Less than a client's patience, so that an answer says what took too long.
pub(crate) const TIMEOUT_MS: i32 = 50_000;

/// A topic of a case's own.
pub(crate) struct Topic {
    pub(crate) name: String,
    pub(crate) id: Uuid,
}

/// Creates a topic of one partition and waits until its leader serves it.
pub(crate) fn topic(node: &DevNode, name: &str) -> Topic {
    let mut client = node.client();
    let create = CreateTopicsRequest::default()
        .with_timeout_ms(TIMEOUT_MS)
        .with_topics(vec![
            CreatableTopic::default()
                .with_name(topic_name(name))
                .with_num_partitions(1)
                .with_replication_factor(1),
        ]);
    let created = client.call(7, &create).topics.remove(0);
    assert_eq!(created.error_code, 0, "{name}: {:?}", created.error_message);
    wait_for(name, || earliest(&mut client, name) == ErrorCode::None);
    Topic {
        name: name.to_owned(),
        id: created.topic_id,
    }
}

/// Asks again and again until it is so.
pub(crate) fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "{what} does not come");
        thread::sleep(Duration::from_millis(5));
    }
}

fn earliest(client: &mut Client, name: &str) -> ErrorCode {
    let ask = ListOffsetsRequest::default().with_topics(vec![
        ListOffsetsTopic::default()
            .with_name(topic_name(name))
            .with_partitions(vec![ListOffsetsPartition::default().with_timestamp(-2)]),
    ]);
    let answer = client.call(1, &ask);
    ErrorCode::from_code(answer.topics[0].partitions[0].error_code).unwrap()
}

/// A produce request to the topic's one partition, as `version` names topics.
pub(crate) fn produce_request(version: i16, topic: &Topic, acks: i16, batch: Bytes) -> ProduceRequest {
    let data = TopicProduceData::default()
        .with_partition_data(vec![PartitionProduceData::default().with_records(Some(batch))]);
    let data = if version >= 13 {
        data.with_topic_id(topic.id)
    } else {
        data.with_name(topic_name(&topic.name))
    };
    ProduceRequest::default()
        .with_acks(acks)
        .with_timeout_ms(TIMEOUT_MS)
        .with_topic_data(vec![data])
}

/// The one partition of a produce answer.
pub(crate) fn only_partition(mut response: ProduceResponse) -> PartitionProduceResponse {
    assert_eq!(response.responses.len(), 1);
    let mut topic = response.responses.remove(0);
    assert_eq!(topic.partition_responses.len(), 1);
    topic.partition_responses.remove(0)
}

/// Produces with acks=all; returns the first offset.
pub(crate) fn produce(client: &mut Client, topic: &Topic, batch: Bytes) -> i64 {
    let answer = only_partition(client.call(13, &produce_request(13, topic, -1, batch)));
    assert_eq!(answer.error_code, 0, "{:?}", answer.error_message);
    answer.base_offset
}
