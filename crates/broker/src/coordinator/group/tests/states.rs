//! What every request gets in every state: Kafka's error codes as a table.

use kafka_protocol::messages::{
    ListGroupsRequest, OffsetDeleteRequest,
    offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic},
};
use protocol::ErrorCode::{
    self, GroupIdNotFound, GroupSubscribedToTopic, IllegalGeneration, InconsistentGroupProtocol,
    InvalidGroupId, InvalidRequest, InvalidSessionTimeout, InvalidTopicException, MemberIdRequired,
    NonEmptyGroup, RebalanceInProgress, UnknownMemberId,
};

use super::bench::{Bench, commit, error_of, fetch, heartbeat, join, leave, sync, text};
use crate::coordinator::group::{GroupReply, GroupRequest};

/// No error.
const OK: ErrorCode = ErrorCode::None;

/// The states that a group can be in; those with members have two, and the first leads.
const STATES: [&str; 5] = [
    "Dead",
    "Empty",
    "PreparingRebalance",
    "CompletingRebalance",
    "Stable",
];

/// A group "g" in that state, and the ids of its members (of those it had).
fn group_in(state: &str) -> (Bench, Vec<String>) {
    let mut bench = Bench::new();
    let ids = match state {
        "Dead" => vec!["gone".to_owned(), "too".to_owned()],
        "CompletingRebalance" => bench.completing(2),
        _ => bench.stable(2),
    };
    match state {
        "Empty" => {
            for id in &ids {
                bench.ask(3, GroupRequest::Leave(leave(id, None)));
            }
        }
        // The second joins with something new, the first is still missing.
        "PreparingRebalance" => {
            bench.send_join(5, join(&ids[1], &["range", "new"]));
        }
        _ => {}
    }
    assert_eq!(bench.state(), state);
    (bench, ids)
}

fn delete_offsets(topic: &str) -> GroupRequest {
    let partition = OffsetDeleteRequestPartition::default();
    let topic = OffsetDeleteRequestTopic::default()
        .with_name(text(topic).into())
        .with_partitions(vec![partition]);
    GroupRequest::DeleteOffsets(
        OffsetDeleteRequest::default()
            .with_group_id(text("g").into())
            .with_topics(vec![topic]),
    )
}

/// Sends a request to a group in each state; `None` stands for one that waits.
fn expect(
    name: &str,
    version: i16,
    request: impl Fn(&[String]) -> GroupRequest,
    expected: [Option<ErrorCode>; 5],
) {
    for (state, expected) in STATES.into_iter().zip(expected) {
        let (mut bench, ids) = group_in(state);
        let token = match request(&ids) {
            GroupRequest::Join { body, .. } => bench.send_join(version, body),
            other => bench.send(version, other),
        };
        assert_eq!(bench.error(token), expected, "{name} while {state}");
    }
}

fn request_join(member_id: &str, protocols: &[&str]) -> GroupRequest {
    GroupRequest::Join {
        body: join(member_id, protocols),
        fresh_member_id: uuid::Uuid::nil(),
    }
}

/// One code in every state.
fn always(code: ErrorCode) -> [Option<ErrorCode>; 5] {
    [Some(code); 5]
}

