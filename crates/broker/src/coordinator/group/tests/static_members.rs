//! Members with a `group.instance.id` (KIP-345, KIP-814).

use kafka_protocol::messages::JoinGroupRequest;
use protocol::ErrorCode;

use super::bench::{Bench, REBALANCE_MS, SESSION_MS, commit, error_of, heartbeat, join, leave, sync, text};
use crate::coordinator::group::{GroupRequest, ReplyToken};

fn static_join(member_id: &str, instance_id: &str, protocols: &[&str]) -> JoinGroupRequest {
    join(member_id, protocols).with_group_instance_id(Some(text(instance_id)))
}

fn beat(bench: &mut Bench, id: &str, instance_id: &str, generation: i32) -> ErrorCode {
    let body = heartbeat(id, generation).with_group_instance_id(Some(text(instance_id)));
    error_of(&bench.ask(4, GroupRequest::Heartbeat(body)))
}

/// A stable group of the static members "a" (the leader) and "b".
fn stable(bench: &mut Bench) -> [String; 2] {
    let tokens = ["a", "b"].map(|name| bench.send_join(9, static_join("", name, &["range"])));
    // Nobody is told to come again with an id: instances cannot pile up.
    bench.pass(6_000);
    let ids = tokens.map(|token| bench.joined(token).member_id.to_string());
    bench.send(5, GroupRequest::Sync(sync(&ids[1], 1, &[])));
    let assigns = [(ids[0].as_str(), "0"), (&ids[1], "1")];
    bench.send(5, GroupRequest::Sync(sync(&ids[0], 1, &assigns)));
    assert_eq!((bench.state(), bench.open()), ("Stable", 0));
    ids
}

#[test]
fn a_restarted_member_goes_on_without_a_rebalance() {
    let mut bench = Bench::new();
    let ids = stable(&mut bench);
    assert!(ids[1].starts_with("b-"), "{}", ids[1]);
    let token = bench.send_join(9, static_join("", "b", &["range"]));
    let reply = bench.joined(token);
    assert_eq!((bench.state(), bench.log.len()), ("Stable", 2));
    assert_eq!((reply.error_code, reply.generation_id), (0, 1));
    assert_eq!(reply.leader.as_str(), ids[0]);
    assert!(!reply.skip_assignment && reply.members.is_empty());
    assert_ne!(reply.member_id.as_str(), ids[1]);
    // It asks for what it had; the process before it is fenced.
    let token = bench.send(5, GroupRequest::Sync(sync(&reply.member_id, 1, &[])));
    assert_eq!(&bench.synced(token).assignment[..], b"1");
    assert_eq!(beat(&mut bench, &ids[1], "b", 1), ErrorCode::FencedInstanceId);
    assert_eq!(beat(&mut bench, &reply.member_id, "b", 1), ErrorCode::None);
    let late = commit(&ids[1], 1, "t", 1).with_group_instance_id(Some(text("b")));
    let late = bench.ask(8, GroupRequest::CommitOffsets(late));
    assert_eq!(error_of(&late), ErrorCode::FencedInstanceId);
    let late = sync(&ids[1], 1, &[]).with_group_instance_id(Some(text("b")));
    let late = bench.ask(5, GroupRequest::Sync(late));
    assert_eq!(error_of(&late), ErrorCode::FencedInstanceId);
    let late = bench.send_join(9, static_join(&ids[1], "b", &["range"]));
    assert_eq!(bench.error(late), Some(ErrorCode::FencedInstanceId));
    let late = bench.ask(5, GroupRequest::Leave(leave(&ids[1], Some("b"))));
    assert_eq!(error_of(&late), ErrorCode::FencedInstanceId);
    // The new id outlives the coordinator.
    bench.fail_over();
    assert_eq!(beat(&mut bench, &reply.member_id, "b", 1), ErrorCode::None);
}

#[test]
fn a_restarted_leader_is_told_not_to_assign_anew() {
    let mut bench = Bench::new();
    let ids = stable(&mut bench);
    let token = bench.send_join(9, static_join("", "a", &["range"]));
    let reply = bench.joined(token);
    assert!(reply.skip_assignment);
    assert_eq!(reply.leader, reply.member_id);
    assert_eq!(reply.members.len(), 2);
    // A client that cannot be told so does not learn that it leads.
    let token = bench.send_join(8, static_join("", "a", &["range"]));
    let older = bench.joined(token);
    assert_eq!(older.leader, reply.member_id);
    assert_ne!(older.leader, older.member_id);
    assert!(!older.skip_assignment && older.members.is_empty());
    assert_eq!(bench.state(), "Stable");
    assert_eq!(beat(&mut bench, &ids[1], "b", 1), ErrorCode::None);
}

#[test]
fn a_restart_that_changes_the_protocol_is_a_rebalance() {
    let mut bench = Bench::new();
    let both = ["range", "sticky"];
    let tokens = ["a", "b"].map(|name| bench.send_join(9, static_join("", name, &both)));
    bench.pass(6_000);
    let ids = tokens.map(|token| bench.joined(token).member_id.to_string());
    bench.send(5, GroupRequest::Sync(sync(&ids[0], 1, &[])));
    let token = bench.send_join(9, static_join("", "b", &["sticky"]));
    assert_eq!((bench.error(token), bench.state()), (None, "PreparingRebalance"));
    let leader = bench.send_join(9, static_join(&ids[0], "a", &both));
    for token in [token, leader] {
        let reply = bench.joined(token);
        assert_eq!(reply.protocol_name.as_deref(), Some("sticky"));
        assert_eq!(reply.generation_id, 2);
    }
}

