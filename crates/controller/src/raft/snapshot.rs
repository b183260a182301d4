//! Snapshot files of the metadata log.
//!
//! ```text
//! "OTTLSNAP" | format version u32 | frame: Raft's snapshot metadata as JSON | frame: SnapshotHeader
//! | frame: MetadataEntry … | u32::MAX | CRC-32C u32 of everything before
//! ```
//!
//! A frame is its length as u32 and its bytes; numbers are big-endian. Files are named as KRaft names
//! them, by the offset after the last one they contain and its epoch, and appear whole (write, fsync,
//! rename, fsync the directory).

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use metadata::{ClusterImage, SnapshotReader, snapshot_entries};
use prost::Message;
use protocol::grpc::v1::{MetadataEntry, SnapshotHeader};

use super::types::SnapshotMeta;

const MAGIC: &[u8; 8] = b"OTTLSNAP";
const FORMAT_VERSION: u32 = 1;
const END: u32 = u32::MAX;
/// Longest frame that is read: far above the largest entry that is written.
const MAX_FRAME: u32 = 64 << 20;
const EXTENSION: &str = "checkpoint";
const INCOMING: &str = "incoming-snapshot";
/// Snapshot files that are kept: the current one and the one before it.
const KEPT: usize = 2;

/// Why a snapshot file could not be written or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SnapshotFileError {
    /// The file cannot be read or written.
    #[error("snapshot {path}: {source}", path = path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Written by a newer version.
    #[error("snapshot {path} has format version {found}; this binary reads up to {FORMAT_VERSION}", path = path.display())]
    FormatVersion {
        /// Which file.
        path: PathBuf,
        /// The file's version.
        found: u32,
    },
    /// The file is not whole, or not a snapshot.
    #[error("snapshot {path} is damaged: {what}", path = path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

impl From<SnapshotFileError> for io::Error {
    fn from(error: SnapshotFileError) -> Self {
        Self::other(error)
    }
}

/// An open snapshot file. It stays readable while it is held, even when a newer one replaces it.
#[derive(Clone)]
pub(crate) struct SnapshotFile {
    path: PathBuf,
    file: Arc<File>,
    length: u64,
}

impl fmt::Debug for SnapshotFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SnapshotFile({}, {} bytes)", self.path.display(), self.length)
    }
}

impl SnapshotFile {
    fn open(path: PathBuf) -> Result<Self, SnapshotFileError> {
        let opened = File::open(&path).and_then(|file| Ok((file.metadata()?.len(), file)));
        match opened {
            Ok((length, file)) => Ok(Self {
                path,
                file: Arc::new(file),
                length,
            }),
            Err(source) => Err(SnapshotFileError::Io { path, source }),
        }
    }

    /// Bytes of the file.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Up to `max` bytes from `at` on; fewer at the end. Blocking.
    pub(crate) fn read_at(&self, at: u64, max: usize) -> io::Result<Vec<u8>> {
        let left = usize::try_from(self.length.saturating_sub(at)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; left.min(max)];
        self.file.read_exact_at(&mut bytes, at)?;
        Ok(bytes)
    }

