//! A leader and its one follower with both lanes between them: everything that is on its way, and the steps by which it
//! gets there.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};

use protocol::batch::BatchBuilder;
use protocol::{BrokerId, ErrorCode, LeaderEpoch, PartitionIndex, StreamGeneration, TopicId, TopicPartition};
use uuid::Uuid;

use super::super::leader::READ_BYTES;
use super::super::{
    FollowerStream, FollowerView, Lane, LeaderStream, LeaderView, Order, ReadOrder, StreamMessage, Work,
};
use crate::Now;
use crate::exchange::{FetchVerdict, FollowerFetch, Following, Leading};
use crate::streams::model::Model;
use crate::streams::wire::News;

pub(super) const LEADER: BrokerId = BrokerId(1);
pub(super) const WINDOW: u64 = 400;

const LANES: [Lane; 2] = [Lane::InSync, Lane::CatchingUp];

/// Rounds in which everything without a fault is done, after which whatever can meet has met.
const SETTLING_ROUNDS: usize = 2_000;

pub(super) fn partition(index: usize) -> TopicPartition {
    TopicPartition::new(TopicId(Uuid::from_u128(7)), PartitionIndex(index as i32))
}

/// The partitions, as both brokers see them.
pub(super) type Models = RefCell<BTreeMap<TopicPartition, Model>>;

impl LeaderView for Models {
    fn fetch(&self, partition: TopicPartition, fetch: &FollowerFetch) -> Result<FetchVerdict, ErrorCode> {
        let mut models = self.borrow_mut();
        let model = models.get_mut(&partition).ok_or(ErrorCode::UnknownTopicId)?;
        model.fetch(fetch)
    }

    fn positions(&self, partition: TopicPartition) -> Result<Leading, ErrorCode> {
        let models = self.borrow();
        let model = models.get(&partition).ok_or(ErrorCode::UnknownTopicId)?;
        Ok(model.positions())
    }
}

impl FollowerView for Models {
    fn following(&self, partition: TopicPartition) -> Option<Following> {
        let models = self.borrow();
        let model = models.get(&partition)?;
        Some(model.following(LEADER))
    }
}

/// What one lane does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// The follower's lane takes the next assignment.
    Command,
    Speak,
    ToLeader,
    ToFollower,
    Order,
    Read,
    /// A log does the next work.
    Work,
    /// The disk refuses the next work: it is full, say.
    Refuse,
    /// The lane hears how work ended.
    Done,
    Reconnect,
}

/// What may happen without a fault, in an order in which one thing leads to the next.
pub(super) const ACTS: [Act; 8] = [
    Act::Command,
    Act::Speak,
    Act::ToLeader,
    Act::Order,
    Act::Read,
    Act::ToFollower,
    Act::Work,
    Act::Done,
];

#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    Produce(usize, u8),
    /// Another leader was elected that had everything committed and not the `lost` last of the rest.
    Elect {
        partition: usize,
        lost: u8,
    },
    AdvanceStart(usize),
    Flush(usize),
    /// The metadata says anew whom the replica follows, and whether it is in sync: its lane. The epoch stays.
    Reassign(usize, Lane),
    On(Lane, Act),
    /// Milliseconds.
    Pass(u16),
}

/// What a lane is told, as by `FetcherManager`.
#[derive(Clone, Copy, Debug)]
enum Command {
    Assign(TopicPartition, LeaderEpoch, Serial),
    Unassign(TopicPartition),
}

/// Tells one assignment of a partition from another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Serial(u64);

/// How work ended, before the lane has heard of it.
#[derive(Debug)]
pub(super) enum Done {
    Appended {
        partition: TopicPartition,
        generation: StreamGeneration,
        bytes: usize,
        appended: bool,
    },
    Mended {
        partition: TopicPartition,
        mended: bool,
    },
}

