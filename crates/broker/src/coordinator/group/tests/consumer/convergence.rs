//! Random lives of a group with members of both protocols, with coordinators that die and take with them
//! what was not committed: no partition has two owners, and in the end everything is shared.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use kafka_protocol::messages::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse,
    consumer_group_heartbeat_request::TopicPartitions,
};
use proptest::prelude::*;
use protocol::ErrorCode;

use super::beats;
use crate::coordinator::group::{
    Barrier, GroupReply, GroupRequest, ReplyToken,
    tests::bench::{Bench, commit, error_of, heartbeat, join, leave, sync, text, topic_id},
};

const CLIENTS: usize = 5;
/// A topic and a partition of it.
type Place = (&'static str, i32);
type Places = BTreeSet<Place>;

#[derive(Clone, Debug)]
enum Step {
    /// A client does what comes next for it, and all that it was told before.
    Act(usize),
    /// A client says that it is there, and does nothing about what it was told.
    Idle(usize),
    /// A client says everything anew, as after an error.
    Repeat(usize),
    /// A client's process dies and begins anew.
    Restart(usize),
    Leave(usize),
    /// A client wants other topics.
    Resubscribe(usize, usize),
    Commit(usize),
    /// A topic has so many partitions from now on (never fewer).
    Grow(usize),
    /// Every partition is in another rack from now on.
    Relocate,
    /// Everything appended so far is committed, and answers that waited are delivered.
    Replicate,
    Pass(u64),
    /// The coordinator dies; of what is not committed, the next one finds the first so many batches.
    FailOver(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let client = 0..CLIENTS;
    prop_oneof![
        14 => client.clone().prop_map(Step::Act),
        3 => client.clone().prop_map(Step::Idle),
        1 => client.clone().prop_map(Step::Repeat),
        1 => client.clone().prop_map(Step::Restart),
        2 => client.clone().prop_map(Step::Leave),
        2 => (client.clone(), 0..SUBSCRIPTIONS.len()).prop_map(|(n, to)| Step::Resubscribe(n, to)),
        2 => client.prop_map(Step::Commit),
        1 => (0..8usize).prop_map(Step::Grow),
        1 => Just(Step::Relocate),
        8 => Just(Step::Replicate),
        4 => prop_oneof![1..4_000u64, 1..50_000u64].prop_map(Step::Pass),
        1 => (0..4usize).prop_map(Step::FailOver),
    ]
}

/// What a client may subscribe to.
const SUBSCRIPTIONS: [&[&str]; 3] = [&["t", "u"], &["t"], &["u"]];

/// How a client behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Of the KIP-848 protocol.
    Consumer,
    /// The same with an instance id.
    StaticConsumer,
    /// Of the KIP-848 protocol, subscribing with an expression.
    Pattern,
    /// Of the classic protocol, giving everything up before it joins.
    Classic,
    /// The same with an instance id.
    StaticClassic,
}

const KINDS: [Kind; CLIENTS] = [
    Kind::Consumer,
    Kind::Classic,
    Kind::StaticConsumer,
    Kind::StaticClassic,
    Kind::Pattern,
];

impl Kind {
    fn is_classic(self) -> bool {
        matches!(self, Self::Classic | Self::StaticClassic)
    }

    fn instance(self) -> Option<&'static str> {
        match self {
            Self::StaticConsumer => Some("i"),
            Self::StaticClassic => Some("j"),
            Self::Consumer | Self::Pattern | Self::Classic => None,
        }
    }

    fn rack(self) -> Option<&'static str> {
        match self {
            Self::Consumer => Some("a"),
            Self::StaticConsumer => Some("b"),
            Self::Pattern | Self::Classic | Self::StaticClassic => None,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Out,
    /// Of a classic client: it has a generation, and waits to learn what it owns.
    Joined,
    In,
}

/// A client as it sees itself.
#[derive(Clone, Debug, Default)]
struct Client {
    /// Which life of the process this is.
    life: u32,
    member_id: String,
    epoch: i32,
    phase: Phase,
    /// What it wants, as an index of [`SUBSCRIPTIONS`].
    wants: usize,
    /// Whether the coordinator has been told so.
    said: bool,
    /// Whether an answer was lost: then it says everything, to be told everything.
    repeats: bool,
    /// What it was last told to have.
    told: Places,
    /// What it reads from.
    owns: Places,
    /// Of the leader of a classic generation: whom it is to assign to.
    leads: Option<Vec<String>>,
    waits_for: Option<ReplyToken>,
}

struct World {
    bench: Bench,
    clients: Vec<Client>,
    partitions: BTreeMap<&'static str, usize>,
    /// Whether the partitions are not in the racks where they were in the beginning.
    relocated: bool,
    asked: HashMap<ReplyToken, usize>,
    /// How much of the log is committed.
    committed: usize,
    delivered: BTreeSet<ReplyToken>,
    /// The epoch that each member was last told.
    epochs: BTreeMap<String, i32>,
    acknowledged: i64,
    next_offset: i64,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            bench: Bench::new(),
            clients: vec![Client::default(); CLIENTS],
            partitions: [("t", 4), ("u", 2)].into(),
            relocated: false,
            asked: HashMap::new(),
            committed: 0,
            delivered: BTreeSet::new(),
            epochs: BTreeMap::new(),
            acknowledged: 0,
            next_offset: 1,
        };
        world.announce();
        world
    }

    fn announce(&mut self) {
        let racks: [&[&str]; 2] = if self.relocated {
            [&["b"], &["a"]]
        } else {
            [&["a"], &["b"]]
        };
        let topics = self.partitions.iter().map(|(name, count)| {
            let racks = racks.iter().copied().cycle().take(*count);
            (*name, racks.collect())
        });
        self.bench.set_topics_in_racks(&topics.collect::<Vec<_>>());
    }

    fn ask(&mut self, client: usize, token: ReplyToken) {
        self.asked.insert(token, client);
        self.clients[client].waits_for = Some(token);
    }

    /// A ConsumerGroupHeartbeat; what is left out is as before.
    fn send_beat(&mut self, n: usize, full: bool, reports: bool) {
        let me = &mut self.clients[n];
        if me.member_id.is_empty() {
            me.member_id = format!("m{n}-{}", me.life);
        }
        let full = full || me.repeats;
        me.repeats = false;
        let mut body = beats(&me.member_id, me.epoch).with_instance_id(KINDS[n].instance().map(text));
        if full || !me.said {
            let topics = SUBSCRIPTIONS[me.wants];
            body = if KINDS[n] == Kind::Pattern {
                body.with_subscribed_topic_regex(Some(text(&topics.join("|"))))
            } else {
                body.with_subscribed_topic_names(Some(
                    topics.iter().map(|topic| text(topic).into()).collect(),
                ))
            };
        }
        if full {
            body = body
                .with_rebalance_timeout_ms(30_000)
                .with_rack_id(KINDS[n].rack().map(text));
        }
        if full || reports {
            body = owning(body, &me.owns);
        }
        me.said = true;
        let token = self.bench.send_beat(1, body);
        self.ask(n, token);
    }

    fn send_join(&mut self, n: usize) {
        // An eager consumer gives everything up first.
        self.clients[n].owns.clear();
        self.clients[n].told.clear();
        let me = &self.clients[n];
        let mut body = join(&me.member_id, &["range"])
            .with_group_instance_id(KINDS[n].instance().map(text))
            .with_session_timeout_ms(20_000);
        body.protocols[0].metadata =
            crate::coordinator::group::tests::bench::subscription(SUBSCRIPTIONS[me.wants]);
        let token = self.bench.send_join(9, body);
        self.ask(n, token);
    }

    fn send_sync(&mut self, n: usize) {
        let me = &self.clients[n];
        let mut body =
            sync(&me.member_id, me.epoch, &[]).with_group_instance_id(KINDS[n].instance().map(text));
        if let Some(members) = &me.leads {
            let mut shares: BTreeMap<&String, Places> =
                members.iter().map(|id| (id, Places::new())).collect();
            for (turn, place) in self.all_places().into_iter().enumerate() {
                shares
                    .entry(&members[turn % members.len()])
                    .or_default()
                    .insert(place);
            }
            let assigns: Vec<(&str, &str)> = members.iter().map(|id| (id.as_str(), "")).collect();
            body =
                sync(&me.member_id, me.epoch, &assigns).with_group_instance_id(KINDS[n].instance().map(text));
            for assigned in &mut body.assignments {
                assigned.assignment = encode(&shares[&assigned.member_id.to_string()]);
            }
        }
        let token = self.bench.send(5, GroupRequest::Sync(body));
        self.ask(n, token);
    }

    fn all_places(&self) -> Places {
        let places = self.partitions.iter().flat_map(|(topic, count)| {
            let count = i32::try_from(*count).expect("few");
            (0..count).map(move |partition| (*topic, partition))
        });
        places.collect()
    }

    fn act(&mut self, n: usize) {
        let me = &self.clients[n];
        if me.waits_for.is_some() {
            return;
        }
        if KINDS[n].is_classic() {
            match me.phase {
                Phase::Out => self.send_join(n),
                Phase::In if !me.said => self.send_join(n),
                Phase::Joined => self.send_sync(n),
                Phase::In => {
                    let body = heartbeat(&me.member_id, me.epoch)
                        .with_group_instance_id(KINDS[n].instance().map(text));
                    let token = self.bench.send(4, GroupRequest::Heartbeat(body));
                    self.ask(n, token);
                }
            }
            self.clients[n].said = true;
            return;
        }
        let joins = me.phase == Phase::Out;
        // It gives up what is no longer its own, then takes what is.
        let me = &mut self.clients[n];
        me.owns = me.told.clone();
        self.send_beat(n, joins, true);
    }

    fn run(&mut self, step: &Step) {
        match *step {
            Step::Act(n) => self.act(n),
            Step::Idle(n) | Step::Repeat(n) if KINDS[n].is_classic() => self.act(n),
            Step::Idle(n) => {
                if self.clients[n].phase == Phase::In && self.clients[n].waits_for.is_none() {
                    self.send_beat(n, false, false);
                }
            }
            Step::Repeat(n) => {
                // The answer that it waits for is given up.
                if self.clients[n].phase == Phase::In {
                    self.send_beat(n, true, true);
                }
            }
            Step::Restart(n) => self.restart(n),
            Step::Leave(n) => self.leave(n),
            Step::Resubscribe(n, to) => {
                let me = &mut self.clients[n];
                if me.wants != to {
                    me.wants = to;
                    me.said = false;
                }
            }
            Step::Commit(n) => self.commit(n),
            Step::Grow(by) => {
                let topic = if by % 2 == 0 { "t" } else { "u" };
                let count = self.partitions.get_mut(topic).expect("known");
                *count = (*count).max(by);
                self.announce();
            }
            Step::Relocate => {
                self.relocated = !self.relocated;
                self.announce();
            }
            Step::Replicate => self.committed = self.bench.log.len(),
            Step::Pass(ms) => self.bench.pass(ms),
            Step::FailOver(found) => self.fail_over(found),
        }
        self.deliver();
        self.check_owners();
    }

    fn restart(&mut self, n: usize) {
        let me = &self.clients[n];
        self.clients[n] = Client {
            life: me.life + 1,
            wants: me.wants,
            ..Client::default()
        };
    }

    fn leave(&mut self, n: usize) {
        let me = self.clients[n].clone();
        let instance = KINDS[n].instance();
        if KINDS[n].is_classic() {
            // Static members of the classic protocol do not leave.
            if instance.is_none() && !me.member_id.is_empty() {
                self.bench.ask(5, GroupRequest::Leave(leave(&me.member_id, None)));
            }
        } else if me.phase == Phase::In {
            let epoch = if instance.is_some() { -2 } else { -1 };
            let body = beats(&me.member_id, epoch).with_instance_id(instance.map(text));
            self.bench.beat(body);
        }
        self.restart(n);
    }

    fn commit(&mut self, n: usize) {
        let me = &self.clients[n];
        if me.phase != Phase::In {
            return;
        }
        let offset = self.next_offset;
        self.next_offset += 1;
        let body = commit(&me.member_id, me.epoch, "t", offset)
            .with_group_instance_id(KINDS[n].instance().map(text));
        let token = self.bench.send(9, GroupRequest::CommitOffsets(body));
        let accepted = self.bench.error(token) == Some(ErrorCode::None);
        if accepted {
            // Acknowledged when it is committed; here at once.
            self.committed = self.bench.log.len();
            self.acknowledged = offset;
        }
    }

    fn fail_over(&mut self, found: usize) {
        let later = self.bench.batches.iter().filter(|end| **end > self.committed);
        let kept = later.copied().take(found).last().unwrap_or(self.committed);
        let lost: Vec<ReplyToken> = self
            .bench
            .answers
            .iter()
            .filter(|(token, (answer, upto))| {
                !self.delivered.contains(token)
                    && answer.after == Barrier::Committed
                    && *upto > self.committed
            })
            .map(|(token, _)| *token)
            .collect();
        self.bench.log.truncate(kept);
        self.bench.batches.retain(|end| *end <= kept);
        self.committed = kept;
        self.bench.fail_over();
        assert_eq!(self.bench.open(), 0, "every request is answered");
        for token in lost {
            self.delivered.insert(token);
            if let Some(&n) = self.asked.get(&token) {
                self.lose_answer(n, token);
            }
        }
    }

    /// A client hears nothing: it tries again, and says everything.
    fn lose_answer(&mut self, n: usize, token: ReplyToken) {
        let me = &mut self.clients[n];
        if me.waits_for == Some(token) {
            me.waits_for = None;
            me.repeats = true;
            if KINDS[n].is_classic() {
                me.phase = Phase::Out;
                me.owns.clear();
            }
        }
    }

    fn deliver(&mut self) {
        let ready: Vec<(ReplyToken, GroupReply)> = self
            .bench
            .answers
            .iter()
            .filter(|(token, (answer, upto))| {
                !self.delivered.contains(token) && (answer.after == Barrier::Now || *upto <= self.committed)
            })
            .map(|(token, (answer, _))| (*token, answer.reply.clone()))
            .collect();
        for (token, reply) in ready {
            self.delivered.insert(token);
            if let Some(&n) = self.asked.get(&token)
                && self.clients[n].waits_for == Some(token)
            {
                self.clients[n].waits_for = None;
                self.take(n, &reply);
            }
        }
    }

    fn take(&mut self, n: usize, reply: &GroupReply) {
        let error = error_of(reply);
        match (reply, error) {
            (GroupReply::ConsumerHeartbeat(reply), ErrorCode::None) => self.take_beat(n, reply),
            (GroupReply::Join(reply), ErrorCode::None) => {
                let me = &mut self.clients[n];
                me.member_id = reply.member_id.to_string();
                me.epoch = reply.generation_id;
                me.phase = Phase::Joined;
                me.leads = (reply.leader == reply.member_id && !reply.skip_assignment).then(|| {
                    reply
                        .members
                        .iter()
                        .map(|member| member.member_id.to_string())
                        .collect()
                });
            }
            (GroupReply::Join(reply), ErrorCode::MemberIdRequired) => {
                self.clients[n].member_id = reply.member_id.to_string();
            }
            (GroupReply::Sync(reply), ErrorCode::None) => {
                let share = decode(&reply.assignment);
                let me = &mut self.clients[n];
                me.phase = Phase::In;
                me.told.clone_from(&share);
                me.owns = share;
            }
            (GroupReply::Heartbeat(_), ErrorCode::None) => {}
            (_, ErrorCode::UnknownMemberId | ErrorCode::FencedInstanceId | ErrorCode::FencedMemberEpoch) => {
                self.abandon(n);
                if KINDS[n].is_classic() {
                    self.clients[n].member_id.clear();
                }
            }
            // To find its group again, or to wait for its own former self.
            (
                GroupReply::ConsumerHeartbeat(_),
                ErrorCode::GroupIdNotFound | ErrorCode::UnreleasedInstanceId,
            ) => self.abandon(n),
            (GroupReply::ConsumerHeartbeat(_), ErrorCode::NotCoordinator) => {
                self.clients[n].repeats = true;
            }
            (_, ErrorCode::InvalidRequest | ErrorCode::InconsistentGroupProtocol) => {
                panic!("{reply:?} to {:?}", self.clients[n]);
            }
            _ => {
                let me = &mut self.clients[n];
                me.phase = Phase::Out;
                me.owns.clear();
            }
        }
    }

    fn take_beat(&mut self, n: usize, reply: &ConsumerGroupHeartbeatResponse) {
        let me = &mut self.clients[n];
        let last = self.epochs.entry(me.member_id.clone()).or_default();
        assert!(
            reply.member_epoch >= *last,
            "epoch {} after {last}",
            reply.member_epoch
        );
        *last = reply.member_epoch;
        me.epoch = reply.member_epoch;
        me.phase = Phase::In;
        if let Some(assignment) = &reply.assignment {
            me.told = assignment
                .topic_partitions
                .iter()
                .flat_map(|topic| {
                    let name = name_of(topic.topic_id);
                    topic.partitions.iter().map(move |partition| (name, *partition))
                })
                .collect();
        }
    }

    /// A client stops reading, and begins anew.
    fn abandon(&mut self, n: usize) {
        let me = &mut self.clients[n];
        self.epochs.remove(&me.member_id);
        me.epoch = 0;
        me.phase = Phase::Out;
        me.said = false;
        me.owns.clear();
        me.told.clear();
    }

    /// Who reads from a partition is the only one that does, of those whom the coordinator has not given up.
    fn check_owners(&self) {
        let members = self.members();
        let mut owners: BTreeMap<Place, usize> = BTreeMap::new();
        for (n, me) in self.clients.iter().enumerate() {
            if !members.contains(&me.member_id) {
                continue;
            }
            for place in &me.owns {
                if let Some(other) = owners.insert(*place, n) {
                    panic!("{place:?} is read by\n{:?} and\n{me:?}", self.clients[other]);
                }
            }
        }
    }

    /// The members of the group, by its records.
    fn members(&self) -> BTreeSet<String> {
        let snapshot = self.bench.shard.snapshot();
        let Some(group) = snapshot.0.values().next() else {
            return BTreeSet::new();
        };
        let classic = group.group.iter().flat_map(|group| &group.members);
        let classic = classic.map(|member| member.member_id.to_string());
        let consumer = group.consumer.iter().flat_map(|group| &group.members);
        let consumer = consumer.filter(|(_, records)| records.subscription.is_some());
        classic.chain(consumer.map(|(id, _)| id.to_string())).collect()
    }

    /// Left alone, everyone who subscribes gets a share, and everything is shared.
    fn settle(&mut self) {
        self.bench.replays_every_outcome = false;
        for n in 0..CLIENTS {
            self.run(&Step::Resubscribe(n, 0));
        }
        for _ in 0..200 {
            for n in 0..CLIENTS {
                self.act(n);
                self.committed = self.bench.log.len();
                self.deliver();
                self.check_owners();
            }
            if self.is_settled() {
                return;
            }
            self.bench.pass(1_000);
            self.committed = self.bench.log.len();
            self.deliver();
        }
        panic!("{} {:#?}", self.bench.state(), self.clients);
    }

    fn is_settled(&self) -> bool {
        let mut shared: Vec<Place> = self.clients.iter().flat_map(|me| me.owns.clone()).collect();
        shared.sort_unstable();
        let everyone_is_in = self.clients.iter().all(|me| me.phase == Phase::In);
        let all: Vec<Place> = self.all_places().into_iter().collect();
        everyone_is_in && self.bench.state() == "Stable" && shared == all
    }

    fn check_commit(&mut self) {
        if self.acknowledged > 0 {
            assert_eq!(self.bench.committed("t"), self.acknowledged);
        }
    }
}

