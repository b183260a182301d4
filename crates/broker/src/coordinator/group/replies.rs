//! Answers that are the same wherever they are given.

use kafka_protocol::{
    messages::{
        self, ConsumerGroupHeartbeatResponse, HeartbeatResponse, JoinGroupResponse, LeaveGroupResponse,
        OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteResponse, SyncGroupResponse,
        consumer_group_describe_response::DescribedGroup as DescribedConsumerGroup,
        delete_groups_response::DeletableGroupResult,
        describe_groups_response::DescribedGroup,
        offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic},
        offset_fetch_request::OffsetFetchRequestGroup,
        offset_fetch_response::OffsetFetchResponseGroup,
    },
    protocol::StrBytes,
};
use protocol::ErrorCode;

use super::request::GroupReply;

/// The state that a group is said to have when there is none of its name.
pub(super) const DEAD: &str = "Dead";

/// From which version on JoinGroup's answer may leave the protocol out.
const JOIN_PROTOCOL_NULLABLE: i16 = 7;

/// A JoinGroup that is refused.
pub(super) fn join_refused(api_version: i16, member_id: StrBytes, error: ErrorCode) -> GroupReply {
    GroupReply::Join(
        JoinGroupResponse::default()
            .with_error_code(error.code())
            .with_generation_id(-1)
            .with_protocol_type(None)
            .with_protocol_name((api_version < JOIN_PROTOCOL_NULLABLE).then(StrBytes::new))
            .with_leader(StrBytes::new())
            .with_member_id(member_id),
    )
}

/// A SyncGroup that is refused.
pub(super) fn sync_refused(error: ErrorCode) -> GroupReply {
    GroupReply::Sync(
        SyncGroupResponse::default()
            .with_error_code(error.code())
            .with_protocol_type(None)
            .with_protocol_name(None),
    )
}

/// The answer to a Heartbeat.
pub(super) fn heartbeat(error: ErrorCode) -> GroupReply {
    GroupReply::Heartbeat(HeartbeatResponse::default().with_error_code(error.code()))
}

/// A ConsumerGroupHeartbeat that is refused, and why in words.
pub(super) fn consumer_heartbeat_refused(error: ErrorCode, why: Option<String>) -> GroupReply {
    GroupReply::ConsumerHeartbeat(
        ConsumerGroupHeartbeatResponse::default()
            .with_error_code(error.code())
            .with_error_message(why.map(StrBytes::from_string)),
    )
}

/// One group of a ConsumerGroupDescribe that is refused, and why in words.
pub(super) fn describe_consumer_refused(
    group: &messages::GroupId,
    error: ErrorCode,
    why: Option<String>,
) -> GroupReply {
    GroupReply::DescribeConsumer(
        DescribedConsumerGroup::default()
            .with_group_id(group.clone())
            .with_error_code(error.code())
            .with_error_message(why.map(StrBytes::from_string)),
    )
}

/// A LeaveGroup that is refused as a whole.
pub(super) fn leave_refused(error: ErrorCode) -> GroupReply {
    GroupReply::Leave(LeaveGroupResponse::default().with_error_code(error.code()))
}

/// An OffsetCommit that is refused: the answer has an error only per partition.
pub(super) fn commit_refused(body: &OffsetCommitRequest, error: ErrorCode) -> GroupReply {
    let topics = body.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            OffsetCommitResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(error.code())
        });
        OffsetCommitResponseTopic::default()
            .with_name(topic.name.clone())
            .with_topic_id(topic.topic_id)
            .with_partitions(partitions.collect())
    });
    GroupReply::CommitOffsets(OffsetCommitResponse::default().with_topics(topics.collect()))
}

/// One group of an OffsetFetch that is refused.
pub(super) fn fetch_refused(group: &OffsetFetchRequestGroup, error: ErrorCode) -> GroupReply {
    GroupReply::FetchOffsets(
        OffsetFetchResponseGroup::default()
            .with_group_id(group.group_id.clone())
            .with_error_code(error.code()),
    )
}

/// An OffsetDelete that is refused.
pub(super) fn delete_offsets_refused(error: ErrorCode) -> GroupReply {
    GroupReply::DeleteOffsets(OffsetDeleteResponse::default().with_error_code(error.code()))
}

/// One group of a DescribeGroups that is refused.
pub(super) fn describe_refused(group: &messages::GroupId, error: ErrorCode) -> GroupReply {
    GroupReply::Describe(
        DescribedGroup::default()
            .with_group_id(group.clone())
            .with_error_code(error.code()),
    )
}

/// One group of a DeleteGroups.
pub(super) fn delete(group: &messages::GroupId, error: ErrorCode) -> GroupReply {
    GroupReply::Delete(
        DeletableGroupResult::default()
            .with_group_id(group.clone())
            .with_error_code(error.code()),
    )
}
