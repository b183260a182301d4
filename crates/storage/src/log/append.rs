//! Appends: a leader places batches, a follower takes placed ones. Record bytes are never copied,
//! except where the leader's clock replaces their timestamps.

use std::{io::IoSlice, ops::Range, sync::atomic::Ordering};

use bytes::{Bytes, BytesMut};
use protocol::{
    LeaderEpoch, Offset, ProducerEpoch, ProducerId,
    batch::{BatchError, BatchHeader, placed_prefix, set_log_append_time, verify_crc},
};

use super::{Log, Writer};
use crate::{
    disk,
    error::StorageError,
    format::FileKind,
    producers::{SequenceCheck, SequenceError},
};

/// Bytes at the front of a batch that hold what a leader decides: base offset and leader epoch.
const PREFIX_LEN: usize = 16;

/// What a leader is asked to append.
#[derive(Clone, Debug)]
pub struct LeaderAppend {
    /// Whole, validated batches, back to back.
    pub batches: Bytes,
    /// The epoch of this leader.
    pub leader_epoch: LeaderEpoch,
    /// The time, ms since 1970; decides about rolling.
    pub now_ms: i64,
    /// Where the topic uses LogAppendTime, the time to stamp, ms since 1970.
    pub log_append_time: Option<i64>,
}

/// Where appended batches lie now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendInfo {
    /// Offset of the first record.
    pub first_offset: Offset,
    /// Offset of the last record.
    pub last_offset: Offset,
    /// The timestamp stamped on the records, ms since 1970, if any was.
    pub log_append_time: Option<i64>,
    /// First offset of the log.
    pub log_start_offset: Offset,
    /// The new log end.
    pub next_offset: Offset,
    /// Bytes written.
    pub bytes: u64,
    /// A flush is due, by `flush.messages`: request one.
    pub flush_due: bool,
}

/// What became of a leader's append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendOutcome {
    /// The batches are in the log.
    Appended(AppendInfo),
    /// The producer has sent this batch before: it is in the log already.
    Duplicate {
        /// Offset of its first record.
        first_offset: Offset,
        /// Offset of its last record; acknowledge once the high watermark has passed it.
        last_offset: Offset,
        /// The timestamp that was stamped on it then, if any was.
        log_append_time: Option<i64>,
    },
}

/// Why batches were not appended. Nothing of a refused leader's append is in the log.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// A batch of an idempotent producer does not follow its last one.
    #[error("producer {producer_id}: sequence {found} does not follow, {expected} is expected")]
    OutOfOrderSequence {
        /// Whose batch it is.
        producer_id: ProducerId,
        /// The sequence that would follow.
        expected: i32,
        /// The batch's base sequence.
        found: i32,
    },
    /// A newer instance of the producer has written.
    #[error("producer {producer_id}: epoch {found} is fenced by epoch {current}")]
    InvalidProducerEpoch {
        /// Whose batch it is.
        producer_id: ProducerId,
        /// The newest epoch seen.
        current: ProducerEpoch,
        /// The batch's epoch.
        found: ProducerEpoch,
    },
    /// There is no batch to append.
    #[error("nothing to append")]
    Empty,
    /// The bytes are no whole, valid batches.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// A follower's batch does not come after the log's end.
    #[error("batch begins at offset {found}, the log ends at {log_end}")]
    OffsetWentBack {
        /// The lowest offset the batch could have.
        log_end: Offset,
        /// The offset it has.
        found: Offset,
    },
    /// The batch is of an older leader than the log's newest.
    #[error("batch has leader epoch {found}, the log is at epoch {latest}")]
    EpochWentBack {
        /// The log's newest epoch.
        latest: LeaderEpoch,
        /// The batch's epoch.
        found: LeaderEpoch,
    },
    /// There are no offsets left for the batch.
    #[error("the log's offsets are used up")]
    OffsetsExhausted,
    /// The disk refused, or the log has failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl From<SequenceError> for AppendError {
    fn from(error: SequenceError) -> Self {
        match error {
            SequenceError::OutOfOrder {
                producer_id,
                expected,
                found,
            } => Self::OutOfOrderSequence {
                producer_id,
                expected,
                found,
            },
            SequenceError::InvalidEpoch {
                producer_id,
                current,
                found,
            } => Self::InvalidProducerEpoch {
                producer_id,
                current,
                found,
            },
        }
    }
}

