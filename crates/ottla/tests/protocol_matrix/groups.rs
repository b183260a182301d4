//! The classic group protocol: members come, are given their assignments, live and go.

use bytes::Bytes;
use kafka_protocol::messages::{
    DeleteGroupsRequest, DescribeGroupsRequest, FindCoordinatorRequest, GroupId, HeartbeatRequest,
    JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, ListGroupsRequest, SyncGroupRequest,
    join_group_request::JoinGroupRequestProtocol, leave_group_request::MemberIdentity,
    sync_group_request::SyncGroupRequestAssignment,
};
use protocol::ErrorCode;

use crate::{
    ground::wait_for,
    support::{Client, DevNode, text},
};

const METADATA: &[u8] = b"what the member says";
const ASSIGNMENT: &[u8] = b"what the leader gives it";

/// A group's name as the codec crate takes it.
pub(crate) fn group_id(name: &str) -> GroupId {
    GroupId(text(name))
}

/// A connection to a node that coordinates `group`, and has loaded it.
pub(crate) fn coordinator(node: &DevNode, group: &str) -> Client {
    let mut client = node.client();
    let find = FindCoordinatorRequest::default().with_key(text(group));
    wait_for("a coordinator", || client.call(0, &find).error_code == 0);
    let beat = HeartbeatRequest::default()
        .with_group_id(group_id(group))
        .with_member_id(text("nobody"));
    let unknown = ErrorCode::UnknownMemberId.code();
    wait_for("a loaded coordinator", || {
        client.call(0, &beat).error_code == unknown
    });
    client
}

pub(crate) fn find_coordinator(node: &DevNode, version: i16) {
    drop(coordinator(node, "found"));
    let mut client = node.client();
    let transaction = ErrorCode::TransactionalIdAuthorizationFailed;
    for (key_type, error, broker) in [
        (0, ErrorCode::None, 1),
        (1, transaction, -1),
        (9, ErrorCode::InvalidRequest, -1),
    ] {
        if version == 0 && key_type != 0 {
            continue;
        }
        let port = if broker > 0 {
            i32::from(node.address().port())
        } else {
            -1
        };
        let expected = (error.code(), broker, port);
        let request = FindCoordinatorRequest::default().with_key_type(key_type);
        if version < 4 {
            let answer = client.call(version, &request.with_key(text("found")));
            assert_eq!((answer.error_code, answer.node_id.0, answer.port), expected);
            continue;
        }
        let keys = vec![text("found"), text("other")];
        let answer = client.call(version, &request.with_coordinator_keys(keys.clone()));
        let found: Vec<_> = answer.coordinators.iter().map(|one| one.key.clone()).collect();
        assert_eq!(found, keys);
        for one in answer.coordinators {
            assert_eq!((one.error_code, one.node_id.0, one.port), expected);
        }
    }
}

fn join_request(version: i16, group: &str, member: &str) -> JoinGroupRequest {
    let protocol = JoinGroupRequestProtocol::default()
        .with_name(text("range"))
        .with_metadata(Bytes::from_static(METADATA));
    let request = JoinGroupRequest::default()
        .with_group_id(group_id(group))
        .with_session_timeout_ms(30_000)
        .with_member_id(text(member))
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol]);
    if version >= 1 {
        request.with_rebalance_timeout_ms(30_000)
    } else {
        request
    }
}

/// Joins as the only member, the way the version asks for.
fn join(client: &mut Client, version: i16, group: &str) -> JoinGroupResponse {
    let first = client.call(version, &join_request(version, group, ""));
    if version < 4 {
        return first;
    }
    assert_eq!(first.error_code, ErrorCode::MemberIdRequired.code());
    assert!(!first.member_id.is_empty());
    client.call(version, &join_request(version, group, &first.member_id))
}

