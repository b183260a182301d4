//! Both sides of a stream against each other, over logs kept in memory, with messages that wait,
//! connections that break, leaders that change and disks that take their time.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;
use protocol::batch::BatchBuilder;
use protocol::{BrokerId, ErrorCode, LeaderEpoch, Offset, PartitionIndex, TopicId, TopicPartition};
use uuid::Uuid;

use super::leader::READ_BYTES;
use super::{
    FollowerStream, FollowerView, Lane, LeaderStream, LeaderView, Order, ReadOrder, StreamMessage, Work,
};
use crate::Now;
use crate::exchange::{FetchVerdict, FollowerFetch, Following, Leading};
use crate::streams::model::Model;
use crate::streams::wire::News;

const LEADER: BrokerId = BrokerId(1);
const WINDOW: u64 = 400;

fn partition(index: usize) -> TopicPartition {
    TopicPartition::new(TopicId(Uuid::from_u128(7)), PartitionIndex(index as i32))
}

/// A stream between them, and everything that is on its way.
struct World {
    models: RefCell<BTreeMap<TopicPartition, Model>>,
    leader: LeaderStream,
    follower: FollowerStream,
    to_leader: VecDeque<StreamMessage>,
    to_follower: VecDeque<News>,
    reads: VecDeque<ReadOrder>,
    work: VecDeque<Work>,
    now: Now,
    values: i64,
}

impl LeaderView for RefCell<BTreeMap<TopicPartition, Model>> {
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

impl FollowerView for RefCell<BTreeMap<TopicPartition, Model>> {
    fn following(&self, partition: TopicPartition) -> Option<Following> {
        let models = self.borrow();
        let model = models.get(&partition)?;
        Some(model.following(LEADER))
    }
}

#[derive(Clone, Debug)]
enum Step {
    Produce(usize, u8),
    Elect {
        partition: usize,
        lost: u8,
    },
    AdvanceStart(usize),
    Flush(usize),
    Speak,
    ToLeader,
    ToFollower,
    Order,
    Read,
    Work,
    /// The disk refuses the next work: it is full, say.
    Refuse,
    Reconnect,
    Reassign(usize),
    Pass(u16),
}

impl World {
    fn new(partitions: usize, lane: Lane) -> Self {
        let mut world = Self {
            models: RefCell::default(),
            leader: LeaderStream::new(),
            follower: FollowerStream::new(LEADER, lane, WINDOW, Now(0)),
            to_leader: VecDeque::new(),
            to_follower: VecDeque::new(),
            reads: VecDeque::new(),
            work: VecDeque::new(),
            now: Now(0),
            values: 0,
        };
        world.follower.connected(Now(0));
        for index in 0..partitions {
            world
                .models
                .borrow_mut()
                .insert(partition(index), Model::default());
            world.follower.assign(partition(index), LeaderEpoch::ZERO);
        }
        world
    }

    fn with<T>(&self, index: usize, act: impl FnOnce(&mut Model) -> T) -> T {
        let mut models = self.models.borrow_mut();
        act(models
            .get_mut(&partition(index))
            .expect("steps name known partitions"))
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Produce(index, count) => {
                for _ in 0..count {
                    self.values += 1;
                    let value = self.values;
                    self.with(index, |model| model.leader.push((model.epoch, value)));
                }
                self.leader.on_progress(partition(index));
            }
            Step::Elect {
                partition: index,
                lost,
            } => {
                // Another leader was elected that had everything committed and not all of the rest.
                let epoch = self.with(index, |model| {
                    let keep = (model.leader.len().saturating_sub(lost.into())).max(model.high_watermark);
                    model.leader.truncate(keep);
                    model.epoch = model.epoch.next();
                    model.epoch
                });
                self.values += 1;
                let value = self.values;
                self.with(index, |model| model.leader.push((epoch, value)));
                self.leader.on_progress(partition(index));
                self.follower.assign(partition(index), epoch);
            }
            Step::AdvanceStart(index) => {
                self.with(index, |model| model.leader_start = model.high_watermark);
                self.leader.on_progress(partition(index));
            }
            Step::Flush(index) => {
                self.with(index, |model| model.durable = model.follower.len());
                self.follower.on_progress(partition(index));
            }
            Step::Speak => {
                if let Some(message) = self.follower.message(self.now, &self.models) {
                    self.to_leader.push_back(message);
                }
            }
            Step::ToLeader => {
                if let Some(message) = self.to_leader.pop_front() {
                    self.leader.on_credit(message.credit);
                    for &stopped in &message.stop {
                        self.leader.on_stop(stopped);
                    }
                    for fetch in &message.fetches {
                        let before = self.high_watermark(fetch.partition);
                        self.to_follower.extend(self.leader.on_fetch(fetch, &self.models));
                        if self.high_watermark(fetch.partition) > before {
                            self.leader.on_progress(fetch.partition);
                        }
                    }
                    if message.heartbeat {
                        self.to_follower.extend(self.leader.on_heartbeat(&self.models));
                    }
                }
            }
            Step::ToFollower => {
                if let Some(news) = self.to_follower.pop_front() {
                    self.follower.on_heard(self.now);
                    self.follower.on_news(news, self.now);
                }
            }
            Step::Order => match self.leader.next(&self.models) {
                Some(Order::Say(news)) => self.to_follower.push_back(news),
                Some(Order::Read(order)) => {
                    assert!(order.max_bytes <= READ_BYTES);
                    self.reads.push_back(order);
                }
                None => {}
            },
            Step::Read => {
                if let Some(order) = self.reads.pop_front() {
                    let outcome = self.models.borrow()[&order.partition].read(&order);
                    self.to_follower
                        .extend(self.leader.on_read(&order, outcome, &self.models));
                }
            }
            Step::Work => self.work(),
            Step::Refuse => self.refuse(),
            Step::Reconnect => {
                self.to_leader.clear();
                self.to_follower.clear();
                self.reads.clear();
                self.leader = LeaderStream::new();
                self.follower.disconnected();
                self.follower.connected(self.now);
            }
            Step::Reassign(index) => {
                let epoch = self.with(index, |model| model.epoch);
                self.follower.unassign(partition(index));
                self.follower.assign(partition(index), epoch);
            }
            Step::Pass(millis) => {
                self.now = Now(self.now.0 + u64::from(millis));
                self.follower.on_tick(self.now);
            }
        }
        while let Some(work) = self.follower.take_work() {
            self.work.push_back(work);
        }
        for moved in self.follower.take_moves() {
            let epoch = self.models.borrow()[&moved].epoch;
            self.follower.assign(moved, epoch);
        }
    }

