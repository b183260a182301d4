//! Members of the classic protocol in a group of the KIP-848 protocol.

use protocol::ErrorCode;

use super::super::{beats, bench, error, joins, owns, t, told};
use super::{beats_classic, classic_group, joined, joins_classic, read, share, synced};
use crate::coordinator::group::{
    GroupReply, GroupRequest,
    tests::bench::{Bench, error_of, join, leave, subscription, sync, text},
};

#[test]
fn classic_members_join_a_consumer_group() {
    let mut bench = bench();
    bench.beat(joins("c", &["t"]));
    let reply = joined(&mut bench, 9, joins_classic("", &[]));
    assert_eq!(reply.error_code, ErrorCode::MemberIdRequired.code());
    let id = reply.member_id.to_string();
    let reply = joined(&mut bench, 9, joins_classic(&id, &[]));
    assert_eq!((reply.error_code, reply.generation_id), (0, 2));
    let reply = synced(&mut bench, &id, 2);
    assert_eq!(read(&reply.assignment), Vec::<i32>::new());
    assert_eq!(beats_classic(&mut bench, &id, 2), ErrorCode::None);
    let reply = bench.beat(beats("c", 1));
    let share = told(&bench, &reply).1.expect("it is to give up");
    bench.beat(owns("c", 1, &share));
    // What it waits for is free: it is to fetch it.
    assert_eq!(beats_classic(&mut bench, &id, 2), ErrorCode::RebalanceInProgress);
    let reply = joined(&mut bench, 9, joins_classic(&id, &[]));
    assert_eq!((reply.error_code, reply.generation_id), (0, 2));
    assert_eq!(read(&synced(&mut bench, &id, 2).assignment).len(), 3);
    assert_eq!(beats_classic(&mut bench, &id, 2), ErrorCode::None);
    assert_eq!(bench.state(), "Stable");
    assert_eq!(
        error_of(&bench.ask(5, GroupRequest::Leave(leave(&id, None)))),
        ErrorCode::None
    );
    let reply = bench.beat(beats("c", 2));
    assert_eq!(told(&bench, &reply), (3, Some(t(&[0, 1, 2, 3, 4, 5]))));
}

#[test]
fn what_a_classic_member_may_not_do_in_a_consumer_group_is_refused() {
    let mut bench = bench();
    bench.beat(joins("c", &["t"]));
    let id = joined(&mut bench, 3, joins_classic("", &[]))
        .member_id
        .to_string();
    for (body, expected) in [
        (
            joins_classic("", &[]).with_protocol_type(text("connect")),
            ErrorCode::InconsistentGroupProtocol,
        ),
        (join("", &["another"]), ErrorCode::InconsistentGroupProtocol),
        (join("", &[]), ErrorCode::InconsistentGroupProtocol),
        (
            joins_classic("x", &[]).with_group_instance_id(Some(text("i"))),
            ErrorCode::UnknownMemberId,
        ),
        (
            joins_classic("", &[]).with_session_timeout_ms(1),
            ErrorCode::InvalidSessionTimeout,
        ),
    ] {
        assert_eq!(joined(&mut bench, 5, body).error_code, expected.code());
    }
    let mut syncs = |body| error_of(&bench.ask(5, GroupRequest::Sync(body)));
    assert_eq!(syncs(sync("x", 2, &[])), ErrorCode::UnknownMemberId);
    assert_eq!(syncs(sync("c", 1, &[])), ErrorCode::UnknownMemberId);
    assert_eq!(syncs(sync(&id, 1, &[])), ErrorCode::IllegalGeneration);
    let other_type = sync(&id, 2, &[]).with_protocol_type(Some(text("connect")));
    assert_eq!(syncs(other_type), ErrorCode::InconsistentGroupProtocol);
    let other_name = sync(&id, 2, &[]).with_protocol_name(Some(text("range")));
    assert_eq!(syncs(other_name), ErrorCode::InconsistentGroupProtocol);
    assert_eq!(syncs(sync(&id, 2, &[])), ErrorCode::None);
    assert_eq!(beats_classic(&mut bench, "x", 2), ErrorCode::UnknownMemberId);
    assert_eq!(beats_classic(&mut bench, "c", 1), ErrorCode::UnknownMemberId);
    assert_eq!(beats_classic(&mut bench, &id, 1), ErrorCode::IllegalGeneration);
    bench.beat(joins("d", &["t"]));
    let reply = bench.ask(5, GroupRequest::Sync(sync(&id, 2, &[])));
    assert_eq!(error_of(&reply), ErrorCode::RebalanceInProgress);
}

/// A consumer group of member `c` and a classic one, whose id and generation are returned.
fn with_classic_member(bench: &mut Bench) -> (String, i32) {
    bench.beat(joins("c", &["t"]));
    let reply = joined(bench, 3, joins_classic("", &[]));
    (reply.member_id.to_string(), reply.generation_id)
}

/// Lets 35 s pass, with heartbeats of both members of [`with_classic_member`].
fn wait(bench: &mut Bench, id: &str, generation: i32) {
    for _ in 0..7 {
        beats_classic(bench, id, generation);
        bench.beat(beats("c", 1));
        bench.pass(5_000);
    }
}

#[test]
fn a_classic_member_that_does_not_join_again_in_time_is_removed() {
    let mut bench = bench();
    let (id, generation) = with_classic_member(&mut bench);
    synced(&mut bench, &id, generation);
    wait(&mut bench, &id, generation);
    assert_eq!(beats_classic(&mut bench, &id, generation), ErrorCode::None);
    bench.beat(joins("d", &["t"]));
    assert_eq!(
        beats_classic(&mut bench, &id, generation),
        ErrorCode::RebalanceInProgress
    );
    for _ in 0..7 {
        beats_classic(&mut bench, &id, generation);
        bench.pass(5_000);
    }
    assert_eq!(
        beats_classic(&mut bench, &id, generation),
        ErrorCode::UnknownMemberId
    );
}

