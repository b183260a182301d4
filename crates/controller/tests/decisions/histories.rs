//! Random histories of a cluster, beside a model of who has every acknowledged record.
//!
//! The model knows what the controller cannot: with enough replicas in sync the high watermark may move
//! at any moment, and then exactly the in-sync replicas have everything. Whoever is in ISR or ELR must
//! have everything at all times: that is what makes a clean election safe (KIP-966).

use std::collections::{BTreeMap, BTreeSet};

use controller::decisions::{self, Now, ProbeResult, SessionAction, SessionTracker};
use metadata::configs::min_insync_replicas;
use proptest::prelude::*;
use protocol::{
    BrokerEpoch, BrokerId, DirectoryId, IncarnationId, Offset, TopicPartition,
    grpc::v1::{
        AlterConfig, AlterConfigsRequest, AlterConfigsResource, AssignDirectoriesRequest, ConfigOp,
        ConfigResourceType, CreatePartitionsRequest, DamagedPartition, DeleteTopicsRequest,
        DirectoryAssignment, ElectLeadersRequest, NewPartitions, TopicRef,
    },
};

use crate::cluster::{Cluster, b, dir};

const BROKERS: i32 = 4;
/// Log directories of each broker.
const DIRECTORIES: usize = 2;

/// How a broker comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Return {
    Whole,
    /// With another disk in the place of this one.
    Wiped(usize),
    /// Without this directory, which may be back the next time.
    Offline(usize),
    Booted,
    Damaged,
}

#[derive(Clone, Debug)]
enum Event {
    Register(i32, Return),
    Fence(i32),
    Unfence(i32),
    Shutdown(i32),
    Unregister(i32),
    FailReplicas(i32),
    FailDirectory(i32, usize),
    /// A replica moves to another directory of its broker.
    Assign {
        broker: i32,
        replica: usize,
        directory: usize,
    },
    Acknowledge,
    SetIsr {
        topic: usize,
        isr: u8,
    },
    Elect,
    Rebalance(usize),
    CreateTopic {
        replicas: u8,
        min_isr: u8,
        cached: bool,
    },
    AddPartition(usize),
    DeleteTopic(usize),
    MinIsr {
        topic: Option<usize>,
        value: Option<u8>,
    },
}

fn event() -> impl Strategy<Value = Event> {
    let broker = 1..=BROKERS;
    let way = prop_oneof![
        6 => Just(Return::Whole),
        1 => (0..DIRECTORIES).prop_map(Return::Wiped),
        2 => (0..DIRECTORIES).prop_map(Return::Offline),
        2 => Just(Return::Booted),
        1 => Just(Return::Damaged),
    ];
    prop_oneof![
        8 => (broker.clone(), way).prop_map(|(id, way)| Event::Register(id, way)),
        6 => broker.clone().prop_map(Event::Fence),
        16 => broker.clone().prop_map(Event::Unfence),
        2 => broker.clone().prop_map(Event::Shutdown),
        1 => broker.clone().prop_map(Event::Unregister),
        2 => broker.clone().prop_map(Event::FailReplicas),
        2 => (broker.clone(), 0..DIRECTORIES).prop_map(|(id, at)| Event::FailDirectory(id, at)),
        3 => (broker, 0..4usize, 0..DIRECTORIES)
            .prop_map(|(broker, replica, directory)| Event::Assign { broker, replica, directory }),
        16 => Just(Event::Acknowledge),
        24 => (0..4usize, any::<u8>()).prop_map(|(topic, isr)| Event::SetIsr { topic, isr }),
        2 => Just(Event::Elect),
        2 => (0..3usize).prop_map(Event::Rebalance),
        4 => (1..16u8, 0..4u8, any::<bool>())
            .prop_map(|(replicas, min_isr, cached)| Event::CreateTopic { replicas, min_isr, cached }),
        1 => (0..4usize).prop_map(Event::AddPartition),
        1 => (0..4usize).prop_map(Event::DeleteTopic),
        3 => (proptest::option::of(0..4usize), proptest::option::of(1..4u8))
            .prop_map(|(topic, value)| Event::MinIsr { topic, value }),
    ]
}

