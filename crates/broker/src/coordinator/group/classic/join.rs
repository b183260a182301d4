//! JoinGroup: who is let in, who is told to come again, and when that means a rebalance.

use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::messages::{JoinGroupRequest, join_group_request::JoinGroupRequestProtocol};
use protocol::ErrorCode;
use uuid::Uuid;

use super::{
    ClassicGroup, State,
    member::{Member, Parked, supported},
};
use crate::coordinator::group::{
    effects::Effects,
    ids::{InstanceId, LONGEST_STRING, MemberId, clip},
    replies,
    request::{Caller, GroupReply, ReplyToken},
    timers::TimerKey,
};

/// From which version on a new dynamic member is first given an id and joins with it (KIP-394).
const MEMBER_ID_REQUIRED: i16 = 4;
/// From which version on a leader can be told not to assign anew (KIP-814).
const SKIP_ASSIGNMENT: i16 = 9;

/// One JoinGroup as it is worked on.
#[derive(Debug)]
pub(in super::super) struct Join<'a> {
    pub(in super::super) caller: &'a Caller,
    pub(in super::super) token: ReplyToken,
    pub(in super::super) body: &'a JoinGroupRequest,
    pub(in super::super) fresh_member_id: Uuid,
}

impl Join<'_> {
    fn refuse(&self, member_id: &str, error: ErrorCode, fx: &mut Effects<'_>) {
        let version = self.caller.api_version;
        let reply = replies::join_refused(version, super::wire(member_id), error);
        fx.answer_now(self.token, reply);
    }

    /// The id for a member that has none.
    pub(in super::super) fn fresh_member_id(&self) -> MemberId {
        let instance_id = self.body.group_instance_id.as_deref();
        MemberId::fresh(&self.caller.client_id, instance_id, self.fresh_member_id)
    }

    /// Whether the member is first given an id and joins with that (KIP-394).
    pub(in super::super) fn is_to_come_again(&self) -> bool {
        let is_dynamic = self.body.group_instance_id.is_none();
        self.body.member_id.is_empty() && is_dynamic && self.caller.api_version >= MEMBER_ID_REQUIRED
    }

    fn parked(&self) -> Parked {
        Parked {
            token: self.token,
            api_version: self.caller.api_version,
        }
    }
}

/// Whether a member says exactly what it said before, in the same order.
fn says_the_same(member: &Member, protocols: &[JoinGroupRequestProtocol]) -> bool {
    member.protocols == supported(protocols)
}

impl ClassicGroup {
    /// Answers a JoinGroup, or parks it until the group has its next generation.
    pub(in super::super) fn join(&mut self, join: &Join<'_>, fx: &mut Effects<'_>) {
        let member_id = join.body.member_id.as_str();
        if !self.has_room_for(member_id, fx.config.group_max_size) {
            self.turn_away(member_id, fx);
            join.refuse("", ErrorCode::GroupMaxSizeReached, fx);
        } else if !self.supports(join.body) {
            join.refuse(member_id, ErrorCode::InconsistentGroupProtocol, fx);
        } else if member_id.is_empty() {
            self.join_anew(join, fx);
        } else {
            self.join_again(join, fx);
        }
    }

    /// Forgets someone who found no place, so that nobody waits for them.
    fn turn_away(&mut self, member_id: &str, fx: &mut Effects<'_>) {
        let known = self.members.contains_key(member_id) || self.pending.contains(member_id);
        if known {
            self.remove(&MemberId::from(member_id), fx);
            self.after_pending_removal(fx);
        }
    }

    /// A member without an id.
    fn join_anew(&mut self, join: &Join<'_>, fx: &mut Effects<'_>) {
        let instance_id = join.body.group_instance_id.as_deref();
        let fresh = join.fresh_member_id();
        let place = instance_id.and_then(|id| self.static_members.get_key_value(id));
        if let Some((instance_id, old_id)) = place {
            let (instance_id, old_id) = (instance_id.clone(), old_id.clone());
            self.rejoin_static(join, &instance_id, &old_id, &fresh, fx);
        } else if join.is_to_come_again() {
            let timeout = super::member::timeout(join.body.session_timeout_ms);
            fx.start_session(&self.id, &fresh, timeout);
            join.refuse(fresh.as_str(), ErrorCode::MemberIdRequired, fx);
            self.pending.insert(fresh);
        } else {
            self.add_joining(join, fresh, fx);
        }
    }

    /// A member with the id that it was given.
    fn join_again(&mut self, join: &Join<'_>, fx: &mut Effects<'_>) {
        let member_id = MemberId::from(join.body.member_id.as_str());
        let instance_id = join.body.group_instance_id.as_deref();
        // Ids are given out beforehand to dynamic members only: a static one is another.
        if instance_id.is_none() && self.pending.contains(&member_id) {
            self.add_joining(join, member_id, fx);
            return;
        }
        if let Err(error) = self.check_member(member_id.as_str(), instance_id) {
            join.refuse(member_id.as_str(), error, fx);
            return;
        }
        let same = self
            .members
            .get(&member_id)
            .is_some_and(|member| says_the_same(member, &join.body.protocols));
        match self.state {
            // The answer to the first try may have been lost: say it again.
            State::CompletingRebalance if same => self.answer_joined(join.token, &member_id, fx),
            // A leader that joins again wants to assign anew, though it says the same: topics may
            // have grown. Others just get the generation as it is.
            State::Stable if same && !self.is_leader(member_id.as_str()) => {
                self.answer_joined(join.token, &member_id, fx);
            }
            State::PreparingRebalance { .. } | State::CompletingRebalance | State::Stable => {
                self.update(&member_id, join.body, join.parked(), fx);
                self.rebalance(fx);
            }
            State::Empty => join.refuse(member_id.as_str(), ErrorCode::UnknownMemberId, fx),
        }
    }

