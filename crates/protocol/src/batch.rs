//! Record batches v2 as opaque bytes with a readable header.
//!
//! A batch is produced once, by a client, and from then on travels and rests unchanged but for the
//! two fields that lie outside its checksum: the base offset and the partition leader epoch.
//!
//! ```text
//!  0 base offset i64      16 magic i8 (2)         35 max timestamp i64
//!  8 length i32           17 crc32c u32 of 21..   43 producer id i64
//! 12 leader epoch i32     21 attributes i16       51 producer epoch i16
//!                         23 last offset delta i32  53 base sequence i32
//!                         27 base timestamp i64   57 record count i32   61 records
//! ```

mod build;

use bytes::Bytes;

use crate::{LeaderEpoch, Offset, ProducerEpoch, ProducerId};

pub use build::{BatchBuilder, HeaderField, KeyValue, put_record};

/// Bytes of a batch before its records.
pub const HEADER_LEN: usize = 61;
/// Bytes of a batch before what its length field counts.
pub const LENGTH_OVERHEAD: usize = 12;
/// The only record format that Ottla stores (KIP-724).
pub const MAGIC: i8 = 2;

const LENGTH_AT: usize = 8;
const EPOCH_AT: usize = 12;
const MAGIC_AT: usize = 16;
const CRC_AT: usize = 17;
const CRC_FROM: usize = 21;
pub(crate) const DELETE_HORIZON_BIT: i16 = 0x40;

/// How the records of a batch are compressed (attribute bits 0–2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not compressed.
    None,
    /// RFC 1952 gzip.
    Gzip,
    /// Snappy in xerial's framing.
    Snappy,
    /// LZ4 frame format.
    Lz4,
    /// Zstandard.
    Zstd,
}

/// Whose clock the batch's max timestamp shows (attribute bit 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TimestampType {
    /// The producer's.
    CreateTime,
    /// The leader's, at the append.
    LogAppendTime,
}

/// What is wrong with the bytes of a batch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Fewer bytes than a header, or than the batch says it has.
    #[error("batch needs {needed} bytes, {available} are there")]
    Truncated {
        /// Bytes the batch would take.
        needed: usize,
        /// Bytes that are left.
        available: usize,
    },
    /// The length field cannot be right.
    #[error("batch length {0} is impossible")]
    Length(i32),
    /// Not record format v2.
    #[error("batch magic is {0}, only 2 is supported")]
    Magic(i8),
    /// The checksum does not match.
    #[error("batch CRC is {actual:#010x}, its header says {stored:#010x}")]
    Crc {
        /// What the header says.
        stored: u32,
        /// What the bytes give.
        actual: u32,
    },
    /// Attribute bits 0–2 name no codec.
    #[error("batch compression code {0} is unknown")]
    Compression(u8),
    /// The last offset delta is negative or leads past the last possible offset.
    #[error("batch last offset delta {0} is impossible")]
    OffsetDelta(i32),
}

/// The fields of a batch's header, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record (of the first one before compaction).
    pub base_offset: Offset,
    /// Bytes of the whole batch, length field and base offset included.
    pub size: usize,
    /// Epoch of the leader that appended the batch.
    pub leader_epoch: LeaderEpoch,
    /// CRC-32C of everything from the attributes on.
    pub crc: u32,
    /// Attribute bits as stored.
    pub attributes: i16,
    /// Last offset of the batch, relative to the base offset.
    pub last_offset_delta: i32,
    /// What the records' timestamps are relative to, in milliseconds since 1970: the first record's
    /// when it was produced, −1 for none; the [delete horizon](BatchHeader::delete_horizon) once
    /// compaction has set one.
    pub base_timestamp: i64,
    /// Largest timestamp of the batch in milliseconds since 1970, −1 for none.
    pub max_timestamp: i64,
    /// Producer id, where the producer is idempotent.
    pub producer_id: Option<ProducerId>,
    /// Producer epoch; meaningful with a producer id.
    pub producer_epoch: ProducerEpoch,
    /// Sequence of the first record, −1 for none.
    pub base_sequence: i32,
    /// How many records the batch says it has.
    pub record_count: i32,
}

fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

impl BatchHeader {
    /// Reads a header from the front of `bytes` and checks that the whole batch is there. The
    /// checksum is not looked at: see [`verify_crc`].
    pub fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        let size = batch_size(bytes)?;
        let magic = bytes.get(MAGIC_AT).copied().unwrap_or_default() as i8;
        if bytes.len() > MAGIC_AT && magic != MAGIC {
            return Err(BatchError::Magic(magic));
        }
        if bytes.len() < size {
            return Err(BatchError::Truncated {
                needed: size,
                available: bytes.len(),
            });
        }
        Self::parse_header(bytes)
    }

    /// Like [`BatchHeader::parse`] where only the header's 61 bytes are at hand.
    pub fn parse_header(bytes: &[u8]) -> Result<Self, BatchError> {
        if bytes.len() < HEADER_LEN {
            return Err(BatchError::Truncated {
                needed: HEADER_LEN,
                available: bytes.len(),
            });
        }
        let size = batch_size(bytes)?;
        let magic = bytes[MAGIC_AT] as i8;
        if magic != MAGIC {
            return Err(BatchError::Magic(magic));
        }
        let base_offset = Offset(i64::from_be_bytes(bytes_at(bytes, 0)));
        let last_offset_delta = i32::from_be_bytes(bytes_at(bytes, 23));
        // One below the maximum: the offset after the last must exist too.
        let last = base_offset
            .0
            .checked_add(i64::from(last_offset_delta))
            .filter(|&o| o < i64::MAX);
        if last_offset_delta < 0 || last.is_none() {
            return Err(BatchError::OffsetDelta(last_offset_delta));
        }
        let producer_id = i64::from_be_bytes(bytes_at(bytes, 43));
        Ok(Self {
            base_offset,
            size,
            leader_epoch: LeaderEpoch(i32::from_be_bytes(bytes_at(bytes, EPOCH_AT))),
            crc: u32::from_be_bytes(bytes_at(bytes, CRC_AT)),
            attributes: i16::from_be_bytes(bytes_at(bytes, CRC_FROM)),
            last_offset_delta,
            base_timestamp: i64::from_be_bytes(bytes_at(bytes, 27)),
            max_timestamp: i64::from_be_bytes(bytes_at(bytes, 35)),
            producer_id: (producer_id >= 0).then_some(ProducerId(producer_id)),
            producer_epoch: ProducerEpoch(i16::from_be_bytes(bytes_at(bytes, 51))),
            base_sequence: i32::from_be_bytes(bytes_at(bytes, 53)),
            record_count: i32::from_be_bytes(bytes_at(bytes, 57)),
        })
    }

    /// Offset of the batch's last record.
    pub fn last_offset(&self) -> Offset {
        Offset(self.base_offset.0 + i64::from(self.last_offset_delta))
    }

    /// The offset after the batch's last record.
    pub fn next_offset(&self) -> Offset {
        self.last_offset().next()
    }

    /// How the records are compressed.
    pub fn compression(&self) -> Result<Compression, BatchError> {
        match self.attributes & 0x07 {
            0 => Ok(Compression::None),
            1 => Ok(Compression::Gzip),
            2 => Ok(Compression::Snappy),
            3 => Ok(Compression::Lz4),
            4 => Ok(Compression::Zstd),
            other => Err(BatchError::Compression(other as u8)),
        }
    }

    /// Whose clock the timestamps show.
    pub fn timestamp_type(&self) -> TimestampType {
        if self.attributes & 0x08 == 0 {
            TimestampType::CreateTime
        } else {
            TimestampType::LogAppendTime
        }
    }

    /// Whether the batch belongs to a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes & 0x10 != 0
    }

    /// Whether the batch holds control records, which clients never see.
    pub fn is_control(&self) -> bool {
        self.attributes & 0x20 != 0
    }

    /// From when on the batch's tombstones, or the marker of a transaction that left nothing else,
    /// may go (KIP-534), in milliseconds since 1970: attribute bit 6 says that compaction has put it
    /// in the base timestamp's place.
    pub fn delete_horizon(&self) -> Option<i64> {
        (self.attributes & DELETE_HORIZON_BIT != 0).then_some(self.base_timestamp)
    }

    /// Sequence of the last record, wrapping as producers wrap it: after `i32::MAX` comes 0.
    pub fn last_sequence(&self) -> i32 {
        let sum = i64::from(self.base_sequence) + i64::from(self.last_offset_delta);
        if self.base_sequence < 0 {
            -1
        } else {
            (sum % (1 << 31)) as i32
        }
    }
}