/// Both ends of one stream, and what waits between them and behind them.
pub(super) struct Stream {
    pub(super) leader: LeaderStream,
    pub(super) follower: FollowerStream,
    commands: VecDeque<Command>,
    assigned: BTreeMap<TopicPartition, Serial>,
    pub(super) to_leader: VecDeque<StreamMessage>,
    pub(super) to_follower: VecDeque<News>,
    pub(super) reads: VecDeque<ReadOrder>,
    pub(super) work: VecDeque<Work>,
    pub(super) done: VecDeque<Done>,
}

impl Stream {
    fn new(lane: Lane) -> Self {
        let mut follower = FollowerStream::new(LEADER, lane, WINDOW, Now(0));
        follower.connected(Now(0));
        Self {
            leader: LeaderStream::new(),
            follower,
            commands: VecDeque::new(),
            assigned: BTreeMap::new(),
            to_leader: VecDeque::new(),
            to_follower: VecDeque::new(),
            reads: VecDeque::new(),
            work: VecDeque::new(),
            done: VecDeque::new(),
        }
    }

    /// The next work ends: done by the log, or refused without being tried.
    fn work(&mut self, models: &Models, refused: bool) {
        let Some(work) = self.work.pop_front() else {
            return;
        };
        let mut models = models.borrow_mut();
        let done = match work {
            Work::Append(append) => {
                let model = models.get_mut(&append.partition).expect("known");
                let appended =
                    !refused && model.append(append.leader_epoch, append.previous, &append.batches);
                if appended {
                    model.learn(append.high_watermark);
                }
                Done::Appended {
                    partition: append.partition,
                    generation: append.generation,
                    bytes: append.batches.len(),
                    appended,
                }
            }
            Work::Mend(work) => {
                let model = models.get_mut(&work.partition).expect("known");
                Done::Mended {
                    partition: work.partition,
                    mended: !refused && model.mend(&work),
                }
            }
        };
        self.done.push_back(done);
    }

    fn hear_done(&mut self, now: Now) {
        match self.done.pop_front() {
            Some(Done::Appended {
                partition,
                generation,
                bytes,
                appended,
            }) => self
                .follower
                .on_appended(partition, generation, bytes, appended, now),
            Some(Done::Mended { partition, mended }) => self.follower.on_mended(partition, mended, now),
            None => {}
        }
    }

    fn reconnect(&mut self, now: Now) {
        self.to_leader.clear();
        self.to_follower.clear();
        self.reads.clear();
        self.leader = LeaderStream::new();
        self.follower.disconnected();
        self.follower.connected(now);
    }

    /// Bytes of batches that the follower's credit must have covered.
    fn bytes_on_their_way(&self) -> usize {
        let sent: usize = self.to_follower.iter().map(News::batch_bytes).sum();
        let appending: usize = self
            .work
            .iter()
            .map(|work| match work {
                Work::Append(append) => append.batches.len(),
                Work::Mend(_) => 0,
            })
            .sum();
        let ending: usize = self
            .done
            .iter()
            .map(|done| match done {
                Done::Appended { bytes, .. } => *bytes,
                Done::Mended { .. } => 0,
            })
            .sum();
        sent + appending + ending
    }
}

/// Both brokers and everything between them.
pub(super) struct World {
    pub(super) models: Models,
    in_sync: Stream,
    catching_up: Stream,
    /// On which lane each partition is to be, and by which assignment.
    places: BTreeMap<TopicPartition, (Lane, Serial)>,
    pub(super) now: Now,
    serial: u64,
    values: i64,
}

impl World {
    /// Empty partitions, all of them assigned to `lane`.
    pub(super) fn new(partitions: usize, lane: Lane) -> Self {
        let mut world = Self {
            models: RefCell::default(),
            in_sync: Stream::new(Lane::InSync),
            catching_up: Stream::new(Lane::CatchingUp),
            places: BTreeMap::new(),
            now: Now(0),
            serial: 0,
            values: 0,
        };
        for index in 0..partitions {
            let added = partition(index);
            world.models.borrow_mut().insert(added, Model::default());
            world.assign(added, lane);
            world.step(&Step::On(lane, Act::Command));
        }
        world
    }

