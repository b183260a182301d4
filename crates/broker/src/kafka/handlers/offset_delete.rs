//! OffsetDelete (key 47), version 0: forgets what a group has committed for partitions that it is not
//! subscribed to.
//!
//! Partitions that do not exist are refused here, by themselves; the coordinator decides about the rest.

use std::collections::BTreeMap;

use kafka_protocol::messages::{
    ApiKey, OffsetDeleteRequest, OffsetDeleteResponse, TopicName as WireTopicName,
    offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic},
};

use crate::{
    coordinator::group::{GroupReply, GroupRequest},
    kafka::{Request, api::Api, group_call},
};

pub(crate) const API: Api = Api::new(ApiKey::OffsetDelete, 0, 0);

pub(crate) async fn handle(request: Request, mut message: OffsetDeleteRequest) -> OffsetDeleteResponse {
    let image = request.broker.images.current();
    let mut refused: BTreeMap<WireTopicName, Vec<OffsetDeleteResponsePartition>> = BTreeMap::new();
    for topic in &mut message.topics {
        let known = group_call::topic(&image, &topic.name);
        topic.partitions.retain(|partition| {
            let index = partition.partition_index;
            match group_call::partition_of(known, index) {
                Ok(()) => true,
                Err(error) => {
                    let answer = OffsetDeleteResponsePartition::default()
                        .with_partition_index(index)
                        .with_error_code(error.code());
                    refused.entry(topic.name.clone()).or_default().push(answer);
                    false
                }
            }
        });
    }
    message.topics.retain(|topic| !topic.partitions.is_empty());
    let mut response = match group_call::call(&request, GroupRequest::DeleteOffsets(message)).await {
        GroupReply::DeleteOffsets(response) => response,
        other => OffsetDeleteResponse::default().with_error_code(group_call::mismatch(&other)),
    };
    // An error of the whole group stands alone.
    if response.error_code == 0 {
        for topic in &mut response.topics {
            topic
                .partitions
                .append(&mut refused.remove(&topic.name).unwrap_or_default());
        }
        let others = refused.into_iter().map(|(name, partitions)| {
            OffsetDeleteResponseTopic::default()
                .with_name(name)
                .with_partitions(partitions)
        });
        response.topics.extend(others);
    }
    response
}
