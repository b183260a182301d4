//! All groups of one `__consumer_offsets` partition.

use std::{collections::BTreeMap, sync::Arc};

use protocol::ErrorCode;

use super::{
    classic::ClassicGroup,
    config::GroupConfig,
    consumer::ConsumerGroup,
    effects::{Effects, Topics},
    ids::{GroupId, MemberId},
    offsets::GroupOffsets,
    records::{Change, RecordError},
    request::{Answer, Now, Outcome},
    timers::{TimerKey, Timers},
    topics::TopicsView,
    views::GroupKind,
};

/// A group by its protocol.
#[derive(Clone, Debug)]
pub(super) enum Group {
    /// JoinGroup and SyncGroup; also a group that only has offsets.
    Classic(ClassicGroup),
    /// ConsumerGroupHeartbeat (KIP-848); members of the classic protocol may be among its own.
    Consumer(ConsumerGroup),
}

impl Group {
    pub(super) fn kind(&self) -> GroupKind {
        match self {
            Self::Classic(_) => GroupKind::Classic,
            Self::Consumer(_) => GroupKind::Consumer,
        }
    }

    /// Its state by Kafka's name.
    pub(super) fn state_name(&self) -> &'static str {
        match self {
            Self::Classic(group) => group.state().name(),
            Self::Consumer(group) => group.state().name(),
        }
    }

    /// How many members it has.
    pub(super) fn members(&self) -> usize {
        match self {
            Self::Classic(group) => group.members(),
            Self::Consumer(group) => group.members(),
        }
    }
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
        self.offsets.is_empty()
            && match &self.group {
                Group::Classic(group) => group.is_vacant(),
                Group::Consumer(group) => group.is_vacant(),
            }
    }

    /// What records do to a group, while loading and while serving. What is said of a group of the one
    /// protocol makes it one; that nothing is said any more of one of the other changes nothing.
    pub(super) fn apply(&mut self, change: Change) {
        match (change, &mut self.group) {
            (Change::Offset(key, value), _) => self.offsets.apply(&key, value),
            (Change::Classic(_, record), Group::Classic(group)) => group.apply(record),
            (Change::Classic(_, None), Group::Consumer(_)) => {}
            (Change::Classic(id, record @ Some(_)), Group::Consumer(_)) => {
                let mut group = ClassicGroup::new(id);
                group.apply(record);
                self.group = Group::Classic(group);
            }
            (Change::Consumer(id, change), Group::Consumer(group)) => {
                group.apply(change);
                if group.is_vacant() {
                    self.group = Group::Classic(ClassicGroup::new(id));
                }
            }
            (Change::Consumer(id, change), Group::Classic(_)) => {
                if !change.is_tombstone() {
                    let mut group = ConsumerGroup::new(id);
                    group.apply(change);
                    self.group = Group::Consumer(group);
                }
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
        match &self.group {
            Group::Classic(group) if group.recorded().is_some() => {
                changes.push(Change::Classic(id.clone(), None));
            }
            Group::Classic(_) => {}
            Group::Consumer(group) => changes.extend(group.deletion()),
        }
        changes
    }

    /// Whether it may be deleted.
    pub(super) fn is_empty(&self) -> bool {
        match &self.group {
            Group::Classic(group) => group.is_empty(),
            Group::Consumer(group) => group.is_empty(),
        }
    }

    /// Whether it may be deleted because nobody asked for it: nobody is about to join either.
    fn is_abandoned(&self) -> bool {
        match &self.group {
            Group::Classic(group) => group.is_abandoned(),
            Group::Consumer(group) => group.is_empty(),
        }
    }
}

/// All groups of one `__consumer_offsets` partition, from the first record of its log to the last.
///
/// First [`replay`](Self::replay) for each record and [`topics_changed`](Self::topics_changed) once, then
/// [`loaded`](Self::loaded), then [`handle`](Self::handle) and [`tick`](Self::tick) until the partition's
/// leadership ends or an append fails: then [`unload`](Self::unload).
#[derive(Debug)]
pub struct GroupShard {
    pub(super) config: GroupConfig,
    pub(super) topics: Topics,
    pub(super) groups: BTreeMap<GroupId, GroupEntry>,
    pub(super) timers: Timers,
}

impl GroupShard {
    /// A shard that has read nothing yet.
    pub fn new(config: GroupConfig) -> Self {
        Self {
            config,
            topics: Topics::default(),
            groups: BTreeMap::new(),
            timers: Timers::default(),
        }
    }

    /// Takes over settings that changed while it runs. Timers that are set stay as they are.
    pub fn configure(&mut self, config: GroupConfig) {
        self.config = config;
    }

    /// Takes over the topics as they are now. Groups that are concerned find out with the next heartbeat of
    /// one of their members.
    pub fn topics_changed(&mut self, view: Arc<TopicsView>) {
        self.topics.view = view;
        self.topics.version += 1;
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
        let mut fx = Effects::new(now, &self.config, &self.topics, &mut self.timers, &mut nothing);
        for entry in self.groups.values_mut() {
            match &mut entry.group {
                Group::Classic(group) => group.loaded(&mut fx),
                Group::Consumer(group) => group.loaded(&mut fx),
            }
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
            outcome.begin_event();
            match due {
                TimerKey::Session(id, member) => {
                    self.on_group(now, &id, &mut outcome, |entry, fx| match &mut entry.group {
                        Group::Classic(group) => group.session_expired(&member, fx),
                        Group::Consumer(group) => {
                            if group.has_member(member.as_str()) {
                                entry.remove_members(&[member], fx);
                            }
                        }
                    });
                }
                TimerKey::Join(id) => {
                    self.on_classic(now, &id, &mut outcome, ClassicGroup::join_time_is_up);
                }
                TimerKey::Sync(id) => {
                    self.on_classic(now, &id, &mut outcome, ClassicGroup::sync_time_is_up);
                }
                TimerKey::Revocation(id, member) => {
                    self.on_late(now, &id, member, &mut outcome, ConsumerGroup::is_revoking);
                }
                TimerKey::MemberJoin(id, member) | TimerKey::MemberSync(id, member) => {
                    self.on_late(now, &id, member, &mut outcome, ConsumerGroup::speaks_classic);
                }
                // Forgotten by that.
                TimerKey::HandedOut(..) => {}
                TimerKey::Expiry => self.expire(now, &mut outcome),
            }
        }
        outcome
    }

    /// Has a timer's event handled by its group, if that is still there.
    fn on_group(
        &mut self,
        now: Now,
        id: &GroupId,
        outcome: &mut Outcome,
        event: impl FnOnce(&mut GroupEntry, &mut Effects<'_>),
    ) {
        let Some(entry) = self.groups.get_mut(id) else {
            return;
        };
        let mut fx = Effects::new(now, &self.config, &self.topics, &mut self.timers, outcome);
        event(entry, &mut fx);
        self.forget_if_vacant(id);
    }

    fn on_classic(
        &mut self,
        now: Now,
        id: &GroupId,
        outcome: &mut Outcome,
        event: impl FnOnce(&mut ClassicGroup, &mut Effects<'_>),
    ) {
        self.on_group(now, id, outcome, |entry, fx| {
            if let Group::Classic(group) = &mut entry.group {
                event(group, fx);
            }
        });
    }

    /// Removes a member of a consumer group whose time is up, if it still is what it was too late with.
    fn on_late(
        &mut self,
        now: Now,
        id: &GroupId,
        member: MemberId,
        outcome: &mut Outcome,
        is_late: impl FnOnce(&ConsumerGroup, &MemberId) -> bool,
    ) {
        self.on_group(now, id, outcome, |entry, fx| {
            if let Group::Consumer(group) = &entry.group
                && is_late(group, &member)
            {
                entry.remove_members(&[member], fx);
            }
        });
    }

    /// Forgets offsets that outlived their use, and groups of which nothing else is left (KIP-211).
    fn expire(&mut self, now: Now, outcome: &mut Outcome) {
        let retention_ms = self.config.offsets_retention_ms;
        let mut fx = Effects::new(now, &self.config, &self.topics, &mut self.timers, outcome);
        for (id, entry) in &mut self.groups {
            let group = &entry.group;
            let expired = entry.offsets.tombstones(id, |topic, _, offset| match group {
                Group::Classic(group) => group.has_expired(topic, offset, now.wall_ms, retention_ms),
                Group::Consumer(group) => group.has_expired(topic, offset, now.wall_ms, retention_ms),
            });
            let abandoned = entry.is_abandoned();
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
        let mut fx = Effects::new(now, &self.config, &self.topics, &mut self.timers, &mut outcome);
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
            .map(|entry| match &entry.group {
                Group::Classic(group) => group.waiting(),
                // Every request is answered at once.
                Group::Consumer(_) => 0,
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
        let mut fx = Effects::new(now, &self.config, &self.topics, &mut self.timers, &mut outcome);
        for entry in self.groups.values_mut() {
            if let Group::Classic(group) = &mut entry.group {
                group.refuse_all_waiting(ErrorCode::NotCoordinator, &mut fx);
            }
        }
        outcome.replies
    }

    /// A group that is nothing but a name is none.
    pub(super) fn forget_if_vacant(&mut self, id: &GroupId) {
        let Some(entry) = self.groups.get_mut(id) else {
            return;
        };
        if entry.is_vacant() {
            self.groups.remove(id);
        } else if let Group::Consumer(group) = &entry.group
            && group.is_vacant()
        {
            // What is left is offsets, which any group has.
            entry.group = Group::Classic(ClassicGroup::new(id.clone()));
        }
    }
}
