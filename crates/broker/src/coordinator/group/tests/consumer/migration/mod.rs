//! A group changes its protocol while it runs ([`groups`]), and members of both are in it meanwhile
//! ([`members`]).

mod groups;
mod members;

use bytes::Bytes;
use kafka_protocol::messages::{JoinGroupRequest, JoinGroupResponse, SyncGroupResponse};
use protocol::ErrorCode;

use crate::coordinator::group::{
    GroupKind, GroupRequest,
    tests::bench::{Bench, error_of, heartbeat, join, sync},
};

/// A cooperative consumer's subscription to `t`, owning these partitions of it.
fn owning(partitions: &[i32]) -> Bytes {
    let mut bytes = vec![0, 1, 0, 0, 0, 1, 0, 1, b't', 0xff, 0xff, 0xff, 0xff];
    bytes.extend(i32::from(!partitions.is_empty()).to_be_bytes());
    if !partitions.is_empty() {
        bytes.extend(b"\0\x01t");
        bytes.extend(i32::try_from(partitions.len()).expect("few").to_be_bytes());
        for partition in partitions {
            bytes.extend(partition.to_be_bytes());
        }
    }
    bytes.into()
}

/// A JoinGroup to `t` that says what it owns.
fn joins_classic(member: &str, owned: &[i32]) -> JoinGroupRequest {
    let mut body = join(member, &["cooperative-sticky"]);
    body.protocols[0].metadata = owning(owned);
    body
}

/// An assignment of partitions of `t`, as a leader makes it.
fn share(partitions: &[i32]) -> Bytes {
    let mut bytes = vec![0, 1, 0, 0, 0, 1, 0, 1, b't'];
    bytes.extend(i32::try_from(partitions.len()).expect("few").to_be_bytes());
    for partition in partitions {
        bytes.extend(partition.to_be_bytes());
    }
    bytes.extend([0xff; 4]);
    bytes.into()
}

/// The partitions of `t` in a share.
fn read(share: &Bytes) -> Vec<i32> {
    if share.len() <= 10 {
        return Vec::new();
    }
    let partitions = share[13..share.len() - 4].chunks(4);
    partitions
        .map(|bytes| i32::from_be_bytes(bytes.try_into().expect("four")))
        .collect()
}

fn kind(bench: &Bench) -> GroupKind {
    bench.shard.lag_view().groups[0].kind
}

/// Joins a group that answers at once.
fn joined(bench: &mut Bench, version: i16, body: JoinGroupRequest) -> JoinGroupResponse {
    let token = bench.send_join(version, body);
    bench.joined(token)
}

fn synced(bench: &mut Bench, member: &str, generation: i32) -> SyncGroupResponse {
    let token = bench.send(5, GroupRequest::Sync(sync(member, generation, &[])));
    bench.synced(token)
}

fn beats_classic(bench: &mut Bench, member: &str, generation: i32) -> ErrorCode {
    error_of(&bench.ask(4, GroupRequest::Heartbeat(heartbeat(member, generation))))
}

/// A stable classic group of two cooperative members of topic `t`, in generation 1.
fn classic_group(bench: &mut Bench) -> [String; 2] {
    let tokens = [(); 2].map(|()| bench.send_join(3, joins_classic("", &[])));
    bench.pass(6_000);
    let ids = tokens.map(|token| bench.joined(token).member_id.to_string());
    bench.send(5, GroupRequest::Sync(sync(&ids[1], 1, &[])));
    let mut body = sync(&ids[0], 1, &[(&ids[0], ""), (&ids[1], "")]);
    body.assignments[0].assignment = share(&[0, 1, 2]);
    body.assignments[1].assignment = share(&[3, 4, 5]);
    assert_eq!(error_of(&bench.ask(5, GroupRequest::Sync(body))), ErrorCode::None);
    assert_eq!((bench.state(), bench.open()), ("Stable", 0));
    ids
}
