//! Groups that go from one protocol to the other: when, what becomes of their members, and what is written.

use bytes::Bytes;
use kafka_protocol::messages::JoinGroupRequest;
use protocol::ErrorCode;

use super::super::{Places, beats, bench, error, joins, owns, t, told};
use super::{beats_classic, classic_group, joined, joins_classic, kind, read, share, synced};
use crate::coordinator::group::{
    CoordinatorRecord, GroupConfig, GroupKind, GroupRequest, MigrationPolicy,
    tests::bench::{Bench, commit, error_of, join, leave, sync, text},
};

#[test]
fn a_classic_group_is_upgraded_and_its_members_go_on() {
    let mut bench = bench();
    let [a, b] = classic_group(&mut bench);
    bench.ask(8, GroupRequest::CommitOffsets(commit(&a, 1, "t", 5)));
    // The new member gets nothing that others hold.
    let reply = bench.beat(joins("c", &["t"]));
    assert_eq!(told(&bench, &reply), (2, Some(Places::new())));
    assert_eq!(
        (kind(&bench), bench.state()),
        (GroupKind::Consumer, "Reconciling")
    );
    assert_eq!(bench.committed("t"), 5);
    // A commit in what is still the member's generation is good.
    let reply = bench.ask(8, GroupRequest::CommitOffsets(commit(&a, 1, "t", 6)));
    assert_eq!(error_of(&reply), ErrorCode::None);
    let reply = bench.ask(8, GroupRequest::CommitOffsets(commit(&a, 2, "t", 7)));
    assert_eq!(error_of(&reply), ErrorCode::IllegalGeneration);
    // Classic members are told to join again, give up, and join once more.
    let mut shares = Vec::new();
    for (id, owned) in [(&a, [0, 1, 2]), (&b, [3, 4, 5])] {
        assert_eq!(beats_classic(&mut bench, id, 1), ErrorCode::RebalanceInProgress);
        let reply = joined(&mut bench, 9, joins_classic(id, &owned));
        assert_eq!((reply.error_code, reply.generation_id), (0, 1));
        assert_eq!(reply.protocol_type.as_deref(), Some("consumer"));
        assert_eq!(reply.protocol_name.as_deref(), Some("cooperative-sticky"));
        assert_ne!(reply.leader, reply.member_id);
        let kept = read(&synced(&mut bench, id, 1).assignment);
        assert_eq!(kept.len(), 2);
        assert_eq!(beats_classic(&mut bench, id, 1), ErrorCode::RebalanceInProgress);
        let reply = joined(&mut bench, 9, joins_classic(id, &kept));
        assert_eq!((reply.error_code, reply.generation_id), (0, 2));
        assert_eq!(read(&synced(&mut bench, id, 2).assignment), kept);
        assert_eq!(beats_classic(&mut bench, id, 2), ErrorCode::None);
        shares.extend(kept);
    }
    let reply = bench.beat(beats("c", 2));
    let (epoch, given) = told(&bench, &reply);
    shares.extend(given.expect("it is free").remove("t").expect("its topic"));
    shares.sort_unstable();
    assert_eq!((epoch, shares), (2, vec![0, 1, 2, 3, 4, 5]));
    assert_eq!(bench.state(), "Stable");
}

#[test]
fn a_consumer_group_is_downgraded_when_its_last_member_leaves_the_classic_ones_alone() {
    let mut bench = bench();
    let [a, b] = classic_group(&mut bench);
    bench.beat(joins("c", &["t"]));
    bench.beat(beats("c", -1));
    assert_eq!(
        (kind(&bench), bench.state()),
        (GroupKind::Classic, "PreparingRebalance")
    );
    for id in [&a, &b] {
        // One that is in an older epoch is told so, one that is not to join again.
        let error = beats_classic(&mut bench, id, 1);
        assert_eq!(error, ErrorCode::IllegalGeneration);
        assert_eq!(beats_classic(&mut bench, id, 2), ErrorCode::RebalanceInProgress);
    }
    let tokens = [&a, &b].map(|id| bench.send_join(9, joins_classic(id, &[])));
    let generations = tokens.map(|token| bench.joined(token).generation_id);
    assert_eq!(generations, [3, 3]);
    assert_eq!(bench.state(), "CompletingRebalance");
}

