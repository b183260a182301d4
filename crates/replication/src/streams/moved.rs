//! The set of partitions that have moved since a stream's task last looked.

use std::collections::HashSet;

use parking_lot::Mutex;
use protocol::TopicPartition;
use tokio::sync::Notify;

use crate::exchange::ProgressListener;

/// Gathers moves from disk threads and wakes the one task that waits for them.
#[derive(Debug, Default)]
pub(super) struct Moved {
    partitions: Mutex<HashSet<TopicPartition>>,
    wake: Notify,
}

impl Moved {
    /// What has moved since the last call.
    pub(super) fn take(&self) -> HashSet<TopicPartition> {
        std::mem::take(&mut *self.partitions.lock())
    }

    /// Waits until something has moved. Only one task may wait.
    pub(super) async fn wait(&self) {
        self.wake.notified().await;
    }
}

impl ProgressListener for Moved {
    fn progressed(&self, partition: TopicPartition) {
        if self.partitions.lock().insert(partition) {
            // Stores a permit where nobody waits yet: a move between `take` and `wait` is not lost.
            self.wake.notify_one();
        }
    }
}
