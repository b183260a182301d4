//! What the active controller decides, as pure functions of the cluster image.
//!
//! No clock, socket, file or randomness: the time, seeds and fresh ids are arguments. That makes every
//! decision testable by the million, and the same in a simulation as in production.
//!
//! Rules for whoever calls them:
//! 1. A decision sees the *speculative* image: the committed one with every record in flight. After a
//!    decision its records are folded in ([`ClusterImage::speculate`]) before the next one is made.
//! 2. The records of one [`Outcome`] become visible together: they go into one entry, or between a
//!    begin and an end record where they do not fit.
//! 3. A reply waits until the entry with its records is committed; an outcome without records waits for
//!    what was in flight when it was decided, because it rests on that.
//! 4. A controller that is deposed drops its speculation and answers nothing but `NOT_CONTROLLER`. What
//!    it had proposed has an unknown outcome and is never proposed again from the same decision.
//! 5. Only [`ClusterImage::apply`] changes an image. A decision never does.

mod alter_partition;
mod brokers;
mod configs;
mod directories;
mod elections;
mod errors;
mod partition_change;
mod placement;
mod producer_ids;
mod sessions;
mod topics;

pub use alter_partition::alter_partitions;
pub use brokers::{
    Registered, begin_controlled_shutdown, fail_replicas, fence, may_shut_down, register, unfence, unregister,
};
pub use configs::{alter_configs, publish_agreed_defaults};
pub use directories::{assign_directories, fail_directories};
pub use elections::{elect_leaders, rebalance_leaders};
pub use errors::{
    AlterConfigsError, AlterPartitionError, AssignDirectoryError, BrokerError, ElectionError, RegisterError,
    TopicError, kafka_error, success,
};
pub use placement::{NotEnoughBrokers, Placer};
pub use producer_ids::{PRODUCER_ID_BLOCK, ProducerIdBlock, allocate_producer_ids};

pub use sessions::{Now, ProbeResult, SessionAction, SessionId, SessionOver, SessionTracker};
pub use topics::{MAX_PARTITIONS_PER_REQUEST, create_partitions, create_topics, delete_topics};

use std::sync::Arc;

use metadata::{BrokerRegistration, ClusterImage, configs::NodeDefaults};
use protocol::{BrokerEpoch, BrokerId, grpc::v1::MetadataRecord};

/// What a decision rests on.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The speculative image.
    pub image: &'a ClusterImage,
    /// The deciding node's own configuration, which gives topics their defaults.
    pub defaults: &'a NodeDefaults,
}

/// What was decided: the records to commit, and what to answer once they are.
#[derive(Clone, Debug, PartialEq)]
#[must_use = "records that are dropped were decided and never happen"]
pub struct Outcome<R> {
    /// To be committed together; empty where nothing changes.
    pub records: Vec<MetadataRecord>,
    /// Valid once the records are committed.
    pub reply: R,
}

impl<R> Outcome<R> {
    /// A decision that changes nothing.
    pub(crate) fn unchanged(reply: R) -> Self {
        Self {
            records: Vec::new(),
            reply,
        }
    }
}

impl<'a> View<'a> {
    /// Whether the broker may lead partitions and join in-sync sets (KIP-841).
    pub(crate) fn is_eligible(self, id: BrokerId) -> bool {
        self.image
            .brokers
            .get(&id)
            .is_some_and(|broker| broker.is_eligible())
    }

    /// The registration of exactly this incarnation (KIP-903).
    pub(crate) fn incarnation(
        self,
        id: BrokerId,
        epoch: BrokerEpoch,
    ) -> Result<&'a Arc<BrokerRegistration>, BrokerError> {
        let broker = self
            .image
            .brokers
            .get(&id)
            .ok_or(BrokerError::NotRegistered { broker: id })?;
        if broker.epoch == epoch {
            Ok(broker)
        } else {
            Err(BrokerError::StaleEpoch {
                broker: id,
                presented: epoch,
                current: broker.epoch,
            })
        }
    }
}