/// A batch of the buffer that is being appended.
#[derive(Clone, Debug)]
struct Placed {
    header: BatchHeader,
    /// Where it lies in the buffer.
    range: Range<usize>,
    /// What replaces its first bytes; `None` leaves them.
    prefix: Option<[u8; PREFIX_LEN]>,
}

/// Checks that `bytes` are whole batches, back to back.
fn parse(bytes: &[u8]) -> Result<Vec<Placed>, AppendError> {
    let mut batches = Vec::with_capacity(1);
    let mut at = 0;
    while at < bytes.len() {
        let header = BatchHeader::parse(&bytes[at..])?;
        let range = at..at + header.size;
        at = range.end;
        batches.push(Placed {
            header,
            range,
            prefix: None,
        });
    }
    if batches.is_empty() {
        return Err(AppendError::Empty);
    }
    Ok(batches)
}

/// A copy of the batches with the leader's time on them.
fn stamped(bytes: &Bytes, batches: &mut [Placed], time: i64) -> Result<Bytes, AppendError> {
    let mut copy = BytesMut::from(&bytes[..]);
    for batch in batches {
        let slice = &mut copy[batch.range.clone()];
        set_log_append_time(slice, time);
        batch.header = BatchHeader::parse(slice)?;
    }
    Ok(copy.freeze())
}

impl Log {
    /// Appends as the leader: gives each batch the next offsets and the leader's epoch, unless its
    /// producer has sent it before or its sequence does not follow. Readable on return; durable when
    /// [`Log::durable_offset`] has passed it.
    pub fn append_as_leader(&self, append: LeaderAppend) -> Result<AppendOutcome, AppendError> {
        let mut batches = parse(&append.batches)?;
        let bytes = match append.log_append_time {
            Some(time) => stamped(&append.batches, &mut batches, time)?,
            None => append.batches,
        };

        let mut writer = self.writer.lock();
        self.check_usable(&writer)?;
        if let Some(latest) = self.latest_epoch()
            && append.leader_epoch < latest
        {
            return Err(AppendError::EpochWentBack {
                latest,
                found: append.leader_epoch,
            });
        }
        if let Some(SequenceCheck::Duplicate {
            first_offset,
            last_offset,
            timestamp,
        }) = check_sequences(&writer, &batches)?
        {
            return Ok(AppendOutcome::Duplicate {
                first_offset,
                last_offset,
                log_append_time: append.log_append_time.map(|_| timestamp),
            });
        }
        let mut next = self.log_end_offset();
        for batch in &mut batches {
            batch.prefix = Some(placed_prefix(
                &bytes[batch.range.clone()],
                next,
                append.leader_epoch,
            ));
            batch.header.base_offset = next;
            batch.header.leader_epoch = append.leader_epoch;
            next = next
                .checked_add(i64::from(batch.header.last_offset_delta))
                .and_then(|last| last.checked_add(1))
                .ok_or(AppendError::OffsetsExhausted)?;
        }
        writer.now_ms = writer.now_ms.max(append.now_ms);
        let mut info = self.write(&mut writer, &bytes, &batches)?;
        info.log_append_time = append.log_append_time;
        Ok(AppendOutcome::Appended(info))
    }

    /// Appends what a leader has placed, after its checksums and the order of offsets and epochs
    /// were checked. Offsets may leave gaps, as compaction does. On an error a prefix of the batches
    /// may be in the log: its end tells.
    pub fn append_as_follower(&self, batches: Bytes) -> Result<AppendInfo, AppendError> {
        let placed = parse(&batches)?;
        for batch in &placed {
            verify_crc(&batches[batch.range.clone()])?;
        }

        let mut writer = self.writer.lock();
        self.check_usable(&writer)?;
        let (mut expected, mut latest) = (self.log_end_offset(), self.latest_epoch());
        for Placed { header, .. } in &placed {
            if header.base_offset < expected {
                return Err(AppendError::OffsetWentBack {
                    log_end: expected,
                    found: header.base_offset,
                });
            }
            if let Some(latest) = latest
                && header.leader_epoch < latest
            {
                return Err(AppendError::EpochWentBack {
                    latest,
                    found: header.leader_epoch,
                });
            }
            (expected, latest) = (header.next_offset(), Some(header.leader_epoch));
        }

        // As many batches at once as a segment takes, so that replicas' segments stay in bounds.
        let segment_bytes = self.config.load().segment_bytes as usize;
        let mut info: Option<AppendInfo> = None;
        let mut rest = &placed[..];
        while let Some(first) = rest.first() {
            let fitting = rest
                .iter()
                .take_while(|b| b.range.end - first.range.start <= segment_bytes)
                .count();
            let (now, later) = rest.split_at(fitting.max(1));
            let written = self.write(&mut writer, &batches, now)?;
            info = Some(match info {
                None => written,
                Some(before) => AppendInfo {
                    first_offset: before.first_offset,
                    bytes: before.bytes + written.bytes,
                    ..written
                },
            });
            rest = later;
        }
        info.ok_or(AppendError::Empty)
    }

