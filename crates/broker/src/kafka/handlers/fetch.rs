//! Fetch (key 1), versions 4–17: reads record batches.
//!
//! Sessions are declined (session id 0, KIP-227 allows it). A fetch that finds too little waits and is
//! woken at once when a high watermark advances. A first batch larger than every limit is still
//! returned. Clients that asked the wrong broker are told who leads (KIP-951). Both isolation levels
//! are answered; without transactions the last stable offset is the high watermark.

use std::time::Duration;

use kafka_protocol::messages::{ApiKey, FetchRequest};
use protocol::{ErrorCode, LeaderEpoch, Offset, PartitionIndex, TopicPartition};
use replication::{FetchedRecords, Isolation};
use tokio::time::Instant;

use crate::{
    kafka::{
        Answer, Request,
        api::Api,
        cluster_view,
        fetch_encoder::{self, Fetched, FetchedPartition, FetchedTopic},
        topic_ref::{self, TopicRef},
    },
    partitions::read::{self, Limits, Wanted},
};

pub(crate) const API: Api = Api::new(ApiKey::Fetch, 4, 17);

/// Where a partition of the request belongs in the answer.
struct Place {
    topic: usize,
    partition: PartitionIndex,
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
    let (topics, places, wanted) = resolve(request, &message);
    let wait = Duration::from_millis(message.max_wait_ms.max(0) as u64);
    let limits = Limits {
        isolation,
        min_bytes: usize::try_from(message.min_bytes).unwrap_or(0),
        max_bytes: usize::try_from(message.max_bytes).unwrap_or(0),
        wait_until: (!wait.is_zero()).then(|| Instant::now() + wait),
    };
    let found = read::read(&wanted, limits).await;
    answer(request, topics, places, found)
}

fn resolve(request: &Request, message: &FetchRequest) -> (Vec<(String, TopicRef)>, Vec<Place>, Vec<Wanted>) {
    let image = request.broker.images.current();
    let mut topics = Vec::with_capacity(message.topics.len());
    let (mut places, mut wanted) = (Vec::new(), Vec::new());
    for topic in &message.topics {
        let reference = topic_ref::by_version(request.version >= 13, &topic.topic, topic.topic_id);
        let found = reference.look_up(&image);
        for partition in &topic.partitions {
            let index = PartitionIndex(partition.partition);
            places.push(Place {
                topic: topics.len(),
                partition: index,
            });
            wanted.push(Wanted {
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
    (topics, places, wanted)
}

fn fetched(partition: PartitionIndex, found: Result<FetchedRecords, ErrorCode>) -> FetchedPartition {
    match found {
        Ok(read) => FetchedPartition {
            partition,
            error: ErrorCode::None,
            high_watermark: read.high_watermark,
            last_stable_offset: read.last_stable_offset,
            log_start_offset: Some(read.log_start_offset),
            diverging: read.diverging_epoch.map(|end| (end.epoch, end.end_offset)),
            current_leader: None,
            records: read.records,
        },
        Err(error) => FetchedPartition::failed(partition, error),
    }
}

fn answer(
    request: &Request,
    topics: Vec<(String, TopicRef)>,
    places: Vec<Place>,
    found: Vec<Result<FetchedRecords, ErrorCode>>,
) -> Answer {
    let image = request.broker.images.current();
    let mut leaders = Vec::new();
    let mut answered: Vec<FetchedTopic> = topics
        .iter()
        .map(|(name, reference)| FetchedTopic {
            name: name.clone(),
            id: protocol::TopicId(reference.wire_id()),
            partitions: Vec::new(),
        })
        .collect();
    for (place, found) in places.into_iter().zip(found) {
        let mut partition = fetched(place.partition, found);
        if matches!(
            partition.error,
            ErrorCode::NotLeaderOrFollower | ErrorCode::FencedLeaderEpoch
        ) {
            let hint = topics[place.topic]
                .1
                .look_up(&image)
                .ok()
                .and_then(|topic| topic.partitions.get(&place.partition))
                .and_then(|partition| cluster_view::leader_hint(partition));
            leaders.extend(hint.map(|(leader, _)| leader));
            partition.current_leader = hint;
        }
        answered[place.topic].partitions.push(partition);
    }
    let node_endpoints = cluster_view::addresses_of(&image, &request.listener, leaders);
    let fetched = Fetched {
        error: None,
        topics: answered,
        node_endpoints,
    };
    fetch_encoder::encode(request.correlation_id, request.version, fetched)
}
