//! One partition's log: segments on disk, appended to by one writer, read by many.
//!
//! ```text
//!   log start ≤ log end                  recovery point ≤ durable ≤ log end
//!   │           └ next offset to be given  │                └ an acknowledgement may count up to here
//!   └ first offset kept                    └ fdatasync has passed, recovery scans from here
//! ```
//! One lock orders all that changes the log. Readers never take it: they see an immutable list of
//! segments and a few atomic offsets, and check afterwards that no truncation crossed their path (the
//! *generation*). fdatasync runs outside the lock.

mod append;
mod compact;
#[cfg(test)]
mod crash_tests;
mod damage;
mod open;
mod own_checkpoint;
#[cfg(test)]
mod power_loss_tests;
mod read;
mod retention;
mod roll;
mod sync;
mod timestamps;
mod truncate;
mod window;

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
};

use arc_swap::{ArcSwap, Guard};
use parking_lot::{Mutex, RwLock};
use protocol::{LeaderEpoch, Offset, ProducerId};

pub use append::{AppendError, AppendInfo, AppendOutcome, LeaderAppend};
pub use compact::{CompactError, Compacted, CompactionResources};
pub use open::OpenOptions;
pub use read::{ReadOutcome, ReadRequest};
pub use timestamps::TimestampedOffset;

use self::own_checkpoint::{Bounds, OwnCheckpoint};
use crate::{
    disk,
    epochs::EpochCache,
    error::StorageError,
    health::DirectoryHealth,
    log_config::LogConfig,
    producers::{ProducerEntry, ProducerState},
    segment::{LogFiles, Segment},
};

/// Segments in the order of their offsets; never empty, the last is the active one.
type SegmentList = Vec<Arc<Segment>>;

/// A segmented commit log. Every method may block on the disk unless it says otherwise.
#[derive(Debug)]
pub struct Log {
    files: Arc<LogFiles>,
    config: ArcSwap<LogConfig>,
    segments: ArcSwap<SegmentList>,
    start: AtomicI64,
    end: AtomicI64,
    durable: AtomicI64,
    recovery_point: AtomicI64,
    own_checkpoint: OwnCheckpoint,
    /// No checkpoint file will tell the recovery point.
    is_alone: bool,
    /// Where compaction goes on.
    first_dirty: compact::FirstDirty,
    generation: AtomicU64,
    epochs: RwLock<EpochCache>,
    read_hints: Mutex<read::Hints>,
    /// Held for the length of one flush: one runs at a time.
    flushing: Mutex<()>,
    failure: OnceLock<String>,
    /// Set under the writer lock, once and for all.
    closed: AtomicBool,
    /// Of the log directory that holds the log; one that nobody manages has none.
    home: OnceLock<Arc<DirectoryHealth>>,
    /// Not listed any more; their files still have their names.
    unlisted: Mutex<VecDeque<Arc<Segment>>>,
    deleted: Mutex<Vec<retention::Deleted>>,
    /// Held, before the writer lock, by what takes segments out of the list or gives others their
    /// names. Appends do not need it, and so do not wait for the disk where it does.
    structure: Mutex<()>,
    writer: Mutex<Writer>,
}

/// What only the holder of the writer lock sees.
#[derive(Debug)]
struct Writer {
    producers: ProducerState,
    /// Sealed since the last flush began: their batches, indexes and snapshots are to be synced.
    unsynced: Vec<Arc<Segment>>,
    /// Producer snapshots written since then.
    unsynced_snapshots: Vec<Offset>,
    /// Batches were written to the active segment since the last flush began.
    active_dirty: bool,
    /// A file was created in the log's directory since then.
    directory_dirty: bool,
    /// The log's directory was created.
    parent_dirty: bool,
    epochs_dirty: bool,
    /// Records appended since the last flush began.
    unflushed_records: u64,
    /// When the oldest of them was appended, as far as callers told the time.
    unflushed_since_ms: Option<i64>,
    /// Timestamp of the active segment's first batch, where it has one.
    first_timestamp: Option<i64>,
    /// When the active segment was created, ms since 1970.
    created_ms: i64,
    /// The latest time that a caller told, ms since 1970.
    now_ms: i64,
    /// Bytes of the active segment's file that have disk blocks, as far as we asked for them.
    reserved: u64,
}

impl Log {
    /// First offset of the log. Not blocking.
    pub fn log_start_offset(&self) -> Offset {
        Offset(self.start.load(Ordering::Acquire))
    }

    /// The offset that the next record will get. Not blocking.
    pub fn log_end_offset(&self) -> Offset {
        Offset(self.end.load(Ordering::Acquire))
    }

    /// Everything below this offset is as durable as `flush.messages` promises. Not blocking.
    pub fn durable_offset(&self) -> Offset {
        Offset(self.durable.load(Ordering::Acquire))
    }

    /// Counts truncations: what was read or flushed under another generation may be gone. Not
    /// blocking.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Everything below this offset has been through fdatasync: recovery scans from here. Not
    /// blocking.
    pub fn recovery_point(&self) -> Offset {
        Offset(self.recovery_point.load(Ordering::Acquire))
    }

    /// Notes that a checkpoint says `recovery_point`, which was the log's in `generation`.
    pub(crate) fn note_checkpoint(&self, recovery_point: Offset, generation: u64) {
        self.own_checkpoint
            .note_checkpoint(recovery_point, || self.generation() == generation);
    }

