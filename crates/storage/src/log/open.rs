//! Opening and closing a log.

use std::{
    path::Path,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use parking_lot::{Mutex, RwLock};
use protocol::Offset;

use super::{Log, SegmentList, Writer, compact, own_checkpoint::OwnCheckpoint};
use crate::{
    disk,
    durable_file::read_if_present,
    epochs::EpochCache,
    error::StorageError,
    format::{DELETED_SUFFIX, EPOCH_CHECKPOINT_FILE, FileKind, TEMP_SUFFIX},
    log_config::LogConfig,
    producer_snapshot,
    producers::ProducerState,
    recovery::{Recovery, RecoveryReport, Tail},
    scan::Scanner,
    segment::{LogFiles, Segment},
};

/// What is known of a log before it is opened, from the checkpoint files of its log directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenOptions {
    /// Everything below has been synced, as the last checkpoint says; `None`: it does not name the log.
    pub recovery_point: Option<Offset>,
    /// The log start offset of the last checkpoint.
    pub log_start_offset: Offset,
    /// There are no checkpoints of this log: each roll makes all before it durable, and the log tells so itself.
    pub is_alone: bool,
    /// The log was closed properly: nothing is scanned.
    pub clean_shutdown: bool,
    /// The time, ms since 1970.
    pub now_ms: i64,
}

/// What was found in the directory.
struct Found {
    segments: SegmentList,
    epochs: Option<EpochCache>,
}

impl Log {
    /// Opens the log in `dir`, which is created if it does not exist. After an unclean stop the tail is
    /// scanned, cut where it is torn, and synced. Damage that must not be cut is
    /// [`StorageError::Corrupt`].
    pub fn open(
        dir: &Path,
        config: LogConfig,
        options: OpenOptions,
    ) -> Result<(Self, RecoveryReport), StorageError> {
        let created = !dir.exists();
        std::fs::create_dir_all(dir).map_err(StorageError::io("create", dir))?;
        let files = Arc::new(LogFiles::new(dir.to_owned()));
        let is_checkpointed = options.recovery_point.is_some();
        let (own_checkpoint, options) = OwnCheckpoint::open(dir, options)?;
        compact::complete_swaps(dir)?;
        let mut found = look(dir, &files)?;
        let was_empty = found.segments.is_empty();
        let mut opened = if was_empty {
            forget_all_snapshots(dir)?;
            let first = Segment::create(&files, options.log_start_offset, config.index_interval_bytes)?;
            found.segments.push(Arc::new(first));
            Opened::empty(found.segments, options)
        } else {
            open_segments(dir, &config, options, is_checkpointed, found)?
        };

        let mut start = opened.segments[0].base().max(options.log_start_offset);
        if start > opened.tail.end {
            // Records were deleted up to an offset that a crash has taken with the tail: what is left
            // lies below the log's start.
            opened.report.lost = true;
            start = options.log_start_offset;
            opened.restart_at(&files, start, &config)?;
        }
        opened.epochs_changed |= opened.epochs.truncate_from_end(opened.tail.end);
        opened.epochs_changed |= opened.epochs.truncate_from_start(start);

        let end = opened.tail.end;
        let unsynced = opened
            .segments
            .split_last()
            .map(|(_, sealed)| sealed.iter().filter(|s| s.is_held()).cloned().collect());
        let writer = Writer {
            producers: opened.producers,
            unsynced: unsynced.unwrap_or_default(),
            unsynced_snapshots: opened.unsynced_snapshots,
            active_dirty: opened.unsynced,
            directory_dirty: was_empty || opened.unsynced || opened.directory_unsynced,
            parent_dirty: created,
            epochs_dirty: opened.epochs_changed,
            unflushed_records: 0,
            unflushed_since_ms: None,
            first_timestamp: opened.tail.first_timestamp,
            created_ms: options.now_ms,
            now_ms: options.now_ms,
            reserved: opened.segments.last().map_or(0, |active| active.size()),
        };
        let log = Self {
            files,
            config: ArcSwap::from_pointee(config),
            segments: ArcSwap::from_pointee(opened.segments),
            start: AtomicI64::new(start.0),
            end: AtomicI64::new(end.0),
            durable: AtomicI64::new(end.0),
            recovery_point: AtomicI64::new(end.0),
            own_checkpoint,
            is_alone: options.is_alone,
            first_dirty: compact::FirstDirty::open(dir)?,
            generation: AtomicU64::new(0),
            epochs: RwLock::new(opened.epochs),
            read_hints: Mutex::default(),
            flushing: Mutex::new(()),
            failure: OnceLock::new(),
            closed: AtomicBool::new(false),
            home: OnceLock::new(),
            unlisted: Mutex::default(),
            deleted: Mutex::default(),
            structure: Mutex::new(()),
            writer: Mutex::new(writer),
        };
        if opened.unsynced {
            // A process that was killed leaves batches in the page cache only.
            log.flush()?;
        }
        // Alone, a log is all that remembers a loss, and goes on to say so.
        if !(log.is_alone && opened.report.lost) {
            let believed = options.recovery_point;
            log.own_checkpoint.tell_opened(dir, log.bounds(), believed)?;
        }
        Ok((log, opened.report))
    }

