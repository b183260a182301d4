//! What partitions, replication streams and the broker say to each other: the types of a follower's
//! fetch and its answer, and the traits by which a partition reaches what lies outside this crate's
//! state.

use bytes::Bytes;
use futures::future::BoxFuture;
use protocol::{
    BrokerEpoch, BrokerId, DirectoryId, ErrorCode, LeaderEpoch, Offset, PartitionEpoch, TopicPartition,
};

/// Where a follower's log stands.
///
/// `last_epoch` and `log_end` were read together: they name one point of one history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Epoch of the last batch; `None` for an empty log that knows no epoch.
    pub last_epoch: Option<LeaderEpoch>,
    /// The offset that the next record gets.
    pub log_end: Offset,
    /// Everything below has been made durable; never above `log_end`.
    pub durable: Offset,
    /// The first offset that is still kept.
    pub log_start: Offset,
}

/// A follower's fetch, which is also its acknowledgement (KIP-101, KIP-320, KIP-903; the broker epoch
/// belongs to the stream and is passed beside it).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FollowerFetch {
    /// The leader epoch that the follower follows.
    pub leader_epoch: LeaderEpoch,
    /// Where its log stands.
    pub position: Position,
}

/// What a leader answers to a fetch that it does not refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchVerdict {
    /// The follower's log is a prefix of the leader's: batches from `next` on follow it directly.
    Continue {
        /// The follower's log end.
        next: Offset,
    },
    /// The follower's (last epoch, log end) is not in the leader's log. It truncates by
    /// `Partition::truncate_for` and fetches again. Nothing was acknowledged.
    Diverged {
        /// The largest epoch of the leader's log that is not above the follower's; `None` when the
        /// leader's log begins with a higher one.
        epoch: Option<LeaderEpoch>,
        /// Where that epoch ends in the leader's log.
        end_offset: Offset,
    },
}

/// Whom a replica follows, and from where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Following {
    /// The leader's broker.
    pub leader: BrokerId,
    /// The epoch of its leadership.
    pub leader_epoch: LeaderEpoch,
    /// Whether the replica was in the ISR when the metadata was last seen. In-sync replicas do not
    /// share a stream with those that catch up.
    pub in_sync: bool,
    /// Where the replica's log stands.
    pub position: Position,
}

/// Where a leader stands, as of one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leading {
    /// The epoch of its leadership.
    pub leader_epoch: LeaderEpoch,
    /// The offset that the next record gets.
    pub log_end: Offset,
    /// Everything below is committed.
    pub high_watermark: Offset,
    /// The first offset that is kept.
    pub log_start: Offset,
}

/// Batches read for a follower.
#[derive(Clone, Debug)]
pub struct ReplicaRead {
    /// Whole batches as they lie in the log; empty when there is nothing after `base`.
    pub batches: Bytes,
    /// Base offset of the first batch; where the read began when there is none.
    pub base: Offset,
    /// The offset after the last batch.
    pub next: Offset,
    /// The leader's high watermark at the time of the read.
    pub high_watermark: Offset,
    /// The leader's log start at the time of the read.
    pub log_start: Offset,
}

/// Is told, briefly and often, that a partition has moved.
///
/// Called on disk and flush threads and under no lock of the partition's. An implementation must
/// return at once: note the partition in a set, wake a task. Several moves may be told as one.
pub trait ProgressListener: Send + Sync {
    /// The partition's log end, durable offset, high watermark or role has changed.
    fn progressed(&self, partition: TopicPartition);
}

/// Fetches from leaders on behalf of the replicas that follow.
pub trait Followers: Send + Sync {
    /// `Some`: the replica follows this leader in this epoch, from this position on; what was said
    /// before about the partition is void. `None`: it follows nobody.
    ///
    /// Called in the order in which roles change, on a disk thread: must not block. Data of an
    /// earlier epoch that arrives afterwards is refused by the partition itself.
    fn update(&self, partition: TopicPartition, following: Option<Following>);
}

/// A change of the ISR that a leader asks the controller for: a compare-and-set on both epochs
/// (KIP-497).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlterIsr {
    /// The wanted members, each with the broker epoch that the leader knows it by (KIP-903), in
    /// ascending order of broker.
    pub new_isr: Vec<(BrokerId, BrokerEpoch)>,
    /// The epoch of the asking leader.
    pub leader_epoch: LeaderEpoch,
    /// The partition's record as the leader knows it.
    pub partition_epoch: PartitionEpoch,
}

/// A partition's record after an accepted [`AlterIsr`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlteredPartition {
    /// The leader, where there is one.
    pub leader: Option<BrokerId>,
    /// Its epoch.
    pub leader_epoch: LeaderEpoch,
    /// The record's new epoch; the old one where nothing had to change.
    pub partition_epoch: PartitionEpoch,
    /// The in-sync replicas.
    pub isr: Vec<BrokerId>,
}

/// Why an [`AlterIsr`] brought no new record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IsrError {
    /// The controller answered: this request has changed nothing.
    #[error("the controller refused the ISR change: {0}")]
    Refused(ErrorCode),
    /// No answer came. The change may have been made, or may yet be.
    #[error("the outcome of the ISR change is unknown")]
    Unknown,
}

/// The way to the controller for ISR changes; the broker implements it over its session and gathers
/// the changes of many partitions into one request.
pub trait IsrChannel: Send + Sync {
    /// Proposes a change and answers with its outcome. A partition has at most one proposal under
    /// way. One whose outcome is unknown is proposed again unchanged: being a compare-and-set it takes
    /// effect at most once.
    fn propose(
        &self,
        partition: TopicPartition,
        change: AlterIsr,
    ) -> BoxFuture<'static, Result<AlteredPartition, IsrError>>;
}

/// Why the controller has not noted where a replica lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssignError {
    /// The controller answered: nothing was noted.
    #[error("the controller does not note the directory: {0}")]
    Refused(ErrorCode),
    /// No answer came. It may have been noted, or may yet be.
    #[error("whether the directory was noted is unknown")]
    Unknown,
}

/// The way to the controller for where replicas lie (KIP-858); the broker implements it.
pub trait DirectoryChannel: Send + Sync {
    /// Has the controller note that this broker's replica lies in `directory`. Saying it twice changes
    /// nothing.
    fn assign(
        &self,
        partition: TopicPartition,
        directory: DirectoryId,
    ) -> BoxFuture<'static, Result<(), AssignError>>;
}
