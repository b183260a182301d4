//! Random lives of two groups, with coordinators that die and take with them what was not
//! committed: what clients were told stays true.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use proptest::prelude::*;
use protocol::ErrorCode;

use super::{
    bench::{Bench, commit, error_of, heartbeat, join, leave, sync, text},
    replica::Replica,
};
use crate::coordinator::group::{
    Barrier, GroupConfig, GroupId, GroupReply, GroupRequest, ReplyToken, records::Change,
};

/// What the leader shares out: one letter is one partition.
const PARTITIONS: &str = "abcdefg";
const GROUPS: [&str; 2] = ["g", "h"];
const CLIENTS: usize = 6;

#[derive(Clone, Debug)]
enum Step {
    /// A client does what comes next for it.
    Act(usize),
    /// A client joins, whatever it is doing; with another protocol first.
    JoinAnyway(usize, bool),
    /// A client syncs in a generation that may be another one.
    SyncAnyway(usize, i32),
    /// A client's process dies and begins anew.
    Restart(usize),
    Leave(usize),
    Commit(usize),
    /// Someone commits without being a member.
    CommitAlone(usize),
    DeleteGroup(usize),
    /// Everything appended so far is committed, and answers that waited are delivered.
    Replicate,
    Pass(u64),
    /// The coordinator dies; of what is not committed, the next one finds the first so many.
    FailOver(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let client = 0..CLIENTS;
    prop_oneof![
        12 => client.clone().prop_map(Step::Act),
        2 => (client.clone(), any::<bool>()).prop_map(|(n, new)| Step::JoinAnyway(n, new)),
        1 => (client.clone(), -1..2i32).prop_map(|(n, by)| Step::SyncAnyway(n, by)),
        1 => client.clone().prop_map(Step::Restart),
        1 => client.clone().prop_map(Step::Leave),
        2 => client.clone().prop_map(Step::Commit),
        1 => client.prop_map(Step::CommitAlone),
        1 => (0..GROUPS.len()).prop_map(Step::DeleteGroup),
        6 => Just(Step::Replicate),
        5 => prop_oneof![1..4_000u64, 1..40_000u64].prop_map(Step::Pass),
        1 => (0..4usize).prop_map(Step::FailOver),
    ]
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Out,
    Joined,
    Synced,
}

/// A client as it sees itself.
#[derive(Clone, Debug, Default)]
struct Client {
    member_id: String,
    generation: i32,
    phase: Phase,
    /// Whom it is to assign to, if it leads.
    leads: Option<Vec<String>>,
    /// Of a leader: it may go on with what was assigned before.
    skips: bool,
    owns: String,
    waits_for: Option<ReplyToken>,
}

/// What a request was, for when its answer comes.
#[derive(Clone, Copy, Debug)]
struct Asked {
    client: usize,
    generation: i32,
    commits: Option<i64>,
}

struct World {
    bench: Bench,
    clients: Vec<Client>,
    asked: HashMap<ReplyToken, Asked>,
    /// How much of the log is committed.
    committed: usize,
    delivered: BTreeSet<ReplyToken>,
    /// What is committed: only groups without members are forgotten, and generations only grow until then.
    replica: Replica,
    /// Who owns which partition in which generation of which life of a group: what clients were
    /// told, for good.
    owners: BTreeMap<(&'static str, usize, i32, char), String>,
    /// The generation of the last assignment that someone was told.
    generations: BTreeMap<(&'static str, usize), i32>,
    /// Generations whose leader did not know whom to assign to.
    unled: BTreeSet<(&'static str, i32)>,
    /// The last commit that was acknowledged, of each group, and where in the log it is at the latest.
    acknowledged: BTreeMap<&'static str, (i64, usize)>,
    next_offset: i64,
}

fn group_of(client: usize) -> &'static str {
    GROUPS[usize::from(client >= 4)]
}

/// Clients 1 and 4 are static members.
fn instance_of(client: usize) -> Option<String> {
    matches!(client, 1 | 4).then(|| format!("instance-{client}"))
}

impl World {
    fn new() -> Self {
        // So short that groups and offsets expire again and again.
        let config = GroupConfig {
            offsets_retention_ms: 30_000,
            offsets_retention_check_interval_ms: 5_000,
            ..GroupConfig::default()
        };
        Self {
            bench: Bench::with(config),
            clients: vec![Client::default(); CLIENTS],
            asked: HashMap::new(),
            committed: 0,
            delivered: BTreeSet::new(),
            replica: Replica::new(),
            owners: BTreeMap::new(),
            generations: BTreeMap::new(),
            unled: BTreeSet::new(),
            acknowledged: BTreeMap::new(),
            next_offset: 1,
        }
    }

    fn ask(&mut self, client: usize, token: ReplyToken, commits: Option<i64>) {
        let generation = self.clients[client].generation;
        let asked = Asked {
            client,
            generation,
            commits,
        };
        self.asked.insert(token, asked);
        if commits.is_none() {
            self.clients[client].waits_for = Some(token);
        }
    }

    fn send_join(&mut self, client: usize, protocols: &[&str]) {
        self.clients[client].leads = None;
        let body = join(&self.clients[client].member_id, protocols)
            .with_group_id(text(group_of(client)).into())
            .with_group_instance_id(instance_of(client).map(|id| text(&id)));
        // Old clients are among them, which are not told their id first.
        let version = [9, 9, 3, 8, 5, 4][client];
        let token = self.bench.send_join(version, body);
        self.ask(client, token, None);
    }

    fn send_sync(&mut self, client: usize, generation: i32) {
        let me = &self.clients[client];
        let leads = me.leads.as_ref().filter(|_| !me.skips);
        let knows = leads.is_some() && me.generation == generation && me.waits_for.is_none();
        let shares = leads.map(|members| {
            let mut shares: Vec<(String, String)> =
                members.iter().map(|id| (id.clone(), String::new())).collect();
            for (n, partition) in PARTITIONS.chars().enumerate() {
                let at = n % shares.len();
                shares[at].1.push(partition);
            }
            shares
        });
        let shares = shares.unwrap_or_default();
        let assigns: Vec<(&str, &str)> = shares
            .iter()
            .map(|(id, share)| (id.as_str(), share.as_str()))
            .collect();
        let body = sync(&me.member_id, generation, &assigns)
            .with_group_id(text(group_of(client)).into())
            .with_group_instance_id(instance_of(client).map(|id| text(&id)));
        let is_led = self.bench.state_of(group_of(client)) != "CompletingRebalance";
        let token = self.bench.send(5, GroupRequest::Sync(body));
        if !is_led && !knows && self.bench.state_of(group_of(client)) == "Stable" {
            self.unled.insert((group_of(client), generation));
        }
        self.ask(client, token, None);
        if let Some(asked) = self.asked.get_mut(&token) {
            asked.generation = generation;
        }
    }

    fn act(&mut self, client: usize) {
        let me = self.clients[client].clone();
        if me.waits_for.is_some() {
            return;
        }
        match me.phase {
            Phase::Out => self.send_join(client, &["range", "sticky"]),
            Phase::Joined => self.send_sync(client, me.generation),
            Phase::Synced => {
                let body = heartbeat(&me.member_id, me.generation)
                    .with_group_id(text(group_of(client)).into())
                    .with_group_instance_id(instance_of(client).map(|id| text(&id)));
                let token = self.bench.send(4, GroupRequest::Heartbeat(body));
                self.ask(client, token, None);
            }
        }
    }

    fn commit(&mut self, client: usize, alone: bool) {
        let me = &self.clients[client];
        let offset = self.next_offset;
        self.next_offset += 1;
        let body = if alone {
            commit("", -1, "t", offset)
        } else {
            commit(&me.member_id, me.generation, "t", offset)
                .with_group_instance_id(instance_of(client).map(|id| text(&id)))
        };
        let body = body.with_group_id(text(group_of(client)).into());
        let token = self.bench.send(8, GroupRequest::CommitOffsets(body));
        self.ask(client, token, Some(offset));
    }

    fn run(&mut self, step: &Step) {
        match *step {
            Step::Act(client) => self.act(client),
            Step::JoinAnyway(client, new) => {
                let protocols: &[&str] = if new {
                    &["sticky", "range"]
                } else {
                    &["range", "sticky"]
                };
                self.send_join(client, protocols);
            }
            Step::SyncAnyway(client, by) => {
                let generation = self.clients[client].generation + by;
                self.send_sync(client, generation);
            }
            Step::Restart(client) => self.clients[client] = Client::default(),
            Step::Leave(client) => {
                let id = std::mem::take(&mut self.clients[client]).member_id;
                let body =
                    leave(&id, instance_of(client).as_deref()).with_group_id(text(group_of(client)).into());
                self.bench.ask(5, GroupRequest::Leave(body));
            }
            Step::Commit(client) => self.commit(client, false),
            Step::CommitAlone(client) => self.commit(client, true),
            Step::DeleteGroup(group) => {
                let group = text(GROUPS[group]);
                self.bench.ask(2, GroupRequest::Delete(group.into()));
            }
            Step::Replicate => self.committed = self.bench.log.len(),
            Step::Pass(ms) => self.bench.pass(ms),
            Step::FailOver(found) => self.fail_over(found),
        }
        self.deliver();
        self.check_stable();
        self.check_commits();
    }

    fn fail_over(&mut self, found: usize) {
        let kept = self.committed.saturating_add(found).min(self.bench.log.len());
        // Whoever waits for what is not committed hears of it no more.
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
        self.committed = kept;
        self.bench.fail_over();
        assert_eq!(self.bench.open(), 0, "every request is answered");
        for token in lost {
            self.delivered.insert(token);
            if let Some(asked) = self.asked.get(&token) {
                let me = &mut self.clients[asked.client];
                if me.waits_for == Some(token) {
                    me.waits_for = None;
                    me.phase = Phase::Out;
                }
            }
        }
    }

    /// Delivers what may be told.
    fn deliver(&mut self) {
        // A classic group is one record: each is looked at by itself.
        self.replica.follow(&self.bench.log, 1..=self.committed);
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
            if let Some(asked) = self.asked.get(&token).copied() {
                self.take(token, asked, &reply, upto);
            }
        }
    }

    /// Takes an answer that waited for the log up to there.
    fn take(&mut self, token: ReplyToken, asked: Asked, reply: &GroupReply, upto: usize) {
        let client = asked.client;
        let error = error_of(reply);
        if let Some(offset) = asked.commits {
            if error == ErrorCode::None {
                let last = self.acknowledged.entry(group_of(client)).or_default();
                *last = (offset, upto).max(*last);
            }
            return;
        }
        let current = self.clients[client].waits_for == Some(token);
        if let GroupReply::Sync(reply) = reply
            && error == ErrorCode::None
        {
            let share = std::str::from_utf8(&reply.assignment).expect("letters");
            let life = self.replica.life(group_of(client), upto);
            self.own(client, life, asked.generation, share);
        }
        if !current {
            return;
        }
        let me = &mut self.clients[client];
        me.waits_for = None;
        match (reply, error) {
            (GroupReply::Join(reply), ErrorCode::None) => {
                me.member_id = reply.member_id.to_string();
                me.generation = reply.generation_id;
                me.phase = Phase::Joined;
                me.skips = reply.skip_assignment;
                me.leads = (reply.leader == reply.member_id).then(|| {
                    reply
                        .members
                        .iter()
                        .map(|member| member.member_id.to_string())
                        .collect()
                });
            }
            (GroupReply::Join(reply), ErrorCode::MemberIdRequired) => {
                me.member_id = reply.member_id.to_string();
            }
            (GroupReply::Sync(reply), ErrorCode::None) => {
                me.phase = Phase::Synced;
                me.owns = String::from_utf8(reply.assignment.to_vec()).expect("letters");
            }
            (GroupReply::Heartbeat(_), ErrorCode::None) => {}
            (_, ErrorCode::UnknownMemberId | ErrorCode::FencedInstanceId) => {
                *me = Client::default();
            }
            _ => me.phase = Phase::Out,
        }
    }

    /// A client is told what it owns.
    fn own(&mut self, client: usize, life: usize, generation: i32, share: &str) {
        let group = group_of(client);
        let who = instance_of(client).unwrap_or_else(|| format!("client-{client}"));
        for partition in share.chars() {
            let owner = self
                .owners
                .entry((group, life, generation, partition))
                .or_insert_with(|| who.clone());
            assert_eq!(*owner, who, "{group} {generation}: {partition} has two owners");
        }
        let last = self.generations.entry((group, life)).or_insert(generation);
        assert!(*last <= generation, "generation {generation} after {last}");
        *last = generation;
    }

    /// In a group that is stable everything is shared out, each partition once, as its leader said.
    fn check_stable(&self) {
        let snapshot = self.bench.shard.snapshot();
        for group in GROUPS {
            let recorded = snapshot.0.get(group).and_then(|group| group.group.as_ref());
            let Some(recorded) = recorded.filter(|_| self.bench.state_of(group) == "Stable") else {
                continue;
            };
            if self.unled.contains(&(group, recorded.generation.0)) {
                continue;
            }
            let shares = recorded.members.iter().map(|member| &*member.assignment);
            let mut shared = shares.collect::<Vec<_>>().concat();
            shared.sort_unstable();
            assert_eq!(String::from_utf8_lossy(&shared), PARTITIONS, "{recorded:#?}");
        }
    }

    /// What was acknowledged is there, or something later; unless it was forgotten after that, which the replica
    /// sees happen to groups without members only.
    fn check_commits(&self) {
        let snapshot = self.bench.shard.snapshot();
        for (&group, &(offset, upto)) in &self.acknowledged {
            let later = self.bench.log[upto..].iter();
            let is_forgotten = later.filter(|record| record.value.is_none()).any(|record| {
                let change = Change::decode(&record.key, record.value.as_deref());
                matches!(change, Ok(Change::Offset(key, None)) if key.group == GroupId::from(group))
            });
            let there = snapshot
                .0
                .get(group)
                .and_then(|group| group.offsets.values().next());
            assert!(
                is_forgotten || there.is_some_and(|value| value.offset.0 >= offset),
                "{group}: {offset} was acknowledged, {there:?} is there"
            );
        }
    }

    /// Left alone, everyone gets its share and everything is shared. All begin anew: a leader that was
    /// made to sync before it knew the members left some without a share.
    fn settle(&mut self) {
        self.bench.replays_every_outcome = false;
        self.clients = vec![Client::default(); CLIENTS];
        for _ in 0..150 {
            for client in 0..CLIENTS {
                self.act(client);
            }
            self.committed = self.bench.log.len();
            self.deliver();
            self.bench.pass(1_000);
            self.committed = self.bench.log.len();
            self.deliver();
        }
        for (group, clients) in [("g", 0..4), ("h", 4..CLIENTS)] {
            let clients = &self.clients[clients];
            let mut owned: Vec<char> = clients.iter().flat_map(|me| me.owns.chars()).collect();
            owned.sort_unstable();
            assert_eq!(owned.iter().collect::<String>(), PARTITIONS, "{clients:#?}");
            for me in clients {
                assert_eq!(me.phase, Phase::Synced, "{group}: {me:?}");
                assert_eq!(me.generation, clients[0].generation);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, max_shrink_iters: 5_000, ..ProptestConfig::default() })]

    #[test]
    fn what_clients_were_told_stays_true(steps in prop::collection::vec(step(), 1..160)) {
        let mut world = World::new();
        for step in &steps {
            world.run(step);
        }
        world.settle();
        world.fail_over(usize::MAX);
        world.check_commits();
    }
}
