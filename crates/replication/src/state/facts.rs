//! What a partition's state machine is told about the world with each event.

use metadata::ClusterImage;
use protocol::{BrokerEpoch, BrokerId, LeaderEpoch, Offset};

use crate::Now;

/// Where the replica's log stands. `start ≤ end` and `durable ≤ end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogView {
    /// The first offset that is kept.
    pub start: Offset,
    /// The offset that the next record gets.
    pub end: Offset,
    /// Everything below is durable, in the meaning that the topic's `flush.messages` gives the word.
    pub durable: Offset,
}

/// The epochs of a log (KIP-101, KIP-279).
pub trait EpochLookup {
    /// The largest epoch that is not above `epoch`, and the offset after its last record; `None` where
    /// the log knows no such epoch.
    fn end_offset_for_epoch(&self, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)>;
}

/// The brokers, as the latest metadata shows them.
pub trait Brokers {
    /// The epoch of the broker's current registration.
    fn epoch(&self, broker: BrokerId) -> Option<BrokerEpoch>;

    /// Whether the broker may join in-sync sets: neither fenced nor shutting down (KIP-841).
    fn is_eligible(&self, broker: BrokerId) -> bool;
}

impl Brokers for ClusterImage {
    fn epoch(&self, broker: BrokerId) -> Option<BrokerEpoch> {
        self.brokers.get(&broker).map(|registration| registration.epoch)
    }

    fn is_eligible(&self, broker: BrokerId) -> bool {
        self.brokers
            .get(&broker)
            .is_some_and(|registration| registration.is_eligible())
    }
}

/// The world at the moment of an event.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    /// The replica's own log.
    pub log: LogView,
    /// The brokers.
    pub brokers: &'a dyn Brokers,
    /// The time.
    pub now: Now,
}

impl std::fmt::Debug for Facts<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Facts")
            .field("log", &self.log)
            .field("now", &self.now)
            .finish_non_exhaustive()
    }
}
