//! Operators remove members with LeaveGroup, whichever protocol they speak.

use kafka_protocol::messages::{LeaveGroupRequest, LeaveGroupResponse, leave_group_request::MemberIdentity};
use protocol::ErrorCode;

use super::{Places, beats, bench, error, joins, owns, t, told};
use crate::coordinator::group::{
    GroupKind, GroupReply, GroupRequest,
    tests::bench::{Bench, error_of, heartbeat, join, leave, subscription, text},
};

/// Removes members by their ids, their instance ids or both.
fn remove(bench: &mut Bench, members: &[(&str, Option<&str>)]) -> LeaveGroupResponse {
    let members = members.iter().map(|(member, instance)| {
        MemberIdentity::default()
            .with_member_id(text(member))
            .with_group_instance_id(instance.map(text))
    });
    let body = LeaveGroupRequest::default()
        .with_group_id(text("g").into())
        .with_members(members.collect());
    match bench.ask(5, GroupRequest::Leave(body)) {
        GroupReply::Leave(reply) => reply,
        other => panic!("{other:?}"),
    }
}

/// The errors of an answer, member by member.
fn errors(reply: &LeaveGroupResponse) -> Vec<ErrorCode> {
    assert_eq!(reply.error_code, 0);
    let members = reply.members.iter();
    let error = |code| ErrorCode::from_code(code).expect("a code that there is");
    members.map(|member| error(member.error_code)).collect()
}

#[test]
fn a_member_of_the_kip_848_protocol_is_removed_by_its_id() {
    let mut bench = bench();
    bench.beat(joins("a", &["t"]));
    bench.beat(joins("b", &["t"]));
    let reply = remove(&mut bench, &[("a", None), ("a", None), ("nobody", None)]);
    assert_eq!(
        errors(&reply),
        [
            ErrorCode::None,
            ErrorCode::UnknownMemberId,
            ErrorCode::UnknownMemberId
        ]
    );
    // What it had is the other's at once, and it is no member any more.
    let reply = bench.beat(beats("b", 2));
    assert_eq!(told(&bench, &reply), (3, Some(t(&[0, 1, 2, 3, 4, 5]))));
    assert_eq!(error(&bench.beat(beats("a", 1))), ErrorCode::UnknownMemberId);
    bench.fail_over();
    assert_eq!(
        (bench.state(), error(&bench.beat(beats("b", 3)))),
        ("Stable", ErrorCode::None)
    );
}

#[test]
fn a_static_member_that_died_is_removed_by_its_instance_id() {
    let mut bench = bench();
    let instance = |id| Some(text(id));
    bench.beat(joins("a", &["t"]).with_instance_id(instance("i")));
    bench.beat(joins("b", &["t"]).with_instance_id(instance("j")));
    // Another process is not meant.
    assert_eq!(
        errors(&remove(&mut bench, &[("b", Some("i")), ("", Some("nobody"))])),
        [ErrorCode::FencedInstanceId, ErrorCode::UnknownMemberId]
    );
    let reply = remove(&mut bench, &[("", Some("i"))]);
    assert_eq!(errors(&reply), [ErrorCode::None]);
    assert_eq!(reply.members[0].group_instance_id.as_deref(), Some("i"));
    let reply = bench.beat(beats("b", 2).with_instance_id(instance("j")));
    assert_eq!(told(&bench, &reply), (3, Some(t(&[0, 1, 2, 3, 4, 5]))));
    // Its instance id is free: nobody is UNRELEASED.
    let reply = bench.beat(joins("c", &["t"]).with_instance_id(instance("i")));
    assert_eq!(told(&bench, &reply), (4, Some(Places::new())));
    // One that is away is removed as well.
    bench.beat(beats("c", -2).with_instance_id(instance("i")));
    assert_eq!(errors(&remove(&mut bench, &[("", Some("i"))])), [ErrorCode::None]);
    // No timer is left of it.
    let mut reply = bench.beat(beats("b", 3).with_instance_id(instance("j")));
    if let Some(share) = super::assigned(&bench, &reply) {
        reply = bench.beat(owns("b", reply.member_epoch, &share).with_instance_id(instance("j")));
    }
    let settled = reply.member_epoch;
    for _ in 0..5 {
        bench.pass(20_000);
        let reply = bench.beat(beats("b", settled).with_instance_id(instance("j")));
        assert_eq!(told(&bench, &reply), (settled, None));
    }
    assert_eq!(bench.state(), "Stable");
}

#[test]
fn a_group_whose_last_member_of_the_kip_848_protocol_is_removed_is_classic() {
    let mut bench = bench();
    bench.beat(joins("c", &["t"]));
    let mut body = join("", &["range"]);
    body.protocols[0].metadata = subscription(&["t"]);
    let token = bench.send_join(3, body);
    let id = bench.joined(token).member_id.to_string();
    assert_eq!(errors(&remove(&mut bench, &[("c", None)])), [ErrorCode::None]);
    assert_eq!(bench.shard.lag_view().groups[0].kind, GroupKind::Classic);
    let beat = GroupRequest::Heartbeat(heartbeat(&id, 2));
    assert_eq!(error_of(&bench.ask(4, beat)), ErrorCode::RebalanceInProgress);
    // Both at once leave nobody.
    let mut bench = self::bench();
    bench.beat(joins("a", &["t"]));
    bench.beat(joins("b", &["t"]));
    let reply = remove(&mut bench, &[("a", None), ("b", None)]);
    assert_eq!(errors(&reply), [ErrorCode::None, ErrorCode::None]);
    assert_eq!(bench.state(), "Empty");
    assert_eq!(
        error_of(&bench.ask(2, GroupRequest::Leave(leave("a", None)))),
        ErrorCode::UnknownMemberId
    );
}
