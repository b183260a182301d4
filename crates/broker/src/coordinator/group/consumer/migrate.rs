//! A group changes its protocol while it runs (`group.consumer.migration.policy`).
//!
//! ```text
//!                  the first member of the KIP-848 protocol joins
//!      classic ──────────────────────────────────────────────────────▶ consumer
//!      group   ◀────────────────────────────────────────────────────── group
//!                  its last one leaves, others are still there
//! ```
//! Classic members go on in a consumer group with what they have, and are told by their next heartbeat to
//! join again. A classic group that comes out of one begins with a rebalance. Offsets stay where they are.

use std::sync::Arc;

use protocol::ErrorCode;

use super::{ConsumerGroup, classic_members, refusal::Refusal};
use crate::coordinator::group::{
    assignor::Assignment,
    classic::{ClassicGroup, Heir, Join, NoBequest},
    config::GroupConfig,
    effects::Effects,
    embedded,
    ids::{GenerationId, GroupEpoch, GroupId, MemberId},
    records::{
        Change, ConsumerChange, ConsumerGroupMetadata, CurrentAssignment, MemberState, MemberSubscription,
    },
    shard::{Group, GroupEntry},
};

/// What a consumer group has of a member of the classic group that it was.
#[derive(Clone, Debug)]
pub(in super::super) struct Inheritance {
    pub(in super::super) member: MemberId,
    pub(in super::super) said: MemberSubscription,
    pub(in super::super) assigned: Assignment,
}

/// What changes take of a batch, in bytes. Those that change a group's protocol are the first of their event,
/// and have to fit one: a coordinator that finds half of them would have half of the members, or none.
fn batch_bytes(changes: &[Change]) -> usize {
    changes.iter().map(|change| change.encode().framed_size()).sum()
}

/// The records that make a consumer group of what a classic one leaves.
fn inherited(id: &GroupId, generation: GenerationId, heirs: Vec<Inheritance>) -> Vec<Change> {
    // A generation is never negative; one that a foreign record has would not be read again.
    let epoch = GroupEpoch(generation.0.max(0));
    let mut members = Vec::new();
    let mut targets = Vec::new();
    let mut currents = Vec::new();
    for Inheritance {
        member,
        said,
        assigned,
    } in heirs
    {
        let current = CurrentAssignment {
            epoch,
            previous_epoch: epoch,
            state: MemberState::Stable,
            assigned: assigned.clone(),
            revoking: Assignment::new(),
        };
        members.push(ConsumerChange::Member(member.clone(), Some(Arc::new(said))));
        targets.push(ConsumerChange::Target(member.clone(), Some(Arc::new(assigned))));
        currents.push(ConsumerChange::Current(member, Some(Arc::new(current))));
    }
    // The member that brings this about makes the epoch one higher, and the hash what it is.
    let group = ConsumerGroupMetadata {
        epoch,
        metadata_hash: 0,
    };
    let changes = members
        .into_iter()
        .chain([ConsumerChange::Group(Some(group))])
        .chain(targets)
        .chain([ConsumerChange::TargetEpoch(Some(epoch))])
        .chain(currents);
    changes
        .map(|change| Change::Consumer(id.clone(), change))
        .collect()
}

impl GroupEntry {
    /// The consumer group that a joining member of the KIP-848 protocol finds: a classic one becomes it, if
    /// it may.
    pub(in super::super) fn upgrade(
        &mut self,
        id: &GroupId,
        fx: &mut Effects<'_>,
    ) -> Result<&mut ConsumerGroup, Refusal> {
        if let Group::Classic(group) = &mut self.group {
            let mut changes = Vec::new();
            if group.recorded().is_some() {
                changes.push(Change::Classic(id.clone(), None));
            }
            if !group.is_empty() {
                let heirs = bequest(group, id, fx)?;
                if !heirs.is_empty() {
                    changes.extend(inherited(id, group.generation(), heirs));
                }
                if batch_bytes(&changes) > fx.config.max_records_bytes {
                    return Err(Refusal::too_large("What the classic group leaves"));
                }
            }
            group.dissolve(fx);
            self.write(changes, fx);
            if matches!(self.group, Group::Classic(_)) {
                self.group = Group::Consumer(ConsumerGroup::new(id.clone()));
            }
            if let Group::Consumer(group) = &self.group {
                group.loaded(fx);
            }
        }
        match &mut self.group {
            Group::Consumer(group) => Ok(group),
            Group::Classic(_) => unreachable!("it has just become a consumer group"),
        }
    }