#[test]
fn a_removed_member_that_still_owns_something_is_told_to_begin_anew() {
    let mut bench = bench();
    let (id, generation) = with_classic_member(&mut bench);
    synced(&mut bench, &id, generation);
    bench.pass(20_000);
    let reply = joined(&mut bench, 9, joins_classic(&id, &[0, 1, 2]));
    assert_eq!(reply.error_code, ErrorCode::UnknownMemberId.code());
    assert_eq!(bench.shard.lag_view().groups[0].members, 1);
    // With empty hands it may come under its id, as whoever was given one.
    let reply = joined(&mut bench, 9, joins_classic(&id, &[]));
    assert_eq!((reply.error_code, &*reply.member_id), (0, &*id));
}

#[test]
fn a_removed_member_that_keeps_saying_what_it_owned_gets_in_with_a_new_id_once() {
    let mut bench = bench();
    let (removed, generation) = with_classic_member(&mut bench);
    synced(&mut bench, &removed, generation);
    bench.pass(20_000);
    let join = |bench: &mut Bench, id: &str| {
        let reply = joined(bench, 9, joins_classic(id, &[0, 1, 2]));
        (reply.error_code, reply.member_id.to_string())
    };
    let (unknown, required) = (
        ErrorCode::UnknownMemberId.code(),
        ErrorCode::MemberIdRequired.code(),
    );
    assert_eq!(join(&mut bench, &removed).0, unknown);
    let (error, id) = join(&mut bench, "");
    assert_eq!(error, required);
    assert_eq!(join(&mut bench, &id), (0, id.clone()));
    // Removed in its turn, it is told, as is the first one still.
    bench.pass(20_000);
    assert_eq!(join(&mut bench, &id).0, unknown);
    assert_eq!(join(&mut bench, &removed).0, unknown);
    // Whoever comes too late with its new id, begins anew again.
    let (error, late) = join(&mut bench, "");
    assert_eq!(error, required);
    bench.pass(20_000);
    assert_eq!(join(&mut bench, &late).0, unknown);
}

#[test]
fn a_classic_member_that_does_not_sync_in_time_is_removed() {
    let mut bench = bench();
    let (id, generation) = with_classic_member(&mut bench);
    wait(&mut bench, &id, generation);
    assert_eq!(
        beats_classic(&mut bench, &id, generation),
        ErrorCode::UnknownMemberId
    );
}

#[test]
fn a_classic_member_that_is_not_heard_of_is_removed() {
    let mut bench = bench();
    let (id, generation) = with_classic_member(&mut bench);
    synced(&mut bench, &id, generation);
    bench.pass(9_000);
    assert_eq!(beats_classic(&mut bench, &id, generation), ErrorCode::None);
    bench.pass(11_000);
    assert_eq!(
        beats_classic(&mut bench, &id, generation),
        ErrorCode::UnknownMemberId
    );
}

#[test]
fn eager_members_give_everything_up_when_they_join() {
    let mut bench = bench();
    let ids = {
        let tokens = [(); 2].map(|()| bench.send_join(3, join("", &["range"])));
        bench.pass(6_000);
        tokens.map(|token| bench.joined(token).member_id.to_string())
    };
    bench.send(5, GroupRequest::Sync(sync(&ids[1], 1, &[])));
    let mut body = sync(&ids[0], 1, &[(&ids[0], ""), (&ids[1], "")]);
    body.assignments[0].assignment = share(&[0, 1, 2]);
    body.assignments[1].assignment = share(&[3, 4, 5]);
    bench.ask(5, GroupRequest::Sync(body));
    bench.beat(joins("c", &["t"]));
    let mut all = Vec::new();
    for id in &ids {
        let mut body = join(id, &["range"]);
        body.protocols[0].metadata = subscription(&["t"]);
        let reply = joined(&mut bench, 9, body);
        assert_eq!((reply.error_code, reply.generation_id), (0, 2));
        all.extend(read(&synced(&mut bench, id, 2).assignment));
    }
    let reply = bench.beat(beats("c", 2));
    all.extend(
        told(&bench, &reply)
            .1
            .expect("it is free")
            .remove("t")
            .expect("its topic"),
    );
    all.sort_unstable();
    assert_eq!(all, [0, 1, 2, 3, 4, 5]);
}

#[test]
fn a_member_of_each_protocol_is_described_as_such() {
    let mut bench = bench();
    classic_group(&mut bench);
    bench.beat(joins("zz", &["t"]));
    let GroupReply::DescribeConsumer(group) = bench.ask(1, GroupRequest::DescribeConsumer(text("g").into()))
    else {
        panic!("it is one");
    };
    let types: Vec<i8> = group.members.iter().map(|member| member.member_type).collect();
    assert_eq!(types, [0, 0, 1]);
    bench.fail_over();
    assert_eq!(bench.state(), "Reconciling");
}

#[test]
fn an_id_that_no_record_holds_is_no_members() {
    let mut bench = bench();
    bench.beat(joins("a", &["t"]));
    let token = bench.send_join(9, joins_classic(&"x".repeat(40_000), &[]));
    assert_eq!(bench.error(token), Some(ErrorCode::UnknownMemberId));
    assert_eq!(error(&bench.beat(beats("a", 1))), ErrorCode::None);
}
