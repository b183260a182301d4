//! Which partition of `__consumer_offsets` keeps a group, and which broker therefore coordinates it.

use metadata::{ClusterImage, Topic};
use protocol::{BrokerId, CONSUMER_OFFSETS, PartitionIndex};

/// The partition of a group among `partitions`, as every Kafka broker and tool computes it: Java's
/// `String.hashCode`, made positive by its sign bit alone.
pub(crate) fn partition_of(group: &str, partitions: usize) -> Option<PartitionIndex> {
    let count = i32::try_from(partitions).ok().filter(|&count| count > 0)?;
    let hash = group.encode_utf16().fold(0_i32, |hash, unit| {
        hash.wrapping_mul(31).wrapping_add(i32::from(unit))
    });
    Some(PartitionIndex((hash & i32::MAX) % count))
}

/// The topic as the image knows it.
pub(crate) fn offsets_topic(image: &ClusterImage) -> Option<&Topic> {
    image.topic(CONSUMER_OFFSETS).map(AsRef::as_ref)
}

/// The partition that keeps `group`, where the topic is there.
pub(crate) fn home_of(image: &ClusterImage, group: &str) -> Option<PartitionIndex> {
    partition_of(group, offsets_topic(image)?.partitions.len())
}

/// The live broker that coordinates `group`; `None` where there is none now.
pub(crate) fn coordinator_of(image: &ClusterImage, group: &str) -> Option<BrokerId> {
    let topic = offsets_topic(image)?;
    let home = partition_of(group, topic.partitions.len())?;
    let leader = topic.partitions.get(&home)?.leader?;
    image.brokers.get(&leader).filter(|broker| !broker.fenced)?;
    Some(leader)
}

/// The partitions whose groups `broker` coordinates.
pub(crate) fn led_by(image: &ClusterImage, broker: BrokerId) -> impl Iterator<Item = PartitionIndex> {
    let partitions = offsets_topic(image)
        .into_iter()
        .flat_map(|topic| &topic.partitions);
    partitions
        .filter(move |(_, partition)| partition.leader == Some(broker))
        .map(|(&index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_hash_as_java_strings_do() {
        // "hello".hashCode() is 99162322; "polygenelubricants".hashCode() is Integer.MIN_VALUE.
        assert_eq!(partition_of("hello", 50), Some(PartitionIndex(99_162_322 % 50)));
        assert_eq!(partition_of("polygenelubricants", 50), Some(PartitionIndex(0)));
        assert_eq!(partition_of("", 50), Some(PartitionIndex(0)));
        // Outside the basic plane a character is two units: "😀".hashCode() is 1772899.
        assert_eq!(partition_of("😀", 1_000_000_000), Some(PartitionIndex(1_772_899)));
        assert_eq!(partition_of("g", 0), None);
    }
}
