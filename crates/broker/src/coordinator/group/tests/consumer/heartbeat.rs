//! Members come, share, are taken from and given to, are fenced and go.

use std::sync::Arc;

use protocol::ErrorCode;

use super::{Places, assigned, beats, bench, error, joins, owns, t, told, two_members};
use crate::coordinator::group::{
    AssignorKind, ConsumerOverrides, GroupConfig, GroupReply, GroupRequest,
    tests::bench::{Bench, error_of, join, text},
};

#[test]
fn the_first_member_gets_everything_at_once() {
    let mut bench = bench();
    let reply = bench.beat(joins("a", &["t"]));
    assert_eq!(told(&bench, &reply), (1, Some(t(&[0, 1, 2, 3, 4, 5]))));
    assert_eq!(reply.member_id.as_deref(), Some("a"));
    assert_eq!(reply.heartbeat_interval_ms, 5_000);
    assert_eq!(bench.state(), "Stable");
    // Nothing new: nothing is written, and nothing is said.
    let written = bench.log.len();
    let reply = bench.beat(beats("a", 1));
    assert_eq!(told(&bench, &reply), (1, None));
    assert_eq!(bench.log.len(), written);
}

#[test]
fn a_partition_is_given_only_when_its_owner_has_given_it_up() {
    let mut bench = bench();
    bench.beat(joins("a", &["t"]));
    let reply = bench.beat(joins("b", &["t"]));
    assert_eq!(told(&bench, &reply), (2, Some(Places::new())));
    assert_eq!(bench.state(), "Reconciling");
    let reply = bench.beat(beats("a", 1));
    let (epoch, kept) = told(&bench, &reply);
    let kept = kept.expect("it is to give up");
    assert_eq!((epoch, kept["t"].len()), (1, 3));
    // It did not say that it did: nobody gets anything.
    for body in [beats("a", 1), owns("a", 1, &t(&[0, 1, 2, 3, 4, 5]))] {
        let reply = bench.beat(body);
        assert_eq!(told(&bench, &reply), (1, None));
        let reply = bench.beat(beats("b", 2));
        assert_eq!(told(&bench, &reply), (2, None));
    }
    let reply = bench.beat(owns("a", 1, &kept));
    assert_eq!(told(&bench, &reply), (2, None));
    let reply = bench.beat(beats("b", 2));
    let (_, given) = told(&bench, &reply);
    let mut all: Vec<i32> = [&kept, &given.expect("it is free")]
        .into_iter()
        .flat_map(|places| places["t"].clone())
        .collect();
    all.sort_unstable();
    assert_eq!(all, [0, 1, 2, 3, 4, 5]);
    assert_eq!(bench.state(), "Stable");
}

#[test]
fn a_member_that_gives_nothing_up_in_time_is_removed() {
    let mut bench = bench();
    bench.beat(joins("a", &["t"]).with_rebalance_timeout_ms(20_000));
    bench.beat(joins("b", &["t"]));
    bench.beat(beats("a", 1));
    for _ in 0..4 {
        bench.pass(4_500);
        assert_eq!(error(&bench.beat(beats("a", 1))), ErrorCode::None);
        bench.beat(beats("b", 2));
    }
    bench.pass(2_500);
    assert_eq!(error(&bench.beat(beats("a", 1))), ErrorCode::UnknownMemberId);
    let reply = bench.beat(beats("b", 2));
    assert_eq!(told(&bench, &reply), (3, Some(t(&[0, 1, 2, 3, 4, 5]))));
}

#[test]
fn a_silent_member_is_removed_and_its_share_goes_to_others() {
    let mut bench = bench();
    let (_, _, epoch) = two_members(&mut bench);
    bench.pass(44_000);
    bench.beat(beats("b", epoch));
    bench.pass(2_000);
    assert_eq!(bench.state(), "Assigning");
    let reply = bench.beat(beats("b", epoch));
    assert_eq!(told(&bench, &reply), (3, Some(t(&[0, 1, 2, 3, 4, 5]))));
    assert_eq!(bench.state(), "Stable");
    assert_eq!(error(&bench.beat(beats("a", epoch))), ErrorCode::UnknownMemberId);
    bench.pass(46_000);
    assert_eq!(bench.state(), "Empty");
    // A group without members and offsets is forgotten.
    bench.pass(11 * 60_000);
    assert_eq!(bench.state(), "Dead");
}

