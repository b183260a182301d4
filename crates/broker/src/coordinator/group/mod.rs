//! The group coordinator as a pure state machine: all groups of one `__consumer_offsets` partition.
//!
//! **Owns** the rules of Kafka's classic group protocol, of committed offsets and of the records in
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
//! A group of the KIP-848 protocol will be a second variant of `Group` beside the classic one; its
//! records (keys of versions 3 to 8) are refused by name until then.

mod assignor;
mod classic;
mod config;
mod effects;
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
pub use config::GroupConfig;
pub use ids::{GenerationId, GroupId, InstanceId, MemberId};
pub use records::{CoordinatorRecord, RecordError};
pub use request::{Answer, Barrier, Caller, GroupReply, GroupRequest, Now, Outcome, ReplyToken};
pub use shard::GroupShard;
pub use subscription::{PatternError, TopicPattern};
pub use topics::{TopicView, TopicsView};
pub use views::{GroupLag, GroupSnapshot, LagView, Snapshot};
