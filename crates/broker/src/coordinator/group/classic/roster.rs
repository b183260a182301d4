//! Who is in a group: members come and go, lead, vote and wait.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use kafka_protocol::messages::{
    JoinGroupRequest, JoinGroupResponse, join_group_response::JoinGroupResponseMember,
};
use protocol::ErrorCode;

use super::{
    ClassicGroup, State,
    member::{Member, Parked, supported, timeout},
};
use crate::coordinator::group::{
    effects::Effects,
    ids::{InstanceId, MemberId, wire},
    replies,
    request::{GroupReply, ReplyToken},
};

/// What a request that is overtaken by another of the same member gets: if anyone still listens, it
/// is to join again.
const OVERTAKEN: ErrorCode = ErrorCode::RebalanceInProgress;

impl ClassicGroup {
    /// Checks that a request comes from a member, and not from one whose place another process has
    /// taken (KIP-345).
    pub(super) fn check_member(&self, member_id: &str, instance_id: Option<&str>) -> Result<(), ErrorCode> {
        if let Some(instance_id) = instance_id {
            match self.static_members.get(instance_id) {
                None => return Err(ErrorCode::UnknownMemberId),
                Some(current) if current.as_str() != member_id => {
                    return Err(ErrorCode::FencedInstanceId);
                }
                Some(_) => {}
            }
        }
        if self.members.contains_key(member_id) {
            Ok(())
        } else {
            Err(ErrorCode::UnknownMemberId)
        }
    }

    /// Whether a member with these protocols could work together with those that are there.
    pub(super) fn supports(&self, request: &JoinGroupRequest) -> bool {
        if self.state == State::Empty {
            return !request.protocol_type.is_empty() && !request.protocols.is_empty();
        }
        self.protocol_type.as_deref() == Some(&*request.protocol_type)
            && request.protocols.iter().any(|protocol| {
                self.members
                    .values()
                    .all(|member| member.protocols.iter().any(|known| *known.name == *protocol.name))
            })
    }

    /// The protocol that all members support and most of them prefer; of equals the first by name.
    pub(super) fn vote(&self) -> Option<Arc<str>> {
        let mut voters = self.members.values();
        let mut candidates: BTreeSet<&Arc<str>> = voters
            .next()?
            .protocols
            .iter()
            .map(|protocol| &protocol.name)
            .collect();
        for member in voters {
            candidates.retain(|name| member.protocols.iter().any(|known| known.name == **name));
        }
        let mut votes: BTreeMap<&Arc<str>, usize> = BTreeMap::new();
        for member in self.members.values() {
            let favourite = member
                .protocols
                .iter()
                .find(|protocol| candidates.contains(&protocol.name));
            if let Some(favourite) = favourite {
                *votes.entry(&favourite.name).or_default() += 1;
            }
        }
        votes
            .into_iter()
            // The last of equals is the largest; so the names are turned around.
            .max_by(|(a, more), (b, less)| more.cmp(less).then_with(|| b.cmp(a)))
            .map(|(name, _)| name.clone())
    }

    /// Whether a joining member finds a place (`group.max.size`).
    pub(super) fn has_room_for(&self, member_id: &str, max_size: usize) -> bool {
        match self.state {
            State::Empty => true,
            // Those that wait count, not those that are there: the limit may have become lower, and
            // then the last to join again are left out.
            State::PreparingRebalance { .. } => {
                let waits = |member: &Member| member.awaiting_join.is_some();
                self.members.get(member_id).is_some_and(waits)
                    || self.members.values().filter(|member| waits(member)).count() < max_size
            }
            State::CompletingRebalance | State::Stable => {
                self.members.contains_key(member_id) || self.members.len() < max_size
            }
        }
    }

    /// Adds a member that waits for its first generation.
    pub(super) fn add(&mut self, member: Member) {
        self.pending.remove(&member.id);
        if let Some(instance_id) = &member.instance_id {
            self.static_members.insert(instance_id.clone(), member.id.clone());
        }
        if self.leader.is_none() {
            self.leader = Some(member.id.clone());
        }
        self.members.insert(member.id.clone(), member);
    }

    /// Takes what a member says in a new JoinGroup, and parks that.
    pub(super) fn update(
        &mut self,
        member_id: &MemberId,
        request: &JoinGroupRequest,
        parked: Parked,
        fx: &mut Effects<'_>,
    ) {
        let Some(member) = self.members.get_mut(member_id) else {
            return;
        };
        member.protocols = supported(&request.protocols);
        member.rebalance_timeout_ms = request.rebalance_timeout_ms;
        member.session_timeout_ms = request.session_timeout_ms;
        if let Some(overtaken) = member.awaiting_join.replace(parked) {
            let reply = replies::join_refused(overtaken.api_version, member_id.to_wire(), OVERTAKEN);
            fx.answer_now(overtaken.token, reply);
        }
    }

    /// Parks a SyncGroup.
    pub(super) fn park_sync(&mut self, member_id: &str, parked: Parked, fx: &mut Effects<'_>) {
        if let Some(member) = self.members.get_mut(member_id)
            && let Some(overtaken) = member.awaiting_sync.replace(parked)
        {
            fx.answer_now(overtaken.token, replies::sync_refused(OVERTAKEN));
        }
    }

