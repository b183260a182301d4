//! What the log directories hold, for DescribeLogDirs and for metrics.

use std::path::{self, Path, PathBuf};

use protocol::{Offset, TopicName, TopicPartition};

use super::{DataDirectory, LogManager};
use crate::{error::StorageError, metric_names};

/// One configured log directory.
#[derive(Debug)]
pub struct DirectoryStatus {
    /// The absolute path.
    pub path: PathBuf,
    /// Its file system, or why the directory is offline.
    pub space: Result<DirectorySpace, String>,
    /// The logs in it; none where it is offline.
    pub replicas: Vec<ReplicaSize>,
}

/// The file system that a directory lies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectorySpace {
    /// Bytes that the file system has.
    pub total_bytes: u64,
    /// Bytes that this process may still write.
    pub usable_bytes: u64,
}

/// One log in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaSize {
    /// The partition.
    pub partition: TopicPartition,
    /// The topic's name.
    pub topic: TopicName,
    /// Bytes of batches.
    pub size_bytes: u64,
    /// The offset after its last record.
    pub log_end_offset: Offset,
    /// It is to take the place of the log that the partition has in another directory, once it has caught
    /// up with it.
    pub is_future: bool,
}

impl LogManager {
    /// Every configured log directory, in the order of `log.dirs`, with the logs in it.
    pub fn describe_directories(&self) -> Vec<DirectoryStatus> {
        let described = self.config.log_dirs.iter().map(|path| {
            let opened = self.directories.iter().position(|home| home.path() == path);
            let space = match opened {
                Some(directory) => space_of(&self.directories[directory]),
                None => Err(self.why_unusable(path)),
            };
            let replicas = match (opened, &space) {
                (Some(directory), Ok(_)) => self.sizes_in(directory),
                _ => Vec::new(),
            };
            DirectoryStatus {
                path: absolute(path),
                space,
                replicas,
            }
        });
        described.collect()
    }

    fn why_unusable(&self, path: &Path) -> String {
        let known = self.unusable.iter().find(|(unusable, _)| unusable == path);
        known.map_or_else(String::new, |(_, reason)| reason.clone())
    }

    fn sizes_in(&self, directory: usize) -> Vec<ReplicaSize> {
        let replicas = self.replicas.read();
        let current = replicas
            .open_logs()
            .map(|(partition, hosted)| (partition, hosted, false));
        let futures = replicas
            .futures
            .iter()
            .map(|(&partition, hosted)| (partition, hosted, true));
        let here = current
            .chain(futures)
            .filter(|(_, hosted, _)| hosted.directory == directory);
        let sizes = here.map(|(partition, hosted, is_future)| ReplicaSize {
            partition,
            topic: hosted.name.0.clone(),
            size_bytes: hosted.log.size_bytes(),
            log_end_offset: hosted.log.log_end_offset(),
            is_future,
        });
        sizes.collect()
    }

    /// Shows how many directories are offline, and how full the others are.
    pub(super) fn report_directories(&self) {
        metrics::gauge!(metric_names::OFFLINE_LOG_DIRECTORIES).set(self.unusable_directories() as f64);
        for (directory, home) in self.directories.iter().enumerate() {
            let label = absolute(home.path()).display().to_string();
            let offline = f64::from(u8::from(home.is_offline()));
            metrics::gauge!(metric_names::LOG_DIRECTORY_OFFLINE, "directory" => label.clone()).set(offline);
            let Ok(space) = space_of(home) else {
                continue;
            };
            let size: u64 = self.sizes_in(directory).iter().map(|log| log.size_bytes).sum();
            metrics::gauge!(metric_names::LOG_DIRECTORY_SIZE_BYTES, "directory" => label.clone())
                .set(size as f64);
            metrics::gauge!(metric_names::LOG_DIRECTORY_TOTAL_BYTES, "directory" => label.clone())
                .set(space.total_bytes as f64);
            metrics::gauge!(metric_names::LOG_DIRECTORY_USABLE_BYTES, "directory" => label)
                .set(space.usable_bytes as f64);
        }
        for (path, _) in &self.unusable {
            let label = absolute(path).display().to_string();
            metrics::gauge!(metric_names::LOG_DIRECTORY_OFFLINE, "directory" => label).set(1.0);
        }
    }
}

/// The path as administrators name it, whatever the working directory is, without a slash too many.
pub(super) fn absolute(path: &Path) -> PathBuf {
    let path = path::absolute(path).unwrap_or_else(|_| path.to_owned());
    path.components().collect()
}

fn space_of(home: &DataDirectory) -> Result<DirectorySpace, String> {
    if let Some(reason) = home.health().failure() {
        return Err(reason.to_owned());
    }
    let found = rustix::fs::statvfs(home.path())
        .map_err(|errno| StorageError::io("stat", home.path())(errno.into()).to_string())?;
    Ok(DirectorySpace {
        total_bytes: found.f_blocks.saturating_mul(found.f_frsize),
        usable_bytes: found.f_bavail.saturating_mul(found.f_frsize),
    })
}
