//! Offsets of groups, for programs that read by themselves: committed and looked up as Kafka's consumers
//! without a membership do it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};

use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use kafka_protocol::messages::{GroupId as WireGroupId, OffsetCommitRequest, TopicName as WireTopicName};
use kafka_protocol::protocol::StrBytes;
use metadata::ClusterImage;
use protocol::grpc::v1::{
    CommitRequest, CommitResponse, CommitResult, CommittedOffset, CommittedRequest, CommittedResponse,
    KafkaError, OffsetToCommit, RelayCommitRequest, RelayCommittedRequest,
};
use protocol::{ErrorCode, LeaderEpoch, PartitionIndex, TopicName};
use tokio::time::Instant;
use tonic::{Code, ConnectError, Response, Status};

use super::Relay;
use super::coordinator::{Answering, Coordinator, may_find_it};
use super::wire::{code_of, kafka_error};
use crate::context::BrokerContext;
use crate::coordinator::group::{Caller, GroupReply, GroupRequest};
use crate::coordinator::group_runtime::placement;

/// What Kafka's strings hold at most, in bytes.
const LONGEST_STRING: usize = i16::MAX as usize;
/// Offsets of one call at most.
const MOST_OFFSETS: usize = 10_000;
/// A group's name is quoted to so many characters, for every offset.
const QUOTED_CHARS: usize = 100;

impl Relay {
    /// Commits at the group's coordinator; the error is of the whole call.
    pub(crate) async fn commit(
        &self,
        request: CommitRequest,
        deadline: Instant,
    ) -> Result<CommitResponse, KafkaError> {
        check_commit(&request)?;
        let asked = &request;
        let in_doubt = AtomicBool::new(false);
        let doubt = &in_doubt;
        let ask = move |coordinator: Coordinator| -> Answering<'_, CommitResponse> {
            Box::pin(async move {
                let answer = match coordinator {
                    Coordinator::Here => Ok(commit(&self.broker, asked).await),
                    Coordinator::There(hello, mut peer) => {
                        let call = RelayCommitRequest {
                            hello: Some(hello),
                            request: Some(asked.clone()),
                        };
                        let reply = peer.commit(call).await.map(Response::into_inner);
                        reply.map(|reply| answer_of(reply.error, reply.response))
                    }
                };
                if leaves_doubt(&answer) {
                    doubt.store(true, Ordering::Relaxed);
                }
                answer
            })
        };
        let asks_again = |answer: &Result<CommitResponse, KafkaError>| match answer {
            Ok(response) => response
                .offsets
                .iter()
                .any(|result| result.error.as_ref().is_some_and(may_find_it)),
            Err(error) => may_find_it(error),
        };
        let answer = self
            .at_coordinator(&request.group_id, deadline, ask, asks_again)
            .await;
        if in_doubt.load(Ordering::Relaxed) {
            doubted(answer)
        } else {
            answer
        }
    }

    /// Looks up at the group's coordinator; the error is of the whole call.
    pub(crate) async fn committed(
        &self,
        request: CommittedRequest,
        deadline: Instant,
    ) -> Result<CommittedResponse, KafkaError> {
        check_committed(&request)?;
        let asked = &request;
        let ask = move |coordinator: Coordinator| -> Answering<'_, CommittedResponse> {
            Box::pin(async move {
                match coordinator {
                    Coordinator::Here => Ok(committed(&self.broker, asked).await),
                    Coordinator::There(hello, mut peer) => {
                        let call = RelayCommittedRequest {
                            hello: Some(hello),
                            request: Some(asked.clone()),
                        };
                        let reply = peer.committed(call).await?.into_inner();
                        Ok(answer_of(reply.error, reply.response))
                    }
                }
            })
        };
        let asks_again =
            |answer: &Result<CommittedResponse, KafkaError>| answer.as_ref().is_err_and(may_find_it);
        self.at_coordinator(&request.group_id, deadline, ask, asks_again)
            .await
    }
}

/// What another broker replied.
fn answer_of<T: Default>(error: Option<KafkaError>, response: Option<T>) -> Result<T, KafkaError> {
    match error {
        Some(error) => Err(error),
        None => Ok(response.unwrap_or_default()),
    }
}

