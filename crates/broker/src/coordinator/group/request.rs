//! What comes into a [`GroupShard`](super::GroupShard) and what goes out.

use kafka_protocol::{
    messages::{
        self, ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, HeartbeatRequest,
        HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse,
        ListGroupsRequest, OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest,
        OffsetDeleteResponse, SyncGroupRequest, SyncGroupResponse,
        consumer_group_describe_response::DescribedGroup as DescribedConsumerGroup,
        delete_groups_response::DeletableGroupResult, describe_groups_response::DescribedGroup,
        list_groups_response::ListedGroup, offset_fetch_request::OffsetFetchRequestGroup,
        offset_fetch_response::OffsetFetchResponseGroup,
    },
    protocol::StrBytes,
};
use protocol::ErrorCode;
use uuid::Uuid;

use super::{records::CoordinatorRecord, replies};

/// The time of an event, on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// A clock that never goes back, in milliseconds since any fixed moment: timers run by it.
    pub instant_ms: u64,
    /// Milliseconds since 1970: what records keep, and offsets expire by.
    pub wall_ms: i64,
}

/// Names one request until it is answered. It comes in with the request and goes out with its
/// answer; every token is given back exactly once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplyToken(pub u64);

/// Who asks, and in which version of the API.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The client id from the request's header; a new member's id begins with it.
    pub client_id: StrBytes,
    /// The client's address, as `DescribeGroups` shows it.
    pub client_host: StrBytes,
    /// The version of the request, which the answer will have too.
    pub api_version: i16,
}

/// A request about one group (or, for `List`, about all of them).
#[derive(Clone, Debug)]
pub enum GroupRequest {
    /// JoinGroup 0–9.
    Join {
        /// The request.
        body: JoinGroupRequest,
        /// Makes the member's id unique, if it needs one.
        fresh_member_id: Uuid,
    },
    /// SyncGroup 0–5.
    Sync(SyncGroupRequest),
    /// Heartbeat 0–4.
    Heartbeat(HeartbeatRequest),
    /// LeaveGroup 0–5.
    Leave(LeaveGroupRequest),
    /// ConsumerGroupHeartbeat 0–1.
    ConsumerHeartbeat {
        /// The request.
        body: ConsumerGroupHeartbeatRequest,
        /// The member's id, if it needs one.
        fresh_member_id: Uuid,
    },
    /// OffsetCommit 2–9, with topics by name. Topics that do not exist are sorted out before.
    CommitOffsets(OffsetCommitRequest),
    /// One group of an OffsetFetch 1–9 (of versions below 8, its only one).
    FetchOffsets {
        /// Which offsets; no topics means all that the group has.
        group: OffsetFetchRequestGroup,
        /// Whether offsets with a transaction pending on them are to be refused rather than told as
        /// they were before it. Commits inside transactions are not served yet, so none is pending.
        require_stable: bool,
    },
    /// OffsetDelete 0.
    DeleteOffsets(OffsetDeleteRequest),
    /// One group of a DescribeGroups 0–6.
    Describe(messages::GroupId),
    /// One group of a ConsumerGroupDescribe 0–1.
    DescribeConsumer(messages::GroupId),
    /// ListGroups 0–5: the groups of this shard.
    List(ListGroupsRequest),
    /// One group of a DeleteGroups 0–2.
    Delete(messages::GroupId),
}

/// The answer to the [`GroupRequest`] of the same name.
#[derive(Clone, Debug, PartialEq)]
pub enum GroupReply {
    /// JoinGroup.
    Join(JoinGroupResponse),
    /// SyncGroup.
    Sync(SyncGroupResponse),
    /// Heartbeat.
    Heartbeat(HeartbeatResponse),
    /// LeaveGroup.
    Leave(LeaveGroupResponse),
    /// ConsumerGroupHeartbeat.
    ConsumerHeartbeat(ConsumerGroupHeartbeatResponse),
    /// OffsetCommit.
    CommitOffsets(OffsetCommitResponse),
    /// One group's part of OffsetFetch.
    FetchOffsets(OffsetFetchResponseGroup),
    /// OffsetDelete.
    DeleteOffsets(OffsetDeleteResponse),
    /// One group's part of DescribeGroups.
    Describe(DescribedGroup),
    /// One group's part of ConsumerGroupDescribe.
    DescribeConsumer(DescribedConsumerGroup),
    /// This shard's part of ListGroups, or why there is none.
    List(Result<Vec<ListedGroup>, ErrorCode>),
    /// One group's part of DeleteGroups.
    Delete(DeletableGroupResult),
}

