//! Brokers without a network: replica managers over temporary directories, a controller that says yes
//! to whatever it is asked, and a pump in place of the replication streams.

// Each test file uses its own part of this module.
#![allow(dead_code)]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use metadata::{
    BrokerRegistration, ClusterImage, ConfigResource, PartitionRegistration, Topic, configs::NodeDefaults,
};
use parking_lot::Mutex;
use protocol::{
    BrokerEpoch, BrokerId, DirectoryId, IncarnationId, LeaderEpoch, Offset, PartitionEpoch, PartitionIndex,
    TopicId, TopicName, TopicPartition, batch::BatchBuilder,
};
use replication::{
    Acks, AlterIsr, AlteredPartition, AppendRefused, AppendResult, FetchRead, FetchVerdict, FollowerFetch,
    Isolation, IsrChannel, IsrError, Partition, ProduceAppend, ReplicaManager, ReplicaManagerConfig,
};
use storage::{LogManager, ManagerConfig};
use tempfile::TempDir;
use tokio::time::Instant;

pub(crate) const ONE: BrokerId = BrokerId(1);
pub(crate) const TWO: BrokerId = BrokerId(2);

/// The metadata, and the controller's one decision that matters here: every ISR change is accepted.
#[derive(Clone, Default)]
pub(crate) struct Cluster {
    image: Arc<Mutex<ClusterImage>>,
    /// Changes that were asked for.
    pub(crate) proposals: Arc<Mutex<Vec<AlterIsr>>>,
}

impl Cluster {
    /// A cluster in which the brokers are registered, each with its id as its epoch.
    pub(crate) fn with_brokers(ids: &[BrokerId]) -> Self {
        let cluster = Self::default();
        for &id in ids {
            cluster.register(id, BrokerEpoch(i64::from(id.0)));
        }
        cluster
    }

    pub(crate) fn image(&self) -> Arc<ClusterImage> {
        Arc::new(self.image.lock().clone())
    }

    pub(crate) fn register(&self, id: BrokerId, epoch: BrokerEpoch) {
        let registration = BrokerRegistration {
            id,
            epoch,
            incarnation: IncarnationId::random(),
            endpoints: Vec::new(),
            internal_address: String::new(),
            rack: None,
            log_dirs: Vec::new(),
            fenced: false,
            in_controlled_shutdown: false,
            version: String::new(),
        };
        self.image.lock().brokers.insert(id, Arc::new(registration));
    }

    /// Where the broker's internal port is.
    pub(crate) fn set_address(&self, id: BrokerId, address: String) {
        let mut image = self.image.lock();
        let registration = image.brokers.get_mut(&id).expect("the broker is registered");
        Arc::make_mut(registration).internal_address = address;
    }

    /// A topic of one partition, led by the first replica, with all of them in sync.
    pub(crate) fn create_topic(&self, name: &str, replicas: &[BrokerId]) -> TopicPartition {
        let name = TopicName::new(name).expect("a valid name");
        let tp = TopicPartition::new(TopicId::random(), PartitionIndex(0));
        let record = PartitionRegistration {
            replicas: replicas.to_vec(),
            directories: vec![DirectoryId::ZERO; replicas.len()],
            isr: replicas.to_vec(),
            elr: Vec::new(),
            leader: replicas.first().copied(),
            leader_epoch: LeaderEpoch(0),
            partition_epoch: PartitionEpoch(0),
            adding: Vec::new(),
            removing: Vec::new(),
        };
        let mut image = self.image.lock();
        let topic = Topic {
            id: tp.topic_id,
            name: name.clone(),
            partitions: [(tp.partition, Arc::new(record))].into_iter().collect(),
        };
        image.topics.insert(tp.topic_id, Arc::new(topic));
        image.topic_ids.insert(name, tp.topic_id);
        for &id in replicas {
            image.partitions_by_broker.entry(id).or_default().insert(tp);
        }
        tp
    }

    pub(crate) fn delete_topic(&self, tp: TopicPartition) {
        let mut image = self.image.lock();
        let topic = image.topics.remove(&tp.topic_id).expect("the topic is there");
        image.topic_ids.remove(topic.name.as_str());
        let brokers: Vec<BrokerId> = image.brokers.keys().copied().collect();
        for id in brokers {
            image.partitions_by_broker.entry(id).or_default().remove(&tp);
        }
    }

    pub(crate) fn set_config(&self, topic: &str, key: &str, value: &str) {
        let resource = ConfigResource::Topic(TopicName::new(topic).expect("a valid name"));
        let mut image = self.image.lock();
        let configs = image.configs.entry(resource).or_default();
        configs.insert(key.to_owned(), value.to_owned());
    }

