//! What groups have committed, for Kafka clients that ask a broker which does not coordinate the group, or
//! not yet.
//!
//! Kafka's brokers answer NOT_COORDINATOR, and clients look for the coordinator again. But librdkafka (2.15
//! and before, its issue 5586) never asks a second time for a partition that it has just been assigned, and
//! never reads it; aiokafka 0.14 takes the answer for "nothing is committed". So the coordinator is asked
//! here: the client that lost it finds it with its next heartbeat or commit.

use futures::FutureExt;
use kafka_protocol::messages::TopicName as WireTopicName;
use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartitions, OffsetFetchResponseTopics,
};
use kafka_protocol::protocol::StrBytes;
use protocol::ErrorCode;
use protocol::grpc::v1::{
    AssignedTopic, InternalHello, KafkaError, RelayFetchOffsetsReply, RelayFetchOffsetsRequest,
    RelayPartitionOffset, RelayTopicOffsets, RelayWantedOffsets,
};
use tokio::time::Instant;

use super::Relay;
use super::groups::{Coordinator, ask, error_of, may_find_it, wire_group};
use super::wire::{code_of, kafka_error};
use crate::context::BrokerContext;
use crate::coordinator::group::{GroupReply, GroupRequest};

/// What a group has committed, by topic; the error is of the whole group.
type Fetched = Result<Vec<OffsetFetchResponseTopics>, KafkaError>;

impl Relay {
    /// Whether an answer with this code says no more than that the coordinator is not here, or not ready.
    pub(crate) fn is_about_the_way(code: i16) -> bool {
        ErrorCode::from_code(code).is_some_and(|code| may_find_it(&kafka_error(code, "")))
    }

    /// What the coordinator answers to one group of an OffsetFetch. It is looked for until `deadline`; the
    /// client is told COORDINATOR_LOAD_IN_PROGRESS then, upon which every client asks again.
    pub(crate) async fn fetch_offsets(
        &self,
        group: OffsetFetchRequestGroup,
        require_stable: bool,
        deadline: Instant,
    ) -> OffsetFetchResponseGroup {
        let asked = &group;
        let answer = self.at_coordinator(
            &group.group_id,
            deadline,
            move |coordinator: Coordinator| {
                async move {
                    match coordinator {
                        Coordinator::Here => Ok(fetch(&self.broker, asked.clone(), require_stable).await),
                        Coordinator::There(hello, mut peer) => {
                            let request = to_wire(hello, asked, require_stable);
                            Ok(from_reply(peer.fetch_offsets(request).await?.into_inner()))
                        }
                    }
                }
                .boxed()
            },
            |answer: &Fetched| answer.as_ref().is_err_and(may_find_it),
        );
        let answer = answer.await;
        let found = OffsetFetchResponseGroup::default().with_group_id(group.group_id);
        match answer {
            Ok(topics) => found.with_topics(topics),
            Err(error) => {
                let timed_out = code_of(&error) == ErrorCode::RequestTimedOut;
                let code = if timed_out || may_find_it(&error) {
                    ErrorCode::CoordinatorLoadInProgress
                } else {
                    code_of(&error)
                };
                found.with_error_code(code.code())
            }
        }
    }
}

/// Answers another broker as the coordinator that it takes this one for.
pub(super) async fn answer(
    broker: &BrokerContext,
    request: RelayFetchOffsetsRequest,
) -> RelayFetchOffsetsReply {
    let require_stable = request.require_stable;
    match fetch(broker, from_wire(request), require_stable).await {
        Ok(topics) => RelayFetchOffsetsReply {
            error: None,
            topics: topics.into_iter().map(topic_to_wire).collect(),
        },
        Err(error) => RelayFetchOffsetsReply {
            error: Some(error),
            topics: Vec::new(),
        },
    }
}

async fn fetch(broker: &BrokerContext, group: OffsetFetchRequestGroup, require_stable: bool) -> Fetched {
    let asked = GroupRequest::FetchOffsets {
        group,
        require_stable,
    };
    let GroupReply::FetchOffsets(fetched) = ask(broker, asked).await else {
        return Err(kafka_error(ErrorCode::UnknownServerError, ""));
    };
    match error_of(fetched.error_code, &fetched.group_id) {
        Some(error) => Err(error),
        None => Ok(fetched.topics),
    }
}

fn to_wire(
    hello: InternalHello,
    group: &OffsetFetchRequestGroup,
    require_stable: bool,
) -> RelayFetchOffsetsRequest {
    let wanted = group.topics.as_ref().map(|topics| RelayWantedOffsets {
        topics: topics
            .iter()
            .map(|topic| AssignedTopic {
                topic: topic.name.to_string(),
                partitions: topic.partition_indexes.clone(),
            })
            .collect(),
    });
    RelayFetchOffsetsRequest {
        hello: Some(hello),
        group_id: group.group_id.to_string(),
        member_id: group.member_id.as_ref().map(ToString::to_string),
        member_epoch: group.member_epoch,
        require_stable,
        wanted,
    }
}

