//! Offsets by time: which record is the first at or after a moment, and which is the latest.

use std::os::unix::fs::FileExt;

use protocol::{
    LeaderEpoch, Offset,
    batch::{BatchHeader, TimestampType},
    records::first_at_or_after,
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
        let largest = self.unless_crossed(|_| {
            let mut largest = None;
            for segment in self.segments.load().iter() {
                let newest = segment.with_indexes(crate::index::SegmentIndexes::newest)?;
                largest = largest.max(newest.map(|(timestamp, _)| timestamp));
            }
            Ok(largest)
        })?;
        match largest {
            Some(timestamp) => self.offset_for_timestamp(timestamp),
            None => Ok(None),
        }
    }
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
            let mut batch = vec![0; header.size];
            file.read_exact_at(&mut batch, position)
                .map_err(StorageError::io("read", &segment.path(FileKind::Log)))?;
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

fn whole_batch(header: &BatchHeader, log_start: Offset) -> (i64, Offset) {
    (header.max_timestamp, header.base_offset.max(log_start))
}