/// Bytes that the batch at the front of `bytes` takes, by its length field.
pub fn batch_size(bytes: &[u8]) -> Result<usize, BatchError> {
    if bytes.len() < LENGTH_OVERHEAD {
        return Err(BatchError::Truncated {
            needed: LENGTH_OVERHEAD,
            available: bytes.len(),
        });
    }
    let length = i32::from_be_bytes(bytes_at(bytes, LENGTH_AT));
    match usize::try_from(length) {
        Ok(length) if length + LENGTH_OVERHEAD >= HEADER_LEN => Ok(length + LENGTH_OVERHEAD),
        _ => Err(BatchError::Length(length)),
    }
}

/// Compares a whole batch's checksum with its bytes.
pub fn verify_crc(batch: &[u8]) -> Result<(), BatchError> {
    if batch.len() < HEADER_LEN {
        return Err(BatchError::Truncated {
            needed: HEADER_LEN,
            available: batch.len(),
        });
    }
    let stored = u32::from_be_bytes(bytes_at(batch, CRC_AT));
    let actual = crc32c::crc32c(&batch[CRC_FROM..]);
    if stored == actual {
        Ok(())
    } else {
        Err(BatchError::Crc { stored, actual })
    }
}

/// The first sixteen bytes of a batch (base offset, length, leader epoch) with new offset and
/// epoch: written in front of `batch[16..]` they place it without a copy and without a new checksum.
///
/// # Panics
/// When `batch` is shorter than a header; callers hold a parsed batch.
pub fn placed_prefix(batch: &[u8], base_offset: Offset, leader_epoch: LeaderEpoch) -> [u8; MAGIC_AT] {
    let mut prefix: [u8; MAGIC_AT] = bytes_at(batch, 0);
    prefix[..LENGTH_AT].copy_from_slice(&base_offset.0.to_be_bytes());
    prefix[EPOCH_AT..].copy_from_slice(&leader_epoch.0.to_be_bytes());
    prefix
}

/// Makes `batch` a LogAppendTime batch of `timestamp` (ms since 1970) and renews its checksum.
///
/// # Panics
/// When `batch` is shorter than a header; callers hold a parsed batch.
pub fn set_log_append_time(batch: &mut [u8], timestamp: i64) {
    let attributes = i16::from_be_bytes(bytes_at(batch, CRC_FROM)) | 0x08;
    batch[CRC_FROM..23].copy_from_slice(&attributes.to_be_bytes());
    batch[35..43].copy_from_slice(&timestamp.to_be_bytes());
    renew_crc(batch);
}

/// What compaction changes in the header of a batch of which it drops records. Offsets, producer and
/// sequence stay: they tell what the batch once was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thinned {
    /// Records that are left.
    pub record_count: i32,
    /// What their timestamps are relative to, ms since 1970.
    pub base_timestamp: i64,
    /// The base timestamp is the [delete horizon](BatchHeader::delete_horizon).
    pub delete_horizon: bool,
    /// The largest timestamp that is left, ms since 1970.
    pub max_timestamp: i64,
}

