//! What groups have committed, for Kafka clients that ask a broker which does not coordinate the group, or
//! not yet.
//!
//! Kafka's brokers answer NOT_COORDINATOR, and clients look for the coordinator again. But librdkafka (2.16
//! and before, its issue 5586) never asks a second time for a partition that it has just been assigned, and
//! never reads it; aiokafka 0.14 takes the answer for "nothing is committed". So the coordinator is asked
//! here: the client that lost it finds it with its next heartbeat or commit.

use std::collections::HashSet;

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
use tonic::Status;

use super::Relay;
use super::coordinator::{Coordinator, lasts, may_find_it};
use super::groups::{ask, error_of, wire_group};
use super::wire::{code_of, kafka_error};
use crate::context::BrokerContext;
use crate::coordinator::group::{GroupReply, GroupRequest};

/// The largest answer about one group, in bytes: 32 groups of a request are asked about at a time.
const ANSWER_BYTES: usize = 4 << 20;
/// What a partition, or a topic, has on the wire beside its strings, at most: five numbers of eleven bytes.
const OVERHEAD_BYTES: usize = 64;

/// What a group has committed, by topic; the error is of the whole group.
type Fetched = Result<Vec<OffsetFetchResponseTopics>, KafkaError>;

impl Relay {
    /// Whether an answer with this code says no more than that the coordinator is not here, or not ready.
    pub(crate) fn is_about_the_way(code: i16) -> bool {
        ErrorCode::from_code(code).is_some_and(|code| may_find_it(&kafka_error(code, "")))
    }

    /// Whether another broker is asked for the group's sake at all: not where a partition is named more than
    /// once, which no client does, and which would have its metadata made as often.
    pub(crate) fn fetches(group: &OffsetFetchRequestGroup) -> bool {
        let mut named = HashSet::new();
        group.topics.iter().flatten().all(|topic| {
            let mut partitions = topic.partition_indexes.iter();
            partitions.all(|&partition| named.insert((topic.name.as_str(), partition)))
        })
    }

    /// What the coordinator answers to one group of an OffsetFetch. It is looked for until `deadline`; the
    /// client is told COORDINATOR_LOAD_IN_PROGRESS then, upon which every client asks again, here. Where
    /// there is a coordinator that cannot be asked in a client's name, NOT_COORDINATOR sends the client there.
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
                        Coordinator::Here => {
                            let fetched = fetch(&self.broker, asked.clone(), require_stable).await;
                            Ok(fetched.map(Some))
                        }
                        Coordinator::There(hello, peer) => {
                            let request = to_wire(hello, asked, require_stable);
                            // One that does not count bounds nothing.
                            let mut peer = peer.max_decoding_message_size(ANSWER_BYTES);
                            match peer.fetch_offsets(request).await {
                                Ok(reply) => Ok(from_reply(reply.into_inner()).map(Some)),
                                Err(status) if lasts(&status) => Ok(Ok(None)),
                                Err(status) => Err(status),
                            }
                        }
                    }
                }
                .boxed()
            },
            |answer: &Result<Option<_>, KafkaError>| answer.as_ref().is_err_and(may_find_it),
        );
        let answer = answer.await;
        let found = OffsetFetchResponseGroup::default().with_group_id(group.group_id);
        match told(answer) {
            Ok(topics) => found.with_topics(topics),
            Err(code) => found.with_error_code(code.code()),
        }
    }
}

/// What a client is told. Nothing: the coordinator is known and cannot be asked from here.
fn told(
    answer: Result<Option<Vec<OffsetFetchResponseTopics>>, KafkaError>,
) -> Result<Vec<OffsetFetchResponseTopics>, ErrorCode> {
    match answer {
        Ok(topics) => topics.ok_or(ErrorCode::NotCoordinator),
        Err(error) if may_find_it(&error) => Err(ErrorCode::CoordinatorLoadInProgress),
        Err(error) => Err(match code_of(&error) {
            ErrorCode::RequestTimedOut => ErrorCode::CoordinatorLoadInProgress,
            code => code,
        }),
    }
}

