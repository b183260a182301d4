//! One segment: its files, its size, its indexes.
//!
//! The active segment keeps its file open and its indexes in memory. A sealed one has both on disk
//! only; a log keeps the files of the two sealed segments read last open, so that ten thousand idle
//! partitions are ten thousand descriptors.

use std::{
    fs::File,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::{Mutex, RwLock};
use protocol::{Offset, batch::BatchHeader};

use crate::{
    disk,
    error::{Damage, StorageError},
    format::FileKind,
    index::SegmentIndexes,
    scan::{ScanError, Scanner},
};

/// Sealed segments whose files a log keeps open after a read.
const SEALED_FILES_OPEN: usize = 2;

/// What the segments of one log share: where they live, and which sealed files are open.
#[derive(Debug)]
pub(crate) struct LogFiles {
    dir: ArcSwap<PathBuf>,
    /// Held while the index files of any segment are written. After a truncation a new segment may have the
    /// name of one that a reader still looks at: a lock of the segment's own would not do.
    index_files: Mutex<()>,
    /// Read last first; by segment, since a compacted one takes the name of an older one.
    sealed: Mutex<Vec<(SegmentId, Arc<File>)>>,
    next_id: AtomicU64,
}

/// Tells segments apart that have the same base offset, within one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentId(u64);

impl LogFiles {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self {
            dir: ArcSwap::from_pointee(dir),
            sealed: Mutex::default(),
            index_files: Mutex::default(),
            next_id: AtomicU64::new(0),
        }
    }

    pub(crate) fn dir(&self) -> Arc<PathBuf> {
        self.dir.load_full()
    }

    pub(crate) fn set_dir(&self, dir: PathBuf) {
        self.dir.store(Arc::new(dir));
    }

    pub(crate) fn path(&self, kind: FileKind, base: Offset) -> PathBuf {
        kind.path(&self.dir.load(), base)
    }

    fn new_id(&self) -> SegmentId {
        SegmentId(self.next_id.fetch_add(1, Ordering::Relaxed))
    }

    fn sealed_file(&self, id: SegmentId) -> Option<Arc<File>> {
        let mut sealed = self.sealed.lock();
        let at = sealed.iter().position(|(other, _)| *other == id)?;
        sealed[..=at].rotate_right(1);
        Some(Arc::clone(&sealed[0].1))
    }

    fn keep_sealed(&self, id: SegmentId, file: Arc<File>) {
        let mut sealed = self.sealed.lock();
        sealed.retain(|(other, _)| *other != id);
        sealed.insert(0, (id, file));
        sealed.truncate(SEALED_FILES_OPEN);
    }

    fn forget_sealed(&self, id: SegmentId) {
        self.sealed.lock().retain(|(other, _)| *other != id);
    }
}

/// A run of batches in one file.
#[derive(Debug)]
pub(crate) struct Segment {
    id: SegmentId,
    base: Offset,
    files: Arc<LogFiles>,
    /// Open for writing while the segment is active, and until what was written is synced: a
    /// descriptor opened later might not be told of a failed write-back.
    file: ArcSwapOption<File>,
    /// Bytes of whole batches that readers may see.
    size: AtomicU64,
    /// In memory while the segment is active.
    indexes: RwLock<Option<SegmentIndexes>>,
    /// Held while the indexes of a sealed segment are rebuilt.
    rebuilding: Mutex<()>,
    /// Its files are gone, or are about to go; their names may belong to another segment.
    gone: AtomicBool,
    /// How often its batches were rewritten: indexes made of earlier ones are nobody's.
    rewritten: AtomicU64,
    /// Set when the segment is replaced: its files lose their names.
    pinned: ArcSwapOption<Pinned>,
}

/// What a replaced segment's last readers read from.
#[derive(Debug)]
struct Pinned {
    file: Arc<File>,
    indexes: SegmentIndexes,
}