    /// Sets a key for every broker.
    pub(crate) fn set_broker_config(&self, key: &str, value: &str) {
        let mut image = self.image.lock();
        let configs = image.configs.entry(ConfigResource::ClusterDefault).or_default();
        configs.insert(key.to_owned(), value.to_owned());
    }

    /// Changes the partition's record; the partition epoch follows by itself.
    pub(crate) fn change(&self, tp: TopicPartition, change: impl FnOnce(&mut PartitionRegistration)) {
        let mut image = self.image.lock();
        let topic = image.topics.get_mut(&tp.topic_id).expect("the topic is there");
        let record = Arc::make_mut(topic).partitions.get_mut(&tp.partition);
        let record = Arc::make_mut(record.expect("the partition is there"));
        change(record);
        record.partition_epoch = record.partition_epoch.next();
    }

    /// Elects `leader` with the next epoch.
    pub(crate) fn elect(&self, tp: TopicPartition, leader: BrokerId, isr: &[BrokerId]) {
        self.change(tp, |record| {
            record.leader = Some(leader);
            record.leader_epoch = record.leader_epoch.next();
            record.isr = isr.to_vec();
        });
    }

    fn alter(&self, tp: TopicPartition, change: &AlterIsr) -> AlteredPartition {
        self.proposals.lock().push(change.clone());
        self.change(tp, |record| {
            record.isr = change.new_isr.iter().map(|(id, _)| *id).collect();
        });
        let image = self.image.lock();
        let record = image.partition(tp).expect("the partition is there");
        AlteredPartition {
            leader: record.leader,
            leader_epoch: record.leader_epoch,
            partition_epoch: record.partition_epoch,
            isr: record.isr.clone(),
        }
    }
}

impl IsrChannel for Cluster {
    fn propose(
        &self,
        tp: TopicPartition,
        change: AlterIsr,
    ) -> BoxFuture<'static, Result<AlteredPartition, IsrError>> {
        let altered = self.alter(tp, &change);
        Box::pin(std::future::ready(Ok(altered)))
    }
}

/// A broker's replicas and logs. The directory stays when the broker stops.
pub(crate) struct Broker {
    pub(crate) id: BrokerId,
    pub(crate) epoch: BrokerEpoch,
    pub(crate) cluster: Cluster,
    pub(crate) logs: Arc<LogManager>,
    pub(crate) manager: Arc<ReplicaManager>,
    applied: Mutex<Arc<ClusterImage>>,
    dir: Arc<TempDir>,
    disks: usize,
}

pub(crate) const LAG_MAX: Duration = Duration::from_secs(10);

impl Broker {
    pub(crate) fn start(cluster: &Cluster, id: BrokerId) -> Self {
        let dir = Arc::new(TempDir::new().expect("a temporary directory"));
        Self::start_on(cluster, id, BrokerEpoch(i64::from(id.0)), dir, 1)
    }

    /// A broker with so many log directories.
    pub(crate) fn with_disks(cluster: &Cluster, id: BrokerId, disks: usize) -> Self {
        let dir = Arc::new(TempDir::new().expect("a temporary directory"));
        Self::start_on(cluster, id, BrokerEpoch(i64::from(id.0)), dir, disks)
    }

    pub(crate) fn start_in(cluster: &Cluster, id: BrokerId, epoch: BrokerEpoch, dir: Arc<TempDir>) -> Self {
        Self::start_on(cluster, id, epoch, dir, 1)
    }

    pub(crate) fn start_on(
        cluster: &Cluster,
        id: BrokerId,
        epoch: BrokerEpoch,
        dir: Arc<TempDir>,
        disks: usize,
    ) -> Self {
        let log_dirs = (1..=disks).map(|disk| dir.path().join(format!("disk-{disk}")));
        let config = ManagerConfig::new(log_dirs.collect(), id);
        let (logs, _) = LogManager::open(config, "boot").expect("the log directory opens");
        let hints = storage::hints::HintStore::open(&dir.path().join("hints")).ok();
        let config = ReplicaManagerConfig {
            broker_id: id,
            lag_max: LAG_MAX,
            disk_threads: 2,
            node_defaults: NodeDefaults::default(),
            hints,
        };
        let manager = ReplicaManager::new(config, Arc::clone(&logs), Arc::new(cluster.clone()));
        Self {
            id,
            epoch,
            cluster: cluster.clone(),
            logs,
            manager: manager.expect("threads start"),
            applied: Mutex::default(),
            dir,
            disks,
        }
    }

    /// Applies the cluster's image as it is now.
    pub(crate) async fn catch_up(&self) {
        let newer = self.cluster.image();
        let older = Arc::clone(&self.applied.lock());
        self.manager
            .apply_image(&older, Arc::clone(&newer), self.epoch)
            .await;
        *self.applied.lock() = newer;
    }

