//! Members of the classic protocol in a consumer group: JoinGroup, SyncGroup, Heartbeat and LeaveGroup.
//!
//! To such a member its epoch is the generation, and what the coordinator assigned comes with its sync as if
//! a leader had. When the group moves on, its heartbeats tell it to rejoin, and with its JoinGroup it says
//! what it owns: one round for each step that a heartbeat takes for others.

use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::{
    messages::{
        HeartbeatRequest, JoinGroupResponse, LeaveGroupRequest, SyncGroupRequest, SyncGroupResponse,
        leave_group_request::MemberIdentity,
    },
    protocol::StrBytes,
};
use protocol::ErrorCode;

use super::{
    ConsumerGroup, milliseconds,
    refusal::Refusal,
    seat::{Named, Seat},
};
use crate::coordinator::group::{
    classic::{self, Join},
    effects::Effects,
    embedded::{self, CONSUMER, Subscription},
    ids::{InstanceId, LONGEST_STRING, MemberId, clip},
    records::{ClassicProtocols, MemberState, MemberSubscription, SupportedProtocol},
    replies,
    request::{GroupReply, ReplyToken},
    timers::TimerKey,
};

/// Who leaves with a LeaveGroup, and what everyone in it is told.
#[derive(Debug, Default)]
pub(in super::super) struct ClassicLeave {
    pub(in super::super) leaving: Vec<MemberId>,
    pub(in super::super) told: Vec<(MemberIdentity, ErrorCode)>,
}

/// The protocol that a classic member is told to be the group's: it prefers it, and all say the same.
fn first_protocol(said: &MemberSubscription) -> Option<&SupportedProtocol> {
    said.classic.as_ref()?.protocols.first()
}

/// The version of the embedded protocol that a member understands.
pub(super) fn version_of(said: &MemberSubscription) -> i16 {
    first_protocol(said)
        .and_then(|first| Subscription::read(&first.metadata))
        .map_or(0, |subscription| subscription.version)
}

impl ConsumerGroup {
    /// Answers a JoinGroup.
    pub(in super::super) fn join_classic(&mut self, join: &Join<'_>, fx: &mut Effects<'_>) {
        match self.try_join_classic(join, fx) {
            Ok(reply) => fx.answer_committed(join.token, GroupReply::Join(reply)),
            Err((member_id, error)) => {
                let refused = replies::join_refused(join.caller.api_version, member_id, error);
                fx.answer_now(join.token, refused);
            }
        }
    }

    fn try_join_classic(
        &mut self,
        join: &Join<'_>,
        fx: &mut Effects<'_>,
    ) -> Result<JoinGroupResponse, (StrBytes, ErrorCode)> {
        let body = join.body;
        let refused = |error: ErrorCode| (body.member_id.clone(), error);
        if self.members() >= fx.config.consumer_group_max_size && !self.has_member(&body.member_id) {
            return Err((StrBytes::new(), ErrorCode::GroupMaxSizeReached));
        }
        let subscription = self.understood(join).ok_or_else(|| {
            // Kafka cannot tell the second from a fault of its own.
            refused(ErrorCode::InconsistentGroupProtocol)
        })?;
        let fresh = join.fresh_member_id();
        if join.is_to_come_again() {
            let handed_out = TimerKey::HandedOut(self.id.clone(), fresh.clone());
            fx.schedule(handed_out, milliseconds(body.session_timeout_ms));
            return Err((fresh.to_wire(), ErrorCode::MemberIdRequired));
        }
        let comes_anew = body.member_id.is_empty();
        let id = if comes_anew {
            fresh
        } else {
            MemberId::from(body.member_id.as_str())
        };
        let seat = self
            .classic_seat(&id, comes_anew, body.group_instance_id.as_deref())
            .map_err(refused)?;
        let owned = embedded::identified(&subscription.owned, &fx.topics.view);
        let handed_out = TimerKey::HandedOut(self.id.clone(), id.clone());
        // A cooperative member that was removed, and does not know: others may have by now what it reads. Who
        // was just given its id does know, whatever it says: told the same again, it would never get in.
        if seat == Seat::New && !comes_anew && !owned.is_empty() && !fx.is_set(&handed_out) {
            return Err(refused(ErrorCode::UnknownMemberId));
        }
        let said = MemberSubscription {
            instance_id: body.group_instance_id.as_deref().map(InstanceId::from),
            rack_id: subscription.rack,
            client_id: join.caller.client_id.as_str().into(),
            client_host: clip(&join.caller.client_host, LONGEST_STRING).into(),
            topics: subscription.topics,
            pattern: None,
            rebalance_timeout_ms: body.rebalance_timeout_ms,
            server_assignor: None,
            classic: Some(ClassicProtocols {
                session_timeout_ms: body.session_timeout_ms,
                protocols: classic::supported(&body.protocols),
            }),
        };
        let admitted = self
            .check_share(&id, &seat, &said, None, fx)
            .and_then(|()| self.admit(&id, seat, said, fx));
        let changed = admitted.map_err(|Refusal { error, .. }| refused(error))?;
        fx.cancel(&handed_out);
        // Whatever comes of it: who is a member is one for as long as it is heard of.
        self.start_session(&id, fx);
        let advanced = self.advance(&id, changed, Some(&owned), fx);
        advanced.map_err(|Refusal { error, .. }| refused(error))?;
        fx.cancel(&TimerKey::MemberJoin(self.id.clone(), id.clone()));
        let sync = TimerKey::MemberSync(self.id.clone(), id.clone());
        fx.schedule(sync, milliseconds(body.rebalance_timeout_ms));
        let protocol = body.protocols.first().map(|protocol| protocol.name.clone());
        Ok(JoinGroupResponse::default()
            .with_generation_id(self.ledger.current(id.as_str()).epoch.0)
            .with_protocol_type(Some(StrBytes::from_static_str(CONSUMER)))
            .with_protocol_name(protocol)
            // Nobody leads: the coordinator assigns.
            .with_leader(StrBytes::new())
            .with_member_id(id.to_wire()))
    }

