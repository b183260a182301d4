//! Offsets by time: which record is the first at or after a moment, and which is the latest.

use protocol::{
    LeaderEpoch, Offset,
    batch::{BatchHeader, Compression, HEADER_LEN, TimestampType, get_varint},
};

use super::Log;
use crate::{error::StorageError, format::FileKind, scan::Scanner, segment::Segment};

/// Opens the records of a compressed batch, within the caller's bounds; `None` when they cannot be.
pub type Decompress<'a> = dyn Fn(Compression, &[u8]) -> Option<Vec<u8>> + 'a;

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
    /// The first record whose timestamp is `timestamp` (ms since 1970) or later. Where `decompress`
    /// cannot open a batch, the batch's first offset and its largest timestamp stand for the record.
    pub fn offset_for_timestamp(
        &self,
        timestamp: i64,
        decompress: &Decompress<'_>,
    ) -> Result<Option<TimestampedOffset>, StorageError> {
        self.unless_crossed(|_| {
            let log_start = self.log_start_offset();
            for segment in self.segments.load().iter() {
                let (newest, before) = segment
                    .with_indexes(|indexes| (indexes.newest(), indexes.offset_before_time(timestamp)))?;
                if newest.is_none_or(|(newest, _)| newest < timestamp) {
                    continue;
                }
                let from = before.max(log_start);
                if let Some(found) = search(segment, from, log_start, timestamp, decompress)? {
                    return Ok(Some(found));
                }
            }
            Ok(None)
        })
    }

    /// The first of the records that have the largest timestamp of the log.
    pub fn max_timestamp(
        &self,
        decompress: &Decompress<'_>,
    ) -> Result<Option<TimestampedOffset>, StorageError> {
        let largest = self.unless_crossed(|_| {
            let mut largest = None;
            for segment in self.segments.load().iter() {
                let newest = segment.with_indexes(crate::index::SegmentIndexes::newest)?;
                largest = largest.max(newest.map(|(timestamp, _)| timestamp));
            }
            Ok(largest)
        })?;
        match largest {
            Some(timestamp) => self.offset_for_timestamp(timestamp, decompress),
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
    decompress: &Decompress<'_>,
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
        if header.max_timestamp < timestamp || header.last_offset() < log_start {
            continue;
        }
        let mut records = vec![0; header.size - HEADER_LEN];
        std::os::unix::fs::FileExt::read_exact_at(&*file, &mut records, position + HEADER_LEN as u64)
            .map_err(StorageError::io("read", &segment.path(FileKind::Log)))?;
        let found = match (header.timestamp_type(), header.compression()) {
            (TimestampType::LogAppendTime, _) => Some(whole_batch(&header, log_start)),
            (_, Ok(Compression::None)) => first_record(&header, &records, log_start, timestamp),
            (_, Ok(codec)) => decompress(codec, &records).map_or_else(
                || Some(whole_batch(&header, log_start)),
                |records| first_record(&header, &records, log_start, timestamp),
            ),
            (_, Err(_)) => Some(whole_batch(&header, log_start)),
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

/// Walks uncompressed records; ends quietly at one that is malformed.
fn first_record(
    header: &BatchHeader,
    mut records: &[u8],
    log_start: Offset,
    timestamp: i64,
) -> Option<(i64, Offset)> {
    while !records.is_empty() {
        let (len, taken) = get_varint(records)?;
        let body = records.get(taken..)?;
        let len = usize::try_from(len).ok().filter(|&len| len <= body.len())?;
        let (body, rest) = body.split_at(len);
        records = rest;
        // After one byte of attributes.
        let (timestamp_delta, taken) = get_varint(body.get(1..)?)?;
        let (offset_delta, _) = get_varint(body.get(1 + taken..)?)?;
        let record = (
            header.base_timestamp.checked_add(timestamp_delta)?,
            header.base_offset.checked_add(offset_delta)?,
        );
        if record.0 >= timestamp && record.1 >= log_start {
            return Some(record);
        }
    }
    None
}