/// Whether the call has reached nobody who would have done anything.
fn was_not_taken(status: &Status) -> bool {
    let mut causes = std::iter::successors(std::error::Error::source(status), |error| error.source());
    status.code() == Code::Unimplemented || causes.any(<dyn std::error::Error>::is::<ConnectError>)
}

/// Whether it is not known after this attempt at a commit what was done: nothing came back, or the coordinator
/// could not confirm a record that may be in its log.
fn leaves_doubt(attempt: &Result<Result<CommitResponse, KafkaError>, Status>) -> bool {
    let unconfirmed = |error: &KafkaError| {
        matches!(
            code_of(error),
            ErrorCode::CoordinatorNotAvailable | ErrorCode::NotCoordinator
        )
    };
    match attempt {
        Err(status) => !was_not_taken(status),
        Ok(Ok(response)) => {
            let mut errors = response.offsets.iter().filter_map(|result| result.error.as_ref());
            errors.any(unconfirmed)
        }
        // It was refused before anything was written.
        Ok(Err(_)) => false,
    }
}

/// What a commit is answered of which an attempt may have succeeded: errors of a later one that would say that
/// nothing was done say no more than that it is not known.
fn doubted(answer: Result<CommitResponse, KafkaError>) -> Result<CommitResponse, KafkaError> {
    let told = |error: KafkaError| {
        // Members may have come since then.
        if !may_find_it(&error) && code_of(&error) != ErrorCode::UnknownMemberId {
            return error;
        }
        let why = "a coordinator did not confirm the commit: it may have been done";
        kafka_error(ErrorCode::RequestTimedOut, why)
    };
    let mut response = answer.map_err(told)?;
    for result in &mut response.offsets {
        result.error = result.error.take().map(told);
    }
    Ok(response)
}

/// Commits as the coordinator.
pub(super) async fn commit(
    broker: &BrokerContext,
    request: &CommitRequest,
) -> Result<CommitResponse, KafkaError> {
    check_commit(request)?;
    let image = broker.images.current();
    // The same code for an offset would say that the group was lost over it.
    if placement::coordinator_of(&image, &request.group_id) != Some(broker.config.node_id) {
        let why = format!("broker {} does not coordinate the group", broker.config.node_id);
        return Err(kafka_error(ErrorCode::NotCoordinator, why));
    }
    // As on the Kafka port, what is not there is sorted out before the coordinator is asked.
    let refused: Vec<Option<KafkaError>> = request
        .offsets
        .iter()
        .map(|offset| refusal_of(&image, offset))
        .collect();
    let mut topics: BTreeMap<&str, Vec<OffsetCommitRequestPartition>> = BTreeMap::new();
    let accepted = request.offsets.iter().zip(&refused);
    for (offset, _) in accepted.filter(|(_, refused)| refused.is_none()) {
        let partition = OffsetCommitRequestPartition::default()
            .with_partition_index(offset.partition)
            .with_committed_offset(offset.offset)
            .with_committed_leader_epoch(offset.leader_epoch.unwrap_or(-1))
            .with_committed_metadata(Some(StrBytes::from_string(offset.metadata.clone())));
        topics.entry(&offset.topic).or_default().push(partition);
    }
    let mut codes: BTreeMap<String, BTreeMap<i32, i16>> = BTreeMap::new();
    if !topics.is_empty() {
        let topics = topics.into_iter().map(|(topic, partitions)| {
            OffsetCommitRequestTopic::default()
                .with_name(WireTopicName(StrBytes::from_string(topic.to_owned())))
                .with_partitions(partitions)
        });
        let commit = OffsetCommitRequest::default()
            .with_group_id(wire_group(&request.group_id))
            .with_generation_id_or_member_epoch(-1)
            .with_topics(topics.collect());
        let GroupReply::CommitOffsets(reply) = ask(broker, GroupRequest::CommitOffsets(commit)).await else {
            return Err(kafka_error(ErrorCode::UnknownServerError, ""));
        };
        for topic in reply.topics {
            let of_partitions = topic.partitions.iter();
            codes
                .entry(topic.name.to_string())
                .or_default()
                .extend(of_partitions.map(|partition| (partition.partition_index, partition.error_code)));
        }
    }
    let results = request.offsets.iter().zip(refused).map(|(offset, refused)| {
        let decided = || {
            let code = codes
                .get(&offset.topic)
                .and_then(|of_topic| of_topic.get(&offset.partition).copied())
                .unwrap_or(ErrorCode::UnknownServerError.code());
            error_of(code, &request.group_id)
        };
        CommitResult {
            topic: offset.topic.clone(),
            partition: offset.partition,
            error: refused.or_else(decided),
        }
    });
    Ok(CommitResponse {
        offsets: results.collect(),
    })
}

