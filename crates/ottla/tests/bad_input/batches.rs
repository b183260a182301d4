//! Record batches that no sound producer sends: refused by name, and never in the log.

use bytes::Bytes;
use kafka_protocol::messages::TransactionalId;
use protocol::{
    ErrorCode,
    batch::{BatchBuilder, put_varint, renew_crc},
};

use crate::{
    ground::{Topic, only_partition, produce, produce_request},
    reads::fetch_from,
    scene::Scene,
    support::{Client, batch, batch_with, text},
};

const MAGIC_AT: usize = 16;
const CRC_AT: usize = 17;
const LAST_OFFSET_DELTA_AT: usize = 23;
const RECORD_COUNT_AT: usize = 57;
const LENGTH_AT: usize = 8;
const HEADER_LEN: usize = 61;

fn three() -> Bytes {
    batch(&[b"one", b"two", b"three"])
}

/// A sound batch with some bytes overwritten and its checksum made right again.
fn forged(at: usize, bytes: &[u8]) -> Bytes {
    let mut batch = three().to_vec();
    batch[at..at + bytes.len()].copy_from_slice(bytes);
    renew_crc(&mut batch);
    batch.into()
}

/// The same, its checksum left as it was.
fn overwritten(at: usize, bytes: &[u8]) -> Bytes {
    let mut batch = three().to_vec();
    batch[at..at + bytes.len()].copy_from_slice(bytes);
    batch.into()
}

/// A batch whose header is sound, around these bytes.
fn around(records: &[u8], attributes: i16, count: i32) -> Bytes {
    let header = BatchBuilder {
        attributes,
        ..BatchBuilder::default()
    };
    header.build(records, count).into()
}

/// One record whose fields after the deltas are these bytes.
fn record(fields: &[u8]) -> Vec<u8> {
    let mut framed = Vec::new();
    put_varint(&mut framed, fields.len() as i64 + 3);
    framed.extend_from_slice(&[0, 0, 0]);
    framed.extend_from_slice(fields);
    framed
}

/// Sends the batch; what is answered, by name. Nothing of it may be in the log afterwards.
fn refused(client: &mut Client, topic: &Topic, batch: Bytes, expected: ErrorCode, row: &str) {
    let answer = only_partition(client.call(13, &produce_request(13, topic, -1, batch)));
    assert_eq!(
        ErrorCode::from_code(answer.error_code),
        Some(expected),
        "{row}: {:?}",
        answer.error_message
    );
    assert_eq!(answer.base_offset, -1, "{row}");
    assert_eq!(
        fetch_from(client, topic, 0).high_watermark,
        0,
        "{row}: something was appended"
    );
}

/// Sends every batch of the row, and closes it.
fn row(scene: &Scene, topic: &Topic, what: &str, expected: ErrorCode, batches: Vec<Bytes>) {
    let mut client = scene.client();
    for batch in batches {
        refused(&mut client, topic, batch, expected, what);
    }
    scene.after(what, expected.name());
}

#[test]
fn damaged_batches() {
    let scene = Scene::shared();
    let topic = scene.topic("damaged");
    let length = |length: i32| overwritten(LENGTH_AT, &length.to_be_bytes());
    let size = three().len() as i32 - 12;
    let corrupt = ErrorCode::CorruptMessage;
    row(
        &scene,
        &topic,
        "wrong CRC",
        corrupt,
        vec![
            overwritten(CRC_AT, &[1, 2, 3, 4]),
            overwritten(RECORD_COUNT_AT + 6, &[0xff]),
        ],
    );
    let cuts = (1..three().len()).map(|cut| three().slice(..cut)).collect();
    row(&scene, &topic, "batch cut off at every byte", corrupt, cuts);
    let negative = [-1, i32::MIN, 0, 48].map(length).to_vec();
    row(&scene, &topic, "batch length −1, −2³¹, 0, 48", corrupt, negative);
    let inconsistent = [size + 1, size - 1, i32::MAX].map(length).to_vec();
    row(
        &scene,
        &topic,
        "batch length one more, one less, 2³¹−1",
        corrupt,
        inconsistent,
    );
    let mut client = scene.client();
    assert_eq!(
        produce(&mut client, &topic, three()),
        0,
        "a sound batch is the first"
    );
}

#[test]
fn batches_that_contradict_themselves() {
    let scene = Scene::shared();
    let topic = scene.topic("contradictions");
    let invalid = ErrorCode::InvalidRecord;
    let count = |count: i32| forged(RECORD_COUNT_AT, &count.to_be_bytes());
    let delta = |delta: i32| forged(LAST_OFFSET_DELTA_AT, &delta.to_be_bytes());
    row(
        &scene,
        &topic,
        "record count ≠ lastOffsetDelta+1",
        invalid,
        [2, 4, 0, -1, i32::MIN, i32::MAX]
            .map(count)
            .into_iter()
            .chain([0, 1, 3, -1, i32::MIN, i32::MAX].map(delta))
            .collect(),
    );
    let mut both = forged(RECORD_COUNT_AT, &i32::MAX.to_be_bytes()).to_vec();
    both[LAST_OFFSET_DELTA_AT..LAST_OFFSET_DELTA_AT + 4].copy_from_slice(&(i32::MAX - 1).to_be_bytes());
    renew_crc(&mut both);
    row(
        &scene,
        &topic,
        "2³¹−1 records declared, three there",
        invalid,
        vec![both.into()],
    );
    row(
        &scene,
        &topic,
        "magic 0, 1, 3, −1",
        invalid,
        [0, 1, 3, 0xff]
            .map(|magic| overwritten(MAGIC_AT, &[magic]))
            .to_vec(),
    );
    row(
        &scene,
        &topic,
        "no batch, two batches, a control batch",
        invalid,
        vec![
            Bytes::new(),
            [three(), three()].concat().into(),
            around(&three()[HEADER_LEN..], 0x20, 3),
        ],
    );
}