/// Writes what compaction has changed into the header and renews the checksum.
///
/// # Panics
/// When `batch` is shorter than a header; callers hold a parsed batch.
pub fn thin(batch: &mut [u8], thinned: &Thinned) {
    let mut attributes = i16::from_be_bytes(bytes_at(batch, CRC_FROM)) & !DELETE_HORIZON_BIT;
    if thinned.delete_horizon {
        attributes |= DELETE_HORIZON_BIT;
    }
    batch[CRC_FROM..23].copy_from_slice(&attributes.to_be_bytes());
    batch[27..35].copy_from_slice(&thinned.base_timestamp.to_be_bytes());
    batch[35..43].copy_from_slice(&thinned.max_timestamp.to_be_bytes());
    batch[57..HEADER_LEN].copy_from_slice(&thinned.record_count.to_be_bytes());
    renew_crc(batch);
}

/// The header of `batch` alone: no records, but all offsets, the producer and its sequence. What
/// compaction keeps of a batch that must not be forgotten.
///
/// # Panics
/// When `batch` is shorter than a header; callers hold a parsed batch.
pub fn emptied(batch: &[u8]) -> [u8; HEADER_LEN] {
    let mut empty: [u8; HEADER_LEN] = bytes_at(batch, 0);
    let length = (HEADER_LEN - LENGTH_OVERHEAD) as i32;
    empty[LENGTH_AT..EPOCH_AT].copy_from_slice(&length.to_be_bytes());
    // No records, so no codec.
    empty[22] &= !0x07;
    let max_timestamp = i64::from_be_bytes(bytes_at(batch, 35));
    thin(
        &mut empty,
        &Thinned {
            record_count: 0,
            base_timestamp: -1,
            delete_horizon: false,
            max_timestamp,
        },
    );
    empty
}

/// Computes and stores the checksum of a whole batch.
///
/// # Panics
/// When `batch` is shorter than a header.
pub fn renew_crc(batch: &mut [u8]) {
    let crc = crc32c::crc32c(&batch[CRC_FROM..]);
    batch[CRC_AT..CRC_FROM].copy_from_slice(&crc.to_be_bytes());
}