impl GroupRequest {
    /// The answer that refuses the whole request, in the shape that version of it wants, and with a code
    /// that clients know how to take there.
    pub fn refused(&self, api_version: i16, error: ErrorCode) -> GroupReply {
        let error = self.understood(error);
        match self {
            Self::Join { body, .. } => replies::join_refused(api_version, body.member_id.clone(), error),
            Self::Sync(_) => replies::sync_refused(error),
            Self::Heartbeat(_) => replies::heartbeat(error),
            Self::Leave(_) => replies::leave_refused(error),
            Self::ConsumerHeartbeat { .. } => replies::consumer_heartbeat_refused(error, None),
            Self::CommitOffsets(body) => replies::commit_refused(body, error),
            Self::FetchOffsets { group, .. } => replies::fetch_refused(group, error),
            Self::DeleteOffsets(_) => replies::delete_offsets_refused(error),
            Self::Describe(group) => replies::describe_refused(group, error),
            Self::DescribeConsumer(group) => replies::describe_consumer_refused(group, error, None),
            Self::List(_) => GroupReply::List(Err(error)),
            Self::Delete(group) => replies::delete(group, error),
        }
    }

    /// The code that stands for `error` in an answer to this request.
    fn understood(&self, error: ErrorCode) -> ErrorCode {
        match (self, error) {
            // Kafka's coordinator says so too: a member goes on until the groups are loaded.
            (Self::Heartbeat(_), ErrorCode::CoordinatorLoadInProgress) => ErrorCode::None,
            // Clients know no LOAD_IN_PROGRESS here and would give up; joining again is harmless.
            (Self::Sync(_), ErrorCode::CoordinatorLoadInProgress) => ErrorCode::RebalanceInProgress,
            // Java's consumers before 3.9 know no NOT_AVAILABLE here.
            (Self::FetchOffsets { .. }, ErrorCode::CoordinatorNotAvailable) => ErrorCode::NotCoordinator,
            _ => error,
        }
    }

    /// The group that is asked about; `None` for a question about all of them.
    pub fn group_id(&self) -> Option<&str> {
        match self {
            Self::Join { body, .. } => Some(&body.group_id),
            Self::Sync(body) => Some(&body.group_id),
            Self::Heartbeat(body) => Some(&body.group_id),
            Self::Leave(body) => Some(&body.group_id),
            Self::ConsumerHeartbeat { body, .. } => Some(&body.group_id),
            Self::CommitOffsets(body) => Some(&body.group_id),
            Self::FetchOffsets { group, .. } => Some(&group.group_id),
            Self::DeleteOffsets(body) => Some(&body.group_id),
            Self::Describe(group) | Self::DescribeConsumer(group) | Self::Delete(group) => Some(group),
            Self::List(_) => None,
        }
    }
}

/// When an answer may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Barrier {
    /// At once: it tells nothing that a failover could take back.
    Now,
    /// Once everything that this shard had returned for appending, up to and including the records
    /// of this [`Outcome`], is below the high watermark.
    Committed,
}

/// An answer to one request.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Which request.
    pub token: ReplyToken,
    /// What to say.
    pub reply: GroupReply,
    /// When to say it.
    pub after: Barrier,
}

/// What an event led to.
///
/// The records are to be appended in their order. Those that change a group's protocol are the first of their
/// event and fit one batch; what is more than that (a commit of very many offsets, a group deleted, offsets
/// expired) may be spread over several.
#[derive(Clone, Debug, Default)]
#[must_use = "records are lost, and clients wait for ever"]
pub struct Outcome {
    /// To be appended to the partition, in this order, after those of earlier outcomes.
    pub records: Vec<CoordinatorRecord>,
    /// Where in [`records`](Self::records) those of another event begin, in ascending order. What follows
    /// from one event belongs together: it goes into one batch wherever it fits one.
    pub events: Vec<usize>,
    /// Answers to this request and to earlier ones that waited.
    pub replies: Vec<Answer>,
    /// How many target assignments were computed: a group of the KIP-848 protocol moves on with each.
    pub targets: u64,
}

impl Outcome {
    /// Has what is recorded from here on follow from another event than what was before.
    pub(super) fn begin_event(&mut self) {
        self.events.push(self.records.len());
    }

    /// Adds what came out of a later event, or of several.
    pub fn append(&mut self, later: Self) {
        self.begin_event();
        let before = self.records.len();
        self.events
            .extend(later.events.iter().map(|begin| before + begin));
        self.records.extend(later.records);
        self.replies.extend(later.replies);
        self.targets += later.targets;
    }
}
