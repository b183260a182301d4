//! What this broker does as the leader, for a client of its own or in another broker's name.

use bytes::Bytes;
use protocol::{ErrorCode, TopicPartition};
use replication::{Acks, FetchedRecords};
use tokio::time::Instant;

use super::{Appended, PartitionRead};
use crate::{
    context::BrokerContext,
    partitions::{
        append::{self, Producing, Refusal},
        read::{self, Limits, Wanted},
    },
};

/// Appends one batch and waits for what `acks` says; without acknowledgement until it is in the log.
pub(super) async fn append(
    broker: &BrokerContext,
    tp: TopicPartition,
    batch: Bytes,
    acks: Acks,
    deadline: Instant,
) -> Result<Appended, Refusal> {
    let image = broker.images.current();
    let topic = image.topics.get(&tp.topic_id).ok_or_else(|| {
        Refusal::new(
            ErrorCode::UnknownTopicId,
            format!("broker {} does not know the topic", broker.config.node_id),
        )
    })?;
    let producing = Producing {
        acks,
        zstd: true,
        internal_topics: false,
    };
    let mut ticket = append::begin(broker, &image, topic, tp.partition, Some(batch), producing).await?;
    let result = match acks {
        Acks::None => ticket.appended().await?,
        Acks::Leader | Acks::All => ticket.committed(deadline).await?,
    };
    Ok(Appended {
        base_offset: result.base_offset,
        log_append_time: result.log_append_time,
    })
}

pub(super) async fn read(
    broker: &BrokerContext,
    reads: &[PartitionRead],
    limits: Limits,
) -> Vec<Result<FetchedRecords, ErrorCode>> {
    let wanted: Vec<Wanted> = reads
        .iter()
        .map(|read| Wanted {
            replica: broker.replicas.partition(read.tp),
            from: read.from,
            max_bytes: limits.max_bytes,
            current_leader_epoch: None,
            last_fetched_epoch: read.last_epoch,
        })
        .collect();
    read::read(&wanted, limits).await
}
