//! Swap: a segment that compaction has written takes the place of those it was made from.
//!
//! ```text
//!   1  X.*.cleaned     written and synced
//!   2  X.*index.swap   the indexes are renamed, then
//!      X.log.swap      the batches: from here on, the new segment is what counts
//!   3                  the other old segments are removed
//!   4  X.*index        the new indexes take the old ones' names, then
//!      X.log           the batches
//! ```
//! Each step is in the directory, durably, before the next begins. A crash before `X.log.swap` is there
//! leaves the old segments; from then on, [`complete`] finishes what was begun. Which segments are old
//! is known from the new one: it reaches exactly as far as they did, because the last batch of a
//! group is always kept.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::DirEntry,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use protocol::Offset;

use crate::{
    disk,
    error::StorageError,
    format::{CLEANED_SUFFIX, FileKind, SWAP_SUFFIX},
    log::{Log, SegmentList},
    scan::{ScanError, Scanner},
    segment::Segment,
};

/// A segment's files beside its batches.
pub(super) const INDEXES: [FileKind; 3] = [
    FileKind::OffsetIndex,
    FileKind::TimeIndex,
    FileKind::TransactionIndex,
];

/// The path of a segment's file under a name that says that it does not count yet.
pub(super) fn suffixed(dir: &Path, kind: FileKind, base: Offset, suffix: &str) -> PathBuf {
    let mut path: OsString = kind.path(dir, base).into();
    path.push(suffix);
    path.into()
}

impl Log {
    /// Replaces `old`, neighbours in the list, with the segment of `size` bytes whose synced files lie
    /// beside them as `.cleaned`. `false`: they are not all there any more, or were cut since
    /// `generation`, and nothing was done. Appends and reads go on meanwhile.
    pub(super) fn swap_in(
        &self,
        old: &[Arc<Segment>],
        size: u64,
        generation: u64,
    ) -> Result<bool, StorageError> {
        let _structure = self.structure.lock();
        self.check_usable(&self.writer.lock())?;
        let listed = |list: &SegmentList| {
            let at = list.iter().position(|segment| Arc::ptr_eq(segment, &old[0]))?;
            let same = |(a, b): (&Arc<Segment>, &Arc<Segment>)| Arc::ptr_eq(a, b);
            (list.len() > at + old.len() && list[at..].iter().zip(old).all(same)).then_some(at)
        };
        let segments = self.segments.load_full();
        let Some(at) = listed(&segments).filter(|_| self.generation() == generation) else {
            return Ok(false);
        };
        let end = segments[at + old.len()].base();
        let dir = self.files.dir();
        let base = old[0].base();
        // All that can fail without consequence comes first.
        let directory = disk::open(&dir)?;
        // Producers are known from the snapshots above: a checkpoint from before would have recovery drop them, and replay
        // what is not there any more.
        if !self.own_checkpoint.covers(end) {
            let bounds = self.bounds();
            self.own_checkpoint.tell(&dir, bounds, bounds)?;
        }
        let renamed =
            |kind, from, to| disk::rename(&suffixed(&dir, kind, base, from), &suffixed(&dir, kind, base, to));
        // Of what was written only the transaction index may not be there: few logs have one.
        let must_rename = |kind, from, to| -> Result<(), StorageError> {
            if renamed(kind, from, to)? || kind == FileKind::TransactionIndex {
                return Ok(());
            }
            let path = suffixed(&dir, kind, base, from);
            Err(StorageError::io("rename", &path)(io::ErrorKind::NotFound.into()))
        };
        let begin = || {
            old.iter().try_for_each(|segment| segment.pin())?;
            for kind in INDEXES {
                must_rename(kind, CLEANED_SUFFIX, SWAP_SUFFIX)?;
            }
            disk::sync_open_dir(&directory, &dir)?;
            must_rename(FileKind::Log, CLEANED_SUFFIX, SWAP_SUFFIX)
        };
        if let Err(error) = begin() {
            for segment in old {
                segment.unpin();
            }
            return Err(error);
        }

        let finish = || {
            disk::sync_open_dir(&directory, &dir)?;
            for segment in old[1..].iter().rev() {
                remove(&dir, segment.base())?;
            }
            for kind in INDEXES {
                must_rename(kind, SWAP_SUFFIX, "")?;
            }
            disk::sync_open_dir(&directory, &dir)?;
            must_rename(FileKind::Log, SWAP_SUFFIX, "")?;
            disk::sync_open_dir(&directory, &dir)
        };
        // Half way the names on the disk are nobody's: only recovery knows what to make of them.
        finish().map_err(|error: StorageError| self.fail(&error))?;

        let new = Arc::new(Segment::existing(&self.files, base, size));
        let mut writer = self.writer.lock();
        let mut list = self.segments.load().as_ref().clone();
        let at = listed(&list).expect("only appends change the list while the structure lock is held");
        list.splice(at..at + old.len(), [new]);
        self.segments.store(Arc::new(list));
        writer
            .unsynced
            .retain(|segment| !old.iter().any(|gone| Arc::ptr_eq(gone, segment)));
        Ok(true)
    }

