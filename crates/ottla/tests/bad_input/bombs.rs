//! Batches that open to far more than they are. What a batch may cost in memory is nothing, what it may
//! cost in time is bounded, and it costs others nothing.

use std::{io::Write, thread, time::Duration};

use bytes::Bytes;
use protocol::{
    ErrorCode,
    batch::{BatchBuilder, put_varint},
};

use crate::{
    ground::{only_partition, produce_request},
    scene::Scene,
};

const MIB: usize = 1 << 20;
/// What a bomb may cost in processor time, also unoptimised, the healthy client's share included.
const PUT_OUT: Duration = Duration::from_secs(20);

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn lz4(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// What a record of `size` zeros begins with; the zeros and one more follow.
fn head_of_zeros(size: usize) -> Vec<u8> {
    let mut fields = vec![0, 0, 0, 1];
    put_varint(&mut fields, size as i64);
    let mut framed = Vec::new();
    put_varint(&mut framed, (fields.len() + size + 1) as i64);
    framed.extend_from_slice(&fields);
    framed
}

/// One record of `times` MiB of zeros and a little, each MiB compressed by itself: streams that follow
/// each other open as one.
fn bomb(codec: i16, compress: impl Fn(&[u8]) -> Vec<u8>, times: usize) -> Bytes {
    let zeros = compress(&vec![0; MIB]);
    let mut records = compress(&head_of_zeros(times * MIB));
    for _ in 0..times {
        records.extend_from_slice(&zeros);
    }
    records.extend_from_slice(&compress(&[0]));
    around(&records, codec)
}

fn around(records: &[u8], codec: i16) -> Bytes {
    let header = BatchBuilder {
        attributes: codec,
        ..BatchBuilder::default()
    };
    header.build(records, 1).into()
}

#[test]
fn bombs_are_put_out() {
    let scene = Scene::start(&[]);
    let topic = scene.topic("bombs");
    let zstd = |bytes: &[u8]| zstd::stream::encode_all(bytes, 1).unwrap();
    let raw_snappy = |bytes: &[u8]| snap::raw::Encoder::new().compress_vec(bytes).unwrap();
    let large = ErrorCode::MessageTooLarge;
    let invalid = ErrorCode::InvalidRecord;
    // A frame of blocks of one repeated byte, as dense as LZ4 can be.
    let dense_lz4 = lz4(&[head_of_zeros(40 * MIB), vec![0; 40 * MIB + 1]].concat());
    let dense_snappy = raw_snappy(&[head_of_zeros(8 * MIB), vec![0; 8 * MIB + 1]].concat());
    // xerial's framing around a block that claims 4 GiB.
    let claim = [
        &b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01\0\0\0\x06"[..],
        &[0xff, 0xff, 0xff, 0xff, 0x0f, 0],
    ]
    .concat();
    let rows = [
        ("gzip, 60 MiB", bomb(1, gzip, 60), vec![large]),
        ("zstd, 2,000 MiB", bomb(4, zstd, 2000), vec![large]),
        ("snappy, a claim of 4 GiB", around(&claim, 2), vec![invalid]),
        // These two cannot open to more than 22 and 255 times what they are: nothing to put out.
        ("snappy, 8 MiB", around(&dense_snappy, 2), vec![ErrorCode::None]),
        ("lz4, 40 MiB", around(&dense_lz4, 3), vec![ErrorCode::None]),
    ];
    for (what, batch, expected) in rows {
        let row = format!("{what} in {} KiB", batch.len().div_ceil(1024));
        let before = scene.resident_mib();
        let cpu = scene.cpu_time();
        let mut client = scene.client();
        let answer = only_partition(client.call(13, &produce_request(13, &topic, -1, batch)));
        let code = ErrorCode::from_code(answer.error_code).unwrap();
        assert!(
            expected.contains(&code),
            "{row}: {code}: {:?}",
            answer.error_message
        );
        let took = scene.cpu_time().saturating_sub(cpu);
        assert!(took < PUT_OUT, "{row}: {took:?}");
        scene.expect_given_back(before, 64, &row);
        scene.after(
            &row,
            &format!("{} after {took:.1?} of processor time", code.name()),
        );
    }
}

/// More bombs at a time than there are threads: whoever sends small batches does not wait for them.
#[test]
fn bombs_in_a_crowd_disturb_nobody() {
    let scene = Scene::start(&[]);
    let topic = scene.topic("crowd");
    let batch = bomb(1, gzip, 20);
    thread::scope(|threads| {
        for _ in 0..8 {
            threads.spawn(|| {
                let mut client = scene.client();
                let answer = only_partition(client.call(13, &produce_request(13, &topic, -1, batch.clone())));
                assert_eq!(answer.error_code, ErrorCode::MessageTooLarge.code());
            });
        }
    });
    scene.after("8 gzip bombs at once", "MESSAGE_TOO_LARGE each");
}