#[test]
fn a_downgrade_that_the_coordinator_does_not_live_to_end_goes_on() {
    let mut bench = bench();
    let [a, b] = classic_group(&mut bench);
    bench.beat(joins("c", &["t"]));
    for (id, owned) in [(&a, [0, 1, 2]), (&b, [3, 4, 5])] {
        joined(&mut bench, 9, joins_classic(id, &owned));
        let kept = read(&synced(&mut bench, id, 1).assignment);
        joined(&mut bench, 9, joins_classic(id, &kept));
        synced(&mut bench, id, 2);
    }
    bench.beat(beats("c", 2));
    bench.beat(beats("c", -1));
    bench.fail_over();
    // As far as the log goes the member is still there: it is missed when its session ends.
    assert_eq!((kind(&bench), bench.state()), (GroupKind::Classic, "Stable"));
    for _ in 0..9 {
        bench.pass(5_000);
        for id in [&a, &b] {
            beats_classic(&mut bench, id, 2);
        }
    }
    bench.pass(1_000);
    assert_eq!(bench.state(), "PreparingRebalance");
    let tokens = [&a, &b].map(|id| bench.send_join(9, joins_classic(id, &[])));
    assert_eq!(bench.joined(tokens[0]).members.len(), 2);
}

#[test]
fn a_rebalance_that_is_under_way_ends_with_the_upgrade() {
    let mut bench = bench();
    let [a, b] = classic_group(&mut bench);
    let waiting = bench.send_join(9, joins_classic(&a, &[0, 1, 2]));
    assert_eq!(bench.state(), "PreparingRebalance");
    bench.beat(joins("c", &["t"]));
    assert_eq!(bench.error(waiting), Some(ErrorCode::RebalanceInProgress));
    assert_eq!(kind(&bench), GroupKind::Consumer);
    // No timer of the classic group is left.
    bench.beat(beats("c", -1));
    bench.pass(200_000);
    assert!(["Dead", "Empty"].contains(&bench.state()), "{}", bench.state());
    assert_eq!(beats_classic(&mut bench, &b, 1), ErrorCode::UnknownMemberId);
}

#[test]
fn what_members_own_while_they_share_anew_is_given_up_before_others_get_it() {
    let mut bench = bench();
    let [a, b] = classic_group(&mut bench);
    let begins_generation = |bench: &mut Bench| {
        let tokens = [(&a, [0, 1, 2]), (&b, [3, 4, 5])]
            .map(|(id, owned)| bench.send_join(9, joins_classic(id, &owned)));
        tokens.map(|token| bench.joined(token).generation_id)
    };
    assert_eq!(begins_generation(&mut bench), [2, 2]);
    // Before the leader has assigned, somebody else joins: nobody is assigned anything.
    let waiting = bench.send_join(3, joins_classic("", &[]));
    assert_eq!(bench.state(), "PreparingRebalance");
    let reply = bench.beat(joins("c", &["t"]));
    assert_eq!(told(&bench, &reply), (3, Some(Places::new())));
    assert_eq!(bench.error(waiting), Some(ErrorCode::RebalanceInProgress));
    let mut shares = Vec::new();
    for (id, owned) in [(&a, [0, 1, 2]), (&b, [3, 4, 5])] {
        let reply = bench.beat(beats("c", 3));
        assert_eq!(
            told(&bench, &reply).1.filter(|given| given.contains_key("t")),
            None
        );
        joined(&mut bench, 9, joins_classic(id, &owned));
        let kept = read(&synced(&mut bench, id, 2).assignment);
        assert!(kept.len() == 2 && kept.iter().all(|partition| owned.contains(partition)));
        shares.push((id, kept));
    }
    let mut all = Vec::new();
    for (id, kept) in shares {
        let reply = joined(&mut bench, 9, joins_classic(id, &kept));
        assert_eq!(reply.generation_id, 3);
        assert_eq!(read(&synced(&mut bench, id, 3).assignment), kept);
        all.extend(kept);
    }
    let reply = bench.beat(beats("c", 3));
    all.extend(
        told(&bench, &reply)
            .1
            .expect("it is free")
            .remove("t")
            .expect("its topic"),
    );
    all.sort_unstable();
    assert_eq!((all, bench.state()), (vec![0, 1, 2, 3, 4, 5], "Stable"));
}

/// What the records from the `from`th on take of a batch, in bytes.
fn batch_bytes(bench: &Bench, from: usize, until: usize) -> usize {
    bench.log[from..until]
        .iter()
        .map(CoordinatorRecord::framed_size)
        .sum()
}

