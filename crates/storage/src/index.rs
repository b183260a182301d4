//! The two sparse indexes of a segment: in memory while it is written, in files once it is sealed.
//!
//! Indexes are hints. Whatever an index says, the reader checks against the batch that it finds, and
//! an index that is missing or lies is rebuilt from the batches.

use std::{io, path::Path};

use protocol::{Offset, batch::BatchHeader};

use crate::{
    disk,
    durable_file::read_if_present,
    error::StorageError,
    format::{MAX_RELATIVE, OffsetEntry, TimeEntry},
};

/// The indexes of one segment, in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentIndexes {
    base: Offset,
    interval: u64,
    offsets: Vec<OffsetEntry>,
    times: Vec<TimeEntry>,
    newest: Option<(i64, Offset)>,
    bytes_since_entry: u64,
}

impl SegmentIndexes {
    /// Indexes of an empty segment, with one entry for about `interval` bytes.
    pub(crate) fn new(base: Offset, interval: u32) -> Self {
        Self {
            base,
            interval: u64::from(interval),
            offsets: Vec::new(),
            times: Vec::new(),
            newest: None,
            bytes_since_entry: 0,
        }
    }

    /// Reads both index files. `None` when one is missing or cannot be right for a segment of `size`
    /// bytes. The batches from [`Self::resume_position`] on are to be added again.
    pub(crate) fn load(
        base: Offset,
        interval: u32,
        size: u64,
        offset_index: &Path,
        time_index: &Path,
    ) -> io::Result<Option<Self>> {
        let (Some(offsets), Some(times)) = (read_if_present(offset_index)?, read_if_present(time_index)?)
        else {
            return Ok(None);
        };
        let Some(offsets) = entries(&offsets, OffsetEntry::LEN, OffsetEntry::from_bytes) else {
            return Ok(None);
        };
        let Some(times) = entries(&times, TimeEntry::LEN, TimeEntry::from_bytes) else {
            return Ok(None);
        };
        let sane = offsets.is_sorted_by(|a, b| a.relative < b.relative && a.position < b.position)
            && times.is_sorted_by(|a, b| a.timestamp < b.timestamp && a.relative < b.relative)
            && offsets
                .last()
                .is_none_or(|e| u64::from(e.position) < size && u64::from(e.relative) <= MAX_RELATIVE)
            && times.last().is_none_or(|e| u64::from(e.relative) <= MAX_RELATIVE);
        let newest = times.last().map(|e| (e.timestamp, at(base, e.relative)));
        Ok(sane.then_some(Self {
            base,
            interval: u64::from(interval),
            offsets,
            times,
            newest,
            bytes_since_entry: 0,
        }))
    }

    /// Takes in the batch at `position`; a batch that the last entry already covers only counts towards
    /// the next one.
    pub(crate) fn add(&mut self, header: &BatchHeader, position: u64) {
        let last = header.last_offset();
        // A batch that compaction has emptied has no record with its timestamp.
        if header.max_timestamp >= 0
            && header.record_count > 0
            && self
                .newest
                .is_none_or(|(newest, _)| header.max_timestamp > newest)
        {
            self.newest = Some((header.max_timestamp, last));
        }
        let relative = (last.0 - self.base.0) as u32;
        let covered = self.offsets.last().is_some_and(|e| e.relative >= relative);
        if self.bytes_since_entry > self.interval && !covered {
            self.offsets.push(OffsetEntry {
                relative,
                position: position as u32,
            });
            self.push_newest();
            self.bytes_since_entry = 0;
        }
        self.bytes_since_entry += header.size as u64;
    }

    /// One entry for about this many bytes from now on.
    pub(crate) fn set_interval(&mut self, interval: u32) {
        self.interval = u64::from(interval);
    }

    /// Completes the time index, so that its last entry tells the segment's largest timestamp.
    pub(crate) fn seal(&mut self) {
        self.push_newest();
    }

    fn push_newest(&mut self) {
        let Some((timestamp, offset)) = self.newest else {
            return;
        };
        if self.times.last().is_none_or(|e| e.timestamp < timestamp) {
            let relative = (offset.0 - self.base.0) as u32;
            self.times.push(TimeEntry { timestamp, relative });
        }
    }

    /// Forgets everything at and after `end`.
    pub(crate) fn cut(&mut self, end: Offset) {
        let kept = |relative: u32| at(self.base, relative) < end;
        let offsets = self.offsets.partition_point(|e| kept(e.relative));
        let times = self.times.partition_point(|e| kept(e.relative));
        self.offsets.truncate(offsets);
        self.times.truncate(times);
        self.newest = self
            .times
            .last()
            .map(|e| (e.timestamp, at(self.base, e.relative)));
        self.bytes_since_entry = 0;
    }

    /// Where the batches begin that must be added again after [`Self::load`] or [`Self::cut`].
    pub(crate) fn resume_position(&self) -> u64 {
        self.offsets.last().map_or(0, |e| u64::from(e.position))
    }

    /// A position at or before the batch that holds `target`.
    pub(crate) fn position_for(&self, target: Offset) -> u64 {
        let after = self
            .offsets
            .partition_point(|e| at(self.base, e.relative) <= target);
        after
            .checked_sub(1)
            .map_or(0, |i| u64::from(self.offsets[i].position))
    }

