//! Flushing: fdatasync of whatever is dirty, outside the writer lock, and what it makes durable.

use std::{fs::File, path::Path, sync::Arc, sync::atomic::Ordering};

use protocol::Offset;

use super::{Log, Writer};
use crate::{
    disk,
    error::StorageError,
    format::{EPOCH_CHECKPOINT_FILE, FileKind},
    segment::Segment,
};

/// What one flush has to sync, as of the moment it began.
#[derive(Debug)]
struct Work {
    generation: u64,
    end: Offset,
    records: u64,
    sealed: Vec<(Arc<Segment>, Arc<File>)>,
    snapshots: Vec<Offset>,
    active: Option<(Arc<Segment>, Arc<File>)>,
    epochs: Option<String>,
    directory: bool,
    parent: bool,
}

/// Why a flush did not succeed.
enum SyncError {
    /// The disk holds something unknown: never retried.
    Fatal(StorageError),
    /// Full disk or no descriptors, before any fsync of batches failed: the next flush tries again.
    Later(StorageError),
}

impl Log {
    /// Makes everything appended so far durable and returns the durable offset. One runs at a time;
    /// appends and reads go on meanwhile. A flush that a truncation has crossed publishes nothing. A
    /// failed fsync marks the log failed for good.
    pub fn flush(&self) -> Result<Offset, StorageError> {
        let _turn = self.flushing.lock();
        let work = {
            let mut writer = self.writer.lock();
            self.check_usable(&writer)?;
            match self.take_work(&mut writer)? {
                Some(work) => work,
                None => return Ok(self.publish_synced(self.log_end_offset())),
            }
        };
        let synced = self.sync(&work);
        let mut writer = self.writer.lock();
        match synced {
            Ok(()) if self.generation() == work.generation => Ok(self.publish_synced(work.end)),
            Ok(()) => Ok(self.durable_offset()),
            Err(SyncError::Later(error)) => {
                self.give_back(&mut writer, work);
                Err(error)
            }
            Err(SyncError::Fatal(error)) => Err(self.fail(&error)),
        }
    }

    /// Whether a flush is due by `flush.messages` or `flush.ms`, or would let recovery begin later.
    pub fn flush_due(&self, now_ms: i64) -> bool {
        let writer = self.writer.lock();
        let config = self.config.load();
        let waited = writer
            .unflushed_since_ms
            .map(|since| now_ms.saturating_sub(since));
        let too_long = config.flush_ms.zip(waited).is_some_and(|(limit, waited)| {
            i64::try_from(limit.as_millis()).is_ok_and(|limit| waited >= limit)
        });
        writer.unflushed_records >= config.flush_messages || too_long || !writer.unsynced.is_empty()
    }

    fn take_work(&self, writer: &mut Writer) -> Result<Option<Work>, StorageError> {
        let dirty = writer.active_dirty
            || writer.directory_dirty
            || writer.epochs_dirty
            || !writer.unsynced.is_empty();
        if !dirty {
            return Ok(None);
        }
        let held = |segment: &Arc<Segment>| Ok((Arc::clone(segment), segment.hold_for_write()?));
        let sealed = writer
            .unsynced
            .iter()
            .map(held)
            .collect::<Result<_, StorageError>>()?;
        let active = writer.active_dirty.then(|| held(&self.active())).transpose()?;
        writer.unsynced.clear();
        writer.active_dirty = false;
        writer.unflushed_since_ms = None;
        Ok(Some(Work {
            generation: self.generation(),
            end: self.log_end_offset(),
            records: std::mem::take(&mut writer.unflushed_records),
            sealed,
            snapshots: std::mem::take(&mut writer.unsynced_snapshots),
            active,
            epochs: std::mem::take(&mut writer.epochs_dirty).then(|| self.epochs.read().to_text()),
            directory: std::mem::take(&mut writer.directory_dirty),
            parent: std::mem::take(&mut writer.parent_dirty),
        }))
    }

    fn sync(&self, work: &Work) -> Result<(), SyncError> {
        // First what can fail for want of descriptors or space, and may be tried again.
        if let Some(epochs) = &work.epochs {
            let path = self.files.dir().join(EPOCH_CHECKPOINT_FILE);
            disk::replace_durably(&path, epochs.as_bytes()).map_err(sort)?;
        }
        for (segment, _) in &work.sealed {
            disk::sync_if_present(&segment.path(FileKind::OffsetIndex)).map_err(sort)?;
            disk::sync_if_present(&segment.path(FileKind::TimeIndex)).map_err(sort)?;
        }
        for &offset in &work.snapshots {
            disk::sync_if_present(&self.files.path(FileKind::ProducerSnapshot, offset)).map_err(sort)?;
        }
        let dir = self.files.dir();
        if work.directory {
            disk::sync_dir(&dir).map_err(sort)?;
        }
        if work.parent {
            let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
            disk::sync_dir(parent.unwrap_or_else(|| Path::new("."))).map_err(sort)?;
        }
        for (segment, file) in work.sealed.iter().chain(&work.active) {
            disk::sync_data(file, &segment.path(FileKind::Log)).map_err(SyncError::Fatal)?;
        }
        for (segment, _) in &work.sealed {
            segment.release();
        }
        Ok(())
    }

    /// Everything below `end` is on the disk. The caller holds the writer lock.
    pub(super) fn publish_synced(&self, end: Offset) -> Offset {
        debug_assert!(
            end <= self.log_end_offset(),
            "nothing beyond the end can be durable"
        );
        self.recovery_point.fetch_max(end.0, Ordering::AcqRel);
        self.durable.fetch_max(end.0, Ordering::AcqRel);
        self.durable_offset()
    }

    /// Marks dirty again what a flush could not sync, unless a truncation has dealt with it.
    fn give_back(&self, writer: &mut Writer, work: Work) {
        writer.unflushed_records += work.records;
        writer.epochs_dirty |= work.epochs.is_some();
        writer.directory_dirty |= work.directory;
        writer.parent_dirty |= work.parent;
        writer.unsynced_snapshots.extend(work.snapshots);
        let segments = self.segments.load();
        let last = segments.len() - 1;
        let listed = |segment: &Arc<Segment>| segments.iter().position(|s| Arc::ptr_eq(s, segment));
        let (mut sealed, mut active_dirty) = (Vec::new(), false);
        for (segment, _) in work.sealed.into_iter().chain(work.active) {
            match listed(&segment) {
                Some(at) if at == last => active_dirty = true,
                Some(_) => sealed.push(segment),
                None => {}
            }
        }
        writer.active_dirty |= active_dirty;
        // What was rolled meanwhile is listed already.
        sealed.retain(|segment| !writer.unsynced.iter().any(|s| Arc::ptr_eq(s, segment)));
        writer.unsynced.splice(0..0, sealed);
    }
}

fn sort(error: StorageError) -> SyncError {
    if error.is_exhaustion() {
        SyncError::Later(error)
    } else {
        SyncError::Fatal(error)
    }
}