fn from_wire(request: RelayFetchOffsetsRequest) -> OffsetFetchRequestGroup {
    let topics = request.wanted.map(|wanted| {
        let topics = wanted.topics.into_iter().map(|topic| {
            OffsetFetchRequestTopics::default()
                .with_name(topic_name(topic.topic))
                .with_partition_indexes(topic.partitions)
        });
        topics.collect()
    });
    OffsetFetchRequestGroup::default()
        .with_group_id(wire_group(&request.group_id))
        .with_member_id(request.member_id.map(StrBytes::from_string))
        .with_member_epoch(request.member_epoch)
        .with_topics(topics)
}

fn topic_to_wire(topic: OffsetFetchResponseTopics) -> RelayTopicOffsets {
    let partitions = topic
        .partitions
        .into_iter()
        .map(|partition| RelayPartitionOffset {
            partition: partition.partition_index,
            offset: partition.committed_offset,
            leader_epoch: partition.committed_leader_epoch,
            metadata: partition
                .metadata
                .map_or_else(String::new, |text| text.to_string()),
            error: partition.error_code.into(),
        });
    RelayTopicOffsets {
        partitions: partitions.collect(),
        topic: topic.name.to_string(),
    }
}

fn from_reply(reply: RelayFetchOffsetsReply) -> Fetched {
    if let Some(error) = reply.error {
        return Err(error);
    }
    let topics = reply.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.into_iter().map(|partition| {
            OffsetFetchResponsePartitions::default()
                .with_partition_index(partition.partition)
                .with_committed_offset(partition.offset)
                .with_committed_leader_epoch(partition.leader_epoch)
                .with_metadata(Some(StrBytes::from_string(partition.metadata)))
                .with_error_code(
                    i16::try_from(partition.error).unwrap_or(ErrorCode::UnknownServerError.code()),
                )
        });
        OffsetFetchResponseTopics::default()
            .with_name(topic_name(topic.topic))
            .with_partitions(partitions.collect())
    });
    Ok(topics.collect())
}

fn topic_name(name: String) -> WireTopicName {
    WireTopicName(StrBytes::from_string(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(topics: Option<Vec<OffsetFetchRequestTopics>>) -> OffsetFetchRequestGroup {
        OffsetFetchRequestGroup::default()
            .with_group_id(wire_group("g"))
            .with_member_id(Some(StrBytes::from_static_str("m")))
            .with_member_epoch(7)
            .with_topics(topics)
    }

    #[test]
    fn a_question_is_relayed_as_it_was_asked() {
        let named = OffsetFetchRequestTopics::default()
            .with_name(topic_name("t".to_owned()))
            .with_partition_indexes(vec![3, 1]);
        // Everything, nothing, a topic without partitions, and some of one.
        for topics in [
            None,
            Some(vec![]),
            Some(vec![OffsetFetchRequestTopics::default()]),
            Some(vec![named]),
        ] {
            let request = asked(topics);
            let relayed = to_wire(InternalHello::default(), &request, true);
            assert!(relayed.require_stable);
            assert_eq!(from_wire(relayed), request);
        }
        let by_nobody = asked(None).with_member_id(None).with_member_epoch(-1);
        let relayed = to_wire(InternalHello::default(), &by_nobody, false);
        assert_eq!(from_wire(relayed), by_nobody);
    }

    #[test]
    fn an_answer_comes_back_as_it_was_given() {
        let partition = |index: i32, offset: i64, epoch: i32, metadata: &str, error: ErrorCode| {
            OffsetFetchResponsePartitions::default()
                .with_partition_index(index)
                .with_committed_offset(offset)
                .with_committed_leader_epoch(epoch)
                .with_metadata(Some(StrBytes::from_string(metadata.to_owned())))
                .with_error_code(error.code())
        };
        let topics = vec![
            OffsetFetchResponseTopics::default()
                .with_name(topic_name("t".to_owned()))
                .with_partitions(vec![
                    partition(2, 41, 3, "so far", ErrorCode::None),
                    partition(0, -1, -1, "", ErrorCode::UnstableOffsetCommit),
                ]),
            OffsetFetchResponseTopics::default().with_name(topic_name("empty".to_owned())),
        ];
        let reply = RelayFetchOffsetsReply {
            error: None,
            topics: topics.iter().cloned().map(topic_to_wire).collect(),
        };
        assert_eq!(from_reply(reply), Ok(topics));
    }

    #[test]
    fn what_is_only_about_the_way_is_told_from_answers() {
        for code in [
            ErrorCode::NotCoordinator,
            ErrorCode::CoordinatorNotAvailable,
            ErrorCode::CoordinatorLoadInProgress,
        ] {
            assert!(Relay::is_about_the_way(code.code()), "{code}");
        }
        for code in [
            ErrorCode::None,
            ErrorCode::UnknownMemberId,
            ErrorCode::StaleMemberEpoch,
        ] {
            assert!(!Relay::is_about_the_way(code.code()), "{code}");
        }
        assert!(!Relay::is_about_the_way(i16::MAX));
    }
}