    pub(super) fn stream(&mut self, lane: Lane) -> &mut Stream {
        self.stream_and_models(lane).0
    }

    pub(super) fn stream_and_models(&mut self, lane: Lane) -> (&mut Stream, &Models) {
        let stream = match lane {
            Lane::InSync => &mut self.in_sync,
            Lane::CatchingUp => &mut self.catching_up,
        };
        (stream, &self.models)
    }

    pub(super) fn with<T>(&self, index: usize, act: impl FnOnce(&mut Model) -> T) -> T {
        let mut models = self.models.borrow_mut();
        act(models
            .get_mut(&partition(index))
            .expect("steps name known partitions"))
    }

    pub(super) fn step(&mut self, step: &Step) {
        match *step {
            Step::Produce(index, count) => {
                for _ in 0..count {
                    self.values += 1;
                    let value = self.values;
                    self.with(index, |model| model.leader.push((model.epoch, value)));
                }
                self.leader_progressed(partition(index));
            }
            Step::Elect {
                partition: index,
                lost,
            } => self.elect(index, lost),
            Step::AdvanceStart(index) => {
                self.with(index, |model| model.leader_start = model.high_watermark);
                self.leader_progressed(partition(index));
            }
            Step::Flush(index) => {
                self.with(index, |model| model.durable = model.follower.len());
                for lane in LANES {
                    self.stream(lane).follower.on_progress(partition(index));
                }
            }
            Step::Reassign(index, lane) => {
                let (old, _) = self.places[&partition(index)];
                let command = Command::Unassign(partition(index));
                self.stream(old).commands.push_back(command);
                self.assign(partition(index), lane);
            }
            Step::On(lane, act) => self.act(lane, act),
            Step::Pass(millis) => {
                self.now = Now(self.now.0 + u64::from(millis));
                let now = self.now;
                for lane in LANES {
                    self.stream(lane).follower.on_tick(now);
                }
            }
        }
        for lane in LANES {
            self.take_wishes(lane);
        }
    }

    /// One lane does these, in turn.
    pub(super) fn on(&mut self, lane: Lane, acts: &[Act]) {
        for &act in acts {
            self.step(&Step::On(lane, act));
        }
    }

    fn elect(&mut self, index: usize, lost: u8) {
        self.values += 1;
        let value = self.values;
        self.with(index, |model| {
            let keep = (model.leader.len().saturating_sub(lost.into())).max(model.high_watermark);
            model.leader.truncate(keep);
            model.epoch = model.epoch.next();
            model.leader.push((model.epoch, value));
        });
        self.leader_progressed(partition(index));
        let (lane, _) = self.places[&partition(index)];
        self.assign(partition(index), lane);
    }

    /// The lane hears of it when it takes its next command; lanes know nothing of each other.
    fn assign(&mut self, partition: TopicPartition, lane: Lane) {
        self.serial += 1;
        let serial = Serial(self.serial);
        self.places.insert(partition, (lane, serial));
        let epoch = self.models.borrow()[&partition].epoch;
        let command = Command::Assign(partition, epoch, serial);
        self.stream(lane).commands.push_back(command);
    }

    /// The partition moved at the leader, which tells the tasks of both streams.
    pub(super) fn leader_progressed(&mut self, partition: TopicPartition) {
        for lane in LANES {
            self.stream(lane).leader.on_progress(partition);
        }
    }

