//! Walks the records of a batch without decoding them, passing over their bytes or keeping them.
//!
//! ```text
//! length varint | attributes i8 | timestamp delta varlong | offset delta varint
//!   | key length varint, key | value length varint, value
//!   | header count varint | per header: key length varint, key, value length varint, value
//! ```

use std::io::{self, BufRead};

use super::open::TooMuchOutput;
use crate::batch::{BatchHeader, HeaderField, get_varint, put_varint};

/// How the offsets of a batch's records must go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deltas {
    /// 0, 1, 2, … as a producer writes them.
    Contiguous,
    /// Ascending, as compaction leaves them.
    Ascending,
}

/// What is wrong with the inside of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The batch ends before its records do.
    #[error("the batch ends before its declared records")]
    Missing,
    /// Bytes or records after the declared ones.
    #[error("bytes are left after the declared records")]
    Surplus,
    /// A varint that does not end or does not fit its type.
    #[error("varint overflow")]
    Varint,
    /// A length below what is possible.
    #[error("impossible length {0}")]
    Length(i64),
    /// The fields of a record take other bytes than it says it has.
    #[error("its fields take more or fewer bytes than its length says")]
    Extent,
    /// An offset out of order.
    #[error("offset delta {0} is out of order")]
    OffsetDelta(i32),
    /// What the codec could not open.
    #[error("the compressed data are damaged")]
    Compressed,
}

/// Why a walk ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WalkError {
    /// The records are not what they should be.
    #[error(transparent)]
    Malformed(Malformed),
    /// The batch opens to more bytes than allowed.
    #[error("the batch decompresses to more than {limit} bytes")]
    TooMuchOutput {
        /// What was allowed.
        limit: u64,
    },
    /// A record is larger than the walk takes.
    #[error("a record takes more than {limit} bytes")]
    RecordTooLarge {
        /// What it takes.
        limit: u64,
    },
}

impl From<Malformed> for WalkError {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

impl From<io::Error> for WalkError {
    /// Nothing here reads from a device: what fails is the codec, or our own bound.
    fn from(error: io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref()) {
            Some(&TooMuchOutput { limit }) => Self::TooMuchOutput { limit },
            None => Self::Malformed(Malformed::Compressed),
        }
    }
}

/// Where something lies within a record's bytes, its length in front included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    start: usize,
    len: usize,
}

impl Span {
    fn new(start: u64, len: u64) -> Self {
        // A record's length is an i32, and nothing in it is longer.
        Self {
            start: start as usize,
            len: len as usize,
        }
    }

    fn after(self, prefix: u64) -> Self {
        Self::new(self.start as u64 + prefix, self.len as u64)
    }

    /// These bytes of `record`, which the same walk kept.
    ///
    /// # Panics
    /// When `record` is another one, or the walk kept nothing.
    pub fn of(self, record: &[u8]) -> &[u8] {
        &record[self.start..self.start + self.len]
    }

    /// How many bytes.
    pub fn len(self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.len == 0
    }
}

/// What is looked at in a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordView {
    /// Offset relative to the batch's base offset.
    pub offset_delta: i32,
    /// Milliseconds since 1970 by the producer's clock, −1 for none.
    pub timestamp: i64,
    /// Where the key is, if there is one.
    pub key: Option<Span>,
    /// Where the value is, if there is one: a record without is a tombstone.
    pub value: Option<Span>,
    /// Where the headers are, behind their count.
    headers: Span,
    header_count: i32,
}

impl RecordView {
    /// How many headers the record has.
    pub fn header_count(&self) -> usize {
        // The walk has seen so many.
        self.header_count as usize
    }

