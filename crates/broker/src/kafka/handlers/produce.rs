//! Produce (key 0), versions 3–13 (0–2 are advertised, as Kafka 4 does for old librdkafka, and close
//! the connection): appends record batches.
//!
//! Two phases. [`begin`] validates and enqueues every append before it is over, so pipelined requests
//! keep their order where each is begun after the one before; the future that comes out of it waits for
//! the acknowledgements. Transactional produce is
//! refused: there are no transactions yet.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::{
    messages::{
        ApiKey, BrokerId as WireBrokerId, ProduceRequest, ProduceResponse, TopicName as WireTopicName,
        produce_response::{
            BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse,
            TopicProduceResponse,
        },
    },
    protocol::StrBytes,
};
use protocol::{BrokerId, ErrorCode, LeaderEpoch, PartitionIndex};
use replication::{Acks, AppendResult, AppendTicket};
use tokio::time::Instant;

use crate::{
    kafka::{
        Answer, Request,
        api::Api,
        cluster_view,
        dispatch::Refused,
        topic_ref::{self, TopicRef},
    },
    partitions::append::{self, Producing},
};

pub(crate) const API: Api = Api {
    key: ApiKey::Produce,
    advertised_from: 0,
    served_from: 3,
    to: 13,
};

/// After so many bytes of records, others who are served by the same thread have their turn.
const TURN_BYTES: usize = 64 << 10;

/// The client id under which Kafka lets its tools write to internal topics.
const ADMIN_CLIENT: &str = "__admin_client";

/// One partition between the two phases.
struct Entry {
    index: i32,
    state: State,
}

enum State {
    Appending(AppendTicket),
    Done(Outcome),
}

/// How one partition's append ended.
struct Outcome {
    error: ErrorCode,
    result: Option<AppendResult>,
    message: Option<String>,
    record_errors: Vec<(i32, String)>,
    leader_hint: Option<(BrokerId, LeaderEpoch)>,
}

impl Outcome {
    fn failed(error: ErrorCode, message: impl Into<Option<String>>) -> Self {
        Self {
            error,
            result: None,
            message: message.into(),
            record_errors: Vec::new(),
            leader_hint: None,
        }
    }
}

struct Topic {
    name: WireTopicName,
    reference: TopicRef,
    entries: Vec<Entry>,
}

/// Validates and enqueues; what comes out waits. With acks=0 nothing is answered, and a failure closes
/// the connection.
pub(crate) async fn begin(
    request: Request,
    message: ProduceRequest,
) -> impl Future<Output = Result<Option<Answer>, Refused>> + Send {
    let acks = match message.acks {
        0 => Ok(Acks::None),
        1 => Ok(Acks::Leader),
        -1 => Ok(Acks::All),
        other => Err((
            ErrorCode::InvalidRequiredAcks,
            format!("acks={other}: only -1 (all), 0 and 1 are possible"),
        )),
    };
    let acks = match (acks, &message.transactional_id) {
        (Ok(_), Some(_)) => Err((
            ErrorCode::TransactionalIdAuthorizationFailed,
            "Transactions are not served by this version.".to_owned(),
        )),
        (acks, _) => acks,
    };
    let timeout = Duration::from_millis(message.timeout_ms.max(0) as u64);
    let deadline = Instant::now() + timeout;
    let mut topics = Vec::with_capacity(message.topic_data.len());
    let mut looked_at = 0;
    for topic in message.topic_data {
        let reference = topic_ref::by_version(request.version >= 13, &topic.name, topic.topic_id);
        let mut entries = Vec::with_capacity(topic.partition_data.len());
        for data in topic.partition_data {
            looked_at += data.records.as_ref().map_or(0, Bytes::len);
            if looked_at > TURN_BYTES {
                looked_at = 0;
                tokio::task::yield_now().await;
            }
            let state = match &acks {
                Err((error, message)) => State::Done(Outcome::failed(*error, message.clone())),
                Ok(acks) => {
                    let partition = PartitionIndex(data.index);
                    start(&request, &reference, partition, data.records, *acks).await
                }
            };
            entries.push(Entry {
                index: data.index,
                state,
            });
        }
        topics.push(Topic {
            name: topic.name,
            reference,
            entries,
        });
    }
    let unacknowledged = message.acks == 0;
    finish(request, topics, unacknowledged, deadline)
}

