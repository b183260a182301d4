//! What a ConsumerGroupHeartbeat must say before any group is looked at.

use kafka_protocol::messages::ConsumerGroupHeartbeatRequest;
use protocol::ErrorCode;

use super::refusal::Refusal;
use crate::coordinator::group::{
    config::GroupConfig,
    ids::{GroupEpoch, fits},
};

/// From which version on members make their ids themselves (KIP-1082).
const MEMBER_ID_REQUIRED: i16 = 1;

/// Why a heartbeat is refused whatever its group is like, if it is.
pub(in super::super) fn refuse(
    api_version: i16,
    body: &ConsumerGroupHeartbeatRequest,
    config: &GroupConfig,
) -> Option<Refusal> {
    let epoch = GroupEpoch(body.member_epoch);
    let blank = |text: &str| text.trim().is_empty();
    let invalid = |why: &str| Some(Refusal::new(ErrorCode::InvalidRequest, why));
    let names_itself =
        api_version >= MEMBER_ID_REQUIRED || epoch > GroupEpoch::JOINING || epoch == GroupEpoch::LEAVING;
    if names_itself && blank(&body.member_id) {
        return invalid("MemberId can't be empty.");
    }
    if blank(&body.group_id) {
        return invalid("GroupId can't be empty.");
    }
    if body.instance_id.as_deref().is_some_and(blank) {
        return invalid("InstanceId can't be empty.");
    }
    if body.rack_id.as_deref().is_some_and(blank) {
        return invalid("RackId can't be empty.");
    }
    if epoch == GroupEpoch::JOINING {
        if body.rebalance_timeout_ms == -1 {
            return invalid("RebalanceTimeoutMs must be provided in first request.");
        }
        if body
            .topic_partitions
            .as_ref()
            .is_none_or(|owned| !owned.is_empty())
        {
            return invalid("TopicPartitions must be empty when (re-)joining.");
        }
        // An empty list, or an empty expression, is a member that subscribes to nothing.
        if body.subscribed_topic_names.is_none() && body.subscribed_topic_regex.is_none() {
            return invalid(
                "Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when (re-)joining.",
            );
        }
    } else if epoch == GroupEpoch::AWAY {
        if body.instance_id.is_none() {
            return invalid("InstanceId can't be null.");
        }
    } else if epoch < GroupEpoch::AWAY {
        return invalid("MemberEpoch is invalid.");
    }
    // The request's strings may be longer than those of a record.
    let names = body.subscribed_topic_names.iter().flatten();
    let texts = [&body.instance_id, &body.rack_id, &body.subscribed_topic_regex];
    if !fits(&body.member_id)
        || !texts.into_iter().flatten().all(|text| fits(text))
        || !names.into_iter().all(|name| fits(name))
    {
        return invalid("A string in the request is too long.");
    }
    // What is taken apart is bounded by what could be written down.
    let names = body.subscribed_topic_names.iter().flatten();
    let owned = body.topic_partitions.iter().flatten();
    let names: usize = names.map(|name| name.len() + 1).sum();
    let owned: usize = owned.map(|topic| 16 + 4 * topic.partitions.len()).sum();
    if names.max(owned) > config.max_records_bytes {
        return invalid("The request names more topics or partitions than a member can have.");
    }
    let assignor = body.server_assignor.as_deref()?;
    if config
        .consumer_assignors
        .iter()
        .any(|kind| kind.name() == assignor)
    {
        return None;
    }
    let known: Vec<&str> = config.consumer_assignors.iter().map(|kind| kind.name()).collect();
    Some(Refusal::new(
        ErrorCode::UnsupportedAssignor,
        format!(
            "ServerAssignor {assignor} is not supported. Supported assignors: {}.",
            known.join(", ")
        ),
    ))
}