/// Sets how much one batch may have.
fn limit(bench: &mut Bench, max_records_bytes: usize) {
    bench.shard.configure(GroupConfig {
        max_records_bytes,
        ..GroupConfig::default()
    });
}

#[test]
fn what_changes_the_protocol_fits_one_batch_with_its_framing() {
    // How much it is.
    let mut bench = bench();
    classic_group(&mut bench);
    let before = bench.log.len();
    bench.beat(joins("c", &["t"]));
    // The tombstone; three records of each of two members; the group's epoch and the target's.
    let upgrade = batch_bytes(&bench, before, before + 1 + 2 * 3 + 2);
    let before = bench.log.len();
    bench.beat(beats("c", -1));
    let downgrade = batch_bytes(&bench, before, bench.log.len());
    assert_eq!(kind(&bench), GroupKind::Classic);

    for (missing, becomes) in [(0, GroupKind::Consumer), (1, GroupKind::Classic)] {
        let mut bench = self::bench();
        classic_group(&mut bench);
        limit(&mut bench, upgrade - missing);
        bench.beat(joins("c", &["t"]));
        assert_eq!(kind(&bench), becomes, "{missing}");
    }
    for (missing, becomes) in [(0, GroupKind::Classic), (1, GroupKind::Consumer)] {
        let mut bench = self::bench();
        classic_group(&mut bench);
        bench.beat(joins("c", &["t"]));
        limit(&mut bench, downgrade - missing);
        bench.beat(beats("c", -1));
        assert_eq!(
            (kind(&bench), bench.shard.lag_view().groups[0].members),
            (becomes, 2)
        );
    }
}

#[test]
fn what_follows_from_each_timer_is_an_event_of_its_own() {
    let mut bench = bench();
    classic_group(&mut bench);
    bench.beat(joins("c", &["t"]));
    // The sessions of all of them end in one tick, which changes the protocol on its way.
    let mut now = bench.now;
    now.instant_ms += 100_000;
    let outcome = bench.shard.tick(now);
    let mut begins: Vec<usize> = outcome.events.clone();
    begins.dedup();
    assert!(begins.len() > 2 && begins.is_sorted(), "{:?}", outcome.events);
    assert!(outcome.events.iter().all(|begin| *begin <= outcome.records.len()));
}

#[test]
fn members_that_joined_and_know_nothing_yet_are_told_to_join_again() {
    let mut bench = bench();
    let first = bench.send_join(3, joins_classic("", &[]));
    let second = bench.send_join(9, joins_classic("", &[]));
    let id = bench.joined(second).member_id;
    assert_eq!(bench.error(second), Some(ErrorCode::MemberIdRequired));
    let second = bench.send_join(9, joins_classic(&id, &[]));
    bench.beat(joins("c", &["t"]));
    for token in [first, second] {
        assert_eq!(bench.error(token), Some(ErrorCode::RebalanceInProgress));
    }
    let described = bench.shard.lag_view().groups[0].clone();
    assert_eq!((described.kind, described.members), (GroupKind::Consumer, 1));
    let reply = joined(&mut bench, 9, joins_classic(&id, &[]));
    assert_eq!((reply.error_code, reply.generation_id), (0, 2));
}

#[test]
fn an_empty_group_is_of_whatever_protocol_the_next_member_speaks() {
    let mut bench = bench();
    let ids = classic_group(&mut bench);
    for id in &ids {
        bench.ask(5, GroupRequest::Leave(leave(id, None)));
    }
    bench.ask(8, GroupRequest::CommitOffsets(commit("", -1, "t", 5)));
    let reply = bench.beat(joins("c", &["t"]));
    assert_eq!(told(&bench, &reply), (1, Some(t(&[0, 1, 2, 3, 4, 5]))));
    bench.beat(beats("c", -1));
    let reply = joined(&mut bench, 9, joins_classic("unknown", &[]));
    assert_eq!(reply.error_code, ErrorCode::UnknownMemberId.code());
    assert_eq!(kind(&bench), GroupKind::Consumer);
    let token = bench.send_join(3, joins_classic("", &[]));
    assert_eq!(
        (kind(&bench), bench.state()),
        (GroupKind::Classic, "PreparingRebalance")
    );
    bench.pass(6_000);
    assert_eq!(bench.joined(token).generation_id, 1);
    assert_eq!(bench.committed("t"), 5);
    bench.fail_over();
    assert_eq!(bench.committed("t"), 5);
}