#[test]
fn join_group() {
    expect("a new member", 3, |_| request_join("", &["range"]), [None; 5]);
    expect(
        "a new member that can be told its id",
        4,
        |_| request_join("", &["range"]),
        always(MemberIdRequired),
    );
    expect(
        "a new member without protocols",
        9,
        |_| request_join("", &[]),
        always(InconsistentGroupProtocol),
    );
    let other = [None, None]
        .into_iter()
        .chain([Some(InconsistentGroupProtocol); 3]);
    let other: Vec<_> = other.collect();
    expect(
        "a new member with a protocol of its own",
        3,
        |_| request_join("", &["other"]),
        other.clone().try_into().expect("five"),
    );
    expect(
        "a new member of another kind",
        3,
        |_| GroupRequest::Join {
            body: join("", &["range"]).with_protocol_type(text("connect")),
            fresh_member_id: uuid::Uuid::nil(),
        },
        other.try_into().expect("five"),
    );
    expect(
        "the leader, saying the same",
        9,
        |ids| request_join(&ids[0], &["range"]),
        [
            Some(UnknownMemberId),
            Some(UnknownMemberId),
            // It was the one missing.
            Some(OK),
            Some(OK),
            // It wants to assign anew.
            None,
        ],
    );
    expect(
        "a follower, saying the same",
        9,
        |ids| request_join(&ids[1], &["range"]),
        [
            Some(UnknownMemberId),
            Some(UnknownMemberId),
            None,
            Some(OK),
            Some(OK),
        ],
    );
    expect(
        "a follower, saying something new",
        9,
        |ids| request_join(&ids[1], &["new", "range"]),
        [Some(UnknownMemberId), Some(UnknownMemberId), None, None, None],
    );
    expect(
        "an id that nobody was given",
        9,
        |_| request_join("nobody", &["range"]),
        always(UnknownMemberId),
    );
    for (timeout, code) in [
        (5_999, InvalidSessionTimeout),
        (1_800_001, InvalidSessionTimeout),
        (6_000, MemberIdRequired),
        (1_800_000, MemberIdRequired),
    ] {
        expect(
            "a session timeout",
            9,
            |_| GroupRequest::Join {
                body: join("", &["range"]).with_session_timeout_ms(timeout),
                fresh_member_id: uuid::Uuid::nil(),
            },
            always(code),
        );
    }
}

#[test]
fn sync_group() {
    let request = |id: &str, generation| GroupRequest::Sync(sync(id, generation, &[]));
    let gone = [Some(UnknownMemberId); 2];
    let five = |rest: [Option<ErrorCode>; 3]| [gone[0], gone[1], rest[0], rest[1], rest[2]];
    expect(
        "the leader",
        5,
        |ids| request(&ids[0], 1),
        five([Some(RebalanceInProgress), Some(OK), Some(OK)]),
    );
    expect(
        "a follower",
        5,
        |ids| request(&ids[1], 1),
        five([Some(RebalanceInProgress), None, Some(OK)]),
    );
    for generation in [-1, 0, 2] {
        expect(
            "another generation",
            5,
            |ids| request(&ids[0], generation),
            five([Some(IllegalGeneration); 3]),
        );
    }
    expect(
        "another protocol",
        5,
        |ids| GroupRequest::Sync(sync(&ids[0], 1, &[]).with_protocol_name(Some(text("other")))),
        five([Some(InconsistentGroupProtocol); 3]),
    );
    expect(
        "another kind",
        5,
        |ids| GroupRequest::Sync(sync(&ids[0], 1, &[]).with_protocol_type(Some(text("connect")))),
        five([Some(InconsistentGroupProtocol); 3]),
    );
    expect("nobody", 5, |_| request("nobody", 1), always(UnknownMemberId));
    expect(
        "an instance that is not there",
        5,
        |ids| GroupRequest::Sync(sync(&ids[0], 1, &[]).with_group_instance_id(Some(text("i")))),
        always(UnknownMemberId),
    );
}

#[test]
fn heartbeats() {
    let gone = Some(UnknownMemberId);
    let request = |id: &str, generation| GroupRequest::Heartbeat(heartbeat(id, generation));
    expect(
        "a member",
        4,
        |ids| request(&ids[0], 1),
        [gone, gone, Some(RebalanceInProgress), Some(OK), Some(OK)],
    );
    expect(
        "another generation",
        4,
        |ids| request(&ids[0], 7),
        [
            gone,
            gone,
            Some(IllegalGeneration),
            Some(IllegalGeneration),
            Some(IllegalGeneration),
        ],
    );
    expect("nobody", 4, |_| request("nobody", 1), always(UnknownMemberId));
}

#[test]
fn leave_group() {
    let gone = Some(UnknownMemberId);
    let left = [gone, gone, Some(OK), Some(OK), Some(OK)];
    for version in [3, 4, 5] {
        expect(
            "a member",
            version,
            |ids| GroupRequest::Leave(leave(&ids[0], None)),
            left,
        );
        expect(
            "nobody",
            version,
            |_| GroupRequest::Leave(leave("nobody", None)),
            always(UnknownMemberId),
        );
    }
    expect(
        "a member, in the old form",
        2,
        |ids| {
            let body = leave("", None)
                .with_members(Vec::new())
                .with_member_id(text(&ids[0]));
            GroupRequest::Leave(body)
        },
        left,
    );
    expect(
        "an instance that is not there",
        5,
        |_| GroupRequest::Leave(leave("", Some("i"))),
        always(UnknownMemberId),
    );
}

