//! What can go wrong between a log and its disk.

use std::{
    io,
    path::{Path, PathBuf},
};

use protocol::{DirectoryId, LeaderEpoch, Offset, batch::BatchError};

/// What is wrong with bytes that should be a log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// The bytes are no whole, valid batch.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// A batch does not come after the one before it.
    #[error("batch begins at offset {found}, which is below {expected}")]
    OffsetWentBack {
        /// The lowest offset the batch could have.
        expected: Offset,
        /// The offset it has.
        found: Offset,
    },
    /// A segment begins behind where the one before it ends. Not even compaction leaves such a gap.
    #[error("batches from offset {end} on are missing: the next segment begins at {next}")]
    Missing {
        /// Where the segment ends.
        end: Offset,
        /// Where the next one begins.
        next: Offset,
    },
    /// A batch is of an older leader than the one before it.
    #[error("batch has leader epoch {found} after epoch {latest}")]
    EpochWentBack {
        /// The epoch before it.
        latest: LeaderEpoch,
        /// The batch's epoch.
        found: LeaderEpoch,
    },
    /// A batch that was read claims offsets that were never given.
    #[error("batch claims offset {offset}, but the log ends at {log_end}")]
    BeyondEnd {
        /// The offset after the log's last.
        log_end: Offset,
        /// The batch's last offset.
        offset: Offset,
    },
    /// A segment holds an offset that its relative 32-bit indexes cannot express.
    #[error("offset {offset} is too far from the segment's base offset {base}")]
    TooFar {
        /// The segment's base offset.
        base: Offset,
        /// The batch's last offset.
        offset: Offset,
    },
    /// The bytes are no entry of the index that they are in.
    #[error("no entry of a transaction index")]
    NoIndexEntry,
}

/// Why a log could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The operating system refused a file operation.
    #[error("cannot {operation} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        operation: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The disk (or the quota) is full. Nothing was written; the log stays usable.
    #[error("no space left to {operation} {}", path.display())]
    NoSpace {
        /// What was tried, as a verb.
        operation: &'static str,
        /// On which file.
        path: PathBuf,
    },
    /// The process (or the machine) has no file descriptor left. The log stays usable.
    #[error("no file descriptor left to {operation} {}: raise `ulimit -n`", path.display())]
    TooManyOpenFiles {
        /// What was tried, as a verb.
        operation: &'static str,
        /// On which file.
        path: PathBuf,
    },
    /// The log does not reach that offset, or no longer does.
    #[error("offset {from} is outside the log, which holds {log_start} up to {log_end}")]
    OffsetOutOfRange {
        /// The offset asked for.
        from: Offset,
        /// First offset of the log.
        log_start: Offset,
        /// The offset after the last.
        log_end: Offset,
    },
    /// Bytes that were written whole are no longer what they were. Never cut silently: the replica
    /// goes offline and is rebuilt from its leader.
    #[error("{} is damaged at byte {position}: {damage}", path.display())]
    Corrupt {
        /// The segment file.
        path: PathBuf,
        /// Where the damaged batch begins.
        position: u64,
        /// What is wrong with it.
        damage: Damage,
    },
    /// An fsync failed earlier, so what the disk holds is unknown. For good: only a restart, which
    /// recovers from what is really there, brings the log back.
    #[error("log {} has failed and stays closed: {reason}", path.display())]
    Failed {
        /// The log's directory.
        path: PathBuf,
        /// The first failure.
        reason: String,
    },
    /// The log directory that the replica belongs to is offline, or is none of this broker's.
    #[error("log directory {directory} of the replica is offline")]
    Offline {
        /// The directory.
        directory: DirectoryId,
    },
    /// A log is to be replaced by one that is not, or no longer, its copy.
    #[error("{} is not what the log holds that it is to replace", path.display())]
    NotTheSame {
        /// The directory of the copy.
        path: PathBuf,
    },
    /// The log was closed.
    #[error("log {} is closed", path.display())]
    Closed {
        /// The log's directory.
        path: PathBuf,
    },
}

impl StorageError {
    /// Sorts a system error into its variant: `result.map_err(StorageError::io("write", path))`.
    pub fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| {
            let path = path.to_owned();
            match source.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
                Some(rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT) => {
                    Self::NoSpace { operation, path }
                }
                Some(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE) => {
                    Self::TooManyOpenFiles { operation, path }
                }
                _ => Self::Io {
                    operation,
                    path,
                    source,
                },
            }
        }
    }

    /// Whether the machine lacks something that may come back by itself.
    pub fn is_exhaustion(&self) -> bool {
        matches!(self, Self::NoSpace { .. } | Self::TooManyOpenFiles { .. })
    }

    /// Whether the disk itself refuses, so that nothing on it can be relied on: an I/O error, a read-only
    /// file system, a directory that may not be used. One file that is missing or in the way says nothing
    /// of its disk, and one that was cut short neither.
    pub fn is_failing_disk(&self) -> bool {
        let Self::Io { source, .. } = self else {
            return false;
        };
        !matches!(
            source.kind(),
            io::ErrorKind::NotFound
                | io::ErrorKind::AlreadyExists
                | io::ErrorKind::DirectoryNotEmpty
                | io::ErrorKind::InvalidInput
                | io::ErrorKind::InvalidData
                | io::ErrorKind::Interrupted
                | io::ErrorKind::UnexpectedEof
        )
    }

    /// Whether a file was not there.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exhaustion_is_told_from_failure() {
        let sorted = |errno: rustix::io::Errno| StorageError::io("write", Path::new("x"))(errno.into());
        assert!(matches!(
            sorted(rustix::io::Errno::NOSPC),
            StorageError::NoSpace { .. }
        ));
        assert!(matches!(
            sorted(rustix::io::Errno::MFILE),
            StorageError::TooManyOpenFiles { .. }
        ));
        assert!(sorted(rustix::io::Errno::DQUOT).is_exhaustion());
        assert!(!sorted(rustix::io::Errno::IO).is_exhaustion());
        assert!(sorted(rustix::io::Errno::NOENT).is_not_found());
    }

    #[test]
    fn a_file_that_was_cut_short_says_nothing_of_its_disk() {
        let failing = |source: io::Error| StorageError::io("read", Path::new("x"))(source).is_failing_disk();
        assert!(failing(rustix::io::Errno::IO.into()) && failing(rustix::io::Errno::ROFS.into()));
        assert!(!failing(io::ErrorKind::UnexpectedEof.into()) && !failing(io::ErrorKind::NotFound.into()));
    }
}