pub(crate) fn join_group(node: &DevNode, version: i16) {
    let group = format!("join-{version}");
    let mut client = coordinator(node, &group);
    let joined = join(&mut client, version, &group);
    assert_eq!((joined.error_code, joined.generation_id), (0, 1));
    assert_eq!(joined.leader, joined.member_id);
    assert!(joined.member_id.starts_with("test-"), "{}", joined.member_id);
    assert_eq!(joined.protocol_name, Some(text("range")));
    assert_eq!(joined.protocol_type, (version >= 7).then(|| text("consumer")));
    assert_eq!(joined.members.len(), 1);
    assert_eq!(joined.members[0].metadata, METADATA);
    for (request, expected) in [
        (
            join_request(version, &group, "").with_session_timeout_ms(1),
            ErrorCode::InvalidSessionTimeout,
        ),
        (join_request(version, "", ""), ErrorCode::InvalidGroupId),
        (
            join_request(version, &group, "stranger"),
            ErrorCode::UnknownMemberId,
        ),
        (
            join_request(version, &group, "").with_protocol_type(text("connect")),
            ErrorCode::InconsistentGroupProtocol,
        ),
    ] {
        let refused = client.call(version, &request);
        assert_eq!(refused.error_code, expected.code());
    }
}

fn sync_request(version: i16, group: &str, member: &str) -> SyncGroupRequest {
    let assignment = SyncGroupRequestAssignment::default()
        .with_member_id(text(member))
        .with_assignment(Bytes::from_static(ASSIGNMENT));
    let request = SyncGroupRequest::default()
        .with_group_id(group_id(group))
        .with_generation_id(1)
        .with_member_id(text(member))
        .with_assignments(vec![assignment]);
    if version >= 5 {
        request
            .with_protocol_type(Some(text("consumer")))
            .with_protocol_name(Some(text("range")))
    } else {
        request
    }
}

/// A stable group of one member, whose id is returned.
pub(crate) fn stable(client: &mut Client, group: &str) -> String {
    let joined = join(client, 9, group);
    assert_eq!(joined.error_code, 0);
    let synced = client.call(5, &sync_request(5, group, &joined.member_id));
    assert_eq!(synced.error_code, 0);
    joined.member_id.to_string()
}

pub(crate) fn sync_group(node: &DevNode, version: i16) {
    let group = format!("sync-{version}");
    let mut client = coordinator(node, &group);
    let member = join(&mut client, 9, &group).member_id;
    let synced = client.call(version, &sync_request(version, &group, &member));
    assert_eq!(synced.error_code, 0);
    assert_eq!(synced.assignment, ASSIGNMENT);
    assert_eq!(synced.protocol_name, (version >= 5).then(|| text("range")));
    let stranger = client.call(version, &sync_request(version, &group, "stranger"));
    assert_eq!(stranger.error_code, ErrorCode::UnknownMemberId.code());
    let old = sync_request(version, &group, &member).with_generation_id(0);
    assert_eq!(
        client.call(version, &old).error_code,
        ErrorCode::IllegalGeneration.code()
    );
}

pub(crate) fn heartbeat(node: &DevNode, version: i16) {
    let group = format!("heartbeat-{version}");
    let mut client = coordinator(node, &group);
    let member = stable(&mut client, &group);
    for (member, generation, expected) in [
        (&*member, 1, ErrorCode::None),
        (&*member, 7, ErrorCode::IllegalGeneration),
        ("stranger", 1, ErrorCode::UnknownMemberId),
    ] {
        let beat = HeartbeatRequest::default()
            .with_group_id(group_id(&group))
            .with_generation_id(generation)
            .with_member_id(text(member));
        assert_eq!(client.call(version, &beat).error_code, expected.code());
    }
}

pub(crate) fn leave_group(node: &DevNode, version: i16) {
    let group = format!("leave-{version}");
    let mut client = coordinator(node, &group);
    let member = stable(&mut client, &group);
    for (member, expected) in [
        ("stranger", ErrorCode::UnknownMemberId),
        (&*member, ErrorCode::None),
    ] {
        let leave = LeaveGroupRequest::default().with_group_id(group_id(&group));
        if version < 3 {
            let answer = client.call(version, &leave.with_member_id(text(member)));
            assert_eq!(answer.error_code, expected.code());
        } else {
            let leaving = MemberIdentity::default().with_member_id(text(member));
            let answer = client.call(version, &leave.with_members(vec![leaving]));
            assert_eq!(answer.error_code, 0);
            let code = answer.members[0].error_code;
            assert_eq!((&*answer.members[0].member_id, code), (member, expected.code()));
        }
    }
}