/// Looks up as the coordinator.
pub(super) async fn committed(
    broker: &BrokerContext,
    request: &CommittedRequest,
) -> Result<CommittedResponse, KafkaError> {
    check_committed(request)?;
    // Whole topics are picked from everything that there is.
    let everything =
        request.topics.is_empty() || request.topics.iter().any(|topic| topic.partitions.is_empty());
    let named = request.topics.iter().map(|topic| {
        OffsetFetchRequestTopics::default()
            .with_name(WireTopicName(StrBytes::from_string(topic.topic.clone())))
            .with_partition_indexes(topic.partitions.clone())
    });
    let fetch = OffsetFetchRequestGroup::default()
        .with_group_id(wire_group(&request.group_id))
        .with_member_epoch(-1)
        .with_topics((!everything).then(|| named.collect()));
    let asked = GroupRequest::FetchOffsets {
        group: fetch,
        require_stable: false,
    };
    let GroupReply::FetchOffsets(fetched) = ask(broker, asked).await else {
        return Err(kafka_error(ErrorCode::UnknownServerError, ""));
    };
    if let Some(error) = error_of(fetched.error_code, &request.group_id) {
        return Err(error);
    }
    // By topic: nothing named means all of it.
    let mut wanted: BTreeMap<&str, BTreeSet<i32>> = BTreeMap::new();
    for topic in &request.topics {
        wanted.entry(&topic.topic).or_default().extend(&topic.partitions);
    }
    let is_wanted = |topic: &str, partition: i32| {
        wanted.is_empty()
            || wanted
                .get(topic)
                .is_some_and(|named| named.is_empty() || named.contains(&partition))
    };
    let mut offsets = Vec::new();
    for topic in fetched.topics {
        for partition in topic.partitions {
            if is_wanted(&topic.name, partition.partition_index) {
                offsets.push(CommittedOffset {
                    topic: topic.name.to_string(),
                    partition: partition.partition_index,
                    offset: (partition.committed_offset >= 0).then_some(partition.committed_offset),
                    leader_epoch: LeaderEpoch::from_wire(partition.committed_leader_epoch)
                        .map(LeaderEpoch::get),
                    metadata: partition
                        .metadata
                        .map_or_else(String::new, |text| text.to_string()),
                });
            }
        }
    }
    if everything {
        // What was named beside whole topics is answered for as well.
        let found: BTreeSet<(&str, i32)> = offsets
            .iter()
            .map(|offset| (offset.topic.as_str(), offset.partition))
            .collect();
        let named = wanted
            .iter()
            .flat_map(|(&topic, named)| named.iter().map(move |&partition| (topic, partition)));
        let missing: Vec<CommittedOffset> = named
            .filter(|named| !found.contains(named))
            .map(|(topic, partition)| CommittedOffset {
                topic: topic.to_owned(),
                partition,
                ..CommittedOffset::default()
            })
            .collect();
        offsets.extend(missing);
    }
    Ok(CommittedResponse { offsets })
}

pub(super) async fn ask(broker: &BrokerContext, request: GroupRequest) -> GroupReply {
    let caller = Caller {
        client_id: StrBytes::from_static_str("ottla-relay"),
        client_host: StrBytes::from_static_str("/127.0.0.1"),
        api_version: 9,
    };
    broker.groups.call(caller, request).await
}

/// Refuses what would cost more than it says, before anybody works on it.
fn check_commit(request: &CommitRequest) -> Result<(), KafkaError> {
    check_group(&request.group_id)?;
    check_count(request.offsets.len())?;
    request
        .offsets
        .iter()
        .try_for_each(|offset| check_topic(&offset.topic))
}

