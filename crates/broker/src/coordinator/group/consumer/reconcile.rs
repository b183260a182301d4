//! How a member gets from what it has to what it is to have, one heartbeat at a time.
//!
//! ```text
//!                    the target takes something away
//!      STABLE ─────────────────────────────────────▶ UNREVOKED_PARTITIONS
//!       ▲ ▲ │                                          │        │
//!       │ │ │ others still hold what it is to have     │        │ it says that it gave up
//!       │ │ └──────────────▶ UNRELEASED_PARTITIONS ◀───┘        │ what it was to
//!       │ │                        │                            │
//!       │ └────────────────────────┘ they have given it up      │
//!       └───────────────────────────────────────────────────────┘
//! ```
//! A member that is to give something up stays in its epoch until it did; one that only waits for others is
//! in the target's already. This is what keeps a partition from having two owners.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{PartitionIndex, TopicId};

use crate::coordinator::group::{
    assignor::Assignment,
    ids::GroupEpoch,
    records::{CurrentAssignment, MemberState},
};

/// A member in an unknown state has to join anew, with empty hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MustRejoin;

/// What the next step of a member depends on.
#[derive(Debug)]
pub(super) struct Step<'a, F> {
    /// What it has.
    pub(super) current: &'a CurrentAssignment,
    /// The epoch of the target.
    pub(super) target_epoch: GroupEpoch,
    /// What it is to have.
    pub(super) target: &'a Assignment,
    /// What it says that it owns; `None` if it did not say.
    pub(super) owned: Option<&'a Assignment>,
    /// Whether a member other than this one holds a partition.
    pub(super) held_by_others: F,
}

impl<F: Fn(TopicId, PartitionIndex) -> bool> Step<'_, F> {
    /// What the member has after this step; `None` when there is none to take.
    pub(super) fn take(&self) -> Result<Option<CurrentAssignment>, MustRejoin> {
        let current = self.current;
        let next = match current.state {
            MemberState::Stable if current.epoch == self.target_epoch => return Ok(None),
            MemberState::Stable | MemberState::UnreleasedPartitions => self.towards_target(current.epoch),
            MemberState::UnrevokedPartitions if self.still_owns(&current.revoking) => return Ok(None),
            // It has left the epoch that it was in, on its way to the target's.
            MemberState::UnrevokedPartitions => {
                self.towards_target(current.epoch.next().min(self.target_epoch))
            }
            MemberState::Unknown if self.owned.is_none_or(|owned| !owned.is_empty()) => {
                return Err(MustRejoin);
            }
            MemberState::Unknown => self.towards_target(self.target_epoch),
        };
        Ok((next != *current).then_some(next))
    }

    /// Whether the member owns any of these, as far as it said.
    fn still_owns(&self, partitions: &Assignment) -> bool {
        let Some(owned) = self.owned else {
            return true;
        };
        owned.iter().any(|(topic, owned)| {
            partitions
                .get(topic)
                .is_some_and(|partitions| !partitions.is_disjoint(owned))
        })
    }

    /// Takes the member towards the target: first it gives up, then it gets.
    fn towards_target(&self, epoch: GroupEpoch) -> CurrentAssignment {
        const NONE: &BTreeSet<PartitionIndex> = &BTreeSet::new();
        let had = &self.current.assigned;
        let mut kept = Assignment::new();
        let mut to_revoke = Assignment::new();
        let mut to_assign = Assignment::new();
        let mut others_hold_some = false;
        let topics: BTreeSet<&TopicId> = self.target.keys().chain(had.keys()).collect();
        for topic in topics {
            let target = self.target.get(topic).unwrap_or(NONE);
            let had = had.get(topic).unwrap_or(NONE);
            put(&mut kept, *topic, had & target);
            put(&mut to_revoke, *topic, had - target);
            let mut free = target - had;
            free.retain(|partition| {
                let held = (self.held_by_others)(*topic, *partition);
                others_hold_some |= held;
                !held
            });
            put(&mut to_assign, *topic, free);
        }
        if self.still_owns(&to_revoke) && !to_revoke.is_empty() {
            return CurrentAssignment {
                epoch,
                previous_epoch: self.current.epoch,
                state: MemberState::UnrevokedPartitions,
                assigned: kept,
                revoking: to_revoke,
            };
        }
        for (topic, mut partitions) in to_assign {
            kept.entry(topic).or_default().append(&mut partitions);
        }
        CurrentAssignment {
            epoch: self.target_epoch,
            previous_epoch: self.current.epoch,
            state: if others_hold_some {
                MemberState::UnreleasedPartitions
            } else {
                MemberState::Stable
            },
            assigned: kept,
            revoking: Assignment::new(),
        }
    }
}

