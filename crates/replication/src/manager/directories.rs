//! Log directories as replicas see them: which failed, where each replica lies, what they hold.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use protocol::{DirectoryId, ErrorCode, Offset, TopicName, TopicPartition};
use storage::{DirectorySpace, DirectoryStatus, ReplicaSize};
use tokio::sync::watch;

use super::{Hosted, ReplicaManager};
use crate::{AssignError, DirectoryChannel, ReadRefused};

/// Between two attempts to tell the controller where a replica lies.
const TELL_AGAIN: Duration = Duration::from_millis(500);

/// A configured log directory and what lies in it.
#[derive(Debug)]
pub struct LogDirectory {
    /// The absolute path.
    pub path: PathBuf,
    /// Its file system, or why the directory is offline.
    pub space: Result<DirectorySpace, String>,
    /// The logs in it; none where it is offline.
    pub logs: Vec<LogInDirectory>,
}

/// One log in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogInDirectory {
    /// The partition.
    pub partition: TopicPartition,
    /// The topic's name.
    pub topic: TopicName,
    /// Bytes of batches.
    pub size_bytes: u64,
    /// By how many offsets the log's end is behind the high watermark; that of a future log behind the
    /// current one.
    pub offset_lag: i64,
    /// It is to take the place of the log in another directory.
    pub is_future: bool,
}

impl ReplicaManager {
    /// Names the way to the controller for where replicas lie; once, before the first image is applied.
    pub fn set_directory_channel(&self, channel: Arc<dyn DirectoryChannel>) {
        let first = self.shared.set_directory_channel(channel);
        debug_assert!(first, "the channel is named once");
    }

    /// Changes whenever a replica or a log directory fails.
    pub fn failures(&self) -> watch::Receiver<u64> {
        self.shared.failures.subscribe()
    }

    /// Log directories that went offline since the start: the controller takes their replicas out of ISR
    /// and leadership.
    pub fn offline_directories(&self) -> Vec<DirectoryId> {
        self.shared.logs.offline_directories()
    }

    /// Whether no log directory is left.
    pub fn has_no_directory(&self) -> bool {
        self.shared.logs.all_offline()
    }

    /// Every configured log directory with the logs in it.
    pub async fn log_directories(self: &Arc<Self>) -> Result<Vec<LogDirectory>, ErrorCode> {
        let manager = Arc::clone(self);
        let described = self.shared.reads.run(move || {
            let found = manager.shared.logs.describe_directories();
            found.into_iter().map(|found| manager.with_lags(found)).collect()
        });
        described.await.map_err(|_| ReadRefused::Busy.code())
    }

    fn with_lags(&self, found: DirectoryStatus) -> LogDirectory {
        let logs = found.replicas.into_iter().map(|log| LogInDirectory {
            offset_lag: self.lag_of(&log),
            partition: log.partition,
            topic: log.topic,
            size_bytes: log.size_bytes,
            is_future: log.is_future,
        });
        LogDirectory {
            path: found.path,
            space: found.space,
            logs: logs.collect(),
        }
    }

    fn lag_of(&self, log: &ReplicaSize) -> i64 {
        let goal = match self.partitions.read().get(&log.partition) {
            Some(Hosted::Online(partition)) if log.is_future => partition.offsets().log_end,
            Some(Hosted::Online(partition)) => partition.offsets().high_watermark,
            Some(Hosted::Offline) | None => Offset::ZERO,
        };
        (goal.get() - log.log_end_offset.get()).max(0)
    }

    /// Takes the replicas offline whose log directory is.
    pub(super) fn fail_with_directories(&self) {
        for partition in self.partitions() {
            if partition.log().has_failed() {
                partition.storage_failed();
            }
        }
        // Also where no replica lay in it: the controller must place none there.
        self.shared.failures.send_modify(|count| *count += 1);
    }

    /// Whether the replica's directory can be used, or it has none yet.
    pub(super) fn is_directory_online(&self, tp: TopicPartition) -> bool {
        let logs = &self.shared.logs;
        logs.directory_of(tp)
            .is_none_or(|directory| logs.online_directories().contains(&directory))
    }

    /// Tells the controller, until it knows, that the replica lies elsewhere than the metadata says.
    pub(super) fn tell_directory(&self, tp: TopicPartition) {
        let Some(channel) = self.shared.directory_channel() else {
            return;
        };
        if !self.telling.lock().insert(tp) {
            return;
        }
        tracing::info!(%tp, "the replica does not lie where the metadata has it: telling the controller");
        let (manager, stop) = (self.me.clone(), self.stop.clone());
        self.shared.runtime.spawn(async move {
            // Looked up each time: no swap begins while this goes on, but one may have ended just before.
            let lies_in = || manager.upgrade()?.shared.logs.directory_of(tp);
            while let Some(directory) = lies_in()
                && let Err(AssignError::Unknown) = channel.assign(tp, directory).await
            {
                tokio::select! {
                    () = stop.cancelled() => break,
                    () = tokio::time::sleep(TELL_AGAIN) => {}
                }
            }
            if let Some(manager) = manager.upgrade() {
                manager.telling.lock().remove(&tp);
            }
        });
    }
}