#[test]
fn offset_commit() {
    let request = |id: &str, generation| GroupRequest::CommitOffsets(commit(id, generation, "t", 9));
    for (version, no_group) in [(8, IllegalGeneration), (9, GroupIdNotFound)] {
        expect(
            "a member",
            version,
            |ids| request(&ids[0], 1),
            [
                Some(no_group),
                Some(UnknownMemberId),
                Some(OK),
                Some(RebalanceInProgress),
                Some(OK),
            ],
        );
        expect(
            "another generation",
            version,
            |ids| request(&ids[0], 0),
            [
                Some(no_group),
                Some(UnknownMemberId),
                Some(IllegalGeneration),
                Some(IllegalGeneration),
                Some(IllegalGeneration),
            ],
        );
        let alone = [
            Some(OK),
            Some(OK),
            Some(UnknownMemberId),
            Some(UnknownMemberId),
            Some(UnknownMemberId),
        ];
        expect("no member", version, |_| request("", -1), alone);
        expect("nobody, without generation", version, |_| request("x", -1), alone);
        expect(
            "nobody",
            version,
            |_| request("nobody", 1),
            [
                Some(no_group),
                Some(UnknownMemberId),
                Some(UnknownMemberId),
                Some(UnknownMemberId),
                Some(UnknownMemberId),
            ],
        );
    }
}

#[test]
fn administration() {
    let not_there = Some(GroupIdNotFound);
    let busy = Some(NonEmptyGroup);
    let id = || text("g").into();
    expect(
        "DeleteGroups",
        2,
        |_| GroupRequest::Delete(id()),
        [not_there, Some(OK), busy, busy, busy],
    );
    let subscribed = Some(GroupSubscribedToTopic);
    expect(
        "OffsetDelete of what members consume",
        0,
        |_| delete_offsets("t"),
        [not_there, Some(OK), subscribed, subscribed, subscribed],
    );
    expect(
        "OffsetDelete of something else",
        0,
        |_| delete_offsets("u"),
        [not_there, Some(OK), Some(OK), Some(OK), Some(OK)],
    );
    expect("OffsetFetch", 9, |_| fetch(None), always(OK));
    for (version, dead) in [(5, OK), (6, GroupIdNotFound)] {
        expect(
            "DescribeGroups",
            version,
            |_| GroupRequest::Describe(id()),
            [Some(dead), Some(OK), Some(OK), Some(OK), Some(OK)],
        );
    }
}

#[test]
fn groups_are_described_and_listed_in_their_state() {
    for state in STATES {
        let (mut bench, ids) = group_in(state);
        let GroupReply::Describe(described) = bench.ask(5, GroupRequest::Describe(text("g").into())) else {
            panic!("another reply");
        };
        assert_eq!(described.group_state.as_str(), state);
        let stable = state == "Stable";
        assert_eq!(
            described.protocol_data.as_str(),
            if stable { "range" } else { "" }
        );
        let there = if matches!(state, "Dead" | "Empty") { 0 } else { 2 };
        assert_eq!(described.members.len(), there);
        for member in &described.members {
            assert!(ids.iter().any(|id| *id == *member.member_id));
            assert_eq!(member.client_host.as_str(), "/127.0.0.1");
            assert_eq!(member.member_metadata.is_empty(), !stable);
            assert_eq!(member.member_assignment.is_empty(), !stable);
        }

        let cases: [(&[&str], &[&str], bool); 7] = [
            (&[], &[], true),
            (
                &["stable", " PREPARINGREBALANCE", "empty", "CompletingRebalance"],
                &[],
                true,
            ),
            (&["Dead"], &[], false),
            (&["Stable"], &[], stable),
            (&[], &["classic"], true),
            (&[], &["Classic", "Consumer"], true),
            (&[], &["consumer"], false),
        ];
        for (states, types, listed) in cases {
            let filters = ListGroupsRequest::default()
                .with_states_filter(states.iter().map(|name| text(name)).collect())
                .with_types_filter(types.iter().map(|name| text(name)).collect());
            let GroupReply::List(Ok(groups)) = bench.ask(5, GroupRequest::List(filters)) else {
                panic!("another reply");
            };
            let expected = usize::from(listed && state != "Dead");
            assert_eq!(groups.len(), expected, "{states:?} {types:?} while {state}");
            for group in groups {
                assert_eq!(group.group_state.as_str(), state);
                assert_eq!(group.protocol_type.as_str(), "consumer");
                assert_eq!(group.group_type.as_str(), "classic");
            }
        }
    }
}

