//! A shard on a bench: its log, its clock, and everything that was asked and answered.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use bytes::{Bytes, BytesMut};
use kafka_protocol::{
    messages::{
        ConsumerGroupDescribeResponse, ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse,
        DeleteGroupsResponse, DescribeGroupsResponse, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse,
        LeaveGroupRequest, ListGroupsResponse, OffsetCommitRequest, OffsetFetchResponse, SyncGroupRequest,
        SyncGroupResponse,
        join_group_request::JoinGroupRequestProtocol,
        leave_group_request::MemberIdentity,
        offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
        offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics},
        sync_group_request::SyncGroupRequestAssignment,
    },
    protocol::{Encodable, StrBytes},
};
use protocol::{ErrorCode, TopicId, TopicName};
use uuid::Uuid;

use crate::coordinator::group::{
    Answer, Barrier, Caller, CoordinatorRecord, GroupConfig, GroupReply, GroupRequest, GroupShard, Now,
    Outcome, ReplyToken, TopicView, TopicsView, embedded::Subscription, shard::Group,
};

pub(super) const SESSION_MS: i32 = 10_000;
pub(super) const REBALANCE_MS: i32 = 30_000;

/// A string for a request.
pub(super) fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// The identity of a topic of this name.
pub(super) fn topic_id(name: &str) -> TopicId {
    TopicId(Uuid::from_u128(
        name.bytes().fold(1, |id, byte| id << 8 | u128::from(byte)),
    ))
}

/// What a consumer says that wants these topics.
pub(super) fn subscription(topics: &[&str]) -> Bytes {
    let topics = topics.iter().map(|topic| Arc::from(*topic)).collect();
    Subscription::write(&topics)
}

/// The error of an answer; of one about several things, the first.
pub(super) fn error_of(reply: &GroupReply) -> ErrorCode {
    let code = match reply {
        GroupReply::Join(reply) => reply.error_code,
        GroupReply::Sync(reply) => reply.error_code,
        GroupReply::Heartbeat(reply) => reply.error_code,
        GroupReply::Leave(reply) => match reply.members.first() {
            Some(member) if reply.error_code == 0 => member.error_code,
            _ => reply.error_code,
        },
        GroupReply::ConsumerHeartbeat(reply) => reply.error_code,
        GroupReply::DescribeConsumer(reply) => reply.error_code,
        GroupReply::CommitOffsets(reply) => reply.topics[0].partitions[0].error_code,
        GroupReply::FetchOffsets(reply) => reply.error_code,
        GroupReply::DeleteOffsets(reply) => match reply.topics.first() {
            Some(topic) if reply.error_code == 0 => topic.partitions[0].error_code,
            _ => reply.error_code,
        },
        GroupReply::Describe(reply) => reply.error_code,
        GroupReply::List(Ok(_)) => 0,
        GroupReply::List(Err(error)) => error.code(),
        GroupReply::Delete(reply) => reply.error_code,
    };
    ErrorCode::from_code(code).expect("a code that there is")
}

/// A SyncGroup of one member in one generation.
pub(super) fn sync(member_id: &str, generation: i32, assigns: &[(&str, &str)]) -> SyncGroupRequest {
    let assignments = assigns.iter().map(|(member_id, assignment)| {
        SyncGroupRequestAssignment::default()
            .with_member_id(text(member_id))
            .with_assignment(Bytes::copy_from_slice(assignment.as_bytes()))
    });
    SyncGroupRequest::default()
        .with_group_id(text("g").into())
        .with_member_id(text(member_id))
        .with_generation_id(generation)
        .with_protocol_type(None)
        .with_protocol_name(None)
        .with_assignments(assignments.collect())
}

/// A JoinGroup of a consumer with one protocol for each of the names.
pub(super) fn join(member_id: &str, protocols: &[&str]) -> JoinGroupRequest {
    let protocols = protocols.iter().map(|name| {
        JoinGroupRequestProtocol::default()
            .with_name(text(name))
            .with_metadata(subscription(&["t"]))
    });
    JoinGroupRequest::default()
        .with_group_id(text("g").into())
        .with_member_id(text(member_id))
        .with_protocol_type(text("consumer"))
        .with_session_timeout_ms(SESSION_MS)
        .with_rebalance_timeout_ms(REBALANCE_MS)
        .with_protocols(protocols.collect())
}

