//! Who may commit, fetch and delete the offsets of a consumer group, and when they expire.

use kafka_protocol::messages::{
    OffsetDeleteRequest,
    offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic},
};
use protocol::ErrorCode;

use super::{beats, bench, joins, two_members};
use crate::coordinator::group::{
    GroupReply, GroupRequest,
    tests::bench::{Bench, commit, error_of, fetch, text},
};

fn commits(bench: &mut Bench, version: i16, member: &str, epoch: i32, topic: &str) -> ErrorCode {
    let body = commit(member, epoch, topic, 7);
    error_of(&bench.ask(version, GroupRequest::CommitOffsets(body)))
}

fn fetches(bench: &mut Bench, member: Option<&str>, epoch: i32) -> ErrorCode {
    let GroupRequest::FetchOffsets { group, .. } = fetch(Some("t")) else {
        panic!("it is one");
    };
    let group = group.with_member_id(member.map(text)).with_member_epoch(epoch);
    let request = GroupRequest::FetchOffsets {
        group,
        require_stable: true,
    };
    error_of(&bench.ask(9, request))
}

#[test]
fn members_commit_for_partitions_of_others_too() {
    let mut bench = bench();
    let (a, b, epoch) = two_members(&mut bench);
    assert!(
        a["t"].contains(&0) != b["t"].contains(&0),
        "partition 0 is one's own"
    );
    for member in ["a", "b"] {
        assert_eq!(commits(&mut bench, 9, member, epoch, "t"), ErrorCode::None);
        // Nor need they subscribe to the topic.
        assert_eq!(commits(&mut bench, 9, member, epoch, "u"), ErrorCode::None);
    }
}

#[test]
fn members_commit_and_fetch_in_their_epoch() {
    let mut bench = bench();
    two_members(&mut bench);
    assert_eq!(commits(&mut bench, 9, "a", 2, "t"), ErrorCode::None);
    assert_eq!(bench.committed("t"), 7);
    for stale in [-1, 0, 1, 3] {
        assert_eq!(
            commits(&mut bench, 9, "a", stale, "t"),
            ErrorCode::StaleMemberEpoch
        );
        assert_eq!(fetches(&mut bench, Some("a"), stale), ErrorCode::StaleMemberEpoch);
    }
    for nobody in ["", "c"] {
        assert_eq!(
            commits(&mut bench, 9, nobody, -1, "t"),
            ErrorCode::UnknownMemberId
        );
        assert_eq!(fetches(&mut bench, Some(nobody), 2), ErrorCode::UnknownMemberId);
    }
    // An older version cannot say that an epoch is stale.
    assert_eq!(commits(&mut bench, 8, "a", 2, "t"), ErrorCode::UnsupportedVersion);
    assert_eq!(fetches(&mut bench, Some("a"), 2), ErrorCode::None);
    assert_eq!(fetches(&mut bench, None, -1), ErrorCode::None);
    assert_eq!(fetches(&mut bench, None, 2), ErrorCode::UnknownMemberId);
}

#[test]
fn anyone_commits_while_there_are_no_members() {
    let mut bench = bench();
    bench.beat(joins("a", &["t"]));
    bench.beat(beats("a", -1));
    assert_eq!(commits(&mut bench, 9, "", -1, "t"), ErrorCode::None);
    assert_eq!(commits(&mut bench, 9, "a", 1, "t"), ErrorCode::UnknownMemberId);
    bench.fail_over();
    assert_eq!(bench.committed("t"), 7);
    assert_eq!(bench.state(), "Empty");
}

#[test]
fn a_group_that_only_has_offsets_takes_them_along() {
    let mut bench = bench();
    assert_eq!(commits(&mut bench, 9, "", -1, "t"), ErrorCode::None);
    bench.beat(joins("a", &["t"]));
    assert_eq!(bench.state(), "Stable");
    assert_eq!(bench.committed("t"), 7);
    assert_eq!(commits(&mut bench, 9, "a", 1, "t"), ErrorCode::None);
}

#[test]
fn offsets_of_topics_that_are_subscribed_are_not_deleted() {
    let mut bench = bench();
    bench.beat(joins("a", &["t"]));
    for topic in ["t", "u"] {
        assert_eq!(commits(&mut bench, 9, "a", 1, topic), ErrorCode::None);
    }
    let mut delete = |topic: &str| {
        let partition = OffsetDeleteRequestPartition::default().with_partition_index(0);
        let topic = OffsetDeleteRequestTopic::default()
            .with_name(text(topic).into())
            .with_partitions(vec![partition]);
        let body = OffsetDeleteRequest::default()
            .with_group_id(text("g").into())
            .with_topics(vec![topic]);
        error_of(&bench.ask(0, GroupRequest::DeleteOffsets(body)))
    };
    assert_eq!(delete("t"), ErrorCode::GroupSubscribedToTopic);
    assert_eq!(delete("u"), ErrorCode::None);
    assert_eq!((bench.committed("t"), bench.committed("u")), (7, -1));
}

#[test]
fn offsets_expire_when_nobody_subscribes_and_the_group_goes_with_the_last() {
    const WEEK_MS: u64 = 7 * 24 * 60 * 60 * 1_000;
    let mut bench = bench();
    bench.replays_every_outcome = false;
    bench.beat(joins("a", &["t"]));
    for topic in ["t", "u"] {
        commits(&mut bench, 9, "a", 1, topic);
    }
    let mut left = WEEK_MS + 20 * 60_000;
    while left > 0 {
        let some = left.min(40_000);
        bench.pass(some);
        bench.beat(beats("a", 1));
        left -= some;
    }
    assert_eq!((bench.committed("t"), bench.committed("u")), (7, -1));
    bench.beat(beats("a", -1));
    bench.pass(11 * 60_000);
    assert_eq!(bench.state(), "Dead");
    assert_eq!(bench.committed("t"), -1);
    bench.replays_every_outcome = true;
    bench.fail_over();
    assert!(bench.shard.snapshot().0.is_empty());
}

#[test]
fn an_empty_group_is_deleted_with_everything() {
    let mut bench = bench();
    let delete = |bench: &mut Bench| error_of(&bench.ask(2, GroupRequest::Delete(text("g").into())));
    bench.beat(joins("a", &["t"]));
    commits(&mut bench, 9, "a", 1, "t");
    assert_eq!(delete(&mut bench), ErrorCode::NonEmptyGroup);
    bench.beat(beats("a", -1));
    assert_eq!(delete(&mut bench), ErrorCode::None);
    assert!(bench.shard.snapshot().0.is_empty());
    assert_eq!(delete(&mut bench), ErrorCode::GroupIdNotFound);
    assert_eq!(bench.committed("t"), -1);
    let outcome = bench.ask(9, GroupRequest::CommitOffsets(commit("a", 1, "t", 8)));
    assert!(matches!(outcome, GroupReply::CommitOffsets(_)));
    assert_eq!(error_of(&outcome), ErrorCode::GroupIdNotFound);
}
