//! A coordinator that dies with `kill -9` and comes back: its groups are as their members know them.

use kafka_protocol::messages::{
    HeartbeatRequest, OffsetCommitRequest,
    offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
};

use crate::{
    ground::topic,
    group_offsets::committed,
    groups::{coordinator, group_id, stable},
    support::{Client, DevNode, text, topic_name},
};

/// Commits as a member of generation 1; the error of partition 0.
fn commit(client: &mut Client, group: &str, member: &str, topic: &str, offset: i64) -> i16 {
    let partition = OffsetCommitRequestPartition::default().with_committed_offset(offset);
    let request = OffsetCommitRequest::default()
        .with_group_id(group_id(group))
        .with_generation_id_or_member_epoch(1)
        .with_member_id(text(member))
        .with_topics(vec![
            OffsetCommitRequestTopic::default()
                .with_name(topic_name(topic))
                .with_partitions(vec![partition]),
        ]);
    client.call(9, &request).topics[0].partitions[0].error_code
}

#[test]
fn members_and_their_commits_outlive_the_coordinator() {
    let mut node = DevNode::start(&[]);
    let group = "survivors";
    let topic = topic(&node, "survived").name;
    let mut client = coordinator(&node, group);
    let member = stable(&mut client, group);
    for offset in [3, 7] {
        assert_eq!(commit(&mut client, group, &member, &topic, offset), 0);
    }
    let expected = |offset| Some((offset, -1, String::new()));
    assert_eq!(committed(&mut client, 9, group, Some(&topic)), expected(7));

    node.kill_and_restart();
    let mut client = coordinator(&node, group);
    assert_eq!(committed(&mut client, 9, group, Some(&topic)), expected(7));
    let beat = HeartbeatRequest::default()
        .with_group_id(group_id(group))
        .with_generation_id(1)
        .with_member_id(text(&member));
    assert_eq!(client.call(4, &beat).error_code, 0, "still a member");
    assert_eq!(commit(&mut client, group, &member, &topic, 9), 0);
    assert_eq!(committed(&mut client, 9, group, Some(&topic)), expected(9));
}