/// Answers another broker as the coordinator that it takes this one for. An error: that is too much.
pub(super) async fn answer(
    broker: &BrokerContext,
    request: RelayFetchOffsetsRequest,
) -> Result<RelayFetchOffsetsReply, Status> {
    let require_stable = request.require_stable;
    match fetch(broker, from_wire(request), require_stable).await {
        Ok(topics) => to_reply(topics),
        Err(error) => Ok(RelayFetchOffsetsReply {
            error: Some(error),
            topics: Vec::new(),
        }),
    }
}

/// The coordinator's strings are shared ones, and those of the reply are not: their bytes are counted before
/// it is built.
fn to_reply(topics: Vec<OffsetFetchResponseTopics>) -> Result<RelayFetchOffsetsReply, Status> {
    let bytes_of = |topic: &OffsetFetchResponseTopics| {
        let metadata = topic.partitions.iter().map(|partition| {
            let metadata = partition.metadata.as_ref().map_or(0, |text| text.len());
            metadata + OVERHEAD_BYTES
        });
        topic.name.len() + OVERHEAD_BYTES + metadata.sum::<usize>()
    };
    let bytes: usize = topics.iter().map(bytes_of).sum();
    if bytes > ANSWER_BYTES {
        let why = format!("what the group has committed may be {bytes} bytes, more than {ANSWER_BYTES}");
        return Err(Status::resource_exhausted(why));
    }
    Ok(RelayFetchOffsetsReply {
        error: None,
        topics: topics.into_iter().map(topic_to_wire).collect(),
    })
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
        let reply = to_reply(topics.clone()).expect("it is small");
        assert_eq!(from_reply(reply), Ok(topics));
    }

    #[test]
    fn a_partition_that_is_named_again_is_not_relayed() {
        let named = |topics: &[(&'static str, &[i32])]| {
            let topics = topics.iter().map(|&(name, partitions)| {
                OffsetFetchRequestTopics::default()
                    .with_name(topic_name(name.to_owned()))
                    .with_partition_indexes(partitions.to_vec())
            });
            asked(Some(topics.collect()))
        };
        assert!(Relay::fetches(&asked(None)));
        assert!(Relay::fetches(&named(&[])));
        assert!(Relay::fetches(&named(&[
            ("t", &[0, 1]),
            ("u", &[0, 1]),
            ("t", &[2])
        ])));
        assert!(!Relay::fetches(&named(&[("t", &[0, 1, 0])])));
        assert!(!Relay::fetches(&named(&[("t", &[0]), ("u", &[]), ("t", &[0])])));
    }

    #[test]
    fn an_answer_that_is_too_large_is_not_built() {
        let metadata = StrBytes::from_string("m".repeat(4096));
        let topics = |partitions: usize| {
            // As large as numbers are on the wire.
            let partition = OffsetFetchResponsePartitions::default()
                .with_partition_index(i32::MIN)
                .with_committed_offset(i64::MIN)
                .with_committed_leader_epoch(i32::MIN)
                .with_metadata(Some(metadata.clone()))
                .with_error_code(i16::MIN);
            let topic = OffsetFetchResponseTopics::default()
                .with_name(topic_name("t".to_owned()))
                .with_partitions(vec![partition; partitions]);
            vec![topic]
        };
        let most = (ANSWER_BYTES - 1 - OVERHEAD_BYTES) / (4096 + OVERHEAD_BYTES);
        let reply = to_reply(topics(most)).expect("it fits");
        assert!(prost::Message::encoded_len(&reply) <= ANSWER_BYTES);
        let status = to_reply(topics(most + 1)).expect_err("too large");
        assert!(lasts(&status), "{status}");
    }

    #[test]
    fn a_client_asks_elsewhere_only_where_asking_here_again_is_of_no_use() {
        use ErrorCode::{
            CoordinatorLoadInProgress, CoordinatorNotAvailable, NotCoordinator, RequestTimedOut,
            StaleMemberEpoch,
        };
        assert_eq!(told(Ok(None)), Err(NotCoordinator));
        assert_eq!(told(Ok(Some(Vec::new()))), Ok(Vec::new()));
        for passing in [
            CoordinatorLoadInProgress,
            CoordinatorNotAvailable,
            NotCoordinator,
            RequestTimedOut,
        ] {
            let answer = Err(kafka_error(passing, ""));
            assert_eq!(told(answer), Err(CoordinatorLoadInProgress), "{passing}");
        }
        let stale = Err(kafka_error(StaleMemberEpoch, ""));
        assert_eq!(told(stale), Err(StaleMemberEpoch));
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