fn owning(body: ConsumerGroupHeartbeatRequest, owned: &Places) -> ConsumerGroupHeartbeatRequest {
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for (topic, partition) in owned {
        topics.entry(topic).or_default().push(*partition);
    }
    let topics = topics.into_iter().map(|(topic, partitions)| {
        TopicPartitions::default()
            .with_topic_id(topic_id(topic).0)
            .with_partitions(partitions)
    });
    body.with_topic_partitions(Some(topics.collect()))
}

fn name_of(id: uuid::Uuid) -> &'static str {
    let known = ["t", "u"].into_iter().find(|name| topic_id(name).0 == id);
    known.expect("a topic that there is")
}

/// An assignment in the embedded protocol.
fn encode(places: &Places) -> bytes::Bytes {
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for (topic, partition) in places {
        topics.entry(topic).or_default().push(*partition);
    }
    let count = |len: usize| i32::try_from(len).expect("few").to_be_bytes();
    let mut bytes = vec![0, 0];
    bytes.extend(count(topics.len()));
    for (topic, partitions) in topics {
        bytes.extend([0, 1]);
        bytes.extend(topic.as_bytes());
        bytes.extend(count(partitions.len()));
        for partition in partitions {
            bytes.extend(partition.to_be_bytes());
        }
    }
    bytes.extend([0xff; 4]);
    bytes.into()
}

fn decode(bytes: &[u8]) -> Places {
    let named = crate::coordinator::group::embedded::read_assignment(bytes).expect("an assignment");
    let places = named.partitions.iter().flat_map(|(topic, partitions)| {
        let topic = if &**topic == "t" { "t" } else { "u" };
        partitions.iter().map(move |partition| (topic, partition.0))
    });
    places.collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, max_shrink_iters: 5_000, ..ProptestConfig::default() })]

    #[test]
    fn no_partition_has_two_owners_and_in_the_end_all_have_one(
        steps in prop::collection::vec(step(), 1..160)
    ) {
        let mut world = World::new();
        for step in &steps {
            world.run(step);
        }
        world.settle();
        world.check_commit();
        world.fail_over(usize::MAX);
        world.settle();
    }
}
