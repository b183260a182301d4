//! `.snapshot` files: a partition's producers as of the offset in the file's name, in Kafka's format.
//!
//! ```text
//! version i16 (1) | crc32c u32 of what follows | count i32 | count × 46 bytes:
//! producer id i64 | epoch i16 | last sequence i32 | last offset i64 | offset delta i32
//! | timestamp i64 | coordinator epoch i32 | transaction's first offset i64 (−1: none)
//! ```
//!
//! Kafka writes one entry per producer, its last batch. Ottla writes an entry for each of the last
//! five, oldest first: a batch repeated across a restart is then still recognised. Kafka's tools
//! print them all, and a reader that keeps one per producer ends with the last, as Kafka means it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use protocol::{Offset, ProducerEpoch, ProducerId};

use crate::{
    disk,
    durable_file::write_atomically,
    error::StorageError,
    producers::{ProducerBatch, ProducerEntry, ProducerState},
};

/// The only version of the format, as in Kafka.
const VERSION: i16 = 1;
const COUNT_AT: usize = 6;
const ENTRIES_AT: usize = 10;
const ENTRY_LEN: usize = 46;
/// The extension of snapshot files, without the dot.
pub(crate) const EXTENSION: &str = "snapshot";

/// What is wrong with the bytes of a producer snapshot. The remedy is always the same: an older
/// snapshot, or none, and a longer replay of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// Too few bytes, or not as many as the entries take.
    #[error("producer snapshot has {actual} bytes, {expected} are expected")]
    Length {
        /// Bytes that the count asks for (or the header alone).
        expected: usize,
        /// Bytes that are there.
        actual: usize,
    },
    /// A version that this build does not know.
    #[error("producer snapshot has version {0}, only 1 is known")]
    Version(i16),
    /// The checksum does not match.
    #[error("producer snapshot CRC is {actual:#010x}, its header says {stored:#010x}")]
    Crc {
        /// What the header says.
        stored: u32,
        /// What the bytes give.
        actual: u32,
    },
    /// An entry has a field that no writer produces.
    #[error("producer snapshot entry {0} is impossible")]
    Entry(usize),
}

/// One line of a snapshot file: one batch of one producer, or a producer without batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotEntry {
    /// Whose entry it is.
    pub producer_id: ProducerId,
    /// The producer's epoch.
    pub epoch: ProducerEpoch,
    /// Sequence of the batch's last record, −1 without a batch.
    pub last_sequence: i32,
    /// Offset of the batch's last record, −1 without a batch.
    pub last_offset: i64,
    /// Offsets from the batch's first record to its last.
    pub offset_delta: i32,
    /// The batch's max timestamp, ms since 1970, −1 for none.
    pub timestamp: i64,
    /// Epoch of the transaction coordinator that last ended a transaction, −1 for none.
    pub coordinator_epoch: i32,
    /// First offset of the open transaction.
    pub transaction_start: Option<Offset>,
}

/// Walks big-endian fields; the caller has checked the length.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (head, rest) = self.0.split_at(N);
        self.0 = rest;
        let mut out = [0; N];
        out.copy_from_slice(head);
        out
    }
}

impl SnapshotEntry {
    fn read(bytes: &[u8]) -> Self {
        let mut fields = Fields(bytes);
        Self {
            producer_id: ProducerId(i64::from_be_bytes(fields.take())),
            epoch: ProducerEpoch(i16::from_be_bytes(fields.take())),
            last_sequence: i32::from_be_bytes(fields.take()),
            last_offset: i64::from_be_bytes(fields.take()),
            offset_delta: i32::from_be_bytes(fields.take()),
            timestamp: i64::from_be_bytes(fields.take()),
            coordinator_epoch: i32::from_be_bytes(fields.take()),
            transaction_start: Some(i64::from_be_bytes(fields.take()))
                .filter(|&offset| offset >= 0)
                .map(Offset),
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.producer_id.0.to_be_bytes());
        out.extend_from_slice(&self.epoch.0.to_be_bytes());
        out.extend_from_slice(&self.last_sequence.to_be_bytes());
        out.extend_from_slice(&self.last_offset.to_be_bytes());
        out.extend_from_slice(&self.offset_delta.to_be_bytes());
        out.extend_from_slice(&self.timestamp.to_be_bytes());
        out.extend_from_slice(&self.coordinator_epoch.to_be_bytes());
        out.extend_from_slice(&self.transaction_start.map_or(-1, Offset::get).to_be_bytes());
    }