    /// The record's headers, in their order; `record` is what the same walk kept.
    pub fn headers<'a>(&self, record: &'a [u8]) -> Vec<HeaderField<'a>> {
        let mut rest = self.headers.of(record);
        // The walk has seen to the framing; were it not so, the rest would be left out. Only a value's
        // length can be negative: null.
        let mut part = || {
            let (length, taken) = get_varint(rest)?;
            let part = match usize::try_from(length) {
                Ok(length) => Some(rest.get(taken..taken.checked_add(length)?)?),
                Err(_) => None,
            };
            rest = &rest[taken + part.map_or(0, <[u8]>::len)..];
            Some(part)
        };
        (0..self.header_count)
            .map_while(|_| Some((part()?.unwrap_or_default(), part()?)))
            .collect()
    }

    /// The keys of the record's headers; `record` is what the same walk kept.
    pub fn header_keys<'a>(&self, record: &'a [u8]) -> Vec<&'a [u8]> {
        self.headers(record).into_iter().map(|(key, _)| key).collect()
    }
}

/// Appends `record`, as a walk kept it, with another timestamp delta; every other byte but the length
/// stays. `None`: the bytes are no record.
#[must_use]
pub fn put_with_timestamp_delta(out: &mut Vec<u8>, record: &[u8], delta: i64) -> Option<()> {
    let (_, length) = get_varint(record)?;
    let (_, old_delta) = get_varint(record.get(length + 1..)?)?;
    let rest = record.get(length + 1 + old_delta..)?;
    let mut varint = Vec::with_capacity(10);
    put_varint(&mut varint, delta);
    put_varint(out, (1 + varint.len() + rest.len()) as i64);
    out.push(record[length]);
    out.extend_from_slice(&varint);
    out.extend_from_slice(rest);
    Some(())
}

/// A walk over the (opened) records of one batch.
#[derive(Debug)]
pub struct RecordWalk<R> {
    input: R,
    deltas: Deltas,
    base_timestamp: i64,
    last_offset_delta: i32,
    record_count: i32,
    /// Records walked so far: the index of the next, or of the one at fault.
    index: i32,
    previous_delta: i32,
    /// The record walked last, where records are kept.
    kept: Option<Vec<u8>>,
    /// Bytes of the largest record that is taken.
    record_limit: u64,
}

impl<R: BufRead> RecordWalk<R> {
    /// Starts before the first record; `input` yields the batch's records, opened.
    pub fn new(input: R, header: &BatchHeader, deltas: Deltas) -> Self {
        Self {
            input,
            deltas,
            base_timestamp: header.base_timestamp,
            last_offset_delta: header.last_offset_delta,
            record_count: header.record_count,
            index: 0,
            previous_delta: -1,
            kept: None,
            record_limit: u64::MAX,
        }
    }

    /// Like [`RecordWalk::new`], keeping the bytes of the record walked last for
    /// [`RecordWalk::record`]. Memory grows with what is really there, to the size of the largest
    /// record.
    pub fn keeping(input: R, header: &BatchHeader, deltas: Deltas) -> Self {
        Self {
            kept: Some(Vec::new()),
            ..Self::new(input, header, deltas)
        }
    }

    /// Refuses a record of more than `bytes` bytes, before anything of it is kept.
    #[must_use]
    pub fn with_records_of(self, bytes: u64) -> Self {
        Self {
            record_limit: bytes,
            ..self
        }
    }

    /// The bytes of the record walked last, its length in front; empty where nothing is kept.
    pub fn record(&self) -> &[u8] {
        self.kept.as_deref().unwrap_or_default()
    }

    /// Index of the record that comes next, or at which the walk failed.
    pub fn index(&self) -> i32 {
        self.index
    }