#[test]
fn the_policy_says_which_way_a_group_may_go() {
    for (policy, upgrades, downgrades) in [
        (MigrationPolicy::Disabled, false, false),
        (MigrationPolicy::Upgrade, true, false),
        (MigrationPolicy::Downgrade, false, true),
        (MigrationPolicy::Bidirectional, true, true),
    ] {
        let mut bench = bench();
        classic_group(&mut bench);
        bench.shard.configure(GroupConfig {
            consumer_migration_policy: policy,
            ..GroupConfig::default()
        });
        let refused = error(&bench.beat(joins("c", &["t"])));
        let expected = if upgrades {
            ErrorCode::None
        } else {
            ErrorCode::GroupIdNotFound
        };
        assert_eq!(refused, expected, "{policy:?}");
        if !upgrades {
            assert_eq!((kind(&bench), bench.state()), (GroupKind::Classic, "Stable"));
            bench.shard.configure(GroupConfig::default());
            bench.beat(joins("c", &["t"]));
            bench.shard.configure(GroupConfig {
                consumer_migration_policy: policy,
                ..GroupConfig::default()
            });
        }
        bench.beat(beats("c", -1));
        let expected = if downgrades {
            GroupKind::Classic
        } else {
            GroupKind::Consumer
        };
        assert_eq!(kind(&bench), expected, "{policy:?}");
        assert_eq!(MigrationPolicy::by_name(policy.name()), Some(policy));
    }
    assert_eq!(MigrationPolicy::by_name("sideways"), None);
}

#[test]
fn what_cannot_be_a_consumer_group_stays_classic() {
    // Not consumers.
    let mut bench = bench();
    bench.send_join(3, join("", &["range"]).with_protocol_type(text("connect")));
    bench.pass(6_000);
    assert_eq!(error(&bench.beat(joins("c", &["t"]))), ErrorCode::GroupIdNotFound);
    assert_eq!(kind(&bench), GroupKind::Classic);
    // Consumers whose subscriptions cannot be read.
    let mut bench = self::bench();
    let mut body = join("", &["range"]);
    body.protocols[0].metadata = Bytes::from_static(b"\0");
    bench.send_join(3, body);
    bench.pass(6_000);
    assert_eq!(error(&bench.beat(joins("c", &["t"]))), ErrorCode::GroupIdNotFound);
    // More than a consumer group may have.
    let mut bench = self::bench();
    classic_group(&mut bench);
    bench.shard.configure(GroupConfig {
        consumer_group_max_size: 2,
        ..GroupConfig::default()
    });
    assert_eq!(
        error(&bench.beat(joins("c", &["t"]))),
        ErrorCode::GroupMaxSizeReached
    );
    // A member that is refused brings nothing about.
    bench.shard.configure(GroupConfig::default());
    let bad = joins("c", &["t"]).with_subscribed_topic_regex(Some(text("(")));
    assert_eq!(error(&bench.beat(bad)), ErrorCode::InvalidRegularExpression);
    // What it leaves would not fit one batch.
    bench.shard.configure(GroupConfig {
        max_records_bytes: 400,
        ..GroupConfig::default()
    });
    assert_eq!(
        error(&bench.beat(joins("c", &["t"]))),
        ErrorCode::UnknownServerError
    );
    assert_eq!((kind(&bench), bench.state()), (GroupKind::Classic, "Stable"));
}

