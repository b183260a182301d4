//! What goes in and out of a follower's stream besides news: lanes, work for logs, messages.

use bytes::Bytes;
use protocol::{LeaderEpoch, Offset, StreamGeneration, TopicPartition};

use crate::exchange::{Following, Position};
use crate::streams::wire::Fetch;

/// Which replicas share a stream. Those that catch up have their own, with its own credit, so that
/// the bytes of a long way back do not stand before an acknowledgement that a producer waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Replicas in the ISR, or at the high watermark.
    InSync,
    /// Replicas behind it.
    CatchingUp,
}

impl Lane {
    /// The other one.
    pub const fn other(self) -> Self {
        match self {
            Self::InSync => Self::CatchingUp,
            Self::CatchingUp => Self::InSync,
        }
    }

    /// For logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::InSync => "in-sync",
            Self::CatchingUp => "catching-up",
        }
    }
}

/// The partitions that this broker follows, as a stream sees them.
pub trait FollowerView {
    /// Whom the partition's replica follows and where it stands, now; `None` when it follows nobody.
    fn following(&self, partition: TopicPartition) -> Option<Following>;
}

/// What the log of a partition is to do. Work on one partition is begun in the order in which it was
/// given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// Append; the outcome goes to [`FollowerStream::on_appended`](super::FollowerStream::on_appended).
    Append(AppendWork),
    /// Bring the log to the leader's history; the outcome goes to
    /// [`FollowerStream::on_mended`](super::FollowerStream::on_mended).
    Mend(MendWork),
}

/// A log that cannot simply be appended to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MendWork {
    /// The partition.
    pub partition: TopicPartition,
    /// The epoch that must still be followed.
    pub leader_epoch: LeaderEpoch,
    /// Where the log stood when the leader judged it. A log that is to be truncated must still end there: the other
    /// lane may have mended it since, and what was then appended may be committed.
    pub judged: Position,
    /// What is to be done.
    pub mend: Mend,
}

/// How a log is brought to the leader's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mend {
    /// It is truncated to where both logs can still agree.
    Truncate {
        /// The leader's epoch, as in [`Content::Diverged`](crate::streams::wire::Content::Diverged).
        epoch: Option<LeaderEpoch>,
        /// Where it ends there.
        end_offset: Offset,
    },
    /// It begins anew, empty, at the leader's log start, which it must still end before.
    Restart {
        /// The leader's log start.
        log_start: Offset,
    },
}

/// Batches to append, or no batches and only the leader's positions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppendWork {
    /// The partition.
    pub partition: TopicPartition,
    /// The conversation that it belongs to.
    pub generation: StreamGeneration,
    /// The epoch that must still be followed.
    pub leader_epoch: LeaderEpoch,
    /// Where the log must end.
    pub previous: Offset,
    /// Whole batches; may be empty.
    pub batches: Bytes,
    /// The leader's high watermark.
    pub high_watermark: Offset,
    /// The leader's log start.
    pub log_start: Offset,
}

/// What to send to the leader.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamMessage {
    /// Fetches and acknowledgements.
    pub fetches: Vec<Fetch>,
    /// Bytes granted in addition.
    pub credit: u64,
    /// Partitions not followed over this stream any more.
    pub stop: Vec<TopicPartition>,
    /// Every open conversation stands where its last fetch said.
    pub heartbeat: bool,
}
