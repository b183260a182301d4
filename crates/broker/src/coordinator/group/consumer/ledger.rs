//! What the records of a consumer group say, the only function that changes it, and what follows from it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use protocol::{PartitionIndex, TopicId};

use crate::coordinator::group::{
    assignor::Assignment,
    ids::{GroupEpoch, InstanceId, MemberId},
    records::{
        ConsumerChange, ConsumerGroupMetadata, CurrentAssignment, MemberSubscription, PartitionMetadata,
        ResolvedPattern,
    },
};

/// What the records of a consumer group say: what a group that replays them has too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConsumerRecords {
    /// The group's epoch and the hash over its topics.
    pub group: Option<ConsumerGroupMetadata>,
    /// What Kafka wrote about its topics until 4.0.
    pub partition_metadata: Option<Arc<PartitionMetadata>>,
    /// The epoch of the target assignment.
    pub target_epoch: Option<GroupEpoch>,
    /// What is known of members.
    pub members: BTreeMap<MemberId, MemberRecords>,
    /// What regular expressions stand for.
    pub patterns: BTreeMap<Arc<str>, Arc<ResolvedPattern>>,
}

/// What the records of one member say. Who subscribes is a member; what is said of others is a remainder
/// (of a log that was cut, or compacted in between), which owns nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberRecords {
    /// What it said of itself.
    pub subscription: Option<Arc<MemberSubscription>>,
    /// What it is to have.
    pub target: Option<Arc<Assignment>>,
    /// What it has.
    pub current: Option<Arc<CurrentAssignment>>,
}

impl MemberRecords {
    fn is_blank(&self) -> bool {
        self.subscription.is_none() && self.target.is_none() && self.current.is_none()
    }
}

/// The records, and what is looked up in them all the time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ledger {
    records: ConsumerRecords,
    /// How many members there are.
    members: usize,
    /// How many of them speak the classic protocol.
    classic_members: usize,
    /// How many of them say where they stand.
    members_in_racks: usize,
    /// Static members by their instance id.
    statics: BTreeMap<InstanceId, MemberId>,
    /// How many members hold a partition: more than one only while a log is replayed, or where another
    /// coordinator wrote down that they do.
    holders: HashMap<(TopicId, PartitionIndex), usize>,
    /// How many members and patterns name a topic.
    topics: BTreeMap<Arc<str>, usize>,
    /// How many members use a regular expression.
    pattern_users: BTreeMap<Arc<str>, usize>,
}

/// Counts one more, or one less.
fn count<K: Ord + Clone>(counts: &mut BTreeMap<K, usize>, key: &K, more: bool) {
    if more {
        *counts.entry(key.clone()).or_default() += 1;
    } else if let Some(left) = counts.get_mut(key) {
        *left -= 1;
        if *left == 0 {
            counts.remove(key);
        }
    }
}

impl Ledger {
    pub(super) fn records(&self) -> &ConsumerRecords {
        &self.records
    }

    /// Whether there is no record left.
    pub(super) fn is_blank(&self) -> bool {
        self.records == ConsumerRecords::default()
    }

    /// Takes over what a record says: the only way to change a group, for requests and for the log that is
    /// replayed.
    pub(super) fn apply(&mut self, change: ConsumerChange) {
        match change {
            ConsumerChange::Group(value) => self.records.group = value,
            ConsumerChange::PartitionMetadata(value) => self.records.partition_metadata = value,
            ConsumerChange::TargetEpoch(value) => self.records.target_epoch = value,
            ConsumerChange::Target(member, value) => {
                self.change_member(member, |records| records.target = value);
            }
            ConsumerChange::Member(member, value) => {
                self.retract(&member);
                self.change_member(member.clone(), |records| records.subscription = value);
                self.count(&member);
            }
            ConsumerChange::Current(member, value) => {
                self.retract(&member);
                self.change_member(member.clone(), |records| records.current = value);
                self.count(&member);
            }
            ConsumerChange::Pattern(pattern, value) => {
                let before = match value {
                    Some(value) => {
                        for topic in &value.topics {
                            count(&mut self.topics, topic, true);
                        }
                        self.records.patterns.insert(pattern, value)
                    }
                    None => self.records.patterns.remove(&pattern),
                };
                for topic in before.iter().flat_map(|before| &before.topics) {
                    count(&mut self.topics, topic, false);
                }
            }
        }
    }

    fn change_member(&mut self, id: MemberId, change: impl FnOnce(&mut MemberRecords)) {
        let records = self.records.members.entry(id.clone()).or_default();
        change(records);
        if records.is_blank() {
            self.records.members.remove(&id);
        }
    }

