//! OffsetForLeaderEpoch (key 23), versions 2–4: where an epoch ends in the leader's log (KIP-101,
//! KIP-279, KIP-320). Consumers ask after a failover to notice a truncated log.

use kafka_protocol::messages::{
    ApiKey, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
    offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult},
};
use protocol::{LeaderEpoch, PartitionIndex, TopicPartition};

use replication::RoleError;

use crate::kafka::{Request, api::Api, topic_ref::TopicRef};

pub(crate) const API: Api = Api::new(ApiKey::OffsetForLeaderEpoch, 2, 4);

pub(crate) async fn handle(
    request: Request,
    message: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let image = request.broker.images.current();
    let mut topics = Vec::with_capacity(message.topics.len());
    for topic in message.topics {
        let reference = TopicRef::Name(topic.topic.to_string());
        let partitions = topic
            .partitions
            .iter()
            .map(|asked| {
                let end = reference.look_up(&image).and_then(|topic| {
                    let tp = TopicPartition::new(topic.id, PartitionIndex(asked.partition));
                    let replica = request.broker.replicas.partition(tp)?;
                    let current = LeaderEpoch::from_wire(asked.current_leader_epoch);
                    replica
                        .end_offset_for_epoch(LeaderEpoch(asked.leader_epoch), current)
                        .map_err(RoleError::code)
                });
                let answer = EpochEndOffset::default().with_partition(asked.partition);
                match end {
                    // No epoch ends nowhere; the leader's log would say "before everything".
                    Ok(Some(end)) if asked.leader_epoch >= 0 => answer
                        .with_leader_epoch(end.epoch.get())
                        .with_end_offset(end.end_offset.get()),
                    Ok(_) => answer.with_leader_epoch(-1).with_end_offset(-1),
                    Err(error) => answer
                        .with_error_code(error.code())
                        .with_leader_epoch(-1)
                        .with_end_offset(-1),
                }
            })
            .collect();
        topics.push(
            OffsetForLeaderTopicResult::default()
                .with_topic(topic.topic)
                .with_partitions(partitions),
        );
    }
    OffsetForLeaderEpochResponse::default().with_topics(topics)
}