    /// Checks the whole file and rebuilds the image it holds. Blocking.
    pub(crate) fn load(&self) -> Result<(SnapshotMeta, ClusterImage), SnapshotFileError> {
        let reader = FileReader {
            file: &self.file,
            at: 0,
        };
        let mut input = Checked {
            inner: BufReader::with_capacity(1 << 20, reader),
            crc: 0,
        };
        let damaged = |what: String| SnapshotFileError::Damaged {
            path: self.path.clone(),
            what,
        };
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::UnexpectedEof => damaged("it ends early".to_owned()),
            io::ErrorKind::InvalidData => damaged(error.to_string()),
            _ => SnapshotFileError::Io {
                path: self.path.clone(),
                source: error,
            },
        };
        let mut magic = [0; 8];
        input.read_exact(&mut magic).map_err(failed)?;
        if magic != *MAGIC {
            return Err(damaged("it is not a snapshot".to_owned()));
        }
        let found = input.read_u32().map_err(failed)?;
        if found > FORMAT_VERSION {
            return Err(SnapshotFileError::FormatVersion {
                path: self.path.clone(),
                found,
            });
        }
        let meta = input
            .read_frame(self.length)
            .map_err(failed)?
            .ok_or_else(|| damaged("it has no metadata".to_owned()))?;
        let meta: SnapshotMeta = serde_json::from_slice(&meta).map_err(|e| damaged(e.to_string()))?;
        let header = input
            .read_frame(self.length)
            .map_err(failed)?
            .ok_or_else(|| damaged("it has no header".to_owned()))?;
        let header = SnapshotHeader::decode(header.as_slice()).map_err(|e| damaged(e.to_string()))?;
        let mut image = SnapshotReader::new(&header).map_err(|e| damaged(e.to_string()))?;
        while let Some(entry) = input.read_frame(self.length).map_err(failed)? {
            let entry = MetadataEntry::decode(entry.as_slice()).map_err(|e| damaged(e.to_string()))?;
            image.entry(&entry).map_err(|e| damaged(e.to_string()))?;
        }
        let actual = input.crc;
        let stored = input.read_u32().map_err(failed)?;
        if stored != actual {
            return Err(damaged("the checksum does not match".to_owned()));
        }
        Ok((meta, image.finish()))
    }
}

/// The snapshot files of one metadata directory.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotDirectory {
    directory: PathBuf,
}

impl SnapshotDirectory {
    /// The directory of the metadata log.
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Writes the image as a snapshot; durable when it returns. Blocking.
    pub(crate) fn write(
        &self,
        meta: &SnapshotMeta,
        image: &ClusterImage,
    ) -> Result<SnapshotFile, SnapshotFileError> {
        let temp = self.temp_path();
        let written = write_file(&temp, meta, image);
        if let Err(source) = written {
            let _ = std::fs::remove_file(&temp);
            return Err(SnapshotFileError::Io { path: temp, source });
        }
        self.publish(&temp, meta)
    }

    /// A file for a snapshot that arrives over the network.
    pub(crate) fn incoming(&self) -> Result<IncomingSnapshot, SnapshotFileError> {
        let path = self.temp_path();
        match File::create(&path) {
            Ok(file) => Ok(IncomingSnapshot {
                path,
                file: Some(file),
            }),
            Err(source) => Err(SnapshotFileError::Io { path, source }),
        }
    }

    /// Gives a whole file its final name, unless it has it already, and removes older ones. Blocking.
    pub(crate) fn install(
        &self,
        snapshot: &SnapshotFile,
        meta: &SnapshotMeta,
    ) -> Result<SnapshotFile, SnapshotFileError> {
        if snapshot.path == self.directory.join(file_name(meta)) {
            return Ok(snapshot.clone());
        }
        if snapshot.path.parent() == Some(self.directory.as_path()) {
            return self.publish(&snapshot.path, meta);
        }
        // A file of another directory (tests move snapshots between stores) is copied.
        let temp = self.temp_path();
        let copied = std::fs::copy(&snapshot.path, &temp).and_then(|_| File::open(&temp)?.sync_all());
        copied.map_err(|source| SnapshotFileError::Io {
            path: temp.clone(),
            source,
        })?;
        self.publish(&temp, meta)
    }

