//! Truncation: the end of the log goes, for good, before anything else is appended.

use std::sync::{Arc, atomic::Ordering};

use protocol::Offset;

use super::{Bounds, Log, SegmentList, Writer};
use crate::{
    disk, error::StorageError, format::FileKind, producer_snapshot, producers::ProducerState, scan::Scanner,
    segment::Segment,
};

impl Log {
    /// Removes every batch that holds `offset` or a later one, and forgets the epochs that began there.
    /// Durable on return: a batch that was truncated never comes back, whatever is appended in its
    /// place. Needs room for a small file: on a full disk it fails and has changed nothing.
    pub fn truncate_to(&self, offset: Offset) -> Result<(), StorageError> {
        let _structure = self.structure.lock();
        let mut writer = self.writer.lock();
        self.check_usable(&writer)?;
        if offset >= self.log_end_offset() {
            // An epoch that began at the end has no batch: its leader appended nothing. Batches of an
            // earlier epoch may follow from a leader that never heard of it.
            let end = self.log_end_offset();
            writer.epochs_dirty |= self.epochs.write().truncate_from_end(end);
            return Ok(());
        }
        let segments = self.segments.load();
        let Some(at) = Self::segment_index(&segments, offset).filter(|_| offset >= self.log_start_offset())
        else {
            return Err(self.out_of_range(offset));
        };
        let target = Arc::clone(&segments[at]);
        // All that can fail without consequence comes first.
        let file = target.hold_for_write()?;
        let directory = disk::open(&self.files.dir())?;
        let cut = find_cut(&target, offset, self.config.load().index_interval_bytes)?;
        let end = if cut.position == 0 { target.base() } else { cut.end };
        let producers = if writer.producers.is_empty() {
            ProducerState::new()
        } else {
            self.producers_as_of(end)?
        };
        let gone: SegmentList = segments[at + 1..].to_vec();
        self.first_dirty.void_above(&self.files.dir(), end)?;
        self.tell_before_end(end)?;

        self.lower_end(&mut writer, end);
        target.set_size(cut.position);
        target.set_indexes(cut.indexes);
        self.segments.store(Arc::new(segments[..=at].to_vec()));
        writer.producers = producers;
        writer.unsynced.retain(|segment| segment.base() < target.base());
        writer.unsynced_snapshots.retain(|&snapshot| snapshot <= end);
        writer.active_dirty = false;
        writer.first_timestamp = cut.first_timestamp;
        writer.reserved = cut.position;
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.own_checkpoint.lower(end);

        let path = target.path(FileKind::Log);
        // From the newest backwards: whenever the machine stops, what is left is a prefix.
        let shortened = remove_segments(gone.iter().rev())
            .and_then(|()| self.remove_snapshots_above(end))
            .and_then(|()| disk::sync_open_dir(&directory, &self.files.dir()))
            .and_then(|()| disk::set_len(&file, &path, cut.position))
            .and_then(|()| disk::sync_data(&file, &path));
        shortened.map_err(|error| self.fail(&error))
    }

    /// Removes everything and begins anew at `offset`: what a follower does whose leader no longer has
    /// its log end, and a voter that installs a snapshot.
    pub fn truncate_fully_and_start_at(&self, offset: Offset) -> Result<(), StorageError> {
        let _structure = self.structure.lock();
        let mut writer = self.writer.lock();
        self.check_usable(&writer)?;
        let directory = disk::open(&self.files.dir())?;
        self.first_dirty.void_above(&self.files.dir(), offset)?;
        // Every batch is about to go, and a crash on the way is no loss.
        let until_now = self.bounds();
        let log_start = until_now.log_start.min(offset);
        let nothing_synced = Bounds {
            recovery_point: until_now.recovery_point.min(log_start),
            log_start,
        };
        self.own_checkpoint
            .tell(&self.files.dir(), nothing_synced, until_now)?;
        let old = self.segments.load_full();
        self.start.store(offset.0, Ordering::Release);
        self.lower_end(&mut writer, offset);
        self.epochs.write().clear();
        writer.epochs_dirty = true;
        writer.producers.clear();
        writer.unsynced.clear();
        writer.unsynced_snapshots.clear();
        writer.active_dirty = false;
        writer.directory_dirty = true;
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.own_checkpoint.lower(log_start);

        let restarted = remove_segments(old.iter().rev())
            .and_then(|()| {
                let mut unlisted = self.unlisted.lock();
                remove_segments(unlisted.iter().rev()).map(|()| unlisted.clear())
            })
            .and_then(|()| self.remove_snapshots_above(Offset(-1)))
            .and_then(|()| disk::sync_open_dir(&directory, &self.files.dir()))
            .and_then(|()| Segment::create(&self.files, offset, self.config.load().index_interval_bytes));
        match restarted {
            Ok(first) => {
                self.segments.store(Arc::new(vec![Arc::new(first)]));
                self.begin_active(&mut writer);
                Ok(())
            }
            Err(error) => Err(self.fail(&error)),
        }
    }

