//! Which partition a record goes to, as Kafka's clients choose it.

use std::sync::atomic::{AtomicU32, Ordering};

use metadata::Topic;
use protocol::PartitionIndex;

/// Chooses for records that name no partition.
#[derive(Debug, Default)]
pub(super) struct Partitioner {
    /// Whose turn it is among partitions for records without a key.
    turn: AtomicU32,
}

impl Partitioner {
    /// The partition of every record with this key.
    pub(super) fn of_key(topic: &Topic, key: &[u8]) -> PartitionIndex {
        let count = topic.partitions.len().max(1) as u32;
        // Java's `toPositive`.
        PartitionIndex(((murmur2(key) & 0x7fff_ffff) % count) as i32)
    }

    /// The partition for the keyless records of one request, which all go together: the next that has a
    /// leader, or the next where none has.
    pub(super) fn next(&self, topic: &Topic) -> PartitionIndex {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let led: Vec<PartitionIndex> = topic
            .partitions
            .iter()
            .filter(|(_, partition)| partition.leader.is_some())
            .map(|(index, _)| *index)
            .collect();
        if led.is_empty() {
            return PartitionIndex((turn % topic.partitions.len().max(1) as u32) as i32);
        }
        led[turn as usize % led.len()]
    }
}

/// MurmurHash2 with the seed of Kafka's Java client (`Utils.murmur2`).
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut h = 0x9747_b28c_u32 ^ data.len() as u32;
    let mut chunks = data.chunks_exact(4);
    for chunk in &mut chunks {
        let mut k = u32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]).wrapping_mul(M);
        k ^= k >> 24;
        h = h.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = chunks.remainder();
    if !rest.is_empty() {
        for (at, byte) in rest.iter().enumerate() {
            h ^= u32::from(*byte) << (8 * at);
        }
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    h ^ (h >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cases of Kafka's own `UtilsTest.testMurmur2`.
    #[test]
    fn hashes_are_those_of_the_java_client() {
        for (key, expected) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
        ] {
            assert_eq!(murmur2(key.as_bytes()) as i32, expected, "{key}");
        }
        assert_eq!(murmur2(b"abc") as i32, 479_470_107);
    }
}
