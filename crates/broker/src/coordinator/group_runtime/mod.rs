//! The group coordinator at work: one task for each partition of `__consumer_offsets` that this broker
//! leads, and the handle through which handlers reach them.
//!
//! **Owns** the life of the shards ([`super::group`] decides, this runs): loading them from the log when
//! this broker becomes the leader, queues and rounds, the order of answers and commits, timers, the
//! offsets topic itself.
//!
//! **Never** decides anything about a group, and never answers from a shard what the high watermark has
//! not reached, unless the shard says that it may.
//!
//! ```text
//! handler ──▶ GroupCoordinator ──▶ queue ──▶ ShardTask ──▶ GroupShard (pure)
//!                                                │  ▲
//!                                        journal ▼  │ loader
//!                                          replication::Partition
//! ```

mod clock;
mod counts;
mod journal;
mod loader;
mod offsets_topic;
mod pauses;
pub(crate) mod placement;
mod service;
mod settings;
mod shard_task;
mod supervisor;
#[cfg(test)]
pub(crate) mod tests;
mod topics;

pub(crate) use service::located_in;
pub use service::{GroupCoordinator, Located};
pub use supervisor::{GroupCoordinatorParts, start};
