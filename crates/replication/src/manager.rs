//! All replicas of this broker: found by partition, brought in line with the metadata, ticked.

mod directories;
mod moves;
mod reconcile;
mod upkeep;

pub use directories::{LogDirectory, LogInDirectory};

use std::collections::{HashMap, HashSet};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Weak};
use std::time::Duration;

use metadata::{ClusterImage, configs::NodeDefaults};
use parking_lot::{Mutex, RwLock};
use protocol::{BrokerEpoch, BrokerId, ErrorCode, Offset, TopicPartition};
use storage::{LogManager, hints::HintStore};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{Followers, IsrChannel, Partition, disk::DiskPool, shared::Shared};

/// Reads and one-off jobs that may wait for a disk thread.
const WAITING_READS_MAX: usize = 16 * 1024;

/// What a manager needs to know of its broker.
#[derive(Debug)]
pub struct ReplicaManagerConfig {
    /// `node.id`.
    pub broker_id: BrokerId,
    /// `replica.lag.time.max.ms`: a follower that was not caught up for longer leaves the ISR.
    pub lag_max: Duration,
    /// Threads for appends, and as many for reads; at least one of each.
    pub disk_threads: usize,
    /// The broker's static values, below what is set for topics.
    pub node_defaults: NodeDefaults,
    /// Remembers high watermarks over restarts, where it could be opened.
    pub hints: Option<HintStore>,
}

/// What this broker holds under a partition's name.
#[derive(Clone, Debug)]
enum Hosted {
    Online(Arc<Partition>),
    /// Its log does not open: `KAFKA_STORAGE_ERROR` until it can be rebuilt.
    Offline,
}

/// The replicas of one broker.
pub struct ReplicaManager {
    me: Weak<Self>,
    shared: Arc<Shared>,
    lag_max: Duration,
    node_defaults: NodeDefaults,
    hints: Option<Arc<HintStore>>,
    partitions: RwLock<HashMap<TopicPartition, Hosted>>,
    /// One image is applied at a time.
    applying: tokio::sync::Mutex<reconcile::Applied>,
    /// High watermarks as they were last noted.
    noted: Mutex<HashMap<TopicPartition, Offset>>,
    noting: AtomicBool,
    /// Replicas whose directories the controller is being told of.
    telling: Mutex<HashSet<TopicPartition>>,
    moves: moves::Moves,
    stop: CancellationToken,
    ticking: Mutex<Option<tokio::task::JoinHandle<()>>>,
}

impl std::fmt::Debug for ReplicaManager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReplicaManager")
            .field("broker", &self.shared.broker)
            .field("partitions", &self.partitions.read().len())
            .finish_non_exhaustive()
    }
}

impl ReplicaManager {
    /// A manager without replicas, whose disk threads run and whose clock ticks. Inside a tokio
    /// runtime. Fails where threads cannot be started.
    pub fn new(
        config: ReplicaManagerConfig,
        logs: Arc<LogManager>,
        isr_channel: Arc<dyn IsrChannel>,
    ) -> std::io::Result<Arc<Self>> {
        crate::metric_names::describe();
        let pools = (
            DiskPool::new("ottla-append", config.disk_threads, WAITING_READS_MAX)?,
            DiskPool::new("ottla-read", config.disk_threads, WAITING_READS_MAX)?,
        );
        let runtime = tokio::runtime::Handle::current();
        let directories = logs.directories().len();
        let manager = Arc::new_cyclic(|me| Self {
            me: Weak::clone(me),
            shared: Arc::new(Shared::new(config.broker_id, logs, pools, isr_channel, runtime)),
            lag_max: config.lag_max,
            node_defaults: config.node_defaults,
            hints: config.hints.map(Arc::new),
            partitions: RwLock::default(),
            applying: tokio::sync::Mutex::default(),
            noted: Mutex::default(),
            noting: AtomicBool::new(false),
            telling: Mutex::default(),
            moves: moves::Moves::new(directories),
            stop: CancellationToken::new(),
            ticking: Mutex::default(),
        });
        let directory_failed = Arc::new(Notify::new());
        let bell = Arc::clone(&directory_failed);
        manager
            .shared
            .logs
            .on_directory_failure(move || bell.notify_one());
        let ticking = tokio::spawn(upkeep::keep_up(
            Arc::downgrade(&manager),
            directory_failed,
            manager.stop.clone(),
        ));
        *manager.ticking.lock() = Some(ticking);
        Ok(manager)
    }

