//! What handlers call: finds the shard of a group and waits for its answer.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use metadata::ClusterImage;
use parking_lot::RwLock;
use protocol::{BrokerId, ErrorCode, PartitionIndex};
use tokio::sync::{mpsc, oneshot};

use super::offsets_topic::OffsetsTopic;
use super::placement;
use super::shard_task::Job;
use crate::coordinator::group::{Caller, GroupReply, GroupRequest, GroupShard};
use crate::session::ImageStore;

/// The way to one running shard.
#[derive(Clone, Debug)]
pub(super) struct ShardHandle {
    pub(super) queue: mpsc::Sender<Job>,
    pub(super) serving: Arc<AtomicBool>,
}

/// Shards by their partition.
pub(super) type Shards = Arc<RwLock<HashMap<PartitionIndex, ShardHandle>>>;

/// The groups that this broker coordinates, and where the others are. A clone is a handle to the same.
#[derive(Clone, Debug)]
pub struct GroupCoordinator {
    pub(super) me: BrokerId,
    pub(super) images: ImageStore,
    pub(super) shards: Shards,
    pub(super) topic: OffsetsTopic,
}

/// Where a group is coordinated, or why that is not known; the sentence is for the client.
pub type Located = Result<BrokerId, (ErrorCode, String)>;

impl GroupCoordinator {
    /// The broker that coordinates `group`. The first question of all creates the topic.
    pub async fn locate(&self, group: &str) -> Located {
        located_in(&*self.topic.ensure().await?, group)
    }

    /// Whether the offsets topic is there, as far as this broker knows: the first group has asked for its
    /// coordinator.
    pub(crate) fn has_topic(&self) -> bool {
        placement::offsets_topic(&self.images.current()).is_some()
    }

    /// Creates the offsets topic where it is not there yet. That may take seconds: a request about many groups
    /// asks once, and then [`located_in`] for each.
    pub(crate) async fn ensure_topic(&self) -> Result<Arc<ClusterImage>, (ErrorCode, String)> {
        self.topic.ensure().await
    }

    /// Has the shard of the request's group answer it; refuses it where that shard is not here.
    pub async fn call(&self, caller: Caller, request: GroupRequest) -> GroupReply {
        let api_version = caller.api_version;
        let shard = request
            .group_id()
            .ok_or(ErrorCode::InvalidRequest)
            .and_then(|group| self.shard_of(group));
        let refusal = request.clone();
        let answered = match shard {
            Ok(shard) => ask(&shard, caller, request).await,
            Err(error) => Err(error),
        };
        answered.unwrap_or_else(|error| refusal.refused(api_version, error))
    }

    /// Has every shard on this broker answer a question about all groups. An error of one, such as that
    /// it is being loaded or has not even begun, is among the replies.
    pub async fn call_all(&self, caller: &Caller, request: &GroupRequest) -> Vec<GroupReply> {
        let image = self.images.current();
        let (shards, all_begun) = {
            let running = self.shards.read();
            let all_begun = placement::led_by(&image, self.me).all(|index| running.contains_key(&index));
            let shards: Vec<ShardHandle> = running.values().cloned().collect();
            (shards, all_begun)
        };
        let asked = shards.iter().map(|shard| async {
            let answered = if shard.serving.load(Ordering::Acquire) {
                ask(shard, caller.clone(), request.clone()).await
            } else {
                Err(ErrorCode::CoordinatorLoadInProgress)
            };
            answered.unwrap_or_else(|error| request.refused(caller.api_version, error))
        });
        let mut replies = futures::future::join_all(asked).await;
        if !all_begun {
            replies.push(request.refused(caller.api_version, ErrorCode::CoordinatorLoadInProgress));
        }
        replies
    }

    /// Looks at every shard that is served here, between two of its rounds.
    pub(crate) async fn look_at_all<T: Send + 'static>(
        &self,
        look: impl Fn(&GroupShard) -> T + Clone + Send + 'static,
    ) -> Vec<T> {
        let shards: Vec<ShardHandle> = self.shards.read().values().cloned().collect();
        let looked = shards
            .iter()
            .filter(|shard| shard.serving.load(Ordering::Acquire))
            .map(|shard| look_at(shard, look.clone()));
        let seen = futures::future::join_all(looked).await;
        seen.into_iter().flatten().collect()
    }

    fn shard_of(&self, group: &str) -> Result<ShardHandle, ErrorCode> {
        let image = self.images.current();
        let home = placement::home_of(&image, group).ok_or(ErrorCode::NotCoordinator)?;
        let shard = self.shards.read().get(&home).cloned();
        match shard {
            Some(shard) if shard.serving.load(Ordering::Acquire) => Ok(shard),
            Some(_) => Err(ErrorCode::CoordinatorLoadInProgress),
            // The metadata names this broker, and the task has not begun yet.
            None if placement::coordinator_of(&image, group) == Some(self.me) => {
                Err(ErrorCode::CoordinatorLoadInProgress)
            }
            None => Err(ErrorCode::NotCoordinator),
        }
    }
}

/// Where a group is coordinated, as the image has it.
pub(crate) fn located_in(image: &ClusterImage, group: &str) -> Located {
    placement::coordinator_of(image, group).ok_or_else(|| {
        let why = format!("the partition of group {group} has no leader at the moment");
        (ErrorCode::CoordinatorNotAvailable, why)
    })
}

async fn ask(shard: &ShardHandle, caller: Caller, request: GroupRequest) -> Result<GroupReply, ErrorCode> {
    let (reply, answer) = oneshot::channel();
    submit(
        shard,
        Job::Request {
            caller,
            request: Box::new(request),
            reply,
        },
    )?;
    // Dropped with the shard: this broker does not lead any more.
    answer.await.unwrap_or(Err(ErrorCode::NotCoordinator))
}

async fn look_at<T: Send + 'static>(
    shard: &ShardHandle,
    look: impl FnOnce(&GroupShard) -> T + Send + 'static,
) -> Result<T, ErrorCode> {
    let (reply, answer) = oneshot::channel();
    let job = Job::Look(Box::new(move |shard| {
        // Whoever asked may have gone.
        let _ = reply.send(look(shard));
    }));
    submit(shard, job)?;
    answer.await.map_err(|_| ErrorCode::NotCoordinator)
}

fn submit(shard: &ShardHandle, job: Job) -> Result<(), ErrorCode> {
    shard.queue.try_send(job).map_err(|error| match error {
        // Clients take it as a reason to ask again in a moment.
        mpsc::error::TrySendError::Full(_) => ErrorCode::CoordinatorLoadInProgress,
        mpsc::error::TrySendError::Closed(_) => ErrorCode::NotCoordinator,
    })
}