#[test]
fn groups_may_have_times_of_their_own() {
    let mut bench = bench();
    let own = ConsumerOverrides {
        session_timeout_ms: Some(60_000),
        heartbeat_interval_ms: Some(7_000),
    };
    bench.shard.configure(GroupConfig {
        consumer_overrides: Arc::new([("g".into(), own)].into()),
        ..GroupConfig::default()
    });
    let reply = bench.beat(joins("a", &["t"]));
    assert_eq!(reply.heartbeat_interval_ms, 7_000);
    bench.pass(59_000);
    assert_eq!(bench.state(), "Stable");
    bench.pass(2_000);
    assert_eq!(bench.state(), "Empty");
}

#[test]
fn a_member_that_leaves_is_gone_at_once() {
    let mut bench = bench();
    let (_, _, epoch) = two_members(&mut bench);
    let reply = bench.beat(beats("a", -1));
    assert_eq!((error(&reply), reply.member_epoch), (ErrorCode::None, -1));
    let reply = bench.beat(beats("b", epoch));
    assert_eq!(told(&bench, &reply), (3, Some(t(&[0, 1, 2, 3, 4, 5]))));
    assert_eq!(error(&bench.beat(beats("a", -1))), ErrorCode::UnknownMemberId);
    let reply = bench.beat(beats("b", -1));
    assert_eq!(error(&reply), ErrorCode::None);
    assert_eq!(bench.state(), "Empty");
    // Whoever joins an empty group goes on with its epochs.
    let reply = bench.beat(joins("c", &["t"]));
    assert_eq!(told(&bench, &reply), (5, Some(t(&[0, 1, 2, 3, 4, 5]))));
}

#[test]
fn an_epoch_that_is_not_the_members_is_fenced() {
    let mut bench = bench();
    let (a, _, epoch) = two_members(&mut bench);
    for wrong in [epoch + 1, epoch - 1] {
        let reply = bench.beat(beats("a", wrong));
        assert_eq!(error(&reply), ErrorCode::FencedMemberEpoch, "{wrong}");
    }
    // The answer with the new epoch may have been lost.
    let reply = bench.beat(owns("a", epoch - 1, &a));
    assert_eq!(told(&bench, &reply), (epoch, None));
    let all = t(&[0, 1, 2, 3, 4, 5]);
    assert_eq!(
        error(&bench.beat(owns("a", epoch - 1, &all))),
        ErrorCode::FencedMemberEpoch
    );
    // Whoever was fenced has abandoned everything, and joins again at once.
    let reply = bench.beat(joins("a", &["t"]));
    assert_eq!(told(&bench, &reply), (epoch, Some(a)));
    // Who has lost the answer to its first heartbeat says the same again.
    bench.beat(joins("c", &["t"]));
    let reply = bench.beat(joins("c", &["t"]));
    assert_eq!(told(&bench, &reply), (3, Some(Places::new())));
}

#[test]
fn whoever_says_everything_is_told_everything() {
    let mut bench = bench();
    let (a, _, epoch) = two_members(&mut bench);
    let full = owns("a", epoch, &a)
        .with_rebalance_timeout_ms(60_000)
        .with_subscribed_topic_names(Some(vec![text("t").into()]));
    let reply = bench.beat(full);
    assert_eq!(told(&bench, &reply), (epoch, Some(a)));
}

#[test]
fn a_subscription_that_changes_is_followed() {
    let mut bench = bench();
    bench.beat(joins("a", &["t"]));
    let more = beats("a", 1).with_subscribed_topic_names(Some(vec![text("t").into(), text("u").into()]));
    let reply = bench.beat(more);
    let (epoch, share) = told(&bench, &reply);
    let share = share.expect("more");
    assert_eq!((epoch, share["t"].len(), share["u"].len()), (2, 6, 3));
    let less = beats("a", 2).with_subscribed_topic_names(Some(vec![text("u").into()]));
    let reply = bench.beat(less);
    let (epoch, share) = told(&bench, &reply);
    let share = share.expect("less");
    assert_eq!((epoch, share.len(), share["u"].len()), (2, 1, 3));
    let reply = bench.beat(owns("a", 2, &share));
    assert_eq!(told(&bench, &reply), (3, None));
    // To nothing at all, and back.
    let reply = bench.beat(beats("a", 3).with_subscribed_topic_names(Some(Vec::new())));
    assert_eq!(told(&bench, &reply), (3, Some(Places::new())));
    let reply = bench.beat(owns("a", 3, &Places::new()));
    assert_eq!(told(&bench, &reply), (4, None));
    assert_eq!(bench.state(), "Stable");
}

