//! All groups of one `__consumer_offsets` partition.

use std::{collections::BTreeMap, sync::Arc};

use protocol::ErrorCode;

use super::{
    classic::ClassicGroup,
    config::GroupConfig,
    effects::Effects,
    ids::GroupId,
    offsets::GroupOffsets,
    records::{Change, GroupMetadata, RecordError},
    request::{Answer, Barrier, Now, Outcome},
    timers::{TimerKey, Timers},
};

/// A group by its protocol. One of the KIP-848 protocol will stand beside the classic one.
#[derive(Clone, Debug)]
pub(super) enum Group {
    /// JoinGroup and SyncGroup; also a group that only has offsets.
    Classic(ClassicGroup),
}

/// A group and its offsets.
#[derive(Clone, Debug)]
pub(super) struct GroupEntry {
    pub(super) group: Group,
    pub(super) offsets: GroupOffsets,
}

impl GroupEntry {
    /// A group of which nothing is known but its name.
    pub(super) fn new(id: GroupId) -> Self {
        Self {
            group: Group::Classic(ClassicGroup::new(id)),
            offsets: GroupOffsets::default(),
        }
    }

    /// Whether nothing would be lost if it were forgotten.
    pub(super) fn is_vacant(&self) -> bool {
        let Group::Classic(group) = &self.group;
        self.offsets.is_empty() && group.is_vacant()
    }

    /// What the log says of the group itself.
    pub(super) fn recorded(&self) -> Option<&Arc<GroupMetadata>> {
        let Group::Classic(group) = &self.group;
        group.recorded()
    }

    /// What records do to a group, while loading and while serving.
    fn apply(&mut self, change: Change) {
        match change {
            Change::Offset(key, value) => self.offsets.apply(&key, value),
            Change::Classic(_, record) => {
                let Group::Classic(group) = &mut self.group;
                group.apply(record);
            }
        }
    }

    /// Applies changes and has them appended.
    pub(super) fn write(&mut self, changes: Vec<Change>, fx: &mut Effects<'_>) {
        for change in changes {
            fx.record(&change);
            self.apply(change);
        }
    }

    /// The changes that leave nothing of a group.
    pub(super) fn deletion(&self, id: &GroupId) -> Vec<Change> {
        let mut changes = self.offsets.tombstones(id, |_, _, _| true);
        if self.recorded().is_some() {
            changes.push(Change::Classic(id.clone(), None));
        }
        changes
    }
}

/// All groups of one `__consumer_offsets` partition, from the first record of its log to the last.
///
/// First [`replay`](Self::replay) for each record, then [`loaded`](Self::loaded), then
/// [`handle`](Self::handle) and [`tick`](Self::tick) until the partition's leadership ends or an
/// append fails: then [`unload`](Self::unload).
#[derive(Debug)]
pub struct GroupShard {
    pub(super) config: GroupConfig,
    pub(super) groups: BTreeMap<GroupId, GroupEntry>,
    pub(super) timers: Timers,
}

impl GroupShard {
    /// A shard that has read nothing yet.
    pub fn new(config: GroupConfig) -> Self {
        Self {
            config,
            groups: BTreeMap::new(),
            timers: Timers::default(),
        }
    }

    /// Takes over one record of the log.
    ///
    /// # Errors
    /// When the record cannot be read: then it changed nothing, and the load goes on with the next.
    pub fn replay(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), RecordError> {
        let change = Change::decode(key, value)?;
        let id = change.group().clone();
        self.groups
            .entry(id.clone())
            .or_insert_with_key(|id| GroupEntry::new(id.clone()))
            .apply(change);
        self.forget_if_vacant(&id);
        Ok(())
    }

    /// Ends the load: timers begin to run, the sessions of replayed members among them.
    pub fn loaded(&mut self, now: Now) {
        let mut outcome = Outcome::default();
        let fx = &mut Effects::new(now, &self.config, &mut self.timers, &mut outcome);
        fx.schedule(TimerKey::Expiry, fx.config.offsets_retention_check_interval_ms);
    }

    /// When [`tick`](Self::tick) has something to do, on [`Now::instant_ms`]'s clock.
    pub fn next_deadline(&self) -> Option<u64> {
        self.timers.next()
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Now) -> Outcome {
        let mut outcome = Outcome::default();
        while let Some(due) = self.timers.pop_due(now.instant_ms) {
            match due {
                TimerKey::Session(..) | TimerKey::Join(_) | TimerKey::Sync(_) => {}
                TimerKey::Expiry => {}
            }
        }
        outcome.replies.extend([]);
        outcome
    }

    /// How many requests wait at groups for other members or for time to pass.
    pub fn waiting(&self) -> usize {
        self.groups
            .values()
            .map(|entry| {
                let Group::Classic(group) = &entry.group;
                group.waiting()
            })
            .sum()
    }

    /// Forgets everything. Whoever waited is to look for the coordinator elsewhere.
    pub fn unload(self) -> Vec<Answer> {
        Vec::new()
    }

    /// A group that is nothing but a name is none.
    pub(super) fn forget_if_vacant(&mut self, id: &GroupId) {
        if self.groups.get(id).is_some_and(GroupEntry::is_vacant) {
            self.groups.remove(id);
        }
    }
}