    /// The newest snapshot that is whole, with the image it holds. Leftovers of interrupted transfers
    /// are removed. Blocking.
    pub(crate) fn newest(
        &self,
    ) -> Result<Option<(SnapshotFile, SnapshotMeta, ClusterImage)>, SnapshotFileError> {
        for path in self.list(INCOMING)? {
            let _ = std::fs::remove_file(path);
        }
        let mut snapshots = self.snapshots()?;
        while let Some(path) = snapshots.pop() {
            let file = SnapshotFile::open(path)?;
            match file.load() {
                Ok((meta, image)) => return Ok(Some((file, meta, image))),
                Err(error @ SnapshotFileError::Damaged { .. }) => {
                    tracing::error!(%error, "a snapshot is passed over");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    fn publish(&self, temp: &Path, meta: &SnapshotMeta) -> Result<SnapshotFile, SnapshotFileError> {
        let path = self.directory.join(file_name(meta));
        let published = std::fs::rename(temp, &path).and_then(|()| storage::sync_dir(&self.directory));
        if let Err(source) = published {
            let _ = std::fs::remove_file(temp);
            return Err(SnapshotFileError::Io { path, source });
        }
        let snapshots = self.snapshots()?;
        let old = snapshots.len().saturating_sub(KEPT);
        for path in &snapshots[..old] {
            let _ = std::fs::remove_file(path);
        }
        SnapshotFile::open(path)
    }

    /// Snapshots, oldest first: the names sort by offset.
    fn snapshots(&self) -> Result<Vec<PathBuf>, SnapshotFileError> {
        let mut paths = self.list("")?;
        paths.retain(|path| path.extension().is_some_and(|e| e == EXTENSION));
        paths.sort();
        Ok(paths)
    }

    fn list(&self, prefix: &str) -> Result<Vec<PathBuf>, SnapshotFileError> {
        let failed = |source| SnapshotFileError::Io {
            path: self.directory.clone(),
            source,
        };
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(&self.directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_name().to_string_lossy().starts_with(prefix) {
                paths.push(entry.path());
            }
        }
        Ok(paths)
    }

    fn temp_path(&self) -> PathBuf {
        self.directory
            .join(format!("{INCOMING}-{}.tmp", uuid::Uuid::new_v4().simple()))
    }
}

/// A snapshot on its way from the leader; removed when it is dropped unfinished.
#[derive(Debug)]
pub(crate) struct IncomingSnapshot {
    path: PathBuf,
    file: Option<File>,
}

impl IncomingSnapshot {
    /// Adds a piece. Blocking.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), SnapshotFileError> {
        let result = self.file.as_mut().map_or(Ok(()), |file| file.write_all(bytes));
        result.map_err(|source| SnapshotFileError::Io {
            path: self.path.clone(),
            source,
        })
    }

    /// The whole file, on disk. Blocking.
    pub(crate) fn finish(mut self) -> Result<SnapshotFile, SnapshotFileError> {
        let synced = self.file.as_ref().map_or(Ok(()), File::sync_all);
        synced.map_err(|source| SnapshotFileError::Io {
            path: self.path.clone(),
            source,
        })?;
        self.file = None;
        SnapshotFile::open(self.path.clone())
    }
}

impl Drop for IncomingSnapshot {
    fn drop(&mut self) {
        if self.file.is_some() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn file_name(meta: &SnapshotMeta) -> String {
    let (end, epoch) = meta
        .last_log_id
        .map_or((0, 0), |id| (id.index + 1, id.leader_id.term));
    format!("{end:020}-{epoch:010}.{EXTENSION}")
}

fn write_file(path: &Path, meta: &SnapshotMeta, image: &ClusterImage) -> io::Result<()> {
    let mut output = Checked {
        inner: BufWriter::with_capacity(1 << 20, File::create(path)?),
        crc: 0,
    };
    output.write(MAGIC)?;
    output.write(&FORMAT_VERSION.to_be_bytes())?;
    output.write_frame(&serde_json::to_vec(meta)?)?;
    let (header, entries) = snapshot_entries(image);
    output.write_frame(&header.encode_to_vec())?;
    for entry in entries {
        output.write_frame(&entry.encode_to_vec())?;
    }
    output.write(&END.to_be_bytes())?;
    let crc = output.crc;
    output.write(&crc.to_be_bytes())?;
    output.inner.flush()?;
    output.inner.get_ref().sync_all()
}

/// Reads or writes while it adds up the checksum.
struct Checked<T> {
    inner: T,
    crc: u32,
}

impl<W: Write> Checked<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.crc = crc32c::crc32c_append(self.crc, bytes);
        self.inner.write_all(bytes)
    }

    fn write_frame(&mut self, bytes: &[u8]) -> io::Result<()> {
        let length = u32::try_from(bytes.len())
            .ok()
            .filter(|&length| length <= MAX_FRAME)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a snapshot's entry is too large"))?;
        self.write(&length.to_be_bytes())?;
        self.write(bytes)
    }
}

impl<R: Read> Checked<R> {
    fn read_exact(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.inner.read_exact(bytes)?;
        self.crc = crc32c::crc32c_append(self.crc, bytes);
        Ok(())
    }

    fn read_u32(&mut self) -> io::Result<u32> {
        let mut bytes = [0; 4];
        self.read_exact(&mut bytes)?;
        Ok(u32::from_be_bytes(bytes))
    }

    /// The next frame, `None` at the end mark. `file_length` bounds what a damaged length may claim.
    fn read_frame(&mut self, file_length: u64) -> io::Result<Option<Vec<u8>>> {
        let length = self.read_u32()?;
        if length == END {
            return Ok(None);
        }
        if length > MAX_FRAME || u64::from(length) > file_length {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a frame's length is impossible",
            ));
        }
        let mut bytes = vec![0; length as usize];
        self.read_exact(&mut bytes)?;
        Ok(Some(bytes))
    }
}

/// Reads a shared file from its beginning without moving anybody else's position.
struct FileReader<'a> {
    file: &'a File,
    at: u64,
}