/// Appends Kafka's zigzag varint of `value`.
pub fn put_varint(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push((rest as u8) | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Reads Kafka's zigzag varint from the front of `bytes`: the value and the bytes it took, `None`
/// when it is cut off or longer than ten bytes.
pub fn get_varint(bytes: &[u8]) -> Option<(i64, usize)> {
    let mut raw: u64 = 0;
    for (i, &byte) in bytes.iter().take(10).enumerate() {
        if i == 9 && byte > 1 {
            return None;
        }
        raw |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Some((((raw >> 1) as i64) ^ -((raw & 1) as i64), i + 1));
        }
    }
    None
}

/// Walks the batches that lie back to back in a buffer, yielding slices that share its memory.
/// After the first error it ends; `consumed` then tells where the damage begins.
#[derive(Clone, Debug)]
pub struct Batches {
    bytes: Bytes,
    at: usize,
    failed: bool,
}

impl Batches {
    /// Walks `bytes`.
    pub fn new(bytes: Bytes) -> Self {
        Self {
            bytes,
            at: 0,
            failed: false,
        }
    }

    /// Bytes of whole batches yielded so far.
    pub fn consumed(&self) -> usize {
        self.at
    }
}

impl Iterator for Batches {
    type Item = Result<(BatchHeader, Bytes), BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed || self.at == self.bytes.len() {
            return None;
        }
        match BatchHeader::parse(&self.bytes[self.at..]) {
            Ok(header) => {
                let batch = self.bytes.slice(self.at..self.at + header.size);
                self.at += header.size;
                Some(Ok((header, batch)))
            }
            Err(error) => {
                self.failed = true;
                Some(Err(error))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn placing_a_batch_leaves_its_checksum_valid() {
        let mut batch = BatchBuilder::default().build_records(&[(None, Some(b"v")), (Some(b"k"), None)]);
        let prefix = placed_prefix(&batch, Offset(77), LeaderEpoch(5));
        batch[..16].copy_from_slice(&prefix);
        let header = BatchHeader::parse(&batch).expect("whole batch");
        assert_eq!(
            (header.base_offset, header.leader_epoch),
            (Offset(77), LeaderEpoch(5))
        );
        assert_eq!((header.last_offset(), header.record_count), (Offset(78), 2));
        verify_crc(&batch).expect("outside the checksum");
    }

    #[test]
    fn log_append_time_renews_the_checksum() {
        let mut batch = BatchBuilder::default().build_records(&[(None, Some(b"v"))]);
        set_log_append_time(&mut batch, 1234);
        verify_crc(&batch).expect("renewed");
        let header = BatchHeader::parse(&batch).expect("whole batch");
        assert_eq!(
            (header.timestamp_type(), header.max_timestamp),
            (TimestampType::LogAppendTime, 1234)
        );
    }

    #[test]
    fn a_thinned_batch_keeps_what_it_once_was() {
        let builder = BatchBuilder {
            base_offset: Offset(7),
            attributes: 0x14,
            producer_id: 3,
            producer_epoch: 2,
            base_sequence: 9,
            base_timestamp: 50,
            max_timestamp: 60,
            ..BatchBuilder::default()
        };
        let batch = builder.build_records(&[(Some(b"a"), None), (Some(b"b"), Some(b"v"))]);
        let before = BatchHeader::parse(&batch).expect("whole");
        assert_eq!(before.delete_horizon(), None);

        let mut thinned = batch;
        let change = Thinned {
            record_count: 1,
            base_timestamp: 1000,
            delete_horizon: true,
            max_timestamp: 55,
        };
        thin(&mut thinned, &change);
        verify_crc(&thinned).expect("renewed");
        let after = BatchHeader::parse(&thinned).expect("whole");
        assert_eq!(after.delete_horizon(), Some(1000));
        assert_eq!((after.record_count, after.max_timestamp), (1, 55));
        assert_eq!(after.last_offset(), before.last_offset());

        let empty = emptied(&thinned);
        verify_crc(&empty).expect("renewed");
        let empty = BatchHeader::parse(&empty).expect("whole");
        let expected = BatchHeader {
            size: HEADER_LEN,
            crc: empty.crc,
            attributes: 0x10,
            record_count: 0,
            base_timestamp: -1,
            max_timestamp: 55,
            ..before
        };
        assert_eq!(empty, expected);
    }

    #[test]
    fn sequences_wrap_after_the_largest() {
        let builder = BatchBuilder {
            base_sequence: i32::MAX,
            producer_id: 1,
            producer_epoch: 0,
            ..Default::default()
        };
        let batch = builder.build_records(&[(None, None), (None, None)]);
        assert_eq!(BatchHeader::parse(&batch).expect("whole").last_sequence(), 0);
    }

    #[test]
    fn a_walk_ends_at_the_first_damage() {
        let one = BatchBuilder::default().build_records(&[(None, Some(b"v"))]);
        let mut bytes = one.clone();
        bytes.extend_from_slice(&one[..one.len() - 1]);
        let mut walk = Batches::new(bytes.into());
        assert!(walk.next().is_some_and(|b| b.is_ok()));
        assert!(matches!(walk.next(), Some(Err(BatchError::Truncated { .. }))));
        assert!(walk.next().is_none());
        assert_eq!(walk.consumed(), one.len());
    }

    proptest! {
        #[test]
        fn varints_round_trip(value: i64) {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            prop_assert_eq!(get_varint(&bytes), Some((value, bytes.len())));
        }

        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = BatchHeader::parse(&bytes);
            let _ = verify_crc(&bytes);
            let _ = get_varint(&bytes);
            prop_assert!(Batches::new(bytes.into()).count() < 200);
        }
    }
}
