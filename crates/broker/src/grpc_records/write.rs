//! Writes records of one topic: chooses their partitions, makes batches, and has the leaders append them.
//!
//! Partitions are written side by side, the batches of one partition one after the other. With acks=all a
//! batch is sent again, to whoever leads by then, until it is acknowledged or the time is up: its sequence
//! number keeps it from being written twice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use metadata::{
    ClusterImage, Topic,
    configs::{TopicCompression, TopicSettings},
};
use protocol::batch::Compression;
use protocol::grpc::v1::{KafkaError, NewRecord, ProducedRecord};
use protocol::{BrokerId, ErrorCode, LeaderEpoch, PartitionIndex, TopicName, TopicPartition};
use replication::Acks;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tonic::Status;

use super::batches::{self, Placed, Sequence};
use super::partitioner::Partitioner;
use super::producers::Producer;
use super::{RecordsService, status};
use crate::auto_create;
use crate::partitions::append::{Refusal, now_ms};
use crate::relay::{Appended, kafka_error};

/// Before a leader is asked again that has just refused.
const PAUSE: Duration = Duration::from_millis(50);

/// Records to write, all in the same way.
#[derive(Debug)]
pub(super) struct Writing {
    pub(super) topic: String,
    pub(super) records: Vec<NewRecord>,
    pub(super) acks: Acks,
    pub(super) compression: Compression,
    pub(super) deadline: Instant,
}

/// What all batches of a [`Writing`] have in common.
#[derive(Clone, Copy)]
struct Manner {
    acks: Acks,
    compression: Compression,
    deadline: Instant,
    /// The largest batch of more than one record, in bytes before compression.
    limit: usize,
}

/// What became of one partition's records.
struct Lane {
    tp: TopicPartition,
    results: Vec<(usize, ProducedRecord)>,
    /// Where the next batch goes on; `None` where the fate of one is unknown.
    sequence: Option<Sequence>,
}

impl RecordsService {
    /// Writes everything, or what can be written: one result for each record, in their order. `producer` is
    /// borrowed where it is needed and kept for the next call; it is gone after a failure.
    pub(super) async fn write(
        &self,
        writing: Writing,
        producer: &mut Option<Producer>,
    ) -> Result<Vec<ProducedRecord>, Status> {
        let topic = timeout_at(writing.deadline, self.topic_to_write(&writing.topic));
        let topic = topic.await.unwrap_or_else(|_| {
            let why = format!("topic {} was not there in time", writing.topic);
            Err(status::refused(ErrorCode::LeaderNotAvailable, why))
        })?;
        let image = self.broker.images.current();
        let settings = TopicSettings::resolve(&image, &topic.name, &self.broker.config.node_defaults);
        let compressed = writing.compression != Compression::None
            || matches!(settings.compression, TopicCompression::Fixed(codec) if codec != Compression::None);
        let manner = Manner {
            acks: writing.acks,
            compression: writing.compression,
            deadline: writing.deadline,
            limit: batches::limit(settings.max_message_bytes as usize, compressed),
        };
        let mut results = vec![ProducedRecord::default(); writing.records.len()];
        let placed = place(&topic, &self.partitioner, writing.records, &mut results);
        let idempotent = manner.acks == Acks::All && !placed.is_empty();
        // Until everything is acknowledged it is nobody's.
        let mut borrowed = match producer.take().filter(Producer::is_fresh) {
            Some(producer) => Some(producer),
            None if idempotent => Some(
                self.producers
                    .borrow(manner.deadline)
                    .await
                    .map_err(|error| status::refused(error, "there is no producer id at the moment"))?,
            ),
            None => None,
        };
        let lanes = placed.into_iter().map(|(partition, records)| {
            let tp = TopicPartition::new(topic.id, partition);
            let sequence = borrowed
                .as_ref()
                .filter(|_| idempotent)
                .map(|producer| producer.sequence(tp));
            self.write_partition(tp, records, sequence, manner)
        });
        let lanes: Vec<Lane> = futures::future::join_all(lanes).await;
        let mut all_known = true;
        for lane in lanes {
            match (lane.sequence, &mut borrowed) {
                (Some(sequence), Some(producer)) => producer.reached(lane.tp, sequence),
                _ => all_known &= !idempotent,
            }
            for (position, result) in lane.results {
                results[position] = result;
            }
        }
        *producer = borrowed.filter(|_| all_known);
        Ok(results)
    }

