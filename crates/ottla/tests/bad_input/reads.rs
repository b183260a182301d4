//! Fetches, lookups and epochs that ask for what there is not.

use kafka_protocol::messages::{
    BrokerId, FetchRequest, ListOffsetsRequest, OffsetForLeaderEpochRequest,
    fetch_request::{FetchPartition, FetchTopic},
    fetch_response::PartitionData,
    list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
    offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic},
};
use protocol::ErrorCode;

use crate::{
    ground::{Topic, produce},
    scene::Scene,
    support::{Client, batch, topic_name},
};

pub(crate) fn fetch_request(topic: &Topic, from: i64) -> FetchRequest {
    FetchRequest::default()
        .with_min_bytes(1)
        .with_max_bytes(64 << 20)
        .with_topics(vec![
            FetchTopic::default()
                .with_topic_id(topic.id)
                .with_partitions(vec![
                    FetchPartition::default()
                        .with_fetch_offset(from)
                        .with_partition_max_bytes(64 << 20),
                ]),
        ])
}

/// What the topic's one partition answers to a fetch.
pub(crate) fn fetch_from(client: &mut Client, topic: &Topic, from: i64) -> PartitionData {
    only(client, &fetch_request(topic, from))
}

fn only(client: &mut Client, request: &FetchRequest) -> PartitionData {
    let mut answer = client.call(16, request);
    assert_eq!((answer.error_code, answer.responses.len()), (0, 1));
    answer.responses.remove(0).partitions.remove(0)
}

fn name(code: i16) -> &'static str {
    ErrorCode::from_code(code).map_or("an unknown code", ErrorCode::name)
}

#[test]
fn offsets_outside_the_log() {
    let scene = Scene::shared();
    let topic = scene.topic("offsets-outside");
    let mut client = scene.client();
    for _ in 0..3 {
        produce(&mut client, &topic, batch(&[b"a"]));
    }
    for from in [-1, -2, i64::MIN, 4, i64::MAX] {
        let answer = fetch_from(&mut client, &topic, from);
        assert_eq!(answer.error_code, ErrorCode::OffsetOutOfRange.code(), "{from}");
        assert_eq!(answer.records.as_deref(), Some(&[][..]));
        scene.after(&format!("fetch from {from}, log 0–3"), name(answer.error_code));
    }
    assert_eq!(
        fetch_from(&mut client, &topic, 3).error_code,
        0,
        "the end is no error"
    );
}

#[test]
fn epochs_that_never_were() {
    let scene = Scene::shared();
    let topic = scene.topic("epochs");
    let mut client = scene.client();
    produce(&mut client, &topic, batch(&[b"a"]));
    for epoch in [1, 1000, i32::MAX] {
        let mut fetch = fetch_request(&topic, 0);
        fetch.topics[0].partitions[0].current_leader_epoch = epoch;
        let expected = ErrorCode::UnknownLeaderEpoch.code();
        assert_eq!(only(&mut client, &fetch).error_code, expected);
        assert_eq!(list_offsets(&mut client, &topic, epoch), expected);
        assert_eq!(offset_for_epoch(&mut client, &topic, epoch), expected);
        scene.after(
            &format!("Fetch, ListOffsets, OffsetForLeaderEpoch with future epoch {epoch}"),
            name(expected),
        );
    }
    // Stale epochs: see the two brokers.
}

/// What ListOffsets answers to a client that takes `epoch` for the current one.
pub(crate) fn list_offsets(client: &mut Client, topic: &Topic, epoch: i32) -> i16 {
    let ask = ListOffsetsRequest::default().with_topics(vec![
        ListOffsetsTopic::default()
            .with_name(topic_name(&topic.name))
            .with_partitions(vec![
                ListOffsetsPartition::default()
                    .with_timestamp(-1)
                    .with_current_leader_epoch(epoch),
            ]),
    ]);
    client.call(10, &ask).topics[0].partitions[0].error_code
}

/// What OffsetForLeaderEpoch answers to a client that takes `epoch` for the current one.
pub(crate) fn offset_for_epoch(client: &mut Client, topic: &Topic, epoch: i32) -> i16 {
    let ask = OffsetForLeaderEpochRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_topics(vec![
            OffsetForLeaderTopic::default()
                .with_topic(topic_name(&topic.name))
                .with_partitions(vec![
                    OffsetForLeaderPartition::default()
                        .with_current_leader_epoch(epoch)
                        .with_leader_epoch(0),
                ]),
        ]);
    client.call(4, &ask).topics[0].partitions[0].error_code
}

#[test]
fn limits_and_identities_that_make_no_sense() {
    let scene = Scene::shared();
    let topic = scene.topic("limits");
    let mut client = scene.client();
    produce(&mut client, &topic, batch(&[b"a"]));

    let mut negative = fetch_request(&topic, 0)
        .with_min_bytes(i32::MIN)
        .with_max_bytes(-1)
        .with_max_wait_ms(i32::MIN);
    negative.topics[0].partitions[0].partition_max_bytes = i32::MIN;
    assert_eq!(only(&mut client, &negative).error_code, 0);
    scene.after("fetch with negative limits", "one batch, NONE");

    let mut nowhere = fetch_request(&topic, 0);
    nowhere.topics[0].partitions[0].partition = -3;
    let code = only(&mut client, &nowhere).error_code;
    assert_eq!(code, ErrorCode::UnknownTopicOrPartition.code());
    scene.after("fetch of partition −3", name(code));

    let mut follower = fetch_request(&topic, 0);
    follower.replica_state.replica_id = BrokerId(1);
    let code = client.call(16, &follower).error_code;
    assert_eq!(code, ErrorCode::InvalidRequest.code());
    scene.after("fetch that claims to be broker 1's", name(code));
}