    /// Removes a member or a pending one. What it waits for is answered: if it is still there, it
    /// may join anew.
    pub(super) fn remove(&mut self, member_id: &MemberId, fx: &mut Effects<'_>) {
        self.pending.remove(member_id);
        self.pending_sync.remove(member_id);
        fx.end_session(&self.id, member_id);
        let Some(mut member) = self.members.remove(member_id) else {
            return;
        };
        refuse_waiting(&mut member, "", ErrorCode::UnknownMemberId, fx);
        if let Some(instance_id) = &member.instance_id {
            self.static_members.remove(instance_id);
        }
        if self.leader.as_ref() == Some(member_id) {
            self.leader = self.members.keys().next().cloned();
        }
    }

    /// Gives a static member's place to a new process under a new id; the old one is fenced at once.
    pub(super) fn replace_static(
        &mut self,
        instance_id: &InstanceId,
        old_id: &MemberId,
        new_id: &MemberId,
        fx: &mut Effects<'_>,
    ) {
        let Some(mut member) = self.members.remove(old_id) else {
            return;
        };
        refuse_waiting(&mut member, old_id.as_str(), ErrorCode::FencedInstanceId, fx);
        fx.end_session(&self.id, old_id);
        if self.pending_sync.remove(old_id) {
            self.pending_sync.insert(new_id.clone());
        }
        member.id = new_id.clone();
        member.is_new = false;
        if self.leader.as_ref() == Some(old_id) {
            self.leader = Some(new_id.clone());
        }
        self.static_members.insert(instance_id.clone(), new_id.clone());
        self.members.insert(new_id.clone(), member);
    }

    /// Makes sure that the leader is one of those that joined; false when nobody did.
    pub(super) fn elect_joined_leader(&mut self) -> bool {
        let waits = |id: &MemberId| {
            self.members
                .get(id)
                .is_some_and(|member| member.awaiting_join.is_some())
        };
        if self.leader.as_ref().is_some_and(waits) {
            return true;
        }
        let joined = self.members.keys().find(|id| waits(id)).cloned();
        match joined {
            Some(id) => {
                self.leader = Some(id);
                true
            }
            None => false,
        }
    }

    pub(super) fn is_leader(&self, member_id: &str) -> bool {
        self.leader.as_ref().is_some_and(|id| id.as_str() == member_id)
    }

    /// Whether everyone waits for the next generation, and nobody is still expected.
    pub(super) fn all_joined(&self) -> bool {
        self.pending.is_empty() && self.members.values().all(|member| member.awaiting_join.is_some())
    }

    /// The longest time that a member may take to join again.
    pub(super) fn rebalance_timeout(&self) -> u64 {
        self.members
            .values()
            .map(|member| timeout(member.rebalance_timeout_ms))
            .max()
            .unwrap_or(0)
    }

    /// The answer that tells a member its generation; the leader also learns who else is in it.
    pub(super) fn joined(&self, member_id: &MemberId, tell_members: bool) -> JoinGroupResponse {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let members = self.members.values().filter(|_| tell_members).map(|member| {
            JoinGroupResponseMember::default()
                .with_member_id(member.id.to_wire())
                .with_group_instance_id(member.instance_id.as_ref().map(InstanceId::to_wire))
                .with_metadata(member.metadata(protocol))
        });
        JoinGroupResponse::default()
            .with_generation_id(self.generation.0)
            .with_protocol_type(self.protocol_type.as_deref().map(wire))
            .with_protocol_name(Some(wire(protocol)))
            .with_leader(self.leader.as_ref().map(MemberId::to_wire).unwrap_or_default())
            .with_member_id(member_id.to_wire())
            .with_members(members.collect())
    }

    /// Answers a JoinGroup with the generation as it is.
    pub(super) fn answer_joined(&self, token: ReplyToken, member_id: &MemberId, fx: &mut Effects<'_>) {
        let reply = self.joined(member_id, self.is_leader(member_id.as_str()));
        fx.answer_committed(token, GroupReply::Join(reply));
    }

    /// Gives a member its session timeout anew.
    pub(super) fn renew_session(&self, member_id: &str, fx: &mut Effects<'_>) {
        if let Some(member) = self.members.get(member_id) {
            fx.start_session(&self.id, &member.id, member.session_timeout());
        }
    }
}

/// Refuses what a member waits for.
pub(super) fn refuse_waiting(member: &mut Member, named: &str, error: ErrorCode, fx: &mut Effects<'_>) {
    if let Some(join) = member.awaiting_join.take() {
        let reply = replies::join_refused(join.api_version, wire(named), error);
        fx.answer_now(join.token, reply);
    }
    refuse_sync(member, error, fx);
}

/// Refuses the SyncGroup that a member waits for; false when there is none.
pub(super) fn refuse_sync(member: &mut Member, error: ErrorCode, fx: &mut Effects<'_>) -> bool {
    let sync = member.awaiting_sync.take();
    if let Some(sync) = sync {
        fx.answer_now(sync.token, replies::sync_refused(error));
    }
    sync.is_some()
}
