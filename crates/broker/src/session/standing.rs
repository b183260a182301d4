//! What the session's tasks share: how the broker stands, and the one way to stop leading.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;
use tokio::time::Instant;

use super::applier::ReadyImage;
use super::{ImageConsumer, SessionStatus};

/// Shared by the client, the applier and the lease.
pub(super) struct Standing {
    pub(super) consumer: Arc<dyn ImageConsumer>,
    pub(super) status: watch::Sender<SessionStatus>,
    /// When a controller last said that this broker is not fenced; `None` after a resignation.
    pub(super) contact: watch::Sender<Option<Instant>>,
    /// The newest image that may be applied.
    pub(super) ready: watch::Sender<Option<ReadyImage>>,
    /// Counts resignations. A session does not outlive one: leading again takes a new registration.
    pub(super) resignations: watch::Sender<u64>,
    resigned: AtomicBool,
}

impl Standing {
    pub(super) fn new(consumer: Arc<dyn ImageConsumer>) -> Self {
        Self {
            consumer,
            status: watch::Sender::default(),
            contact: watch::Sender::default(),
            ready: watch::Sender::default(),
            resignations: watch::Sender::default(),
            resigned: AtomicBool::new(false),
        }
    }

    /// Stops leading. What has not been applied yet is void: it may be from before the fencing.
    pub(super) fn resign(&self) {
        self.status.send_modify(|status| {
            status.unfenced = false;
            status.caught_up = false;
        });
        self.contact.send_replace(None);
        self.ready.send_replace(None);
        self.resigned.store(true, Ordering::Release);
        self.consumer.resign_all();
        self.resignations.send_modify(|count| *count += 1);
    }

    /// Whether the replicas resigned since the last call: then the next image must be compared with
    /// nothing, so that every partition is looked at again.
    pub(super) fn take_resigned(&self) -> bool {
        self.resigned.swap(false, Ordering::AcqRel)
    }
}
