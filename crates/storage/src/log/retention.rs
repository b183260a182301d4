//! The log's beginning moves: retention, DeleteRecords, purging.
//!
//! Appends do not wait for the disk here. What they, a flush and readers must see as one step happens under
//! the writer lock, in memory: the new start, the epochs and segments that lie below it, and that nobody
//! syncs those any more (from [`Log::lift_start`] on). The files follow under the structure lock alone:
//! nothing is looked up in a segment that is not listed, and whoever still has one from an older list looks
//! again when its files are not there. Unlinking, which takes long for large files, needs no lock at all.
//!
//! Nothing of that is synced but the start, where a checkpoint may be too old to tell what a crash leaves of it (see
//! [`OwnCheckpoint`](super::own_checkpoint::OwnCheckpoint)). A crash in between leaves segments below the start: all of them, or the newest
//! ones, since the oldest go first. They come back with the log, below the start that the checkpoint tells,
//! or, until it is written, as records that are deleted once more. A segment's `.log` goes before what
//! belongs to it: were its transaction index gone first, records of aborted transactions would come back as
//! if they counted.

use std::{
    ffi::OsString,
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use parking_lot::MutexGuard;
use protocol::Offset;

use super::{Log, SegmentList, Writer};
use crate::{
    disk,
    error::StorageError,
    format::{DELETED_SUFFIX, FileKind},
    producer_snapshot,
    segment::Segment,
};

/// A renamed file that waits for its removal.
#[derive(Debug)]
pub(super) struct Deleted {
    /// In the log's directory, which may get another name meanwhile.
    name: OsString,
    since: Instant,
}

impl Deleted {
    /// Removes the file; returns whether it is gone.
    fn remove_from(&self, dir: &Path) -> bool {
        let path = dir.join(&self.name);
        let removed = disk::remove(&path);
        if let Err(error) = &removed {
            tracing::warn!(path = %path.display(), %error, "deleted segment could not be removed");
        }
        removed.is_ok()
    }
}

impl Log {
    /// Moves the log's start to `offset`, at most the log's end, and deletes the segments that lie
    /// wholly below it. Their files are renamed `.deleted` and removed by [`Log::remove_deleted`]
    /// after `file.delete.delay.ms`; at once where that is zero.
    pub fn advance_log_start(&self, offset: Offset) -> Result<(), StorageError> {
        let structure = self.structure.lock();
        let gone = {
            let mut writer = self.writer.lock();
            self.check_usable(&writer)?;
            if offset > self.log_end_offset() {
                return Err(self.out_of_range(offset));
            }
            self.lift_start(&mut writer, offset)
        };
        self.discard(&structure, gone)?;
        drop(structure);
        self.remove_deleted();
        Ok(())
    }

    /// Deletes the oldest segments that `retention.ms` or `retention.bytes` no longer keeps, none that
    /// reaches beyond `upper` (the high watermark). Returns how many. Does nothing unless
    /// `cleanup.policy` contains `delete`.
    pub fn delete_expired(&self, now_ms: i64, upper: Offset) -> Result<usize, StorageError> {
        let structure = self.structure.lock();
        self.check_usable(&self.writer.lock())?;
        let config = self.config.load_full();
        if !config.delete {
            return Ok(0);
        }
        // Index files are read while appends go on: they only add to the end of the list.
        let segments = self.segments.load_full();
        let active_size = segments.last().map_or(0, |active| active.size());
        let expired_by_time = self.count_expired(&segments, config.retention_ms(), now_ms, upper)?;
        let surplus = config
            .retention_bytes
            .map_or(0, |limit| self.size_bytes().saturating_sub(limit));
        let mut expired = expired_by_time.max(count_surplus(&segments, surplus, upper));
        let mut writer = self.writer.lock();
        self.check_usable(&writer)?;
        writer.now_ms = writer.now_ms.max(now_ms);
        if expired == segments.len() && segments[expired - 1].size() != active_size {
            // What was appended meanwhile has not expired.
            expired -= 1;
        }
        if expired == 0 {
            return Ok(0);
        }
        if expired == self.segment_count() {
            self.roll_locked(&mut writer)?;
        }
        let start = self.segments.load()[expired].base();
        let gone = self.lift_start(&mut writer, start);
        drop(writer);
        let count = gone.len();
        self.discard(&structure, gone)?;
        drop(structure);
        self.remove_deleted();
        Ok(count)
    }

    /// Removes the files of segments that were deleted `file.delete.delay.ms` ago. Returns how many
    /// files went.
    pub fn remove_deleted(&self) -> usize {
        let some_left = !self.unlisted.lock().is_empty() && self.check_open().is_ok();
        if some_left && let Err(error) = self.discard(&self.structure.lock(), Vec::new()) {
            tracing::warn!(log = %self.files.dir().display(), %error, "deleted segments keep their names for now");
        }
        let delay = self.config.load().file_delete_delay;
        // Nobody who deletes more waits until these are gone.
        let due: Vec<_> = self
            .deleted
            .lock()
            .extract_if(.., |file| file.since.elapsed() >= delay)
            .collect();
        if due.is_empty() {
            return 0;
        }
        let stay = loop {
            let dir = self.files.dir();
            let stay: Vec<bool> = due.iter().map(|file| !file.remove_from(&dir)).collect();
            // A directory that got another name meanwhile has taken its files along.
            let _no_renaming = self.structure.lock();
            if self.files.dir() == dir {
                break stay;
            }
        };
        let removed = stay.iter().filter(|&&stays| !stays).count();
        let stay = due.into_iter().zip(stay).filter(|(_, stays)| *stays);
        self.deleted.lock().extend(stay.map(|(file, _)| file));
        removed
    }

    /// How many of the oldest segments are older than `retention_ms`.
    fn count_expired(
        &self,
        segments: &SegmentList,
        retention_ms: Option<i64>,
        now_ms: i64,
        upper: Offset,
    ) -> Result<usize, StorageError> {
        let Some(retention_ms) = retention_ms else {
            return Ok(0);
        };
        let mut expired = 0;
        for (i, segment) in segments.iter().enumerate() {
            let end = segments
                .get(i + 1)
                .map_or_else(|| self.log_end_offset(), |next| next.base());
            if segment.size() == 0 || end > upper {
                break;
            }
            let newest = match segment.with_indexes(crate::index::SegmentIndexes::newest)? {
                Some((timestamp, _)) => timestamp,
                None => segment.modified_ms()?,
            };
            if now_ms.saturating_sub(newest) <= retention_ms {
                break;
            }
            expired += 1;
        }
        Ok(expired)
    }

    /// Moves the start to `offset`, where that lies ahead, and takes the segments that lie wholly below it
    /// from the list: they are the caller's to [`Self::discard`]. Memory only; the caller holds the structure
    /// lock too.
    fn lift_start(&self, writer: &mut Writer, offset: Offset) -> SegmentList {
        if offset <= self.log_start_offset() {
            return Vec::new();
        }
        let segments = self.segments.load_full();
        let gone = segments
            .windows(2)
            .take_while(|pair| pair[1].base() <= offset)
            .count();
        self.start.store(offset.0, Ordering::Release);
        writer.epochs_dirty |= self.epochs.write().truncate_from_start(offset);
        let (gone, kept) = segments.split_at(gone);
        if !gone.is_empty() {
            self.segments.store(Arc::new(SegmentList::from(kept)));
            writer.unsynced.retain(|segment| segment.base() >= kept[0].base());
        }
        gone.to_vec()
    }

    /// Gives the files of segments that are not listed any more, the oldest first, to
    /// [`Log::remove_deleted`]. What an error leaves is the next call's.
    fn discard(&self, _structure: &MutexGuard<'_, ()>, gone: SegmentList) -> Result<(), StorageError> {
        let mut unlisted = self.unlisted.lock();
        unlisted.extend(gone);
        if unlisted.is_empty() && !self.own_checkpoint.hides_start(self.log_start_offset()) {
            return Ok(());
        }
        let (dir, first) = (self.files.dir(), self.segments.load()[0].base());
        if self.recovery_point() <= first || self.writer.lock().unsynced_snapshots.contains(&first) {
            // No flush has come this far: what is known of producers from here on is not on the disk yet.
            disk::sync_if_present(&self.files.path(FileKind::ProducerSnapshot, first))?;
            disk::sync_dir(&dir)?;
        }
        if !self.own_checkpoint.covers(first) || self.own_checkpoint.hides_start(self.log_start_offset()) {
            let bounds = self.bounds();
            match self.own_checkpoint.tell(&dir, bounds, bounds) {
                Err(error) if error.is_exhaustion() => {
                    // A full disk gets room by this.
                    tracing::warn!(log = %dir.display(), %error, "segments are deleted before the log tells its start");
                }
                told => told?,
            }
        }
        while let Some(segment) = unlisted.front() {
            self.delete_files(segment)?;
            unlisted.pop_front();
        }
        producer_snapshot::remove_snapshots_below(&dir, first)
    }

    fn delete_files(&self, segment: &Segment) -> Result<(), StorageError> {
        segment.close();
        for kind in [
            FileKind::Log,
            FileKind::OffsetIndex,
            FileKind::TimeIndex,
            FileKind::TransactionIndex,
        ] {
            let path = segment.path(kind);
            let mut name = path.file_name().unwrap_or_default().to_owned();
            name.push(DELETED_SUFFIX);
            if disk::rename(&path, &path.with_file_name(&name))? {
                self.deleted.lock().push(Deleted {
                    name,
                    since: Instant::now(),
                });
            }
        }
        Ok(())
    }
}

/// How many of the oldest segments fit into `surplus` bytes.
fn count_surplus(segments: &SegmentList, mut surplus: u64, upper: Offset) -> usize {
    let mut count = 0;
    for pair in segments.windows(2) {
        let size = pair[0].size();
        if size > surplus || pair[1].base() > upper {
            break;
        }
        surplus -= size;
        count += 1;
    }
    count
}
