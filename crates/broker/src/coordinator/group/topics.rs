//! What the groups know of the cluster's topics: an immutable view that all shards of a broker share.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use protocol::{PartitionIndex, TopicId, TopicName};

/// The racks of a partition that is nowhere in particular.
static NOWHERE: BTreeSet<Arc<str>> = BTreeSet::new();

/// One topic, as far as assigning it is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicView {
    /// The topic's identity: a topic that is created again under its name has another one.
    pub id: TopicId,
    /// Its name.
    pub name: TopicName,
    /// For each partition, by its index, the racks of the brokers that hold it, where they tell one.
    pub racks: Vec<BTreeSet<Arc<str>>>,
    /// Says whether the topic or the number of its partitions has changed: the same for the same topic on
    /// every broker and after every restart, so that it may stand in a record.
    pub metadata_hash: u64,
    /// The same, and whether a rack has: for groups that look at racks (KIP-1101).
    pub metadata_hash_with_racks: u64,
}

impl TopicView {
    /// A topic with a partition for each entry of `racks`.
    pub fn new(id: TopicId, name: TopicName, racks: Vec<BTreeSet<Arc<str>>>) -> Self {
        let metadata_hash = hash(id, &name, racks.iter().map(|_| &NOWHERE));
        let metadata_hash_with_racks = hash(id, &name, racks.iter());
        Self {
            id,
            name,
            racks,
            metadata_hash,
            metadata_hash_with_racks,
        }
    }

    /// How many partitions it has.
    pub fn partition_count(&self) -> usize {
        self.racks.len()
    }

    /// Its partitions, in their order.
    pub fn partitions(&self) -> impl Iterator<Item = PartitionIndex> + use<> {
        // Metadata numbers partitions in 31 bits.
        (0..i32::try_from(self.racks.len()).unwrap_or(i32::MAX)).map(PartitionIndex)
    }

    /// Whether it has this partition.
    pub fn has(&self, partition: PartitionIndex) -> bool {
        usize::try_from(partition.get()).is_ok_and(|index| index < self.racks.len())
    }
}

/// All topics of the cluster at one moment.
///
/// A clone shares the topics; a later view is made from an earlier one by [`with`](Self::with) and
/// [`without`](Self::without), so that what has not changed is not built again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicsView {
    by_id: BTreeMap<TopicId, Arc<TopicView>>,
    by_name: BTreeMap<TopicName, TopicId>,
}

impl TopicsView {
    /// The topic of this name.
    pub fn topic_by_name(&self, name: &str) -> Option<&TopicView> {
        self.topic_by_id(*self.by_name.get(name)?)
    }

    /// The topic of this identity.
    pub fn topic_by_id(&self, id: TopicId) -> Option<&TopicView> {
        self.by_id.get(&id).map(AsRef::as_ref)
    }

    /// Every topic, in the order of the names.
    pub fn topics(&self) -> impl Iterator<Item = &TopicView> {
        self.by_name.values().filter_map(|&id| self.topic_by_id(id))
    }

    /// The view with this topic, in the place of what had its identity or its name.
    #[must_use]
    pub fn with(mut self, topic: TopicView) -> Self {
        self = self.without(topic.id);
        if let Some(namesake) = self.by_name.insert(topic.name.clone(), topic.id) {
            self.by_id.remove(&namesake);
        }
        self.by_id.insert(topic.id, Arc::new(topic));
        self
    }

    /// The view without this topic.
    #[must_use]
    pub fn without(mut self, id: TopicId) -> Self {
        if let Some(gone) = self.by_id.remove(&id) {
            self.by_name.remove(gone.name.as_str());
        }
        self
    }
}

impl FromIterator<TopicView> for TopicsView {
    fn from_iter<T: IntoIterator<Item = TopicView>>(topics: T) -> Self {
        topics.into_iter().fold(Self::default(), Self::with)
    }
}