    fn high_watermark(&self, partition: TopicPartition) -> usize {
        self.models.borrow()[&partition].high_watermark
    }

    fn work(&mut self) {
        match self.work.pop_front() {
            Some(Work::Append(append)) => {
                let done = {
                    let mut models = self.models.borrow_mut();
                    let model = models.get_mut(&append.partition).expect("known");
                    let done = model.append(append.leader_epoch, append.previous, &append.batches);
                    if done {
                        model.learn(append.high_watermark);
                    }
                    done
                };
                let bytes = append.batches.len();
                self.follower
                    .on_appended(append.partition, append.generation, bytes, done, self.now);
            }
            Some(Work::Mend(work)) => {
                let done = {
                    let mut models = self.models.borrow_mut();
                    let model = models.get_mut(&work.partition).expect("known");
                    model.mend(&work)
                };
                self.follower.on_mended(work.partition, done, self.now);
            }
            None => {}
        }
    }

    fn refuse(&mut self) {
        match self.work.pop_front() {
            Some(Work::Append(append)) => {
                let bytes = append.batches.len();
                self.follower
                    .on_appended(append.partition, append.generation, bytes, false, self.now);
            }
            Some(Work::Mend(work)) => self.follower.on_mended(work.partition, false, self.now),
            None => {}
        }
    }

    fn assert_invariants(&self) {
        for model in self.models.borrow().values() {
            model.assert_invariants();
        }
        let sent: usize = self.to_follower.iter().map(News::batch_bytes).sum();
        let appending: usize = self
            .work
            .iter()
            .map(|work| match work {
                Work::Append(append) => append.batches.len(),
                Work::Mend(_) => 0,
            })
            .sum();
        // One batch beyond the credit a partition whose read was under way when it ran out.
        let batch = BatchBuilder::default().build_records(&[(None, None)]).len();
        let partitions = self.models.borrow().len();
        assert!(
            sent + appending <= WINDOW as usize + partitions * batch,
            "more on its way than credit allows: {sent} + {appending}"
        );
    }

    /// Everything that can happen without a fault happens until nothing more does.
    fn settle(&mut self) {
        let partitions = self.models.borrow().len();
        for _ in 0..2_000 {
            if self.models.borrow().values().all(Model::is_settled) {
                break;
            }
            for index in 0..partitions {
                self.step(&Step::Flush(index));
            }
            for step in [
                Step::Speak,
                Step::ToLeader,
                Step::Order,
                Step::Read,
                Step::ToFollower,
                Step::Work,
                Step::Pass(50),
            ] {
                self.step(&step);
                self.assert_invariants();
            }
        }
    }
}

