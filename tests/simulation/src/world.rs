//! The world of one run: virtual time, the network, Raft's promises, and what befalls them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use controller::decisions::{ProbeResult, SessionId};
use metadata::ClusterImage;
use protocol::{DirectoryId, LeaderEpoch, TopicPartition};

use crate::broker::Broker;
use crate::context::Context;
use crate::controller::{Active, VOTERS};
use crate::disk::Disk;
use crate::invariants;
use crate::message::{Conn, Entry, Message, Node, Out};
use crate::producers::{self, Producer};
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
    Produce(Node),
    Read,
    Fault,
    Elect,
    Depose(Node, LeaderEpoch),
    Start(Node),
    Resume(Node),
    Unblock(Node, Node),
    /// A replica begins to move to another directory.
    Move,
    /// A directory that had failed is back, or a blank one is in its place.
    Mend(Node, usize, bool),
}

/// The id of a directory in its place among a broker's: one of the first (1), or of those that come in the place of
/// lost ones (2), by a number that no other has.
pub(crate) fn directory_id(generation: u128, at: usize, number: u64) -> DirectoryId {
    let place = at as u128 * 1_000_000_000;
    DirectoryId(uuid::Uuid::from_u128(
        place + generation * 1_000_000 + u128::from(number),
    ))
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
    pub(crate) producers: Vec<Producer>,
    pub(crate) log: Vec<Entry>,
    /// The image at the end of the committed log.
    pub(crate) truth: ClusterImage,
    /// The image after each entry.
    pub(crate) images: Vec<ClusterImage>,
    pub(crate) term: LeaderEpoch,
    queue: BinaryHeap<Reverse<Due>>,
    foreseen: u64,
    /// Both ends of each connection, and when its last message arrives in each direction.
    pub(crate) ends: BTreeMap<Conn, (Node, Node)>,
    pub(crate) arrivals: BTreeMap<(Conn, Node), u64>,
    pub(crate) dead: BTreeSet<Conn>,
    pub(crate) blocked: BTreeSet<(Node, Node)>,
    pub(crate) paused: BTreeMap<Node, Vec<Event>>,
    pub(crate) healing: bool,
    /// A hash of everything that has happened: equal runs have equal traces.
    pub(crate) trace: u64,
}

impl World {
    pub(crate) fn new(settings: Settings) -> Self {
        let mut random = Random::new(settings.seed);
        let plan = Plan::draw(settings.seed, &mut random);
        let context = Context::new(random, plan, settings.mutation);
        let mut world = Self {
            context,
            brokers: Vec::new(),
            actives: Vec::new(),
            producers: Vec::new(),
            log: Vec::new(),
            truth: ClusterImage::default(),
            images: Vec::new(),
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
        };
        for id in 1..=plan.brokers {
            let ids = (0..plan.directories).map(|at| directory_id(1, at, id as u64));
            let disk = Disk::new(ids);
            world.brokers.push(Broker {
                id,
                disk,
                process: None,
                pretends: settings.mutation == Some(Mutation::AcksUnsynced),
                careless: settings.mutation == Some(Mutation::AppendsWhileAsking),
                wiped: false,
                hurt: false,
            });
            world.after(0, Event::Start(id));
        }
        world.after(0, Event::Elect);
        world.after(1_500, Event::Write);
        for producer in 0..plan.producers {
            world.after(1_500, Event::Produce(producers::FIRST + producer));
        }
        world.after(1_500, Event::Read);
        world.after(2_500, Event::Fault);
        if plan.directories > 1 {
            world.after(2_000, Event::Move);
        }
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
            self.context.checker.counts.events += 1;
            self.note(&event);
            self.step(event);
        }
        if self.context.checker.broken.is_none() {
            self.context.now = self.context.now.max(until);
        }
    }

    fn step(&mut self, event: Event) {
        self.happen(event);
        self.carry_out();
        invariants::poll(self);
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
            Event::Produce(node) => self.produce(node),
            Event::Read => self.read(),
            Event::Fault => self.fault(),
            Event::Elect => self.elect(),
            Event::Depose(node, term) => self.depose(node, term),
            Event::Start(node) => self.start(node),
            Event::Resume(node) => {
                // At once, not as events of this moment: others of this moment are foreseen already, and what
                // arrives on one connection now must not come before what arrived earlier.
                for event in self.paused.remove(&node).into_iter().flatten() {
                    self.step(event);
                }
            }
            Event::Mend(node, at, blank) => self.mend(node, at, blank),
            Event::Move => self.begin_move(),
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

    /// A replica of some broker begins to move, and the next one after a while.
    fn begin_move(&mut self) {
        if self.healing {
            return;
        }
        let brokers: Vec<Node> = self.brokers.iter().map(|broker| broker.id).collect();
        let awake = self
            .context
            .random
            .pick(&brokers)
            .filter(|node| !self.paused.contains_key(node));
        if let Some(node) = awake {
            self.with_broker(node, Broker::begin_move);
        }
        let next = self.context.random.between(50, 1_500);
        self.after(next, Event::Move);
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
}
