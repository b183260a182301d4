//! Clients of a group: what they say, and what they make of the answers.

use std::collections::BTreeMap;

use kafka_protocol::messages::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse,
    consumer_group_heartbeat_request::TopicPartitions,
};
use protocol::ErrorCode;

use super::super::beats;
use super::{CLIENTS, Places, World};
use crate::coordinator::group::{
    GroupReply, GroupRequest, ReplyToken,
    embedded::{self, NamedPartitions, Subscription},
    tests::bench::{commit, error_of, heartbeat, join, leave, subscription, sync, text, topic_id},
};

/// What a client may subscribe to.
pub(super) const SUBSCRIPTIONS: [&[&str]; 3] = [&["t", "u"], &["t"], &["u"]];

/// How a client behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Of the KIP-848 protocol.
    Consumer,
    /// The same with an instance id.
    StaticConsumer,
    /// Of the KIP-848 protocol, subscribing with an expression.
    Pattern,
    /// Of the classic protocol: it keeps what it has while it joins, gives up what it was not assigned
    /// again, and then joins once more.
    Cooperative,
    /// Of the classic protocol with an instance id, giving everything up before it joins.
    StaticEager,
}

pub(super) const KINDS: [Kind; CLIENTS] = [
    Kind::Consumer,
    Kind::Cooperative,
    Kind::StaticConsumer,
    Kind::StaticEager,
    Kind::Pattern,
];

impl Kind {
    pub(super) fn is_classic(self) -> bool {
        matches!(self, Self::Cooperative | Self::StaticEager)
    }

    /// The assignor that it asks for.
    fn assignor(self) -> Option<&'static str> {
        (self == Self::StaticConsumer).then_some("range")
    }

    fn instance(self) -> Option<&'static str> {
        match self {
            Self::StaticConsumer => Some("i"),
            Self::StaticEager => Some("j"),
            Self::Consumer | Self::Pattern | Self::Cooperative => None,
        }
    }

    fn rack(self) -> Option<&'static str> {
        match self {
            Self::Consumer => Some("a"),
            Self::StaticConsumer => Some("b"),
            Self::Pattern | Self::Cooperative | Self::StaticEager => None,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Phase {
    #[default]
    Out,
    /// Of a classic client: it has a generation, and waits to learn what it owns.
    Joined,
    In,
}

/// A client as it sees itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Client {
    /// Which life of the process this is.
    life: u32,
    pub(super) member_id: String,
    epoch: i32,
    pub(super) phase: Phase,
    /// What it wants, as an index of [`SUBSCRIPTIONS`].
    pub(super) wants: usize,
    /// Whether the coordinator has been told so.
    pub(super) said: bool,
    /// Whether an answer was lost: then it says everything, to be told everything.
    repeats: bool,
    /// What it was last told to have.
    told: Places,
    /// What it reads from.
    pub(super) owns: Places,
    /// Of the leader of a classic generation: whom it is to assign to, and what they keep meanwhile.
    leads: Option<Vec<(String, Places)>>,
    pub(super) waits_for: Option<ReplyToken>,
}

impl World {
    fn ask(&mut self, client: usize, token: ReplyToken) {
        self.asked.insert(token, client);
        self.clients[client].waits_for = Some(token);
    }

