//! Random lives of a group with members of both protocols, with coordinators that die and take with them
//! what was not committed: no partition has two owners, and in the end everything is shared.

mod clients;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use proptest::prelude::*;

use self::clients::{Client, KINDS, Phase, SUBSCRIPTIONS, name_of};
use crate::coordinator::group::{
    Barrier, CoordinatorRecord, GroupConfig, GroupReply, GroupRequest, ReplyToken,
    records::{Change, ConsumerChange},
    tests::{
        bench::{Bench, text},
        replica::Replica,
    },
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
    /// Somebody deletes the group, which works while it is empty.
    Delete,
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
        1 => Just(Step::Delete),
        1 => (0..8usize).prop_map(Step::Grow),
        1 => Just(Step::Relocate),
        8 => Just(Step::Replicate),
        4 => prop_oneof![1..4_000u64, 1..50_000u64].prop_map(Step::Pass),
        1 => (0..4usize).prop_map(Step::FailOver),
    ]
}

fn change(record: &CoordinatorRecord) -> Change {
    Change::decode(&record.key, record.value.as_deref()).expect("what was written can be read")
}

struct World {
    bench: Bench,
    clients: Vec<Client>,
    partitions: BTreeMap<&'static str, usize>,
    /// How many partitions the topics had, from where in the log on.
    announced: Vec<(usize, BTreeMap<&'static str, usize>)>,
    /// Whether the partitions are not in the racks where they were in the beginning.
    relocated: bool,
    asked: HashMap<ReplyToken, usize>,
    /// How much of the log is committed.
    committed: usize,
    delivered: BTreeSet<ReplyToken>,
    /// What is committed: the group's epoch only grows, whichever protocol it speaks.
    replica: Replica,
    /// The epoch that each member was last told in a life of the group.
    epochs: BTreeMap<(usize, String), i32>,
    /// The last commit that was acknowledged, and where in the log it is at the latest.
    acknowledged: Option<(i64, usize)>,
    next_offset: i64,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            // Empty groups without offsets are deleted again and again.
            bench: Bench::with(GroupConfig {
                offsets_retention_check_interval_ms: 5_000,
                ..GroupConfig::default()
            }),
            clients: vec![Client::default(); CLIENTS],
            partitions: [("t", 4), ("u", 2)].into(),
            announced: Vec::new(),
            relocated: false,
            asked: HashMap::new(),
            committed: 0,
            delivered: BTreeSet::new(),
            replica: Replica::new(),
            epochs: BTreeMap::new(),
            acknowledged: None,
            next_offset: 1,
        };
        world.announce();
        world
    }

    fn announce(&mut self) {
        self.announced
            .push((self.bench.log.len(), self.partitions.clone()));
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

    fn all_places(&self) -> Places {
        let places = self.partitions.iter().flat_map(|(topic, count)| {
            let count = i32::try_from(*count).expect("few");
            (0..count).map(move |partition| (*topic, partition))
        });
        places.collect()
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
            Step::Delete => {
                self.bench.ask(2, GroupRequest::Delete(text("g").into()));
            }
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
        self.check_stable();
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
        self.bench.events.retain(|end| *end <= kept);
        for (from, _) in &mut self.announced {
            *from = kept.min(*from);
        }
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

    fn deliver(&mut self) {
        let events = self.bench.events.iter().copied();
        let committed = events.take_while(|end| *end <= self.committed);
        self.replica.follow(&self.bench.log, committed);
        let ready: Vec<(ReplyToken, GroupReply, usize)> = self
            .bench
            .answers
            .iter()
            .filter(|(token, (answer, upto))| {
                !self.delivered.contains(token) && (answer.after == Barrier::Now || *upto <= self.committed)
            })
            .map(|(token, (answer, upto))| (*token, answer.reply.clone(), *upto))
            .collect();
        for (token, reply, upto) in ready {
            self.delivered.insert(token);
            if let Some(&n) = self.asked.get(&token)
                && self.clients[n].waits_for == Some(token)
            {
                self.clients[n].waits_for = None;
                self.take(n, &reply, self.replica.life("g", upto));
            }
        }
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

    /// The members of a group that is stable have every partition of what they subscribe to, each of them once:
    /// of the topics as they were when its epoch began, for that is when it last looked.
    fn check_stable(&self) {
        let snapshot = self.bench.shard.snapshot();
        let group = snapshot.0.get("g").and_then(|group| group.consumer.as_ref());
        let Some(group) = group.filter(|_| self.bench.state() == "Stable") else {
            return;
        };
        let is_epoch = |record: &CoordinatorRecord| {
            // Not every record is read for that: its key is of version 3.
            record.key.starts_with(&[0, 3])
                && matches!(
                    change(record),
                    Change::Consumer(_, ConsumerChange::Group(Some(_)))
                )
        };
        let began = self
            .bench
            .log
            .iter()
            .rposition(is_epoch)
            .expect("it is in an epoch");
        let known = self.announced.iter().rev().find(|(from, _)| *from <= began);
        let (_, known) = known.expect("announced before everything");
        let (mut expected, mut assigned) = (Places::new(), Places::new());
        for member in group.members.values() {
            let Some(said) = &member.subscription else {
                continue;
            };
            let resolved = said.pattern.as_ref().map(|pattern| &group.patterns[pattern]);
            let matched = resolved.iter().flat_map(|resolved| &resolved.topics);
            let topics: BTreeSet<&str> = said.topics.iter().chain(matched).map(|topic| &**topic).collect();
            let wanted = known.iter().filter(|(topic, _)| topics.contains(*topic));
            expected.extend(wanted.flat_map(|(topic, count)| (0..).take(*count).map(|n| (*topic, n))));
            let current = member.current.iter().flat_map(|current| &current.assigned);
            for (topic, partition) in current.flat_map(|(id, of)| of.iter().map(|n| (name_of(id.0), n.0))) {
                assert!(topics.contains(topic), "nobody asked for {topic}: {group:#?}");
                assert!(
                    assigned.insert((topic, partition)),
                    "{topic} {partition} twice: {group:#?}"
                );
            }
        }
        assert_eq!(assigned, expected, "{group:#?}");
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

    /// The last commit is there, unless the group was deleted after it.
    fn check_commit(&mut self) {
        let Some((offset, upto)) = self.acknowledged else {
            return;
        };
        let mut later = self.bench.log[upto..].iter();
        let is_deleted = later.any(|record| matches!(change(record), Change::Offset(_, None)));
        let expected = if is_deleted { -1 } else { offset };
        assert_eq!(self.bench.committed("t"), expected);
    }
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