impl Segment {
    /// Creates the file of a new, empty segment. A leftover of the same name is replaced.
    pub(crate) fn create(files: &Arc<LogFiles>, base: Offset, interval: u32) -> Result<Self, StorageError> {
        let path = files.path(FileKind::Log, base);
        let file = disk::create(&path)?;
        Ok(Self {
            id: files.new_id(),
            base,
            files: Arc::clone(files),
            file: ArcSwapOption::from_pointee(file),
            size: AtomicU64::new(0),
            indexes: RwLock::new(Some(SegmentIndexes::new(base, interval))),
            rebuilding: Mutex::new(()),
            gone: AtomicBool::new(false),
            rewritten: AtomicU64::new(0),
            pinned: ArcSwapOption::empty(),
        })
    }

    /// A segment whose file exists; nothing is opened yet.
    pub(crate) fn existing(files: &Arc<LogFiles>, base: Offset, size: u64) -> Self {
        Self {
            id: files.new_id(),
            base,
            files: Arc::clone(files),
            file: ArcSwapOption::empty(),
            size: AtomicU64::new(size),
            indexes: RwLock::new(None),
            rebuilding: Mutex::new(()),
            gone: AtomicBool::new(false),
            rewritten: AtomicU64::new(0),
            pinned: ArcSwapOption::empty(),
        }
    }

    pub(crate) fn id(&self) -> SegmentId {
        self.id
    }

    pub(crate) fn base(&self) -> Offset {
        self.base
    }

    /// Bytes of whole batches.
    pub(crate) fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    pub(crate) fn set_size(&self, size: u64) {
        self.size.store(size, Ordering::Release);
    }

    pub(crate) fn path(&self, kind: FileKind) -> PathBuf {
        self.files.path(kind, self.base)
    }

    /// The `.log` file, opened if need be.
    pub(crate) fn file(&self) -> Result<Arc<File>, StorageError> {
        if let Some(file) = self.file.load_full() {
            return Ok(file);
        }
        if let Some(pinned) = self.pinned.load_full() {
            return Ok(Arc::clone(&pinned.file));
        }
        if let Some(file) = self.files.sealed_file(self.id) {
            return Ok(file);
        }
        let path = self.path(FileKind::Log);
        let opened = disk::open(&path);
        // What was opened (or not found) may have been its successor's file.
        if let Some(pinned) = self.pinned.load_full() {
            return Ok(Arc::clone(&pinned.file));
        }
        let file = Arc::new(opened?);
        self.files.keep_sealed(self.id, Arc::clone(&file));
        Ok(file)
    }

    /// Holds what readers need of a sealed segment, before its names become another's: whoever still
    /// has the segment reads on undisturbed, and the file is gone when nobody has it any more.
    pub(crate) fn pin(&self) -> Result<(), StorageError> {
        let (file, indexes) = (self.file()?, self.load_indexes()?);
        self.pinned.store(Some(Arc::new(Pinned { file, indexes })));
        self.give_up_names();
        self.files.forget_sealed(self.id);
        Ok(())
    }

    /// The names are this segment's after all.
    pub(crate) fn unpin(&self) {
        self.gone.store(false, Ordering::Release);
        self.pinned.store(None);
    }

    /// From here on no reader writes its index files.
    fn give_up_names(&self) {
        let _files = self.files.index_files.lock();
        self.gone.store(true, Ordering::Release);
    }

    /// The `.log` file, open for writing until [`Self::release`].
    pub(crate) fn hold_for_write(&self) -> Result<Arc<File>, StorageError> {
        if let Some(file) = self.file.load_full() {
            return Ok(file);
        }
        let path = self.path(FileKind::Log);
        let file = Arc::new(disk::open_for_write(&path)?);
        self.file.store(Some(Arc::clone(&file)));
        self.files.forget_sealed(self.id);
        Ok(file)
    }

    /// Whether the file is open for writing.
    pub(crate) fn is_held(&self) -> bool {
        self.file.load().is_some()
    }

    /// Lets go of the file: the segment is sealed and synced.
    pub(crate) fn release(&self) {
        if let Some(file) = self.file.swap(None) {
            self.files.keep_sealed(self.id, file);
        }
    }

