//! The names and entries of a partition directory, byte for byte Kafka's.
//!
//! ```text
//! 00000000000000000000.log         record batches v2, back to back
//! 00000000000000000000.index       (last offset − base i32, position of that batch i32) × n
//! 00000000000000000000.timeindex   (timestamp i64 ms, last offset − base i32) × n
//! 00000000000000000000.txnindex    aborted transactions: (0 i16, producer id i64, first offset i64,
//!                                  last offset i64, last stable offset i64) × n
//! 00000000000000000000.snapshot    producers as of that offset
//! leader-epoch-checkpoint          "0", count, then one "epoch start-offset" a line
//! ```
//! All integers are big-endian; the twenty digits are the base offset: that of the first record, or,
//! after compaction, the one the segment was rolled at.

use std::path::{Path, PathBuf};

use protocol::{Offset, ProducerId};

/// File of a partition's leader epochs.
pub const EPOCH_CHECKPOINT_FILE: &str = "leader-epoch-checkpoint";
/// Appended to the name of a segment's file that waits for its removal.
pub const DELETED_SUFFIX: &str = ".deleted";
/// Appended to the name of a file that is being written; a crash may leave it behind.
pub const TEMP_SUFFIX: &str = ".tmp";
/// In a partition's directory while the log directory's checkpoint of what is compacted must not be
/// believed: one line, the offset up to which. Ottla's own.
pub const CLEANER_CHECKPOINT_VOID_FILE: &str = "cleaner-checkpoint-void";
/// In a partition's directory: what the log says of itself, against checkpoints that may be older. Ottla's own.
pub const OWN_CHECKPOINT_FILE: &str = "log-checkpoint";
/// Appended to the names of a segment that compaction is writing; a crash may leave them behind.
pub const CLEANED_SUFFIX: &str = ".cleaned";
/// Appended to the names of a segment that compaction has written, until it has replaced the old ones.
pub const SWAP_SUFFIX: &str = ".swap";
/// The largest position and the largest relative offset that an index entry can express.
pub const MAX_RELATIVE: u64 = i32::MAX as u64;

/// A kind of file that belongs to a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// Record batches.
    Log,
    /// Offsets to positions.
    OffsetIndex,
    /// Timestamps to offsets.
    TimeIndex,
    /// Aborted transactions.
    TransactionIndex,
    /// Producer state as of the base offset.
    ProducerSnapshot,
}

impl FileKind {
    /// Every kind.
    pub const ALL: [Self; 5] = [
        Self::Log,
        Self::OffsetIndex,
        Self::TimeIndex,
        Self::TransactionIndex,
        Self::ProducerSnapshot,
    ];

    /// The file name's extension, without the dot.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::OffsetIndex => "index",
            Self::TimeIndex => "timeindex",
            Self::TransactionIndex => "txnindex",
            Self::ProducerSnapshot => "snapshot",
        }
    }

    /// The path of this kind of file in `dir` for the segment at `base`.
    pub fn path(self, dir: &Path, base: Offset) -> PathBuf {
        dir.join(format!("{:020}.{}", base.0, self.extension()))
    }

    /// What a file's name says, `None` for a name of another kind.
    pub fn parse(name: &str) -> Option<(Offset, Self)> {
        let (digits, extension) = name.split_once('.')?;
        if digits.len() != 20 || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let kind = Self::ALL.into_iter().find(|kind| kind.extension() == extension)?;
        Some((Offset(digits.parse().ok()?), kind))
    }
}

/// One entry of an offset index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetEntry {
    /// The last offset of a batch, relative to the segment's base offset.
    pub relative: u32,
    /// Where that batch begins in the segment.
    pub position: u32,
}

impl OffsetEntry {
    /// Bytes of an entry.
    pub const LEN: usize = 8;

    /// The entry's bytes.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..4].copy_from_slice(&self.relative.to_be_bytes());
        bytes[4..].copy_from_slice(&self.position.to_be_bytes());
        bytes
    }

    /// Reads an entry; `None` unless there are exactly [`OffsetEntry::LEN`] bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (relative, position) = bytes.split_first_chunk()?;
        Some(Self {
            relative: u32::from_be_bytes(*relative),
            position: u32::from_be_bytes(position.try_into().ok()?),
        })
    }
}

