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
use super::settings::SettingsWatch;
use super::shard_task::{Job, QUEUE, ShardTask};
use super::topics::TopicsWatch;
use super::{offsets_topic::OffsetsTopic, placement};
use crate::config::GroupSettings;
use crate::controller_client::ControllerClient;
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
        running: HashMap::new(),
        topics: TopicsWatch::new(),
        settings: SettingsWatch::new(&settings),
    };
    tokio::spawn(supervisor.run(stop));
    coordinator
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
    running: HashMap<PartitionIndex, Running>,
    /// What shards are told of the cluster's topics.
    topics: TopicsWatch,
    /// What they are told of settings.
    settings: SettingsWatch,
}

impl Supervisor {
    async fn run(mut self, stop: CancellationToken) {
        let mut images = self.coordinator.images.subscribe();
        let mut seen = Arc::new(ClusterImage::default());
        loop {
            let image = Arc::clone(&images.borrow_and_update());
            if !Arc::ptr_eq(&seen, &image) {
                let delta = ImageDelta::between(&seen, &image);
                // First: a shard that begins below knows the topics from its beginning.
                self.topics.follow(&seen, &image, &delta);
                self.settings.follow(&image, &delta);
                self.forget_topics(&seen, &delta);
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
            topics: self.topics.subscribe(),
            settings: self.settings.subscribe(),
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
    fn forget_topics(&self, older: &ClusterImage, delta: &ImageDelta) {
        let gone: Vec<String> = delta
            .removed_topics
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