/// The cluster and what the controller cannot see.
struct World {
    cluster: Cluster,
    names: usize,
    wipes: u128,
    /// Who has every acknowledged record.
    complete: BTreeMap<TopicPartition, BTreeSet<BrokerId>>,
    /// Replicas that failed and wait for a restart.
    failed: BTreeSet<(BrokerId, TopicPartition)>,
    /// Topics that are acknowledged from the page cache.
    cached: BTreeSet<protocol::TopicId>,
    dirs: BTreeMap<i32, [u128; DIRECTORIES]>,
}

impl World {
    fn new() -> Self {
        let all: Vec<_> = (1..=BROKERS).collect();
        Self {
            cluster: Cluster::with_brokers(&all, |_| ""),
            names: 0,
            wipes: 0,
            complete: BTreeMap::new(),
            failed: BTreeSet::new(),
            cached: BTreeSet::new(),
            // The first is the one that every broker is registered with.
            dirs: (1..=BROKERS)
                .map(|id| (id, [id as u128, 100 + id as u128]))
                .collect(),
        }
    }

    fn partitions(&self) -> Vec<TopicPartition> {
        let topics = self.cluster.image.topics.iter();
        topics
            .flat_map(|(&id, topic)| topic.partitions.keys().map(move |&p| TopicPartition::new(id, p)))
            .collect()
    }

    fn nth_topic(&self, n: usize) -> Option<(protocol::TopicId, String)> {
        let topic = self.cluster.image.topics.values().nth(n)?;
        Some((topic.id, topic.name.to_string()))
    }

    fn replicas_of(&self, id: BrokerId) -> Vec<TopicPartition> {
        let held = self.cluster.image.partitions_by_broker.get(&id);
        held.into_iter().flatten().copied().collect()
    }

    fn forget(&mut self, id: BrokerId, tp: TopicPartition) {
        if let Some(complete) = self.complete.get_mut(&tp) {
            complete.remove(&id);
        }
    }

    /// A replica that lost something may stay only where nobody registered could replace it.
    fn damage(&mut self, id: BrokerId, lost: &[TopicPartition], before: &metadata::ClusterImage) {
        for &tp in lost {
            let now = self.cluster.partition(tp);
            if now.isr.contains(&id) || now.elr.contains(&id) {
                let old = before.partition(tp).expect("it was there");
                let mut others = old.isr.iter().chain(&old.elr).filter(|&&other| other != id);
                assert!(
                    others.all(|other| !before.brokers.contains_key(other)),
                    "{old:?} became {now:?}"
                );
            } else {
                self.forget(id, tp);
            }
        }
    }

