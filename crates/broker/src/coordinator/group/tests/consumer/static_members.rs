//! Members with a `group.instance.id` keep their place while their process is away.

use kafka_protocol::messages::ConsumerGroupHeartbeatRequest;
use protocol::ErrorCode;

use super::{Places, beats, bench, error, joins, owns, t, told};
use crate::coordinator::group::tests::bench::{Bench, text};

/// The same from instance `i`.
fn as_i(body: ConsumerGroupHeartbeatRequest) -> ConsumerGroupHeartbeatRequest {
    body.with_instance_id(Some(text("i")))
}

/// Instance `i` as member `a`, and dynamic member `b`, with three partitions each, in epoch 2.
fn with_static(bench: &mut Bench) -> Places {
    bench.beat(as_i(joins("a", &["t"])));
    bench.beat(joins("b", &["t"]));
    let reply = bench.beat(beats("a", 1));
    let share = told(bench, &reply).1.expect("it is to give up");
    bench.beat(as_i(owns("a", 1, &share)));
    bench.beat(beats("b", 2));
    assert_eq!(bench.state(), "Stable");
    share
}

#[test]
fn an_instance_that_comes_back_goes_on_with_what_it_had() {
    let mut bench = bench();
    let share = with_static(&mut bench);
    let reply = bench.beat(as_i(beats("a", -2)));
    assert_eq!((error(&reply), reply.member_epoch), (ErrorCode::None, -2));
    assert_eq!(bench.state(), "Reconciling");
    // Its place is kept, through a failover too.
    bench.fail_over();
    let reply = bench.beat(beats("b", 2));
    assert_eq!(told(&bench, &reply), (2, None));
    let reply = bench.beat(as_i(joins("a2", &["t"])));
    assert_eq!(told(&bench, &reply), (2, Some(share)));
    assert_eq!(bench.state(), "Stable");
    assert_eq!(error(&bench.beat(beats("a", 2))), ErrorCode::UnknownMemberId);
    assert_eq!(
        error(&bench.beat(as_i(beats("a", 2)))),
        ErrorCode::FencedInstanceId
    );
}

#[test]
fn an_instance_that_wants_something_else_when_it_comes_back_is_assigned_anew() {
    let mut bench = bench();
    with_static(&mut bench);
    bench.beat(as_i(beats("a", -2)));
    let reply = bench.beat(as_i(joins("a2", &["u"])));
    let (epoch, share) = told(&bench, &reply);
    let share = share.expect("everything");
    assert_eq!((epoch, share.len(), share["u"].len()), (3, 1, 3));
    let reply = bench.beat(beats("b", 2));
    assert_eq!(told(&bench, &reply), (3, Some(t(&[0, 1, 2, 3, 4, 5]))));
}

#[test]
fn an_instance_that_is_there_is_not_replaced() {
    let mut bench = bench();
    with_static(&mut bench);
    let reply = bench.beat(as_i(joins("a2", &["t"])));
    assert_eq!(error(&reply), ErrorCode::UnreleasedInstanceId);
    assert_eq!(error(&bench.beat(as_i(beats("a", 2)))), ErrorCode::None);
}

#[test]
fn an_instance_whose_join_was_not_answered_says_it_again() {
    let mut bench = bench();
    let share = with_static(&mut bench);
    let reply = bench.beat(as_i(joins("a", &["t"])));
    assert_eq!(told(&bench, &reply), (2, Some(share)));
    assert_eq!(bench.state(), "Stable");
}

#[test]
fn one_member_does_not_take_the_place_of_another() {
    let mut bench = bench();
    let share = with_static(&mut bench);
    for away in [false, true] {
        if away {
            bench.beat(as_i(beats("a", -2)));
        }
        let reply = bench.beat(as_i(joins("b", &["t"])));
        assert_eq!(error(&reply), ErrorCode::InvalidRequest);
    }
    assert_eq!(error(&bench.beat(beats("b", 2))), ErrorCode::None);
    let reply = bench.beat(as_i(joins("a", &["t"])));
    assert_eq!(told(&bench, &reply), (2, Some(share)));
}