    /// Checkpoints that were written before the log ends at `end` must not be believed after it.
    fn tell_before_end(&self, end: Offset) -> Result<(), StorageError> {
        let until_now = self.bounds();
        let now = Bounds {
            recovery_point: until_now.recovery_point.min(end),
            log_start: until_now.log_start.min(end),
        };
        if now == until_now && !self.own_checkpoint.exceeds(now) {
            return Ok(());
        }
        self.own_checkpoint.tell(&self.files.dir(), now, until_now)
    }

    /// The offsets of the shorter log. Whoever sees the next generation sees these, and files that
    /// change only after it; whoever began under an older one looks again.
    fn lower_end(&self, writer: &mut Writer, end: Offset) {
        self.durable
            .store(self.durable_offset().min(end).0, Ordering::Release);
        self.recovery_point
            .store(self.recovery_point().min(end).0, Ordering::Release);
        // The start may lie inside a batch that goes.
        self.start
            .store(self.log_start_offset().min(end).0, Ordering::Release);
        self.end.store(end.0, Ordering::Release);
        self.first_dirty.lower(end);
        writer.epochs_dirty |= self.epochs.write().truncate_from_end(end);
    }

    fn remove_snapshots_above(&self, offset: Offset) -> Result<(), StorageError> {
        producer_snapshot::remove_snapshots_above(&self.files.dir(), offset)
    }

    /// The producers' state as of `end`, from the newest snapshot below it and the batches after that.
    pub(super) fn producers_as_of(&self, end: Offset) -> Result<ProducerState, StorageError> {
        let dir = self.files.dir();
        let segments = self.segments.load();
        let first = segments.first().map_or(end, |segment| segment.base());
        let snapshot = producer_snapshot::load_latest_snapshot(&dir, first, end)
            .map_err(StorageError::io("read", &dir))?;
        let (from, mut state) = snapshot.unwrap_or_else(|| (first, ProducerState::new()));
        let begin = Self::segment_index(&segments, from).unwrap_or_default();
        for segment in segments[begin..]
            .iter()
            .take_while(|segment| segment.base() < end)
        {
            let file = segment.file()?;
            let start = segment.with_indexes(|indexes| indexes.position_for(from))?;
            let mut scanner = Scanner::new(&file, start, segment.size());
            loop {
                match scanner.next_header() {
                    Ok(Some((header, _))) if header.base_offset >= end => break,
                    Ok(Some((header, _))) if header.base_offset >= from => state.update(&header),
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(error) => return Err(segment.scan_error(error, scanner.position())),
                }
            }
        }
        Ok(state)
    }
}

/// Where a segment is to be cut, and what it is then.
struct Cut {
    position: u64,
    /// The offset after the last batch kept; the segment's base offset when none is.
    end: Offset,
    indexes: crate::index::SegmentIndexes,
    first_timestamp: Option<i64>,
}

fn find_cut(segment: &Segment, offset: Offset, interval: u32) -> Result<Cut, StorageError> {
    let file = segment.file()?;
    let mut indexes = segment.with_indexes(Clone::clone)?;
    indexes.cut(offset);
    indexes.set_interval(interval);
    let first = Scanner::new(&file, 0, segment.size())
        .next_header()
        .map_err(|error| segment.scan_error(error, 0))?;
    let mut cut = Cut {
        position: indexes.resume_position(),
        end: segment.base(),
        indexes,
        first_timestamp: first.map(|(header, _)| header.max_timestamp).filter(|&t| t >= 0),
    };
    let mut scanner = Scanner::new(&file, cut.position, segment.size());
    loop {
        match scanner.next_header() {
            Ok(Some((header, position))) if header.last_offset() < offset => {
                cut.indexes.add(&header, position);
                cut.position = scanner.position();
                cut.end = header.next_offset();
            }
            Ok(_) => break,
            Err(error) => return Err(segment.scan_error(error, scanner.position())),
        }
    }
    if cut.position == 0 {
        cut.first_timestamp = None;
    }
    Ok(cut)
}

/// Removes the files of segments. The `.log` goes first: what is left without one goes when the log is opened, but a
/// segment that had lost its transaction index would show records of aborted transactions as if they counted.
fn remove_segments<'a>(segments: impl Iterator<Item = &'a Arc<Segment>>) -> Result<(), StorageError> {
    for segment in segments {
        segment.close();
        for kind in [
            FileKind::Log,
            FileKind::OffsetIndex,
            FileKind::TimeIndex,
            FileKind::TransactionIndex,
        ] {
            let path = segment.path(kind);
            disk::remove(&path)?;
        }
    }
    Ok(())
}