/// Topics without partitions are not in an assignment.
fn put(
    assignment: &mut BTreeMap<TopicId, BTreeSet<PartitionIndex>>,
    topic: TopicId,
    partitions: BTreeSet<PartitionIndex>,
) {
    if !partitions.is_empty() {
        assignment.insert(topic, partitions);
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn partitions(indexes: &[i32]) -> Assignment {
        let mut assignment = Assignment::new();
        let indexes = indexes.iter().copied().map(PartitionIndex).collect();
        put(&mut assignment, TopicId(Uuid::from_u128(1)), indexes);
        assignment
    }

    fn at(epoch: i32, state: MemberState, assigned: &[i32], revoking: &[i32]) -> CurrentAssignment {
        CurrentAssignment {
            epoch: GroupEpoch(epoch),
            previous_epoch: GroupEpoch(epoch - 1),
            state,
            assigned: partitions(assigned),
            revoking: partitions(revoking),
        }
    }

    /// The step towards a target of epoch 10.
    fn step(
        current: &CurrentAssignment,
        target: &[i32],
        owned: Option<&[i32]>,
        others: &[i32],
    ) -> Result<Option<CurrentAssignment>, MustRejoin> {
        let owned = owned.map(partitions);
        Step {
            current,
            target_epoch: GroupEpoch(10),
            target: &partitions(target),
            owned: owned.as_ref(),
            held_by_others: |_: TopicId, partition: PartitionIndex| others.contains(&partition.0),
        }
        .take()
    }

    fn after(
        previous: i32,
        epoch: i32,
        state: MemberState,
        assigned: &[i32],
        revoking: &[i32],
    ) -> CurrentAssignment {
        CurrentAssignment {
            previous_epoch: GroupEpoch(previous),
            ..at(epoch, state, assigned, revoking)
        }
    }

    use MemberState::{Stable, Unknown, UnreleasedPartitions, UnrevokedPartitions};

    #[test]
    fn a_member_at_its_target_stays_as_it_is() {
        assert_eq!(step(&at(10, Stable, &[1], &[]), &[1], None, &[]), Ok(None));
    }

    #[test]
    fn a_new_member_gets_what_is_free() {
        let new = CurrentAssignment::default();
        assert_eq!(
            step(&new, &[1, 2], Some(&[]), &[]),
            Ok(Some(after(0, 10, Stable, &[1, 2], &[])))
        );
        assert_eq!(
            step(&new, &[1, 2], Some(&[]), &[2]),
            Ok(Some(after(0, 10, UnreleasedPartitions, &[1], &[])))
        );
        assert_eq!(
            step(&new, &[2], Some(&[]), &[2]),
            Ok(Some(after(0, 10, UnreleasedPartitions, &[], &[])))
        );
        assert_eq!(
            step(&new, &[], Some(&[]), &[2]),
            Ok(Some(after(0, 10, Stable, &[], &[])))
        );
    }

    #[test]
    fn what_is_taken_away_is_given_up_first() {
        let stable = at(8, Stable, &[1, 2], &[]);
        // It stays in its epoch, and gets nothing yet.
        let revoking = after(8, 8, UnrevokedPartitions, &[1], &[2]);
        assert_eq!(step(&stable, &[1, 3], None, &[]), Ok(Some(revoking.clone())));
        assert_eq!(
            step(&stable, &[1, 3], Some(&[1, 2]), &[]),
            Ok(Some(revoking.clone()))
        );
        // It did not say, or still owns it.
        assert_eq!(step(&revoking, &[1, 3], None, &[]), Ok(None));
        assert_eq!(step(&revoking, &[1, 3], Some(&[1, 2]), &[]), Ok(None));
        assert_eq!(
            step(&revoking, &[1, 3], Some(&[1]), &[]),
            Ok(Some(after(8, 10, Stable, &[1, 3], &[])))
        );
        assert_eq!(
            step(&revoking, &[1, 3], Some(&[]), &[3]),
            Ok(Some(after(8, 10, UnreleasedPartitions, &[1], &[])))
        );
        // What it does not own at all is not waited for.
        assert_eq!(
            step(&stable, &[1, 3], Some(&[1]), &[]),
            Ok(Some(after(8, 10, Stable, &[1, 3], &[])))
        );
    }

    #[test]
    fn a_target_that_changed_meanwhile_is_the_one_that_counts() {
        let revoking = at(7, UnrevokedPartitions, &[1], &[2]);
        // More is to be given up: it has left epoch 7 and is not in 10 yet.
        assert_eq!(
            step(&revoking, &[], Some(&[1]), &[]),
            Ok(Some(after(7, 8, UnrevokedPartitions, &[], &[1])))
        );
        // It gets back what it has just given up: nobody else holds it.
        assert_eq!(
            step(&revoking, &[1, 2], Some(&[1]), &[]),
            Ok(Some(after(7, 10, Stable, &[1, 2], &[])))
        );
    }

    #[test]
    fn a_member_that_waits_for_others_gets_what_they_release() {
        let waiting = at(10, UnreleasedPartitions, &[1], &[]);
        assert_eq!(
            step(&waiting, &[1, 2, 3], None, &[2]),
            Ok(Some(after(10, 10, UnreleasedPartitions, &[1, 3], &[])))
        );
        assert_eq!(
            step(&waiting, &[1, 2], None, &[]),
            Ok(Some(after(10, 10, Stable, &[1, 2], &[])))
        );
        assert_eq!(
            step(&waiting, &[], None, &[]),
            Ok(Some(after(10, 10, UnrevokedPartitions, &[], &[1])))
        );
        let unchanged = after(10, 10, UnreleasedPartitions, &[1], &[]);
        assert_eq!(step(&unchanged, &[1, 2], None, &[2]), Ok(None));
    }

    #[test]
    fn a_member_in_an_unknown_state_begins_with_empty_hands() {
        let unknown = at(8, Unknown, &[1], &[]);
        assert_eq!(step(&unknown, &[1], None, &[]), Err(MustRejoin));
        assert_eq!(step(&unknown, &[1], Some(&[1]), &[]), Err(MustRejoin));
        assert_eq!(
            step(&unknown, &[1], Some(&[]), &[]),
            Ok(Some(after(8, 10, Stable, &[1], &[])))
        );
    }
}
