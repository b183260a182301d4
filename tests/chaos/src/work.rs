//! What producers send: unique values, each for itself, or writes of keys, of which the last counts.

use std::ops::Range;

use chaos_checker::{Event, Key, Outcome, Partition, Process, Value, Version};
use rdkafka::message::OwnedHeaders;

use crate::{payload, random::Random};

/// What a record is in the history.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sent {
    /// A value.
    Value { partition: Partition, value: Value },
    /// A write of a key.
    Key {
        partition: Partition,
        key: Key,
        version: Version,
        tombstone: bool,
    },
}

impl Sent {
    pub(crate) const fn partition(self) -> Partition {
        match self {
            Self::Value { partition, .. } | Self::Key { partition, .. } => partition,
        }
    }

    /// It is about to be sent.
    pub(crate) const fn invoked(self) -> Event {
        match self {
            Self::Value { partition, value } => Event::Invoked { partition, value },
            Self::Key {
                partition,
                key,
                version,
                tombstone,
            } => Event::KeyInvoked {
                partition,
                key,
                version,
                tombstone,
            },
        }
    }

    /// Its sending ended so.
    pub(crate) const fn answered(self, outcome: Outcome) -> Event {
        match self {
            Self::Value { partition, value } => Event::Answered {
                partition,
                value,
                outcome,
            },
            Self::Key {
                partition,
                key,
                version,
                ..
            } => Event::KeyAnswered {
                partition,
                key,
                version,
                outcome,
            },
        }
    }
}

/// A record to be sent.
#[derive(Debug)]
pub(crate) struct Write {
    pub(crate) sent: Sent,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) payload: Option<Vec<u8>>,
    pub(crate) headers: Option<OwnedHeaders>,
}

impl Write {
    pub(crate) fn of_value(partition: Partition, value: Value, padding: usize) -> Self {
        Self {
            sent: Sent::Value { partition, value },
            key: None,
            payload: Some(payload::encode(value, padding)),
            headers: None,
        }
    }

    /// A tombstone where there is no padding.
    pub(crate) fn of_key(partition: Partition, key: Key, version: Version, padding: Option<usize>) -> Self {
        Self {
            sent: Sent::Key {
                partition,
                key,
                version,
                tombstone: padding.is_none(),
            },
            key: Some(payload::encode_key(key)),
            payload: padding.map(|padding| payload::encode(version, padding)),
            headers: Some(payload::version_header(version)),
        }
    }
}

/// A producer's work over all of its lives.
pub(crate) trait Work {
    /// The next record, of the process that sends now.
    fn next(&mut self, process: Process, random: &mut Random) -> Write;
}

/// Bytes of padding at most: batches of many sizes.
const PADDING: u64 = 400;

/// Unique values, to any of so many partitions.
#[derive(Debug)]
pub(crate) struct Values {
    partitions: i32,
    /// Who sent last, and how many so far.
    last: Option<(Process, u32)>,
}

impl Values {
    pub(crate) const fn new(partitions: i32) -> Self {
        Self {
            partitions,
            last: None,
        }
    }
}

impl Work for Values {
    fn next(&mut self, process: Process, random: &mut Random) -> Write {
        let partition = random.below(self.partitions as u64) as Partition;
        let sequence = match self.last {
            Some((last, sent)) if last == process => sent,
            _ => 0,
        };
        self.last = Some((process, sequence + 1));
        Write::of_value(
            partition,
            payload::value(process, sequence),
            random.below(PADDING) as usize,
        )
    }
}

/// Keys that nobody else writes, again and again. Every other write is one of a few keys, which compaction
/// has much to take of; the others come seldom, so that their last writes lie deep in the log and must
/// survive many a cleaning.
#[derive(Debug)]
pub(crate) struct Keys {
    partitions: i32,
    /// Of the first key. The next one's comes behind it.
    first: Key,
    /// The last version of each key.
    versions: Vec<Version>,
}

/// Keys that are written often.
const HOT: u64 = 16;
/// One write in so many deletes its key.
const TOMBSTONES: u64 = 8;

impl Keys {
    /// `keys` must not be fewer than the few that are written often.
    pub(crate) fn new(partitions: i32, keys: Range<Key>) -> Self {
        Self {
            partitions,
            first: keys.start,
            versions: vec![0; keys.len()],
        }
    }
}

/// Where a key's writes go.
pub(crate) const fn partition_of(key: Key, partitions: i32) -> Partition {
    (key % partitions.unsigned_abs()) as Partition
}

impl Work for Keys {
    fn next(&mut self, _process: Process, random: &mut Random) -> Write {
        let among = if random.one_in(2) {
            HOT
        } else {
            self.versions.len() as u64
        };
        let index = random.below(among) as usize;
        self.versions[index] += 1;
        let key = self.first + index as Key;
        let padding = (!random.one_in(TOMBSTONES)).then(|| random.below(PADDING) as usize);
        Write::of_key(
            partition_of(key, self.partitions),
            key,
            self.versions[index],
            padding,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_unique_to_their_process() {
        let (mut work, mut random) = (Values::new(3), Random::new(1));
        let values: Vec<_> = [1, 1, 2, 2]
            .into_iter()
            .map(|process| match work.next(process, &mut random).sent {
                Sent::Value { value, .. } => value,
                Sent::Key { .. } => unreachable!("values have no key"),
            })
            .collect();
        let expected = [(1, 0), (1, 1), (2, 0), (2, 1)].map(|(process, n)| payload::value(process, n));
        assert_eq!(values, expected);
    }

    #[test]
    fn keys_stay_in_their_partition_and_their_versions_rise_over_all_lives() {
        let (mut work, mut random) = (Keys::new(2, 100..140), Random::new(1));
        let mut last = std::collections::BTreeMap::new();
        let mut tombstones = 0;
        for process in 0..1000 {
            let Sent::Key {
                partition,
                key,
                version,
                tombstone,
            } = work.next(process, &mut random).sent
            else {
                unreachable!("keys are written");
            };
            assert!((100..140).contains(&key));
            assert_eq!(partition, (key % 2) as i32);
            assert_eq!(version, last.insert(key, version).unwrap_or(0) + 1);
            tombstones += u32::from(tombstone);
        }
        assert!(last.len() > 35 && (50..250).contains(&tombstones));
    }
}