    /// A ConsumerGroupHeartbeat; what is left out is as before.
    pub(super) fn send_beat(&mut self, n: usize, full: bool, reports: bool) {
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
                .with_rack_id(KINDS[n].rack().map(text))
                .with_server_assignor(KINDS[n].assignor().map(text));
        }
        if full || reports {
            body = owning(body, &me.owns);
        }
        me.said = true;
        let token = self.bench.send_beat(1, body);
        self.ask(n, token);
    }

    fn send_join(&mut self, n: usize) {
        let is_eager = KINDS[n] == Kind::StaticEager;
        if is_eager {
            self.clients[n].owns.clear();
            self.clients[n].told.clear();
        }
        let me = &self.clients[n];
        let mut body = join(&me.member_id, &["range"])
            .with_group_instance_id(KINDS[n].instance().map(text))
            .with_session_timeout_ms(20_000);
        body.protocols[0].metadata = if is_eager {
            subscription(SUBSCRIPTIONS[me.wants])
        } else {
            subscription_owning(SUBSCRIPTIONS[me.wants], &me.owns)
        };
        let token = self.bench.send_join(9, body);
        self.ask(n, token);
    }

    fn send_sync(&mut self, n: usize) {
        let me = &self.clients[n];
        let mut body =
            sync(&me.member_id, me.epoch, &[]).with_group_instance_id(KINDS[n].instance().map(text));
        if let Some(members) = &me.leads {
            let mut shares: BTreeMap<&String, Places> =
                members.iter().map(|(id, _)| (id, Places::new())).collect();
            for (turn, place) in self.all_places().into_iter().enumerate() {
                let (owner, _) = &members[turn % members.len()];
                // What somebody else still has is assigned in the next generation.
                let is_kept = members
                    .iter()
                    .any(|(id, keeps)| id != owner && keeps.contains(&place));
                if !is_kept {
                    shares.entry(owner).or_default().insert(place);
                }
            }
            let assigns: Vec<(&str, &str)> = members.iter().map(|(id, _)| (id.as_str(), "")).collect();
            body =
                sync(&me.member_id, me.epoch, &assigns).with_group_instance_id(KINDS[n].instance().map(text));
            for assigned in &mut body.assignments {
                assigned.assignment = encode(&shares[&assigned.member_id.to_string()]);
            }
        }
        let token = self.bench.send(5, GroupRequest::Sync(body));
        self.ask(n, token);
    }

    pub(super) fn act(&mut self, n: usize) {
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

    pub(super) fn restart(&mut self, n: usize) {
        let me = &self.clients[n];
        self.clients[n] = Client {
            life: me.life + 1,
            wants: me.wants,
            ..Client::default()
        };
    }

    pub(super) fn leave(&mut self, n: usize) {
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

    pub(super) fn commit(&mut self, n: usize) {
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
            self.acknowledged = Some((offset, self.committed));
        }
    }

    /// A client hears nothing: it tries again, and says everything.
    pub(super) fn lose_answer(&mut self, n: usize, token: ReplyToken) {
        let me = &mut self.clients[n];
        if me.waits_for == Some(token) {
            me.waits_for = None;
            me.repeats = true;
            if KINDS[n].is_classic() {
                me.phase = Phase::Out;
            }
            if KINDS[n] == Kind::StaticEager {
                me.owns.clear();
            }
        }
    }

    pub(super) fn take(&mut self, n: usize, reply: &GroupReply, life: usize) {
        let error = error_of(reply);
        match (reply, error) {
            (GroupReply::ConsumerHeartbeat(reply), ErrorCode::None) => self.take_beat(n, reply, life),
            (GroupReply::Join(reply), ErrorCode::None) => {
                let me = &mut self.clients[n];
                me.member_id = reply.member_id.to_string();
                me.epoch = reply.generation_id;
                me.phase = Phase::Joined;
                me.leads = (reply.leader == reply.member_id && !reply.skip_assignment).then(|| {
                    reply
                        .members
                        .iter()
                        .map(|member| {
                            let said = Subscription::read(&member.metadata).expect("a subscription");
                            (member.member_id.to_string(), places(&said.owned))
                        })
                        .collect()
                });
            }
            (GroupReply::Join(reply), ErrorCode::MemberIdRequired) => {
                self.clients[n].member_id = reply.member_id.to_string();
            }
            (GroupReply::Sync(reply), ErrorCode::None) => {
                self.check_epoch(n, self.clients[n].epoch, life);
                let share = decode(&reply.assignment);
                let me = &mut self.clients[n];
                me.phase = Phase::In;
                // Whoever gives something up says so by joining again.
                me.said &= me.owns.is_subset(&share);
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
            (_, ErrorCode::RebalanceInProgress) if KINDS[n] == Kind::Cooperative => {
                self.clients[n].phase = Phase::Out;
            }
            _ => {
                let me = &mut self.clients[n];
                me.phase = Phase::Out;
                me.owns.clear();
            }
        }
    }

    /// In one life of the group a member is never told an epoch that is lower than the last.
    fn check_epoch(&mut self, n: usize, epoch: i32, life: usize) {
        let member = self.clients[n].member_id.clone();
        let last = self.epochs.entry((life, member)).or_default();
        assert!(
            epoch >= *last,
            "epoch {epoch} after {last}: {:?}",
            self.clients[n]
        );
        *last = epoch;
    }

    fn take_beat(&mut self, n: usize, reply: &ConsumerGroupHeartbeatResponse, life: usize) {
        self.check_epoch(n, reply.member_epoch, life);
        let me = &mut self.clients[n];
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
        me.epoch = 0;
        me.phase = Phase::Out;
        me.said = false;
        me.owns.clear();
        me.told.clear();
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

pub(super) fn name_of(id: uuid::Uuid) -> &'static str {
    let known = ["t", "u"].into_iter().find(|name| topic_id(name).0 == id);
    known.expect("a topic that there is")
}

/// An assignment in the embedded protocol.
fn encode(places: &Places) -> bytes::Bytes {
    let mut bytes = vec![0, 0];
    put(&mut bytes, places);
    bytes.extend([0xff; 4]);
    bytes.into()
}

/// What a cooperative consumer says that wants these topics, and has these partitions.
fn subscription_owning(topics: &[&str], owned: &Places) -> bytes::Bytes {
    let mut bytes = subscription(topics).to_vec();
    bytes[1] = 1;
    put(&mut bytes, owned);
    bytes.into()
}

/// Adds partitions as the embedded protocol has them.
fn put(bytes: &mut Vec<u8>, places: &Places) {
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for (topic, partition) in places {
        topics.entry(topic).or_default().push(*partition);
    }
    let count = |len: usize| i32::try_from(len).expect("few").to_be_bytes();
    bytes.extend(count(topics.len()));
    for (topic, partitions) in topics {
        bytes.extend([0, 1]);
        bytes.extend(topic.as_bytes());
        bytes.extend(count(partitions.len()));
        for partition in partitions {
            bytes.extend(partition.to_be_bytes());
        }
    }
}

fn decode(bytes: &[u8]) -> Places {
    let assignment = embedded::read_assignment(bytes).expect("an assignment");
    places(&assignment.partitions)
}

fn places(named: &NamedPartitions) -> Places {
    let places = named.iter().flat_map(|(topic, partitions)| {
        let topic = if &**topic == "t" { "t" } else { "u" };
        partitions.iter().map(move |partition| (topic, partition.0))
    });
    places.collect()
}