#[test]
fn topics_that_come_grow_and_go_are_followed() {
    let mut bench = Bench::new();
    let reply = bench.beat(joins("a", &["t"]));
    assert_eq!(told(&bench, &reply), (1, Some(Places::new())));
    bench.set_topics(&[("t", 2)]);
    let reply = bench.beat(beats("a", 1));
    assert_eq!(told(&bench, &reply), (2, Some(t(&[0, 1]))));
    bench.set_topics(&[("t", 3), ("other", 1)]);
    let reply = bench.beat(beats("a", 2));
    assert_eq!(told(&bench, &reply), (3, Some(t(&[0, 1, 2]))));
    // What does not concern the group changes nothing.
    bench.set_topics(&[("t", 3), ("other", 2)]);
    let reply = bench.beat(beats("a", 3));
    assert_eq!(told(&bench, &reply), (3, None));
    bench.set_topics(&[]);
    let reply = bench.beat(beats("a", 3));
    assert_eq!(told(&bench, &reply), (3, Some(Places::new())));
    let reply = bench.beat(owns("a", 3, &Places::new()));
    assert_eq!(told(&bench, &reply), (4, None));
    // A coordinator that takes over sees no change in topics that are as they were.
    bench.set_topics(&[("t", 3)]);
    bench.beat(beats("a", 4));
    bench.fail_over();
    let reply = bench.beat(beats("a", 5));
    assert_eq!(told(&bench, &reply), (5, None));
}