    /// When the `.log` file was last written, ms since 1970: the age of batches without timestamps.
    pub(crate) fn modified_ms(&self) -> Result<i64, StorageError> {
        let path = self.path(FileKind::Log);
        let modified = std::fs::metadata(&path)
            .and_then(|metadata| metadata.modified())
            .map_err(StorageError::io("stat", &path))?;
        let since_1970 = modified.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Ok(i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX))
    }

    /// Takes in a batch that was just written (or read back) at `position`.
    pub(crate) fn add_to_indexes(&self, header: &BatchHeader, position: u64) {
        if let Some(indexes) = &mut *self.indexes.write() {
            indexes.add(header, position);
        }
    }

    /// Indexes of its batches as they are from now on.
    pub(crate) fn set_indexes(&self, indexes: SegmentIndexes) {
        self.rewritten.fetch_add(1, Ordering::AcqRel);
        *self.indexes.write() = Some(indexes);
    }

    /// Whether an index file would grow past `limit` bytes.
    pub(crate) fn indexes_full(&self, limit: u32) -> bool {
        self.indexes
            .read()
            .as_ref()
            .is_some_and(|indexes| indexes.is_full(limit))
    }

    /// Completes the indexes and writes them to their files; they stay in memory.
    pub(crate) fn write_indexes(&self) -> Result<(), StorageError> {
        let _files = self.files.index_files.lock();
        if let Some(indexes) = &mut *self.indexes.write() {
            indexes.seal();
            let (offsets, times) = (self.path(FileKind::OffsetIndex), self.path(FileKind::TimeIndex));
            indexes.write(&offsets, &times)?;
        }
        Ok(())
    }

    /// Frees the memory of indexes that are in their files.
    pub(crate) fn drop_indexes(&self) {
        *self.indexes.write() = None;
    }

    /// Looks something up in the indexes, from memory or from the files, which are rebuilt if need be.
    pub(crate) fn with_indexes<T>(&self, look: impl FnOnce(&SegmentIndexes) -> T) -> Result<T, StorageError> {
        if let Some(indexes) = &*self.indexes.read() {
            return Ok(look(indexes));
        }
        if let Some(pinned) = self.pinned.load_full() {
            return Ok(look(&pinned.indexes));
        }
        let loaded = self.load_indexes();
        // What was loaded may have been its successor's.
        match self.pinned.load_full() {
            Some(pinned) => Ok(look(&pinned.indexes)),
            None => Ok(look(&loaded?)),
        }
    }

    /// [`SegmentIndexes::read_end`], where the indexes are in memory; else `limit`.
    pub(crate) fn read_end(&self, position: u64, limit: u64, size: u64, upper: Offset) -> u64 {
        let indexes = self.indexes.read();
        let end = indexes
            .as_ref()
            .map(|indexes| indexes.read_end(position, limit, size, upper));
        end.unwrap_or(limit)
    }

    /// The indexes of a sealed segment as their files tell, which are rebuilt if need be.
    pub(crate) fn load_indexes(&self) -> Result<SegmentIndexes, StorageError> {
        if let Some(indexes) = self.stored_indexes(0)? {
            return Ok(indexes);
        }
        self.rebuild_indexes()
    }

    /// The index files as they are, `None` when they are missing or cannot be right.
    pub(crate) fn stored_indexes(&self, interval: u32) -> Result<Option<SegmentIndexes>, StorageError> {
        let (offsets, times) = (self.path(FileKind::OffsetIndex), self.path(FileKind::TimeIndex));
        SegmentIndexes::load(self.base, interval, self.size(), &offsets, &times)
            .map_err(StorageError::io("read", &offsets))
    }

    /// Makes the indexes of a sealed segment from its batches and replaces their files; unless the segment
    /// was truncated or removed meanwhile: the files are then another's to write.
    pub(crate) fn rebuild_indexes(&self) -> Result<SegmentIndexes, StorageError> {
        let _turn = self.rebuilding.lock();
        let rewritten = self.rewritten.load(Ordering::Acquire);
        if let Some(pinned) = self.pinned.load_full() {
            return Ok(pinned.indexes.clone());
        }
        let file = self.file()?;
        let mut indexes = SegmentIndexes::new(self.base, crate::LogConfig::default().index_interval_bytes);
        let mut scanner = Scanner::new(&file, 0, self.size());
        loop {
            match scanner.next_header() {
                Ok(Some((header, position))) => indexes.add(&header, position),
                Ok(None) => break,
                Err(error) => return Err(self.scan_error(error, scanner.position())),
            }
        }
        indexes.seal();
        let _files = self.files.index_files.lock();
        let stale = rewritten != self.rewritten.load(Ordering::Acquire);
        if stale || self.gone.load(Ordering::Acquire) || self.indexes.read().is_some() {
            return Ok(indexes);
        }
        let (offsets, times) = (self.path(FileKind::OffsetIndex), self.path(FileKind::TimeIndex));
        indexes.write_durably(&offsets, &times)?;
        tracing::info!(segment = %self.path(FileKind::Log).display(), "segment indexes rebuilt");
        Ok(indexes)
    }

    /// What a failed walk means for this segment.
    pub(crate) fn scan_error(&self, error: ScanError, position: u64) -> StorageError {
        match error {
            ScanError::Io(source) => StorageError::io("read", &self.path(FileKind::Log))(source),
            ScanError::Damage(damage) => self.corrupt(position, damage),
        }
    }

    /// Damage at a position of this segment.
    pub(crate) fn corrupt(&self, position: u64, damage: impl Into<Damage>) -> StorageError {
        StorageError::Corrupt {
            path: self.path(FileKind::Log),
            position,
            damage: damage.into(),
        }
    }

    /// Forgets open files of a segment that is about to be removed. From here on no reader writes its
    /// index files.
    pub(crate) fn close(&self) {
        self.give_up_names();
        self.file.store(None);
        self.files.forget_sealed(self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use protocol::batch::BatchBuilder;

    use super::*;

    /// A sealed segment of one batch, without index files.
    fn sealed(dir: &tempfile::TempDir) -> Segment {
        let files = Arc::new(LogFiles::new(dir.path().to_owned()));
        let segment = Segment::create(&files, Offset(7), 4096).expect("create");
        let builder = BatchBuilder {
            base_offset: Offset(7),
            ..BatchBuilder::default()
        };
        let batch = builder.build_records(&[(None, Some(b"value"))]);
        let file = segment.hold_for_write().expect("held");
        file.write_all_at(&batch, 0).expect("write");
        segment.set_size(batch.len() as u64);
        segment.drop_indexes();
        segment
    }

    #[test]
    fn missing_index_files_are_rebuilt() {
        let dir = tempfile::tempdir().expect("a folder");
        let segment = sealed(&dir);
        segment.rebuild_indexes().expect("rebuilt");
        assert!(segment.path(FileKind::OffsetIndex).exists());
    }

    /// A reader may hold on to a segment that was truncated away, while a new one of its name is written.
    #[test]
    fn nobody_writes_the_index_files_of_a_segment_that_is_gone() {
        let dir = tempfile::tempdir().expect("a folder");
        let segment = sealed(&dir);
        segment.close();
        segment.rebuild_indexes().expect("for the reader itself");
        assert!(!segment.path(FileKind::OffsetIndex).exists());
        assert!(!segment.path(FileKind::TimeIndex).exists());
    }

    #[test]
    fn nobody_but_its_writer_writes_the_index_files_of_an_active_segment() {
        let dir = tempfile::tempdir().expect("a folder");
        let segment = sealed(&dir);
        segment.set_indexes(SegmentIndexes::new(Offset(7), 4096));
        segment.rebuild_indexes().expect("for the reader itself");
        assert!(!segment.path(FileKind::OffsetIndex).exists());
        segment.write_indexes().expect("by the writer");
        assert!(segment.path(FileKind::OffsetIndex).exists());
    }
}