    /// What a joining member wants, if it could work together with those that are there.
    fn understood(&self, join: &Join<'_>) -> Option<Subscription> {
        let body = join.body;
        if &*body.protocol_type != CONSUMER {
            return None;
        }
        let supported_by_all = |name: &str| {
            self.ledger
                .members()
                .filter_map(|(_, member)| member.classic.as_ref())
                .all(|member| member.protocols.iter().any(|known| *known.name == *name))
        };
        // They all say the same: the strategies of a consumer have one subscription.
        let first = body.protocols.first()?;
        let fits = body
            .protocols
            .iter()
            .any(|protocol| supported_by_all(&protocol.name));
        Subscription::read(&first.metadata).filter(|_| fits)
    }

    /// Whether a joining member could work together with those that are there.
    pub(super) fn understands(&self, join: &Join<'_>) -> bool {
        self.understood(join).is_some()
    }

    fn classic_seat(
        &self,
        id: &MemberId,
        comes_anew: bool,
        instance: Option<&str>,
    ) -> Result<Seat, ErrorCode> {
        let Some(instance) = instance else {
            // Whoever was given an id may come with it, and whoever was removed may come again.
            return Ok(if self.has_member(id.as_str()) {
                Seat::Own
            } else {
                Seat::New
            });
        };
        match self.ledger.static_member(instance) {
            None if comes_anew => Ok(Seat::New),
            None => Err(ErrorCode::UnknownMemberId),
            Some(holder) if comes_anew => Ok(Seat::Of(holder.clone())),
            Some(holder) if holder == id => Ok(Seat::Own),
            Some(_) => Err(ErrorCode::FencedInstanceId),
        }
    }

    /// Answers a SyncGroup.
    pub(in super::super) fn sync_classic(
        &self,
        token: ReplyToken,
        body: &SyncGroupRequest,
        fx: &mut Effects<'_>,
    ) {
        match self.try_sync_classic(body, fx) {
            Ok(assignment) => {
                let reply = SyncGroupResponse::default()
                    .with_protocol_type(body.protocol_type.clone())
                    .with_protocol_name(body.protocol_name.clone())
                    .with_assignment(assignment);
                fx.answer_committed(token, GroupReply::Sync(reply));
            }
            Err(error) => fx.answer_now(token, replies::sync_refused(error)),
        }
    }

