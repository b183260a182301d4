//! Reads: whole batches from an offset on, in one `pread`, without a lock on the writer.

use std::{fs::File, io, sync::Arc};

use bytes::Bytes;
use protocol::{Offset, batch::BatchError};

use super::{
    Log,
    window::{Selection, Window},
};
use crate::{
    error::StorageError,
    format::FileKind,
    segment::{Segment, SegmentId},
};

/// Where recent reads ended: the next read of the same consumer or follower begins there.
const HINTS: usize = 8;
/// Read beyond the wanted bytes where the position is known from the sparse index only.
const INDEX_SLACK: usize = 8 * 1024;
/// How often a read starts again because a segment's file is not there any more.
const ATTEMPTS: usize = 16;

/// What to read.
#[derive(Clone, Copy, Debug)]
pub struct ReadRequest {
    /// The offset wanted first. Inside a batch, the whole batch is returned.
    pub from: Offset,
    /// Only batches that end before this offset are returned: high watermark, last stable offset or
    /// log end.
    pub upper: Offset,
    /// Bytes to return at most.
    pub max_bytes: usize,
    /// Return the first batch even if it is larger than `max_bytes`, so that a reader makes progress.
    pub min_one_batch: bool,
}

/// What was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadOutcome {
    /// Whole batches of one segment, back to back, their checksums verified.
    pub bytes: Bytes,
    /// Base offset of the first batch, `None` when there is none.
    pub first: Option<Offset>,
    /// The offset after the last batch; where there is none, the offset that was asked for.
    pub next_offset: Offset,
}

/// Positions that the sparse index does not know.
#[derive(Debug, Default)]
pub(super) struct Hints {
    entries: Vec<Hint>,
    replace_next: usize,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Hint {
    pub(super) generation: u64,
    pub(super) segment: SegmentId,
    pub(super) offset: Offset,
    pub(super) position: u64,
}

impl Hints {
    fn find(&self, generation: u64, segment: SegmentId, offset: Offset) -> Option<u64> {
        let found = |h: &&Hint| h.offset == offset && h.segment == segment && h.generation == generation;
        self.entries.iter().find(found).map(|hint| hint.position)
    }

    /// Notes where a read ended, in the place of the hint that the read began with.
    pub(super) fn note(&mut self, began_at: Offset, hint: Hint) {
        if let Some(old) = self
            .entries
            .iter_mut()
            .find(|h| h.offset == began_at || h.offset == hint.offset)
        {
            *old = hint;
        } else if self.entries.len() < HINTS {
            self.entries.push(hint);
        } else {
            self.entries[self.replace_next] = hint;
            self.replace_next = (self.replace_next + 1) % HINTS;
        }
    }
}

/// One attempt's answer.
enum Attempt {
    Done(ReadOutcome),
    /// The segment has no batch at or after the offset: compaction left a gap at its end.
    NextSegment,
}

impl Log {
    /// Reads whole batches. An offset outside the log is an error; one at its end, or at `upper`,
    /// gives no batch.
    pub fn read(&self, request: ReadRequest) -> Result<ReadOutcome, StorageError> {
        self.unless_crossed(|generation| self.read_once(&request, generation))
    }

    /// Runs a read without a lock, and again when a truncation or a deletion has crossed it.
    pub(super) fn unless_crossed<T>(
        &self,
        mut read: impl FnMut(u64) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        let mut missing = 0;
        loop {
            self.check_failure()?;
            let generation = self.generation();
            let outcome = read(generation);
            match outcome {
                _ if self.generation() != generation => {}
                // A segment was deleted under the reader: the log start has moved, look again.
                Err(error) if error.is_not_found() && missing < ATTEMPTS => missing += 1,
                Err(error) => {
                    self.note_error(&error);
                    return Err(error);
                }
                read => return read,
            }
        }
    }

    pub(super) fn out_of_range(&self, from: Offset) -> StorageError {
        StorageError::OffsetOutOfRange {
            from,
            log_start: self.log_start_offset(),
            log_end: self.log_end_offset(),
        }
    }