pub(super) fn heartbeat(member_id: &str, generation: i32) -> HeartbeatRequest {
    HeartbeatRequest::default()
        .with_group_id(text("g").into())
        .with_member_id(text(member_id))
        .with_generation_id(generation)
}

/// A LeaveGroup of one member, by its id or (with an empty one) by its instance id.
pub(super) fn leave(member_id: &str, instance_id: Option<&str>) -> LeaveGroupRequest {
    let member = MemberIdentity::default()
        .with_member_id(text(member_id))
        .with_group_instance_id(instance_id.map(text));
    LeaveGroupRequest::default()
        .with_group_id(text("g").into())
        .with_members(vec![member])
}

/// A commit of one offset of one partition of a topic.
pub(super) fn commit(member_id: &str, generation: i32, topic: &str, offset: i64) -> OffsetCommitRequest {
    let partition = OffsetCommitRequestPartition::default()
        .with_partition_index(0)
        .with_committed_offset(offset)
        .with_committed_leader_epoch(4)
        .with_committed_metadata(Some(text("m")));
    let topic = OffsetCommitRequestTopic::default()
        .with_name(text(topic).into())
        .with_partitions(vec![partition]);
    OffsetCommitRequest::default()
        .with_group_id(text("g").into())
        .with_member_id(text(member_id))
        .with_generation_id_or_member_epoch(generation)
        .with_topics(vec![topic])
}

/// The question for an offset of partition 0 of a topic; for all with no topic.
pub(super) fn fetch(topic: Option<&str>) -> GroupRequest {
    let topics = topic.map(|topic| {
        vec![
            OffsetFetchRequestTopics::default()
                .with_name(text(topic).into())
                .with_partition_indexes(vec![0]),
        ]
    });
    GroupRequest::FetchOffsets {
        group: OffsetFetchRequestGroup::default()
            .with_group_id(text("g").into())
            .with_topics(topics),
        require_stable: true,
    }
}

/// A shard and what surrounds it.
#[derive(Debug)]
pub(super) struct Bench {
    pub(super) shard: GroupShard,
    pub(super) now: Now,
    /// All records that were returned, in order.
    pub(super) log: Vec<CoordinatorRecord>,
    /// How long the log was after each outcome: the records of one are one batch.
    pub(super) batches: Vec<usize>,
    /// How long the log was after each event: a batch may be of several.
    pub(super) events: Vec<usize>,
    view: Arc<TopicsView>,
    /// The answers that were given, with the length of the log that they wait for.
    pub(super) answers: BTreeMap<ReplyToken, (Answer, usize)>,
    versions: BTreeMap<ReplyToken, i16>,
    /// How many targets were computed.
    pub(super) targets: u64,
    /// A shard that only replays the log, and how much of it it has.
    follower: GroupShard,
    followed: usize,
    /// Whether after each outcome a replay of the whole log is compared with the shard.
    pub(super) replays_every_outcome: bool,
}

impl Bench {
    pub(super) fn new() -> Self {
        Self::with(GroupConfig::default())
    }

    pub(super) fn with(config: GroupConfig) -> Self {
        let now = Now {
            instant_ms: 5_000,
            wall_ms: 1_700_000_000_000,
        };
        let follower = GroupShard::new(config.clone());
        let mut shard = GroupShard::new(config);
        shard.loaded(now);
        Self {
            shard,
            now,
            log: Vec::new(),
            batches: Vec::new(),
            events: Vec::new(),
            view: Arc::default(),
            answers: BTreeMap::new(),
            versions: BTreeMap::new(),
            targets: 0,
            follower,
            followed: 0,
            replays_every_outcome: true,
        }
    }

    fn absorb(&mut self, outcome: Outcome) {
        let before = self.log.len();
        self.events
            .extend(outcome.events.iter().map(|begin| before + begin));
        self.log.extend(outcome.records);
        self.events.push(self.log.len());
        self.batches.push(self.log.len());
        self.targets += outcome.targets;
        for answer in outcome.replies {
            self.take(answer);
        }
        if self.replays_every_outcome {
            follow(&mut self.follower, &self.log[self.followed..]);
            self.followed = self.log.len();
            assert_eq!(
                self.follower.snapshot(),
                self.shard.snapshot(),
                "replay is the same"
            );
            compare_at_rest(&self.shard, &self.follower);
        }
    }

