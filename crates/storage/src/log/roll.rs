//! Rolling: when a segment ends and the next begins, and the space reserved ahead of the writes.

use std::{fs::File, sync::Arc};

use protocol::{Offset, batch::BatchHeader};
use rustix::fs::FallocateFlags;

use super::{Bounds, Log, Writer};
use crate::{
    disk,
    error::StorageError,
    format::{FileKind, MAX_RELATIVE},
    segment::Segment,
};

/// Segments smaller than this get no space reserved: an idle partition costs one block.
const RESERVE_FROM: u64 = 64 * 1024;
/// Space reserved at once: at least, at most.
const RESERVE_STEP: (u64, u64) = (1 << 20, 32 << 20);

impl Log {
    /// Begins a new segment at the log's end, unless the active one is empty.
    pub fn roll(&self, now_ms: i64) -> Result<(), StorageError> {
        let mut writer = self.writer.lock();
        self.check_usable(&writer)?;
        writer.now_ms = writer.now_ms.max(now_ms);
        self.roll_locked(&mut writer)
    }

    /// Rolls if the active segment was begun more than `segment.ms` ago, by the caller's clock: what gets
    /// no more records must roll too, to be deleted or compacted. Returns whether it did.
    pub fn roll_if_due(&self, now_ms: i64) -> Result<bool, StorageError> {
        let mut writer = self.writer.lock();
        self.check_usable(&writer)?;
        writer.now_ms = writer.now_ms.max(now_ms);
        let age = now_ms.saturating_sub(writer.created_ms);
        let due = self.active().size() > 0 && age > self.config.load().segment_ms();
        if due {
            self.roll_locked(&mut writer)?;
        }
        Ok(due)
    }

    /// Rolls if `len` more bytes of these batches do not fit the active segment, by Kafka's rules.
    pub(super) fn roll_before<'a>(
        &self,
        writer: &mut Writer,
        len: u64,
        headers: impl Iterator<Item = &'a BatchHeader>,
    ) -> Result<(), StorageError> {
        let active = self.active();
        let size = active.size();
        if size == 0 {
            // Only an offset gap can make an empty segment unfit: its base is then too far below.
            let last = headers
                .last()
                .map_or_else(|| active.base(), BatchHeader::last_offset);
            if too_far(active.base(), last) {
                return Err(active.corrupt(
                    0,
                    crate::Damage::TooFar {
                        base: active.base(),
                        offset: last,
                    },
                ));
            }
            return Ok(());
        }
        let config = self.config.load();
        let (mut last, mut timestamp) = (active.base(), -1);
        for header in headers {
            last = header.last_offset();
            timestamp = header.max_timestamp.max(timestamp);
        }
        // By the records' own clock where they have one, so that replay and replication roll alike.
        let age = match writer.first_timestamp {
            Some(first) if timestamp >= 0 => timestamp.saturating_sub(first),
            _ => writer.now_ms.saturating_sub(writer.created_ms),
        };
        let full = size + len > u64::from(config.segment_bytes).min(MAX_RELATIVE);
        if full
            || age > config.segment_ms()
            || active.indexes_full(config.segment_index_bytes)
            || too_far(active.base(), last)
        {
            self.roll_locked(writer)?;
        }
        Ok(())
    }

    /// Seals the active segment and begins the next. On an error the active segment stays active.
    pub(super) fn roll_locked(&self, writer: &mut Writer) -> Result<(), StorageError> {
        let active = self.active();
        if active.size() == 0 {
            return Ok(());
        }
        let base = self.log_end_offset();
        active.write_indexes()?;
        self.write_snapshot(writer, base)?;
        self.tell_before_roll(&active, base)?;
        let next = Segment::create(&self.files, base, self.config.load().index_interval_bytes)?;
        if writer.reserved > active.size() {
            // Gives back what was reserved; that it stays reserved would only be a waste.
            let _ = disk::set_len(
                &*active.hold_for_write()?,
                &active.path(FileKind::Log),
                active.size(),
            );
        }
        let mut segments = self.segments.load().as_ref().clone();
        segments.push(Arc::new(next));
        self.segments.store(Arc::new(segments));
        active.drop_indexes();
        writer.unsynced.push(active);
        writer.active_dirty = false;
        writer.directory_dirty = true;
        self.begin_active(writer);
        Ok(())
    }

    /// Once there is a second segment, recovery must know up to where all is synced: a hole above that is what a power
    /// loss has left.
    fn tell_before_roll(&self, active: &Segment, base: Offset) -> Result<(), StorageError> {
        let (dir, now) = (self.files.dir(), self.bounds());
        if self.is_alone {
            // Alone, a log has few rolls, and nobody else who would call anything synced.
            // What is told comes to the disk by itself: what it speaks of must be there.
            disk::sync_if_present(&active.path(FileKind::OffsetIndex))?;
            disk::sync_if_present(&active.path(FileKind::TimeIndex))?;
            disk::sync_dir(&dir)?;
            let file = active.hold_for_write()?;
            disk::sync_data(&file, &active.path(FileKind::Log)).map_err(|error| self.fail(&error))?;
            let synced = Bounds {
                recovery_point: base,
                ..now
            };
            return self.own_checkpoint.tell(&dir, synced, now);
        }
        if self.own_checkpoint.is_unknown() {
            self.own_checkpoint.tell(&dir, now, now)?;
        }
        Ok(())
    }

    /// The writer's memory of a fresh active segment.
    pub(super) fn begin_active(&self, writer: &mut Writer) {
        writer.first_timestamp = None;
        writer.created_ms = writer.now_ms;
        writer.reserved = 0;
        let config = self.config.load();
        if config.preallocate
            && let Ok(file) = self.active().hold_for_write()
        {
            self.reserve_up_to(writer, &file, u64::from(config.segment_bytes));
        }
    }

    /// Writes the producers' state as of `offset`; durable with the next flush. A snapshot that is
    /// torn by a power loss is known by its checksum, and the one before it is used. One that takes another's
    /// place is durable at once: that may be all that tells of batches that are deleted.
    pub(super) fn write_snapshot(&self, writer: &mut Writer, offset: Offset) -> Result<(), StorageError> {
        let path = self.files.path(FileKind::ProducerSnapshot, offset);
        let bytes = writer.producers.snapshot_bytes();
        if path.exists() {
            return disk::replace_durably(&path, &bytes);
        }
        disk::replace(&path, &bytes)?;
        writer.unsynced_snapshots.push(offset);
        Ok(())
    }

    /// Reserves disk space ahead of a write that ends at `end`, in steps that grow with the segment.
    pub(super) fn reserve(&self, writer: &mut Writer, file: &File, end: u64) {
        if end <= writer.reserved || end < RESERVE_FROM {
            return;
        }
        let step = (end / 4).clamp(RESERVE_STEP.0, RESERVE_STEP.1);
        let target = (end + step).min(u64::from(self.config.load().segment_bytes));
        if target > end {
            self.reserve_up_to(writer, file, target);
        }
    }

    /// The file's length stays the log's end. Where the file system cannot reserve, or has nothing
    /// left to reserve, the write itself will tell.
    fn reserve_up_to(&self, writer: &mut Writer, file: &File, target: u64) {
        let from = writer.reserved;
        writer.reserved = target;
        if let Err(error) = rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, from, target - from) {
            tracing::debug!(log = %self.files.dir().display(), %error, "space could not be reserved");
        }
    }
}

fn too_far(base: Offset, last: Offset) -> bool {
    last.distance_from(base)
        .is_none_or(|distance| distance > MAX_RELATIVE)
}
