//! The world of one run: virtual time, the network, Raft's promises, and what befalls them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use controller::decisions::{self, ProbeResult, SessionId};
use metadata::{ClusterImage, records};
use protocol::grpc::v1::{CreateTopicsRequest, DeleteTopicsRequest, NewTopic, TopicRef};
use protocol::{ClaimId, DirectoryId, IncarnationId, LeaderEpoch, Offset, TopicId, TopicPartition};

use crate::broker::Broker;
use crate::context::Context;
use crate::controller::{Active, VOTERS, Waiting};
use crate::disk::Disk;
use crate::invariants;
use crate::message::{Conn, Entry, Message, Node, Out};
use crate::random::Random;
use crate::settings::{Mutation, Plan, Settings};

/// What happens at one moment.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Deliver(Conn, Node, Node, u64, Message),
    Tick(Node, u64),
    Flushed(Node, u64, TopicPartition, u64, usize),
    GiveUp(Node, u64, Conn),
    Commit(Node, LeaderEpoch),
    Probed(Node, LeaderEpoch, SessionId, Node, ProbeResult),
    Write,
    Read,
    Fault,
    Elect,
    Depose(Node, LeaderEpoch),
    Start(Node),
    Resume(Node),
    Unblock(Node, Node),
}

/// By time, then by the order in which it was foreseen.
struct Due(u64, u64, Event);

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

pub(crate) struct World {
    pub(crate) context: Context,
    pub(crate) brokers: Vec<Broker>,
    pub(crate) actives: Vec<Active>,
    log: Vec<Entry>,
    /// The image at the end of the committed log.
    pub(crate) truth: ClusterImage,
    term: LeaderEpoch,
    queue: BinaryHeap<Reverse<Due>>,
    foreseen: u64,
    /// Both ends of each connection, and when its last message arrives in each direction.
    ends: BTreeMap<Conn, (Node, Node)>,
    arrivals: BTreeMap<(Conn, Node), u64>,
    dead: BTreeSet<Conn>,
    pub(crate) blocked: BTreeSet<(Node, Node)>,
    pub(crate) paused: BTreeMap<Node, Vec<Event>>,
    pub(crate) healing: bool,
    /// A hash of everything that has happened: equal runs have equal traces.
    pub(crate) trace: u64,
    pub(crate) steps: u64,
    pub(crate) faults: u64,
}

impl World {
    pub(crate) fn new(settings: Settings) -> Self {
        let mut random = Random::new(settings.seed);
        let plan = Plan::draw(&mut random);
        let context = Context::new(random, plan, settings.mutation);
        let mut world = Self {
            context,
            brokers: Vec::new(),
            actives: Vec::new(),
            log: Vec::new(),
            truth: ClusterImage::default(),
            term: LeaderEpoch(0),
            queue: BinaryHeap::new(),
            foreseen: 0,
            ends: BTreeMap::new(),
            arrivals: BTreeMap::new(),
            dead: BTreeSet::new(),
            blocked: BTreeSet::new(),
            paused: BTreeMap::new(),
            healing: false,
            trace: 0,
            steps: 0,
            faults: 0,
        };
        for id in 1..=plan.brokers {
            let disk = Disk {
                directory: DirectoryId(uuid::Uuid::from_u128(1_000_000 + id as u128)),
                logs: BTreeMap::new(),
            };
            world.brokers.push(Broker {
                id,
                disk,
                process: None,
                pretends: settings.mutation == Some(Mutation::AcksUnsynced),
                wiped: false,
            });
            world.after(0, Event::Start(id));
        }
        world.after(0, Event::Elect);
        world.after(1_500, Event::Write);
        world.after(1_500, Event::Read);
        world.after(2_500, Event::Fault);
        world
    }

    pub(crate) fn after(&mut self, delay: u64, event: Event) {
        self.foreseen += 1;
        let due = Due(self.context.now + delay, self.foreseen, event);
        self.queue.push(Reverse(due));
    }