    /// The topic, which is created where that is allowed.
    async fn topic_to_write(&self, name: &str) -> Result<Arc<Topic>, Status> {
        let valid = TopicName::new(name)
            .map_err(|error| status::refused(ErrorCode::InvalidTopicException, error.to_string()))?;
        if valid.is_internal() {
            let why = format!("{name} is written by brokers alone");
            return Err(status::refused(ErrorCode::InvalidTopicException, why));
        }
        if let Some(topic) = self.broker.images.current().topic(name) {
            return Ok(Arc::clone(topic));
        }
        let mut error = ErrorCode::UnknownTopicOrPartition;
        if self.broker.config.auto_create_topics {
            let failures = auto_create::create_missing(&self.broker, [name].into_iter()).await;
            error = failures.get(name).copied().unwrap_or(error);
        }
        let image = self.broker.images.current();
        image
            .topic(name)
            .cloned()
            .ok_or_else(|| status::refused(error, format!("there is no topic {name}")))
    }

    /// Writes one partition's records. After a batch that fails, the rest is not tried: it would overtake.
    async fn write_partition(
        &self,
        tp: TopicPartition,
        records: Vec<Placed>,
        mut sequence: Option<Sequence>,
        manner: Manner,
    ) -> Lane {
        let mut results = Vec::with_capacity(records.len());
        let mut rest = &records[..];
        while !rest.is_empty() {
            let (batch, count) = batches::build(rest, sequence, manner.limit);
            let (now, later) = rest.split_at(count);
            match self.write_batch(tp, batch, manner).await {
                Ok(appended) => {
                    sequence = sequence.map(|sequence| sequence.after(count));
                    results.extend(written(tp, now, appended));
                }
                Err(refusal) => {
                    // A batch that was refused was not numbered either, but only the leader's word for
                    // its records is as good as that.
                    sequence = None;
                    results.extend(failed(now, later, &refusal));
                    break;
                }
            }
            rest = later;
        }
        Lane {
            tp,
            results,
            sequence,
        }
    }

    /// Has one batch appended by whoever leads, in as many attempts as are safe. Once an attempt may have
    /// written it, no refusal of a later one says that it was not: the time is up, then.
    async fn write_batch(
        &self,
        tp: TopicPartition,
        batch: Bytes,
        manner: Manner,
    ) -> Result<Appended, Refusal> {
        let batch = batches::compress(&self.broker, batch, manner.compression).await?;
        let mut images = self.broker.images.subscribe();
        let mut may_be_written = false;
        loop {
            let image = Arc::clone(&images.borrow_and_update());
            let (refusal, attempted) = match leader(&image, tp)? {
                None => {
                    let why = format!("nobody leads partition {}", tp.partition);
                    (Refusal::new(ErrorCode::LeaderNotAvailable, why), false)
                }
                Some((leader, epoch)) => {
                    let attempt = self
                        .relay
                        .append(leader, tp, batch.clone(), manner.acks, manner.deadline);
                    let outcome = if manner.acks == Acks::All {
                        tokio::select! {
                            outcome = attempt => outcome,
                            // It may hang at a broker that nobody follows any more.
                            () = replaced(self.broker.images.subscribe(), tp, epoch) => {
                                Err(Refusal::new(ErrorCode::NotLeaderOrFollower, "the leader has changed"))
                            }
                        }
                    } else {
                        attempt.await
                    };
                    match outcome {
                        Ok(appended) => return Ok(appended),
                        Err(refusal) => (refusal, true),
                    }
                }
            };
            may_be_written |= attempted && leaves_open(refusal.error);
            let gives_up = !refusal.error.is_retriable() || (manner.acks == Acks::None && attempted);
            if gives_up || Instant::now() + PAUSE >= manner.deadline {
                return Err(if may_be_written {
                    in_doubt(refusal)
                } else {
                    refusal
                });
            }
            tracing::debug!(partition = ?tp, error = %refusal.error, "appending again");
            // News of the cluster, or a moment later. Nobody else publishes, so it is one of the two.
            let _ = timeout_at(Instant::now() + PAUSE, images.changed()).await;
        }
    }
}

/// Whether the batch may be in the log, or come into it, after an attempt that ended so. A leader that is none
/// any more may say so after it has appended.
fn leaves_open(error: ErrorCode) -> bool {
    matches!(
        error,
        ErrorCode::NetworkException
            | ErrorCode::RequestTimedOut
            | ErrorCode::NotLeaderOrFollower
            | ErrorCode::NotEnoughReplicasAfterAppend
    )
}

/// The refusal of a batch that may have been written all the same.
fn in_doubt(last: Refusal) -> Refusal {
    match last.error {
        ErrorCode::RequestTimedOut | ErrorCode::NotEnoughReplicasAfterAppend => last,
        other => Refusal::new(
            ErrorCode::RequestTimedOut,
            format!(
                "it may have been written; the last attempt: {other}: {}",
                last.message
            ),
        ),
    }
}