    fn add_joining(&mut self, join: &Join<'_>, member_id: MemberId, fx: &mut Effects<'_>) {
        if self.state == State::Empty {
            self.protocol_type = Some(Arc::from(join.body.protocol_type.as_str()));
        }
        if let State::PreparingRebalance {
            initial: Some(initial),
        } = &mut self.state
        {
            initial.joined_since = true;
        }
        // It cannot heartbeat while it waits, and a client that has gone cannot be told from one
        // that is patient: it must come again before long, or is given up.
        fx.start_session(&self.id, &member_id, fx.config.new_member_join_timeout_ms);
        self.add(Member {
            id: member_id,
            instance_id: join.body.group_instance_id.as_deref().map(InstanceId::from),
            client_id: Arc::from(join.caller.client_id.as_str()),
            client_host: Arc::from(clip(&join.caller.client_host, LONGEST_STRING)),
            rebalance_timeout_ms: join.body.rebalance_timeout_ms,
            session_timeout_ms: join.body.session_timeout_ms,
            protocols: supported(&join.body.protocols),
            assignment: Bytes::new(),
            is_new: true,
            awaiting_join: Some(join.parked()),
            awaiting_sync: None,
        });
        self.rebalance(fx);
    }

    /// A static member came back without its id: its process was restarted (KIP-345).
    fn rejoin_static(
        &mut self,
        join: &Join<'_>,
        instance_id: &InstanceId,
        old_id: &MemberId,
        new_id: &MemberId,
        fx: &mut Effects<'_>,
    ) {
        let leader_before = self.leader.clone();
        self.replace_static(instance_id, old_id, new_id, fx);
        self.update(new_id, join.body, join.parked(), fx);
        self.renew_session(new_id.as_str(), fx);
        match self.state {
            // What it owned is kept for it, unless what it says now changes what all agree on.
            State::Stable if self.vote() == self.protocol => {
                if self.write_generation(self.state_since_ms, fx) {
                    self.answer_static(join, new_id, leader_before, fx);
                } else {
                    self.refuse_join_of(new_id, ErrorCode::UnknownServerError, fx);
                    self.rebalance(fx);
                }
            }
            State::Stable => self.rebalance(fx),
            // The leader was told the old id and assigns to it.
            State::CompletingRebalance => self.prepare_rebalance(fx),
            State::PreparingRebalance { .. } | State::Empty => self.complete_join_if_ready(fx),
        }
    }

    /// Lets a static member go on with what it had.
    fn answer_static(
        &mut self,
        join: &Join<'_>,
        member_id: &MemberId,
        leader_before: Option<MemberId>,
        fx: &mut Effects<'_>,
    ) {
        let Some(member) = self.members.get_mut(member_id) else {
            return;
        };
        member.awaiting_join = None;
        let leads = self.is_leader(member_id.as_str());
        let reply = if join.caller.api_version >= SKIP_ASSIGNMENT {
            self.joined(member_id, leads).with_skip_assignment(leads)
        } else {
            // An older client that finds itself the leader would assign anew, without a rebalance:
            // it is shown the leader under the id that it no longer has.
            let leader = leader_before.as_ref().map(MemberId::to_wire);
            self.joined(member_id, false)
                .with_leader(leader.unwrap_or_default())
        };
        fx.answer_committed(join.token, GroupReply::Join(reply));
    }

    fn refuse_join_of(&mut self, member_id: &MemberId, error: ErrorCode, fx: &mut Effects<'_>) {
        if let Some(member) = self.members.get_mut(member_id) {
            super::roster::refuse_waiting(member, member_id.as_str(), error, fx);
        }
    }

    /// A session ended: a member, or someone who was given an id, was not heard of for too long.
    pub(in super::super) fn session_expired(&mut self, member_id: &MemberId, fx: &mut Effects<'_>) {
        let silent = self
            .members
            .get(member_id)
            .is_some_and(|member| !member.may_be_silent());
        if silent {
            self.remove(member_id, fx);
            self.after_removal(fx);
        } else if self.pending.contains(member_id) {
            self.remove(member_id, fx);
            self.after_pending_removal(fx);
        }
    }

    /// The time to join is up.
    pub(in super::super) fn join_time_is_up(&mut self, fx: &mut Effects<'_>) {
        let State::PreparingRebalance { initial } = &mut self.state else {
            return;
        };
        match initial {
            Some(initial) if initial.joined_since && initial.remaining_ms > 0 => {
                let delay = fx.config.group_initial_rebalance_delay_ms;
                let next = super::member::timeout(delay).min(initial.remaining_ms);
                initial.joined_since = false;
                initial.remaining_ms = initial.remaining_ms.saturating_sub(initial.delay_ms);
                initial.delay_ms = next;
                fx.schedule(TimerKey::Join(self.id.clone()), next);
            }
            _ => self.complete_join(fx),
        }
    }
}