    /// Goes on to `until`, or until an invariant breaks.
    pub(crate) fn run_until(&mut self, until: u64) {
        while self.context.checker.broken.is_none()
            && self.queue.peek().is_some_and(|Reverse(due)| due.0 <= until)
        {
            let Some(Reverse(Due(at, _, event))) = self.queue.pop() else {
                return;
            };
            self.context.now = at;
            self.steps += 1;
            self.note(&event);
            self.happen(event);
            self.carry_out();
            invariants::poll(&mut self.brokers, &self.truth, &mut self.context.checker);
        }
        if self.context.checker.broken.is_none() {
            self.context.now = self.context.now.max(until);
        }
    }

    fn note(&mut self, event: &Event) {
        // FNV-1a over the event as it prints: stable between runs and machines.
        let text = format!("{} {event:?}", self.context.now);
        for byte in text.bytes() {
            self.trace = (self.trace ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    pub(crate) fn broker(&mut self, id: Node) -> Option<&mut Broker> {
        self.brokers.iter_mut().find(|broker| broker.id == id)
    }

    pub(crate) fn run_of(&self, id: Node) -> u64 {
        let broker = self.brokers.iter().find(|broker| broker.id == id);
        broker
            .and_then(|broker| broker.process.as_ref())
            .map_or(0, |process| process.run)
    }

    fn at(event: &Event) -> Option<Node> {
        match event {
            Event::Deliver(_, _, to, ..) => Some(*to),
            Event::Tick(node, _)
            | Event::Flushed(node, ..)
            | Event::GiveUp(node, ..)
            | Event::Commit(node, _)
            | Event::Depose(node, _)
            | Event::Probed(node, ..) => Some(*node),
            _ => None,
        }
    }

    fn happen(&mut self, event: Event) {
        if let Some(waiting) = Self::at(&event).and_then(|node| self.paused.get_mut(&node)) {
            waiting.push(event);
            return;
        }
        match event {
            Event::Deliver(conn, from, to, run, message) => self.deliver(conn, from, to, run, message),
            Event::Tick(node, run) => self.tick(node, run),
            Event::Flushed(node, run, tp, generation, end) => {
                if self.run_of(node) == run {
                    self.with_broker(node, |broker, context| {
                        broker.flushed(tp, generation, end, context);
                    });
                }
            }
            Event::GiveUp(node, run, conn) => {
                if self.run_of(node) == run {
                    self.with_broker(node, |broker, context| {
                        broker.hear(conn, &Message::Reset, context);
                    });
                }
            }
            Event::Commit(node, term) => self.commit(node, term),
            Event::Probed(node, term, session, broker, found) => {
                if let Some(active) = self.actives.iter_mut().find(|a| a.node == node && a.term == term) {
                    active.probed(broker, session, found, &mut self.context);
                }
            }
            Event::Write => self.write(),
            Event::Read => self.read(),
            Event::Fault => self.fault(),
            Event::Elect => self.elect(),
            Event::Depose(node, term) => self.depose(node, term),
            Event::Start(node) => self.start(node),
            Event::Resume(node) => {
                for event in self.paused.remove(&node).into_iter().flatten() {
                    self.after(0, event);
                }
            }
            Event::Unblock(a, b) => {
                self.blocked.remove(&(a, b));
            }
        }
    }

    pub(crate) fn with_broker(&mut self, id: Node, act: impl FnOnce(&mut Broker, &mut Context)) {
        if let Some(broker) = self.brokers.iter_mut().find(|broker| broker.id == id) {
            act(broker, &mut self.context);
        }
    }

    fn deliver(&mut self, conn: Conn, from: Node, to: Node, run: u64, message: Message) {
        if VOTERS.contains(&to) {
            match self.actives.iter_mut().rev().find(|active| active.node == to) {
                Some(active) => active.hear(from, conn, message, &mut self.context),
                None => self.refuse(conn, to, from, &message),
            }
        } else if run == 0 || self.run_of(to) == run {
            self.with_broker(to, |broker, context| {
                if !broker.hear(conn, &message, context) {
                    broker.hear_stream(from, conn, message, context);
                }
            });
        }
    }

    /// A controller that is not active says so.
    fn refuse(&mut self, conn: Conn, me: Node, to: Node, message: &Message) {
        let answer = match message {
            Message::Register(_) => Message::Ended(crate::message::Ended::NotActive),
            Message::Alter(_) => Message::Altered(Err(protocol::ErrorCode::NotController)),
            _ => return,
        };
        self.context.send(me, conn, to, answer);
    }

    fn tick(&mut self, node: Node, run: u64) {
        if VOTERS.contains(&node) {
            if let Some(active) = self
                .actives
                .iter_mut()
                .find(|a| a.node == node && a.term.get() as u64 == run)
            {
                active.tick(&mut self.context);
                self.after(100, Event::Tick(node, run));
            }
        } else if self.run_of(node) == run {
            self.with_broker(node, Broker::tick);
            self.after(100, Event::Tick(node, run));
        }
    }

    fn start(&mut self, node: Node) {
        let Some(broker) = self.broker(node).filter(|broker| broker.process.is_none()) else {
            return;
        };
        let id = broker.id;
        self.with_broker(id, Broker::start);
        let run = self.run_of(node);
        self.after(0, Event::Tick(node, run));
    }

    /// Carries out what nodes asked for while the last event was handled.
    fn carry_out(&mut self) {
        while !self.context.out.is_empty() {
            for (from, out) in std::mem::take(&mut self.context.out) {
                match out {
                    Out::Send(conn, to, message) => self.send(conn, from, to, message),
                    Out::Close(conn) => self.close(conn),
                    Out::Flush(tp, generation, end) => {
                        let delay = self.context.random.between(0, self.context.plan.flush);
                        let run = self.run_of(from);
                        self.after(delay, Event::Flushed(from, run, tp, generation, end));
                    }
                    Out::GiveUp(conn) => {
                        let run = self.run_of(from);
                        self.after(2_000, Event::GiveUp(from, run, conn));
                    }
                    Out::Propose => {
                        let term = self.actives.iter().rev().find(|a| a.node == from).map(|a| a.term);
                        let delay = self.context.random.between(1, 10 + self.context.plan.delay);
                        if let Some(term) = term {
                            self.after(delay, Event::Commit(from, term));
                        }
                    }
                    Out::Probe(session, broker, incarnation) => {
                        self.probe(from, session, broker, incarnation);
                    }
                }
            }
        }
    }

    fn probe(&mut self, from: Node, session: SessionId, broker: Node, incarnation: IncarnationId) {
        let process = self
            .brokers
            .iter()
            .find(|b| b.id == broker)
            .and_then(|b| b.process.as_ref());
        let cut = self.blocked.contains(&(from, broker)) || self.blocked.contains(&(broker, from));
        let found = match process {
            _ if cut || self.paused.contains_key(&broker) => ProbeResult::Silent,
            None => ProbeResult::Refused,
            Some(process) if process.incarnation == incarnation => ProbeResult::Alive,
            Some(_) => ProbeResult::OtherIncarnation,
        };
        let term = self
            .actives
            .iter()
            .rev()
            .find(|a| a.node == from)
            .map_or(LeaderEpoch(0), |a| a.term);
        let delay = self.context.random.between(1, 20);
        self.after(delay, Event::Probed(from, term, session, broker, found));
    }

    fn send(&mut self, conn: Conn, from: Node, to: Node, message: Message) {
        if self.dead.contains(&conn) {
            return;
        }
        self.ends.insert(conn, (from, to));
        if self.blocked.contains(&(from, to)) {
            return self.break_off(conn, 3_000);
        }
        let mut delay = self.context.random.between(0, self.context.plan.delay);
        if !self.healing && self.context.random.chance(1) {
            delay += self.context.random.between(0, 1_000);
        }
        let at = (self.context.now + delay).max(self.arrivals.get(&(conn, to)).copied().unwrap_or(0));
        self.arrivals.insert((conn, to), at);
        let run = self.run_of(to);
        self.after(
            at - self.context.now,
            Event::Deliver(conn, from, to, run, message),
        );
    }

    fn close(&mut self, conn: Conn) {
        self.break_off(conn, 50);
    }

    /// Nothing is sent on the connection any more; both ends find out by and by.
    pub(crate) fn break_off(&mut self, conn: Conn, within: u64) {
        let Some(&(a, b)) = self.ends.get(&conn) else {
            return;
        };
        if !self.dead.insert(conn) {
            return;
        }
        for (from, to) in [(a, b), (b, a)] {
            let delay = self.context.random.between(1, within);
            let at = (self.context.now + delay).max(self.arrivals.get(&(conn, to)).copied().unwrap_or(0));
            let run = self.run_of(to);
            self.after(
                at - self.context.now,
                Event::Deliver(conn, from, to, run, Message::Reset),
            );
        }
    }

    /// All connections that this node has.
    pub(crate) fn connections_of(&self, node: Node) -> Vec<Conn> {
        let ends = self.ends.iter();
        ends.filter(|(conn, (a, b))| !self.dead.contains(conn) && (*a == node || *b == node))
            .map(|(conn, _)| *conn)
            .collect()
    }

    fn append(&mut self, term: LeaderEpoch, entry: protocol::grpc::v1::MetadataEntry) {
        let offset = Offset(self.log.len() as i64);
        self.truth = self
            .truth
            .apply(offset, term, Some(&entry))
            .expect("what was decided fits");
        self.log.push(Entry {
            offset,
            term,
            body: entry,
        });
    }

    fn commit(&mut self, node: Node, term: LeaderEpoch) {
        if term != self.term {
            return;
        }
        let Some(at) = self.actives.iter().position(|a| a.node == node && a.term == term) else {
            return;
        };
        let others = VOTERS.iter().filter(|&&other| other != node);
        let reached = others
            .filter(|&&other| !self.blocked.contains(&(node, other)))
            .count();
        if reached == 0 {
            return self.after(50, Event::Commit(node, term));
        }
        let Some((entry, waiting)) = self.actives[at].in_flight.pop_front() else {
            return;
        };
        if let Some(entry) = entry {
            self.append(term, entry);
        }
        let active = &mut self.actives[at];
        active.committed = self.truth.clone();
        active.settle(waiting, &self.log, &mut self.context);
    }

    /// A new leader of the quorum: the deposed one's tail is kept to some point, or lost; the deposed one
    /// finds out later.
    pub(crate) fn elect(&mut self) {
        let able: Vec<Node> = VOTERS
            .iter()
            .copied()
            .filter(|node| self.is_able(*node))
            .collect();
        let Some(node) = self.context.random.pick(&able) else {
            return self.after(200, Event::Elect);
        };
        let old_term = self.term;
        let mut left_over = None;
        if let Some(old) = self.actives.iter().position(|a| a.term == old_term) {
            let tail: Vec<_> = self.actives[old]
                .in_flight
                .iter()
                .filter_map(|(e, _)| e.clone())
                .collect();
            let kept = self.context.random.between(0, tail.len() as u64) as usize;
            for entry in tail.iter().take(kept) {
                self.append(old_term, entry.clone());
            }
            left_over = tail.get(kept).cloned();
            let delay = self.context.random.between(1, 1_500);
            let old = self.actives[old].node;
            self.after(delay, Event::Depose(old, old_term));
        }
        self.term = self.term.next();
        let claim = ClaimId(uuid::Uuid::from_u128(u128::from(self.context.fresh())));
        self.append(self.term, records::claim_entry(claim));
        if let Some(entry) = left_over.filter(|_| self.context.random.chance(20)) {
            // More than Raft would do: an entry of an earlier claim behind a later one has no effect.
            self.append(self.term, entry);
        }
        let active = Active::new(node, self.term, claim, &self.truth, self.context.now);
        self.actives.push(active);
        let run = self.term.get() as u64;
        self.after(0, Event::Tick(node, run));
    }

    fn is_able(&self, node: Node) -> bool {
        let cut = VOTERS
            .iter()
            .filter(|&&other| self.blocked.contains(&(node, other)))
            .count();
        !self.paused.contains_key(&node) && cut < 2
    }

    fn depose(&mut self, node: Node, term: LeaderEpoch) {
        if !self.is_able(node) {
            return self.after(300, Event::Depose(node, term));
        }
        if let Some(at) = self.actives.iter().position(|a| a.node == node && a.term == term) {
            self.actives.remove(at).depose(&mut self.context);
        }
    }

    pub(crate) fn partitions(&self) -> Vec<TopicPartition> {
        let topics = self.truth.topics.iter();
        topics
            .flat_map(|(&id, topic)| {
                topic
                    .partitions
                    .keys()
                    .map(move |&index| TopicPartition::new(id, index))
            })
            .collect()
    }

    fn someone(&mut self) -> Option<(Node, TopicPartition)> {
        let nodes: Vec<Node> = self.brokers.iter().map(|b| b.id).collect();
        let node = self
            .context
            .random
            .pick(&nodes)
            .filter(|node| !self.paused.contains_key(node))?;
        let partitions = self.partitions();
        Some((node, self.context.random.pick(&partitions)?))
    }

    /// A client writes at a broker that may believe to lead.
    fn write(&mut self) {
        self.create_missing();
        if let Some((_, tp)) = self.someone() {
            for node in 1..=self.context.plan.brokers {
                if !self.paused.contains_key(&node) {
                    let value = self.context.fresh() as i64;
                    self.with_broker(node, |broker, context| {
                        broker.produce(tp, value, context);
                    });
                }
            }
        }
        if !self.healing {
            let delay = self.context.random.between(1, self.context.plan.write_every);
            self.after(delay, Event::Write);
        }
    }

    /// Creates what is not there, once brokers are live and nothing is in flight.
    fn create_missing(&mut self) {
        let live = self.truth.live_brokers().count() as i32 == self.context.plan.brokers
            && !self.brokers.iter().any(|broker| broker.wiped);
        let term = self.term;
        let Some(active) = self.actives.iter_mut().find(|active| active.term == term) else {
            return;
        };
        for number in 0..self.context.plan.topics {
            let there = self.truth.topic(&format!("topic{number}")).is_some();
            if live && !there && active.in_flight.is_empty() {
                create(active, number, &mut self.context);
            }
        }
    }

    fn read(&mut self) {
        if let Some((node, tp)) = self.someone() {
            let committed = self.context.checker.history(tp).committed.len() as u64;
            let from = self
                .context
                .random
                .between(committed.saturating_sub(20), committed) as usize;
            if let Some(broker) = self.brokers.iter().find(|broker| broker.id == node) {
                invariants::read(broker, tp, from, &mut self.context);
            }
        }
        self.after(97, Event::Read);
    }

    /// A topic is deleted and created again under its name.
    pub(crate) fn recreate(&mut self, number: u64) {
        let term = self.term;
        let Some(active) = self.actives.iter_mut().find(|active| active.term == term) else {
            return;
        };
        let topics = vec![TopicRef {
            name: format!("topic{number}"),
            ..TopicRef::default()
        }];
        let request = DeleteTopicsRequest {
            topics,
            timeout_ms: 0,
        };
        let context = &mut self.context;
        active.decide(
            context,
            |view| decisions::delete_topics(view, &request),
            |_| Waiting::Nobody,
        );
        create(active, number, context);
    }
}

fn create(active: &mut Active, number: u64, context: &mut Context) {
    let id = TopicId(uuid::Uuid::from_u128(u128::from(context.fresh()) + (1 << 64)));
    let brokers = 3.min(context.plan.brokers);
    let topic = NewTopic {
        name: format!("topic{number}"),
        partitions: -1,
        replication_factor: -1,
        assignments: vec![protocol::grpc::v1::ReplicaAssignment {
            partition: 0,
            brokers: (1..=brokers)
                .map(|n| (n as u64 + number) as i32 % context.plan.brokers + 1)
                .collect(),
        }],
        configs: Vec::new(),
    };
    let request = CreateTopicsRequest {
        topics: vec![topic],
        ..CreateTopicsRequest::default()
    };
    let mut fresh = || id;
    active.decide(
        context,
        |view| decisions::create_topics(view, &request, 0, &mut fresh),
        |_| Waiting::Nobody,
    );
}
