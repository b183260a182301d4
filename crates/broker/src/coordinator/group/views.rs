//! What others may see of a shard: its groups with their offsets, and what of them would survive.

use std::{collections::BTreeMap, sync::Arc};

use protocol::{Offset, PartitionIndex};

use super::{
    ids::GroupId,
    records::{GroupMetadata, OffsetValue},
    shard::{Group, GroupShard},
};

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
    /// Its state by Kafka's name: `Empty`, `PreparingRebalance`, `CompletingRebalance`, `Stable`.
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
    /// Its last finished generation, or that it became empty.
    pub group: Option<Arc<GroupMetadata>>,
    /// Its offsets.
    pub offsets: BTreeMap<(Arc<str>, PartitionIndex), OffsetValue>,
}

impl GroupShard {
    /// The groups and their committed offsets, as they are now.
    pub fn lag_view(&self) -> LagView {
        let groups = self.groups.iter().map(|(id, entry)| {
            let Group::Classic(group) = &entry.group;
            GroupLag {
                group: id.clone(),
                state: group.state().name(),
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
            let snapshot = GroupSnapshot {
                group: entry.recorded().cloned(),
                offsets: entry
                    .offsets
                    .iter()
                    .map(|(topic, partition, value)| ((topic.clone(), partition), value.clone()))
                    .collect(),
            };
            let anything = snapshot.group.is_some() || !snapshot.offsets.is_empty();
            anything.then(|| (id.clone(), snapshot))
        });
        Snapshot(groups.collect())
    }
}
