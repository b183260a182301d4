//! Compaction of one log: its dirty part is read into a map of newest offsets, then group after group
//! of its segments is written anew without what the map has superseded, and swapped in.
//!
//! Runs on a cleaner's thread, one at a time for a log. It takes no lock while it reads and writes:
//! appends, reads and flushes go on; a truncation or a deletion that crosses it makes it give up.

mod cleaning;
mod first_dirty;
mod output;
mod swap;
#[cfg(test)]
mod tests;

use std::{
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
};

use protocol::Offset;

pub(super) use first_dirty::FirstDirty;
pub(super) use swap::complete as complete_swaps;

use super::Log;
use crate::{
    compaction::{
        Dirtiness, FilterError, Throttle,
        plan::{self, Bounds, SegmentFacts},
    },
    error::StorageError,
    index::SegmentIndexes,
    scan::Scanner,
    segment::Segment,
};

/// What a cleaning may use.
#[derive(Clone, Copy, Debug)]
pub struct CompactionResources<'a> {
    /// Bytes that the map of keys may take.
    pub map_bytes: u64,
    /// How full the map may get, 0 to 1.
    pub load_factor: f64,
    /// Bytes read, and written, at once.
    pub io_buffer: u64,
    /// The pace.
    pub throttle: &'a Throttle,
    /// Set when the cleaning is to end before it is done.
    pub stopping: &'a AtomicBool,
}

/// What a cleaning did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Below, each key has one record now: where the dirty part begins.
    pub cleaned_to: Offset,
    /// Bytes read, for the map and for the copy.
    pub bytes_read: u64,
    /// Bytes written.
    pub bytes_written: u64,
    /// Records of the cleaned segments.
    pub records_read: u64,
    /// Records that are left of them.
    pub records_kept: u64,
    /// Records without a key among those that were not kept: from before the topic was compacted.
    pub records_without_key: u64,
    /// Keys in the map.
    pub keys: u64,
    /// Segments before.
    pub segments_read: u64,
    /// Segments that took their place, or were left as they are.
    pub segments_left: u64,
}

/// Why a cleaning ended early. The log is whole: groups that were swapped in stay so.
#[derive(Debug, thiserror::Error)]
pub enum CompactError {
    /// It was told to, or the log was truncated, trimmed, closed or failed meanwhile.
    #[error("the cleaning was interrupted")]
    Interrupted,
    /// The disk refused, or what is on it is damaged.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A batch's records cannot be read.
    #[error("batch at offset {offset} in {} cannot be cleaned: {source}", path.display())]
    Records {
        /// The segment file.
        path: PathBuf,
        /// The batch's base offset.
        offset: Offset,
        /// What is wrong with it.
        source: FilterError,
    },
    /// The cleaning met what it holds for impossible.
    #[error("the cleaning panicked: {0}")]
    Panicked(String),
}

impl Log {
    /// Everything below this offset is compacted. Not blocking.
    pub fn first_dirty_offset(&self) -> Option<Offset> {
        self.first_dirty.get()
    }

    /// Says what the checkpoint file knew of [`Log::first_dirty_offset`] when the log was opened.
    ///
    /// A log that lost its end is taken to be dirty from its start: what it is given anew up to `offset` was
    /// never compacted here.
    pub fn restore_first_dirty_offset(&self, offset: Offset) {
        if offset <= self.log_end_offset() {
            self.first_dirty.restore(offset);
        }
    }

    /// How dirty the log is. Nothing from `stable` on counts: the high watermark, or the last stable
    /// offset. `now_ms` is ms since 1970.
    pub fn dirtiness(&self, stable: Offset, now_ms: i64) -> Result<Dirtiness, StorageError> {
        self.check_open()?;
        // The generation comes before anything else is looked at: whatever is cut from there on, `compact`
        // notices.
        self.unless_crossed(|generation| self.dirtiness_at(generation, stable, now_ms))
    }

    fn dirtiness_at(&self, generation: u64, stable: Offset, now_ms: i64) -> Result<Dirtiness, StorageError> {
        let config = self.config();
        let segments = self.segments.load_full();
        let (active, sealed) = segments.split_last().expect("a log has an active segment");
        let open_transaction = self.writer.lock().producers.first_open_transaction();
        let bounds = Bounds {
            generation,
            log_start: self.log_start_offset(),
            log_end: self.log_end_offset(),
            active: active.base(),
            // What replaces a segment is on the disk, so what it replaces must be.
            stable: stable
                .min(self.recovery_point())
                .min(open_transaction.unwrap_or(Offset(i64::MAX))),
            first_dirty: self.first_dirty_offset(),
        };
        let mut facts: Vec<_> = sealed.iter().map(unread).collect();
        for at in bounds.dirty(&facts) {
            let (segment, facts) = (&sealed[at], &mut facts[at]);
            if config.min_compaction_lag_ms() > 0 {
                facts.newest_ms = match segment.with_indexes(SegmentIndexes::newest)? {
                    Some((newest, _)) => newest,
                    None => segment.modified_ms()?,
                };
            }
            if config.max_compaction_lag_ms().is_some() {
                let file = segment.file()?;
                let first = Scanner::new(&file, 0, segment.size()).next_header();
                let first = first.map_err(|error| segment.scan_error(error, 0))?;
                facts.first_ms = first.map(|(header, _)| header.max_timestamp).filter(|&t| t > 0);
            }
        }
        Ok(plan::assess(&facts, &bounds, &config, now_ms))
    }

    /// Compacts as much of what `dirtiness` calls cleanable as the map of keys holds, and notes how
    /// far it came. `now_ms`, ms since 1970, is what delete horizons go by.
    pub fn compact(
        &self,
        dirtiness: &Dirtiness,
        now_ms: i64,
        resources: &CompactionResources<'_>,
    ) -> Result<Compacted, CompactError> {
        let generation = dirtiness.generation;
        let first = |log: &Self| log.segments.load()[0].base();
        let began_with = first(self);
        let done = cleaning::run(self, dirtiness, now_ms, resources).map_err(|error| {
            // What fails for want of files that were taken away says nothing about the log.
            let trimmed = || first(self) != began_with;
            let interrupted = match &error {
                CompactError::Storage(error) if error.is_not_found() => {
                    self.was_left(generation) || trimmed()
                }
                _ => self.was_left(generation),
            };
            if interrupted {
                CompactError::Interrupted
            } else {
                error
            }
        })?;
        // No truncation in between.
        let _structure = self.structure.lock();
        if self.generation() == generation {
            self.first_dirty.advance(&self.files.dir(), done.cleaned_to)?;
        }
        Ok(done)
    }

    /// Whether the log was closed, or cut since `generation`.
    fn was_left(&self, generation: u64) -> bool {
        self.is_closed() || self.generation() != generation
    }
}

fn unread(segment: &Arc<Segment>) -> SegmentFacts {
    SegmentFacts {
        base: segment.base(),
        size: segment.size(),
        index_size: 0,
        newest_ms: 0,
        first_ms: None,
    }
}
