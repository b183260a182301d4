//! From one generation to the next, and who is left behind.

use kafka_protocol::messages::JoinGroupRequest;
use protocol::ErrorCode;

use super::bench::{Bench, REBALANCE_MS, SESSION_MS, commit, error_of, heartbeat, join, leave, sync};
use crate::coordinator::group::{GroupConfig, GroupRequest, ReplyToken};

const SESSION: u64 = SESSION_MS as u64;
const REBALANCE: u64 = REBALANCE_MS as u64;

fn heartbeats(bench: &mut Bench, id: &str, generation: i32) -> ErrorCode {
    error_of(&bench.ask(4, GroupRequest::Heartbeat(heartbeat(id, generation))))
}

fn send_sync(bench: &mut Bench, id: &str, generation: i32) -> ReplyToken {
    bench.send(5, GroupRequest::Sync(sync(id, generation, &[])))
}

#[test]
fn a_member_is_given_its_id_and_joins_with_it() {
    let mut bench = Bench::new();
    let first = bench.send_join(4, join("", &["range"]));
    let reply = bench.joined(first);
    assert_eq!(reply.error_code, ErrorCode::MemberIdRequired.code());
    assert!(reply.member_id.starts_with("app-"), "{}", reply.member_id);
    assert_eq!(bench.state(), "Empty");

    let second = bench.send_join(4, join(&reply.member_id, &["range"]));
    assert_eq!((bench.error(second), bench.state()), (None, "PreparingRebalance"));
    bench.pass(3_000);
    let joined = bench.joined(second);
    assert_eq!((joined.error_code, joined.generation_id), (0, 1));
    assert_eq!(joined.leader, reply.member_id);
    assert_eq!(joined.protocol_name.as_deref(), Some("range"));
}

#[test]
fn an_id_that_is_not_used_is_forgotten_and_so_is_the_group() {
    let mut bench = Bench::new();
    let token = bench.send_join(4, join("", &["range"]));
    let id = bench.joined(token).member_id;
    bench.pass(SESSION - 1);
    assert_eq!(bench.state(), "Empty");
    bench.pass(1);
    assert_eq!(bench.state(), "Dead");
    let late = bench.send_join(4, join(&id, &["range"]));
    assert_eq!(bench.error(late), Some(ErrorCode::UnknownMemberId));
    assert!(bench.log.is_empty());
}

#[test]
fn a_pending_member_is_waited_for_until_it_leaves() {
    let mut bench = Bench::new();
    let ids = bench.stable(1);
    let asked = bench.send_join(4, join("", &["range"]));
    let pending = bench.joined(asked).member_id;
    let again = bench.send_join(9, join(&ids[0], &["range"]));
    // Everyone joined but the one that was just told its id.
    assert_eq!((bench.error(again), bench.state()), (None, "PreparingRebalance"));
    let left = bench.ask(5, GroupRequest::Leave(leave(&pending, None)));
    assert_eq!(error_of(&left), ErrorCode::None);
    assert_eq!(bench.joined(again).generation_id, 2);
}

#[test]
fn the_first_rebalance_waits_for_more_members_but_not_for_ever() {
    let mut bench = Bench::new();
    let body = || -> JoinGroupRequest { join("", &["range"]).with_rebalance_timeout_ms(10_000) };
    let first = bench.send_join(3, body());
    // Somebody joins in each delay of three seconds; the rebalance timeout ends it.
    for _ in 0..3 {
        bench.pass(2_900);
        bench.send_join(3, body());
        assert_eq!(bench.state(), "PreparingRebalance");
    }
    bench.pass(1_300);
    assert_eq!(bench.state(), "CompletingRebalance");
    assert_eq!(bench.joined(first).members.len(), 4);

    // Without another member, one delay is all.
    let mut bench = Bench::new();
    bench.send_join(3, body());
    bench.pass(2_999);
    assert_eq!(bench.state(), "PreparingRebalance");
    bench.pass(1);
    assert_eq!(bench.state(), "CompletingRebalance");
}

#[test]
fn members_beyond_the_limit_are_refused() {
    let mut bench = Bench::with(GroupConfig {
        group_max_size: 2,
        ..GroupConfig::default()
    });
    let ids = bench.stable(2);
    let full = Some(ErrorCode::GroupMaxSizeReached);
    for version in [3, 4] {
        let token = bench.send_join(version, join("", &["range"]));
        assert_eq!(bench.error(token), full);
    }
    assert_eq!(bench.state(), "Stable");
    // Both are there again: nobody else finds a place in that rebalance.
    bench.send_join(5, join(&ids[0], &["range"]));
    bench.send_join(5, join(&ids[1], &["range"]));
    assert_eq!(bench.state(), "CompletingRebalance");

    // A limit that became lower: the last to join again is left out.
    let mut bench = Bench::new();
    let ids = bench.stable(2);
    bench.shard.config.group_max_size = 1;
    bench.fail_over();
    assert_eq!(bench.state(), "PreparingRebalance");
    let stays = bench.send_join(5, join(&ids[1], &["range"]));
    let goes = bench.send_join(5, join(&ids[0], &["range"]));
    assert_eq!(bench.error(goes), full);
    assert_eq!(bench.joined(stays).generation_id, 2);
    assert_eq!(bench.joined(stays).members.len(), 1);
}

