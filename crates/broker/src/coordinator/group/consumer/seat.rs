//! Whose place a member has that comes with a request.

use kafka_protocol::messages::ConsumerGroupHeartbeatRequest;
use protocol::ErrorCode;

use super::{ConsumerGroup, refusal::Refusal};
use crate::coordinator::group::{
    assignor::Assignment,
    ids::{GroupEpoch, MemberId},
    records::CurrentAssignment,
};

/// Where a member sits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seat {
    /// Nowhere yet.
    New,
    /// In its own place.
    Own,
    /// In the place of the static member that had its instance id.
    Of(MemberId),
}

/// Which member a request of the classic protocol is about.
pub(super) struct Named<'a> {
    pub(super) member: &'a str,
    pub(super) instance: Option<&'a str>,
}

impl ConsumerGroup {
    /// The seat of a member that heartbeats.
    pub(super) fn seat_of(
        &self,
        id: &MemberId,
        body: &ConsumerGroupHeartbeatRequest,
        owned: Option<&Assignment>,
    ) -> Result<Seat, Refusal> {
        let epoch = GroupEpoch(body.member_epoch);
        let Some(instance) = body.instance_id.as_deref() else {
            return self.own_seat(id, epoch, owned);
        };
        match self.ledger.static_member(instance) {
            Some(holder) if holder != id && epoch == GroupEpoch::JOINING && self.has_member(id.as_str()) => {
                Err(Refusal::new(
                    ErrorCode::InvalidRequest,
                    format!("Instance {instance} belongs to member {holder}, and {id} is another member."),
                ))
            }
            Some(holder) if epoch == GroupEpoch::JOINING => {
                let speaks_classic = self
                    .ledger
                    .subscription(holder.as_str())
                    .is_some_and(|holder| holder.classic.is_some());
                let is_away = self.ledger.current(holder.as_str()).epoch == GroupEpoch::AWAY;
                if speaks_classic || is_away {
                    Ok(Seat::Of(holder.clone()))
                } else if holder == id {
                    // The answer to its join was lost, or it was fenced and begins anew.
                    Ok(Seat::Own)
                } else {
                    Err(Refusal::new(
                        ErrorCode::UnreleasedInstanceId,
                        format!("Instance {instance} belongs to member {holder}, which has not left."),
                    ))
                }
            }
            Some(holder) if holder != id => Err(Refusal::fenced_instance(instance)),
            None if epoch != GroupEpoch::JOINING => Err(Refusal::new(
                ErrorCode::UnknownMemberId,
                format!("Instance {instance} is not a member of the group."),
            )),
            Some(_) | None => self.own_seat(id, epoch, owned),
        }
    }

    fn own_seat(
        &self,
        id: &MemberId,
        epoch: GroupEpoch,
        owned: Option<&Assignment>,
    ) -> Result<Seat, Refusal> {
        if self.has_member(id.as_str()) {
            // One that joins has abandoned all that it owned, whatever epoch it is known in: it may have been
            // fenced, and need not wait for its own session to end (KAFKA-19233).
            if epoch == GroupEpoch::JOINING {
                return Ok(Seat::Own);
            }
            check_epoch(&self.ledger.current(id.as_str()), epoch, owned)?;
            Ok(Seat::Own)
        } else if epoch == GroupEpoch::JOINING {
            Ok(Seat::New)
        } else {
            Err(Refusal::unknown_member(id.as_str()))
        }
    }

    /// The member that a request of the classic protocol comes from, if its place is still its own.
    pub(super) fn named(&self, named: &Named<'_>) -> Result<MemberId, Refusal> {
        let unknown = || Refusal::unknown_member(named.member);
        if let Some(instance) = named.instance {
            let holder = self.ledger.static_member(instance).ok_or_else(unknown)?;
            if holder.as_str() != named.member {
                return Err(Refusal::fenced_instance(instance));
            }
        }
        if self.has_member(named.member) {
            Ok(MemberId::from(named.member))
        } else {
            Err(unknown())
        }
    }
}

/// A member has to be in the epoch in which the coordinator knows it, or in the one before: the answer
/// that told it the new one may have been lost. Then it owns nothing that is not assigned to it.
fn check_epoch(
    current: &CurrentAssignment,
    received: GroupEpoch,
    owned: Option<&Assignment>,
) -> Result<(), Refusal> {
    let owns_its_own = || {
        owned.is_some_and(|owned| {
            owned.iter().all(|(topic, partitions)| {
                current
                    .assigned
                    .get(topic)
                    .is_some_and(|assigned| partitions.is_subset(assigned))
            })
        })
    };
    let comes_from_before = received < current.epoch && received == current.previous_epoch;
    if received == current.epoch || comes_from_before && owns_its_own() {
        return Ok(());
    }
    Err(Refusal::new(
        ErrorCode::FencedMemberEpoch,
        format!(
            "The member is in epoch {} and named epoch {received}. It must abandon all its partitions and rejoin.",
            current.epoch
        ),
    ))
}