    /// A shard that knows nothing but a log.
    fn replay(&self, log: &[CoordinatorRecord]) -> GroupShard {
        let mut shard = GroupShard::new(self.shard.config.clone());
        follow(&mut shard, log);
        shard
    }

    /// Takes an answer: the only one to its request, in a form that the request's version has.
    fn take(&mut self, answer: Answer) {
        encode(&answer.reply, self.versions[&answer.token]);
        check_barrier(&answer);
        let token = answer.token;
        let earlier = self.answers.insert(token, (answer, self.log.len()));
        assert_eq!(earlier, None, "answered once");
    }

    /// Sends a request in a version of its API.
    pub(super) fn send(&mut self, version: i16, request: GroupRequest) -> ReplyToken {
        let token = ReplyToken(self.versions.len() as u64);
        self.versions.insert(token, version);
        let caller = Caller {
            client_id: text("app"),
            client_host: text("/127.0.0.1"),
            api_version: version,
        };
        let outcome = self.shard.handle(self.now, &caller, token, request);
        self.absorb(outcome);
        token
    }

    pub(super) fn send_join(&mut self, version: i16, body: JoinGroupRequest) -> ReplyToken {
        let fresh_member_id = Uuid::from_u128(self.versions.len() as u128);
        self.send(
            version,
            GroupRequest::Join {
                body,
                fresh_member_id,
            },
        )
    }

    /// Sends a request that is answered at once.
    pub(super) fn ask(&mut self, version: i16, request: GroupRequest) -> GroupReply {
        let token = self.send(version, request);
        self.answer(token).expect("answered at once")
    }

    pub(super) fn answer(&self, token: ReplyToken) -> Option<GroupReply> {
        self.answers.get(&token).map(|(answer, _)| answer.reply.clone())
    }

    pub(super) fn joined(&self, token: ReplyToken) -> JoinGroupResponse {
        match self.answer(token) {
            Some(GroupReply::Join(reply)) => reply,
            other => panic!("no JoinGroup: {other:?}"),
        }
    }

    pub(super) fn synced(&self, token: ReplyToken) -> SyncGroupResponse {
        match self.answer(token) {
            Some(GroupReply::Sync(reply)) => reply,
            other => panic!("no SyncGroup: {other:?}"),
        }
    }

    /// The error of the answer; `None` while there is none.
    pub(super) fn error(&self, token: ReplyToken) -> Option<ErrorCode> {
        self.answer(token).as_ref().map(error_of)
    }

    /// Lets time pass, with whatever comes due on the way.
    pub(super) fn pass(&mut self, ms: u64) {
        let end_ms = self.now.instant_ms + ms;
        while let Some(due) = self.shard.next_deadline().filter(|due| *due <= end_ms) {
            self.advance_to(due.max(self.now.instant_ms));
            let outcome = self.shard.tick(self.now);
            self.absorb(outcome);
        }
        self.advance_to(end_ms);
    }

    fn advance_to(&mut self, instant_ms: u64) {
        let passed = instant_ms - self.now.instant_ms;
        self.now.wall_ms += i64::try_from(passed).expect("not long");
        self.now.instant_ms = instant_ms;
    }

    /// Ends this coordinator; another one begins with what is in the log, and would begin with the same
    /// however much of that is compacted.
    pub(super) fn fail_over(&mut self) {
        let mut next = self.replay(&self.log);
        self.follower = self.replay(&self.log);
        self.followed = self.log.len();
        for clean in [self.log.len() / 2, self.log.len()] {
            for keeps_tombstones in [true, false] {
                let compacted = self.replay(&compacted(&self.log, clean, keeps_tombstones));
                assert_eq!(compacted.snapshot(), next.snapshot(), "compacted is the same");
                compare_at_rest(&next, &compacted);
            }
        }
        next.topics_changed(self.view.clone());
        let old = std::mem::replace(&mut self.shard, next);
        for answer in old.unload() {
            self.take(answer);
        }
        self.shard.loaded(self.now);
    }

