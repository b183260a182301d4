//! What consumers of the classic protocol tell each other through JoinGroup and SyncGroup: subscriptions and
//! assignments, in the embedded consumer protocol.
//!
//! A subscription begins with a version and the list of topics in every version that there is or will be.
//! Version 1 adds the partitions that the member owns, 2 the generation in which it does, 3 its rack; a
//! later version is read as the last one that is known, as Kafka does.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use protocol::{PartitionIndex, TopicId};

use super::{
    assignor::Assignment,
    records::wire::{Reader, Writer},
    topics::TopicsView,
};

/// The protocol type of groups that consume; of others the coordinator understands nothing.
pub(super) const CONSUMER: &str = "consumer";

/// The last version that is known.
const LATEST: i16 = 3;

/// The largest subscription or assignment that is taken apart, in bytes: more than a record holds.
const LARGEST: usize = 1 << 20;

/// Partitions by the names of their topics.
pub(super) type NamedPartitions = BTreeMap<Arc<str>, BTreeSet<PartitionIndex>>;

/// What a consumer of the classic protocol wants, and has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Subscription {
    /// The version in which it said so; its assignment is to have the same.
    pub(super) version: i16,
    pub(super) topics: BTreeSet<Arc<str>>,
    pub(super) owned: NamedPartitions,
    pub(super) rack: Option<Arc<str>>,
}

impl Subscription {
    /// Reads one; `None` when that cannot be done.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let mut reader = open(bytes)?;
        let version = read_version(&mut reader)?;
        let mut read = Self {
            version,
            ..Self::default()
        };
        add_read_topics(&mut reader, &mut read.topics)?;
        reader.nullable_bytes().ok()?;
        if version >= 1 {
            read.owned = read_partitions(&mut reader)?;
        }
        if version >= 2 {
            reader.i32().ok()?;
        }
        if version >= 3 {
            read.rack = reader.nullable_string().ok()?.map(Arc::from);
        }
        Some(read)
    }

    /// One of version 0, which says nothing but topics.
    pub(super) fn write(topics: &BTreeSet<Arc<str>>) -> Bytes {
        let mut writer = Writer::default();
        writer.i16(0);
        writer.count(topics.len());
        for topic in topics {
            writer.string(topic);
        }
        writer.null_bytes();
        writer.finish()
    }
}

fn open(bytes: &[u8]) -> Option<Reader<'_>> {
    (bytes.len() <= LARGEST).then(|| Reader::new(bytes))
}

/// Versions count from 0 on; what is newer is read as far as it is known.
fn read_version(reader: &mut Reader<'_>) -> Option<i16> {
    let version = reader.i16().ok()?;
    (version >= 0).then_some(version.min(LATEST))
}

fn add_read_topics(reader: &mut Reader<'_>, topics: &mut BTreeSet<Arc<str>>) -> Option<()> {
    // Each takes bytes, so that a false count ends with them; here and below.
    for _ in 0..reader.count().ok()? {
        topics.insert(Arc::from(reader.string().ok()?));
    }
    Some(())
}

fn read_partitions(reader: &mut Reader<'_>) -> Option<NamedPartitions> {
    let mut read = NamedPartitions::new();
    for _ in 0..reader.count().ok()? {
        let topic = Arc::from(reader.string().ok()?);
        let partitions: &mut BTreeSet<_> = read.entry(topic).or_default();
        for _ in 0..reader.count().ok()? {
            partitions.insert(PartitionIndex(reader.i32().ok()?));
        }
    }
    Some(read)
}

/// Adds the topics of one subscription, whatever follows them; `None` when they cannot be read.
pub(super) fn add_topics(subscription: &[u8], topics: &mut BTreeSet<Arc<str>>) -> Option<()> {
    let mut reader = Reader::new(subscription);
    read_version(&mut reader)?;
    add_read_topics(&mut reader, topics)
}

/// What a leader assigned to a member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LedAssignment {
    pub(super) partitions: NamedPartitions,
    /// What the leader's assignor says to the member's own besides: only those two understand it.
    pub(super) has_user_data: bool,
}

/// Reads an assignment as a leader made it; nothing at all is one without partitions.
pub(super) fn read_assignment(bytes: &[u8]) -> Option<LedAssignment> {
    if bytes.is_empty() {
        return Some(LedAssignment::default());
    }
    let mut reader = open(bytes)?;
    read_version(&mut reader)?;
    Some(LedAssignment {
        partitions: read_partitions(&mut reader)?,
        has_user_data: reader.nullable_bytes().ok()?.is_some_and(|data| !data.is_empty()),
    })
}

/// An assignment in the version in which its member subscribed.
pub(super) fn write_assignment(version: i16, assignment: &Assignment, topics: &TopicsView) -> Bytes {
    let mut writer = Writer::default();
    writer.i16(version);
    let named: Vec<_> = assignment
        .iter()
        .filter_map(|(id, partitions)| Some((topics.topic_by_id(*id)?, partitions)))
        .collect();
    writer.count(named.len());
    for (topic, partitions) in named {
        writer.string(topic.name.as_str());
        writer.count(partitions.len());
        for partition in partitions {
            writer.i32(partition.0);
        }
    }
    writer.null_bytes();
    writer.finish()
}

/// Partitions by the identities of their topics; topics that are not there are left out.
pub(super) fn identified(named: &NamedPartitions, topics: &TopicsView) -> Assignment {
    let of = |name: &str| topics.topic_by_name(name).map(|topic| topic.id);
    let found = named
        .iter()
        .filter(|(_, partitions)| !partitions.is_empty())
        .filter_map(|(name, partitions)| Some((of(name)?, partitions.clone())));
    found.collect::<BTreeMap<TopicId, _>>()
}