#[test]
fn a_generation_is_handed_out_when_its_leader_has_assigned() {
    let mut bench = Bench::new();
    let ids = bench.completing(3);
    let follower = send_sync(&mut bench, &ids[1], 1);
    assert_eq!((bench.error(follower), bench.log.len()), (None, 0));
    let assigns = [(ids[0].as_str(), "a"), (&ids[1], "b"), ("nobody", "x")];
    let leader = bench.send(5, GroupRequest::Sync(sync(&ids[0], 1, &assigns)));
    assert_eq!((bench.state(), bench.log.len()), ("Stable", 1));
    let reply = bench.synced(leader);
    assert_eq!(&reply.assignment[..], b"a");
    assert_eq!(reply.protocol_type.as_deref(), Some("consumer"));
    assert_eq!(reply.protocol_name.as_deref(), Some("range"));
    assert_eq!(&bench.synced(follower).assignment[..], b"b");
    // It was forgotten, and asks later.
    let late = send_sync(&mut bench, &ids[2], 1);
    assert_eq!(&bench.synced(late).assignment[..], b"");
    // Nobody is late with its sync.
    for _ in 0..5 {
        bench.pass(SESSION - 1);
        for id in &ids {
            assert_eq!(heartbeats(&mut bench, id, 1), ErrorCode::None);
        }
    }
}

#[test]
fn who_does_not_sync_in_time_is_given_up() {
    for leader_syncs in [false, true] {
        let mut bench = Bench::new();
        let ids = bench.completing(2);
        let synced = usize::from(!leader_syncs);
        let token = send_sync(&mut bench, &ids[synced], 1);
        let mut passed = 0;
        while passed < REBALANCE {
            let generation_is_over = bench.state() == "PreparingRebalance";
            assert!(!generation_is_over, "after {passed} ms");
            for id in &ids {
                heartbeats(&mut bench, id, 1);
            }
            bench.pass(5_000);
            passed += 5_000;
        }
        assert_eq!(bench.state(), "PreparingRebalance");
        let told = if leader_syncs {
            ErrorCode::None
        } else {
            ErrorCode::RebalanceInProgress
        };
        assert_eq!(bench.error(token), Some(told));
        assert_eq!(
            heartbeats(&mut bench, &ids[1 - synced], 1),
            ErrorCode::UnknownMemberId
        );
        let again = bench.send_join(5, join(&ids[synced], &["range"]));
        assert_eq!(bench.joined(again).members.len(), 1);
        assert_eq!(bench.joined(again).generation_id, 2);
    }
}

#[test]
fn who_does_not_join_again_in_time_is_left_behind() {
    let mut bench = Bench::new();
    let ids = bench.stable(3);
    let again = bench.send_join(5, join(&ids[1], &["new", "range"]));
    for _ in 0..5 {
        bench.pass(REBALANCE / 6);
        for id in [&ids[0], &ids[2]] {
            let code = heartbeats(&mut bench, id, 1);
            assert_eq!(code, ErrorCode::RebalanceInProgress);
        }
    }
    let other = bench.send_join(5, join(&ids[2], &["range"]));
    assert_eq!(bench.error(again), None);
    bench.pass(REBALANCE / 6);
    let (again, other) = (bench.joined(again), bench.joined(other));
    assert_eq!((again.generation_id, other.generation_id), (2, 2));
    // The leader was the one missing.
    assert_eq!(again.leader, other.leader);
    assert!(ids[1..].iter().any(|id| *id == *again.leader));
    assert_eq!(again.members.len() + other.members.len(), 2);
    assert_eq!(heartbeats(&mut bench, &ids[0], 1), ErrorCode::UnknownMemberId);
}