    /// Ends the log: nothing can be appended or changed any more. A clean end flushes everything and
    /// writes indexes and a producer snapshot, so that the next open need not scan.
    pub fn close(&self, clean: bool) -> Result<(), StorageError> {
        // Whoever is at the log's files has come to its end, and nobody begins after this.
        let _structure = self.structure.lock();
        if clean {
            let mut writer = self.writer.lock();
            self.check_usable(&writer)?;
            let active = self.active();
            active.write_indexes()?;
            self.write_snapshot(&mut writer, self.log_end_offset())?;
            if writer.reserved > active.size() {
                // Gives back what was reserved; that it stays reserved would only be a waste.
                let _ = disk::set_len(
                    &*active.hold_for_write()?,
                    &active.path(FileKind::Log),
                    active.size(),
                );
                writer.reserved = active.size();
            }
            writer.active_dirty = true;
            writer.directory_dirty = true;
            writer.epochs_dirty = true;
            drop(writer);
            self.flush()?;
        }
        let _writer = self.writer.lock();
        self.closed.store(true, Ordering::Release);
        Ok(())
    }
}

/// A log's files, understood.
struct Opened {
    segments: SegmentList,
    tail: Tail,
    producers: ProducerState,
    epochs: EpochCache,
    report: RecoveryReport,
    /// There are batches, or cuts, that may not be synced.
    unsynced: bool,
    /// Nor need these producer snapshots be; the next flush is early enough.
    unsynced_snapshots: Vec<Offset>,
    /// Nor what was created or removed.
    directory_unsynced: bool,
    /// The epochs are not what their file says.
    epochs_changed: bool,
}

impl Opened {
    /// A new log, or one of which only the directory is left.
    fn empty(segments: SegmentList, options: OpenOptions) -> Self {
        let end = options.log_start_offset;
        Self {
            segments,
            tail: Tail {
                end,
                first_timestamp: None,
            },
            producers: ProducerState::new(),
            epochs: EpochCache::default(),
            report: RecoveryReport {
                lost: options.recovery_point.is_some_and(|synced| synced > end),
                ..RecoveryReport::default()
            },
            unsynced: false,
            unsynced_snapshots: Vec::new(),
            directory_unsynced: false,
            epochs_changed: false,
        }
    }