    fn happen(&mut self, event: &Event) {
        match *event {
            Event::Register(id, way) => self.register(id, way),
            Event::Fence(id) => self.cluster.fence(id),
            Event::Unfence(id) => {
                if self.cluster.image.brokers.contains_key(&b(id)) {
                    self.cluster.unfence(id);
                }
            }
            Event::Shutdown(id) => {
                let epoch = self.cluster.epoch(id);
                if let Ok(outcome) = decisions::begin_controlled_shutdown(self.cluster.view(), b(id), epoch) {
                    self.cluster.commit(outcome);
                    assert!(decisions::may_shut_down(&self.cluster.image, b(id)));
                }
            }
            Event::Unregister(id) => {
                if let Ok(outcome) = decisions::unregister(self.cluster.view(), b(id)) {
                    self.cluster.commit(outcome);
                }
            }
            Event::FailReplicas(id) => {
                let held = self.replicas_of(b(id));
                let epoch = self.cluster.epoch(id);
                let before = self.cluster.image.clone();
                if let Ok(outcome) = decisions::fail_replicas(self.cluster.view(), b(id), epoch, &held) {
                    self.cluster.commit(outcome);
                    self.damage(b(id), &held, &before);
                    self.failed.extend(held.iter().map(|&tp| (b(id), tp)));
                }
            }
            Event::FailDirectory(id, at) => {
                let (epoch, offline) = (self.cluster.epoch(id), [dir(self.dirs[&id][at])]);
                if let Ok(outcome) = decisions::fail_directories(self.cluster.view(), b(id), epoch, &offline)
                {
                    self.cluster.commit(outcome);
                    assert!(!self.cluster.image.brokers[&b(id)].log_dirs.contains(&offline[0]));
                    let again = decisions::fail_directories(self.cluster.view(), b(id), epoch, &offline);
                    assert_eq!(again.expect("the same epoch").records, []);
                }
            }
            Event::Assign {
                broker,
                replica,
                directory,
            } => self.assign(broker, replica, dir(self.dirs[&broker][directory])),
            Event::Acknowledge => self.acknowledge(),
            Event::SetIsr { topic, isr } => self.set_isr(topic, isr),
            Event::Elect => {
                let outcome = decisions::elect_leaders(self.cluster.view(), &ElectLeadersRequest::default());
                self.cluster.commit(outcome);
            }
            Event::Rebalance(max) => {
                let outcome = decisions::rebalance_leaders(self.cluster.view(), max);
                self.cluster.commit(outcome);
            }
            Event::CreateTopic {
                replicas,
                min_isr,
                cached,
            } => self.create(replicas, min_isr, cached),
            Event::AddPartition(n) => {
                let Some((_, name)) = self.nth_topic(n) else {
                    return;
                };
                let count = self.cluster.image.topic(&name).expect("there").partitions.len() + 1;
                let request = CreatePartitionsRequest {
                    topics: vec![NewPartitions {
                        name,
                        count: count as i32,
                        assignments: vec![],
                    }],
                    ..CreatePartitionsRequest::default()
                };
                let outcome = decisions::create_partitions(self.cluster.view(), &request, 3);
                self.cluster.commit(outcome);
            }
            Event::DeleteTopic(n) => {
                let Some((_, name)) = self.nth_topic(n) else {
                    return;
                };
                let topics = vec![TopicRef {
                    name,
                    ..TopicRef::default()
                }];
                let request = DeleteTopicsRequest {
                    topics,
                    timeout_ms: 0,
                };
                let outcome = decisions::delete_topics(self.cluster.view(), &request);
                self.cluster.commit(outcome);
            }
            Event::MinIsr { topic, value } => self.set_min_isr(topic, value),
        }
    }

    fn register(&mut self, id: i32, way: Return) {
        let held = self.replicas_of(b(id));
        let before = self.cluster.image.clone();
        let mut request = self.cluster.registration(id);
        let mut wiped = None;
        if let Return::Wiped(at) = way {
            self.wipes += 1;
            let slot = &mut self.dirs.get_mut(&id).expect("every broker has directories")[at];
            wiped = Some(dir(std::mem::replace(slot, 1000 + self.wipes)));
        }
        let offline = |at: &usize| way == Return::Offline(*at);
        request.log_dirs = (0..DIRECTORIES)
            .filter(|at| !offline(at))
            .map(|at| dir(self.dirs[&id][at]).to_vec().into())
            .collect();
        request.unusable_log_dirs = u32::from(matches!(way, Return::Offline(_)));
        request.may_have_lost_data = way == Return::Booted;
        if way == Return::Damaged {
            request.damaged = held
                .iter()
                .map(|tp| DamagedPartition {
                    topic_id: tp.topic_id.to_vec().into(),
                    partition: tp.partition.get(),
                })
                .collect();
        }
        self.cluster.register(&request);
        match way {
            Return::Whole | Return::Offline(_) => {}
            Return::Wiped(_) => held
                .iter()
                .filter(|&&tp| {
                    let old = before.partition(tp).expect("it was there");
                    old.directory_of(b(id)) == wiped
                })
                .for_each(|&tp| {
                    self.forget(b(id), tp);
                }),
            Return::Booted => held
                .iter()
                .filter(|tp| self.cached.contains(&tp.topic_id))
                .copied()
                .collect::<Vec<_>>()
                .into_iter()
                .for_each(|tp| self.forget(b(id), tp)),
            Return::Damaged => self.damage(b(id), &held, &before),
        }
        for tp in held {
            assert_ne!(self.cluster.partition(tp).leader, Some(b(id)), "resumes an epoch");
        }
        self.failed.retain(|(failed, _)| *failed != b(id));
    }

