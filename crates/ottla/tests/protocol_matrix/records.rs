//! Produce and Fetch: what was sent is what comes back, in every pair of versions.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{
    FetchRequest, FetchResponse, InitProducerIdRequest, ProduceRequest, TransactionalId,
    fetch_request::{FetchPartition, FetchTopic},
    fetch_response::PartitionData,
};
use protocol::{
    ErrorCode, Offset,
    batch::{BatchBuilder, verify_crc},
};
use uuid::Uuid;

use crate::{
    ground::{Topic, only_partition, produce as produce_batch, produce_request, topic},
    support::{Client, DevNode, batch, batch_with, records_of, text, topic_name},
};

/// Versions 0–2 are advertised for old librdkafka's sake, and close the connection.
const FIRST_SERVED: i16 = 3;

pub(crate) fn produce(node: &DevNode, version: i16) {
    if version < FIRST_SERVED {
        let mut client = node.client();
        client.send_frame(&old_produce(version));
        client.expect_silent_close("a produce request of a version that is not served");
        return;
    }
    let topic = topic(node, &format!("produce-{version}"));
    let mut client = node.client();

    let first = client.call(
        version,
        &produce_request(version, &topic, -1, batch(&[b"a", b"b"])),
    );
    if version >= 13 {
        assert_eq!(first.responses[0].topic_id, topic.id);
    } else {
        assert_eq!(first.responses[0].name.as_str(), topic.name);
    }
    let first = only_partition(first);
    assert_eq!(
        (first.error_code, first.base_offset),
        (0, 0),
        "{:?}",
        first.error_message
    );
    assert_eq!(
        first.log_append_time_ms, -1,
        "the clock of the records is the producer's"
    );
    assert_eq!(first.log_start_offset, if version >= 5 { 0 } else { -1 });
    let second = only_partition(client.call(version, &produce_request(version, &topic, 1, batch(&[b"c"]))));
    assert_eq!((second.error_code, second.base_offset), (0, 2));

    // acks=0 has no answer: the next one is to the next request.
    client.send(version, &produce_request(version, &topic, 0, batch(&[b"d"])));
    let after = only_partition(client.call(version, &produce_request(version, &topic, -1, batch(&[b"e"]))));
    assert_eq!((after.error_code, after.base_offset), (0, 4));

    // Five requests at once are appended and answered in their order.
    let sent: Vec<i32> = (0..5)
        .map(|_| client.send(version, &produce_request(version, &topic, -1, batch(&[b"p"]))))
        .collect();
    for (position, correlation_id) in sent.into_iter().enumerate() {
        let answer = client.receive::<ProduceRequest>(version, correlation_id);
        assert_eq!(only_partition(answer).base_offset, 5 + position as i64);
    }

    let nowhere = Topic {
        name: "not-there".to_owned(),
        id: Uuid::from_u128(1),
    };
    let refused =
        only_partition(client.call(version, &produce_request(version, &nowhere, -1, batch(&[b"x"]))));
    let expected = if version >= 13 {
        ErrorCode::UnknownTopicId
    } else {
        ErrorCode::UnknownTopicOrPartition
    };
    assert_eq!((refused.error_code, refused.base_offset), (expected.code(), -1));

    let transactional = produce_request(version, &topic, -1, batch(&[b"x"]))
        .with_transactional_id(Some(TransactionalId(text("t"))));
    let refused = only_partition(client.call(version, &transactional));
    assert_eq!(
        refused.error_code,
        ErrorCode::TransactionalIdAuthorizationFailed.code()
    );

    idempotent(version, node, &mut client);
}

/// A producer's sequence numbers: the same batch twice is stored once, a gap is refused.
fn idempotent(version: i16, node: &DevNode, client: &mut Client) {
    let topic = topic(node, &format!("produce-idempotent-{version}"));
    let id = client
        .call(4, &InitProducerIdRequest::default().with_transactional_id(None))
        .producer_id;
    assert!(id.0 >= 0, "no producer id");
    let with_sequence = |base_sequence| {
        let header = BatchBuilder {
            producer_id: id.0,
            producer_epoch: 0,
            base_sequence,
            ..BatchBuilder::default()
        };
        produce_request(version, &topic, -1, batch_with(&header, &[b"once"]))
    };
    for (sequence, expected, offset) in [
        (0, ErrorCode::None, 0),
        (1, ErrorCode::None, 1),
        (0, ErrorCode::None, 0),
        (1, ErrorCode::None, 1),
        (7, ErrorCode::OutOfOrderSequenceNumber, -1),
        (2, ErrorCode::None, 2),
    ] {
        let answer = only_partition(client.call(version, &with_sequence(sequence)));
        assert_eq!(
            (answer.error_code, answer.base_offset),
            (expected.code(), offset),
            "sequence {sequence}"
        );
    }
}

/// A produce request of a version that the codec crate no longer knows.
fn old_produce(version: i16) -> Bytes {
    let mut body = BytesMut::new();
    body.put_i16(0);
    body.put_i16(version);
    body.put_i32(1);
    body.put_i16(-1); // client id
    body.put_i16(1); // acks
    body.put_i32(1000); // timeout
    body.put_i32(0); // topics
    body.freeze()
}

