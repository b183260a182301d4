//! Fetch (key 1), versions 4–17: reads record batches.
//!
//! Sessions are declined (session id 0, KIP-227 allows it). A fetch that finds too little waits and is
//! woken at once when a high watermark advances. A first batch larger than every limit is still
//! returned. Clients that asked the wrong broker are told who leads (KIP-951). Both isolation levels
//! are answered; without transactions the last stable offset is the high watermark.

use std::{sync::Arc, time::Duration};

use kafka_protocol::messages::{ApiKey, FetchRequest};
use protocol::{ErrorCode, LeaderEpoch, Offset, PartitionIndex, TopicPartition};
use replication::{FetchRead, Isolation, Partition, ProgressListener, Subscription};
use tokio::{sync::Notify, time::Instant};

use crate::{
    kafka::{
        Answer, Request,
        api::Api,
        cluster_view,
        fetch_encoder::{self, Fetched, FetchedPartition, FetchedTopic},
        topic_ref::{self, TopicRef},
    },
    metric_names,
};

pub(crate) const API: Api = Api::new(ApiKey::Fetch, 4, 17);

/// Whatever clients ask for, one answer carries no more than this (and one batch).
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// One partition that a request asks for.
struct Wanted {
    topic: usize,
    partition: PartitionIndex,
    from: Offset,
    max_bytes: usize,
    current_leader_epoch: Option<LeaderEpoch>,
    last_fetched_epoch: Option<LeaderEpoch>,
    replica: Result<Arc<Partition>, ErrorCode>,
}

pub(crate) async fn handle(request: &Request, message: FetchRequest) -> Answer {
    let refuse = |error| {
        let fetched = Fetched {
            error: Some(error),
            ..Fetched::default()
        };
        fetch_encoder::encode(request.correlation_id, request.version, fetched)
    };
    // A session that was never granted, or an incremental request of one.
    if message.session_id != 0 || message.session_epoch > 0 {
        return refuse(ErrorCode::FetchSessionIdNotFound);
    }
    // Followers replicate over their own protocol; −2 is Kafka's debugging consumer.
    if message.replica_id.0 >= 0 || message.replica_state.replica_id.0 >= 0 {
        return refuse(ErrorCode::InvalidRequest);
    }
    let isolation = if message.isolation_level == 1 {
        Isolation::ReadCommitted
    } else {
        Isolation::ReadUncommitted
    };
    let (topics, wanted) = resolve(request, &message);
    let deadline = Instant::now() + Duration::from_millis(message.max_wait_ms.max(0) as u64);
    let max_bytes = usize::try_from(message.max_bytes).unwrap_or(0).min(MAX_ANSWER);
    let min_bytes = usize::try_from(message.min_bytes).unwrap_or(0).min(max_bytes);

    // Listening begins before the first read: progress in between is not missed.
    let wake = Arc::new(Wake(Notify::new()));
    let _listening: Vec<Subscription> = if message.max_wait_ms > 0 && min_bytes > 0 {
        let listener: Arc<dyn ProgressListener> = Arc::<Wake>::clone(&wake);
        wanted
            .iter()
            .filter_map(|wanted| wanted.replica.as_ref().ok())
            .map(|replica| replica.subscribe_high_watermark(Arc::clone(&listener)))
            .collect()
    } else {
        Vec::new()
    };
    let partitions = loop {
        let woken = wake.0.notified();
        let (partitions, bytes, failed) = read_all(&wanted, max_bytes, isolation).await;
        if bytes >= min_bytes || failed || Instant::now() >= deadline {
            metrics::counter!(metric_names::TOPIC_BYTES_OUT).increment(bytes as u64);
            break partitions;
        }
        // A timeout leads to one last read.
        let _ = tokio::time::timeout_at(deadline, woken).await;
    };
    answer(request, topics, &wanted, partitions)
}

/// Wakes a waiting fetch.
struct Wake(Notify);

impl ProgressListener for Wake {
    fn progressed(&self, _: TopicPartition) {
        // Stores a permit where nobody waits yet.
        self.0.notify_one();
    }
}

