//! What differs between two cluster images: the work list of a broker's reconciler.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::ordmap::DiffItem;
use protocol::{BrokerId, TopicId, TopicPartition};

use crate::{ClusterImage, ConfigResource, PartitionRegistration, Topic};

/// The difference from one image to a later one.
#[derive(Clone, Debug, Default)]
pub struct ImageDelta {
    /// Topics that the older image has and the newer has not.
    pub removed_topics: BTreeSet<TopicId>,
    /// Partitions that are new or whose record differs, as they now are.
    pub changed_partitions: BTreeMap<TopicPartition, Arc<PartitionRegistration>>,
    /// Brokers that are new, gone or differ.
    pub changed_brokers: BTreeSet<BrokerId>,
    /// Resources whose configuration differs.
    pub changed_configs: BTreeSet<ConfigResource>,
}

impl ImageDelta {
    /// Compares two images. Shared parts are skipped by pointer, so the cost is that of the change.
    pub fn between(older: &ClusterImage, newer: &ClusterImage) -> Self {
        let mut delta = Self::default();
        if !older.topics.ptr_eq(&newer.topics) {
            for item in older.topics.diff(&newer.topics) {
                match item {
                    DiffItem::Add(_, topic) => delta.topic_changed(None, topic),
                    DiffItem::Update {
                        old: (_, old),
                        new: (_, new),
                    } => delta.topic_changed(Some(old), new),
                    DiffItem::Remove(&id, _) => {
                        delta.removed_topics.insert(id);
                    }
                }
            }
        }
        if !older.brokers.ptr_eq(&newer.brokers) {
            delta.changed_brokers = older
                .brokers
                .diff(&newer.brokers)
                .map(|item| *key(&item))
                .collect();
        }
        if !older.configs.ptr_eq(&newer.configs) {
            delta.changed_configs = older
                .configs
                .diff(&newer.configs)
                .map(|item| key(&item).clone())
                .collect();
        }
        delta
    }

    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.removed_topics.is_empty()
            && self.changed_partitions.is_empty()
            && self.changed_brokers.is_empty()
            && self.changed_configs.is_empty()
    }

    fn topic_changed(&mut self, old: Option<&Arc<Topic>>, new: &Arc<Topic>) {
        let mut changed = |index, partition: &Arc<PartitionRegistration>| {
            self.changed_partitions
                .insert(TopicPartition::new(new.id, index), Arc::clone(partition));
        };
        let Some(old) = old else {
            for (&index, partition) in &new.partitions {
                changed(index, partition);
            }
            return;
        };
        for item in old.partitions.diff(&new.partitions) {
            match item {
                DiffItem::Add(&index, partition)
                | DiffItem::Update {
                    new: (&index, partition),
                    ..
                } => {
                    changed(index, partition);
                }
                // Partitions only go with their topic.
                DiffItem::Remove(..) => {}
            }
        }
    }
}

fn key<'a, K, V>(item: &DiffItem<'a, 'a, K, V>) -> &'a K {
    match item {
        DiffItem::Add(key, _) | DiffItem::Remove(key, _) | DiffItem::Update { old: (key, _), .. } => key,
    }
}