#[test]
fn a_silent_member_is_given_up() {
    // Stable: the others rebalance.
    let mut bench = Bench::new();
    let ids = bench.stable(2);
    bench.pass(SESSION - 1);
    assert_eq!(heartbeats(&mut bench, &ids[0], 1), ErrorCode::None);
    bench.pass(1);
    assert_eq!(bench.state(), "PreparingRebalance");
    assert_eq!(heartbeats(&mut bench, &ids[1], 1), ErrorCode::UnknownMemberId);

    // While the generation is made: who waits for the leader is told to join again.
    let mut bench = Bench::new();
    let ids = bench.completing(2);
    let waits = send_sync(&mut bench, &ids[1], 1);
    bench.pass(SESSION);
    assert_eq!(bench.error(waits), Some(ErrorCode::RebalanceInProgress));
    assert_eq!(heartbeats(&mut bench, &ids[0], 1), ErrorCode::UnknownMemberId);
    assert_eq!(heartbeats(&mut bench, &ids[1], 1), ErrorCode::RebalanceInProgress);

    // While members join: the rebalance goes on without it, and whoever waits is not silent.
    let mut bench = Bench::new();
    let ids = bench.stable(2);
    let waits = bench.send_join(5, join(&ids[0], &["range"]));
    bench.pass(SESSION);
    assert_eq!(bench.joined(waits).generation_id, 2);
    assert_eq!(bench.joined(waits).members.len(), 1);

    // Alone: the group is empty, and that is written down.
    let mut bench = Bench::new();
    bench.stable(1);
    bench.pass(SESSION);
    assert_eq!((bench.state(), bench.log.len()), ("Empty", 2));
}

#[test]
fn commits_keep_a_session_alive() {
    let mut bench = Bench::new();
    let ids = bench.stable(1);
    for _ in 0..5 {
        bench.pass(SESSION - 1);
        let reply = bench.ask(8, GroupRequest::CommitOffsets(commit(&ids[0], 1, "t", 1)));
        assert_eq!(error_of(&reply), ErrorCode::None);
    }
}

#[test]
fn a_new_member_that_waits_too_long_is_to_come_again() {
    let mut bench = Bench::with(GroupConfig {
        new_member_join_timeout_ms: 20_000,
        ..GroupConfig::default()
    });
    let ids = bench.stable(1);
    let new = bench.send_join(3, join("", &["range"]));
    for _ in 0..4 {
        bench.pass(5_000);
        heartbeats(&mut bench, &ids[0], 1);
    }
    assert_eq!(bench.error(new), Some(ErrorCode::UnknownMemberId));
    // The one that is there has the rest of its time.
    let again = bench.send_join(5, join(&ids[0], &["range"]));
    assert_eq!(bench.joined(again).members.len(), 1);
}

#[test]
fn a_second_try_takes_the_place_of_the_first() {
    let mut bench = Bench::new();
    let ids = bench.completing(2);
    let first = send_sync(&mut bench, &ids[1], 1);
    let second = send_sync(&mut bench, &ids[1], 1);
    assert_eq!(bench.error(first), Some(ErrorCode::RebalanceInProgress));
    assert_eq!(bench.error(second), None);
    let first = bench.send_join(5, join(&ids[1], &["new", "range"]));
    assert_eq!(bench.error(second), Some(ErrorCode::RebalanceInProgress));
    let second = bench.send_join(5, join(&ids[1], &["new", "range"]));
    assert_eq!(bench.error(first), Some(ErrorCode::RebalanceInProgress));
    assert_eq!(bench.error(second), None);
}

#[test]
fn leaving_answers_whatever_the_member_waits_for() {
    let mut bench = Bench::new();
    let ids = bench.completing(2);
    let waits = send_sync(&mut bench, &ids[1], 1);
    bench.ask(5, GroupRequest::Leave(leave(&ids[1], None)));
    assert_eq!(bench.error(waits), Some(ErrorCode::UnknownMemberId));
    let waits = bench.send_join(3, join("", &["range"]));
    bench.ask(5, GroupRequest::Leave(leave(&ids[0], None)));
    assert_eq!(bench.joined(waits).generation_id, 2);
}

#[test]
fn several_leave_in_one_request() {
    let mut bench = Bench::new();
    let ids = bench.stable(3);
    let mut body = leave(&ids[0], None);
    body.members.extend(leave("nobody", None).members);
    body.members.extend(leave(&ids[1], None).members);
    body.members.extend(leave("", Some("no instance")).members);
    let reply = bench.ask(5, GroupRequest::Leave(body));
    let crate::coordinator::group::GroupReply::Leave(reply) = reply else {
        panic!("another reply");
    };
    let codes: Vec<i16> = reply.members.iter().map(|member| member.error_code).collect();
    let unknown = ErrorCode::UnknownMemberId.code();
    assert_eq!((reply.error_code, codes), (0, vec![0, unknown, 0, unknown]));
    let rest = bench.send_join(5, join(&ids[2], &["range"]));
    assert_eq!(bench.joined(rest).members.len(), 1);
}

#[test]
fn the_protocol_is_what_most_prefer_of_what_all_support() {
    let mut bench = Bench::new();
    let tokens = [
        bench.send_join(3, join("", &["range", "sticky", "coop"])),
        bench.send_join(3, join("", &["coop", "sticky"])),
        bench.send_join(3, join("", &["sticky", "coop", "range"])),
        bench.send_join(3, join("", &["coop", "sticky", "other"])),
    ];
    bench.pass(6_000);
    for token in tokens {
        // "range" is not everyone's; the first member then votes for "sticky": two each, and the
        // first by name wins.
        assert_eq!(bench.joined(token).protocol_name.as_deref(), Some("coop"));
    }
}