/// As [`check_commit`]; every topic counts, and every partition of it.
fn check_committed(request: &CommittedRequest) -> Result<(), KafkaError> {
    check_group(&request.group_id)?;
    let named = request.topics.iter().map(|topic| topic.partitions.len().max(1));
    check_count(named.sum())?;
    request
        .topics
        .iter()
        .try_for_each(|topic| check_topic(&topic.topic))
}

fn check_count(offsets: usize) -> Result<(), KafkaError> {
    if offsets <= MOST_OFFSETS {
        return Ok(());
    }
    let why = format!("a call has at most {MOST_OFFSETS} offsets, not {offsets}");
    Err(kafka_error(ErrorCode::InvalidRequest, why))
}

/// A name that is answered for each of its partitions has a bound.
fn check_topic(name: &str) -> Result<(), KafkaError> {
    match TopicName::new(name) {
        Ok(_) => Ok(()),
        Err(error) => Err(kafka_error(ErrorCode::InvalidTopicException, error.to_string())),
    }
}

fn check_group(group: &str) -> Result<(), KafkaError> {
    if group.len() <= LONGEST_STRING {
        return Ok(());
    }
    Err(kafka_error(
        ErrorCode::InvalidGroupId,
        format!("a group's id has at most {LONGEST_STRING} bytes"),
    ))
}

pub(super) fn wire_group(group: &str) -> WireGroupId {
    WireGroupId(StrBytes::from_string(group.to_owned()))
}

/// Why an offset is refused before the coordinator sees it.
fn refusal_of(image: &ClusterImage, offset: &OffsetToCommit) -> Option<KafkaError> {
    let there = image
        .topic(&offset.topic)
        .is_some_and(|topic| topic.partitions.contains_key(&PartitionIndex(offset.partition)));
    if !there {
        let why = format!("there is no partition {} of {}", offset.partition, offset.topic);
        return Some(kafka_error(ErrorCode::UnknownTopicOrPartition, why));
    }
    if offset.offset < 0 {
        return Some(kafka_error(
            ErrorCode::InvalidRequest,
            format!("{} is no offset", offset.offset),
        ));
    }
    (offset.metadata.len() > LONGEST_STRING).then(|| {
        let why = format!("metadata have at most {LONGEST_STRING} bytes");
        kafka_error(ErrorCode::OffsetMetadataTooLarge, why)
    })
}

/// A code from the coordinator, with a sentence for people.
pub(super) fn error_of(code: i16, group: &str) -> Option<KafkaError> {
    if code == 0 {
        return None;
    }
    let known = ErrorCode::from_code(code).unwrap_or(ErrorCode::UnknownServerError);
    let group: String = group.chars().take(QUOTED_CHARS).collect();
    let sentence = match known {
        ErrorCode::UnknownMemberId => {
            format!("group {group} has members: only they can commit until they are gone")
        }
        ErrorCode::InvalidGroupId => format!("{group:?} cannot be the name of a group"),
        ErrorCode::OffsetMetadataTooLarge => {
            "the metadata are longer than offset.metadata.max.bytes".to_owned()
        }
        ErrorCode::CoordinatorLoadInProgress => {
            format!("the coordinator of group {group} is still reading its log")
        }
        _ => String::new(),
    };
    Some(kafka_error(known, sentence))
}

#[cfg(test)]
mod tests {
    use protocol::grpc::v1::AssignedTopic;

    use protocol::grpc::v1::relay_client::RelayClient;
    use tonic::transport::Channel;

    use super::*;
    use crate::relay::coordinator::lasts;

    fn code<T>(outcome: Result<T, KafkaError>) -> ErrorCode {
        outcome.map_or_else(|error| code_of(&error), |_| ErrorCode::None)
    }

    #[test]
    fn a_name_that_is_answered_for_each_partition_is_a_topics() {
        let long = "t".repeat(1 << 20);
        let asked = |topic: &str, partitions: i32| CommittedRequest {
            group_id: "g".to_owned(),
            topics: vec![AssignedTopic {
                topic: topic.to_owned(),
                partitions: (0..partitions).collect(),
            }],
        };
        assert_eq!(code(check_committed(&asked("t", 10_000))), ErrorCode::None);
        assert_eq!(
            code(check_committed(&asked("t", 10_001))),
            ErrorCode::InvalidRequest
        );
        let refused = check_committed(&asked(&long, 3)).expect_err("too long");
        assert_eq!(code_of(&refused), ErrorCode::InvalidTopicException);
        assert!(refused.message.len() < 200, "it is not quoted");
        assert_eq!(
            code(check_committed(&asked("", 1))),
            ErrorCode::InvalidTopicException
        );
    }