    pub(crate) async fn stop(self) -> (Cluster, BrokerId, Arc<TempDir>) {
        self.manager.shutdown().await;
        let logs = Arc::clone(&self.logs);
        let epoch = self.epoch;
        tokio::task::spawn_blocking(move || logs.close(Some(epoch)))
            .await
            .expect("the logs close");
        (self.cluster, self.id, self.dir)
    }

    /// Stops, registers again with the next epoch, and starts.
    pub(crate) async fn restart(self) -> Self {
        let epoch = BrokerEpoch(self.epoch.0 + 100);
        let disks = self.disks;
        let (cluster, id, dir) = self.stop().await;
        cluster.register(id, epoch);
        Self::start_on(&cluster, id, epoch, dir, disks)
    }

    /// The path of a log directory, counted from 1.
    pub(crate) fn disk(&self, disk: usize) -> PathBuf {
        self.dir.path().join(format!("disk-{disk}"))
    }

    pub(crate) fn partition(&self, tp: TopicPartition) -> Arc<Partition> {
        self.manager.partition(tp).expect("the replica is here")
    }
}

pub(crate) fn batch(values: &[&str]) -> Bytes {
    let records: Vec<_> = values
        .iter()
        .map(|value| (None, Some(value.as_bytes())))
        .collect();
    BatchBuilder::default().build_records(&records).into()
}

pub(crate) fn produce(values: &[&str], acks: Acks) -> ProduceAppend {
    ProduceAppend {
        batches: batch(values),
        acks,
        leader_epoch: None,
        log_append_time: None,
    }
}

pub(crate) async fn append(
    partition: &Partition,
    values: &[&str],
    acks: Acks,
) -> Result<AppendResult, AppendRefused> {
    partition.append(produce(values, acks)).committed(soon()).await
}

/// Far enough that only a hang reaches it.
pub(crate) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

pub(crate) fn read_from(from: i64) -> FetchRead {
    FetchRead {
        from: Offset(from),
        max_bytes: 1 << 20,
        min_one_batch: true,
        isolation: Isolation::ReadUncommitted,
        current_leader_epoch: None,
        last_fetched_epoch: None,
        from_follower_ok: false,
    }
}

/// Waits until `condition` holds.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = soon();
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not come about");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// One fetch of a follower, with whatever follows from it: what a replication stream does.
pub(crate) async fn fetch_once(leader: &Broker, follower: &Broker, tp: TopicPartition) {
    let (from, to) = (leader.partition(tp), follower.partition(tp));
    let following = to.following().expect("the replica follows");
    assert_eq!(following.leader, leader.id);
    let fetch = FollowerFetch {
        leader_epoch: following.leader_epoch,
        position: following.position,
    };
    match from.on_follower_fetch(follower.id, follower.epoch, &fetch) {
        Ok(FetchVerdict::Diverged { epoch, end_offset }) => {
            to.truncate_for(following.leader_epoch, following.position, (epoch, end_offset))
                .await
                .expect("truncated");
        }
        Ok(FetchVerdict::Continue { next }) => {
            let read = from
                .read_for_follower(next, 1 << 20, following.leader_epoch)
                .await
                .expect("read");
            to.append_replicated(
                following.leader_epoch,
                next,
                read.batches,
                read.high_watermark,
                read.log_start,
            )
            .await
            .expect("appended");
        }
        Err(replication::FetchRefused::OutOfRange { log_start, .. }) => {
            to.restart_at(following.leader_epoch, log_start)
                .await
                .expect("begun anew");
        }
        Err(refused) => panic!("refused: {refused}"),
    }
}

/// Fetches until the leader has taken the follower into the ISR: it learns what the follower has synced from
/// the fetch after.
pub(crate) async fn join_isr(leader: &Broker, follower: &Broker, tp: TopicPartition) {
    let deadline = soon();
    while !leader.partition(tp).status().isr.contains(&follower.id) {
        fetch_once(leader, follower, tp).await;
        assert!(Instant::now() < deadline, "the follower did not join the ISR");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Fetches until the follower has everything, durable and committed, and both know it.
pub(crate) async fn replicate(leader: &Broker, follower: &Broker, tp: TopicPartition) {
    let deadline = soon();
    loop {
        fetch_once(leader, follower, tp).await;
        let (here, there) = (leader.partition(tp).offsets(), follower.partition(tp).offsets());
        let same = here.log_end == there.log_end
            && there.durable == there.log_end
            && here.high_watermark == here.log_end
            && there.high_watermark == here.high_watermark;
        if same {
            return;
        }
        assert!(Instant::now() < deadline, "not replicated: {here:?} {there:?}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