#[test]
fn a_group_whose_assignor_says_more_than_partitions_stays_classic() {
    let mut bench = bench();
    let ids = classic_group(&mut bench);
    // Its next generation has what only the assignor understands, as those of Kafka Streams have.
    let tokens = [&ids[0], &ids[1]].map(|id| bench.send_join(9, joins_classic(id, &[])));
    assert_eq!(tokens.map(|token| bench.joined(token).generation_id), [2, 2]);
    let mut custom = share(&[3, 4, 5]).to_vec();
    custom.truncate(custom.len() - 4);
    custom.extend(b"\0\0\0\x04data");
    let mut body = sync(&ids[0], 2, &[(&ids[0], ""), (&ids[1], "")]);
    body.assignments[0].assignment = share(&[0, 1, 2]);
    body.assignments[1].assignment = custom.clone().into();
    bench.ask(5, GroupRequest::Sync(body));
    let before = (bench.log.len(), bench.shard.snapshot());
    let refused = bench.beat(joins("c", &["t"]));
    assert_eq!(error(&refused), ErrorCode::GroupIdNotFound);
    let why = refused.error_message.as_deref().unwrap_or_default();
    assert!(why.contains("assignor"), "{why}");
    // Nobody notices.
    assert_eq!((bench.log.len(), bench.shard.snapshot()), before);
    assert_eq!((kind(&bench), bench.state()), (GroupKind::Classic, "Stable"));
    assert_eq!(synced(&mut bench, &ids[1], 2).assignment, custom);
    assert_eq!(beats_classic(&mut bench, &ids[1], 2), ErrorCode::None);
    // Neither when the member that has it leaves; then there is nothing to lose.
    bench.ask(5, GroupRequest::Leave(leave(&ids[1], None)));
    bench.beat(joins("c", &["t"]));
    assert_eq!(kind(&bench), GroupKind::Consumer);
}

#[test]
fn static_members_change_their_protocol_and_keep_their_place() {
    let mut bench = bench();
    let as_i = |body: JoinGroupRequest| body.with_group_instance_id(Some(text("i")));
    bench.beat(joins("c", &["t"]));
    let reply = joined(&mut bench, 9, as_i(joins_classic("", &[])));
    assert_eq!(reply.error_code, 0);
    let old = reply.member_id.to_string();
    let reply = bench.beat(beats("c", 1));
    let share = told(&bench, &reply).1.expect("it is to give up");
    bench.beat(owns("c", 1, &share));
    joined(&mut bench, 9, as_i(joins_classic(&old, &[])));
    let mine = read(&synced(&mut bench, &old, 2).assignment);
    assert_eq!((mine.len(), bench.state()), (3, "Stable"));
    // Restarted with the new protocol: no rebalance.
    let reply = bench.beat(joins("n", &["t"]).with_instance_id(Some(text("i"))));
    assert_eq!(told(&bench, &reply), (2, Some(t(&mine))));
    assert_eq!(beats_classic(&mut bench, &old, 2), ErrorCode::UnknownMemberId);
    // And back.
    let reply = joined(&mut bench, 9, as_i(joins_classic("", &[])));
    assert_eq!((reply.error_code, reply.generation_id), (0, 2));
    assert_eq!(read(&synced(&mut bench, &reply.member_id, 2).assignment), mine);
    // The last one of the new protocol goes back: so does the group.
    bench.beat(beats("c", -1));
    assert_eq!(kind(&bench), GroupKind::Classic);
}

#[test]
fn the_last_member_may_be_replaced_by_one_of_the_classic_protocol() {
    for others in [false, true] {
        let mut bench = bench();
        let as_i = |body: JoinGroupRequest| body.with_group_instance_id(Some(text("i")));
        bench.beat(joins("c", &["t"]).with_instance_id(Some(text("i"))));
        let other = others.then(|| {
            joined(&mut bench, 3, joins_classic("", &[]))
                .member_id
                .to_string()
        });
        let token = bench.send_join(9, as_i(joins_classic("", &[])));
        assert_eq!(
            (kind(&bench), bench.state()),
            (GroupKind::Classic, "PreparingRebalance")
        );
        let other = other.map(|id| bench.send_join(9, joins_classic(&id, &[])));
        bench.pass(6_000);
        assert_eq!(bench.error(token), Some(ErrorCode::None));
        if let Some(joined) = other {
            assert_eq!(
                bench.joined(joined).generation_id,
                bench.joined(token).generation_id
            );
        }
        let gone = beats("c", 1).with_instance_id(Some(text("i")));
        assert_eq!(error(&bench.beat(gone)), ErrorCode::GroupIdNotFound);
    }
}

#[test]
fn a_group_does_not_become_a_classic_one_that_has_no_room() {
    let mut bench = Bench::with(GroupConfig {
        group_max_size: 1,
        ..GroupConfig::default()
    });
    bench.set_topics(&[("t", 6)]);
    bench.beat(joins("a", &["t"]).with_instance_id(Some(text("i"))));
    joined(&mut bench, 3, joins_classic("", &[]));
    let body = joins_classic("", &[]).with_group_instance_id(Some(text("i")));
    let reply = joined(&mut bench, 5, body);
    assert_eq!(reply.error_code, ErrorCode::None.code());
    assert_eq!(kind(&bench), GroupKind::Consumer);
}
