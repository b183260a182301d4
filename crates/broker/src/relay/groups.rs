//! Offsets of groups, for programs that read by themselves: committed and looked up as Kafka's consumers
//! without a membership do it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use kafka_protocol::messages::{GroupId as WireGroupId, OffsetCommitRequest, TopicName as WireTopicName};
use kafka_protocol::protocol::StrBytes;
use metadata::ClusterImage;
use protocol::grpc::v1::relay_client::RelayClient;
use protocol::grpc::v1::{
    CommitRequest, CommitResponse, CommitResult, CommittedOffset, CommittedRequest, CommittedResponse,
    KafkaError, OffsetToCommit, RelayCommitRequest, RelayCommittedRequest,
};
use protocol::{ErrorCode, LeaderEpoch, PartitionIndex};
use tokio::time::{Instant, sleep, timeout_at};
use tonic::Status;
use tonic::transport::Channel;

use super::Relay;
use super::wire::{code_of, kafka_error};
use crate::context::BrokerContext;
use crate::coordinator::group::{Caller, GroupReply, GroupRequest};

/// Before a coordinator is looked for again.
const PAUSE: Duration = Duration::from_millis(50);
/// What Kafka's strings hold at most, in bytes.
const LONGEST_STRING: usize = i16::MAX as usize;

/// Where a group is coordinated.
enum Coordinator {
    Here,
    There(RelayClient<Channel>),
}

impl Relay {
    /// Commits at the group's coordinator; the error is of the whole call.
    pub(crate) async fn commit(
        &self,
        request: CommitRequest,
        deadline: Instant,
    ) -> Result<CommitResponse, KafkaError> {
        loop {
            let answer = match self.coordinator(&request.group_id).await {
                Ok((_, Coordinator::Here)) => commit(&self.broker, &request).await,
                Ok((hello, Coordinator::There(mut peer))) => {
                    let call = peer.commit(RelayCommitRequest {
                        hello: Some(hello),
                        request: Some(request.clone()),
                    });
                    match timeout_at(deadline, call).await {
                        Ok(Ok(reply)) => {
                            let reply = reply.into_inner();
                            match reply.error {
                                Some(error) => Err(error),
                                None => Ok(reply.response.unwrap_or_default()),
                            }
                        }
                        Ok(Err(status)) => Err(unavailable(&status)),
                        Err(_) => Err(timed_out()),
                    }
                }
                Err(error) => Err(error),
            };
            let again = match &answer {
                Ok(response) => response
                    .offsets
                    .iter()
                    .any(|result| result.error.as_ref().is_some_and(asks_again)),
                Err(error) => asks_again(error),
            };
            if !again || Instant::now() + PAUSE >= deadline {
                return answer;
            }
            sleep(PAUSE).await;
        }
    }

    /// Looks up at the group's coordinator; the error is of the whole call.
    pub(crate) async fn committed(
        &self,
        request: CommittedRequest,
        deadline: Instant,
    ) -> Result<CommittedResponse, KafkaError> {
        loop {
            let answer = match self.coordinator(&request.group_id).await {
                Ok((_, Coordinator::Here)) => committed(&self.broker, &request).await,
                Ok((hello, Coordinator::There(mut peer))) => {
                    let call = peer.committed(RelayCommittedRequest {
                        hello: Some(hello),
                        request: Some(request.clone()),
                    });
                    match timeout_at(deadline, call).await {
                        Ok(Ok(reply)) => {
                            let reply = reply.into_inner();
                            match reply.error {
                                Some(error) => Err(error),
                                None => Ok(reply.response.unwrap_or_default()),
                            }
                        }
                        Ok(Err(status)) => Err(unavailable(&status)),
                        Err(_) => Err(timed_out()),
                    }
                }
                Err(error) => Err(error),
            };
            let again = answer.as_ref().is_err_and(asks_again);
            if !again || Instant::now() + PAUSE >= deadline {
                return answer;
            }
            sleep(PAUSE).await;
        }
    }

    /// The group's coordinator, with this node's greeting for it.
    async fn coordinator(
        &self,
        group: &str,
    ) -> Result<(protocol::grpc::v1::InternalHello, Coordinator), KafkaError> {
        let located = self.broker.groups.locate(group).await;
        let id = located.map_err(|(code, why)| kafka_error(code, why))?;
        let hello = self.peers.hello(id);
        if id == self.broker.config.node_id {
            return Ok((hello, Coordinator::Here));
        }
        let peer = self.peers.client(id).map_err(|status| unavailable(&status))?;
        Ok((hello, Coordinator::There(peer)))
    }
}

/// Whether another attempt may find the coordinator. Both calls do no harm when they are made twice.
fn asks_again(error: &KafkaError) -> bool {
    matches!(
        code_of(error),
        ErrorCode::CoordinatorLoadInProgress | ErrorCode::CoordinatorNotAvailable | ErrorCode::NotCoordinator
    )
}

fn unavailable(status: &Status) -> KafkaError {
    kafka_error(ErrorCode::CoordinatorNotAvailable, status.message())
}

fn timed_out() -> KafkaError {
    kafka_error(
        ErrorCode::RequestTimedOut,
        "the coordinator did not answer in time",
    )
}

/// Commits as the coordinator.
pub(super) async fn commit(
    broker: &BrokerContext,
    request: &CommitRequest,
) -> Result<CommitResponse, KafkaError> {
    check_group(&request.group_id)?;
    let image = broker.images.current();
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
    let mut codes = BTreeMap::new();
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
            for partition in topic.partitions {
                codes.insert(
                    (topic.name.to_string(), partition.partition_index),
                    partition.error_code,
                );
            }
        }
    }
    let results = request.offsets.iter().zip(refused).map(|(offset, refused)| {
        let decided = || {
            let code = codes
                .get(&(offset.topic.clone(), offset.partition))
                .copied()
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
    check_group(&request.group_id)?;
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
        let found: BTreeSet<(String, i32)> = offsets
            .iter()
            .map(|offset| (offset.topic.clone(), offset.partition))
            .collect();
        let named = wanted
            .iter()
            .flat_map(|(topic, named)| named.iter().map(|&partition| ((*topic).to_owned(), partition)));
        let missing = named.filter(|named| !found.contains(named));
        offsets.extend(missing.map(|(topic, partition)| CommittedOffset {
            topic,
            partition,
            ..CommittedOffset::default()
        }));
    }
    Ok(CommittedResponse { offsets })
}

async fn ask(broker: &BrokerContext, request: GroupRequest) -> GroupReply {
    let caller = Caller {
        client_id: StrBytes::from_static_str("ottla-grpc"),
        client_host: StrBytes::from_static_str("/127.0.0.1"),
        api_version: 9,
    };
    broker.groups.call(caller, request).await
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

fn wire_group(group: &str) -> WireGroupId {
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
fn error_of(code: i16, group: &str) -> Option<KafkaError> {
    if code == 0 {
        return None;
    }
    let known = ErrorCode::from_code(code).unwrap_or(ErrorCode::UnknownServerError);
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