    /// The next record; `None` after the last, when nothing follows it.
    pub fn next_record(&mut self) -> Result<Option<RecordView>, WalkError> {
        if self.index >= self.record_count {
            return if self.input.fill_buf()?.is_empty() {
                Ok(None)
            } else {
                Err(Malformed::Surplus.into())
            };
        }
        if let Some(kept) = &mut self.kept {
            kept.clear();
        }
        let mut prefix = 0;
        let length = self.length(1, i64::MAX, &mut prefix)? as u64;
        if length > self.record_limit {
            return Err(WalkError::RecordTooLarge {
                limit: self.record_limit,
            });
        }
        let mut taken = 0;
        self.skip(1, &mut taken)?;
        let timestamp_delta = self.varlong(&mut taken)?;
        let offset_delta = self.varint(&mut taken)?;
        let key = self.sized(length, &mut taken)?;
        let value = self.sized(length, &mut taken)?;
        // Each header takes at least two bytes, which bounds the loop by the bytes there are.
        let header_count = self.length(0, (length / 2) as i64, &mut taken)? as i32;
        let headers_at = taken;
        for _ in 0..header_count {
            let key = self.length(0, length as i64, &mut taken)?;
            self.skip(key as u64, &mut taken)?;
            self.sized(length, &mut taken)?;
        }
        if taken != length {
            return Err(Malformed::Extent.into());
        }
        let in_order = match self.deltas {
            Deltas::Contiguous => offset_delta == self.index,
            Deltas::Ascending => offset_delta > self.previous_delta,
        };
        if !in_order || offset_delta > self.last_offset_delta {
            return Err(Malformed::OffsetDelta(offset_delta).into());
        }
        self.previous_delta = offset_delta;
        self.index += 1;
        Ok(Some(RecordView {
            offset_delta,
            // As Kafka's own clients compute it, wrapping.
            timestamp: self.base_timestamp.wrapping_add(timestamp_delta),
            key: key.map(|key| key.after(prefix)),
            value: value.map(|value| value.after(prefix)),
            headers: Span::new(headers_at, taken - headers_at).after(prefix),
            header_count,
        }))
    }

    /// Skips a nullable field after its length; where it lies behind the record's length, `None` for
    /// null.
    fn sized(&mut self, at_most: u64, taken: &mut u64) -> Result<Option<Span>, WalkError> {
        match self.length(-1, at_most as i64, taken)? {
            -1 => Ok(None),
            length => {
                let start = *taken;
                self.skip(length as u64, taken)?;
                Ok(Some(Span::new(start, length as u64)))
            }
        }
    }

    fn length(&mut self, at_least: i64, at_most: i64, taken: &mut u64) -> Result<i64, WalkError> {
        let length = i64::from(self.varint(taken)?);
        if (at_least..=at_most).contains(&length) {
            Ok(length)
        } else {
            Err(Malformed::Length(length).into())
        }
    }

    fn varint(&mut self, taken: &mut u64) -> Result<i32, WalkError> {
        let raw = self.unsigned_varint(32, taken)? as u32;
        Ok((raw >> 1) as i32 ^ -((raw & 1) as i32))
    }

    fn varlong(&mut self, taken: &mut u64) -> Result<i64, WalkError> {
        let raw = self.unsigned_varint(64, taken)?;
        Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
    }

    fn unsigned_varint(&mut self, bits: u32, taken: &mut u64) -> Result<u64, WalkError> {
        let mut value = 0_u64;
        let mut shift = 0;
        while shift < bits {
            let Some(&byte) = self.input.fill_buf()?.first() else {
                return Err(Malformed::Missing.into());
            };
            self.consume(1);
            *taken += 1;
            let group = u64::from(byte & 0x7f);
            let room = bits - shift;
            if room < 7 && group >> room != 0 {
                break;
            }
            value |= group << shift;
            if byte < 0x80 {
                return Ok(value);
            }
            shift += 7;
        }
        Err(Malformed::Varint.into())
    }

    /// Moves on by bytes that are in the buffer.
    fn consume(&mut self, bytes: usize) {
        if let Some(kept) = &mut self.kept
            && let Ok(there) = self.input.fill_buf()
        {
            // What is in the buffer is handed out again without a read.
            kept.extend_from_slice(&there[..bytes]);
        }
        self.input.consume(bytes);
    }