    /// Names who fetches for the replicas that follow; once, before the first image is applied. Held
    /// weakly: who creates it owns it.
    pub fn set_followers(&self, followers: &Arc<dyn Followers>) {
        let first = self.shared.set_followers(followers);
        debug_assert!(first, "followers are named once");
    }

    /// The broker's id.
    pub fn broker_id(&self) -> BrokerId {
        self.shared.broker
    }

    /// The epoch of this broker's registration, as of the last applied image; −1 before the first.
    pub fn broker_epoch(&self) -> BrokerEpoch {
        self.shared.my_epoch()
    }

    /// The image that the replicas are, or are just being, brought in line with.
    pub fn image(&self) -> Arc<ClusterImage> {
        self.shared.image.load_full()
    }

    /// The replica of a partition. A topic that was deleted and created again under its name has
    /// another id: nobody gets one topic's records for the other's.
    pub fn partition(&self, tp: TopicPartition) -> Result<Arc<Partition>, ErrorCode> {
        match self.partitions.read().get(&tp) {
            Some(Hosted::Online(partition)) => return Ok(Arc::clone(partition)),
            Some(Hosted::Offline) => return Err(ErrorCode::KafkaStorageError),
            None => {}
        }
        let image = self.shared.image.load();
        match image.topics.get(&tp.topic_id) {
            None => Err(ErrorCode::UnknownTopicId),
            Some(topic) if topic.partitions.contains_key(&tp.partition) => {
                Err(ErrorCode::NotLeaderOrFollower)
            }
            Some(_) => Err(ErrorCode::UnknownTopicOrPartition),
        }
    }

    /// Every replica whose log is open.
    pub fn partitions(&self) -> Vec<Arc<Partition>> {
        let partitions = self.partitions.read();
        let online = partitions.values().filter_map(|hosted| match hosted {
            Hosted::Online(partition) => Some(Arc::clone(partition)),
            Hosted::Offline => None,
        });
        online.collect()
    }

    /// Replicas whose storage has failed, here or at the start: the controller takes them out of ISR
    /// and leadership.
    pub fn failed_replicas(&self) -> Vec<TopicPartition> {
        let partitions = self.partitions.read();
        let failed = partitions.iter().filter(|(_, hosted)| match hosted {
            Hosted::Online(partition) => partition.is_failed(),
            Hosted::Offline => true,
        });
        failed.map(|(&tp, _)| tp).collect()
    }

    /// The offset that retention may not pass; `None` where the replica is not here or not usable.
    pub fn high_watermark(&self, tp: TopicPartition) -> Option<Offset> {
        match self.partitions.read().get(&tp) {
            Some(Hosted::Online(partition)) if !partition.is_failed() => {
                Some(partition.offsets().high_watermark)
            }
            _ => None,
        }
    }

    /// Stops leading, everywhere and at once: the broker was fenced, or has been without a session for
    /// so long that it must take itself for fenced. What the metadata says next counts.
    pub fn resign_all(&self) {
        for partition in self.partitions() {
            partition.resign();
        }
    }

    /// Stops leading and following, finishes what is queued for the disk, and notes the high
    /// watermarks. The logs stay open: closing them is their manager's.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        let ticking = self.ticking.lock().take();
        if let Some(ticking) = ticking
            && ticking.await.is_err()
        {
            tracing::error!("the replica manager's clock had panicked");
        }
        self.end_all_moves().await;
        // An image that is being applied is finished first; none is applied afterwards.
        let _turn = self.applying.lock().await;
        let partitions = self.partitions();
        let retiring = partitions.iter().map(|partition| partition.retire());
        for retired in futures::future::join_all(retiring).await {
            if retired.is_err() {
                tracing::debug!("disk threads have ended already");
            }
        }
        let hints = self.hint_changes();
        let (shared, store) = (Arc::clone(&self.shared), self.hints.clone());
        let finished = tokio::task::spawn_blocking(move || {
            shared.writes.shutdown();
            shared.reads.shutdown();
            upkeep::note_hints(store.as_deref(), hints, true);
        });
        if finished.await.is_err() {
            tracing::error!("the disk threads did not end in order");
        }
    }
}
