//! Builds batches: the header around records, and the framing of each record.

use super::{HEADER_LEN, LENGTH_OVERHEAD, MAGIC, put_varint, renew_crc};
use crate::{LeaderEpoch, Offset};

/// A record's key and value, each of which may be null.
pub type KeyValue<'a> = (Option<&'a [u8]>, Option<&'a [u8]>);

/// A header's key, and its value, which may be null.
pub type HeaderField<'a> = (&'a [u8], Option<&'a [u8]>);

/// What [`BatchBuilder`] puts in a header besides the records.
#[derive(Clone, Copy, Debug)]
pub struct BatchBuilder {
    /// Offset of the first record.
    pub base_offset: Offset,
    /// Epoch of the appending leader.
    pub leader_epoch: LeaderEpoch,
    /// Attribute bits: compression, timestamp type, transactional, control.
    pub attributes: i16,
    /// Milliseconds since 1970 of the first record.
    pub base_timestamp: i64,
    /// Largest timestamp.
    pub max_timestamp: i64,
    /// Producer id, −1 for none.
    pub producer_id: i64,
    /// Producer epoch, −1 for none.
    pub producer_epoch: i16,
    /// Sequence of the first record, −1 for none.
    pub base_sequence: i32,
}

impl Default for BatchBuilder {
    fn default() -> Self {
        Self {
            base_offset: Offset::ZERO,
            leader_epoch: LeaderEpoch::ZERO,
            attributes: 0,
            base_timestamp: -1,
            max_timestamp: -1,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
        }
    }
}

impl BatchBuilder {
    /// A batch around `records`, already framed (and compressed, if the attributes say so), of
    /// which there are `count`, one an offset.
    ///
    /// # Panics
    /// When `records` are 2 GiB or more: no caller's limit allows that.
    pub fn build(&self, records: &[u8], count: i32) -> Vec<u8> {
        let length =
            i32::try_from(HEADER_LEN - LENGTH_OVERHEAD + records.len()).expect("a batch is below 2 GiB");
        let mut batch = Vec::with_capacity(HEADER_LEN + records.len());
        batch.extend_from_slice(&self.base_offset.0.to_be_bytes());
        batch.extend_from_slice(&length.to_be_bytes());
        batch.extend_from_slice(&self.leader_epoch.0.to_be_bytes());
        batch.push(MAGIC as u8);
        batch.extend_from_slice(&[0; 4]);
        batch.extend_from_slice(&self.attributes.to_be_bytes());
        batch.extend_from_slice(&(count - 1).max(0).to_be_bytes());
        batch.extend_from_slice(&self.base_timestamp.to_be_bytes());
        batch.extend_from_slice(&self.max_timestamp.to_be_bytes());
        batch.extend_from_slice(&self.producer_id.to_be_bytes());
        batch.extend_from_slice(&self.producer_epoch.to_be_bytes());
        batch.extend_from_slice(&self.base_sequence.to_be_bytes());
        batch.extend_from_slice(&count.to_be_bytes());
        batch.extend_from_slice(records);
        renew_crc(&mut batch);
        batch
    }

    /// A batch of uncompressed records given as (key, value), each at the base timestamp, without
    /// headers.
    pub fn build_records(&self, records: &[KeyValue<'_>]) -> Vec<u8> {
        let mut framed = Vec::new();
        for (delta, &pair) in records.iter().enumerate() {
            put_record(&mut framed, 0, delta as i64, pair, []);
        }
        self.build(&framed, records.len() as i32)
    }
}

/// Appends one framed record; the deltas are to the batch's base timestamp and base offset.
pub fn put_record<'a>(
    out: &mut Vec<u8>,
    timestamp_delta: i64,
    offset_delta: i64,
    (key, value): KeyValue<'_>,
    headers: impl IntoIterator<Item = HeaderField<'a>, IntoIter: ExactSizeIterator>,
) {
    let headers = headers.into_iter();
    let mut body = vec![0_u8];
    put_varint(&mut body, timestamp_delta);
    put_varint(&mut body, offset_delta);
    put_nullable(&mut body, key);
    put_nullable(&mut body, value);
    put_varint(&mut body, headers.len() as i64);
    for (key, value) in headers {
        put_nullable(&mut body, Some(key));
        put_nullable(&mut body, value);
    }
    put_varint(out, body.len() as i64);
    out.extend_from_slice(&body);
}

fn put_nullable(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    put_varint(out, bytes.map_or(-1, |bytes| bytes.len() as i64));
    out.extend_from_slice(bytes.unwrap_or_default());
}
