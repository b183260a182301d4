//! What all partitions of a broker have in common.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use metadata::ClusterImage;
use protocol::{BrokerEpoch, BrokerId};
use storage::LogManager;
use tokio::sync::watch;

use crate::{
    DirectoryChannel, Followers, IsrChannel, Now,
    disk::{DiskBusy, DiskPool},
    partition::TailBudget,
};

pub(crate) struct Shared {
    pub(crate) broker: BrokerId,
    pub(crate) logs: Arc<LogManager>,
    /// Appends, truncations and role changes: strands.
    pub(crate) writes: DiskPool,
    /// Reads, which may be cold and slow and never hold up a write.
    pub(crate) reads: DiskPool,
    pub(crate) isr_channel: Arc<dyn IsrChannel>,
    /// For tasks that are started from disk threads.
    pub(crate) runtime: tokio::runtime::Handle,
    /// What leaders keep in memory for their followers.
    pub(crate) tails: Arc<TailBudget>,
    /// The latest image that was handed to the manager.
    pub(crate) image: ArcSwap<ClusterImage>,
    my_epoch: AtomicI64,
    followers: OnceLock<Weak<dyn Followers>>,
    directories: OnceLock<Arc<dyn DirectoryChannel>>,
    /// Counts replicas and log directories that failed.
    pub(crate) failures: watch::Sender<u64>,
    started: Instant,
}

impl Shared {
    pub(crate) fn new(
        broker: BrokerId,
        logs: Arc<LogManager>,
        (writes, reads): (DiskPool, DiskPool),
        isr_channel: Arc<dyn IsrChannel>,
        runtime: tokio::runtime::Handle,
    ) -> Self {
        Self {
            broker,
            logs,
            writes,
            reads,
            isr_channel,
            runtime,
            tails: Arc::default(),
            image: ArcSwap::default(),
            my_epoch: AtomicI64::new(-1),
            followers: OnceLock::new(),
            directories: OnceLock::new(),
            failures: watch::Sender::default(),
            started: Instant::now(),
        }
    }

    /// Runs disk work that the metadata asks for: in small numbers, in no order, and never refused
    /// because clients keep the disk busy. An error means that the disk threads have ended.
    pub(crate) async fn run_for_metadata<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, DiskBusy> {
        self.writes.strand().run(job).await
    }

    pub(crate) fn now(&self) -> Now {
        Now(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// Milliseconds since 1970, for timestamps and segment ages only; 0 before 1970.
    pub(crate) fn wall_clock_ms() -> i64 {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    pub(crate) fn my_epoch(&self) -> BrokerEpoch {
        BrokerEpoch(self.my_epoch.load(Ordering::Acquire))
    }

    /// Returns the epoch before.
    pub(crate) fn set_my_epoch(&self, epoch: BrokerEpoch) -> BrokerEpoch {
        BrokerEpoch(self.my_epoch.swap(epoch.0, Ordering::AcqRel))
    }

    pub(crate) fn followers(&self) -> Option<Arc<dyn Followers>> {
        self.followers.get()?.upgrade()
    }

    /// The way to the controller for directories, where there is one.
    pub(crate) fn directory_channel(&self) -> Option<Arc<dyn DirectoryChannel>> {
        self.directories.get().cloned()
    }

    /// Returns whether it was the first.
    pub(crate) fn set_directory_channel(&self, channel: Arc<dyn DirectoryChannel>) -> bool {
        self.directories.set(channel).is_ok()
    }

    /// Returns whether it was the first.
    pub(crate) fn set_followers(&self, followers: &Arc<dyn Followers>) -> bool {
        self.followers.set(Arc::downgrade(followers)).is_ok()
    }
}
