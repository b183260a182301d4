//! The replica manager's partitions, as the streams reach them.

use std::future::ready;
use std::sync::Arc;

use futures::future::BoxFuture;
use metadata::ClusterImage;
use protocol::{BrokerEpoch, BrokerId, ErrorCode, TopicPartition};

use super::ports::{FollowerPartitions, LeaderPartitions, Subscription};
use super::stream_state::{AppendWork, FollowerView, Mend, MendWork, ReadOrder};
use crate::{
    FetchRefused, FetchVerdict, FollowerFetch, Following, Leading, ProgressListener, ReplicaManager,
    ReplicaRead, RoleError,
};

impl LeaderPartitions for ReplicaManager {
    fn image(&self) -> Arc<ClusterImage> {
        Self::image(self)
    }

    fn fetch(
        &self,
        from: BrokerId,
        broker_epoch: BrokerEpoch,
        partition: TopicPartition,
        fetch: &FollowerFetch,
    ) -> Result<FetchVerdict, ErrorCode> {
        self.partition(partition)?
            .on_follower_fetch(from, broker_epoch, fetch)
            .map_err(|refused| {
                tracing::debug!(%partition, follower = %from, %refused, "fetch refused");
                FetchRefused::code(refused)
            })
    }

    fn positions(&self, partition: TopicPartition) -> Result<Leading, ErrorCode> {
        self.partition(partition)?.leading().map_err(RoleError::code)
    }

    fn read(&self, order: ReadOrder) -> BoxFuture<'static, Result<ReplicaRead, ErrorCode>> {
        let replica = self.partition(order.partition);
        Box::pin(async move {
            replica?
                .read_for_follower(order.from, order.max_bytes, order.leader_epoch)
                .await
        })
    }

    fn subscribe(
        &self,
        partition: TopicPartition,
        listener: Arc<dyn ProgressListener>,
    ) -> Option<Subscription> {
        let replica = self.partition(partition).ok()?;
        Some(Box::new(replica.subscribe_append(listener)))
    }
}

impl FollowerView for ReplicaManager {
    fn following(&self, partition: TopicPartition) -> Option<Following> {
        self.partition(partition).ok()?.following()
    }
}

impl FollowerPartitions for ReplicaManager {
    fn image(&self) -> Arc<ClusterImage> {
        Self::image(self)
    }

    fn append(&self, append: AppendWork) -> BoxFuture<'static, bool> {
        let partition = append.partition;
        let Ok(replica) = self.partition(partition) else {
            return Box::pin(ready(false));
        };
        let appending = replica.append_replicated(
            append.leader_epoch,
            append.previous,
            append.batches,
            append.high_watermark,
            append.log_start,
        );
        Box::pin(async move {
            let outcome = appending.await;
            if let Err(error) = &outcome {
                tracing::debug!(%partition, %error, "replicated batches not appended");
            }
            outcome.is_ok()
        })
    }

    fn mend(&self, work: MendWork) -> BoxFuture<'static, bool> {
        let Ok(replica) = self.partition(work.partition) else {
            return Box::pin(ready(false));
        };
        Box::pin(async move {
            let outcome = match work.mend {
                Mend::Truncate { epoch, end_offset } => {
                    let diverged = (epoch, end_offset);
                    replica
                        .truncate_for(work.leader_epoch, work.judged, diverged)
                        .await
                }
                Mend::Restart { log_start } => replica.restart_at(work.leader_epoch, log_start).await,
            };
            if let Err(error) = &outcome {
                tracing::debug!(partition = %work.partition, %error, "log not brought to the leader's history");
            }
            outcome.is_ok()
        })
    }

    fn subscribe(
        &self,
        partition: TopicPartition,
        listener: Arc<dyn ProgressListener>,
    ) -> Option<Subscription> {
        LeaderPartitions::subscribe(self, partition, listener)
    }
}