impl Read for FileReader<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let taken = self.file.read_at(bytes, self.at)?;
        self.at += taken as u64;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use protocol::{LeaderEpoch, Offset};

    use super::super::types::{StoredMembership, log_id};
    use super::*;

    fn some_snapshot(directory: &Path, index: u64) -> (SnapshotDirectory, SnapshotFile, SnapshotMeta) {
        let snapshots = SnapshotDirectory::new(directory.to_owned());
        let image = ClusterImage::default()
            .apply(Offset(index as i64), LeaderEpoch(3), None)
            .expect("moves the offset");
        let meta = SnapshotMeta {
            last_log_id: Some(log_id(3, index)),
            last_membership: StoredMembership::default(),
        };
        let file = snapshots.write(&meta, &image).expect("written");
        (snapshots, file, meta)
    }

    #[test]
    fn the_newest_two_are_kept_and_the_newest_is_found() {
        let dir = tempfile::tempdir().expect("temp dir");
        for index in [10, 20, 30] {
            some_snapshot(dir.path(), index);
        }
        let snapshots = SnapshotDirectory::new(dir.path().to_owned());
        assert_eq!(snapshots.snapshots().expect("listed").len(), 2);
        let (_, meta, image) = snapshots.newest().expect("readable").expect("one is there");
        assert_eq!(meta.last_log_id, Some(log_id(3, 30)));
        assert_eq!(image.offset, Some(Offset(30)));
    }

    #[test]
    fn any_flipped_byte_is_noticed() {
        let dir = tempfile::tempdir().expect("temp dir");
        let (_, file, _) = some_snapshot(dir.path(), 10);
        let good = std::fs::read(&file.path).expect("read");
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x01;
            std::fs::write(&file.path, &bad).expect("write");
            let file = SnapshotFile::open(file.path.clone()).expect("opens");
            assert!(file.load().is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_damaged_newest_gives_way_to_the_one_before() {
        let dir = tempfile::tempdir().expect("temp dir");
        some_snapshot(dir.path(), 10);
        let (snapshots, file, _) = some_snapshot(dir.path(), 20);
        let bytes = std::fs::read(&file.path).expect("read");
        std::fs::write(&file.path, &bytes[..bytes.len() / 2]).expect("write");
        let (_, meta, _) = snapshots.newest().expect("readable").expect("one is there");
        assert_eq!(meta.last_log_id, Some(log_id(3, 10)));
    }

    #[test]
    fn an_unfinished_transfer_leaves_nothing() {
        let dir = tempfile::tempdir().expect("temp dir");
        let snapshots = SnapshotDirectory::new(dir.path().to_owned());
        let mut incoming = snapshots.incoming().expect("created");
        incoming.write(b"half").expect("written");
        drop(incoming);
        assert_eq!(std::fs::read_dir(dir.path()).expect("listed").count(), 0);
    }
}
