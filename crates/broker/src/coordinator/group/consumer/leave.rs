//! How members leave: for good, for a while, or because they were not heard of.

use std::sync::Arc;

use protocol::ErrorCode;

use super::{Beat, ConsumerGroup, refusal::Refusal};
use crate::coordinator::group::{
    assignor::Assignment,
    effects::Effects,
    ids::{GroupEpoch, MemberId},
    records::{ConsumerChange, CurrentAssignment, MemberState},
    timers::TimerKey,
};

/// How a member leaves that says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Leaving {
    /// It will be back within its session: its place is kept.
    Away(MemberId),
    /// It is to be removed.
    ForGood(MemberId),
}

impl ConsumerGroup {
    /// Who leaves with a heartbeat, if that is a member.
    pub(in super::super) fn leaving(&self, beat: &Beat<'_>) -> Result<Leaving, Refusal> {
        let body = beat.body;
        let id = MemberId::from(body.member_id.as_str());
        if let Some(instance) = body.instance_id.as_deref() {
            match self.ledger.static_member(instance) {
                None => {
                    let why = format!("Instance {instance} is not a member of the group.");
                    return Err(Refusal::new(ErrorCode::UnknownMemberId, why));
                }
                Some(holder) if *holder != id => return Err(Refusal::fenced_instance(instance)),
                Some(_) if body.member_epoch == GroupEpoch::AWAY.0 => return Ok(Leaving::Away(id)),
                Some(_) => {}
            }
        } else if !self.has_member(id.as_str()) {
            return Err(Refusal::unknown_member(id.as_str()));
        }
        Ok(Leaving::ForGood(id))
    }

    /// Keeps the place of a static member. What it was about to give up, it has given up by leaving: only its
    /// session runs on.
    pub(in super::super) fn go_away(&mut self, id: &MemberId, fx: &mut Effects<'_>) {
        let away = CurrentAssignment {
            epoch: GroupEpoch::AWAY,
            revoking: Assignment::new(),
            ..(*self.ledger.current(id.as_str())).clone()
        };
        self.write(ConsumerChange::Current(id.clone(), Some(Arc::new(away))), fx);
        fx.cancel(&TimerKey::Revocation(self.id.clone(), id.clone()));
    }

    /// Removes members for good. The target is computed anew with the next heartbeat of one that is left.
    pub(super) fn remove(&mut self, ids: &[MemberId], fx: &mut Effects<'_>) {
        for id in ids {
            self.cancel_timers(id, fx);
            self.forget(id, fx);
        }
        self.forget_unused_patterns(fx);
        self.follow_topics(true, fx);
    }

    /// Tombstones for all that is said of a member.
    pub(super) fn forget(&mut self, id: &MemberId, fx: &mut Effects<'_>) {
        self.write(ConsumerChange::Current(id.clone(), None), fx);
        self.write(ConsumerChange::Target(id.clone(), None), fx);
        self.write(ConsumerChange::Member(id.clone(), None), fx);
    }

    /// Whether a member has not given up in time what it was to.
    pub(in super::super) fn is_revoking(&self, id: &MemberId) -> bool {
        let current = self.ledger.current(id.as_str());
        self.has_member(id.as_str())
            && current.state == MemberState::UnrevokedPartitions
            && current.epoch != GroupEpoch::AWAY
    }
}
