//! OffsetCommit (key 8), versions 2–9: keeps how far a group has read. Acknowledged as acks=all.
//!
//! Partitions that do not exist are refused here, by themselves; the coordinator decides about the rest.

use std::collections::BTreeMap;

use kafka_protocol::messages::{
    ApiKey, OffsetCommitRequest, OffsetCommitResponse,
    offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic},
};

use crate::{
    coordinator::group::{GroupReply, GroupRequest},
    kafka::{Request, api::Api, group_call},
};

pub(crate) const API: Api = Api::new(ApiKey::OffsetCommit, 2, 9);

pub(crate) async fn handle(request: Request, mut message: OffsetCommitRequest) -> OffsetCommitResponse {
    let image = request.broker.images.current();
    // The answer has every topic and partition in the order of the request.
    let mut response: Vec<OffsetCommitResponseTopic> = Vec::with_capacity(message.topics.len());
    for topic in &mut message.topics {
        let known = group_call::topic(&image, &topic.name);
        let mut answers = Vec::with_capacity(topic.partitions.len());
        topic.partitions.retain(|partition| {
            let found = group_call::partition_of(known, partition.partition_index);
            let answer = OffsetCommitResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(found.err().map_or(0, protocol::ErrorCode::code));
            answers.push(answer);
            found.is_ok()
        });
        response.push(
            OffsetCommitResponseTopic::default()
                .with_name(topic.name.clone())
                .with_partitions(answers),
        );
    }
    message.topics.retain(|topic| !topic.partitions.is_empty());
    if message.topics.is_empty() && !response.is_empty() {
        return OffsetCommitResponse::default().with_topics(response);
    }
    match group_call::call(&request, GroupRequest::CommitOffsets(message)).await {
        GroupReply::CommitOffsets(decided) => fill_in(response, decided),
        other => {
            let code = group_call::mismatch(&other);
            for partition in response.iter_mut().flat_map(|topic| &mut topic.partitions) {
                partition.error_code = code;
            }
            OffsetCommitResponse::default().with_topics(response)
        }
    }
}

/// Enters what the coordinator decided into the answer.
fn fill_in(
    mut response: Vec<OffsetCommitResponseTopic>,
    decided: OffsetCommitResponse,
) -> OffsetCommitResponse {
    let mut codes = BTreeMap::new();
    for topic in &decided.topics {
        for partition in &topic.partitions {
            codes.insert((&topic.name, partition.partition_index), partition.error_code);
        }
    }
    for topic in &mut response {
        for partition in &mut topic.partitions {
            if let Some(&code) = codes.get(&(&topic.name, partition.partition_index)) {
                partition.error_code = code;
            }
        }
    }
    OffsetCommitResponse::default()
        .with_throttle_time_ms(decided.throttle_time_ms)
        .with_topics(response)
}