#[test]
fn an_assignment_that_no_batch_holds_is_refused() {
    let mut bench = Bench::with(GroupConfig {
        max_records_bytes: 1_000,
        ..GroupConfig::default()
    });
    let ids = bench.completing(2);
    let waits = send_sync(&mut bench, &ids[1], 1);
    let large = "x".repeat(1_000);
    let leader = bench.send(5, GroupRequest::Sync(sync(&ids[0], 1, &[(&ids[1], &large)])));
    for token in [waits, leader] {
        assert_eq!(bench.error(token), Some(ErrorCode::UnknownServerError));
    }
    assert_eq!((bench.state(), bench.log.len()), ("PreparingRebalance", 0));
}

#[test]
fn a_member_that_no_batch_holds_is_not_let_in() {
    let mut bench = Bench::with(GroupConfig {
        max_records_bytes: 1_000,
        ..GroupConfig::default()
    });
    let saying = |bytes: usize| {
        let mut body = join("", &["range"]);
        body.protocols[0].metadata = vec![0; bytes].into();
        body
    };
    let token = bench.send_join(3, saying(1_000));
    assert_eq!(bench.error(token), Some(ErrorCode::UnknownServerError));
    assert_eq!((bench.state(), bench.open(), bench.log.len()), ("Dead", 0, 0));
    // What just passes can be written down.
    let passes = (0..1_000).rev().find_map(|bytes| {
        let token = bench.send_join(3, saying(bytes));
        bench.error(token).is_none().then_some((bytes, token))
    });
    let (bytes, token) = passes.expect("some size passes");
    assert!(bytes > 600, "{bytes}");
    bench.pass(3_000);
    let member_id = bench.joined(token).member_id;
    let token = send_sync(&mut bench, &member_id, 1);
    assert_eq!(bench.error(token), Some(ErrorCode::None));
    assert_eq!((bench.state(), bench.log.len()), ("Stable", 1));
}

#[test]
fn groups_of_other_kinds_assign_what_they_like() {
    let mut bench = Bench::new();
    let body = join("", &["v1"]).with_protocol_type("connect".into());
    let token = bench.send_join(3, body);
    bench.pass(3_000);
    let joined = bench.joined(token);
    assert_eq!(joined.protocol_type.as_deref(), Some("connect"));
    let assigns = [(joined.member_id.as_str(), "\u{1}anything")];
    let token = bench.send(5, GroupRequest::Sync(sync(&joined.member_id, 1, &assigns)));
    assert_eq!(bench.synced(token).assignment, "\u{1}anything".as_bytes());
}

#[test]
fn old_clients_have_the_session_timeout_to_join_again() {
    let mut bench = Bench::new();
    let token = bench.send_join(0, join("", &["range"]).with_rebalance_timeout_ms(-1));
    bench.pass(3_000);
    let id = bench.joined(token).member_id;
    bench.send(0, GroupRequest::Sync(sync(&id, 1, &[])));
    bench.send_join(3, join("", &["range"]).with_rebalance_timeout_ms(1));
    for _ in 0..4 {
        bench.pass(SESSION / 4 - 1);
        heartbeats(&mut bench, &id, 1);
    }
    assert_eq!(bench.state(), "PreparingRebalance");
    bench.pass(4);
    assert_eq!(bench.state(), "CompletingRebalance");
}

#[test]
fn whoever_waits_at_a_coordinator_that_ends_is_sent_away() {
    let mut bench = Bench::new();
    let ids = bench.completing(2);
    let sync = send_sync(&mut bench, &ids[1], 1);
    let other = join("", &["range"]).with_group_id(super::bench::text("h").into());
    let join = bench.send_join(3, other);
    assert_eq!(bench.shard.waiting(), 2);
    bench.fail_over();
    for token in [sync, join] {
        assert_eq!(bench.error(token), Some(ErrorCode::NotCoordinator));
    }
    assert_eq!((bench.open(), bench.shard.waiting()), (0, 0));
}

#[test]
fn members_go_on_after_a_failover() {
    let mut bench = Bench::new();
    let ids = bench.stable(2);
    bench.pass(SESSION - 1);
    bench.fail_over();
    // They have their whole session timeout again.
    bench.pass(SESSION - 1);
    for (n, id) in ids.iter().enumerate() {
        assert_eq!(heartbeats(&mut bench, id, 1), ErrorCode::None);
        let token = send_sync(&mut bench, id, 1);
        assert_eq!(bench.synced(token).assignment, n.to_string().as_bytes());
    }
    bench.pass(SESSION);
    assert_eq!(bench.state(), "Empty");
}