    /// The batch that the entry tells of, if it tells of one.
    pub fn batch(&self) -> Option<ProducerBatch> {
        (self.last_offset >= 0).then_some(ProducerBatch {
            last_sequence: self.last_sequence,
            last_offset: Offset(self.last_offset),
            offset_delta: self.offset_delta,
            timestamp: self.timestamp,
        })
    }

    fn is_possible(&self) -> bool {
        self.producer_id.0 >= 0
            && self.last_offset >= -1
            && self.last_offset < i64::MAX
            && self.offset_delta >= 0
            && (self.last_offset == -1
                || (self.last_sequence >= 0 && i64::from(self.offset_delta) <= self.last_offset))
    }
}

/// Decodes a snapshot file's bytes, entry by entry.
pub fn decode(bytes: &[u8]) -> Result<Vec<SnapshotEntry>, SnapshotError> {
    if bytes.len() < ENTRIES_AT {
        return Err(SnapshotError::Length {
            expected: ENTRIES_AT,
            actual: bytes.len(),
        });
    }
    let mut fields = Fields(bytes);
    let version = i16::from_be_bytes(fields.take());
    if version != VERSION {
        return Err(SnapshotError::Version(version));
    }
    let stored = u32::from_be_bytes(fields.take());
    let actual = crc32c::crc32c(&bytes[COUNT_AT..]);
    if stored != actual {
        return Err(SnapshotError::Crc { stored, actual });
    }
    let count = i32::from_be_bytes(fields.take());
    let expected = usize::try_from(count)
        .ok()
        .and_then(|count| count.checked_mul(ENTRY_LEN)?.checked_add(ENTRIES_AT));
    if expected != Some(bytes.len()) {
        return Err(SnapshotError::Length {
            expected: expected.unwrap_or(usize::MAX),
            actual: bytes.len(),
        });
    }
    let read = |(index, entry)| {
        let entry = SnapshotEntry::read(entry);
        if entry.is_possible() {
            Ok(entry)
        } else {
            Err(SnapshotError::Entry(index))
        }
    };
    fields.0.chunks_exact(ENTRY_LEN).enumerate().map(read).collect()
}

impl ProducerState {
    /// The state as the bytes of a `.snapshot` file, ordered by producer id.
    pub fn snapshot_bytes(&self) -> Vec<u8> {
        let mut producers: Vec<_> = self.entries().collect();
        producers.sort_unstable_by_key(|&(id, _)| id);
        let mut out = vec![0; ENTRIES_AT];
        for (producer_id, entry) in producers {
            write_producer(&mut out, producer_id, entry);
        }
        let count = (out.len() - ENTRIES_AT) / ENTRY_LEN;
        out[..2].copy_from_slice(&VERSION.to_be_bytes());
        out[COUNT_AT..ENTRIES_AT].copy_from_slice(&(count as i32).to_be_bytes());
        let crc = crc32c::crc32c(&out[COUNT_AT..]);
        out[2..COUNT_AT].copy_from_slice(&crc.to_be_bytes());
        out
    }

    /// Reads a snapshot file's bytes, Kafka's or Ottla's.
    pub fn from_snapshot(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let mut state = Self::new();
        for line in decode(bytes)? {
            let entry = state.entry_mut(line.producer_id, line.epoch);
            if let Some(batch) = line.batch() {
                entry.push(batch);
            }
            entry.set_coordinator_epoch(line.coordinator_epoch);
            entry.set_transaction_start(line.transaction_start);
        }
        Ok(state)
    }
}

