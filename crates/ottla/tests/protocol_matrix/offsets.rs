//! ListOffsets, OffsetForLeaderEpoch and DeleteRecords: questions about a log's ends and middle.

use kafka_protocol::messages::{
    DeleteRecordsRequest, ListOffsetsRequest, OffsetForLeaderEpochRequest,
    delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic},
    list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
    list_offsets_response::ListOffsetsPartitionResponse,
    offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic},
};
use protocol::{ErrorCode, batch::BatchBuilder};

use crate::{
    ground::{TIMEOUT_MS, Topic, produce, topic},
    support::{Client, DevNode, batch, batch_with, topic_name},
};

const EARLY: i64 = 1_700_000_000_000;
const LATE: i64 = EARLY + 1000;

pub(crate) fn list_offsets(node: &DevNode, version: i16) {
    let topic = topic(node, &format!("list-offsets-{version}"));
    let mut client = node.client();
    for (timestamp, values) in [(EARLY, &[&b"a"[..], b"b"][..]), (LATE, &[b"c"])] {
        let header = BatchBuilder {
            base_timestamp: timestamp,
            max_timestamp: timestamp,
            ..BatchBuilder::default()
        };
        produce(&mut client, &topic, batch_with(&header, values));
    }

    let unsupported = (ErrorCode::UnsupportedVersion, -1, -1);
    let from = |first: i16, answer| if version >= first { answer } else { unsupported };
    for (asked, expected) in [
        (-1, (ErrorCode::None, 3, -1)),
        (-2, (ErrorCode::None, 0, -1)),
        (-3, from(7, (ErrorCode::None, 2, LATE))),
        (-4, from(8, (ErrorCode::None, 0, -1))),
        (-5, from(9, (ErrorCode::None, -1, -1))),
        (0, (ErrorCode::None, 0, EARLY)),
        (EARLY, (ErrorCode::None, 0, EARLY)),
        (EARLY + 1, (ErrorCode::None, 2, LATE)),
        (LATE + 1, (ErrorCode::None, -1, -1)),
        (-99, unsupported),
    ] {
        let answer = ask(&mut client, version, &topic.name, asked);
        let got = (answer.error_code, answer.offset, answer.timestamp);
        assert_eq!(
            got,
            (expected.0.code(), expected.1, expected.2),
            "timestamp {asked}"
        );
        let has_epoch = version >= 4 && answer.offset >= 0;
        assert_eq!(
            answer.leader_epoch,
            if has_epoch { 0 } else { -1 },
            "timestamp {asked}"
        );
    }
    let unknown = ask(&mut client, version, "not-there", -1);
    assert_eq!(unknown.error_code, ErrorCode::UnknownTopicOrPartition.code());
}

fn ask(client: &mut Client, version: i16, topic: &str, timestamp: i64) -> ListOffsetsPartitionResponse {
    let request = ListOffsetsRequest::default()
        .with_replica_id((-1).into())
        .with_topics(vec![
            ListOffsetsTopic::default()
                .with_name(topic_name(topic))
                .with_partitions(vec![ListOffsetsPartition::default().with_timestamp(timestamp)]),
        ]);
    let mut answer = client.call(version, &request);
    assert_eq!(answer.topics[0].name.as_str(), topic);
    answer.topics[0].partitions.remove(0)
}

pub(crate) fn offset_for_leader_epoch(node: &DevNode, version: i16) {
    let topic = topic(node, &format!("leader-epoch-{version}"));
    let mut client = node.client();
    produce(&mut client, &topic, batch(&[b"a", b"b"]));
    for (epoch, current, expected) in [
        (0, -1, (ErrorCode::None, 0, 2)),
        (0, 0, (ErrorCode::None, 0, 2)),
        (9, -1, (ErrorCode::None, -1, -1)),
        (0, 5, (ErrorCode::UnknownLeaderEpoch, -1, -1)),
    ] {
        let request = OffsetForLeaderEpochRequest::default()
            .with_replica_id((-1).into())
            .with_topics(vec![
                OffsetForLeaderTopic::default()
                    .with_topic(topic_name(&topic.name))
                    .with_partitions(vec![
                        OffsetForLeaderPartition::default()
                            .with_current_leader_epoch(current)
                            .with_leader_epoch(epoch),
                    ]),
            ]);
        let answer = client
            .call(version, &request)
            .topics
            .remove(0)
            .partitions
            .remove(0);
        assert_eq!(
            (answer.error_code, answer.leader_epoch, answer.end_offset),
            (expected.0.code(), expected.1, expected.2),
            "epoch {epoch}, current {current}"
        );
    }
}

pub(crate) fn delete_records(node: &DevNode, version: i16) {
    let topic = topic(node, &format!("delete-records-{version}"));
    let mut client = node.client();
    for value in [b"a", b"b", b"c"] {
        produce(&mut client, &topic, batch(&[value]));
    }
    let mut delete = |offset| {
        let request = delete_records_request(&topic, offset);
        let mut answer = client.call(version, &request);
        let partition = answer.topics[0].partitions.remove(0);
        (partition.error_code, partition.low_watermark)
    };
    assert_eq!(delete(2), (0, 2));
    assert_eq!(delete(1), (0, 2), "the log start never goes back");
    assert_eq!(delete(99), (ErrorCode::OffsetOutOfRange.code(), -1));
    assert_eq!(delete(-7), (ErrorCode::OffsetOutOfRange.code(), -1));
    assert_eq!(delete(-1), (0, 3));
    let answer = ask(&mut client, 1, &topic.name, -2);
    assert_eq!(answer.offset, 3);
}

/// Removes everything before `offset`.
pub(crate) fn delete_records_request(topic: &Topic, offset: i64) -> DeleteRecordsRequest {
    DeleteRecordsRequest::default()
        .with_timeout_ms(TIMEOUT_MS)
        .with_topics(vec![
            DeleteRecordsTopic::default()
                .with_name(topic_name(&topic.name))
                .with_partitions(vec![DeleteRecordsPartition::default().with_offset(offset)]),
        ])
}
