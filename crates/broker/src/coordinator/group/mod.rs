//! The group coordinator as a pure state machine: all groups of one `__consumer_offsets` partition.
//!
//! **Owns** the rules of Kafka's two group protocols, of committed offsets and of the records in
//! which both are kept. A [`GroupShard`] takes a request and the time, and returns an [`Outcome`]:
//! records to append, and answers, each with the [`Barrier`] that it waits for.
//!
//! **Never** reads a clock, draws a random number, waits, locks or touches a file or a socket: what
//! it cannot know (the time, a fresh member id's UUID) comes in with the event.
//!
//! State changes at once, before its record is committed, and by the same function that replays the
//! log. When an append fails the shard is dropped and loaded again
//! (`docs/decisions/0014-group-coordinator.md`).
//!
//! A group is of the classic protocol or of that of KIP-848, and may become one of the other while it runs.
//! What is recorded decides which it is.

mod assignor;
mod classic;
mod config;
mod consumer;
mod consumer_requests;
mod effects;
mod embedded;
mod ids;
mod offsets;
mod record_bounds;
pub mod records;
mod replies;
mod request;
mod requests;
mod shard;
mod subscription;
#[cfg(test)]
mod tests;
mod timers;
mod topics;
mod views;

pub use assignor::{Assignment, AssignorKind, MemberSpec, Problem};
pub use config::{ConsumerOverrides, GroupConfig, MigrationPolicy};
pub use consumer::{ConsumerRecords, MemberRecords};
pub use ids::{GenerationId, GroupEpoch, GroupId, InstanceId, MemberId};
pub use records::{CoordinatorRecord, RecordError};
pub use request::{Answer, Barrier, Caller, GroupReply, GroupRequest, Now, Outcome, ReplyToken};
pub use shard::GroupShard;
pub use subscription::{PatternError, TopicPattern};
pub use topics::{TopicView, TopicsView};
pub use views::{GROUP_STATES, GroupKind, GroupLag, GroupSnapshot, LagView, Snapshot};