    fn act(&mut self, lane: Lane, act: Act) {
        let now = self.now;
        let (stream, models) = self.stream_and_models(lane);
        match act {
            Act::Command => match stream.commands.pop_front() {
                Some(Command::Assign(partition, epoch, serial)) => {
                    stream.assigned.insert(partition, serial);
                    stream.follower.assign(partition, epoch);
                }
                Some(Command::Unassign(partition)) => {
                    stream.assigned.remove(&partition);
                    stream.follower.unassign(partition);
                }
                None => {}
            },
            Act::Speak => stream.to_leader.extend(stream.follower.message(now, models)),
            Act::ToLeader => self.hear_follower(lane),
            Act::ToFollower => {
                if let Some(news) = stream.to_follower.pop_front() {
                    stream.follower.on_heard(now);
                    stream.follower.on_news(news, now);
                }
            }
            Act::Order => match stream.leader.next(models) {
                Some(Order::Say(news)) => stream.to_follower.push_back(news),
                Some(Order::Read(order)) => {
                    assert!(order.max_bytes <= READ_BYTES);
                    stream.reads.push_back(order);
                }
                None => {}
            },
            Act::Read => {
                if let Some(order) = stream.reads.pop_front() {
                    let outcome = models.borrow()[&order.partition].read(&order);
                    let news = stream.leader.on_read(&order, outcome, models);
                    stream.to_follower.extend(news);
                }
            }
            Act::Work => stream.work(models, false),
            Act::Refuse => stream.work(models, true),
            Act::Done => stream.hear_done(now),
            Act::Reconnect => stream.reconnect(now),
        }
    }

    fn hear_follower(&mut self, lane: Lane) {
        let (stream, _) = self.stream_and_models(lane);
        let Some(message) = stream.to_leader.pop_front() else {
            return;
        };
        for &stopped in &message.stop {
            stream.leader.on_stop(stopped);
        }
        stream.leader.on_credit(message.credit);
        for fetch in &message.fetches {
            let before = self.high_watermark(fetch.partition);
            let (stream, models) = self.stream_and_models(lane);
            stream.to_follower.extend(stream.leader.on_fetch(fetch, models));
            if self.high_watermark(fetch.partition) > before {
                self.leader_progressed(fetch.partition);
            }
        }
        if message.heartbeat {
            let (stream, models) = self.stream_and_models(lane);
            stream.to_follower.extend(stream.leader.on_heartbeat(models));
        }
    }

    /// What a lane's follower wants done: work for the logs, and partitions on the other lane.
    fn take_wishes(&mut self, lane: Lane) {
        let stream = self.stream(lane);
        while let Some(work) = stream.follower.take_work() {
            stream.work.push_back(work);
        }
        let moves: Vec<_> = stream
            .follower
            .take_moves()
            .into_iter()
            .filter_map(|moved| Some((moved, stream.assigned.remove(&moved)?)))
            .collect();
        for (moved, serial) in moves {
            // A later assignment has the last word, wherever the lane wanted the earlier one to be.
            if self.places[&moved].1 == serial {
                self.assign(moved, lane.other());
            }
        }
    }

    fn high_watermark(&self, partition: TopicPartition) -> usize {
        self.models.borrow()[&partition].high_watermark
    }

    pub(super) fn assert_invariants(&self) {
        for model in self.models.borrow().values() {
            model.assert_invariants();
        }
        // One batch beyond the credit a partition whose read was under way when it ran out.
        let batch = BatchBuilder::default().build_records(&[(None, None)]).len();
        let allowed = WINDOW as usize + self.models.borrow().len() * batch;
        for stream in [&self.in_sync, &self.catching_up] {
            let bytes = stream.bytes_on_their_way();
            assert!(
                bytes <= allowed,
                "more on its way than credit allows: {bytes} of {allowed}"
            );
        }
    }

    /// Everything that can happen without a fault happens until nothing more does.
    pub(super) fn settle(&mut self) {
        let partitions = self.models.borrow().len();
        for _ in 0..SETTLING_ROUNDS {
            if self.models.borrow().values().all(Model::is_settled) {
                break;
            }
            for index in 0..partitions {
                self.step(&Step::Flush(index));
            }
            let acts = LANES
                .into_iter()
                .flat_map(|lane| ACTS.map(|act| Step::On(lane, act)));
            for step in acts.chain([Step::Pass(50)]) {
                self.step(&step);
                self.assert_invariants();
            }
        }
    }
}