#[test]
fn nested_garbage() {
    let scene = Scene::shared();
    let topic = scene.topic("garbage");
    let overflow = [0xff; 11];
    let records: [(&str, Vec<u8>); 7] = [
        ("noise", b"nothing that is a record".to_vec()),
        ("nothing at all", Vec::new()),
        ("a varint that overflows", overflow.to_vec()),
        ("a negative record length", vec![0x01]),
        (
            // Null key, null value, and a header count of 2³¹−1.
            "2³¹−1 headers",
            record(&[1, 1, 0xfe, 0xff, 0xff, 0xff, 0x0f]),
        ),
        (
            // A key of 2³¹−1 bytes.
            "a key longer than its record",
            record(&[0xfe, 0xff, 0xff, 0xff, 0x0f, 1, 0]),
        ),
        (
            "bytes after the last record",
            [record(&[1, 1, 0]), vec![0]].concat(),
        ),
    ];
    for (what, inside) in records {
        let mut sent = vec![around(&inside, 0, 1)];
        sent.extend((1..=4).map(|codec| around(&inside, codec, 1)));
        let gzip = crate::bombs::gzip(&inside);
        sent.push(around(&gzip, 1, 1));
        let what = format!("{what}: plain, as if compressed, in gzip");
        row(&scene, &topic, &what, ErrorCode::InvalidRecord, sent);
    }
    let unknown = (5..=7).map(|codec| around(b"", codec, 1)).collect();
    row(
        &scene,
        &topic,
        "compression codes 5, 6, 7",
        ErrorCode::UnsupportedCompressionType,
        unknown,
    );
    let never = BatchBuilder {
        base_timestamp: i64::MAX - 1,
        max_timestamp: i64::MAX - 1,
        ..BatchBuilder::default()
    };
    row(
        &scene,
        &topic,
        "a timestamp at the end of time",
        ErrorCode::InvalidTimestamp,
        vec![batch_with(&never, &[b"late"])],
    );
}

#[test]
fn too_large_and_wrongly_acknowledged() {
    let scene = Scene::shared();
    let topic = scene.topic("too-large");
    let large = batch(&[&vec![b'x'; 1_048_588]]);
    row(
        &scene,
        &topic,
        "a batch above max.message.bytes",
        ErrorCode::MessageTooLarge,
        vec![large],
    );
    let mut client = scene.client();
    for acks in [7, 2, -2, i16::MIN, i16::MAX] {
        let answer = only_partition(client.call(13, &produce_request(13, &topic, acks, three())));
        assert_eq!(answer.error_code, ErrorCode::InvalidRequiredAcks.code());
        assert_eq!(fetch_from(&mut client, &topic, 0).high_watermark, 0);
        scene.after(&format!("acks={acks}"), "INVALID_REQUIRED_ACKS");
    }
    let transactional =
        produce_request(13, &topic, -1, three()).with_transactional_id(Some(TransactionalId(text("nobody"))));
    let answer = only_partition(client.call(13, &transactional));
    assert_ne!(answer.error_code, 0);
    assert_eq!(fetch_from(&mut client, &topic, 0).high_watermark, 0);
    scene.after(
        "a transactional id that was never registered",
        ErrorCode::from_code(answer.error_code).map_or("?", ErrorCode::name),
    );
}

/// With acks=0 there is no answer to put an error into.
#[test]
fn an_unacknowledged_failure_closes_the_connection() {
    let scene = Scene::shared();
    let topic = scene.topic("unacknowledged");
    let mut client = scene.client();
    let broken = overwritten(CRC_AT, &[1, 2, 3, 4]);
    client.send(13, &produce_request(13, &topic, 0, broken));
    client.expect_silent_close("acks=0 and a wrong CRC");
    scene.after("acks=0 and a wrong CRC", "closed without a word");
}

/// Requests that need long to be judged, between others that do not, are appended in their order.
#[test]
fn the_order_of_requests_is_the_order_of_appends() {
    let scene = Scene::shared();
    let topic = scene.topic("order");
    let mut client = scene.client();
    let large = batch(&[&vec![b'x'; 1_000_000]]);
    let mut sent = Vec::new();
    for _ in 0..4 {
        for batch in [large.clone(), three(), batch(&[b"small"])] {
            sent.push(client.send(13, &produce_request(13, &topic, -1, batch)));
        }
    }
    let mut expected = 0;
    for (at, correlation_id) in sent.into_iter().enumerate() {
        let answer = client.receive::<kafka_protocol::messages::ProduceRequest>(13, correlation_id);
        let answer = only_partition(answer);
        assert_eq!((answer.error_code, answer.base_offset), (0, expected));
        expected += [1, 3, 1][at % 3];
    }
    scene.after("12 requests in a row, large and small", "appended in their order");

    // A client that sends without acknowledgement and leaves: what it sent is appended.
    let mut hasty = scene.client();
    hasty.send(13, &produce_request(13, &topic, 0, large));
    drop(hasty);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while fetch_from(&mut client, &topic, expected).high_watermark == expected {
        assert!(std::time::Instant::now() < deadline, "its record is lost");
    }
    scene.after("acks=0 and gone", "appended");
}
