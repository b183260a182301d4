//! What others may see of a shard: its groups with their offsets, and what of them would survive.

use std::{collections::BTreeMap, sync::Arc};

use protocol::{Offset, PartitionIndex};

use super::{
    consumer::ConsumerRecords,
    ids::GroupId,
    records::{GroupMetadata, OffsetValue},
    shard::{Group, GroupShard},
};

/// Every state of a group of either protocol, by Kafka's name. One that is `Dead` is not there.
pub const GROUP_STATES: [&str; 7] = [
    "Empty",
    "PreparingRebalance",
    "CompletingRebalance",
    "Assigning",
    "Reconciling",
    "Stable",
    "Dead",
];

/// The protocol of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupKind {
    /// JoinGroup and SyncGroup.
    Classic,
    /// ConsumerGroupHeartbeat (KIP-848).
    Consumer,
}

impl GroupKind {
    /// Its name in ListGroups.
    pub fn name(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::Consumer => "consumer",
        }
    }
}

/// All groups of a shard with their committed offsets, for metrics. Names are shared and nothing else is
/// copied: it is made every few seconds of ten thousand groups, while their members wait.
///
/// It shows state that may not be committed yet: use it for figures, not for answers that others
/// build on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LagView {
    /// The groups, by name.
    pub groups: Vec<GroupLag>,
}

/// One group in a [`LagView`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupLag {
    /// The group.
    pub group: GroupId,
    /// Its protocol.
    pub kind: GroupKind,
    /// Its state, of [`GROUP_STATES`].
    pub state: &'static str,
    /// How many members it has.
    pub members: usize,
    /// Its committed offsets, by topic and partition.
    pub offsets: Vec<(Arc<str>, PartitionIndex, Offset)>,
}

/// What the records of a shard say: what a shard that replays them has too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot(pub BTreeMap<GroupId, GroupSnapshot>);

/// What the records of one group say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupSnapshot {
    /// Of a classic group: its last finished generation, or that it became empty.
    pub group: Option<Arc<GroupMetadata>>,
    /// Of a consumer group: everything.
    pub consumer: Option<ConsumerRecords>,
    /// Its offsets.
    pub offsets: BTreeMap<(Arc<str>, PartitionIndex), OffsetValue>,
}

impl GroupShard {
    /// The groups and their committed offsets, as they are now.
    pub fn lag_view(&self) -> LagView {
        let groups = self.groups.iter().map(|(id, entry)| {
            let group = &entry.group;
            GroupLag {
                group: id.clone(),
                kind: group.kind(),
                state: group.state_name(),
                members: group.members(),
                offsets: entry
                    .offsets
                    .iter()
                    .map(|(topic, partition, value)| (Arc::clone(topic), partition, value.offset))
                    .collect(),
            }
        });
        LagView {
            groups: groups.collect(),
        }
    }

    /// What would be there after a replay of everything that was returned for appending.
    pub fn snapshot(&self) -> Snapshot {
        let groups = self.groups.iter().filter_map(|(id, entry)| {
            let (group, consumer) = match &entry.group {
                Group::Classic(group) => (group.recorded().cloned(), None),
                Group::Consumer(group) => (None, Some(group.records().clone())),
            };
            let snapshot = GroupSnapshot {
                group,
                consumer,
                offsets: entry
                    .offsets
                    .iter()
                    .map(|(topic, partition, value)| ((topic.clone(), partition), value.clone()))
                    .collect(),
            };
            (snapshot != GroupSnapshot::default()).then(|| (id.clone(), snapshot))
        });
        Snapshot(groups.collect())
    }
}