    fn read_once(&self, request: &ReadRequest, generation: u64) -> Result<ReadOutcome, StorageError> {
        let (log_start, log_end) = (self.log_start_offset(), self.log_end_offset());
        if request.from < log_start || request.from > log_end {
            return Err(self.out_of_range(request.from));
        }
        let nothing = ReadOutcome {
            bytes: Bytes::new(),
            first: None,
            next_offset: request.from,
        };
        if request.from >= request.upper.min(log_end) {
            return Ok(nothing);
        }
        let segments = self.segments.load();
        let Some(at) = Self::segment_index(&segments, request.from) else {
            return Err(self.out_of_range(request.from));
        };
        for segment in &segments[at..] {
            match self.read_segment(segment, request, log_end, generation)? {
                Attempt::Done(outcome) => return Ok(outcome),
                Attempt::NextSegment => {}
            }
        }
        Ok(nothing)
    }

    fn read_segment(
        &self,
        segment: &Arc<Segment>,
        request: &ReadRequest,
        log_end: Offset,
        generation: u64,
    ) -> Result<Attempt, StorageError> {
        // After the log's end was read: what the segment has beyond it begins at or after it.
        let size = segment.size();
        let upper = request.upper.min(log_end);
        let file = segment.file()?;
        let hint = self
            .read_hints
            .lock()
            .find(generation, segment.id(), request.from);
        let (mut position, slack) = match hint {
            Some(position) => (position, 0),
            None => (
                segment.with_indexes(|indexes| indexes.position_for(request.from))?,
                INDEX_SLACK,
            ),
        };
        let mut trusted = hint.is_some() || position == 0;
        let mut wanted = request.max_bytes.saturating_add(slack);
        // A batch that was cut off: what the index knows of its end must not cut it off again.
        let mut needed = 0;
        loop {
            if position >= size {
                return Ok(Attempt::NextSegment);
            }
            let limit = position + (size - position).min(wanted.max(INDEX_SLACK) as u64);
            let useful = segment.read_end(position, limit, size, upper) - position;
            let len = useful.max(needed).min(limit - position) as usize;
            let buffer = pread(&file, position, len)
                .map_err(|source| StorageError::io("read", &segment.path(FileKind::Log))(source))?;
            if buffer.len() < len {
                // Shorter than what was written, and (the caller sees to it) not by a truncation.
                let error = BatchError::Truncated {
                    needed: len,
                    available: buffer.len(),
                };
                return Err(segment.corrupt(position, error));
            }
            let window = Window {
                request,
                upper,
                log_end,
                left: size - position,
                trusted,
            };
            match window.select(&buffer) {
                Selection::Batches { range, first, next } => {
                    let hint = Hint {
                        generation,
                        segment: segment.id(),
                        offset: next,
                        position: position + range.end as u64,
                    };
                    self.read_hints.lock().note(request.from, hint);
                    return Ok(Attempt::Done(ReadOutcome {
                        bytes: Bytes::from(buffer).slice(range),
                        first: Some(first),
                        next_offset: next,
                    }));
                }
                Selection::Nothing => {
                    return Ok(Attempt::Done(ReadOutcome {
                        bytes: Bytes::new(),
                        first: None,
                        next_offset: request.from,
                    }));
                }
                Selection::Further {
                    skip,
                    needed: cut_off,
                } => {
                    position += skip as u64;
                    trusted = true;
                    needed = cut_off as u64;
                    wanted = request.max_bytes.max(cut_off);
                }
                Selection::Lost => {
                    // The index led astray: walk from the segment's beginning.
                    tracing::warn!(segment = %segment.path(FileKind::Log).display(), position,
                        "segment index does not fit its batches");
                    position = 0;
                    trusted = true;
                    needed = 0;
                }
                Selection::Damaged { at, damage } => {
                    return Err(segment.corrupt(position + at as u64, damage));
                }
            }
        }
    }
}

/// Reads up to `len` bytes at `position`, fewer only at the end of the file; memory is not zeroed
/// first.
fn pread(file: &File, position: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut buffer = Vec::with_capacity(len);
    while buffer.len() < len {
        let at = position + buffer.len() as u64;
        match rustix::io::pread(file, rustix::buffer::spare_capacity(&mut buffer), at) {
            Ok(0) => break,
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    // An allocation may be larger than asked for, and beyond `len` a writer may be at work.
    buffer.truncate(len);
    Ok(buffer)
}