    #[test]
    fn a_commit_that_may_have_been_done_is_not_said_to_be_undone() {
        let response = |codes: &[ErrorCode]| CommitResponse {
            offsets: codes
                .iter()
                .map(|&code| CommitResult {
                    error: (code != ErrorCode::None).then(|| kafka_error(code, "")),
                    ..CommitResult::default()
                })
                .collect(),
        };
        let codes = |response: CommitResponse| -> Vec<ErrorCode> {
            let results = response.offsets.iter();
            results
                .map(|result| result.error.as_ref().map_or(ErrorCode::None, code_of))
                .collect()
        };
        assert!(leaves_doubt(&Err(Status::unavailable("connection reset"))));
        for (code, doubt) in [
            (ErrorCode::None, false),
            (ErrorCode::UnknownMemberId, false),
            (ErrorCode::CoordinatorLoadInProgress, false),
            (ErrorCode::CoordinatorNotAvailable, true),
            (ErrorCode::NotCoordinator, true),
        ] {
            assert_eq!(leaves_doubt(&Ok(Ok(response(&[code])))), doubt, "{code:?}");
            assert!(!leaves_doubt(&Ok(Err(kafka_error(code, "")))), "{code:?}");
        }
        let last = response(&[
            ErrorCode::None,
            ErrorCode::UnknownTopicOrPartition,
            ErrorCode::UnknownMemberId,
            ErrorCode::CoordinatorLoadInProgress,
        ]);
        let expected = [
            ErrorCode::None,
            ErrorCode::UnknownTopicOrPartition,
            ErrorCode::RequestTimedOut,
            ErrorCode::RequestTimedOut,
        ];
        assert_eq!(codes(doubted(Ok(last)).expect("a response")), expected);
        for (said, told) in [
            (ErrorCode::CoordinatorNotAvailable, ErrorCode::RequestTimedOut),
            (ErrorCode::InvalidGroupId, ErrorCode::InvalidGroupId),
        ] {
            assert_eq!(code(doubted(Err(kafka_error(said, "")))), told);
        }
    }

    #[tokio::test]
    async fn a_commit_that_reached_nobody_was_not_done() {
        // Its port is taken, and nobody listens there.
        let silent = tokio::net::TcpSocket::new_v4().expect("a socket");
        silent
            .bind("127.0.0.1:0".parse().expect("an address"))
            .expect("a port");
        let address = silent.local_addr().expect("an address");
        let endpoint = Channel::from_shared(format!("http://{address}")).expect("an address");
        let mut peer = RelayClient::new(endpoint.connect_lazy());
        let status = peer.commit(RelayCommitRequest::default()).await;
        let status = status.expect_err("nobody is there");
        assert!(!lasts(&status), "{status:?}");
        assert!(!leaves_doubt(&Err(status)));
        assert!(!leaves_doubt(&Err(Status::unimplemented("an older broker"))));
        // What was too large may have been the answer.
        assert!(leaves_doubt(&Err(Status::out_of_range("too large"))));
    }

    #[test]
    fn a_commit_is_as_bounded() {
        let commit = |topic: &str, offsets| CommitRequest {
            group_id: "g".to_owned(),
            offsets: vec![
                OffsetToCommit {
                    topic: topic.to_owned(),
                    ..OffsetToCommit::default()
                };
                offsets
            ],
        };
        assert_eq!(code(check_commit(&commit("t", 10_000))), ErrorCode::None);
        assert_eq!(
            code(check_commit(&commit("t", 10_001))),
            ErrorCode::InvalidRequest
        );
        let refused = code(check_commit(&commit("no name", 1)));
        assert_eq!(refused, ErrorCode::InvalidTopicException);
        let told = error_of(ErrorCode::UnknownMemberId.code(), &"g".repeat(LONGEST_STRING));
        assert!(told.is_some_and(|error| error.message.len() < 300));
    }
}
