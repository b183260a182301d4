//! ElectLeaders (key 43), versions 0–2: preferred leaders, or (type 1, from version 1) unclean ones.
//! Forwarded to the active controller. Null partitions mean every partition; those that needed no
//! election are then left out of the answer, as in Kafka.

use std::collections::BTreeMap;

use kafka_protocol::{
    messages::{
        ApiKey, ElectLeadersRequest, ElectLeadersResponse,
        elect_leaders_response::{PartitionResult, ReplicaElectionResult},
    },
    protocol::StrBytes,
};
use protocol::{
    ErrorCode,
    grpc::v1::{self, PartitionRef},
};

use crate::kafka::{Request, admin, api::Api};

pub(crate) const API: Api = Api::new(ApiKey::ElectLeaders, 0, 2);

const PREFERRED: i8 = 0;
const UNCLEAN: i8 = 1;

pub(crate) async fn handle(request: Request, message: ElectLeadersRequest) -> ElectLeadersResponse {
    let election = if request.version >= 1 {
        message.election_type
    } else {
        PREFERRED
    };
    if !matches!(election, PREFERRED | UNCLEAN) {
        return whole(&request, ErrorCode::InvalidRequest);
    }
    let (_, deadline) = admin::deadline(message.timeout_ms);
    let all = message.topic_partitions.is_none();
    let partitions: Vec<PartitionRef> = message
        .topic_partitions
        .unwrap_or_default()
        .into_iter()
        .flat_map(|topic| {
            let name = topic.topic.to_string();
            topic.partitions.into_iter().map(move |partition| PartitionRef {
                name: name.clone(),
                partition,
                ..PartitionRef::default()
            })
        })
        .collect();
    if partitions.is_empty() && !all {
        return ElectLeadersResponse::default();
    }
    let elect = v1::ElectLeadersRequest {
        unclean: election == UNCLEAN,
        partitions: partitions.clone(),
    };
    let mut results: BTreeMap<String, Vec<PartitionResult>> = BTreeMap::new();
    let mut add = |partition: PartitionRef, (code, text): (i16, Option<StrBytes>)| {
        if all && code == ErrorCode::ElectionNotNeeded.code() {
            return;
        }
        results.entry(partition.name).or_default().push(
            PartitionResult::default()
                .with_partition_id(partition.partition)
                .with_error_code(code)
                .with_error_message(text),
        );
    };
    match request.broker.controller.elect_leaders(elect, deadline).await {
        Ok(reply) => {
            for result in reply.partitions {
                add(result.partition.unwrap_or_default(), admin::outcome(result.error));
            }
        }
        Err(error) if all => return whole(&request, error.code()),
        Err(error) => partitions
            .into_iter()
            .for_each(|partition| add(partition, admin::failure(&error))),
    }
    let results = results.into_iter().map(|(topic, partitions)| {
        ReplicaElectionResult::default()
            .with_topic(StrBytes::from_string(topic).into())
            .with_partition_result(partitions)
    });
    ElectLeadersResponse::default().with_replica_election_results(results.collect())
}

/// The answer to a request that failed as a whole; version 0 has no field for that.
fn whole(request: &Request, error: ErrorCode) -> ElectLeadersResponse {
    let response = ElectLeadersResponse::default();
    if request.version >= 1 {
        response.with_error_code(error.code())
    } else {
        response
    }
}