fn step(partitions: usize) -> impl Strategy<Value = Step> {
    let index = 0..partitions;
    prop_oneof![
        6 => (index.clone(), 1..6_u8).prop_map(|(index, count)| Step::Produce(index, count)),
        1 => (index.clone(), 0..6_u8).prop_map(|(partition, lost)| Step::Elect { partition, lost }),
        1 => index.clone().prop_map(Step::AdvanceStart),
        6 => index.clone().prop_map(Step::Flush),
        8 => Just(Step::Speak),
        8 => Just(Step::ToLeader),
        8 => Just(Step::ToFollower),
        8 => Just(Step::Order),
        8 => Just(Step::Read),
        8 => Just(Step::Work),
        1 => Just(Step::Refuse),
        1 => Just(Step::Reconnect),
        1 => index.prop_map(Step::Reassign),
        4 => (1..700_u16).prop_map(Step::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn what_is_committed_is_durable_at_the_follower_and_the_logs_meet(
        lane in prop::sample::select(vec![Lane::InSync, Lane::CatchingUp]),
        steps in prop::collection::vec(step(3), 1..400),
    ) {
        let mut world = World::new(3, lane);
        for step in &steps {
            world.step(step);
            world.assert_invariants();
        }
        world.settle();
        for model in world.models.borrow().values() {
            prop_assert_eq!(&model.leader, &model.follower);
            prop_assert_eq!(model.high_watermark, model.leader.len());
            prop_assert_eq!(model.follower_high_watermark, model.high_watermark);
        }
    }
}

#[test]
fn without_faults_no_append_is_refused_and_no_time_is_lost() {
    let mut world = World::new(1, Lane::InSync);
    world.step(&Step::Produce(0, 50));
    for _ in 0..200 {
        for step in [
            Step::Speak,
            Step::ToLeader,
            Step::Order,
            Step::Read,
            Step::ToFollower,
            Step::Work,
            Step::Flush(0),
        ] {
            world.step(&step);
        }
    }
    world.with(0, |model| {
        assert_eq!(model.follower.len(), 50);
        assert_eq!(model.follower_high_watermark, 50);
        assert_eq!(model.appends_refused, 0);
    });
}

/// As where a disk was full for a moment. The same divergence at the same offset is no proof that cutting does not
/// help.
#[test]
fn a_log_that_could_not_be_cut_once_is_cut_later() {
    let mut world = World::new(1, Lane::InSync);
    world.step(&Step::Produce(0, 10));
    let round = [
        Step::Speak,
        Step::ToLeader,
        Step::Order,
        Step::Read,
        Step::ToFollower,
    ];
    let received = |world: &World| world.with(0, |model| model.follower.len()) == 10;
    while !received(&world) {
        round
            .iter()
            .chain([&Step::Work])
            .for_each(|step| world.step(step));
    }
    world.step(&Step::Elect {
        partition: 0,
        lost: 5,
    });
    while !matches!(world.work.front(), Some(Work::Mend(_))) {
        assert!(world.now < Now(60_000), "the logs differ");
        round
            .iter()
            .chain([&Step::Pass(50)])
            .for_each(|step| world.step(step));
    }
    world.step(&Step::Refuse);
    world.settle();
    world.with(0, |model| assert_eq!(model.follower, model.leader));
}

#[test]
fn an_idle_stream_is_kept_alive_and_a_silent_one_is_noticed() {
    let mut world = World::new(1, Lane::InSync);
    world.step(&Step::Speak);
    let first = world.to_leader.pop_front().expect("the first message opens");
    assert_eq!(first.credit, WINDOW);
    assert_eq!(first.fetches.len(), 1);
    assert!(world.follower.message(Now(499), &world.models).is_none());
    assert_eq!(world.follower.next_deadline(true), Some(Now(500)));
    let beat = world
        .follower
        .message(Now(500), &world.models)
        .expect("a heartbeat");
    assert!(beat.heartbeat && beat.fetches.is_empty() && beat.credit == 0);
    assert!(!world.follower.is_silent(Now(2_999)));
    assert!(world.follower.is_silent(Now(3_000)));
}

#[test]
fn the_high_watermark_is_told_without_credit() {
    let mut world = World::new(1, Lane::InSync);
    world.step(&Step::Speak);
    let mut first = world.to_leader.pop_front().expect("the first message opens");
    first.credit = 0;
    world.to_leader.push_back(first);
    world.step(&Step::ToLeader);
    world.step(&Step::Order);
    assert_eq!(world.to_follower.len(), 1, "the first positions");
    world.step(&Step::Produce(0, 1));
    world.step(&Step::Order);
    assert!(
        world.reads.is_empty() && world.to_follower.len() == 1,
        "no credit, no read"
    );
    world.with(0, |model| model.leader_start = 1);
    world.leader.on_progress(partition(0));
    world.step(&Step::Order);
    assert_eq!(world.to_follower.len(), 2, "positions are news");
    world.leader.on_credit(WINDOW);
    world.step(&Step::Order);
    assert_eq!(world.reads.len(), 1, "credit brings the read");
}

#[test]
fn what_was_never_sent_cannot_be_acknowledged() {
    let mut world = World::new(1, Lane::InSync);
    world.step(&Step::Produce(0, 5));
    world.step(&Step::Speak);
    let mut fetch = world.to_leader[0].fetches[0];
    world.step(&Step::ToLeader);
    fetch.fetch.position.log_end = Offset(5);
    fetch.fetch.position.durable = Offset(5);
    fetch.fetch.position.last_epoch = Some(LeaderEpoch::ZERO);
    let answer = world.leader.on_fetch(&fetch, &world.models);
    assert!(answer.is_some_and(|news| {
        news.content == crate::streams::wire::Content::Over(ErrorCode::InvalidRequest)
    }));
    world.with(0, |model| assert_eq!(model.high_watermark, 0));
}