/// FNV-1a over everything, each text closed by a byte that none contains. Not the standard library's
/// hasher: that may become another one with another compiler, and every group would rebalance.
fn hash<'r>(id: TopicId, name: &TopicName, racks: impl Iterator<Item = &'r BTreeSet<Arc<str>>>) -> u64 {
    const END_OF_TEXT: u8 = 0xff;
    const END_OF_PARTITION: u8 = 0xfe;
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut add = |bytes: &[u8]| {
        for &byte in bytes {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    add(id.0.as_bytes());
    add(name.as_str().as_bytes());
    add(&[END_OF_TEXT]);
    for partition in racks {
        for rack in partition {
            add(rack.as_bytes());
            add(&[END_OF_TEXT]);
        }
        add(&[END_OF_PARTITION]);
    }
    hash
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn topic(id: u128, name: &str, racks: &[&[&str]]) -> TopicView {
        let racks = racks
            .iter()
            .map(|racks| racks.iter().map(|&rack| Arc::from(rack)).collect());
        let name = TopicName::new(name).expect("a topic's name");
        TopicView::new(TopicId(Uuid::from_u128(id)), name, racks.collect())
    }

    #[test]
    fn topics_are_found_by_name_and_by_identity() {
        let view: TopicsView = [topic(1, "b", &[&[]]), topic(2, "a", &[&[], &[]])]
            .into_iter()
            .collect();
        assert_eq!(
            view.topics().map(|topic| topic.name.as_str()).collect::<Vec<_>>(),
            ["a", "b"]
        );
        assert_eq!(view.topic_by_name("a").map(TopicView::partition_count), Some(2));
        assert_eq!(
            view.topic_by_id(TopicId(Uuid::from_u128(1)))
                .map(|topic| topic.name.as_str()),
            Some("b")
        );
        assert!(view.topic_by_name("c").is_none());
    }

    #[test]
    fn a_topic_created_again_takes_the_place_of_its_namesake() {
        let older: TopicsView = [topic(1, "a", &[&[]])].into_iter().collect();
        let newer = older.clone().with(topic(2, "a", &[&[], &[]]));
        assert_eq!(newer.topics().count(), 1);
        assert!(newer.topic_by_id(TopicId(Uuid::from_u128(1))).is_none());
        // That the older one is told to be gone later takes nothing of the newer one.
        assert_eq!(newer.clone().without(TopicId(Uuid::from_u128(1))), newer);
        assert_eq!(older.topics().count(), 1);
    }

    #[test]
    fn the_hash_tells_partitions_and_racks_apart() {
        let variants = [
            topic(1, "a", &[]),
            topic(1, "a", &[&[]]),
            topic(1, "a", &[&[], &[]]),
            topic(1, "a", &[&["r"]]),
            topic(1, "a", &[&["r"], &[]]),
            topic(1, "a", &[&[], &["r"]]),
            topic(1, "a", &[&["r", "s"]]),
            topic(1, "a", &[&["r"], &["s"]]),
            topic(1, "a", &[&["rs"]]),
            topic(1, "b", &[&["rs"]]),
            topic(2, "a", &[&["rs"]]),
        ];
        let hashes = variants.iter().map(|topic| topic.metadata_hash_with_racks);
        assert_eq!(hashes.collect::<BTreeSet<u64>>().len(), variants.len());
        let with_racks = topic(1, "a", &[&[], &["r"]]);
        assert_eq!(with_racks.metadata_hash, topic(1, "a", &[&[], &[]]).metadata_hash);
        let without_racks: BTreeSet<u64> = variants.iter().map(|topic| topic.metadata_hash).collect();
        assert_eq!(
            without_racks.len(),
            5,
            "identities, names and numbers of partitions"
        );
        // It stands in records: it must be the same in every build.
        assert_eq!(with_racks.metadata_hash_with_racks, 0x8dc4_0612_8565_716b);
    }
}
