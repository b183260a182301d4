//! How consumer groups are listed and described.

use kafka_protocol::messages::{ListGroupsRequest, consumer_group_describe_response::DescribedGroup};
use protocol::ErrorCode;

use super::{beats, bench, joins, owns, two_members};
use crate::coordinator::group::{
    GroupKind, GroupReply, GroupRequest,
    tests::bench::{Bench, commit, error_of, text, topic_id},
};

fn describe(bench: &mut Bench, group: &str) -> DescribedGroup {
    match bench.ask(1, GroupRequest::DescribeConsumer(text(group).into())) {
        GroupReply::DescribeConsumer(group) => group,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_group_is_described_with_its_members_and_what_they_have() {
    let mut bench = bench();
    bench.beat(joins("a", &["t"]).with_rack_id(Some(text("r"))));
    bench.beat(joins("b", &["t"]).with_instance_id(Some(text("i"))));
    bench.beat(beats("a", 1));
    let group = describe(&mut bench, "g");
    assert_eq!((group.error_code, group.group_id.as_str()), (0, "g"));
    assert_eq!(group.group_state.as_str(), "Reconciling");
    assert_eq!((group.group_epoch, group.assignment_epoch), (2, 2));
    assert_eq!(group.assignor_name.as_str(), "uniform");
    let [a, b] = &group.members[..] else {
        panic!("{group:?}");
    };
    assert_eq!((a.member_id.as_str(), a.member_epoch, a.member_type), ("a", 1, 1));
    assert_eq!(
        (a.rack_id.as_deref(), a.instance_id.as_deref()),
        (Some("r"), None)
    );
    assert_eq!(
        (a.client_id.as_str(), a.client_host.as_str()),
        ("app", "/127.0.0.1")
    );
    assert_eq!(a.subscribed_topic_names, [text("t")]);
    assert_eq!(a.subscribed_topic_regex.as_deref(), Some(""));
    let topic = &a.assignment.topic_partitions[0];
    assert_eq!(
        (topic.topic_id, topic.topic_name.as_str()),
        (topic_id("t").0, "t")
    );
    // What it is to give up it has until it says that it did.
    assert_eq!(topic.partitions, [0, 1, 2, 3, 4, 5]);
    assert_eq!(a.target_assignment.topic_partitions[0].partitions.len(), 3);
    assert_eq!((b.member_id.as_str(), b.instance_id.as_deref()), ("b", Some("i")));
    assert_eq!(b.assignment.topic_partitions.len(), 0);
    assert_eq!(b.target_assignment.topic_partitions[0].partitions.len(), 3);
    // Topics that are gone are not shown.
    bench.set_topics(&[]);
    let group = describe(&mut bench, "g");
    assert!(
        group
            .members
            .iter()
            .all(|member| member.target_assignment.topic_partitions.is_empty())
    );
}

#[test]
fn what_is_no_consumer_group_is_not_described_as_one() {
    let mut bench = bench();
    let group = describe(&mut bench, "g");
    assert_eq!(group.error_code, ErrorCode::GroupIdNotFound.code());
    assert_eq!(group.error_message.as_deref(), Some("Group g not found."));
    bench.ask(9, GroupRequest::CommitOffsets(commit("", -1, "t", 1)));
    let group = describe(&mut bench, "g");
    assert_eq!(group.error_code, ErrorCode::GroupIdNotFound.code());
    assert_eq!(
        group.error_message.as_deref(),
        Some("Group g is not a consumer group.")
    );
    let empty = bench.ask(1, GroupRequest::DescribeConsumer(text("").into()));
    assert_eq!(error_of(&empty), ErrorCode::InvalidGroupId);
    // Nor the other way around.
    bench.beat(joins("a", &["t"]));
    let GroupReply::Describe(classic) = bench.ask(6, GroupRequest::Describe(text("g").into())) else {
        panic!("it is one");
    };
    assert_eq!(classic.error_code, ErrorCode::GroupIdNotFound.code());
    assert_eq!(
        classic.error_message.as_deref(),
        Some("Group g is not a classic group.")
    );
    let GroupReply::Describe(classic) = bench.ask(5, GroupRequest::Describe(text("g").into())) else {
        panic!("it is one");
    };
    assert_eq!((classic.error_code, classic.group_state.as_str()), (0, "Dead"));
}

#[test]
fn groups_are_listed_by_type_and_state() {
    let mut bench = bench();
    let (a, _, _) = two_members(&mut bench);
    bench.ask(
        9,
        GroupRequest::CommitOffsets(commit("", -1, "t", 1).with_group_id(text("h").into())),
    );
    let mut list = |types: &[&str], states: &[&str]| {
        let texts = |names: &[&str]| names.iter().map(|name| text(name)).collect();
        let filters = ListGroupsRequest::default()
            .with_types_filter(texts(types))
            .with_states_filter(texts(states));
        match bench.ask(5, GroupRequest::List(filters)) {
            GroupReply::List(Ok(groups)) => groups
                .iter()
                .map(|group| {
                    format!(
                        "{} {} {}",
                        group.group_id.as_str(),
                        group.group_type,
                        group.group_state
                    )
                })
                .collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(list(&[], &[]), ["g consumer Stable", "h classic Empty"]);
    assert_eq!(list(&["Consumer"], &[]), ["g consumer Stable"]);
    assert_eq!(list(&["classic"], &[]), ["h classic Empty"]);
    assert_eq!(list(&["consumer"], &["assigning"]), Vec::<String>::new());
    bench.beat(owns("a", 2, &a));
    let kinds: Vec<_> = bench
        .shard
        .lag_view()
        .groups
        .iter()
        .map(|group| (group.kind, group.members))
        .collect();
    assert_eq!(kinds, [(GroupKind::Consumer, 2), (GroupKind::Classic, 0)]);
}