    /// The broker has moved a replica, with all that is in it.
    fn assign(&mut self, id: i32, replica: usize, directory: DirectoryId) {
        let Some(&tp) = self.replicas_of(b(id)).get(replica) else {
            return;
        };
        if !self.is_online(b(id), tp) {
            return;
        }
        let request = AssignDirectoriesRequest {
            broker_id: id,
            broker_epoch: self.cluster.epoch(id).get(),
            assignments: vec![DirectoryAssignment {
                topic_id: tp.topic_id.to_vec().into(),
                partition: tp.partition.get(),
                directory: directory.to_vec().into(),
            }],
        };
        if let Ok(outcome) = decisions::assign_directories(self.cluster.view(), &request) {
            let results = self.cluster.commit(outcome);
            let online = self.cluster.image.brokers[&b(id)].log_dirs.contains(&directory);
            assert_eq!(results[0].code == 0, online);
            let now = self.cluster.partition(tp).directory_of(b(id));
            assert_eq!(now == Some(directory), online);
        }
    }

    /// Whether the broker has the directory of its replica.
    fn is_online(&self, id: BrokerId, tp: TopicPartition) -> bool {
        let directory = self.cluster.partition(tp).directory_of(id);
        let broker = self.cluster.image.brokers.get(&id);
        broker.is_some_and(|broker| directory.is_some_and(|directory| broker.has_online(directory)))
    }

    /// Every partition that may acknowledge does, and leaves everybody outside its ISR behind.
    fn acknowledge(&mut self) {
        for tp in self.partitions() {
            let partition = self.cluster.partition(tp);
            let name = &self.cluster.image.topics[&tp.topic_id].name;
            let enough = min_insync_replicas(&self.cluster.image, name, partition.replicas.len());
            if partition.leader.is_some() && partition.isr.len() >= enough {
                self.complete.insert(tp, partition.isr.iter().copied().collect());
            }
        }
    }

    /// A leader changes its ISR; who joins has caught up.
    fn set_isr(&mut self, n: usize, wanted: u8) {
        let Some((id, _)) = self.nth_topic(n) else { return };
        for tp in self.partitions().into_iter().filter(|tp| tp.topic_id == id) {
            let partition = self.cluster.partition(tp);
            let Some(leader) = partition.leader else { continue };
            let isr: Vec<_> = partition
                .replicas
                .iter()
                .filter(|&&id| id == leader || wanted & (1 << id.get()) != 0)
                .filter(|&&id| !self.failed.contains(&(id, tp)) && self.is_online(id, tp))
                .map(|id| id.get())
                .collect();
            let altered = self.cluster.alter(&self.cluster.alter_request(tp, &isr));
            if altered.error.is_some_and(|error| error.code == 0) {
                let complete = self.complete.entry(tp).or_default();
                complete.extend(altered.isr.into_iter().map(BrokerId));
            }
        }
    }

    fn create(&mut self, replicas: u8, min_isr: u8, cached: bool) {
        let replicas: Vec<_> = (1..=BROKERS)
            .filter(|id| replicas & (1 << (id - 1)) != 0)
            .collect();
        let live = |id: &i32| {
            self.cluster
                .image
                .brokers
                .get(&b(*id))
                .is_some_and(|b| b.is_eligible())
        };
        let registered = |id: &i32| self.cluster.image.brokers.contains_key(&b(*id));
        if !replicas.iter().all(registered) || !replicas.iter().any(live) {
            return;
        }
        self.names += 1;
        let min_isr = min_isr.to_string();
        let mut configs = vec![];
        if min_isr != "0" {
            configs.push(("min.insync.replicas", min_isr.as_str()));
        }
        if cached {
            configs.push(("flush.messages", "1000"));
        }
        let tp = self
            .cluster
            .create(&format!("t{}", self.names), &replicas, &configs);
        if cached {
            self.cached.insert(tp.topic_id);
        }
    }

