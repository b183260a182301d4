//! Offsets by time: which record is the first at or after a moment, and which is the latest.

use std::{fs::File, os::unix::fs::FileExt};

use protocol::{
    LeaderEpoch, Offset,
    batch::{BatchHeader, TimestampType},
    records::{first_at_or_after, largest_timestamp},
};

use super::Log;
use crate::{error::StorageError, format::FileKind, scan::Scanner, segment::Segment};

/// A record that was found by its timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimestampedOffset {
    /// The record's timestamp, ms since 1970.
    pub timestamp: i64,
    /// The record's offset.
    pub offset: Offset,
    /// The epoch of the leader that appended it.
    pub leader_epoch: LeaderEpoch,
}

impl Log {
    /// The first record whose timestamp is `timestamp` (ms since 1970) or later. Where a batch
    /// cannot be opened, the batch's first offset and its largest timestamp stand for the record.
    pub fn offset_for_timestamp(&self, timestamp: i64) -> Result<Option<TimestampedOffset>, StorageError> {
        self.unless_crossed(|_| {
            let log_start = self.log_start_offset();
            for segment in self.segments.load().iter() {
                let (newest, before) = segment
                    .with_indexes(|indexes| (indexes.newest(), indexes.offset_before_time(timestamp)))?;
                if newest.is_none_or(|(newest, _)| newest < timestamp) {
                    continue;
                }
                let from = before.max(log_start);
                if let Some(found) = search(segment, from, log_start, timestamp)? {
                    return Ok(Some(found));
                }
            }
            Ok(None)
        })
    }

    /// The first of the records that have the largest timestamp of the log.
    pub fn max_timestamp(&self) -> Result<Option<TimestampedOffset>, StorageError> {
        loop {
            let log_start = self.log_start_offset();
            let largest = self.unless_crossed(|_| {
                let mut largest = None;
                for segment in self.segments.load().iter() {
                    largest = largest.max(largest_in(segment, log_start)?);
                }
                Ok(largest)
            })?;
            let Some(timestamp) = largest else { return Ok(None) };
            let found = self.offset_for_timestamp(timestamp)?;
            // The record that has it may be gone since.
            if found.is_some() || self.log_start_offset() == log_start {
                return Ok(found);
            }
        }
    }
}

/// The largest timestamp of the records of `segment` that are not below `log_start`.
fn largest_in(segment: &Segment, log_start: Offset) -> Result<Option<i64>, StorageError> {
    let (newest, position) =
        segment.with_indexes(|indexes| (indexes.newest(), indexes.position_for(log_start)))?;
    let newest = newest.map(|(timestamp, _)| timestamp);
    if segment.base() >= log_start {
        return Ok(newest);
    }
    // The index does not tell whether its newest record lies behind the log's start.
    let file = segment.file()?;
    let mut scanner = Scanner::new(&file, position, segment.size());
    let mut largest = None;
    while largest < newest {
        let (header, position) = match scanner.next_header() {
            Ok(Some(found)) => found,
            Ok(None) => break,
            Err(error) => return Err(segment.scan_error(error, scanner.position())),
        };
        if header.last_offset() < log_start || header.record_count == 0 {
            continue;
        }
        let of_batch = if header.base_offset >= log_start {
            Some(header.max_timestamp)
        } else {
            largest_timestamp(&read_batch(segment, &file, &header, position)?, log_start)
                .unwrap_or(Some(header.max_timestamp))
        };
        largest = largest.max(of_batch.filter(|&timestamp| timestamp >= 0));
    }
    Ok(largest)
}

/// The first record of `segment` at or after both `log_start` and `timestamp`; `from` is where to begin.
fn search(
    segment: &Segment,
    from: Offset,
    log_start: Offset,
    timestamp: i64,
) -> Result<Option<TimestampedOffset>, StorageError> {
    let file = segment.file()?;
    let position = segment.with_indexes(|indexes| indexes.position_for(from))?;
    let mut scanner = Scanner::new(&file, position, segment.size());
    loop {
        let (header, position) = match scanner.next_header() {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(None),
            Err(error) => return Err(segment.scan_error(error, scanner.position())),
        };
        // Compaction leaves batches without records behind.
        if header.max_timestamp < timestamp || header.last_offset() < log_start || header.record_count == 0 {
            continue;
        }
        let found = if header.timestamp_type() == TimestampType::LogAppendTime {
            Some(whole_batch(&header, log_start))
        } else {
            let batch = read_batch(segment, &file, &header, position)?;
            first_at_or_after(&batch, timestamp, log_start)
                .unwrap_or_else(|_unreadable| Some(whole_batch(&header, log_start)))
        };
        if let Some((timestamp, offset)) = found {
            return Ok(Some(TimestampedOffset {
                timestamp,
                offset,
                leader_epoch: header.leader_epoch,
            }));
        }
    }
}

fn read_batch(
    segment: &Segment,
    file: &File,
    header: &BatchHeader,
    position: u64,
) -> Result<Vec<u8>, StorageError> {
    let mut batch = vec![0; header.size];
    file.read_exact_at(&mut batch, position)
        .map_err(StorageError::io("read", &segment.path(FileKind::Log)))?;
    Ok(batch)
}

fn whole_batch(header: &BatchHeader, log_start: Offset) -> (i64, Offset) {
    (header.max_timestamp, header.base_offset.max(log_start))
}