    /// Removes members of a consumer group for good. If only classic ones are left, so is a classic group.
    pub(in super::super) fn remove_members(&mut self, ids: &[MemberId], fx: &mut Effects<'_>) {
        let Group::Consumer(group) = &mut self.group else {
            return;
        };
        if group.may_be_classic_without(ids, fx.config) {
            let (staying, going) = group.heirs(ids, fx);
            let generation = GenerationId(group.ledger.epoch().0);
            let mut heir = ClassicGroup::heir_of(group.id.clone(), generation, &staying, &going);
            let changes = group.deletion();
            if heir.can_be_written(batch_bytes(&changes), fx) {
                for (id, _) in group.ledger.members() {
                    group.cancel_timers(id, fx);
                }
                self.write(changes, fx);
                heir.succeed(&going, fx);
                self.group = Group::Classic(heir);
                return;
            }
        }
        group.remove(ids, fx);
    }

    /// Makes room for a member of the classic protocol, whose JoinGroup may be what ends a consumer group:
    /// an empty one, or one whose last member of the KIP-848 protocol it takes the place of.
    pub(in super::super) fn make_way(&mut self, join: &Join<'_>, fx: &mut Effects<'_>) {
        let Group::Consumer(group) = &self.group else {
            return;
        };
        if let Some(holder) = group.makes_way(join, fx.config) {
            self.remove_members(&[holder], fx);
        }
        if let Group::Consumer(group) = &self.group
            && group.is_empty()
        {
            let changes = group.deletion();
            self.write(changes, fx);
        }
    }
}

/// What a classic group with members would leave to a consumer group, if it may become one.
fn bequest(group: &ClassicGroup, id: &GroupId, fx: &Effects<'_>) -> Result<Vec<Inheritance>, Refusal> {
    let fits = group.members() <= fx.config.consumer_group_max_size;
    if !(fx.config.consumer_migration_policy.allows_upgrade() && group.is_of_consumers() && fits) {
        let why = format!("Group {id} is not a consumer group.");
        return Err(Refusal::new(ErrorCode::GroupIdNotFound, why));
    }
    group.bequest(&fx.topics.view).map_err(|reason| {
        let reason = match reason {
            NoBequest::Malformed => "the embedded consumer protocol of a member is malformed",
            NoBequest::CustomAssignor => {
                "its assignor tells members more than their partitions, which would be lost; switch to \
                 another one first"
            }
        };
        let why = format!("Cannot upgrade the classic group {id}: {reason}.");
        Refusal::new(ErrorCode::GroupIdNotFound, why)
    })
}

impl ConsumerGroup {
    /// Whether without these members only classic ones are left, and may be a classic group.
    fn may_be_classic_without(&self, ids: &[MemberId], config: &GroupConfig) -> bool {
        let classic = ids.iter().filter(|id| self.speaks_classic(id)).count();
        let left = self.ledger.len() - ids.len();
        classic < ids.len()
            && left > 0
            && self.ledger.classic_len() - classic == left
            && left <= config.group_max_size
            && config.consumer_migration_policy.allows_downgrade()
    }

    /// The member whose place a joining classic member takes, if that ends the consumer group.
    fn makes_way(&self, join: &Join<'_>, config: &GroupConfig) -> Option<MemberId> {
        let instance = join.body.group_instance_id.as_deref()?;
        let holder = self.ledger.static_member(instance)?;
        // The classic group would be as large as this one, with the newcomer in the holder's place.
        if self.ledger.len() > config.group_max_size {
            return None;
        }
        let alone = self.ledger.len() == 1 && config.consumer_migration_policy.allows_downgrade();
        let ends = self.may_be_classic_without(std::slice::from_ref(holder), config)
            || alone && !self.speaks_classic(holder);
        (join.body.member_id.is_empty() && ends && self.understands(join)).then(|| holder.clone())
    }

    /// What a classic group has of those that stay, and of those that go.
    fn heirs(&self, going: &[MemberId], fx: &Effects<'_>) -> (Vec<Heir>, Vec<Heir>) {
        self.ledger
            .members()
            .map(|(id, said)| {
                let classic = said.classic.as_ref();
                // Not what it is to have: others may still hold some of that.
                let current = self.ledger.current(id.as_str());
                let version = classic_members::version_of(said);
                Heir {
                    id: id.clone(),
                    said: said.clone(),
                    session_timeout_ms: match classic {
                        Some(classic) => classic.session_timeout_ms,
                        None => fx.config.consumer_session_timeout_of(&self.id),
                    },
                    assignment: embedded::write_assignment(version, &current.assigned, &fx.topics.view),
                }
            })
            .partition(|heir| !going.contains(&heir.id))
    }
}
