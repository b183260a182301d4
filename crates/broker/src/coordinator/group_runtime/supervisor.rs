//! Begins and ends shards as the metadata gives and takes leaderships of `__consumer_offsets`.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use metadata::ClusterImage;
use metadata::delta::ImageDelta;
use protocol::{LeaderEpoch, PartitionIndex, TopicPartition};
use replication::{Partition, ReplicaManager};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::pauses::WritePause;
use super::service::{GroupCoordinator, ShardHandle};
use super::shard_task::{Job, QUEUE, ShardTask};
use super::{offsets_topic::OffsetsTopic, placement};
use crate::config::GroupSettings;
use crate::controller_client::ControllerClient;
use crate::coordinator::group::GroupConfig;
use crate::session::ImageStore;

/// How often it is looked whether a shard has ended by itself.
const LOOK: Duration = Duration::from_millis(250);
/// How often it is looked whether replicas lead by now that the metadata has made leaders: that takes
/// them a moment, in which their groups have no coordinator.
const LOOK_AT_NEW_LEADERS: Duration = Duration::from_millis(10);

/// What the group coordinator stands on.
#[derive(Debug)]
pub struct GroupCoordinatorParts {
    /// The broker's images.
    pub images: ImageStore,
    /// The broker's replicas.
    pub replicas: Arc<ReplicaManager>,
    /// The way to the active controller.
    pub controller: ControllerClient,
    /// What the operator set.
    pub settings: GroupSettings,
    /// When the broker started.
    pub started: tokio::time::Instant,
}

/// Starts the group coordinator of a broker; it ends with `stop`.
pub fn start(parts: GroupCoordinatorParts, stop: CancellationToken) -> GroupCoordinator {
    let settings = Arc::new(parts.settings);
    let coordinator = GroupCoordinator {
        me: parts.replicas.broker_id(),
        images: parts.images.clone(),
        shards: Arc::default(),
        topic: OffsetsTopic::new(
            parts.images,
            parts.controller,
            Arc::clone(&settings),
            parts.started,
        ),
    };
    let supervisor = Supervisor {
        coordinator: coordinator.clone(),
        replicas: parts.replicas,
        commit_timeout: settings.commit_timeout,
        config: group_config(&settings),
        running: HashMap::new(),
    };
    tokio::spawn(supervisor.run(stop));
    coordinator
}

fn group_config(settings: &GroupSettings) -> GroupConfig {
    let millis = |time: Duration| i32::try_from(time.as_millis()).unwrap_or(i32::MAX);
    GroupConfig {
        group_min_session_timeout_ms: millis(settings.session_timeout_min),
        group_max_session_timeout_ms: millis(settings.session_timeout_max),
        group_initial_rebalance_delay_ms: millis(settings.initial_rebalance_delay),
        group_max_size: settings.max_size,
        offset_metadata_max_bytes: settings.offset_metadata_max_bytes,
        offsets_retention_ms: i64::try_from(settings.offsets_retention.as_millis()).unwrap_or(i64::MAX),
        offsets_retention_check_interval_ms: u64::try_from(settings.offsets_retention_check.as_millis())
            .unwrap_or(u64::MAX),
        ..GroupConfig::default()
    }
}

/// One shard that was begun.
struct Running {
    tp: TopicPartition,
    epoch: LeaderEpoch,
    queue: mpsc::Sender<Job>,
    task: JoinHandle<()>,
    /// Ends the task when it is dropped.
    _stop: DropGuard,
}

struct Supervisor {
    coordinator: GroupCoordinator,
    replicas: Arc<ReplicaManager>,
    commit_timeout: Duration,
    config: GroupConfig,
    running: HashMap<PartitionIndex, Running>,
}