    /// Topics with so many partitions each; their identities are [`topic_id`]s.
    pub(super) fn set_topics(&mut self, topics: &[(&str, usize)]) {
        let nowhere: &[&str] = &[];
        let topics = topics
            .iter()
            .map(|(name, partitions)| (*name, vec![nowhere; *partitions]));
        self.set_topics_in_racks(&topics.collect::<Vec<_>>());
    }

    /// The same, with the racks of each partition's replicas.
    pub(super) fn set_topics_in_racks(&mut self, topics: &[(&str, Vec<&[&str]>)]) {
        let topics = topics.iter().map(|(name, partitions)| {
            let racks = partitions.iter().map(|racks| {
                let racks = racks.iter().map(|&rack| Arc::from(rack));
                racks.collect::<BTreeSet<Arc<str>>>()
            });
            let name = TopicName::new(name).expect("a name");
            TopicView::new(topic_id(name.as_str()), name, racks.collect())
        });
        self.view = Arc::new(topics.collect());
        self.shard.topics_changed(self.view.clone());
    }

    pub(super) fn topic_name(&self, id: Uuid) -> String {
        let topic = self.view.topic_by_id(TopicId(id));
        topic.expect("assigned topics are there").name.to_string()
    }

    /// Sends a ConsumerGroupHeartbeat, which is answered at once.
    pub(super) fn beat(&mut self, body: ConsumerGroupHeartbeatRequest) -> ConsumerGroupHeartbeatResponse {
        let token = self.send_beat(1, body);
        match self.answer(token) {
            Some(GroupReply::ConsumerHeartbeat(reply)) => reply,
            other => panic!("no ConsumerGroupHeartbeat: {other:?}"),
        }
    }

    pub(super) fn send_beat(&mut self, version: i16, body: ConsumerGroupHeartbeatRequest) -> ReplyToken {
        let fresh_member_id = Uuid::from_u128(self.versions.len() as u128);
        let request = GroupRequest::ConsumerHeartbeat {
            body,
            fresh_member_id,
        };
        self.send(version, request)
    }

    /// The requests that are not answered yet.
    pub(super) fn open(&self) -> usize {
        self.versions.len() - self.answers.len()
    }

    pub(super) fn state(&self) -> &'static str {
        self.state_of("g")
    }

    pub(super) fn state_of(&self, group: &str) -> &'static str {
        let entry = self.shard.groups.get(group);
        entry.map_or("Dead", |entry| entry.group.state_name())
    }

    /// The offset that the group has for partition 0 of a topic.
    pub(super) fn committed(&mut self, topic: &str) -> i64 {
        match self.ask(8, fetch(Some(topic))) {
            GroupReply::FetchOffsets(reply) => reply.topics[0].partitions[0].committed_offset,
            other => panic!("{other:?}"),
        }
    }

    /// A stable group of the given size in its first generation, and the members' ids, the leader's
    /// first. Member number n is assigned "n".
    pub(super) fn stable(&mut self, size: usize) -> Vec<String> {
        let ids = self.completing(size);
        let texts: Vec<String> = (0..size).map(|n| n.to_string()).collect();
        let assigns: Vec<(&str, &str)> = ids
            .iter()
            .zip(&texts)
            .map(|(id, n)| (id.as_str(), n.as_str()))
            .collect();
        for id in ids.iter().skip(1) {
            self.send(5, GroupRequest::Sync(sync(id, 1, &[])));
        }
        let reply = self.ask(5, GroupRequest::Sync(sync(&ids[0], 1, &assigns)));
        assert_eq!(error_of(&reply), ErrorCode::None);
        assert_eq!((self.state(), self.open()), ("Stable", 0));
        ids
    }

    /// A group whose members have joined its first generation and not synced yet.
    pub(super) fn completing(&mut self, size: usize) -> Vec<String> {
        let tokens: Vec<ReplyToken> = (0..size)
            .map(|_| self.send_join(3, join("", &["range"])))
            .collect();
        // The delay goes on while members join.
        self.pass(6_000);
        let ids: Vec<String> = tokens
            .iter()
            .map(|token| {
                let reply = self.joined(*token);
                assert_eq!((reply.error_code, reply.generation_id), (0, 1));
                reply.member_id.to_string()
            })
            .collect();
        assert_eq!(self.joined(tokens[0]).leader.as_str(), ids[0]);
        assert_eq!(self.joined(tokens[0]).members.len(), size);
        assert_eq!(self.state(), "CompletingRebalance");
        ids
    }
}

