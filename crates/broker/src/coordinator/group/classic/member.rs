//! One member of a classic group.

use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::messages::{
    describe_groups_response::DescribedGroupMember, join_group_request::JoinGroupRequestProtocol,
};

use super::super::{
    ids::{InstanceId, MemberId, wire},
    records::{MemberMetadata, SupportedProtocol},
    request::ReplyToken,
};

/// Copies, so that a member does not keep its whole request alive. Of two protocols of one name the
/// first counts.
pub(in super::super) fn supported(protocols: &[JoinGroupRequestProtocol]) -> Vec<SupportedProtocol> {
    let mut all: Vec<SupportedProtocol> = Vec::with_capacity(protocols.len());
    for protocol in protocols {
        if !all.iter().any(|known| *known.name == *protocol.name) {
            all.push(SupportedProtocol {
                name: Arc::from(protocol.name.as_str()),
                metadata: Bytes::copy_from_slice(&protocol.metadata),
            });
        }
    }
    all
}

/// A request that waits for the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parked {
    pub(super) token: ReplyToken,
    pub(super) api_version: i16,
}

/// A member, from its first JoinGroup until it leaves or is given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) id: MemberId,
    pub(super) instance_id: Option<InstanceId>,
    pub(super) client_id: Arc<str>,
    pub(super) client_host: Arc<str>,
    pub(super) rebalance_timeout_ms: i32,
    pub(super) session_timeout_ms: i32,
    /// In the order in which the member prefers them; of a replayed member only the group's.
    pub(super) protocols: Vec<SupportedProtocol>,
    pub(super) assignment: Bytes,
    /// Whether it has not been in any generation yet: then it does not know its id and cannot
    /// heartbeat, so its session ends even while it waits.
    pub(super) is_new: bool,
    pub(super) awaiting_join: Option<Parked>,
    pub(super) awaiting_sync: Option<Parked>,
}

/// A timeout from the wire or the log; a negative one is none at all.
pub(super) fn timeout(timeout_ms: i32) -> u64 {
    u64::try_from(timeout_ms).unwrap_or(0)
}

impl Member {
    /// The member as the log has it: it waits for nothing, and heartbeats are expected of it.
    pub(super) fn replayed(record: &MemberMetadata, protocol: &Arc<str>) -> Self {
        Self {
            id: record.member_id.clone(),
            instance_id: record.instance_id.clone(),
            client_id: record.client_id.clone(),
            client_host: record.client_host.clone(),
            rebalance_timeout_ms: record.rebalance_timeout_ms,
            session_timeout_ms: record.session_timeout_ms,
            protocols: vec![SupportedProtocol {
                name: protocol.clone(),
                metadata: record.subscription.clone(),
            }],
            assignment: record.assignment.clone(),
            is_new: false,
            awaiting_join: None,
            awaiting_sync: None,
        }
    }

    /// Takes over what a later record says. What only memory has stays: the requests that wait, and
    /// the protocols besides the group's if it still says the same under that.
    pub(super) fn take_over(&mut self, record: &MemberMetadata, protocol: &Arc<str>) {
        let before = std::mem::replace(self, Self::replayed(record, protocol));
        if before.metadata(protocol) == record.subscription && !before.protocols.is_empty() {
            self.protocols = before.protocols;
        }
        self.is_new = before.is_new;
        self.awaiting_join = before.awaiting_join;
        self.awaiting_sync = before.awaiting_sync;
    }

    /// The member as the log will have it.
    pub(super) fn to_record(&self, protocol: &str) -> MemberMetadata {
        MemberMetadata {
            member_id: self.id.clone(),
            instance_id: self.instance_id.clone(),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            rebalance_timeout_ms: self.rebalance_timeout_ms,
            session_timeout_ms: self.session_timeout_ms,
            subscription: self.metadata(protocol),
            assignment: self.assignment.clone(),
        }
    }

    /// What it says under a protocol; nothing under one that it does not support.
    pub(super) fn metadata(&self, protocol: &str) -> Bytes {
        self.protocols
            .iter()
            .find(|supported| *supported.name == *protocol)
            .map_or_else(Bytes::new, |supported| supported.metadata.clone())
    }

    pub(super) fn session_timeout(&self) -> u64 {
        timeout(self.session_timeout_ms)
    }

    /// Whether its silence means nothing, because it is the coordinator that owes it an answer.
    pub(super) fn may_be_silent(&self) -> bool {
        !self.is_new && (self.awaiting_join.is_some() || self.awaiting_sync.is_some())
    }

    /// The member as DescribeGroups shows it; what it said and owns only under an agreed protocol.
    pub(super) fn describe(&self, protocol: Option<&str>) -> DescribedGroupMember {
        let described = DescribedGroupMember::default()
            .with_member_id(self.id.to_wire())
            .with_group_instance_id(self.instance_id.as_ref().map(InstanceId::to_wire))
            .with_client_id(wire(&self.client_id))
            .with_client_host(wire(&self.client_host));
        match protocol {
            Some(protocol) => described
                .with_member_metadata(self.metadata(protocol))
                .with_member_assignment(self.assignment.clone()),
            None => described,
        }
    }
}