    /// Removes what a cleaning has written and what did not come to count.
    pub(super) fn remove_cleaned(&self, base: Offset) {
        let dir = self.files.dir();
        for kind in [FileKind::Log].into_iter().chain(INDEXES) {
            for suffix in [CLEANED_SUFFIX, SWAP_SUFFIX] {
                // Whatever stays behind is removed at the next start.
                let _ = disk::remove(&suffixed(&dir, kind, base, suffix));
            }
        }
    }
}

impl Log {
    /// Removes what a cleaning that did not come to its end has written and what does not count yet. To be
    /// called while nobody cleans the log. A swap that was begun is left to the next start.
    pub(crate) fn remove_unfinished(&self) {
        let dir = self.files.dir();
        let Ok(entries) = disk::list(&dir) else {
            return;
        };
        for name in entries.iter().map(DirEntry::file_name) {
            let kind = name.to_str().and_then(|name| name.strip_suffix(CLEANED_SUFFIX));
            if kind.is_some_and(|name| FileKind::parse(name).is_some()) {
                // Whatever stays behind is removed at the next start.
                let _ = disk::remove(&dir.join(name));
            }
        }
    }
}

/// Removes a replaced segment; the `.log` goes last.
fn remove(dir: &Path, base: Offset) -> Result<(), StorageError> {
    for kind in INDEXES
        .into_iter()
        .chain([FileKind::ProducerSnapshot, FileKind::Log])
    {
        disk::remove(&kind.path(dir, base))?;
    }
    Ok(())
}

/// Finishes the swaps that a crash has interrupted, and removes what had not come to count. Called
/// before anything else looks at the directory; a crash in here is finished by the next call.
pub(in crate::log) fn complete(dir: &Path) -> Result<(), StorageError> {
    let names: Vec<OsString> = disk::list(dir)?.iter().map(DirEntry::file_name).collect();
    let mut swaps: BTreeMap<Offset, Vec<FileKind>> = BTreeMap::new();
    let mut logs = Vec::new();
    for name in names.iter().filter_map(|name| name.to_str()) {
        if let Some((base, FileKind::Log)) = FileKind::parse(name) {
            logs.push(base);
        } else if name
            .strip_suffix(CLEANED_SUFFIX)
            .is_some_and(|name| FileKind::parse(name).is_some())
        {
            disk::remove(&dir.join(name))?;
        } else if let Some((base, kind)) = name.strip_suffix(SWAP_SUFFIX).and_then(FileKind::parse) {
            swaps.entry(base).or_default().push(kind);
        }
    }
    for (base, kinds) in swaps {
        let swap = |kind| suffixed(dir, kind, base, SWAP_SUFFIX);
        if !kinds.contains(&FileKind::Log) {
            for kind in kinds {
                disk::remove(&swap(kind))?;
            }
            continue;
        }
        let end = end_of(&swap(FileKind::Log), base)?;
        for &old in logs.iter().filter(|&&old| old > base && old < end) {
            remove(dir, old)?;
        }
        for kind in kinds.into_iter().filter(|&kind| kind != FileKind::Log) {
            disk::rename(&swap(kind), &kind.path(dir, base))?;
        }
        disk::sync_dir(dir)?;
        disk::rename(&swap(FileKind::Log), &FileKind::Log.path(dir, base))?;
        disk::sync_dir(dir)?;
        tracing::info!(dir = %dir.display(), %base, %end, "a compaction that was interrupted is completed");
    }
    Ok(())
}

/// The offset after the last batch of a file of batches.
fn end_of(path: &Path, base: Offset) -> Result<Offset, StorageError> {
    let file = disk::open(path)?;
    let size = file.metadata().map_err(StorageError::io("stat", path))?.len();
    let mut scanner = Scanner::new(&file, 0, size);
    let mut end = base;
    loop {
        match scanner.next_header() {
            Ok(Some((header, _))) => end = header.next_offset(),
            Ok(None) => return Ok(end),
            Err(ScanError::Io(source)) => return Err(StorageError::io("read", path)(source)),
            Err(ScanError::Damage(damage)) => {
                return Err(StorageError::Corrupt {
                    path: path.to_owned(),
                    position: scanner.position(),
                    damage: damage.into(),
                });
            }
        }
    }
}