#[cfg(test)]
mod tests {
    use protocol::TopicName;
    use uuid::Uuid;

    use super::*;
    use crate::coordinator::group::topics::TopicView;

    #[test]
    fn topics_are_read_from_any_version_and_never_beyond_the_bytes() {
        let whole = b"\0\x03\0\0\0\x02\0\x01a\0\x02bc\xff\xff\xff\xffanything";
        let mut topics = BTreeSet::new();
        assert_eq!(add_topics(whole, &mut topics), Some(()));
        assert_eq!(topics, BTreeSet::from(["a".into(), "bc".into()]));
        for end in 0..13 {
            assert_eq!(add_topics(&whole[..end], &mut BTreeSet::new()), None, "{end}");
        }
        assert_eq!(add_topics(b"\xff\xff\0\0\0\0", &mut BTreeSet::new()), None);
        assert_eq!(
            add_topics(b"\0\0\x7f\xff\xff\xff\0\0", &mut BTreeSet::new()),
            None
        );
        assert_eq!(
            add_topics(b"\0\0\0\0\0\x01\0\x01\xff", &mut BTreeSet::new()),
            None
        );
    }

    #[test]
    fn every_version_of_a_subscription_is_read() {
        let topics: &[u8] = b"\0\0\0\x01\0\x01t";
        let no_data: &[u8] = b"\xff\xff\xff\xff";
        let owned: &[u8] = b"\0\0\0\x01\0\x01t\0\0\0\x02\0\0\0\x04\0\0\0\x07";
        let plain = Subscription {
            version: 0,
            topics: ["t".into()].into(),
            ..Subscription::default()
        };
        let owning = |version| Subscription {
            version,
            owned: [("t".into(), [PartitionIndex(4), PartitionIndex(7)].into())].into(),
            ..plain.clone()
        };
        let rack = Subscription {
            rack: Some("r".into()),
            ..owning(3)
        };
        let generation: &[u8] = b"\0\0\0\x09";
        let cases = [
            ([b"\0\0", topics, no_data].concat(), plain.clone()),
            ([b"\0\0", topics, b"\0\0\0\x01u"].concat(), plain.clone()),
            ([b"\0\x01", topics, no_data, owned].concat(), owning(1)),
            (
                [b"\0\x02", topics, no_data, owned, generation].concat(),
                owning(2),
            ),
            (
                [b"\0\x03", topics, no_data, owned, generation, b"\xff\xff"].concat(),
                owning(3),
            ),
            (
                [b"\0\x03", topics, no_data, owned, generation, b"\0\x01r"].concat(),
                rack.clone(),
            ),
            (
                [b"\0\x09", topics, no_data, owned, generation, b"\0\x01rmore"].concat(),
                rack,
            ),
        ];
        for (bytes, subscription) in cases {
            assert_eq!(
                Subscription::read(&bytes),
                Some(subscription.clone()),
                "{bytes:?}"
            );
            let least = bytes.len() - if bytes.ends_with(b"more") { 4 } else { 0 };
            for end in 0..least {
                assert_eq!(Subscription::read(&bytes[..end]), None, "{bytes:?} {end}");
            }
        }
        assert_eq!(
            Subscription::read(&Subscription::write(&plain.topics)),
            Some(plain)
        );
        assert_eq!(Subscription::read(b"\xff\xff\0\0\0\0\xff\xff\xff\xff"), None);
        assert_eq!(Subscription::read(&vec![0; LARGEST + 1]), None);
    }

    #[test]
    fn an_assignment_is_written_as_kafka_writes_it_and_read_again() {
        let topic = |id, name| {
            let name = TopicName::new(name).expect("a topic's name");
            TopicView::new(TopicId(Uuid::from_u128(id)), name, vec![BTreeSet::new(); 9])
        };
        let view: TopicsView = [topic(1, "b"), topic(2, "a")].into_iter().collect();
        let partitions = |indexes: &[i32]| indexes.iter().copied().map(PartitionIndex).collect();
        let known = Assignment::from([
            (TopicId(Uuid::from_u128(1)), partitions(&[3])),
            (TopicId(Uuid::from_u128(2)), partitions(&[0, 8])),
        ]);
        let mut assignment = known.clone();
        assignment.insert(TopicId(Uuid::from_u128(3)), partitions(&[1]));
        let bytes = write_assignment(1, &assignment, &view);
        let golden = [
            &b"\0\x01\0\0\0\x02"[..],
            b"\0\x01b\0\0\0\x01\0\0\0\x03",
            b"\0\x01a\0\0\0\x02\0\0\0\0\0\0\0\x08",
            b"\xff\xff\xff\xff",
        ]
        .concat();
        assert_eq!(bytes, golden);
        let read = read_assignment(&bytes).expect("it is one");
        assert_eq!(identified(&read.partitions, &view), known);
        assert_eq!(read_assignment(b""), Some(LedAssignment::default()));
        assert_eq!(read_assignment(b"\0"), None);
        assert_eq!(read_assignment(b"\0\0\x7f\xff\xff\xff"), None);
        // What a custom assignor adds is seen; that it adds nothing is no data.
        let partitions = &golden[..golden.len() - 4];
        let has_user_data = |end: &[u8]| {
            let read = read_assignment(&[partitions, end].concat());
            read.map(|read| read.has_user_data)
        };
        assert_eq!(has_user_data(b"\xff\xff\xff\xff"), Some(false));
        assert_eq!(has_user_data(b"\0\0\0\0"), Some(false));
        assert_eq!(has_user_data(b"\0\0\0\x01u"), Some(true));
        assert_eq!(has_user_data(b"\0\0\0\x01"), None);
        assert_eq!(has_user_data(b""), None);
    }
}