    /// Where a read of a segment of `size` bytes, from `position` up to `limit` at most, had better end so
    /// that it fetches no half batch and nothing that ends at or after `upper`. An end that would leave
    /// nothing to read is not proposed.
    pub(crate) fn read_end(&self, position: u64, limit: u64, size: u64, upper: Offset) -> u64 {
        // Every batch that ends before `upper` lies before any that does not.
        let reached = self
            .offsets
            .partition_point(|e| at(self.base, e.relative) < upper);
        let useful = self
            .offsets
            .get(reached)
            .map_or(limit, |e| limit.min(u64::from(e.position)));
        let end = if useful < size {
            // The last batch known to begin no later than that is cut off, or begins just there.
            let begun = self.offsets.partition_point(|e| u64::from(e.position) <= useful);
            begun
                .checked_sub(1)
                .map_or(useful, |i| u64::from(self.offsets[i].position))
        } else {
            useful
        };
        if end > position { end } else { limit }
    }

    /// The offset up to which no batch has a timestamp of `timestamp` or more, except perhaps the
    /// batch that ends with it.
    pub(crate) fn offset_before_time(&self, timestamp: i64) -> Offset {
        let after = self.times.partition_point(|e| e.timestamp <= timestamp);
        after
            .checked_sub(1)
            .map_or(self.base, |i| at(self.base, self.times[i].relative))
    }

    /// The largest timestamp (ms since 1970) and the last offset of the first batch that has it.
    pub(crate) fn newest(&self) -> Option<(i64, Offset)> {
        self.newest
    }

    /// Bytes of the larger of the two index files.
    pub(crate) fn file_size(&self) -> u64 {
        (self.offsets.len() * OffsetEntry::LEN).max(self.times.len() * TimeEntry::LEN) as u64
    }

    /// Whether one more entry would make an index file larger than `limit` bytes.
    pub(crate) fn is_full(&self, limit: u32) -> bool {
        let limit = limit as usize;
        (self.offsets.len() + 1) * OffsetEntry::LEN > limit || (self.times.len() + 1) * TimeEntry::LEN > limit
    }

    /// Replaces both index files. Their durability is the caller's matter.
    pub(crate) fn write(&self, offset_index: &Path, time_index: &Path) -> Result<(), StorageError> {
        disk::replace(offset_index, &self.offset_bytes())?;
        disk::replace(time_index, &self.time_bytes())
    }

    /// Replaces both index files durably: half of one would pass for all of it.
    pub(crate) fn write_durably(&self, offset_index: &Path, time_index: &Path) -> Result<(), StorageError> {
        disk::replace_durably(offset_index, &self.offset_bytes())?;
        disk::replace_durably(time_index, &self.time_bytes())
    }

    fn offset_bytes(&self) -> Vec<u8> {
        self.offsets.iter().flat_map(|e| e.to_bytes()).collect()
    }

    fn time_bytes(&self) -> Vec<u8> {
        self.times.iter().flat_map(|e| e.to_bytes()).collect()
    }
}

fn at(base: Offset, relative: u32) -> Offset {
    Offset(base.0 + i64::from(relative))
}

fn entries<T>(bytes: &[u8], len: usize, read: fn(&[u8]) -> Option<T>) -> Option<Vec<T>> {
    bytes.chunks(len).map(read).collect()
}

#[cfg(test)]
mod tests {
    use protocol::batch::BatchBuilder;

    use super::*;

    /// Ten batches of one record each, back to back; and where they end.
    fn ten_batches() -> (SegmentIndexes, u64) {
        let mut indexes = SegmentIndexes::new(Offset(100), 0);
        let mut position = 0;
        for offset in 100..110 {
            let builder = BatchBuilder {
                base_offset: Offset(offset),
                ..BatchBuilder::default()
            };
            let batch = builder.build_records(&[(None, Some(&[0; 50]))]);
            let header = BatchHeader::parse(&batch).expect("a batch");
            indexes.add(&header, position);
            position += header.size as u64;
        }
        (indexes, position)
    }

    #[test]
    fn reads_end_where_batches_do() {
        let (indexes, size) = ten_batches();
        let batch = size / 10;
        let end = |position, limit, upper| indexes.read_end(position, limit, size, Offset(upper));
        assert_eq!(end(0, 3 * batch + 7, 110), 3 * batch, "no half batch");
        assert_eq!(end(0, 3 * batch, 110), 3 * batch, "whole ones as they are");
        assert_eq!(end(0, size, 110), size, "all there is");
        assert_eq!(
            end(0, size, 104),
            4 * batch,
            "nothing at or after the upper offset"
        );
        assert_eq!(end(2 * batch, size, 104), 4 * batch);
    }

    #[test]
    fn there_is_always_something_to_read() {
        let (indexes, size) = ten_batches();
        let batch = size / 10;
        assert_eq!(
            indexes.read_end(2 * batch, 2 * batch + 9, size, Offset(110)),
            2 * batch + 9,
            "a batch larger than the limit"
        );
        assert_eq!(
            indexes.read_end(4 * batch, size, size, Offset(104)),
            size,
            "an upper offset that the first batch reaches"
        );
    }
}