#[test]
fn a_restart_while_members_wait_fences_the_one_that_waits() {
    // While it waits for the others to join.
    let mut bench = Bench::new();
    let ids = stable(&mut bench);
    let waits = bench.send_join(9, static_join(&ids[0], "a", &["range"]));
    let restarted = bench.send_join(9, static_join("", "a", &["range"]));
    assert_eq!(bench.error(waits), Some(ErrorCode::FencedInstanceId));
    assert_eq!(bench.joined(waits).member_id.as_str(), ids[0]);
    let other = bench.send_join(9, static_join(&ids[1], "b", &["range"]));
    assert_eq!(bench.joined(restarted).generation_id, 2);
    assert_eq!(bench.joined(other).leader, bench.joined(restarted).member_id);

    // While it waits for its assignment: the leader would assign to an id that is no more.
    let waits = bench.send(5, GroupRequest::Sync(sync(&ids[1], 2, &[])));
    let restarted = bench.send_join(9, static_join("", "b", &["range"]));
    assert_eq!(bench.error(waits), Some(ErrorCode::FencedInstanceId));
    assert_eq!(
        (bench.error(restarted), bench.state()),
        (None, "PreparingRebalance")
    );
}

#[test]
fn an_operator_removes_a_member_by_its_instance() {
    let mut bench = Bench::new();
    let ids = stable(&mut bench);
    let reply = bench.ask(5, GroupRequest::Leave(leave("", Some("b"))));
    assert_eq!(error_of(&reply), ErrorCode::None);
    assert_eq!(bench.state(), "PreparingRebalance");
    assert_eq!(beat(&mut bench, &ids[1], "b", 1), ErrorCode::UnknownMemberId);
}

#[test]
fn a_static_member_keeps_its_place_through_a_rebalance_it_missed() {
    let mut bench = Bench::new();
    let body = static_join("", "b", &["range"]).with_session_timeout_ms(200_000);
    let tokens: [ReplyToken; 2] = [bench.send_join(3, join("", &["range"])), bench.send_join(9, body)];
    bench.pass(6_000);
    let ids = tokens.map(|token| bench.joined(token).member_id.to_string());
    bench.send(5, GroupRequest::Sync(sync(&ids[1], 1, &[])));
    bench.send(5, GroupRequest::Sync(sync(&ids[0], 1, &[])));
    let again = bench.send_join(5, join(&ids[0], &["range"]));
    bench.pass(REBALANCE_MS as u64);
    let reply = bench.joined(again);
    assert_eq!((reply.generation_id, reply.members.len()), (2, 2));
    assert_eq!(beat(&mut bench, &ids[1], "b", 1), ErrorCode::IllegalGeneration);
    assert_eq!(beat(&mut bench, &ids[1], "b", 2), ErrorCode::None);
}

#[test]
fn a_rebalance_that_nobody_joins_waits_for_sessions_to_end() {
    let mut bench = Bench::new();
    let body = static_join("", "a", &["range"]).with_session_timeout_ms(100_000);
    let token = bench.send_join(9, body);
    bench.pass(3_000);
    let id = bench.joined(token).member_id.to_string();
    bench.send(5, GroupRequest::Sync(sync(&id, 1, &[])));
    // Someone comes and goes again.
    let other = bench.send_join(4, join("", &["range"]));
    let other = bench.joined(other).member_id.to_string();
    bench.send_join(4, join(&other, &["range"]));
    bench.ask(5, GroupRequest::Leave(leave(&other, None)));
    assert_eq!(bench.state(), "PreparingRebalance");
    bench.pass(2 * REBALANCE_MS as u64);
    assert_eq!(bench.state(), "PreparingRebalance");
    let again = bench.send_join(
        9,
        static_join(&id, "a", &["range"]).with_session_timeout_ms(SESSION_MS),
    );
    assert_eq!(bench.joined(again).generation_id, 2);
}

#[test]
fn a_member_that_takes_no_time_does_not_stop_the_clock() {
    let mut bench = Bench::new();
    let body = |timeout_ms| {
        static_join("", "a", &["range"])
            .with_session_timeout_ms(100_000)
            .with_rebalance_timeout_ms(timeout_ms)
    };
    let first = bench.send_join(9, body(REBALANCE_MS));
    let other = bench.send_join(3, join("", &["range"]));
    bench.pass(6_000);
    let ids = [first, other].map(|token| bench.joined(token).member_id.to_string());
    for id in &ids {
        bench.send(5, GroupRequest::Sync(sync(id, 1, &[])));
    }
    // It comes back with no time at all, and the only other member goes: nobody joins, at once.
    bench.send_join(9, body(0));
    assert_eq!(bench.state(), "Stable");
    bench.ask(5, GroupRequest::Leave(leave(&ids[1], None)));
    assert_eq!(bench.state(), "PreparingRebalance");
    bench.pass(99_000);
    assert_eq!(bench.state(), "PreparingRebalance");
    bench.pass(1_000);
    assert_eq!(bench.state(), "Empty");
}