    fn try_sync_classic(&self, body: &SyncGroupRequest, fx: &mut Effects<'_>) -> Result<Bytes, ErrorCode> {
        let named = Named {
            member: &body.member_id,
            instance: body.group_instance_id.as_deref(),
        };
        let (id, said) = self.classic_member(&named)?;
        let current = self.ledger.current(id.as_str());
        if current.epoch.0 != body.generation_id {
            return Err(ErrorCode::IllegalGeneration);
        }
        let first = first_protocol(&said);
        let differs = |theirs: &Option<StrBytes>, ours: Option<&str>| {
            theirs.as_deref().is_some_and(|theirs| Some(theirs) != ours)
        };
        if differs(&body.protocol_type, Some(CONSUMER))
            || differs(&body.protocol_name, first.map(|first| &*first.name))
        {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        // One that is to give something up has joined already, and joins again when it did.
        let is_behind = self.ledger.epoch() != current.epoch;
        if is_behind && current.state != MemberState::UnrevokedPartitions {
            self.expect_join(&id, &said, fx);
            return Err(ErrorCode::RebalanceInProgress);
        }
        fx.cancel(&TimerKey::MemberSync(self.id.clone(), id.clone()));
        self.start_session(&id, fx);
        let version = version_of(&said);
        Ok(embedded::write_assignment(
            version,
            &current.assigned,
            &fx.topics.view,
        ))
    }

    /// Answers a Heartbeat.
    pub(in super::super) fn heartbeat_classic(
        &self,
        body: &HeartbeatRequest,
        fx: &mut Effects<'_>,
    ) -> ErrorCode {
        let named = Named {
            member: &body.member_id,
            instance: body.group_instance_id.as_deref(),
        };
        let (id, said) = match self.classic_member(&named) {
            Ok(member) => member,
            Err(error) => return error,
        };
        let current = self.ledger.current(id.as_str());
        if current.epoch.0 != body.generation_id {
            return ErrorCode::IllegalGeneration;
        }
        self.start_session(&id, fx);
        let has_to_join = match current.state {
            _ if current.epoch != self.ledger.epoch() => true,
            MemberState::Stable => false,
            MemberState::UnreleasedPartitions => !self.waits_for_others(&id),
            MemberState::UnrevokedPartitions | MemberState::Unknown => true,
        };
        if has_to_join {
            self.expect_join(&id, &said, fx);
            ErrorCode::RebalanceInProgress
        } else {
            ErrorCode::None
        }
    }

    /// Whether others still hold something that a member is to have.
    fn waits_for_others(&self, id: &MemberId) -> bool {
        let current = self.ledger.current(id.as_str());
        let target = self.ledger.target(id.as_str());
        target
            .into_iter()
            .flat_map(|target| target.iter())
            .any(|(topic, partitions)| {
                let assigned = current.assigned.get(topic);
                partitions
                    .iter()
                    .filter(|partition| assigned.is_none_or(|assigned| !assigned.contains(partition)))
                    .any(|partition| self.ledger.holders(*topic, *partition) > 0)
            })
    }

    /// Gives a member its time to join, if it is not running already.
    fn expect_join(&self, id: &MemberId, said: &MemberSubscription, fx: &mut Effects<'_>) {
        let key = TimerKey::MemberJoin(self.id.clone(), id.clone());
        fx.schedule_unless_set(key, milliseconds(said.rebalance_timeout_ms));
    }

    /// The member of the classic protocol that a request comes from.
    fn classic_member(&self, named: &Named<'_>) -> Result<(MemberId, Arc<MemberSubscription>), ErrorCode> {
        let id = self.named(named).map_err(|refusal| refusal.error)?;
        let said = self.ledger.subscription(id.as_str());
        let said = said.filter(|said| said.classic.is_some()).cloned();
        said.map(|said| (id, said)).ok_or(ErrorCode::UnknownMemberId)
    }

    /// Who leaves with a LeaveGroup, each on its own. Members of the classic protocol leave with it; operators
    /// remove members of either with it.
    pub(in super::super) fn leave_classic(&self, api_version: i16, body: &LeaveGroupRequest) -> ClassicLeave {
        let mut left = ClassicLeave::default();
        for mut identity in classic::leaving(api_version, body) {
            let instance = identity.group_instance_id.as_deref();
            // An operator removes a static member by its instance id.
            let holder = instance.and_then(|id| self.ledger.static_member(id));
            let member = match holder {
                Some(holder) if identity.member_id.is_empty() => holder.to_wire(),
                _ => identity.member_id.clone(),
            };
            let named = Named {
                member: &member,
                instance,
            };
            let error = match self.named(&named) {
                Ok(id) if left.leaving.contains(&id) => ErrorCode::UnknownMemberId,
                Ok(id) => {
                    left.leaving.push(id);
                    ErrorCode::None
                }
                Err(refusal) => refusal.error,
            };
            identity.member_id = member;
            left.told.push((identity, error));
        }
        left
    }

    /// Whether a member that was to join, or to sync, is one of the classic protocol.
    pub(in super::super) fn speaks_classic(&self, id: &MemberId) -> bool {
        let said = self.ledger.subscription(id.as_str());
        said.is_some_and(|said| said.classic.is_some())
    }
}
