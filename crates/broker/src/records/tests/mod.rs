//! Batches as clients write them, and as nobody should.

use std::io::{Read, Write};

use bytes::Bytes;
use protocol::{
    ErrorCode, Offset,
    batch::{self, BatchBuilder, BatchHeader, Compression, TimestampType, put_record, put_varint},
    records::{Malformed, OpenBounds, first_at_or_after, largest_timestamp, open, recompress},
};

use super::*;

mod codecs;
mod properties;
mod search;
mod seeds;
mod validation;
mod validator;

const NOW: i64 = 1_700_000_000_000;
const CODECS: [Compression; 5] = [
    Compression::None,
    Compression::Gzip,
    Compression::Snappy,
    Compression::Lz4,
    Compression::Zstd,
];

/// A record to be framed.
#[derive(Clone, Debug)]
struct Rec {
    timestamp_delta: i64,
    offset_delta: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

fn rec(offset_delta: i64, key: Option<&[u8]>, value: Option<&[u8]>) -> Rec {
    Rec {
        timestamp_delta: offset_delta,
        offset_delta,
        key: key.map(Vec::from),
        value: value.map(Vec::from),
        headers: Vec::new(),
    }
}

fn framed(records: &[Rec]) -> Vec<u8> {
    let mut out = Vec::new();
    for record in records {
        let headers: Vec<_> = record
            .headers
            .iter()
            .map(|(key, value)| (&key[..], value.as_deref()))
            .collect();
        let pair = (record.key.as_deref(), record.value.as_deref());
        put_record(
            &mut out,
            record.timestamp_delta,
            record.offset_delta,
            pair,
            headers,
        );
    }
    out
}

fn builder(records: &[Rec]) -> BatchBuilder {
    let latest = records.iter().map(|r| NOW + r.timestamp_delta).max();
    BatchBuilder {
        base_timestamp: NOW,
        max_timestamp: latest.unwrap_or(-1),
        ..BatchBuilder::default()
    }
}

fn plain(records: &[Rec]) -> Bytes {
    builder(records)
        .build(&framed(records), records.len() as i32)
        .into()
}

/// The batch with its records compressed by our own writers.
fn compressed(batch: &[u8], codec: Compression) -> Bytes {
    if codec == Compression::None {
        return Bytes::copy_from_slice(batch);
    }
    recompress(batch, &batch[batch::HEADER_LEN..], codec, usize::MAX)
        .expect("no limit")
        .into()
}

/// A batch that says `codec` around these bytes, which are taken as compressed already.
fn around(records: &[u8], codec: i16, count: i32) -> Bytes {
    let builder = BatchBuilder {
        attributes: codec,
        base_timestamp: NOW,
        max_timestamp: NOW,
        ..BatchBuilder::default()
    };
    builder.build(records, count).into()
}

fn opened(batch: &[u8]) -> Vec<u8> {
    let codec = BatchHeader::parse(batch)
        .expect("whole")
        .compression()
        .expect("known");
    let mut out = Vec::new();
    open(codec, &batch[batch::HEADER_LEN..], OpenBounds::default())
        .expect("opens")
        .read_to_end(&mut out)
        .expect("within bounds");
    out
}

fn rules() -> RecordRules {
    RecordRules {
        now_ms: NOW,
        ..RecordRules::default()
    }
}

fn three() -> Vec<Rec> {
    let mut records = vec![
        rec(0, None, Some(b"a")),
        rec(1, Some(b"k"), None),
        rec(2, Some(b""), Some(&[b'x'; 300])),
    ];
    records[1].timestamp_delta = 50;
    records[2].headers = vec![
        (b"h".to_vec(), Some(b"1".to_vec())),
        (b"h".to_vec(), Some(b"2".to_vec())),
        (b"".to_vec(), None),
    ];
    records
}

#[track_caller]
fn refused(batch: impl Into<Bytes>, rules: &RecordRules, code: ErrorCode) -> RecordError {
    let error = validate(batch.into(), rules).expect_err("must be refused");
    assert_eq!(error.code(), code, "{error}");
    error
}

/// Changes a batch's bytes and makes its checksum right again.
fn forged(batch: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut bytes = batch.to_vec();
    change(&mut bytes);
    batch::renew_crc(&mut bytes);
    bytes.into()
}
