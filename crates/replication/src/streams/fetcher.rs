//! All of this broker's streams to the leaders it follows: which partition is on which of them.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use protocol::{BrokerId, LeaderEpoch, TopicPartition};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::follower_stream::{LaneCommand, LaneContext, LaneTask, Move, Serial};
use super::link::Link;
use super::lost_leaders::LostLeaders;
use super::ports::{FollowerPartitions, LocalBroker};
use super::stream_state::Lane;
use crate::exchange::{Followers, Following};

/// Follows leaders: one connection to each, on it one stream for replicas in the ISR and one for
/// those that catch up. Dropping it ends all of them.
pub struct FetcherManager {
    shared: Arc<Shared>,
    _stop: DropGuard,
}

impl std::fmt::Debug for FetcherManager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FetcherManager").finish_non_exhaustive()
    }
}

struct Shared {
    local: Arc<dyn LocalBroker>,
    partitions: Arc<dyn FollowerPartitions>,
    runtime: Handle,
    stop: CancellationToken,
    places: Mutex<Places>,
    lost: LostLeaders,
}

#[derive(Default)]
struct Places {
    leaders: HashMap<BrokerId, Lanes>,
    partitions: HashMap<TopicPartition, Place>,
    serial: u64,
}

/// The lanes to one leader. The queues are unbounded: what stands in them is bounded by the changes of
/// roles in the metadata, and they are emptied by tasks that never wait for a disk.
struct Lanes {
    in_sync: mpsc::UnboundedSender<LaneCommand>,
    catching_up: mpsc::UnboundedSender<LaneCommand>,
}

#[derive(Clone, Copy)]
struct Place {
    leader: BrokerId,
    leader_epoch: LeaderEpoch,
    /// As the metadata says.
    in_sync: bool,
    lane: Lane,
    serial: Serial,
}

impl Place {
    fn new(following: Following, old: Option<Self>) -> Self {
        let Following {
            leader, leader_epoch, ..
        } = following;
        // A replica at the high watermark is on the in-sync lane before the metadata says so.
        let ahead = old.is_some_and(|old| old.lane == Lane::InSync && !old.in_sync && old.leader == leader);
        let lane = if following.in_sync || ahead {
            Lane::InSync
        } else {
            Lane::CatchingUp
        };
        Self {
            leader,
            leader_epoch,
            in_sync: following.in_sync,
            lane,
            serial: Serial(0),
        }
    }

    /// Whether the conversation that goes on is the one that is wanted.
    fn same_as(&self, other: &Self) -> bool {
        (self.leader, self.leader_epoch, self.lane) == (other.leader, other.leader_epoch, other.lane)
    }
}

impl FetcherManager {
    /// A manager whose tasks run on the current runtime.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(local: Arc<dyn LocalBroker>, partitions: Arc<dyn FollowerPartitions>) -> Self {
        let stop = CancellationToken::new();
        let shared = Shared {
            local,
            partitions,
            runtime: Handle::current(),
            stop: stop.clone(),
            places: Mutex::default(),
            lost: LostLeaders::default(),
        };
        Self {
            shared: Arc::new(shared),
            _stop: stop.drop_guard(),
        }
    }

    /// Leaders whose streams broke a moment ago, now and later.
    pub fn lost_leaders(&self) -> LostLeaders {
        self.shared.lost.clone()
    }

    /// Ends every stream; later updates have no effect.
    pub fn shutdown(&self) {
        self.shared.stop.cancel();
    }
}

impl Followers for FetcherManager {
    fn update(&self, partition: TopicPartition, following: Option<Following>) {
        let shared = &self.shared;
        let mut places = shared.places.lock();
        let old = places.partitions.get(&partition).copied();
        let new = following.map(|following| Place::new(following, old));
        if let (Some(old), Some(new)) = (old, new)
            && old.same_as(&new)
        {
            let in_sync = new.in_sync;
            places.partitions.insert(partition, Place { in_sync, ..old });
            return;
        }
        places.partitions.remove(&partition);
        if let Some(old) = old
            && new.is_none_or(|new| (new.leader, new.lane) != (old.leader, old.lane))
            && let Some(lanes) = places.leaders.get(&old.leader)
        {
            lanes.send(old.lane, LaneCommand::Unassign(partition));
        }
        if let Some(place) = new {
            Shared::assign(shared, &mut places, partition, place);
        }
    }
}

impl Shared {
    fn assign(shared: &Arc<Self>, places: &mut Places, partition: TopicPartition, mut place: Place) {
        places.serial += 1;
        place.serial = Serial(places.serial);
        places.partitions.insert(partition, place);
        let lanes = places
            .leaders
            .entry(place.leader)
            .or_insert_with(|| Self::open(shared, place.leader));
        lanes.send(
            place.lane,
            LaneCommand::Assign {
                partition,
                leader_epoch: place.leader_epoch,
                serial: place.serial,
            },
        );
    }

    fn open(shared: &Arc<Self>, leader: BrokerId) -> Lanes {
        let link = Arc::new(Link::new(leader, shared.lost.clone()));
        let lane = |lane: Lane| {
            let (commands, queue) = mpsc::unbounded_channel();
            let weak = Arc::downgrade(shared);
            let task = LaneTask::new(LaneContext {
                lane,
                link: Arc::clone(&link),
                local: Arc::clone(&shared.local),
                partitions: Arc::clone(&shared.partitions),
                on_move: Box::new(move |moved| Self::on_move(&weak, moved, lane)),
            });
            shared.runtime.spawn(task.run(queue, shared.stop.clone()));
            commands
        };
        Lanes {
            in_sync: lane(Lane::InSync),
            catching_up: lane(Lane::CatchingUp),
        }
    }

    fn on_move(weak: &Weak<Self>, moved: Move, from: Lane) {
        let Some(shared) = weak.upgrade() else {
            return;
        };
        let mut places = shared.places.lock();
        // A later assignment has the last word, wherever the lane wanted the earlier one to be.
        let place = places.partitions.get(&moved.partition).copied();
        if let Some(place) = place.filter(|place| place.serial == moved.serial) {
            let lane = from.other();
            tracing::debug!(partition = %moved.partition, lane = lane.name(), "replica changes its stream");
            Self::assign(&shared, &mut places, moved.partition, Place { lane, ..place });
        }
    }
}

impl Lanes {
    fn send(&self, lane: Lane, command: LaneCommand) {
        let commands = match lane {
            Lane::InSync => &self.in_sync,
            Lane::CatchingUp => &self.catching_up,
        };
        // Fails only when the lanes have been stopped, and nothing follows any more.
        let _ = commands.send(command);
    }
}