#[test]
fn a_group_has_as_many_members_as_it_may() {
    let mut bench = Bench::with(GroupConfig {
        consumer_group_max_size: 1,
        ..GroupConfig::default()
    });
    bench.set_topics(&[("t", 6)]);
    bench.beat(joins("a", &["t"]));
    assert_eq!(
        error(&bench.beat(joins("b", &["t"]))),
        ErrorCode::GroupMaxSizeReached
    );
    assert_eq!(error(&bench.beat(beats("a", 1))), ErrorCode::None);
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_done() {
    let mut bench = bench();
    let cases = [
        joins("", &["t"]),
        joins(" ", &["t"]),
        beats("", 1),
        beats("", -1),
        joins("a", &["t"]).with_group_id(text("").into()),
        joins("a", &["t"]).with_instance_id(Some(text(""))),
        joins("a", &["t"]).with_rack_id(Some(text(" "))),
        joins("a", &["t"]).with_rebalance_timeout_ms(-1),
        joins("a", &["t"]).with_topic_partitions(None),
        owns("a", 0, &t(&[1])).with_rebalance_timeout_ms(1),
        joins("a", &["t"]).with_subscribed_topic_names(None),
        beats("a", -2),
        beats("a", -3),
        joins("a", &[&"x".repeat(40_000)]),
        joins(&"a".repeat(40_000), &["t"]),
        joins("a", &vec!["x".repeat(1_000).as_str(); 1_000]),
        owns("a", 1, &t(&vec![0; 250_001])),
    ];
    for body in cases {
        let reply = bench.beat(body.clone());
        assert_eq!(error(&reply), ErrorCode::InvalidRequest, "{body:?}");
        assert!(reply.error_message.is_some());
    }
    let reply = bench.beat(joins("a", &["t"]).with_server_assignor(Some(text("sticky"))));
    assert_eq!(error(&reply), ErrorCode::UnsupportedAssignor);
    for epoch in [1, -1] {
        assert_eq!(error(&bench.beat(beats("a", epoch))), ErrorCode::GroupIdNotFound);
    }
    assert!(bench.log.is_empty());
    assert_eq!(bench.state(), "Dead");
    // Version 0 gives a member its id.
    let token = bench.send_beat(0, joins("", &["t"]));
    assert_eq!(bench.error(token), Some(ErrorCode::None));
    assert_eq!(bench.state(), "Stable");
    assert_eq!(error(&bench.beat(beats("b", 1))), ErrorCode::UnknownMemberId);
}

#[test]
fn what_no_record_could_hold_is_refused() {
    let mut bench = Bench::with(GroupConfig {
        max_records_bytes: 200,
        ..GroupConfig::default()
    });
    bench.set_topics(&[("t", 60)]);
    let long = "x".repeat(190);
    let reply = bench.beat(joins("a", &[&long]));
    assert_eq!(error(&reply), ErrorCode::UnknownServerError);
    assert!(bench.log.is_empty());
    // The target would be too large: nobody else is to be kept from theirs by it.
    let reply = bench.beat(joins("a", &["t"]));
    assert_eq!(error(&reply), ErrorCode::UnknownServerError);
    assert!(bench.log.is_empty());
    // A share of what is too large may fit.
    bench.set_topics(&[("t", 30)]);
    assert_eq!(error(&bench.beat(joins("a", &["t"]))), ErrorCode::None);
    bench.set_topics(&[("t", 60)]);
    let reply = bench.beat(joins("b", &["t"]));
    assert_eq!(told(&bench, &reply).0, 2);
    let written = bench.log.len();
    bench.set_topics(&[("t", 60), ("u", 60)]);
    let reply = bench.beat(beats("a", 1).with_subscribed_topic_names(Some(vec![text("u").into()])));
    assert_eq!(error(&reply), ErrorCode::UnknownServerError);
    assert_eq!(bench.log.len(), written);
}

#[test]
fn a_member_that_cannot_be_assigned_anything_is_no_ghost() {
    let mut bench = Bench::with(GroupConfig {
        max_records_bytes: 400,
        ..GroupConfig::default()
    });
    bench.set_topics(&[("t", 6)]);
    bench.beat(joins("a", &["t", "u"]));
    bench.set_topics(&[("t", 6), ("u", 120)]);
    let reply = bench.beat(joins("b", &["t"]));
    assert_eq!(error(&reply), ErrorCode::UnknownServerError);
    let token = bench.send_join(3, join("", &["range"]));
    assert_eq!(bench.error(token), Some(ErrorCode::UnknownServerError));
    bench.pass(100_000);
    assert_eq!(bench.state(), "Empty");
}

#[test]
fn the_assignor_that_most_members_ask_for_assigns() {
    let mut bench = bench();
    let describe = |bench: &mut Bench| {
        let reply = bench.ask(1, GroupRequest::DescribeConsumer(text("g").into()));
        assert_eq!(error_of(&reply), ErrorCode::None);
        match reply {
            GroupReply::DescribeConsumer(group) => group.assignor_name.to_string(),
            other => panic!("{other:?}"),
        }
    };
    bench.beat(joins("a", &["t"]));
    assert_eq!(describe(&mut bench), "uniform");
    bench.beat(joins("b", &["t"]).with_server_assignor(Some(text("range"))));
    assert_eq!(describe(&mut bench), "range");
    bench.beat(joins("c", &["t"]).with_server_assignor(Some(text("uniform"))));
    assert_eq!(describe(&mut bench), "uniform");
    bench.shard.configure(GroupConfig {
        consumer_assignors: vec![AssignorKind::Range],
        ..GroupConfig::default()
    });
    assert_eq!(describe(&mut bench), "range");
}

#[test]
fn a_coordinator_that_takes_over_goes_on() {
    let mut bench = bench();
    bench.beat(joins("a", &["t"]).with_rebalance_timeout_ms(30_000));
    bench.beat(joins("b", &["t"]));
    let reply = bench.beat(beats("a", 1));
    let kept = assigned(&bench, &reply).expect("it is to give up");
    bench.fail_over();
    let reply = bench.beat(beats("b", 2));
    assert_eq!(told(&bench, &reply), (2, None));
    let reply = bench.beat(owns("a", 1, &kept));
    assert_eq!(told(&bench, &reply), (2, None));
    bench.fail_over();
    let reply = bench.beat(beats("b", 2));
    assert_eq!(assigned(&bench, &reply).expect("it is free")["t"].len(), 3);
    assert_eq!(bench.state(), "Stable");
    // The time to give up begins anew with the coordinator, as sessions do.
    bench.beat(joins("c", &["t"]));
    bench.beat(beats("a", 2));
    bench.fail_over();
    for _ in 0..7 {
        bench.pass(4_500);
        bench.beat(beats("a", 2));
    }
    assert_eq!(error(&bench.beat(beats("a", 2))), ErrorCode::UnknownMemberId);
}
