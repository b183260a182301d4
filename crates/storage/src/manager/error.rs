//! Why a broker's log directories cannot be used.

use std::{io, path::PathBuf};

use protocol::DirectoryId;

use crate::{error::StorageError, meta_properties::MetaPropertiesError};

/// Why [`LogManager::open`](super::LogManager::open) refused. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No directory was given.
    #[error("log.dirs names no directory")]
    NoDirectory,
    /// The identity cannot be read, or is another node's or cluster's.
    #[error(transparent)]
    Identity(#[from] MetaPropertiesError),
    /// There is no identity, but there is something else.
    #[error(
        "log directory {} has no meta.properties but holds {found:?}: only an empty directory is formatted; \
         check log.dirs, or restore the file", dir.display()
    )]
    NotEmpty {
        /// The directory.
        dir: PathBuf,
        /// One of the entries that lie in it.
        found: String,
    },
    /// Two directories have the same identity: one is a copy of the other.
    #[error(
        "log directories {} and {} have the same directory.id {id}: one is a copy of the other; \
         take the one that is out of date out of log.dirs", first.display(), second.display()
    )]
    SameId {
        /// The one that comes first in `log.dirs`.
        first: PathBuf,
        /// The other.
        second: PathBuf,
        /// What both say.
        id: DirectoryId,
    },
    /// Every directory failed while its logs were being opened.
    #[error("no log directory can be used; the first: {0}")]
    AllOffline(String),
    /// Another process (or another part of this one) holds the directory's lock.
    #[error("log directory {} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// The flush threads could not be started.
    #[error("cannot start the flush threads: {0}")]
    Threads(#[source] io::Error),
    /// The disk refused.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl OpenError {
    /// Whether the directory itself cannot be read or written, rather than being the wrong one.
    pub(super) fn is_failing_disk(&self) -> bool {
        matches!(
            self,
            Self::Storage(StorageError::Io { .. }) | Self::Identity(MetaPropertiesError::Io { .. })
        )
    }
}