#[test]
fn group_ids_that_no_record_holds_are_refused() {
    let long = "g".repeat(40_000);
    for (group_id, of_members, others) in [("", InvalidGroupId, OK), (&*long, InvalidGroupId, InvalidGroupId)]
    {
        let mut bench = Bench::new();
        let id = || text(group_id).into();
        let requests = [
            GroupRequest::Sync(sync("a", 1, &[]).with_group_id(id())),
            GroupRequest::Heartbeat(heartbeat("a", 1).with_group_id(id())),
            GroupRequest::Leave(leave("a", None).with_group_id(id())),
        ];
        for request in requests {
            assert_eq!(error_of(&bench.ask(3, request)), of_members);
        }
        let token = bench.send_join(9, join("", &["range"]).with_group_id(id()));
        assert_eq!(bench.error(token), Some(of_members));
        // As in Kafka, which deletes the group without a name, and no offset of it.
        let delete = OffsetDeleteRequest::default().with_group_id(id());
        let reply = bench.ask(0, GroupRequest::DeleteOffsets(delete));
        assert_eq!(error_of(&reply), of_members);
        let commit = commit("", -1, "t", 1).with_group_id(id());
        let reply = bench.ask(8, GroupRequest::CommitOffsets(commit));
        assert_eq!(error_of(&reply), others);
        let reply = bench.ask(2, GroupRequest::Delete(id()));
        assert_eq!(error_of(&reply), others);
    }
}

#[test]
fn names_that_no_record_holds_are_refused() {
    let long = "n".repeat(40_000);
    let mut bench = Bench::new();
    let bodies = [
        (join("", &[&long]), InconsistentGroupProtocol),
        (
            join("", &["range"]).with_protocol_type(text(&long)),
            InconsistentGroupProtocol,
        ),
        (
            join("", &["range"]).with_group_instance_id(Some(text(&long))),
            InvalidRequest,
        ),
    ];
    for (body, code) in bodies {
        let token = bench.send_join(9, body);
        assert_eq!(bench.error(token), Some(code));
    }
    let reply = bench.ask(8, GroupRequest::CommitOffsets(commit("", -1, &long, 1)));
    assert_eq!(error_of(&reply), InvalidTopicException);
    assert_eq!(bench.state(), "Dead");
    assert!(bench.log.is_empty());
}

/// A member's protocols are compared with all others': their number is bounded before any group is looked at.
#[test]
fn a_member_supports_a_bounded_number_of_protocols() {
    let names: Vec<String> = (0..257).map(|at| format!("p{at}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut bench = Bench::new();
    let token = bench.send_join(3, join("", &names));
    assert_eq!(bench.error(token), Some(InconsistentGroupProtocol));
    assert_eq!(bench.state(), "Dead");
}

/// A whole request is refused with a code that clients take there for what it means.
#[test]
fn what_cannot_be_answered_now_is_refused_in_the_clients_terms() {
    let refused = |request: GroupRequest, error| error_of(&request.refused(5, error));
    let loading = ErrorCode::CoordinatorLoadInProgress;
    let later = ErrorCode::CoordinatorNotAvailable;
    assert_eq!(refused(GroupRequest::Heartbeat(heartbeat("m", 1)), loading), OK);
    assert_eq!(
        refused(GroupRequest::Sync(sync("m", 1, &[])), loading),
        RebalanceInProgress
    );
    assert_eq!(refused(fetch(None), later), ErrorCode::NotCoordinator);
    assert_eq!(refused(fetch(None), loading), loading);
    assert_eq!(refused(GroupRequest::Heartbeat(heartbeat("m", 1)), later), later);
}
