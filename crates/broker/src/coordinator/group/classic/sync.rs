//! SyncGroup and Heartbeat: requests of members about the generation that they are in.

use std::collections::HashMap;

use bytes::Bytes;
use kafka_protocol::messages::{HeartbeatRequest, SyncGroupRequest};
use protocol::ErrorCode;

use super::{ClassicGroup, State, member::Parked};
use crate::coordinator::group::{
    effects::Effects,
    ids::MemberId,
    replies,
    request::{Caller, GroupReply, ReplyToken},
};

impl ClassicGroup {
    /// Answers a SyncGroup, or parks it until the leader's has come.
    pub(in super::super) fn sync(
        &mut self,
        caller: &Caller,
        token: ReplyToken,
        body: &SyncGroupRequest,
        fx: &mut Effects<'_>,
    ) {
        if let Err(error) = self.check_sync(body) {
            fx.answer_now(token, replies::sync_refused(error));
            return;
        }
        let member_id = body.member_id.as_str();
        self.pending_sync.remove(member_id);
        if self.pending_sync.is_empty() {
            self.expect_no_syncs(fx);
        }
        match self.state {
            State::CompletingRebalance => {
                let api_version = caller.api_version;
                self.park_sync(member_id, Parked { token, api_version }, fx);
                if self.is_leader(member_id) {
                    self.complete_sync(body, fx);
                }
            }
            State::Stable => {
                let reply = self.synced(&MemberId::from(member_id));
                fx.answer_committed(token, GroupReply::Sync(reply));
            }
            // Refused by `check_sync`.
            State::Empty | State::PreparingRebalance { .. } => {
                fx.answer_now(token, replies::sync_refused(ErrorCode::RebalanceInProgress));
            }
        }
    }

    fn check_sync(&self, body: &SyncGroupRequest) -> Result<(), ErrorCode> {
        let differs = |theirs: Option<&str>, ours: Option<&str>| {
            theirs.is_some_and(|theirs| ours.is_some_and(|ours| ours != theirs))
        };
        self.check_member(&body.member_id, body.group_instance_id.as_deref())?;
        if body.generation_id != self.generation.0 {
            return Err(ErrorCode::IllegalGeneration);
        }
        if differs(body.protocol_type.as_deref(), self.protocol_type.as_deref())
            || differs(body.protocol_name.as_deref(), self.protocol.as_deref())
        {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        match self.state {
            State::PreparingRebalance { .. } => Err(ErrorCode::RebalanceInProgress),
            State::Empty => Err(ErrorCode::UnknownMemberId),
            State::CompletingRebalance | State::Stable => Ok(()),
        }
    }

    /// The leader has assigned: the generation is written down and handed out. Members that it
    /// forgot own nothing; of one that it names twice the last counts.
    fn complete_sync(&mut self, body: &SyncGroupRequest, fx: &mut Effects<'_>) {
        let assigned: HashMap<&str, &Bytes> = body
            .assignments
            .iter()
            .map(|assigned| (assigned.member_id.as_str(), &assigned.assignment))
            .collect();
        for member in self.members.values_mut() {
            member.assignment = assigned
                .get(member.id.as_str())
                .map_or_else(Bytes::new, |bytes| Bytes::copy_from_slice(bytes));
        }
        if self.write_generation(Some(fx.now.wall_ms), fx) {
            self.hand_out_assignments(fx);
        } else {
            self.reset_assignments(ErrorCode::UnknownServerError, fx);
            self.prepare_rebalance(fx);
        }
    }

    /// Answers a Heartbeat, and gives the member its session timeout anew.
    pub(in super::super) fn heartbeat(&mut self, body: &HeartbeatRequest, fx: &mut Effects<'_>) -> ErrorCode {
        let instance_id = body.group_instance_id.as_deref();
        if let Err(error) = self.check_member(&body.member_id, instance_id) {
            return error;
        }
        if body.generation_id != self.generation.0 {
            return ErrorCode::IllegalGeneration;
        }
        self.renew_session(&body.member_id, fx);
        match self.state {
            State::Empty => ErrorCode::UnknownMemberId,
            State::PreparingRebalance { .. } => ErrorCode::RebalanceInProgress,
            State::CompletingRebalance | State::Stable => ErrorCode::None,
        }
    }
}