/// Chooses each record's partition; what cannot be written at all gets its result at once.
fn place(
    topic: &Topic,
    partitioner: &Partitioner,
    records: Vec<NewRecord>,
    results: &mut [ProducedRecord],
) -> BTreeMap<PartitionIndex, Vec<Placed>> {
    let now = now_ms();
    let mut keyless = None;
    let mut placed: BTreeMap<PartitionIndex, Vec<Placed>> = BTreeMap::new();
    for (position, record) in records.into_iter().enumerate() {
        let timestamp = record.timestamp_ms.unwrap_or(now);
        let partition = match (record.partition, &record.key) {
            (Some(partition), _) => PartitionIndex(partition),
            (None, Some(key)) => Partitioner::of_key(topic, key),
            (None, None) => *keyless.get_or_insert_with(|| partitioner.next(topic)),
        };
        let refused = if !topic.partitions.contains_key(&partition) {
            let why = format!("topic {} has no partition {partition}", topic.name);
            Some(kafka_error(ErrorCode::UnknownTopicOrPartition, why))
        } else if timestamp < 0 {
            let why = format!("timestamp {timestamp} is negative");
            Some(kafka_error(ErrorCode::InvalidTimestamp, why))
        } else {
            None
        };
        match refused {
            Some(error) => results[position] = not_written(error),
            None => placed.entry(partition).or_default().push(Placed {
                position,
                record,
                timestamp,
            }),
        }
    }
    placed
}

fn not_written(error: KafkaError) -> ProducedRecord {
    ProducedRecord {
        partition: -1,
        offset: -1,
        timestamp_ms: -1,
        error: Some(error),
    }
}

fn written(
    tp: TopicPartition,
    records: &[Placed],
    appended: Appended,
) -> impl Iterator<Item = (usize, ProducedRecord)> {
    records.iter().enumerate().map(move |(delta, placed)| {
        let result = ProducedRecord {
            partition: tp.partition.get(),
            offset: appended.base_offset.get() + delta as i64,
            timestamp_ms: appended.log_append_time.unwrap_or(placed.timestamp),
            error: None,
        };
        (placed.position, result)
    })
}

/// Each record of a batch that was refused, and of those that would have followed, with its reason.
fn failed(now: &[Placed], later: &[Placed], refusal: &Refusal) -> Vec<(usize, ProducedRecord)> {
    let faults: BTreeMap<usize, &str> = refusal
        .faults
        .iter()
        .filter_map(|(index, message)| Some((usize::try_from(*index).ok()?, message.as_str())))
        .collect();
    let of_batch = now.iter().enumerate().map(|(index, placed)| {
        let message = match faults.get(&index) {
            Some(&fault) => fault,
            None if faults.is_empty() => &refusal.message,
            None => "other records of its batch were refused",
        };
        (placed.position, not_written(kafka_error(refusal.error, message)))
    });
    let of_rest = later.iter().map(|placed| {
        let error = kafka_error(refusal.error, "records before it were not written");
        (placed.position, not_written(error))
    });
    of_batch.chain(of_rest).collect()
}

/// Who leads, and since which epoch; refused for good where the partition is gone.
fn leader(image: &ClusterImage, tp: TopicPartition) -> Result<Option<(BrokerId, LeaderEpoch)>, Refusal> {
    let partition = image
        .partition(tp)
        .ok_or_else(|| Refusal::new(ErrorCode::UnknownTopicOrPartition, "the topic was deleted"))?;
    Ok(partition.leader.map(|leader| (leader, partition.leader_epoch)))
}

/// Waits until somebody else leads, or the partition is gone.
async fn replaced(mut images: watch::Receiver<Arc<ClusterImage>>, tp: TopicPartition, epoch: LeaderEpoch) {
    let other = |image: &Arc<ClusterImage>| {
        image
            .partition(tp)
            .is_none_or(|partition| partition.leader_epoch != epoch)
    };
    if images.wait_for(other).await.is_err() {
        // The store is gone, and with it this broker.
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_that_may_be_written_is_never_said_not_to_be() {
        let told = in_doubt(Refusal::new(ErrorCode::NotEnoughReplicas, "one is down"));
        assert_eq!(told.error, ErrorCode::RequestTimedOut);
        assert!(told.message.contains("one is down"), "{}", told.message);
        let told = in_doubt(Refusal::new(ErrorCode::NotEnoughReplicasAfterAppend, "late"));
        assert_eq!(told.error, ErrorCode::NotEnoughReplicasAfterAppend);
        assert!(leaves_open(ErrorCode::NetworkException));
        assert!(!leaves_open(ErrorCode::NotEnoughReplicas));
    }
}