    fn restart_at(
        &mut self,
        files: &Arc<LogFiles>,
        start: Offset,
        config: &LogConfig,
    ) -> Result<(), StorageError> {
        for segment in self.segments.iter().rev() {
            segment.close();
            self.report.bytes_cut += segment.size();
            for kind in FileKind::ALL {
                disk::remove(&segment.path(kind))?;
            }
        }
        forget_all_snapshots(&files.dir())?;
        self.segments = vec![Arc::new(Segment::create(
            files,
            start,
            config.index_interval_bytes,
        )?)];
        self.tail = Tail {
            end: start,
            first_timestamp: None,
        };
        self.producers.clear();
        self.epochs.clear();
        self.unsynced = true;
        self.unsynced_snapshots.clear();
        Ok(())
    }
}

/// Lists the directory, and removes what earlier runs left behind.
fn look(dir: &Path, files: &Arc<LogFiles>) -> Result<Found, StorageError> {
    let mut logs = Vec::new();
    let mut others = Vec::new();
    for entry in disk::list(dir)? {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if name.ends_with(DELETED_SUFFIX) || name.ends_with(TEMP_SUFFIX) {
            disk::remove(&entry.path())?;
        }
        match FileKind::parse(name) {
            Some((base, FileKind::Log)) => {
                let metadata = entry
                    .metadata()
                    .map_err(StorageError::io("stat", &entry.path()))?;
                logs.push((base, metadata.len()));
            }
            Some((base, FileKind::OffsetIndex | FileKind::TimeIndex | FileKind::TransactionIndex)) => {
                others.push((base, entry.path()));
            }
            _ => {}
        }
    }
    logs.sort_unstable();
    for (base, path) in others {
        if logs.binary_search_by_key(&base, |&(b, _)| b).is_err() {
            disk::remove(&path)?;
        }
    }
    let path = dir.join(EPOCH_CHECKPOINT_FILE);
    let text = read_if_present(&path).map_err(StorageError::io("read", &path))?;
    let epochs = text.and_then(
        |text| match EpochCache::from_text(&String::from_utf8_lossy(&text)) {
            Ok(epochs) => Some(epochs),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "leader epochs are rebuilt from the batches");
                None
            }
        },
    );
    Ok(Found {
        segments: logs
            .iter()
            .map(|&(base, size)| Arc::new(Segment::existing(files, base, size)))
            .collect(),
        epochs,
    })
}

fn open_segments(
    dir: &Path,
    config: &LogConfig,
    options: OpenOptions,
    is_checkpointed: bool,
    found: Found,
) -> Result<Opened, StorageError> {
    let Found { mut segments, epochs } = found;
    let first = segments[0].base();
    if options.clean_shutdown
        && let Some(epochs) = epochs.clone()
        && let Some(tail) = clean_tail(&segments[segments.len() - 1], config)?
        && let Some((at, producers)) = producer_snapshot::load_latest_snapshot(dir, first, tail.end)
            .map_err(StorageError::io("read", dir))?
        && at == tail.end
    {
        return Ok(Opened {
            segments,
            tail,
            producers,
            epochs,
            report: RecoveryReport::default(),
            unsynced: false,
            unsynced_snapshots: Vec::new(),
            directory_unsynced: false,
            epochs_changed: false,
        });
    }

    // The snapshot at the first segment holds what producers wrote in segments that are deleted.
    let synced = options.recovery_point.unwrap_or(first).max(first);
    let snapshot =
        producer_snapshot::load_latest_snapshot(dir, first, synced).map_err(StorageError::io("read", dir))?;
    let (replay_from, producers) = snapshot.unwrap_or_else(|| (first, ProducerState::new()));
    let walk_from = match epochs {
        Some(_) => replay_from.min(synced),
        None => first,
    };
    let begin = segments
        .partition_point(|segment| segment.base() <= walk_from)
        .saturating_sub(1);
    let mut recovery = Recovery {
        synced_below: options.recovery_point,
        replay_from,
        producers,
        snapshots: Vec::new(),
        removed: false,
        is_checkpointed,
        epochs: epochs.clone().unwrap_or_default(),
        index_interval: config.index_interval_bytes,
        report: RecoveryReport::default(),
    };
    // The batches that are walked tell their epochs better than a file written at another time.
    recovery.epochs.truncate_from_end(segments[begin].base());
    forget_unsynced_indexes(&segments[..begin], segments[begin].base(), synced)?;
    let tail = recovery.run(&mut segments, begin)?;
    forget_unsynced_snapshots(dir, synced.min(tail.end), &recovery.snapshots)?;
    // The indexes of all that was walked are written anew, and synced with the first flush.
    for segment in &segments[begin.min(segments.len() - 1)..] {
        segment.hold_for_write()?;
    }
    let mut unsynced_snapshots =
        producer_snapshot::list_snapshots(dir).map_err(StorageError::io("list", dir))?;
    unsynced_snapshots.retain(|snapshot| *snapshot >= synced || recovery.snapshots.contains(snapshot));
    let clean =
        recovery.report.bytes_cut == 0 && !recovery.removed && options.recovery_point == Some(tail.end);
    Ok(Opened {
        segments,
        tail,
        producers: recovery.producers,
        epochs_changed: epochs.as_ref() != Some(&recovery.epochs),
        epochs: recovery.epochs,
        report: recovery.report,
        unsynced: !clean,
        // What was removed now, or at an earlier start that did not come to a flush, must not come back.
        directory_unsynced: true,
        unsynced_snapshots,
    })
}

