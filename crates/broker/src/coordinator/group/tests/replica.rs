//! A replica of the log: it takes over what is committed, event by event, and holds what it sees against what
//! it saw before.

use std::collections::BTreeMap;

use crate::coordinator::group::{
    CoordinatorRecord, GroupConfig, GroupId, GroupKind, GroupShard, GroupSnapshot, records::Change,
};

/// How the records of a group look between two events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Look {
    kind: GroupKind,
    /// Its generation, or its epoch.
    number: i32,
    members: usize,
    /// How many of them are static.
    statics: usize,
}

impl Look {
    /// Of a group that has a record; offsets alone are none.
    fn at(snapshot: &GroupSnapshot) -> Option<Self> {
        if let Some(group) = &snapshot.group {
            let statics = group.members.iter().filter(|member| member.instance_id.is_some());
            return Some(Self {
                kind: GroupKind::Classic,
                number: group.generation.0,
                members: group.members.len(),
                statics: statics.count(),
            });
        }
        let records = snapshot.consumer.as_ref()?;
        let members = records.members.values();
        let members: Vec<_> = members
            .filter_map(|member| member.subscription.as_ref())
            .collect();
        Some(Self {
            kind: GroupKind::Consumer,
            number: records.group.unwrap_or_default().epoch.0,
            members: members.len(),
            statics: members
                .iter()
                .filter(|member| member.instance_id.is_some())
                .count(),
        })
    }
}

/// What is committed, as a replica of it knows it.
#[derive(Debug)]
pub(super) struct Replica {
    shard: GroupShard,
    /// How much of the log it has.
    upto: usize,
    /// Where in the log a group was forgotten: what comes after is another life of it.
    ends: BTreeMap<GroupId, Vec<usize>>,
}

impl Replica {
    pub(super) fn new() -> Self {
        Self {
            shard: GroupShard::new(GroupConfig::default()),
            upto: 0,
            ends: BTreeMap::new(),
        }
    }

    /// Takes over the log up to each of these places between two events, in ascending order.
    pub(super) fn follow(&mut self, log: &[CoordinatorRecord], ends: impl IntoIterator<Item = usize>) {
        for end in ends {
            if end > self.upto {
                self.take_event(&log[self.upto..end]);
            }
        }
    }

    fn take_event(&mut self, event: &[CoordinatorRecord]) {
        let before = self.looks();
        for record in event {
            let change = Change::decode(&record.key, record.value.as_deref());
            if let Ok(Change::Offset(key, None)) = change {
                let group = before.get(&key.group);
                let is_empty = group.is_none_or(|group| group.members == 0);
                assert!(
                    is_empty,
                    "an offset of {group:?} that its members use is forgotten"
                );
            }
            let replayed = self.shard.replay(&record.key, record.value.as_deref());
            replayed.expect("what was written can be read");
        }
        self.upto += event.len();
        let after = self.looks();
        for (group, before) in before {
            if has_ended(before, after.get(&group).copied()) {
                self.ends.entry(group).or_default().push(self.upto);
            }
        }
    }

    fn looks(&self) -> BTreeMap<GroupId, Look> {
        let snapshot = self.shard.snapshot();
        let groups = snapshot.0.iter();
        groups
            .filter_map(|(id, group)| Some((id.clone(), Look::at(group)?)))
            .collect()
    }

    /// Which life of a group it is at a place in the log: in each, generations begin anew.
    pub(super) fn life(&self, group: &str, at: usize) -> usize {
        let ends = self.ends.get(group).map_or(&[][..], Vec::as_slice);
        ends.iter().filter(|end| **end <= at).count()
    }
}

/// Whether a group was forgotten by an event; only one without members is. As long as it is not, its generation
/// or epoch only grows, whichever protocol it speaks.
fn has_ended(before: Look, after: Option<Look>) -> bool {
    // A classic static member in the place of the last one of the KIP-848 protocol founds the group anew.
    let is_replaced = before.kind == GroupKind::Consumer && (before.members, before.statics) == (1, 1);
    match after {
        None => {
            assert!(before.members == 0 || is_replaced, "{before:?} is deleted");
            true
        }
        // An empty group is of whatever protocol the next member speaks.
        Some(after) if before.members == 0 && after.kind != before.kind => true,
        Some(after) => {
            assert!(before.number <= after.number, "{after:?} after {before:?}");
            false
        }
    }
}
