//! Replication streams: how a follower's log becomes a copy of its leader's.
//!
//! [`LeaderService`] answers followers on the internal port, [`FetcherManager`] holds this broker's
//! streams to the leaders it follows. Both are thin: what is sent and believed is decided by
//! [`stream_state`], what is acknowledged by the partitions themselves.

use std::time::Duration;

mod fetcher;
mod follower_stream;
mod leader_stream;
mod link;
mod lost_leaders;
#[cfg(test)]
mod model;
mod moved;
mod ports;
mod replicas;
pub mod stream_state;
#[cfg(test)]
mod tests;
pub mod wire;

pub use fetcher::FetcherManager;
pub use leader_stream::{LeaderService, replication_server};
pub use lost_leaders::{LOST_FOR, LostLeaders};
pub use ports::{FollowerPartitions, LeaderPartitions, LocalBroker, Subscription};

/// How often each side lets the other hear from it at least.
pub const HEARTBEAT: Duration = Duration::from_millis(500);
/// After so long without a word from the other side a stream is given up.
pub const SILENCE: Duration = Duration::from_secs(3);
/// HTTP/2 flow-control window of one stream, in bytes, for both ends. Credit is what bounds a stream;
/// the window must not stop it earlier.
pub const STREAM_WINDOW_BYTES: u32 = 8 << 20;
/// HTTP/2 flow-control window of one connection, in bytes, for both ends: both lanes fit in it.
pub const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// The largest HTTP/2 frame, in bytes, for both ends.
pub const FRAME_BYTES: u32 = 1 << 20;