/// Removes the producer snapshots above what is synced and still there, but for those that were just written: they may be
/// of batches that were lost, and other batches have their offsets now. The flush that makes their offsets durable syncs
/// that they are gone, or they would come back as good ones.
fn forget_unsynced_snapshots(dir: &Path, synced: Offset, written: &[Offset]) -> Result<(), StorageError> {
    let above = producer_snapshot::list_snapshots(dir).map_err(StorageError::io("list", dir))?;
    above
        .iter()
        .filter(|&snapshot| *snapshot > synced && !written.contains(snapshot))
        .try_for_each(|&snapshot| disk::remove(&producer_snapshot::snapshot_path(dir, snapshot)))
}

/// Of a log that begins anew: whatever producers wrote is gone.
fn forget_all_snapshots(dir: &Path) -> Result<(), StorageError> {
    producer_snapshot::remove_snapshots_above(dir, Offset(-1))
}

/// Removes the index files of the segment that ends where the synced part does, unless it is walked: it may
/// have been sealed since, and what was written then is synced by the next flush only. A power loss may have
/// left anything of them; whoever needs them makes them anew.
fn forget_unsynced_indexes(below: &[Arc<Segment>], end: Offset, synced: Offset) -> Result<(), StorageError> {
    let Some(last) = below.last().filter(|_| end == synced) else {
        return Ok(());
    };
    [FileKind::OffsetIndex, FileKind::TimeIndex]
        .into_iter()
        .try_for_each(|kind| disk::remove(&last.path(kind)))
}

/// The end of a log that was closed properly, from its last segment's indexes and the few batches
/// behind them; `None` when that does not fit together.
fn clean_tail(active: &Segment, config: &LogConfig) -> Result<Option<Tail>, StorageError> {
    let Some(mut indexes) = active.stored_indexes(config.index_interval_bytes)? else {
        return Ok(None);
    };
    let file = active.hold_for_write()?;
    let first = Scanner::new(&file, 0, active.size()).next_header();
    let Ok(first) = first else { return Ok(None) };
    let mut scanner = Scanner::new(&file, indexes.resume_position(), active.size());
    let mut end = active.base();
    loop {
        match scanner.next_header() {
            Ok(Some((header, position))) if header.base_offset >= end => {
                indexes.add(&header, position);
                end = header.next_offset();
            }
            Ok(None) => break,
            Ok(Some(_)) | Err(_) => return Ok(None),
        }
    }
    active.set_indexes(indexes);
    Ok(Some(Tail {
        end,
        first_timestamp: first.map(|(header, _)| header.max_timestamp).filter(|&t| t >= 0),
    }))
}