#[test]
fn one_that_is_away_has_its_session_and_not_its_time_to_give_up() {
    for fails_over in [false, true] {
        let mut bench = bench();
        bench.beat(as_i(joins("a", &["t"]).with_rebalance_timeout_ms(10_000)));
        bench.beat(joins("b", &["t"]));
        bench.beat(beats("a", 1));
        bench.beat(as_i(beats("a", -2)));
        if fails_over {
            bench.fail_over();
        }
        bench.pass(20_000);
        let reply = bench.beat(beats("b", 2));
        assert_eq!(told(&bench, &reply).1.expect("it is free")["t"].len(), 3);
        let reply = bench.beat(as_i(joins("a2", &["t"])));
        let (epoch, share) = told(&bench, &reply);
        assert_eq!((epoch, share.expect("its own")["t"].len()), (2, 3));
    }
}

#[test]
fn an_instance_that_does_not_come_back_is_removed_when_its_session_ends() {
    let mut bench = bench();
    with_static(&mut bench);
    bench.beat(as_i(beats("a", -2)));
    bench.pass(44_000);
    bench.beat(beats("b", 2));
    bench.pass(2_000);
    let reply = bench.beat(beats("b", 2));
    assert_eq!(told(&bench, &reply), (3, Some(t(&[0, 1, 2, 3, 4, 5]))));
    let reply = bench.beat(as_i(beats("a", 2)));
    assert_eq!(error(&reply), ErrorCode::UnknownMemberId);
}

#[test]
fn an_instance_can_leave_for_good() {
    let mut bench = bench();
    with_static(&mut bench);
    for (body, refused) in [
        (as_i(beats("b", -1)), ErrorCode::FencedInstanceId),
        (
            beats("a", -1).with_instance_id(Some(text("j"))),
            ErrorCode::UnknownMemberId,
        ),
        (
            beats("c", -2).with_instance_id(Some(text("j"))),
            ErrorCode::UnknownMemberId,
        ),
        (as_i(beats("b", -2)), ErrorCode::FencedInstanceId),
    ] {
        assert_eq!(error(&bench.beat(body)), refused);
    }
    assert_eq!(error(&bench.beat(as_i(beats("a", -1)))), ErrorCode::None);
    let reply = bench.beat(beats("b", 2));
    assert_eq!(told(&bench, &reply), (3, Some(t(&[0, 1, 2, 3, 4, 5]))));
}

#[test]
fn one_that_goes_away_while_it_gives_up_has_given_up() {
    let mut bench = bench();
    bench.beat(as_i(joins("a", &["t"])));
    bench.beat(joins("b", &["t"]));
    bench.beat(beats("a", 1));
    bench.beat(as_i(beats("a", -2)));
    let reply = bench.beat(beats("b", 2));
    assert_eq!(told(&bench, &reply).1.expect("it is free")["t"].len(), 3);
    // Away means away: its time to give up does not run.
    for _ in 0..2 {
        bench.pass(40_000);
        bench.beat(beats("b", 2));
        let reply = bench.beat(as_i(joins("a", &["t"])));
        assert_eq!(told(&bench, &reply).1.expect("its own")["t"].len(), 3);
        bench.beat(as_i(beats("a", -2)));
    }
}

#[test]
fn a_member_in_epoch_minus_two_cannot_go_on_without_joining() {
    let mut bench = bench();
    let share = with_static(&mut bench);
    bench.beat(as_i(beats("a", -2)));
    for epoch in [1, 2] {
        let reply = bench.beat(as_i(owns("a", epoch, &share)));
        assert_eq!(error(&reply), ErrorCode::FencedMemberEpoch, "{epoch}");
    }
}