    fn bounds(&self) -> Bounds {
        Bounds {
            recovery_point: self.recovery_point(),
            log_start: self.log_start_offset(),
        }
    }

    /// Bytes of batches in the log. Not blocking.
    pub fn size_bytes(&self) -> u64 {
        self.segments.load().iter().map(|segment| segment.size()).sum()
    }

    /// How many segments the log has. Not blocking.
    pub fn segment_count(&self) -> usize {
        self.segments.load().len()
    }

    /// The settings. Not blocking.
    pub fn config(&self) -> Arc<LogConfig> {
        self.config.load_full()
    }

    /// Replaces the settings. Where the page cache becomes the measure, all of the log is durable.
    pub fn set_config(&self, config: LogConfig) {
        let _writer = self.writer.lock();
        if !config.syncs_before_ack() {
            self.durable.store(self.log_end_offset().0, Ordering::Release);
        }
        self.config.store(Arc::new(config));
    }

    /// The log's directory. Not blocking.
    pub fn dir(&self) -> PathBuf {
        self.files.dir().as_ref().clone()
    }

    /// Renames the log's directory, which stays open: a log on its way to deletion.
    pub fn rename_dir(&self, to: &Path) -> Result<(), StorageError> {
        let _structure = self.structure.lock();
        let _writer = self.writer.lock();
        let from = self.files.dir();
        disk::rename_dir(&from, to)?;
        self.files.set_dir(to.to_owned());
        Ok(())
    }

    /// The newest leader epoch known.
    pub fn latest_epoch(&self) -> Option<LeaderEpoch> {
        self.epochs.read().latest()
    }

    /// Where a leader epoch began.
    pub fn epoch_start(&self, epoch: LeaderEpoch) -> Option<Offset> {
        self.epochs.read().start_of(epoch)
    }

    /// The epoch of the record at `offset`.
    pub fn epoch_at(&self, offset: Offset) -> Option<LeaderEpoch> {
        self.epochs.read().epoch_at(offset)
    }

    /// The largest epoch that is at most `epoch`, and the offset where it ends (KIP-279). An epoch
    /// older than all that are known ends where the first known one begins. `None`: none is known.
    pub fn end_offset_for_epoch(&self, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        self.epochs.read().end_offset(epoch, self.log_end_offset())
    }

    /// A new leader notes that its epoch begins at `start`, its log end. Durable with the next flush.
    pub fn assign_epoch_start(&self, epoch: LeaderEpoch, start: Offset) {
        let mut writer = self.writer.lock();
        writer.epochs_dirty |= self.epochs.write().assign(epoch, start);
    }

    /// What is known of an idempotent producer.
    pub fn producer(&self, producer_id: ProducerId) -> Option<ProducerEntry> {
        self.writer.lock().producers.get(producer_id).cloned()
    }

    /// Forgets producers that were idle for `after`; `now_ms` is as for [`ProducerState::expire`].
    /// Returns how many.
    pub fn expire_producers(&self, now_ms: i64, after: std::time::Duration) -> usize {
        self.writer.lock().producers.expire(now_ms, after)
    }

    /// Whether the log, or the directory that it lies in, has failed for good: it refuses everything until
    /// a restart recovers it. Not blocking.
    pub fn has_failed(&self) -> bool {
        self.failure.get().is_some() || self.directory_failure().is_some()
    }

    /// Fails with the directory from now on, and the directory with the log's disk. Once.
    pub(crate) fn live_in(&self, home: Arc<DirectoryHealth>) {
        let first = self.home.set(home).is_ok();
        debug_assert!(first, "a log stays in its directory");
    }

    fn directory_failure(&self) -> Option<&str> {
        self.home.get()?.failure()
    }

    /// Lets the directory know of an error that may be its disk's.
    fn note_error(&self, error: &StorageError) {
        if let Some(home) = self.home.get() {
            home.note(error);
        }
    }

    fn active(&self) -> Arc<Segment> {
        let segments = self.segments.load();
        Arc::clone(segments.last().expect("a log has an active segment"))
    }

    /// The last segment that begins at or before `offset`.
    fn segment_index(segments: &Guard<Arc<SegmentList>>, offset: Offset) -> Option<usize> {
        segments
            .partition_point(|segment| segment.base() <= offset)
            .checked_sub(1)
    }

    /// Whether the log was closed: on its way out of this process, or to deletion. Not blocking.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Who holds the writer lock knows that it stays so.
    fn check_usable(&self, _held: &Writer) -> Result<(), StorageError> {
        self.check_open()
    }

    fn check_open(&self) -> Result<(), StorageError> {
        if self.is_closed() {
            return Err(StorageError::Closed { path: self.dir() });
        }
        self.check_failure()
    }

    fn check_failure(&self) -> Result<(), StorageError> {
        match self
            .failure
            .get()
            .map(String::as_str)
            .or_else(|| self.directory_failure())
        {
            None => Ok(()),
            Some(reason) => Err(StorageError::Failed {
                path: self.dir(),
                reason: reason.to_owned(),
            }),
        }
    }

    /// Marks the log failed for good and returns the error that says so.
    fn fail(&self, error: &StorageError) -> StorageError {
        let path = self.dir();
        let reason = self.failure.get_or_init(|| {
            tracing::error!(log = %path.display(), %error, "log failed; it stays closed until a restart recovers it");
            error.to_string()
        });
        self.note_error(error);
        StorageError::Failed {
            path,
            reason: reason.clone(),
        }
    }
}
