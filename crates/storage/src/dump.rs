//! Prints a segment's files in the words of Kafka's `kafka-dump-log`, through the code that reads them
//! in earnest.
//!
//! Nothing is changed and nothing is trusted: what does not fit is printed as such, and counted in the
//! [`DumpSummary`].

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
};

use protocol::Offset;

use crate::{error::StorageError, format::FileKind, producer_snapshot::SnapshotError};

mod batches;
mod indexes;
mod producers;

/// What to print besides the batches' headers.
#[derive(Clone, Copy, Debug, Default)]
pub struct DumpOptions {
    /// `--deep-iteration`: a line for each record.
    pub deep: bool,
    /// `--print-data-log`: each record's key and value too; means `deep`.
    pub print_data: bool,
    /// `--verify-index-only`: only the index entries that do not fit the log.
    pub verify_only: bool,
    /// `--max-bytes`: end after this many bytes of a `.log` file.
    pub max_bytes: Option<u64>,
}

/// What a dump came across.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DumpSummary {
    /// Batches, index entries or producers printed.
    pub entries: u64,
    /// Entries that do not fit: invalid batches, index entries that point elsewhere.
    pub invalid: u64,
    /// Bytes at the end of a `.log` that are no batch.
    pub invalid_bytes: u64,
}

impl DumpSummary {
    /// Whether everything was as it should be.
    pub fn is_sound(&self) -> bool {
        self.invalid == 0 && self.invalid_bytes == 0
    }
}

/// Why a file could not be printed.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// The name is none of a segment's file names.
    #[error(
        "{} is no segment file: expected twenty digits and .log, .index, .timeindex or .snapshot",
        .0.display()
    )]
    NotASegmentFile(PathBuf),
    /// An index has no log beside it that its entries could be compared with.
    #[error("{} is missing, the log that {} is an index of", log.display(), index.display())]
    NoLogBeside {
        /// The index.
        index: PathBuf,
        /// Where its log would be.
        log: PathBuf,
    },
    /// The file could not be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The producer snapshot is damaged.
    #[error("{}: {source}", path.display())]
    Snapshot {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: SnapshotError,
    },
    /// The output was closed, or its disk is full.
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
}

/// Prints the segment file at `path` to `out`.
pub fn dump_segment(
    path: &Path,
    options: &DumpOptions,
    out: &mut dyn Write,
) -> Result<DumpSummary, DumpError> {
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    let Some((base, kind)) = FileKind::parse(name) else {
        return Err(DumpError::NotASegmentFile(path.to_owned()));
    };
    match kind {
        FileKind::Log => batches::dump(path, base, options, out),
        FileKind::OffsetIndex => indexes::dump_offsets(path, base, options, out),
        FileKind::TimeIndex => indexes::dump_times(path, base, options, out),
        FileKind::ProducerSnapshot => producers::dump(path, out),
        FileKind::TransactionIndex => Err(DumpError::NotASegmentFile(path.to_owned())),
    }
}

/// The line above what is printed of a file; written once the file is known to be there.
fn print_title(path: &Path, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "Dumping {}", path.display())
}

fn open(path: &Path) -> Result<(File, u64), StorageError> {
    let file = File::open(path).map_err(StorageError::io("open", path))?;
    let size = file.metadata().map_err(StorageError::io("stat", path))?.len();
    Ok((file, size))
}

/// The segment's `.log` beside another of its files.
fn log_beside(path: &Path, base: Offset) -> PathBuf {
    path.with_file_name(FileKind::Log.path(Path::new(""), base))
}

#[cfg(test)]
mod tests;