    /// Takes a member out of the counts, before its records change.
    fn retract(&mut self, id: &MemberId) {
        self.count_member(id, false);
    }

    /// Takes a member into the counts, after its records changed.
    fn count(&mut self, id: &MemberId) {
        self.count_member(id, true);
    }

    fn count_member(&mut self, id: &MemberId, more: bool) {
        let Some(records) = self.records.members.get(id) else {
            return;
        };
        let Some(subscription) = &records.subscription else {
            return;
        };
        let members = [
            (&mut self.members, true),
            (&mut self.classic_members, subscription.classic.is_some()),
            (&mut self.members_in_racks, subscription.rack_id.is_some()),
        ];
        for (number, counts) in members {
            match (counts, more) {
                (true, true) => *number += 1,
                (true, false) => *number -= 1,
                (false, _) => {}
            }
        }
        if let Some(instance) = &subscription.instance_id {
            if more {
                self.statics.insert(instance.clone(), id.clone());
            } else if self.statics.get(instance) == Some(id) {
                self.statics.remove(instance);
            }
        }
        for topic in &subscription.topics {
            count(&mut self.topics, topic, more);
        }
        if let Some(pattern) = &subscription.pattern {
            count(&mut self.pattern_users, pattern, more);
        }
        for place in records.current.iter().flat_map(|current| current.held()) {
            if more {
                *self.holders.entry(place).or_default() += 1;
            } else if let Some(left) = self.holders.get_mut(&place) {
                *left -= 1;
                if *left == 0 {
                    self.holders.remove(&place);
                }
            }
        }
    }

    /// The group's epoch.
    pub(super) fn epoch(&self) -> GroupEpoch {
        self.records.group.unwrap_or_default().epoch
    }

    /// The hash over the topics as they were when the epoch began.
    pub(super) fn metadata_hash(&self) -> i64 {
        self.records.group.unwrap_or_default().metadata_hash
    }

    /// The epoch of the target assignment.
    pub(super) fn target_epoch(&self) -> GroupEpoch {
        self.records.target_epoch.unwrap_or_default()
    }

    /// How many members there are.
    pub(super) fn len(&self) -> usize {
        self.members
    }

    pub(super) fn classic_len(&self) -> usize {
        self.classic_members
    }

    /// Whether some member says where it stands.
    pub(super) fn knows_racks(&self) -> bool {
        self.members_in_racks > 0
    }

    /// What a member said of itself; `None` if there is no such member.
    pub(super) fn subscription(&self, id: &str) -> Option<&Arc<MemberSubscription>> {
        self.records.members.get(id)?.subscription.as_ref()
    }

    /// All members, by their ids.
    pub(super) fn members(&self) -> impl Iterator<Item = (&MemberId, &Arc<MemberSubscription>)> {
        self.records
            .members
            .iter()
            .filter_map(|(id, records)| Some((id, records.subscription.as_ref()?)))
    }

    /// What is said of those who are no members.
    pub(super) fn remainders(&self) -> impl Iterator<Item = (&MemberId, &MemberRecords)> {
        self.records
            .members
            .iter()
            .filter(|(_, records)| records.subscription.is_none())
    }

    /// What a member has.
    pub(super) fn current(&self, id: &str) -> Arc<CurrentAssignment> {
        let records = self.records.members.get(id);
        records
            .and_then(|records| records.current.clone())
            .unwrap_or_default()
    }

    /// What a member is to have.
    pub(super) fn target(&self, id: &str) -> Option<&Arc<Assignment>> {
        self.records.members.get(id)?.target.as_ref()
    }

    /// The static member with this instance id.
    pub(super) fn static_member(&self, instance: &str) -> Option<&MemberId> {
        self.statics.get(instance)
    }

    /// How many members hold a partition.
    pub(super) fn holders(&self, topic: TopicId, partition: PartitionIndex) -> usize {
        self.holders.get(&(topic, partition)).copied().unwrap_or(0)
    }

    /// The topics that members name or patterns stand for.
    pub(super) fn topics(&self) -> impl Iterator<Item = &Arc<str>> {
        self.topics.keys()
    }

    pub(super) fn names_topic(&self, topic: &str) -> bool {
        self.topics.contains_key(topic)
    }

    /// The regular expressions that members use.
    pub(super) fn patterns_in_use(&self) -> impl Iterator<Item = &Arc<str>> {
        self.pattern_users.keys()
    }

    pub(super) fn uses_pattern(&self, pattern: &str) -> bool {
        self.pattern_users.contains_key(pattern)
    }

    /// What a regular expression stood for when it was last looked at.
    pub(super) fn resolved(&self, pattern: &str) -> Option<&Arc<ResolvedPattern>> {
        self.records.patterns.get(pattern)
    }
}
