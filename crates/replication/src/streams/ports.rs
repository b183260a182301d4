//! What the streams need of the rest of the broker: its identity, the partitions that it leads and
//! the partitions that it follows.

use std::any::Any;
use std::sync::Arc;

use futures::future::BoxFuture;
use metadata::ClusterImage;
use protocol::grpc::v1::InternalHello;
use protocol::{BrokerEpoch, BrokerId, ErrorCode, TopicPartition};
use tonic::Status;

use super::stream_state::{AppendWork, FollowerView, MendWork, ReadOrder};
use crate::exchange::{FetchVerdict, FollowerFetch, Leading, ProgressListener, ReplicaRead};

/// Ends a subscription when it is dropped.
pub type Subscription = Box<dyn Any + Send + Sync>;

/// Who this broker is.
pub trait LocalBroker: Send + Sync {
    /// The greeting for the broker `expected`.
    fn hello(&self, expected: BrokerId) -> InternalHello;

    /// Whether a peer's greeting fits: the same cluster and protocol version, and meant for this node.
    /// The refusal names the difference.
    fn check(&self, hello: &InternalHello) -> Result<(), Status>;

    /// The epoch of the current registration; `None` before the first.
    fn epoch(&self) -> Option<BrokerEpoch>;
}

/// The partitions that this broker leads.
pub trait LeaderPartitions: Send + Sync {
    /// The metadata as the partitions know it.
    fn image(&self) -> Arc<ClusterImage>;

    /// A follower's fetch, as its acknowledgement.
    fn fetch(
        &self,
        from: BrokerId,
        broker_epoch: BrokerEpoch,
        partition: TopicPartition,
        fetch: &FollowerFetch,
    ) -> Result<FetchVerdict, ErrorCode>;

    /// Where the partition stands, read as of one leader epoch.
    fn positions(&self, partition: TopicPartition) -> Result<Leading, ErrorCode>;

    /// Reads for a follower. Dropping the future gives the read up.
    fn read(&self, order: ReadOrder) -> BoxFuture<'static, Result<ReplicaRead, ErrorCode>>;

    /// Has the listener told of every move of the partition from now on.
    fn subscribe(
        &self,
        partition: TopicPartition,
        listener: Arc<dyn ProgressListener>,
    ) -> Option<Subscription>;
}

/// The partitions that this broker follows.
pub trait FollowerPartitions: FollowerView + Send + Sync {
    /// The metadata as the partitions know it.
    fn image(&self) -> Arc<ClusterImage>;

    /// Begins an append before it returns, so that the order of calls is the order of appends. The
    /// future says whether it was made; dropping it changes nothing.
    fn append(&self, append: AppendWork) -> BoxFuture<'static, bool>;

    /// Truncates or restarts the log; the future, which must be driven, says whether it was done.
    fn mend(&self, work: MendWork) -> BoxFuture<'static, bool>;

    /// Has the listener told of every move of the partition from now on.
    fn subscribe(
        &self,
        partition: TopicPartition,
        listener: Arc<dyn ProgressListener>,
    ) -> Option<Subscription>;
}
