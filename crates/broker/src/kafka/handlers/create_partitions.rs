//! CreatePartitions (key 37), versions 0–3: raises a topic's number of partitions. Forwarded to the
//! active controller.

use kafka_protocol::{
    messages::{
        ApiKey, CreatePartitionsRequest, CreatePartitionsResponse,
        create_partitions_request::CreatePartitionsTopic,
        create_partitions_response::CreatePartitionsTopicResult,
    },
    protocol::StrBytes,
};
use protocol::grpc::v1::{self, NewPartitions, ReplicaAssignment};

use crate::kafka::{Request, admin, api::Api};

pub(crate) const API: Api = Api::new(ApiKey::CreatePartitions, 0, 3);

pub(crate) async fn handle(request: Request, message: CreatePartitionsRequest) -> CreatePartitionsResponse {
    let (timeout_ms, deadline) = admin::deadline(message.timeout_ms);
    let names: Vec<_> = message.topics.iter().map(|topic| topic.name.clone()).collect();
    let image = request.broker.images.current();
    let grow = message
        .topics
        .into_iter()
        .map(|topic| {
            let first = image.topic(&topic.name).map_or(0, |known| known.partitions.len()) as i32;
            new_partitions(topic, first)
        })
        .collect();
    let create = v1::CreatePartitionsRequest {
        topics: grow,
        validate_only: message.validate_only,
        timeout_ms,
    };
    let results = match request
        .broker
        .controller
        .create_partitions(create, deadline)
        .await
    {
        Ok(reply) => reply
            .topics
            .into_iter()
            .map(|topic| {
                let (code, text) = admin::outcome(topic.error);
                CreatePartitionsTopicResult::default()
                    .with_name(StrBytes::from_string(topic.name).into())
                    .with_error_code(code)
                    .with_error_message(text)
            })
            .collect(),
        Err(error) => names
            .into_iter()
            .map(|name| {
                let (code, text) = admin::failure(&error);
                CreatePartitionsTopicResult::default()
                    .with_name(name)
                    .with_error_code(code)
                    .with_error_message(text)
            })
            .collect(),
    };
    CreatePartitionsResponse::default().with_results(results)
}

/// Kafka's assignments are for the new partitions alone, in order; ours name the partition.
fn new_partitions(topic: CreatePartitionsTopic, first_new: i32) -> NewPartitions {
    let assignments = topic.assignments.unwrap_or_default().into_iter().zip(first_new..);
    NewPartitions {
        name: topic.name.to_string(),
        count: topic.count,
        assignments: assignments
            .map(|(assignment, partition)| ReplicaAssignment {
                partition,
                brokers: assignment.broker_ids.into_iter().map(|id| id.0).collect(),
            })
            .collect(),
    }
}
