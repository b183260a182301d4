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
    request::{Answer, Now, Outcome},
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
    pub(super) fn apply(&mut self, change: Change) {
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
        // Nothing is written or answered: no replayed member waits, so no rebalance completes.
        let mut nothing = Outcome::default();
        let mut fx = Effects::new(now, &self.config, &mut self.timers, &mut nothing);
        for entry in self.groups.values_mut() {
            let Group::Classic(group) = &mut entry.group;
            group.loaded(&mut fx);
        }
        fx.schedule(
            TimerKey::Expiry,
            self.config.offsets_retention_check_interval_ms.max(1),
        );
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
                TimerKey::Session(id, member) => {
                    self.on_classic(now, &id, &mut outcome, |group, fx| {
                        group.session_expired(&member, fx);
                    });
                }
                TimerKey::Join(id) => {
                    self.on_classic(now, &id, &mut outcome, ClassicGroup::join_time_is_up);
                }
                TimerKey::Sync(id) => {
                    self.on_classic(now, &id, &mut outcome, ClassicGroup::sync_time_is_up);
                }
                TimerKey::Expiry => self.expire(now, &mut outcome),
            }
        }
        outcome
    }

    /// Has a timer's event handled by its group, if that is still there.
    fn on_classic(
        &mut self,
        now: Now,
        id: &GroupId,
        outcome: &mut Outcome,
        event: impl FnOnce(&mut ClassicGroup, &mut Effects<'_>),
    ) {
        let Some(entry) = self.groups.get_mut(id) else {
            return;
        };
        let Group::Classic(group) = &mut entry.group;
        let mut fx = Effects::new(now, &self.config, &mut self.timers, outcome);
        event(group, &mut fx);
        self.forget_if_vacant(id);
    }

    /// Forgets offsets that outlived their use, and groups of which nothing else is left (KIP-211).
    fn expire(&mut self, now: Now, outcome: &mut Outcome) {
        let retention_ms = self.config.offsets_retention_ms;
        let mut fx = Effects::new(now, &self.config, &mut self.timers, outcome);
        for (id, entry) in &mut self.groups {
            let Group::Classic(group) = &entry.group;
            let expired = entry.offsets.tombstones(id, |topic, _, offset| {
                group.has_expired(topic, offset, now.wall_ms, retention_ms)
            });
            let abandoned = group.is_abandoned();
            entry.write(expired, &mut fx);
            if abandoned && entry.offsets.is_empty() {
                let rest = entry.deletion(id);
                entry.write(rest, &mut fx);
            }
        }
        fx.schedule(
            TimerKey::Expiry,
            self.config.offsets_retention_check_interval_ms.max(1),
        );
        self.groups.retain(|_, entry| !entry.is_vacant());
    }

    /// Forgets the offsets of topics that are no more.
    pub fn topics_deleted(&mut self, now: Now, topics: &[impl AsRef<str>]) -> Outcome {
        let mut outcome = Outcome::default();
        let mut fx = Effects::new(now, &self.config, &mut self.timers, &mut outcome);
        for (id, entry) in &mut self.groups {
            let deleted = entry
                .offsets
                .tombstones(id, |name, _, _| topics.iter().any(|topic| topic.as_ref() == name));
            entry.write(deleted, &mut fx);
        }
        self.groups.retain(|_, entry| !entry.is_vacant());
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

    /// Forgets everything. Whoever waits is told to look for the coordinator elsewhere.
    pub fn unload(mut self) -> Vec<Answer> {
        let mut outcome = Outcome::default();
        let now = Now {
            instant_ms: 0,
            wall_ms: 0,
        };
        let mut fx = Effects::new(now, &self.config, &mut self.timers, &mut outcome);
        for entry in self.groups.values_mut() {
            let Group::Classic(group) = &mut entry.group;
            group.refuse_all_waiting(ErrorCode::NotCoordinator, &mut fx);
        }
        outcome.replies
    }

    /// A group that is nothing but a name is none.
    pub(super) fn forget_if_vacant(&mut self, id: &GroupId) {
        if self.groups.get(id).is_some_and(GroupEntry::is_vacant) {
            self.groups.remove(id);
        }
    }
}