fn follow(shard: &mut GroupShard, log: &[CoordinatorRecord]) {
    for record in log {
        let replayed = shard.replay(&record.key, record.value.as_deref());
        replayed.expect("what was written can be read");
    }
}

/// A log as a cleaner leaves it that has got so far: of each key the last record, if that says anything.
fn compacted(log: &[CoordinatorRecord], clean: usize, keeps_tombstones: bool) -> Vec<CoordinatorRecord> {
    let (clean, dirty) = log.split_at(clean);
    let places = clean.iter().enumerate();
    let last: HashMap<_, _> = places
        .clone()
        .map(|(place, record)| (&record.key, place))
        .collect();
    let kept = places.filter(|(place, record)| {
        last[&record.key] == *place && (keeps_tombstones || record.value.is_some())
    });
    kept.map(|(_, record)| record).chain(dirty).cloned().collect()
}

/// What the coordinator that wrote the records knows besides them is what follows from them, wherever a group
/// has not moved on since.
fn compare_at_rest(wrote: &GroupShard, replayed: &GroupShard) {
    for (id, replayed) in &replayed.groups {
        match (&wrote.groups[id].group, &replayed.group) {
            (Group::Classic(wrote), Group::Classic(replayed)) => {
                if let Some(wrote) = wrote.at_rest() {
                    assert_eq!(Some(wrote), replayed.at_rest(), "{id}");
                }
            }
            (Group::Consumer(wrote), Group::Consumer(replayed)) => {
                assert_eq!(wrote.ledger(), replayed.ledger(), "{id}");
            }
            (wrote, replayed) => panic!("{id} has another protocol: {wrote:#?}, {replayed:#?}"),
        }
    }
}

/// Whatever rests on records waits for them.
fn check_barrier(answer: &Answer) {
    let shows_records = match &answer.reply {
        GroupReply::Join(_)
        | GroupReply::Sync(_)
        | GroupReply::ConsumerHeartbeat(_)
        | GroupReply::CommitOffsets(_) => error_of(&answer.reply) == ErrorCode::None,
        GroupReply::Heartbeat(_) => false,
        GroupReply::Leave(_)
        | GroupReply::FetchOffsets(_)
        | GroupReply::DeleteOffsets(_)
        | GroupReply::Describe(_)
        | GroupReply::DescribeConsumer(_)
        | GroupReply::List(_)
        | GroupReply::Delete(_) => error_of(&answer.reply) == ErrorCode::None,
    };
    if shows_records {
        assert_eq!(answer.after, Barrier::Committed, "{answer:?}");
    }
}

/// An answer can be sent in the version of its request.
fn encode(reply: &GroupReply, version: i16) {
    let mut bytes = BytesMut::new();
    let encoded = match reply.clone() {
        GroupReply::Join(reply) => reply.encode(&mut bytes, version),
        GroupReply::Sync(reply) => reply.encode(&mut bytes, version),
        GroupReply::Heartbeat(reply) => reply.encode(&mut bytes, version),
        GroupReply::Leave(reply) => reply.encode(&mut bytes, version),
        GroupReply::ConsumerHeartbeat(reply) => reply.encode(&mut bytes, version),
        GroupReply::DescribeConsumer(reply) => ConsumerGroupDescribeResponse::default()
            .with_groups(vec![reply])
            .encode(&mut bytes, version),
        GroupReply::CommitOffsets(reply) => reply.encode(&mut bytes, version),
        GroupReply::FetchOffsets(reply) => OffsetFetchResponse::default()
            .with_groups(vec![reply])
            .encode(&mut bytes, version),
        GroupReply::DeleteOffsets(reply) => reply.encode(&mut bytes, version),
        GroupReply::Describe(reply) => DescribeGroupsResponse::default()
            .with_groups(vec![reply])
            .encode(&mut bytes, version),
        GroupReply::List(reply) => ListGroupsResponse::default()
            .with_groups(reply.unwrap_or_default())
            .encode(&mut bytes, version),
        GroupReply::Delete(reply) => DeleteGroupsResponse::default()
            .with_results(vec![reply])
            .encode(&mut bytes, version),
    };
    encoded.unwrap_or_else(|error| panic!("{reply:?} in version {version}: {error}"));
}
