//! Walks the records of a batch without decoding them.
//!
//! ```text
//! length varint | attributes i8 | timestamp delta varlong | offset delta varint
//!   | key length varint, key | value length varint, value
//!   | header count varint | per header: key length varint, key, value length varint, value
//! ```

use std::io::{self, BufRead};

use protocol::batch::BatchHeader;

use super::open::TooMuchOutput;

/// How the offsets of a batch's records must go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deltas {
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WalkError {
    /// The records are not what they should be.
    Malformed(Malformed),
    /// The batch opens to more bytes than allowed.
    TooMuchOutput {
        /// What was allowed.
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

/// What is looked at in a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordView {
    /// Offset relative to the batch's base offset.
    pub(super) offset_delta: i32,
    /// Milliseconds since 1970 by the producer's clock, −1 for none.
    pub(super) timestamp: i64,
    /// Whether there is a key.
    pub(super) has_key: bool,
}

/// A walk over the (opened) records of one batch.
pub(super) struct RecordWalk<R> {
    input: R,
    deltas: Deltas,
    base_timestamp: i64,
    last_offset_delta: i32,
    record_count: i32,
    /// Records walked so far: the index of the next, or of the one at fault.
    index: i32,
    previous_delta: i32,
}

impl<R: BufRead> RecordWalk<R> {
    /// Starts before the first record; `input` yields the batch's records, opened.
    pub(super) fn new(input: R, header: &BatchHeader, deltas: Deltas) -> Self {
        Self {
            input,
            deltas,
            base_timestamp: header.base_timestamp,
            last_offset_delta: header.last_offset_delta,
            record_count: header.record_count,
            index: 0,
            previous_delta: -1,
        }
    }

    /// Index of the record that comes next, or at which the walk failed.
    pub(super) fn index(&self) -> i32 {
        self.index
    }

    /// The next record; `None` after the last, when nothing follows it.
    pub(super) fn next_record(&mut self) -> Result<Option<RecordView>, WalkError> {
        if self.index >= self.record_count {
            return if self.input.fill_buf()?.is_empty() {
                Ok(None)
            } else {
                Err(Malformed::Surplus.into())
            };
        }
        let length = self.length(1, i64::MAX, &mut 0)? as u64;
        let mut taken = 0;
        self.skip(1, &mut taken)?;
        let timestamp_delta = self.varlong(&mut taken)?;
        let offset_delta = self.varint(&mut taken)?;
        let key = self.sized(length, &mut taken)?;
        self.sized(length, &mut taken)?;
        // Each header takes at least two bytes, which bounds the loop by the bytes there are.
        let headers = self.length(0, (length / 2) as i64, &mut taken)?;
        for _ in 0..headers {
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
            has_key: key.is_some(),
        }))
    }

    /// Skips a nullable field after its length; the length, `None` for null.
    fn sized(&mut self, at_most: u64, taken: &mut u64) -> Result<Option<u64>, WalkError> {
        match self.length(-1, at_most as i64, taken)? {
            -1 => Ok(None),
            length => {
                self.skip(length as u64, taken)?;
                Ok(Some(length as u64))
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
            self.input.consume(1);
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

    fn skip(&mut self, mut bytes: u64, taken: &mut u64) -> Result<(), WalkError> {
        *taken += bytes;
        while bytes > 0 {
            let there = self.input.fill_buf()?.len();
            if there == 0 {
                return Err(Malformed::Missing.into());
            }
            let step = usize::try_from(bytes).map_or(there, |bytes| bytes.min(there));
            self.input.consume(step);
            bytes -= step as u64;
        }
        Ok(())
    }
}