impl Supervisor {
    async fn run(mut self, stop: CancellationToken) {
        let mut images = self.coordinator.images.subscribe();
        let mut seen = Arc::new(ClusterImage::default());
        loop {
            let image = Arc::clone(&images.borrow_and_update());
            if !Arc::ptr_eq(&seen, &image) {
                self.forget_topics(&seen, &image);
                seen = Arc::clone(&image);
            }
            let pause = if self.reconcile(&image) {
                LOOK
            } else {
                LOOK_AT_NEW_LEADERS
            };
            tokio::select! {
                () = stop.cancelled() => break,
                changed = images.changed() => if changed.is_err() { break },
                () = tokio::time::sleep(pause) => {}
            }
        }
        self.coordinator.shards.write().clear();
        self.running.clear();
    }

    /// Brings the running shards in line with who leads; false while a replica does not lead yet that
    /// the metadata has made the leader.
    fn reconcile(&mut self, image: &ClusterImage) -> bool {
        let me = self.coordinator.me;
        let wanted: HashMap<PartitionIndex, (TopicPartition, LeaderEpoch)> = placement::offsets_topic(image)
            .into_iter()
            .flat_map(|topic| {
                topic
                    .partitions
                    .iter()
                    .filter(|(_, partition)| partition.leader == Some(me))
                    .map(|(&index, partition)| {
                        let tp = TopicPartition::new(topic.id, index);
                        (index, (tp, partition.leader_epoch))
                    })
            })
            .collect();
        let ended: Vec<PartitionIndex> = self
            .running
            .iter()
            .filter(|(index, shard)| {
                shard.task.is_finished() || wanted.get(index) != Some(&(shard.tp, shard.epoch))
            })
            .map(|(&index, _)| index)
            .collect();
        for index in ended {
            self.coordinator.shards.write().remove(&index);
            self.running.remove(&index);
        }
        let mut all_lead = true;
        for (index, (tp, epoch)) in wanted {
            if self.running.contains_key(&index) {
                continue;
            }
            match self.led(tp, epoch) {
                Some(partition) => self.begin(partition, epoch),
                None => all_lead = false,
            }
        }
        all_lead
    }

    /// The replica, where it leads in this epoch already.
    fn led(&self, tp: TopicPartition, epoch: LeaderEpoch) -> Option<Arc<Partition>> {
        let partition = self.replicas.partition(tp).ok()?;
        let leading = partition.leading().ok()?;
        (leading.leader_epoch == epoch).then_some(partition)
    }

    fn begin(&mut self, partition: Arc<Partition>, epoch: LeaderEpoch) {
        let tp = partition.tp();
        let (queue, jobs) = mpsc::channel(QUEUE);
        let serving = Arc::new(AtomicBool::new(false));
        let stop = CancellationToken::new();
        let task = ShardTask {
            partition,
            epoch,
            queue: jobs,
            serving: Arc::clone(&serving),
            deleted_topics: Vec::new(),
            writes: WritePause::default(),
            config: self.config.clone(),
            commit_timeout: self.commit_timeout,
            stop: stop.clone(),
        };
        let handle = ShardHandle {
            queue: queue.clone(),
            serving,
        };
        self.running.insert(
            tp.partition,
            Running {
                tp,
                epoch,
                queue,
                task: tokio::spawn(task.run()),
                _stop: stop.drop_guard(),
            },
        );
        self.coordinator.shards.write().insert(tp.partition, handle);
    }

    /// Tells the shards of topics that are gone.
    fn forget_topics(&self, older: &ClusterImage, newer: &ClusterImage) {
        let removed = ImageDelta::between(older, newer).removed_topics;
        let gone: Vec<String> = removed
            .iter()
            .filter_map(|id| Some(older.topics.get(id)?.name.to_string()))
            .collect();
        if gone.is_empty() {
            return;
        }
        for shard in self.running.values() {
            if shard.queue.try_send(Job::TopicsDeleted(gone.clone())).is_err() {
                tracing::warn!(
                    partition = %shard.tp.partition,
                    "offsets of deleted topics are kept until they expire: the shard has too much to do"
                );
            }
        }
    }
}