fn resolve(request: &Request, message: &FetchRequest) -> (Vec<(String, TopicRef)>, Vec<Wanted>) {
    let image = request.broker.images.current();
    let mut topics = Vec::with_capacity(message.topics.len());
    let mut wanted = Vec::new();
    for topic in &message.topics {
        let reference = topic_ref::by_version(request.version >= 13, &topic.topic, topic.topic_id);
        let found = reference.look_up(&image);
        for partition in &topic.partitions {
            let index = PartitionIndex(partition.partition);
            wanted.push(Wanted {
                topic: topics.len(),
                partition: index,
                from: Offset(partition.fetch_offset),
                max_bytes: usize::try_from(partition.partition_max_bytes).unwrap_or(0),
                current_leader_epoch: LeaderEpoch::from_wire(partition.current_leader_epoch),
                last_fetched_epoch: LeaderEpoch::from_wire(partition.last_fetched_epoch),
                replica: found.and_then(|topic| {
                    request
                        .broker
                        .replicas
                        .partition(TopicPartition::new(topic.id, index))
                }),
            });
        }
        topics.push((topic.topic.to_string(), reference));
    }
    (topics, wanted)
}

/// Reads each partition in the client's order until the limit; returns the parts, their bytes, and
/// whether one has something to say that should not wait.
async fn read_all(
    wanted: &[Wanted],
    max_bytes: usize,
    isolation: Isolation,
) -> (Vec<FetchedPartition>, usize, bool) {
    let mut left = max_bytes;
    let mut total = 0;
    let mut urgent = false;
    let mut out = Vec::with_capacity(wanted.len());
    for part in wanted {
        let replica = match &part.replica {
            Ok(replica) => replica,
            Err(error) => {
                urgent = true;
                out.push(FetchedPartition::failed(part.partition, *error));
                continue;
            }
        };
        let read = replica
            .read(FetchRead {
                from: part.from,
                max_bytes: part.max_bytes.min(left),
                min_one_batch: total == 0,
                isolation,
                current_leader_epoch: part.current_leader_epoch,
                last_fetched_epoch: part.last_fetched_epoch,
                from_follower_ok: false,
            })
            .await;
        match read {
            Ok(read) => {
                urgent |= read.diverging_epoch.is_some();
                total += read.records.len();
                left = left.saturating_sub(read.records.len());
                out.push(FetchedPartition {
                    partition: part.partition,
                    error: ErrorCode::None,
                    high_watermark: read.high_watermark,
                    last_stable_offset: read.last_stable_offset,
                    log_start_offset: Some(read.log_start_offset),
                    diverging: read.diverging_epoch.map(|end| (end.epoch, end.end_offset)),
                    current_leader: None,
                    records: read.records,
                });
            }
            Err(error) => {
                urgent = true;
                out.push(FetchedPartition::failed(part.partition, error.code()));
            }
        }
    }
    (out, total, urgent)
}

fn answer(
    request: &Request,
    topics: Vec<(String, TopicRef)>,
    wanted: &[Wanted],
    partitions: Vec<FetchedPartition>,
) -> Answer {
    let image = request.broker.images.current();
    let mut leaders = Vec::new();
    let mut fetched: Vec<FetchedTopic> = topics
        .iter()
        .map(|(name, reference)| FetchedTopic {
            name: name.clone(),
            id: protocol::TopicId(reference.wire_id()),
            partitions: Vec::new(),
        })
        .collect();
    for (part, mut partition) in wanted.iter().zip(partitions) {
        if matches!(
            partition.error,
            ErrorCode::NotLeaderOrFollower | ErrorCode::FencedLeaderEpoch
        ) {
            let hint = topics[part.topic]
                .1
                .look_up(&image)
                .ok()
                .and_then(|topic| topic.partitions.get(&part.partition))
                .map(|partition| cluster_view::leader_hint(partition));
            leaders.extend(hint.and_then(|(leader, _)| leader));
            partition.current_leader = hint;
        }
        fetched[part.topic].partitions.push(partition);
    }
    let node_endpoints = cluster_view::addresses_of(&image, &request.listener, leaders);
    let fetched = Fetched {
        error: None,
        topics: fetched,
        node_endpoints,
    };
    fetch_encoder::encode(request.correlation_id, request.version, fetched)
}