pub(crate) fn describe_groups(node: &DevNode, version: i16) {
    let group = format!("describe-{version}");
    let mut client = coordinator(node, &group);
    let member = stable(&mut client, &group);
    let request = DescribeGroupsRequest::default()
        .with_groups(vec![group_id(&group), group_id("not-there")])
        .with_include_authorized_operations(version >= 3);
    let answer = client.call(version, &request);
    let described = &answer.groups[0];
    assert_eq!((described.error_code, &*described.group_state), (0, "Stable"));
    assert_eq!(
        (&*described.protocol_type, &*described.protocol_data),
        ("consumer", "range")
    );
    assert_eq!(described.authorized_operations != i32::MIN, version >= 3);
    assert_eq!(described.members.len(), 1);
    let found = &described.members[0];
    assert_eq!((&*found.member_id, &*found.client_id), (&*member, "test"));
    assert_eq!(&*found.client_host, "/127.0.0.1");
    assert_eq!(
        (&found.member_metadata[..], &found.member_assignment[..]),
        (METADATA, ASSIGNMENT)
    );
    let unknown = &answer.groups[1];
    let expected = if version >= 6 {
        ErrorCode::GroupIdNotFound
    } else {
        ErrorCode::None
    };
    assert_eq!(unknown.error_code, expected.code());
    assert_eq!(&*unknown.group_state, "Dead");
}

pub(crate) fn list_groups(node: &DevNode, version: i16) {
    let group = format!("list-{version}");
    let mut client = coordinator(node, &group);
    stable(&mut client, &group);
    // Groups of other partitions may still be loaded.
    wait_for("all groups", || {
        client.call(version, &ListGroupsRequest::default()).error_code == 0
    });
    let mut list = |request: ListGroupsRequest| {
        let answer = client.call(version, &request);
        assert_eq!(answer.error_code, 0);
        answer.groups.into_iter().find(|found| *found.group_id == *group)
    };
    let found = list(ListGroupsRequest::default()).expect("the group is listed");
    assert_eq!(&*found.protocol_type, "consumer");
    assert_eq!(&*found.group_state, if version >= 4 { "Stable" } else { "" });
    assert_eq!(&*found.group_type, if version >= 5 { "classic" } else { "" });
    if version >= 4 {
        let in_state = |state: &str| ListGroupsRequest::default().with_states_filter(vec![text(state)]);
        assert!(list(in_state("Stable")).is_some());
        assert!(list(in_state("Empty")).is_none());
    }
    if version >= 5 {
        let of_type = |kind: &str| ListGroupsRequest::default().with_types_filter(vec![text(kind)]);
        assert!(list(of_type("classic")).is_some());
        assert!(list(of_type("consumer")).is_none());
    }
}

pub(crate) fn delete_groups(node: &DevNode, version: i16) {
    let group = format!("delete-{version}");
    let mut client = coordinator(node, &group);
    let member = stable(&mut client, &group);
    let delete = |client: &mut Client| {
        let request = DeleteGroupsRequest::default().with_groups_names(vec![group_id(&group)]);
        client.call(version, &request).results.remove(0).error_code
    };
    assert_eq!(delete(&mut client), ErrorCode::NonEmptyGroup.code());
    let leave = LeaveGroupRequest::default()
        .with_group_id(group_id(&group))
        .with_member_id(text(&member));
    assert_eq!(client.call(0, &leave).error_code, 0);
    assert_eq!(delete(&mut client), 0);
    assert_eq!(delete(&mut client), ErrorCode::GroupIdNotFound.code());
}