fn write_producer(out: &mut Vec<u8>, producer_id: ProducerId, entry: &ProducerEntry) {
    let mut line = SnapshotEntry {
        producer_id,
        epoch: entry.epoch(),
        last_sequence: -1,
        last_offset: -1,
        offset_delta: 0,
        timestamp: -1,
        coordinator_epoch: entry.coordinator_epoch(),
        transaction_start: entry.transaction_start(),
    };
    if entry.batches().is_empty() {
        line.write(out);
    }
    for batch in entry.batches() {
        line.last_sequence = batch.last_sequence;
        line.last_offset = batch.last_offset.0;
        line.offset_delta = batch.offset_delta;
        line.timestamp = batch.timestamp;
        line.write(out);
    }
}

/// The snapshot file of `offset` in a partition's directory.
pub fn snapshot_path(dir: &Path, offset: Offset) -> PathBuf {
    dir.join(format!("{:020}.{EXTENSION}", offset.0))
}

/// Writes the state as of `offset` (the next offset to be appended) durably into `dir`.
pub fn write_snapshot(dir: &Path, offset: Offset, state: &ProducerState) -> io::Result<()> {
    write_atomically(&snapshot_path(dir, offset), &state.snapshot_bytes())
}

/// Offsets of the snapshot files in `dir`, ascending.
pub fn list_snapshots(dir: &Path) -> io::Result<Vec<Offset>> {
    let mut offsets = Vec::new();
    for file in fs::read_dir(dir)? {
        let path = PathBuf::from(file?.file_name());
        let stem = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .unwrap_or_default();
        if path.extension().is_some_and(|extension| extension == EXTENSION)
            && stem.len() == 20
            && stem.bytes().all(|b| b.is_ascii_digit())
            && let Ok(offset) = stem.parse()
        {
            offsets.push(Offset(offset));
        }
    }
    offsets.sort_unstable();
    Ok(offsets)
}

/// Loads the newest readable snapshot that lies at or below `upper` and at or above `lower` (the log
/// start: what a snapshot below it misses cannot be replayed). A damaged one is removed, and the one
/// before it tried. `None`: replay from the log start with an empty state.
pub fn load_latest_snapshot(
    dir: &Path,
    lower: Offset,
    upper: Offset,
) -> io::Result<Option<(Offset, ProducerState)>> {
    for offset in list_snapshots(dir)?.into_iter().rev() {
        if offset > upper || offset < lower {
            continue;
        }
        let path = snapshot_path(dir, offset);
        match ProducerState::from_snapshot(&fs::read(&path)?) {
            Ok(state) => return Ok(Some((offset, state))),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "damaged producer snapshot removed");
                fs::remove_file(&path)?;
            }
        }
    }
    Ok(None)
}

/// Removes the snapshots above `offset`: after a truncation they tell of batches that are gone.
pub fn remove_snapshots_above(dir: &Path, offset: Offset) -> Result<(), StorageError> {
    remove_snapshots(dir, |snapshot| snapshot > offset)
}

/// Removes the snapshots below `offset`: those of segments that retention deleted.
pub fn remove_snapshots_below(dir: &Path, offset: Offset) -> Result<(), StorageError> {
    remove_snapshots(dir, |snapshot| snapshot < offset)
}

fn remove_snapshots(dir: &Path, gone: impl Fn(Offset) -> bool) -> Result<(), StorageError> {
    let all = list_snapshots(dir).map_err(StorageError::io("list", dir))?;
    all.into_iter()
        .filter(|&offset| gone(offset))
        .try_for_each(|offset| disk::remove(&snapshot_path(dir, offset)))
}

#[cfg(test)]
mod tests;
