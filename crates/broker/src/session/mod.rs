//! The broker's conversation with the active controller, and what it learns from it: the image of the
//! cluster.
//!
//! Three tasks. The *client* holds the stream, folds committed entries into an image and heartbeats; it
//! finds the active controller again whenever the stream ends. The *applier* brings the replicas to the
//! newest image and then publishes it: however long that takes, heartbeats go on. The *lease* resigns
//! leaderships when no controller has been heard of for the session timeout.
//!
//! Nothing is shown or applied before the image contains the broker's own registration: entries from
//! before it describe an earlier run, whose epochs this process must not resume.

mod applier;
mod client;
mod conversation;
mod image_store;
mod lease;
mod standing;

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use metadata::ClusterImage;
use protocol::grpc::v1::Listener;
use protocol::{BrokerEpoch, DirectoryId, TopicPartition};
use tokio::sync::watch;

pub use client::{SessionHandle, SessionParts, start};
pub use conversation::SessionRefused;
pub use image_store::{ImageBehind, ImageStore};

/// What becomes of images and of lost sessions: the replicas of this broker.
pub trait ImageConsumer: Send + Sync + 'static {
    /// Brings the replicas from `older` to `newer`. `epoch` is this broker's current epoch.
    fn apply_image<'a>(
        &'a self,
        older: &'a ClusterImage,
        newer: Arc<ClusterImage>,
        epoch: BrokerEpoch,
    ) -> BoxFuture<'a, ()>;

    /// The controller has fenced this broker, or must be assumed to have: nothing here leads any more.
    fn resign_all(&self);

    /// Replicas that failed on this broker's disks and must leave ISR and leadership.
    fn failed_replicas(&self) -> Vec<TopicPartition>;

    /// Log directories that went offline since the start.
    fn offline_directories(&self) -> Vec<DirectoryId>;

    /// Changes whenever one of the two answers above does: the controller is told at once.
    fn failures(&self) -> watch::Receiver<u64>;
}

/// How the session is kept.
#[derive(Clone, Copy, Debug)]
pub struct SessionTimings {
    /// Between heartbeats.
    pub heartbeat: Duration,
    /// Without contact for so long the broker takes itself for fenced.
    pub timeout: Duration,
}

/// What a broker tells the controller of itself.
#[derive(Clone, Debug)]
pub struct Introduction {
    /// What clients connect to.
    pub listeners: Vec<Listener>,
    /// `host:port` of the internal port.
    pub internal_address: String,
    /// `broker.rack`.
    pub rack: Option<String>,
    /// Every online log directory.
    pub log_dirs: Vec<DirectoryId>,
    /// How many configured log directories could not be used at the start: what was in them may come back.
    pub unusable_log_dirs: usize,
    /// What the last run acknowledged may be gone.
    pub may_have_lost_data: bool,
    /// `log.flush.interval.messages` where this node's own file sets it: the controller must know which
    /// partitions were acknowledged from the page cache.
    pub static_flush_messages: Option<i64>,
    /// Partitions in which recovery cut or lost something.
    pub damaged: Vec<TopicPartition>,
}

/// How the broker stands with the controller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionStatus {
    /// A session is open and the broker is registered in it.
    pub registered: bool,
    /// The controller says that the broker has applied what it must have.
    pub caught_up: bool,
    /// The broker leads and serves. False before the controller said so, and again once the broker was
    /// fenced or must assume it.
    pub unfenced: bool,
    /// Every leadership has moved away: a controlled shutdown may end.
    pub may_shut_down: bool,
}

impl SessionStatus {
    /// Whether the broker serves clients.
    pub fn is_ready(self) -> bool {
        self.registered && self.caught_up && self.unfenced
    }
}
