//! Who wants to know when a partition moves.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use protocol::TopicPartition;

use crate::ProgressListener;

/// What a listener waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interest {
    /// Everything: the log end, the durable offset, the high watermark, the role.
    AnyMove,
    /// The high watermark and the role.
    HighWatermark,
}

type List = Vec<(u64, Interest, Arc<dyn ProgressListener>)>;

/// A partition's listeners. Copied when they change, which is rare, and walked without a lock.
#[derive(Default)]
pub(crate) struct Listeners {
    list: ArcSwap<List>,
    next_id: AtomicU64,
}

/// Keeps a listener subscribed for as long as it is held.
#[must_use = "dropping it ends the subscription"]
pub struct Subscription {
    listeners: Weak<Listeners>,
    id: u64,
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Listeners {
    pub(crate) fn subscribe(
        self: &Arc<Self>,
        interest: Interest,
        listener: Arc<dyn ProgressListener>,
    ) -> Subscription {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        self.list.rcu(|list| {
            let mut list = List::clone(list);
            list.push((id, interest, Arc::clone(&listener)));
            list
        });
        Subscription {
            listeners: Arc::downgrade(self),
            id,
        }
    }

    /// Tells those whom it concerns; `high_watermark`: it, or the role, has changed.
    pub(crate) fn tell(&self, partition: TopicPartition, high_watermark: bool) {
        for (_, interest, listener) in self.list.load().iter() {
            if high_watermark || *interest == Interest::AnyMove {
                listener.progressed(partition);
            }
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(listeners) = self.listeners.upgrade() {
            listeners.list.rcu(|list| {
                let mut list = List::clone(list);
                list.retain(|(id, _, _)| *id != self.id);
                list
            });
        }
    }
}