    fn set_min_isr(&mut self, topic: Option<usize>, value: Option<u8>) {
        let (resource_type, resource_name) = match topic {
            None => (ConfigResourceType::Broker, String::new()),
            Some(n) => match self.nth_topic(n) {
                Some((_, name)) => (ConfigResourceType::Topic, name),
                None => return,
            },
        };
        let op = if value.is_some() {
            ConfigOp::Set
        } else {
            ConfigOp::Delete
        };
        let change = AlterConfig {
            key: "min.insync.replicas".to_owned(),
            op: op.into(),
            value: value.map(|value| value.to_string()),
        };
        let request = AlterConfigsRequest {
            resources: vec![AlterConfigsResource {
                resource_type: resource_type.into(),
                resource_name,
                configs: vec![change],
            }],
            ..AlterConfigsRequest::default()
        };
        let outcome = decisions::alter_configs(self.cluster.view(), &request);
        self.cluster.commit(outcome);
    }

    /// New partitions are empty: every replica has everything.
    fn settle(&mut self) {
        let all = self.partitions();
        self.complete.retain(|tp, _| all.contains(tp));
        for tp in all {
            let replicas = self.cluster.partition(tp).replicas;
            self.complete
                .entry(tp)
                .or_insert_with(|| replicas.into_iter().collect());
        }
    }

    fn check(&self) {
        for (tp, complete) in &self.complete {
            let partition = self.cluster.partition(*tp);
            for id in partition.isr.iter().chain(&partition.elr) {
                assert!(complete.contains(id), "{id} lacks records of {tp}: {partition:?}");
            }
            if let Some(leader) = partition.leader {
                assert!(
                    self.is_online(leader, *tp),
                    "leads from an offline directory: {partition:?}"
                );
            } else {
                let idle = partition.elr.iter().find(|&&id| {
                    let live = self
                        .cluster
                        .image
                        .brokers
                        .get(&id)
                        .is_some_and(|b| b.is_eligible());
                    live && !self.failed.contains(&(id, *tp)) && self.is_online(id, *tp)
                });
                assert_eq!(idle, None, "could lead {tp}: {partition:?}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn whoever_may_be_elected_has_every_acknowledged_record(
        events in prop::collection::vec(event(), 1..150),
    ) {
        let mut world = World::new();
        world.create(7, 0, false);
        world.create(7, 2, true);
        world.create(8, 1, false);
        world.settle();
        for event in &events {
            world.happen(event);
            world.settle();
            world.check();
        }
    }

    /// Whatever comes to a tracker, a broker that is silent for the session timeout is fenced, once, and
    /// one that sends heartbeats is not.
    #[test]
    fn silence_is_fenced_and_life_is_not(
        steps in prop::collection::vec((0..6u8, 1..400u64), 1..60),
    ) {
        const TIMEOUT: u64 = 1000;
        let cluster = Cluster::with_brokers(&[1], |_| "");
        let mut tracker = SessionTracker::new(TIMEOUT, &cluster.image, Now(0));
        let mut now = Now(0);
        // Last sign of life; `None` once the broker was fenced.
        let mut heard = Some(Now(0));
        let mut session = None;
        for (step, millis) in steps {
            now = now.plus(millis);
            let fenced = tracker.tick(now).contains(&SessionAction::Fence(b(1)));
            let silent = heard.is_some_and(|heard| now >= heard.plus(TIMEOUT));
            prop_assert_eq!(fenced, silent);
            if fenced {
                heard = None;
            }
            match (step, session) {
                (0 | 1, _) => {
                    let incarnation = IncarnationId(uuid::Uuid::from_u128(1));
                    let id = tracker.connected(b(1), BrokerEpoch(1), incarnation, "h:1".to_owned(), Offset(0), now);
                    session = Some(id);
                    heard = Some(now);
                }
                (2 | 3, Some(id)) => {
                    let alive = tracker.heartbeat(b(1), id, Offset(0), false, now).is_ok();
                    heard = if alive { Some(now) } else { heard };
                }
                (4, Some(id)) => {
                    tracker.disconnected(b(1), id, now);
                }
                (5, Some(id)) => {
                    prop_assert_eq!(tracker.probe_result(b(1), id, ProbeResult::Silent, now), None);
                }
                _ => {}
            }
        }
    }
}