    fn skip(&mut self, mut bytes: u64, taken: &mut u64) -> Result<(), WalkError> {
        *taken += bytes;
        while bytes > 0 {
            let there = self.input.fill_buf()?.len();
            if there == 0 {
                return Err(Malformed::Missing.into());
            }
            let step = usize::try_from(bytes).map_or(there, |bytes| bytes.min(there));
            self.consume(step);
            bytes -= step as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::batch::{BatchBuilder, HEADER_LEN};

    /// Two records: without a key and with two headers of one name.
    const RECORDS: &[u8] = &[
        14, 0, 4, 0, 1, 2, b'v', 0, // no key, value "v"
        30, 0, 6, 2, 2, b'k', 1, 4, 2, b'h', 2, b'1', 2, b'h', 1, // no value
    ];

    fn batch() -> (BatchHeader, Vec<u8>) {
        let mut records = RECORDS.to_vec();
        records[8] = 2 * (RECORDS.len() - 9) as u8;
        let builder = BatchBuilder {
            base_timestamp: 100,
            ..BatchBuilder::default()
        };
        let batch = builder.build(&records, 2);
        (
            BatchHeader::parse(&batch).expect("whole"),
            batch[HEADER_LEN..].to_vec(),
        )
    }

    #[test]
    fn a_keeping_walk_hands_out_every_byte() {
        let (header, records) = batch();
        // A buffer of three bytes, so that fields straddle reads.
        let input = io::BufReader::with_capacity(3, &records[..]);
        let mut walk = RecordWalk::keeping(input, &header, Deltas::Contiguous);
        let first = walk.next_record().expect("sound").expect("first");
        assert_eq!(walk.record(), &records[..8]);
        assert_eq!((first.key, first.timestamp), (None, 102));
        assert_eq!(first.value.map(|value| value.of(walk.record())), Some(&b"v"[..]));
        let second = walk.next_record().expect("sound").expect("second");
        assert_eq!(walk.record(), &records[8..]);
        assert_eq!(second.key.map(|key| key.of(walk.record())), Some(&b"k"[..]));
        assert_eq!(second.value, None);
        assert_eq!(second.header_keys(walk.record()), [b"h", b"h"]);
        assert_eq!(
            second.headers(walk.record()),
            [(&b"h"[..], Some(&b"1"[..])), (b"h", None)]
        );
        assert_eq!(walk.next_record(), Ok(None));
    }

    #[test]
    fn a_record_with_another_time_is_otherwise_the_same() {
        let (header, records) = batch();
        for delta in [0, -1, 1 << 40, i64::MIN, i64::MAX] {
            let mut out = Vec::new();
            put_with_timestamp_delta(&mut out, &records[8..], delta).expect("a record");
            let again = BatchHeader {
                record_count: 1,
                ..header
            };
            let mut walk = RecordWalk::keeping(&out[..], &again, Deltas::Ascending);
            let view = walk.next_record().expect("sound").expect("one");
            assert_eq!(view.timestamp, 100_i64.wrapping_add(delta));
            assert_eq!(view.header_keys(walk.record()).len(), 2);
            assert_eq!(walk.next_record(), Ok(None));
            let mut back = Vec::new();
            put_with_timestamp_delta(&mut back, &out, 3).expect("a record");
            assert_eq!(back, &records[8..]);
        }
        assert_eq!(put_with_timestamp_delta(&mut Vec::new(), &[2], 0), None);
    }

    proptest! {
        #[test]
        fn foreign_bytes_end_the_walk_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let (header, _) = batch();
            let header = BatchHeader { record_count: i32::MAX, last_offset_delta: i32::MAX, ..header };
            let mut walk = RecordWalk::keeping(&bytes[..], &header, Deltas::Ascending);
            let mut walked = 0;
            while let Ok(Some(view)) = walk.next_record() {
                walked += 1;
                let _ = view.header_keys(walk.record());
                let _ = put_with_timestamp_delta(&mut Vec::new(), walk.record(), -1);
            }
            prop_assert!(walked <= bytes.len());
        }
    }
}
