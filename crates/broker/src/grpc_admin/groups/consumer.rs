//! A group of the KIP-848 protocol as its coordinator describes it, in the words of `admin.proto`.

use kafka_protocol::messages::consumer_group_describe_response::{
    Assignment, DescribedGroup, Member as DescribedMember,
};
use protocol::grpc::v1::{AssignedTopic, DescribeGroupResponse, GroupMember};

use super::assignment;

/// The type of groups of JoinGroup and SyncGroup.
pub(super) const CLASSIC: &str = "classic";
/// The type of groups of KIP-848.
const CONSUMER: &str = "consumer";

/// The group and its members; who asks adds its name, its coordinator and its offsets.
pub(super) fn described(group: DescribedGroup) -> DescribeGroupResponse {
    DescribeGroupResponse {
        state: group.group_state.to_string(),
        protocol_type: assignment::CONSUMER.to_owned(),
        protocol: group.assignor_name.to_string(),
        members: group.members.into_iter().map(member).collect(),
        group_type: CONSUMER.to_owned(),
        group_epoch: Some(group.group_epoch),
        assignment_epoch: Some(group.assignment_epoch),
        ..DescribeGroupResponse::default()
    }
}

fn member(found: DescribedMember) -> GroupMember {
    /// `member_type` of a member of JoinGroup and SyncGroup in such a group.
    const SPEAKS_CLASSIC: i8 = 0;
    let text = |text: Option<kafka_protocol::protocol::StrBytes>| {
        text.map_or_else(String::new, |text| text.to_string())
    };
    let member_type = if found.member_type == SPEAKS_CLASSIC {
        CLASSIC
    } else {
        CONSUMER
    };
    GroupMember {
        member_id: found.member_id.to_string(),
        instance_id: text(found.instance_id),
        client_id: found.client_id.to_string(),
        client_host: found.client_host.to_string(),
        assignment: topics(found.assignment),
        target_assignment: topics(found.target_assignment),
        member_epoch: Some(found.member_epoch),
        member_type: member_type.to_owned(),
        subscribed_topics: found
            .subscribed_topic_names
            .iter()
            .map(|name| name.to_string())
            .collect(),
        subscribed_regex: text(found.subscribed_topic_regex),
    }
}

fn topics(assignment: Assignment) -> Vec<AssignedTopic> {
    let topics = assignment.topic_partitions.into_iter();
    topics
        .map(|topic| AssignedTopic {
            topic: topic.topic_name.to_string(),
            partitions: topic.partitions,
        })
        .collect()
}
