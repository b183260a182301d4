//! LeaveGroup, and the end of the coordinator itself.

use kafka_protocol::messages::{
    LeaveGroupRequest, LeaveGroupResponse, leave_group_request::MemberIdentity,
    leave_group_response::MemberResponse,
};
use protocol::ErrorCode;

use super::{ClassicGroup, State, roster::refuse_waiting};
use crate::coordinator::group::{
    effects::Effects,
    ids::MemberId,
    request::{GroupReply, ReplyToken},
};

/// From which version on several members can leave in one request (KIP-345).
const BATCHED: i16 = 3;

/// Who is to leave, in the form of all versions.
pub(in super::super) fn leaving(api_version: i16, body: &LeaveGroupRequest) -> Vec<MemberIdentity> {
    if api_version >= BATCHED {
        body.members.clone()
    } else {
        vec![MemberIdentity::default().with_member_id(body.member_id.clone())]
    }
}

/// The answer about each that was to leave, in the form of the version.
pub(in super::super) fn left(api_version: i16, members: Vec<(MemberIdentity, ErrorCode)>) -> GroupReply {
    let reply = LeaveGroupResponse::default();
    GroupReply::Leave(if api_version >= BATCHED {
        let members = members.into_iter().map(|(member, error)| {
            MemberResponse::default()
                .with_member_id(member.member_id)
                .with_group_instance_id(member.group_instance_id)
                .with_error_code(error.code())
        });
        reply.with_members(members.collect())
    } else {
        let error = members.first().map_or(ErrorCode::None, |(_, error)| *error);
        reply.with_error_code(error.code())
    })
}

impl ClassicGroup {
    /// Lets members go, each on its own; who stays shares anew.
    pub(in super::super) fn leave(
        &mut self,
        api_version: i16,
        token: ReplyToken,
        body: &LeaveGroupRequest,
        fx: &mut Effects<'_>,
    ) {
        let mut anyone = false;
        let members = leaving(api_version, body).into_iter().map(|member| {
            let error = self.leave_one(&member, fx).err().unwrap_or(ErrorCode::None);
            anyone |= error == ErrorCode::None;
            (member, error)
        });
        let reply = left(api_version, members.collect());
        if anyone {
            match self.state {
                State::Stable | State::CompletingRebalance => self.prepare_rebalance(fx),
                State::PreparingRebalance { .. } => self.complete_join_if_ready(fx),
                State::Empty => {}
            }
        }
        fx.answer_committed(token, reply);
    }

    fn leave_one(&mut self, leaving: &MemberIdentity, fx: &mut Effects<'_>) -> Result<(), ErrorCode> {
        let instance_id = leaving.group_instance_id.as_deref();
        let member_id = if leaving.member_id.is_empty() {
            // An operator removes a static member by its instance id.
            instance_id
                .and_then(|id| self.static_members.get(id))
                .cloned()
                .ok_or(ErrorCode::UnknownMemberId)?
        } else if self.pending.contains(leaving.member_id.as_str()) {
            MemberId::from(leaving.member_id.as_str())
        } else {
            self.check_member(&leaving.member_id, instance_id)?;
            MemberId::from(leaving.member_id.as_str())
        };
        self.remove(&member_id, fx);
        Ok(())
    }

    /// Refuses everyone that waits.
    pub(in super::super) fn refuse_all_waiting(&mut self, error: ErrorCode, fx: &mut Effects<'_>) {
        for member in self.members.values_mut() {
            let named = member.id.clone();
            refuse_waiting(member, named.as_str(), error, fx);
        }
    }
}
