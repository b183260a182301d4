//! Racks: which members stand near which partitions.
//!
//! A partition is near a member if one of its replicas is in the member's rack, as in KIP-881. All replicas
//! count, in sync or not and led from there or not: groups do not assign anew when those change.
//!
//! Racks come second. An assignor first gives everyone what it would without them, and then has what they
//! were given exchanged ([`exchange`](super::exchange)): everyone has as many partitions as before, and more
//! of them near. So a group without racks is assigned as if there were none, at the same cost, and one whose
//! partitions are all near the same members gets the same.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{MemberSpec, Place};
use crate::coordinator::group::topics::TopicView;

/// The number of a rack in [`Racks`].
pub(super) type Rack = usize;

/// The racks that both members and replicas are in.
#[derive(Debug)]
pub(super) struct Racks<'p> {
    numbers: BTreeMap<&'p str, Rack>,
    /// By the members' places. The number after the last rack's is that of all who are near nothing.
    of_members: Vec<Rack>,
}

impl<'p> Racks<'p> {
    /// `None` when no member is near any partition of these topics.
    pub(super) fn of<'t>(
        members: &[MemberSpec<'p>],
        topics: impl Iterator<Item = &'t TopicView>,
    ) -> Option<Self> {
        let told: BTreeSet<&'p str> = members.iter().filter_map(|member| member.rack).collect();
        if told.is_empty() {
            return None;
        }
        let mut numbers: BTreeMap<&'p str, Rack> = BTreeMap::new();
        for rack in topics.flat_map(|topic| &topic.racks).flatten() {
            if numbers.len() == told.len() {
                break;
            }
            if let Some(&rack) = told.get(&**rack) {
                let next = numbers.len();
                numbers.entry(rack).or_insert(next);
            }
        }
        if numbers.is_empty() {
            return None;
        }
        let number = |member: &MemberSpec<'p>| numbers.get(member.rack?).copied();
        let of_members = members
            .iter()
            .map(|member| number(member).unwrap_or(numbers.len()))
            .collect();
        Some(Self { numbers, of_members })
    }

    /// How many numbers there are.
    pub(super) fn count(&self) -> usize {
        self.numbers.len() + 1
    }

    /// Where a member stands.
    pub(super) fn of_member(&self, place: Place) -> Rack {
        self.of_members[place]
    }

    /// Where replicas in these racks are near, each once.
    pub(super) fn near(&self, replicas: &BTreeSet<Arc<str>>) -> impl Iterator<Item = Rack> {
        replicas
            .iter()
            .filter_map(|rack| self.numbers.get(&**rack).copied())
    }
}
