//! OffsetFetch (key 9), versions 1–9: what a group has committed; from version 8 on of several groups.
//! Version 1 has errors per partition only, versions 2 to 7 one for the whole answer, later ones one per
//! group. No topics (null, from version 2 on) means all of them.
//!
//! Every broker answers for every group: where another one coordinates it, that one is asked ([`Relay`]).

use std::collections::HashSet;
use std::time::Duration;

use kafka_protocol::messages::{
    ApiKey, GroupId, OffsetFetchRequest, OffsetFetchResponse,
    offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics},
    offset_fetch_response::{
        OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponseTopic,
    },
};
use tokio::time::Instant;

use crate::{
    coordinator::group::{GroupReply, GroupRequest},
    kafka::{Request, api::Api, group_call},
    relay::Relay,
};

pub(crate) const API: Api = Api::new(ApiKey::OffsetFetch, 1, 9);

/// How long the coordinator is looked for, for a client that asks elsewhere or too early: about as long as
/// it takes another broker to take over. The client's heartbeats wait behind its question meanwhile.
const LOOK_FOR: Duration = Duration::from_secs(1);

pub(crate) async fn handle(request: Request, message: OffsetFetchRequest) -> OffsetFetchResponse {
    let require_stable = message.require_stable;
    let deadline = Instant::now() + LOOK_FOR;
    if request.version >= 8 {
        // All that a group has is told once.
        let mut whole = HashSet::new();
        let groups: Vec<OffsetFetchRequestGroup> = message
            .groups
            .into_iter()
            .filter(|group| group.topics.is_some() || whole.insert(group.group_id.clone()))
            .collect();
        let again = named_again(&groups);
        let asked = groups.into_iter().map(|group| {
            let relayed = !again.contains(&group.group_id);
            fetch(&request, group, require_stable, relayed.then_some(deadline))
        });
        let groups = group_call::each(asked).await;
        return OffsetFetchResponse::default().with_groups(groups);
    }
    let topics: Option<Vec<OffsetFetchRequestTopics>> = message.topics.map(|topics| {
        topics
            .into_iter()
            .map(|topic| {
                OffsetFetchRequestTopics::default()
                    .with_name(topic.name)
                    .with_partition_indexes(topic.partition_indexes)
            })
            .collect()
    });
    let group = OffsetFetchRequestGroup::default()
        .with_group_id(message.group_id)
        .with_topics(topics.clone());
    let fetched = fetch(&request, group, require_stable, Some(deadline)).await;
    if fetched.error_code != 0 && request.version < 2 {
        return OffsetFetchResponse::default()
            .with_topics(all_failed(topics.unwrap_or_default(), fetched.error_code));
    }
    OffsetFetchResponse::default()
        .with_error_code(fetched.error_code)
        .with_topics(fetched.topics.into_iter().map(single).collect())
}

/// Groups that have more than one entry. No client does that, and another broker is not asked for it: answers
/// are many times as large as such entries, and what comes from there is shared by none.
fn named_again(groups: &[OffsetFetchRequestGroup]) -> HashSet<GroupId> {
    let mut named = HashSet::new();
    let again = groups.iter().filter(|group| !named.insert(&group.group_id));
    again.map(|group| group.group_id.clone()).collect()
}

/// What the group has committed; where this broker does not coordinate it, another one is asked until
/// `relay_until`, if there is such a time.
async fn fetch(
    request: &Request,
    group: OffsetFetchRequestGroup,
    require_stable: bool,
    relay_until: Option<Instant>,
) -> OffsetFetchResponseGroup {
    let asked = GroupRequest::FetchOffsets {
        group: group.clone(),
        require_stable,
    };
    let fetched = match group_call::call(request, asked).await {
        GroupReply::FetchOffsets(fetched) => fetched,
        other => OffsetFetchResponseGroup::default()
            .with_group_id(group.group_id.clone())
            .with_error_code(group_call::mismatch(&other)),
    };
    // Where there are no groups yet there is nobody to ask.
    if !Relay::is_about_the_way(fetched.error_code) || !request.broker.groups.has_topic() {
        return fetched;
    }
    let Some(deadline) = relay_until.filter(|_| Relay::fetches(&group)) else {
        return fetched;
    };
    let relay = Relay::new(request.broker.clone());
    relay.fetch_offsets(group, require_stable, deadline).await
}

/// A topic as the versions of a single group have it.
fn single(
    topic: kafka_protocol::messages::offset_fetch_response::OffsetFetchResponseTopics,
) -> OffsetFetchResponseTopic {
    let partitions = topic.partitions.into_iter().map(|partition| {
        OffsetFetchResponsePartition::default()
            .with_partition_index(partition.partition_index)
            .with_committed_offset(partition.committed_offset)
            .with_committed_leader_epoch(partition.committed_leader_epoch)
            .with_metadata(partition.metadata)
            .with_error_code(partition.error_code)
    });
    OffsetFetchResponseTopic::default()
        .with_name(topic.name)
        .with_partitions(partitions.collect())
}

/// The answer of version 1 where the whole request fails.
fn all_failed(topics: Vec<OffsetFetchRequestTopics>, code: i16) -> Vec<OffsetFetchResponseTopic> {
    let failed = topics.into_iter().map(|topic| {
        let partitions = topic.partition_indexes.into_iter().map(|index| {
            OffsetFetchResponsePartition::default()
                .with_partition_index(index)
                .with_committed_offset(-1)
                .with_metadata(Some(kafka_protocol::protocol::StrBytes::new()))
                .with_error_code(code)
        });
        OffsetFetchResponseTopic::default()
            .with_name(topic.name)
            .with_partitions(partitions.collect())
    });
    failed.collect()
}

#[cfg(test)]
mod tests {
    use kafka_protocol::protocol::StrBytes;

    use super::*;

    #[test]
    fn groups_with_several_entries_are_told_from_others() {
        let group = |name: &'static str| {
            OffsetFetchRequestGroup::default().with_group_id(GroupId(StrBytes::from_static_str(name)))
        };
        assert!(named_again(&[]).is_empty());
        assert!(named_again(&[group("a"), group("b")]).is_empty());
        let again = named_again(&[group("a"), group("b"), group("a"), group("a")]);
        assert_eq!(again, HashSet::from([GroupId(StrBytes::from_static_str("a"))]));
    }
}
