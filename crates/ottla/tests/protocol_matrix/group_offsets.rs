//! What groups commit: kept, fetched, forgotten.

use kafka_protocol::messages::{
    OffsetCommitRequest, OffsetDeleteRequest, OffsetFetchRequest,
    offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
    offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic},
    offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics},
};
use protocol::ErrorCode;

use crate::{
    ground::topic,
    groups::{coordinator, group_id},
    support::{Client, DevNode, text, topic_name},
};

/// Commits as a consumer without membership; the errors of the topic's partitions 0 and 9.
pub(crate) fn commit(client: &mut Client, version: i16, group: &str, topic: &str, offset: i64) -> (i16, i16) {
    let partition = |index: i32| {
        let partition = OffsetCommitRequestPartition::default()
            .with_partition_index(index)
            .with_committed_offset(offset)
            .with_committed_metadata(Some(text("note")));
        if version >= 6 {
            partition.with_committed_leader_epoch(3)
        } else {
            partition
        }
    };
    let request = OffsetCommitRequest::default()
        .with_group_id(group_id(group))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![
            OffsetCommitRequestTopic::default()
                .with_name(topic_name(topic))
                .with_partitions(vec![partition(0), partition(9)]),
        ]);
    let answer = client.call(version, &request);
    assert_eq!(answer.topics[0].name, topic_name(topic));
    let codes = &answer.topics[0].partitions;
    (codes[0].error_code, codes[1].error_code)
}

/// What is committed for partition 0: offset, epoch, metadata.
pub(crate) fn committed(
    client: &mut Client,
    version: i16,
    group: &str,
    topic: Option<&str>,
) -> Option<(i64, i32, String)> {
    if version >= 8 {
        let topics = topic.map(|name| {
            vec![
                OffsetFetchRequestTopics::default()
                    .with_name(topic_name(name))
                    .with_partition_indexes(vec![0]),
            ]
        });
        let asked = |name: &str| {
            OffsetFetchRequestGroup::default()
                .with_group_id(group_id(name))
                .with_topics(topics.clone())
        };
        let request = OffsetFetchRequest::default().with_groups(vec![asked(group), asked("another")]);
        let answer = client.call(version, &request);
        assert_eq!(answer.groups.len(), 2);
        let found = &answer.groups[0];
        assert_eq!((&*found.group_id, found.error_code), (&group_id(group).0, 0));
        let partition = found.topics.first()?.partitions.first()?;
        let metadata = partition
            .metadata
            .as_ref()
            .map_or_else(String::new, ToString::to_string);
        return Some((
            partition.committed_offset,
            partition.committed_leader_epoch,
            metadata,
        ));
    }
    let topics = topic.map(|name| {
        vec![
            OffsetFetchRequestTopic::default()
                .with_name(topic_name(name))
                .with_partition_indexes(vec![0]),
        ]
    });
    let request = OffsetFetchRequest::default()
        .with_group_id(group_id(group))
        .with_topics(topics);
    let answer = client.call(version, &request);
    assert_eq!(answer.error_code, 0);
    let partition = answer.topics.first()?.partitions.first()?;
    assert_eq!(partition.error_code, 0);
    let metadata = partition
        .metadata
        .as_ref()
        .map_or_else(String::new, ToString::to_string);
    Some((
        partition.committed_offset,
        partition.committed_leader_epoch,
        metadata,
    ))
}

pub(crate) fn offset_commit(node: &DevNode, version: i16) {
    let group = format!("commit-{version}");
    let topic = topic(node, &format!("commit-{version}")).name;
    let mut client = coordinator(node, &group);
    let unknown = ErrorCode::UnknownTopicOrPartition.code();
    assert_eq!(commit(&mut client, version, &group, &topic, 5), (0, unknown));
    assert_eq!(
        commit(&mut client, version, &group, "not-there", 5),
        (unknown, unknown)
    );
    let epoch = if version >= 6 { 3 } else { -1 };
    let expected = Some((5, epoch, "note".to_owned()));
    assert_eq!(committed(&mut client, 9, &group, Some(&topic)), expected);
    // A member's commit needs the member.
    let stranger = OffsetCommitRequest::default()
        .with_group_id(group_id(&group))
        .with_generation_id_or_member_epoch(4)
        .with_member_id(text("stranger"))
        .with_topics(vec![
            OffsetCommitRequestTopic::default()
                .with_name(topic_name(&topic))
                .with_partitions(vec![OffsetCommitRequestPartition::default()]),
        ]);
    let refused = client.call(version, &stranger).topics[0].partitions[0].error_code;
    assert_ne!(refused, 0);
}

pub(crate) fn offset_fetch(node: &DevNode, version: i16) {
    let group = format!("fetch-{version}");
    let topic = topic(node, &format!("fetch-offsets-{version}")).name;
    let mut client = coordinator(node, &group);
    let nothing = Some((-1, -1, String::new()));
    assert_eq!(committed(&mut client, version, &group, Some(&topic)), nothing);
    assert_eq!(commit(&mut client, 9, &group, &topic, 7).0, 0);
    let epoch = if version >= 5 { 3 } else { -1 };
    let expected = Some((7, epoch, "note".to_owned()));
    assert_eq!(committed(&mut client, version, &group, Some(&topic)), expected);
    if version >= 2 {
        assert_eq!(
            committed(&mut client, version, &group, None),
            expected,
            "all topics"
        );
    }
}

pub(crate) fn offset_delete(node: &DevNode, version: i16) {
    let group = "offset-delete";
    let topic = topic(node, group).name;
    let mut client = coordinator(node, group);
    assert_eq!(commit(&mut client, 9, group, &topic, 7).0, 0);
    let partition = |index| OffsetDeleteRequestPartition::default().with_partition_index(index);
    let request = OffsetDeleteRequest::default()
        .with_group_id(group_id(group))
        .with_topics(vec![
            OffsetDeleteRequestTopic::default()
                .with_name(topic_name(&topic))
                .with_partitions(vec![partition(0), partition(9)]),
        ]);
    let answer = client.call(version, &request);
    assert_eq!(answer.error_code, 0);
    let mut codes: Vec<_> = answer.topics[0]
        .partitions
        .iter()
        .map(|partition| (partition.partition_index, partition.error_code))
        .collect();
    codes.sort_unstable();
    assert_eq!(codes, [(0, 0), (9, ErrorCode::UnknownTopicOrPartition.code())]);
    assert_eq!(
        committed(&mut client, 9, group, Some(&topic)),
        Some((-1, -1, String::new()))
    );
    let unknown = request.with_group_id(group_id("no-such-group"));
    assert_eq!(
        client.call(version, &unknown).error_code,
        ErrorCode::GroupIdNotFound.code()
    );
}