    /// Writes checked batches behind the log's end, all or nothing, and publishes them.
    fn write(
        &self,
        writer: &mut Writer,
        bytes: &Bytes,
        batches: &[Placed],
    ) -> Result<AppendInfo, StorageError> {
        let (first, last) = (&batches[0], &batches[batches.len() - 1]);
        let len = (last.range.end - first.range.start) as u64;
        self.roll_before(writer, len, batches.iter().map(|batch| &batch.header))?;

        let active = self.active();
        let file = active.hold_for_write()?;
        let position = active.size();
        self.reserve(writer, &file, position + len);
        let path = active.path(FileKind::Log);
        if let Err(error) = disk::write_at(&file, &path, &mut slices(bytes, batches), position) {
            // Readers and recovery must not meet the half that was written.
            disk::set_len(&file, &path, position).map_err(|error| self.fail(&error))?;
            writer.reserved = position;
            self.note_error(&error);
            return Err(error);
        }

        let mut at = position;
        let mut records = 0;
        for Placed { header, .. } in batches {
            active.add_to_indexes(header, at);
            at += header.size as u64;
            records += u64::from(header.last_offset_delta.unsigned_abs()) + 1;
            writer.producers.update(header);
            if self
                .latest_epoch()
                .is_none_or(|latest| latest < header.leader_epoch)
            {
                writer.epochs_dirty |= self
                    .epochs
                    .write()
                    .assign(header.leader_epoch, header.base_offset);
            }
        }
        if position == 0 {
            writer.first_timestamp = Some(first.header.max_timestamp).filter(|&t| t >= 0);
        }
        writer.active_dirty = true;
        writer.unflushed_records += records;
        writer.unflushed_since_ms.get_or_insert(writer.now_ms);

        let next_offset = last.header.next_offset();
        active.set_size(position + len);
        self.end.store(next_offset.0, Ordering::Release);
        let flush_messages = self.config.load().flush_messages;
        if flush_messages > 1 {
            self.durable.store(next_offset.0, Ordering::Release);
        }
        Ok(AppendInfo {
            first_offset: first.header.base_offset,
            last_offset: last.header.last_offset(),
            log_append_time: None,
            log_start_offset: self.log_start_offset(),
            next_offset,
            bytes: len,
            flush_due: writer.unflushed_records >= flush_messages,
        })
    }
}

/// The verdict of the producers' sequences: a duplicate, or all are new.
fn check_sequences(writer: &Writer, batches: &[Placed]) -> Result<Option<SequenceCheck>, AppendError> {
    // Batches that follow another of the same producer in this very append are checked against it:
    // a client sends one batch a request, so the copy below is for others.
    let mut ahead = None;
    for (i, Placed { header, .. }) in batches.iter().enumerate() {
        let state = ahead.as_ref().unwrap_or(&writer.producers);
        match state.check(header)? {
            SequenceCheck::New => {}
            duplicate @ SequenceCheck::Duplicate { .. } => return Ok(Some(duplicate)),
        }
        if header.producer_id.is_some() && i + 1 < batches.len() {
            ahead
                .get_or_insert_with(|| writer.producers.clone())
                .update(header);
        }
    }
    Ok(None)
}

/// The batches' bytes, each with its new prefix.
fn slices<'a>(bytes: &'a Bytes, batches: &'a [Placed]) -> Vec<IoSlice<'a>> {
    let mut slices = Vec::with_capacity(batches.len() * 2);
    for batch in batches {
        let whole = &bytes[batch.range.clone()];
        match &batch.prefix {
            Some(prefix) => {
                slices.push(IoSlice::new(prefix));
                slices.push(IoSlice::new(&whole[PREFIX_LEN..]));
            }
            None => slices.push(IoSlice::new(whole)),
        }
    }
    slices
}