pub(crate) fn fetch(node: &DevNode, version: i16) {
    let topic = topic(node, &format!("fetch-{version}"));
    let mut client = node.client();
    let sent = [batch(&[b"a", b"b"]), batch(&[b"c"])];
    for batch in &sent {
        produce_batch(&mut client, &topic, batch.clone());
    }

    // From the beginning, and from inside a batch: the whole batch comes.
    for from in [0, 1] {
        for isolation in [0, 1] {
            let request = fetch_request(version, &topic, from).with_isolation_level(isolation);
            let answer = partition(version, &topic, client.call(version, &request));
            assert_eq!(answer.error_code, 0);
            assert_eq!((answer.high_watermark, answer.last_stable_offset), (3, 3));
            assert_eq!(answer.log_start_offset, if version >= 5 { 0 } else { -1 });
            assert_eq!(answer.preferred_read_replica.0, -1);
            let got = records_of(&answer.records.expect("records are never null"));
            assert_eq!(got.len(), 2);
            for ((header, bytes), (sent, offset)) in got.iter().zip(sent.iter().zip([0, 2])) {
                assert_eq!(header.base_offset, Offset(offset));
                verify_crc(bytes).unwrap();
                assert_eq!(bytes[16..], sent[16..], "what was sent, but for its place");
            }
        }
    }
    let answer = partition(
        version,
        &topic,
        client.call(version, &fetch_request(version, &topic, 2)),
    );
    assert_eq!(records_of(&answer.records.unwrap())[0].0.base_offset, Offset(2));

    // A first batch beyond every limit comes all the same, and nothing after it.
    let mut tight = fetch_request(version, &topic, 0).with_max_bytes(1);
    tight.topics[0].partitions[0].partition_max_bytes = 1;
    let answer = partition(version, &topic, client.call(version, &tight));
    assert_eq!(records_of(&answer.records.unwrap()).len(), 1);

    // At the end there is nothing: empty, not null.
    let answer = partition(
        version,
        &topic,
        client.call(version, &fetch_request(version, &topic, 3)),
    );
    assert_eq!((answer.error_code, answer.records.as_deref()), (0, Some(&[][..])));

    // A fetch that waits is woken by what is produced: it would wait for longer than the client.
    let waiting = fetch_request(version, &topic, 3).with_max_wait_ms(300_000);
    let correlation_id = client.send(version, &waiting);
    produce_batch(&mut node.client(), &topic, batch(&[b"d"]));
    let answer = partition(
        version,
        &topic,
        client.receive::<FetchRequest>(version, correlation_id),
    );
    assert_eq!(records_of(&answer.records.unwrap())[0].0.base_offset, Offset(3));

    let beyond = partition(
        version,
        &topic,
        client.call(version, &fetch_request(version, &topic, 99)),
    );
    assert_eq!(beyond.error_code, ErrorCode::OffsetOutOfRange.code());
    let nowhere = Topic {
        name: "not-there".to_owned(),
        id: Uuid::from_u128(1),
    };
    let refused = partition(
        version,
        &nowhere,
        client.call(version, &fetch_request(version, &nowhere, 0)),
    );
    let expected = if version >= 13 {
        ErrorCode::UnknownTopicId
    } else {
        ErrorCode::UnknownTopicOrPartition
    };
    assert_eq!(refused.error_code, expected.code());
    assert_eq!(refused.records.as_deref(), Some(&[][..]));

    if version >= 7 {
        // A session is declined when asked for, and unknown when used.
        let answer = client.call(version, &fetch_request(version, &topic, 0).with_session_epoch(0));
        assert_eq!((answer.error_code, answer.session_id), (0, 0));
        let unknown = fetch_request(version, &topic, 0)
            .with_session_id(77)
            .with_session_epoch(3);
        let answer = client.call(version, &unknown);
        assert_eq!(answer.error_code, ErrorCode::FetchSessionIdNotFound.code());
    }
    if version >= 9 {
        // A client that knows of a newer leader than this broker does.
        let mut early = fetch_request(version, &topic, 0);
        early.topics[0].partitions[0].current_leader_epoch = 1000;
        let answer = partition(version, &topic, client.call(version, &early));
        assert_eq!(answer.error_code, ErrorCode::UnknownLeaderEpoch.code());
    }
}

fn fetch_request(version: i16, topic: &Topic, from: i64) -> FetchRequest {
    let wanted = FetchTopic::default().with_partitions(vec![
        FetchPartition::default()
            .with_fetch_offset(from)
            .with_partition_max_bytes(1 << 20),
    ]);
    let wanted = if version >= 13 {
        wanted.with_topic_id(topic.id)
    } else {
        wanted.with_topic(topic_name(&topic.name))
    };
    FetchRequest::default()
        .with_min_bytes(1)
        .with_max_bytes(1 << 20)
        .with_topics(vec![wanted])
}

/// The one partition of a fetch answer.
fn partition(version: i16, topic: &Topic, mut response: FetchResponse) -> PartitionData {
    assert_eq!((response.error_code, response.session_id), (0, 0));
    assert_eq!(response.responses.len(), 1);
    let mut answered = response.responses.remove(0);
    if version >= 13 {
        assert_eq!(answered.topic_id, topic.id);
    } else {
        assert_eq!(answered.topic.as_str(), topic.name);
    }
    assert_eq!(answered.partitions.len(), 1);
    answered.partitions.remove(0)
}