/// One entry of a time index: no batch up to this offset has a later timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeEntry {
    /// The largest timestamp so far, in milliseconds since 1970.
    pub timestamp: i64,
    /// The last offset of the first batch that has it, relative to the segment's base offset.
    pub relative: u32,
}

impl TimeEntry {
    /// Bytes of an entry.
    pub const LEN: usize = 12;

    /// The entry's bytes.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..8].copy_from_slice(&self.timestamp.to_be_bytes());
        bytes[8..].copy_from_slice(&self.relative.to_be_bytes());
        bytes
    }

    /// Reads an entry; `None` unless there are exactly [`TimeEntry::LEN`] bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (timestamp, relative) = bytes.split_first_chunk()?;
        Some(Self {
            timestamp: i64::from_be_bytes(*timestamp),
            relative: u32::from_be_bytes(relative.try_into().ok()?),
        })
    }
}

/// One entry of a transaction index: a transaction that was aborted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbortedEntry {
    /// Whose transaction it was.
    pub producer_id: ProducerId,
    /// Its first record.
    pub first_offset: Offset,
    /// Its marker.
    pub last_offset: Offset,
    /// The last stable offset when it was aborted.
    pub last_stable_offset: Offset,
}

impl AbortedEntry {
    /// Bytes of an entry.
    pub const LEN: usize = 34;
    const VERSION: i16 = 0;

    /// The entry's bytes.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..2].copy_from_slice(&Self::VERSION.to_be_bytes());
        let fields = [
            self.producer_id.0,
            self.first_offset.0,
            self.last_offset.0,
            self.last_stable_offset.0,
        ];
        for (place, field) in bytes[2..].chunks_exact_mut(8).zip(fields) {
            place.copy_from_slice(&field.to_be_bytes());
        }
        bytes
    }

    /// Reads an entry; `None` unless there are exactly [`AbortedEntry::LEN`] bytes of a known version.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (version, fields) = bytes.split_first_chunk()?;
        if bytes.len() != Self::LEN || i16::from_be_bytes(*version) > Self::VERSION {
            return None;
        }
        let mut fields = fields
            .chunks_exact(8)
            .map(|field| field.try_into().map_or(0, i64::from_be_bytes));
        Some(Self {
            producer_id: ProducerId(fields.next()?),
            first_offset: Offset(fields.next()?),
            last_offset: Offset(fields.next()?),
            last_stable_offset: Offset(fields.next()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_twenty_digits() {
        let path = FileKind::OffsetIndex.path(Path::new("t-0"), Offset(42));
        assert_eq!(path, Path::new("t-0/00000000000000000042.index"));
        assert_eq!(
            FileKind::parse("00000000000000000042.timeindex"),
            Some((Offset(42), FileKind::TimeIndex))
        );
        for name in [
            "42.log",
            "0000000000000000004x.log",
            "00000000000000000042.log.deleted",
            "99999999999999999999.log",
            "leader-epoch-checkpoint",
            "",
        ] {
            assert_eq!(FileKind::parse(name), None, "{name}");
        }
    }

    #[test]
    fn entries_are_big_endian() {
        let offset = OffsetEntry {
            relative: 0x0102,
            position: 0x0a0b_0c0d,
        };
        assert_eq!(offset.to_bytes(), [0, 0, 1, 2, 0x0a, 0x0b, 0x0c, 0x0d]);
        let time = TimeEntry {
            timestamp: 0x0102_0304,
            relative: 5,
        };
        assert_eq!(time.to_bytes(), [0, 0, 0, 0, 1, 2, 3, 4, 0, 0, 0, 5]);
    }

    proptest! {
        #[test]
        fn entries_round_trip(relative: u32, position: u32, timestamp: i64) {
            let offset = OffsetEntry { relative, position };
            prop_assert_eq!(OffsetEntry::from_bytes(&offset.to_bytes()), Some(offset));
            let time = TimeEntry { timestamp, relative };
            prop_assert_eq!(TimeEntry::from_bytes(&time.to_bytes()), Some(time));
            let aborted = AbortedEntry {
                producer_id: ProducerId(timestamp),
                first_offset: Offset(position.into()),
                last_offset: Offset(relative.into()),
                last_stable_offset: Offset(timestamp),
            };
            prop_assert_eq!(AbortedEntry::from_bytes(&aborted.to_bytes()), Some(aborted));
            prop_assert_eq!(AbortedEntry::from_bytes(&aborted.to_bytes()[1..]), None);
        }
    }
}