/// Looks the topic up, validates its batches and enqueues the append.
async fn start(
    request: &Request,
    reference: &TopicRef,
    partition: PartitionIndex,
    batches: Option<Bytes>,
    acks: Acks,
) -> State {
    let image = request.broker.images.current();
    let topic = match reference.look_up(&image) {
        Ok(topic) => topic,
        Err(error) => {
            let why = format!("{error}: this broker does not know the topic");
            return State::Done(Outcome::failed(error, why));
        }
    };
    let producing = Producing {
        acks,
        // KIP-110: before version 7, clients could not know of Zstandard.
        zstd: request.version >= 7,
        // Kafka's own exception: its admin tools may, under the client id they have.
        internal_topics: request.client_id.as_str() == ADMIN_CLIENT,
    };
    match append::begin(&request.broker, &image, topic, partition, batches, producing).await {
        Ok(ticket) => State::Appending(ticket),
        Err(refusal) => State::Done(Outcome {
            error: refusal.error,
            result: None,
            message: Some(refusal.message),
            record_errors: refusal.faults,
            leader_hint: None,
        }),
    }
}

async fn finish(
    request: Request,
    topics: Vec<Topic>,
    unacknowledged: bool,
    deadline: Instant,
) -> Result<Option<Answer>, Refused> {
    let mut leaders = Vec::new();
    let mut responses = Vec::with_capacity(topics.len());
    for topic in topics {
        let mut partitions = Vec::with_capacity(topic.entries.len());
        for entry in topic.entries {
            let outcome = match entry.state {
                State::Done(outcome) => outcome,
                State::Appending(mut ticket) if unacknowledged => match ticket.appended().await {
                    Ok(_) => continue,
                    Err(refused) => Outcome::failed(refused.code(), None),
                },
                State::Appending(ticket) => match ticket.committed(deadline).await {
                    Ok(result) => Outcome {
                        error: ErrorCode::None,
                        result: Some(result),
                        message: None,
                        record_errors: Vec::new(),
                        leader_hint: None,
                    },
                    Err(refused) => Outcome::failed(refused.code(), refused.to_string()),
                },
            };
            if unacknowledged {
                return Err(Refused::Unacknowledged(outcome.error));
            }
            let outcome = with_hint(&request, &topic.reference, entry.index, outcome);
            leaders.extend(outcome.leader_hint.map(|(leader, _)| leader));
            partitions.push(partition_response(&request, entry.index, outcome));
        }
        responses.push(
            TopicProduceResponse::default()
                .with_name(topic.name)
                .with_topic_id(topic.reference.wire_id())
                .with_partition_responses(partitions),
        );
    }
    if unacknowledged {
        return Ok(None);
    }
    let mut response = ProduceResponse::default().with_responses(responses);
    if request.version >= 10 {
        let image = request.broker.images.current();
        let endpoints = cluster_view::addresses_of(&image, &request.listener, leaders)
            .into_iter()
            .map(|node| {
                NodeEndpoint::default()
                    .with_node_id(WireBrokerId(node.id.get()))
                    .with_host(StrBytes::from_string(node.host))
                    .with_port(i32::from(node.port))
                    .with_rack(node.rack.map(StrBytes::from_string))
            });
        response = response.with_node_endpoints(endpoints.collect());
    }
    Ok(Some(request.answer(&response)?))
}

/// Adds who leads the partition now, where the client asked the wrong broker (KIP-951).
fn with_hint(request: &Request, reference: &TopicRef, index: i32, outcome: Outcome) -> Outcome {
    if !matches!(
        outcome.error,
        ErrorCode::NotLeaderOrFollower | ErrorCode::FencedLeaderEpoch
    ) {
        return outcome;
    }
    let image = request.broker.images.current();
    let leader_hint = reference
        .look_up(&image)
        .ok()
        .and_then(|topic| topic.partitions.get(&PartitionIndex(index)))
        .and_then(|partition| cluster_view::leader_hint(partition));
    Outcome {
        leader_hint,
        ..outcome
    }
}

fn partition_response(request: &Request, index: i32, outcome: Outcome) -> PartitionProduceResponse {
    let mut response = PartitionProduceResponse::default()
        .with_index(index)
        .with_error_code(outcome.error.code())
        .with_base_offset(
            outcome
                .result
                .as_ref()
                .map_or(-1, |result| result.base_offset.get()),
        )
        .with_log_append_time_ms(
            outcome
                .result
                .as_ref()
                .and_then(|result| result.log_append_time)
                .unwrap_or(-1),
        )
        .with_log_start_offset(
            outcome
                .result
                .as_ref()
                .filter(|_| request.version >= 5)
                .map_or(-1, |result| result.log_start_offset.get()),
        );
    if request.version >= 8 {
        let errors = outcome.record_errors.into_iter().map(|(record, message)| {
            BatchIndexAndErrorMessage::default()
                .with_batch_index(record)
                .with_batch_index_error_message(Some(StrBytes::from_string(message)))
        });
        response = response
            .with_record_errors(errors.collect())
            .with_error_message(outcome.message.map(StrBytes::from_string));
    }
    if let (Some((leader, epoch)), true) = (outcome.leader_hint, request.version >= 10) {
        response = response.with_current_leader(
            LeaderIdAndEpoch::default()
                .with_leader_id(WireBrokerId(leader.get()))
                .with_leader_epoch(epoch.get()),
        );
    }
    response
}
