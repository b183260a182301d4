//! ListOffsets (key 2), versions 1–10: the first, last or timestamp's offset of partitions.
//!
//! Special timestamps: −1 latest, −2 earliest, −3 the record with the largest timestamp (from version
//! 7), −4 earliest local (from 8; everything is local), −5 latest tiered (from 9; nothing is tiered).

use ::metadata::ClusterImage;
use kafka_protocol::messages::{
    ApiKey, ListOffsetsRequest, ListOffsetsResponse,
    list_offsets_request::ListOffsetsPartition,
    list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse},
};
use protocol::{ErrorCode, LeaderEpoch, PartitionIndex, TopicPartition};
use replication::{Isolation, ReadRefused};

use crate::kafka::{Request, api::Api, topic_ref::TopicRef};

pub(crate) const API: Api = Api::new(ApiKey::ListOffsets, 1, 10);

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;

pub(crate) async fn handle(request: Request, message: ListOffsetsRequest) -> ListOffsetsResponse {
    let isolation = if message.isolation_level == 1 {
        Isolation::ReadCommitted
    } else {
        Isolation::ReadUncommitted
    };
    let image = request.broker.images.current();
    let mut topics = Vec::with_capacity(message.topics.len());
    for topic in message.topics {
        let reference = TopicRef::Name(topic.name.to_string());
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in &topic.partitions {
            let index = partition.partition_index;
            let answer = match find(&request, &image, &reference, partition, isolation).await {
                Ok(found) => ListOffsetsPartitionResponse::default()
                    .with_timestamp(found.timestamp)
                    .with_offset(found.offset)
                    // Older versions have no field for it.
                    .with_leader_epoch(if request.version >= 4 {
                        LeaderEpoch::to_wire(found.epoch)
                    } else {
                        -1
                    }),
                Err(error) => ListOffsetsPartitionResponse::default()
                    .with_error_code(error.code())
                    .with_timestamp(-1)
                    .with_offset(-1)
                    .with_leader_epoch(-1),
            };
            partitions.push(answer.with_partition_index(index));
        }
        topics.push(
            ListOffsetsTopicResponse::default()
                .with_name(topic.name)
                .with_partitions(partitions),
        );
    }
    ListOffsetsResponse::default().with_topics(topics)
}

/// What was found, as it goes to the wire: −1 where there is nothing.
struct Found {
    timestamp: i64,
    offset: i64,
    epoch: Option<LeaderEpoch>,
}

/// What a partition is asked for.
enum Query {
    Earliest,
    Latest,
    MaxTimestamp,
    Timestamp(i64),
}

async fn find(
    request: &Request,
    image: &ClusterImage,
    reference: &TopicRef,
    partition: &ListOffsetsPartition,
    isolation: Isolation,
) -> Result<Found, ErrorCode> {
    let nothing = Found {
        timestamp: -1,
        offset: -1,
        epoch: None,
    };
    let query = match (partition.timestamp, request.version) {
        (LATEST, _) => Query::Latest,
        (EARLIEST, _) => Query::Earliest,
        (MAX_TIMESTAMP, 7..) => Query::MaxTimestamp,
        (EARLIEST_LOCAL, 8..) => Query::Earliest,
        (LATEST_TIERED, 9..) => return Ok(nothing),
        (timestamp @ 0.., _) => Query::Timestamp(timestamp),
        _ => return Err(ErrorCode::UnsupportedVersion),
    };
    let topic = reference.look_up(image)?;
    let tp = TopicPartition::new(topic.id, PartitionIndex(partition.partition_index));
    let replica = request.broker.replicas.partition(tp)?;
    let current = LeaderEpoch::from_wire(partition.current_leader_epoch);
    let found = match query {
        Query::Earliest => {
            let (offset, epoch) = replica.earliest(current).map_err(ReadRefused::code)?;
            return Ok(Found {
                timestamp: -1,
                offset: offset.get(),
                epoch,
            });
        }
        Query::Latest => {
            let (offset, epoch) = replica.latest(current, isolation).map_err(ReadRefused::code)?;
            return Ok(Found {
                timestamp: -1,
                offset: offset.get(),
                epoch: Some(epoch),
            });
        }
        Query::MaxTimestamp => replica.max_timestamp(current).await,
        Query::Timestamp(timestamp) => replica.offset_for_timestamp(timestamp, current).await,
    };
    Ok(found.map_err(ReadRefused::code)?.map_or(nothing, |found| Found {
        timestamp: found.timestamp,
        offset: found.offset.get(),
        epoch: Some(found.leader_epoch),
    }))
}
