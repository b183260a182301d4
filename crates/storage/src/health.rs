//! Whether a log directory can be relied on. The first failure is for good: a directory that went offline
//! is used again by the next run, which looks at what is really there.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use crate::error::StorageError;

/// Called when a directory goes offline, on whichever thread met the failure and whatever locks it holds:
/// it must be short and must not wait.
type Listener = Box<dyn Fn() + Send + Sync>;

/// Tells that a directory went offline; shared by all directories of a broker.
#[derive(Default)]
pub(crate) struct Bell(OnceLock<Listener>);

impl fmt::Debug for Bell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bell")
    }
}

impl Bell {
    /// Names who is told; the first one stays.
    pub(crate) fn set(&self, listener: Listener) {
        // A second listener would be a mistake of the caller's that costs only itself.
        let _ = self.0.set(listener);
    }
}

/// The health of one log directory, known to its manager and to every log in it.
#[derive(Debug)]
pub(crate) struct DirectoryHealth {
    path: PathBuf,
    failure: OnceLock<String>,
    bell: Arc<Bell>,
}

impl DirectoryHealth {
    pub(crate) fn new(path: &Path, bell: Arc<Bell>) -> Self {
        Self {
            path: path.to_owned(),
            failure: OnceLock::new(),
            bell,
        }
    }

    /// Why the directory is offline, if it is.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    /// Takes the directory offline. Only the first reason counts.
    pub(crate) fn fail(&self, reason: &dyn fmt::Display) {
        let mut first = false;
        self.failure.get_or_init(|| {
            first = true;
            reason.to_string()
        });
        if first {
            tracing::error!(
                dir = %self.path.display(), %reason,
                "log directory is offline; it is used again after a restart"
            );
            if let Some(listener) = self.bell.0.get() {
                listener();
            }
        }
    }

    /// Takes the directory offline where `error` says that its disk fails.
    pub(crate) fn note(&self, error: &StorageError) {
        if error.is_failing_disk() {
            self.fail(error);
        }
    }
}
