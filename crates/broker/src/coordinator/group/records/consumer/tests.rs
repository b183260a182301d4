//! Golden bytes of groups of the KIP-848 protocol, written out by hand from Kafka's schemas.

use proptest::prelude::*;
use protocol::{PartitionIndex, TopicId};
use uuid::Uuid;

use super::{super::Change, *};

const TOPIC: u128 = 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10;
const TOPIC_BYTES: &[u8] = b"\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10";

/// Puts pieces of bytes together.
macro_rules! bytes {
    ($($piece:expr),* $(,)?) => {{
        let mut all: Vec<u8> = Vec::new();
        $(all.extend_from_slice(&$piece[..]);)*
        all
    }};
}

fn partitions(indexes: &[i32]) -> Assignment {
    let partitions = indexes.iter().copied().map(PartitionIndex).collect();
    Assignment::from([(TopicId(Uuid::from_u128(TOPIC)), partitions)])
}

fn subscription() -> MemberSubscription {
    MemberSubscription {
        instance_id: Some("i".into()),
        rack_id: None,
        client_id: "c".into(),
        client_host: "/::1".into(),
        topics: ["a".into(), "b".into()].into(),
        pattern: Some("x.*".into()),
        rebalance_timeout_ms: 300,
        server_assignor: Some("range".into()),
        classic: None,
    }
}

fn current() -> CurrentAssignment {
    CurrentAssignment {
        epoch: GroupEpoch(4),
        previous_epoch: GroupEpoch(3),
        state: MemberState::UnrevokedPartitions,
        assigned: partitions(&[0, 2]),
        revoking: partitions(&[5]),
    }
}

/// A key, a value, and what they mean.
type Row = (&'static [u8], Vec<u8>, ConsumerChange);

fn row(key: &'static [u8], value: Vec<u8>, change: ConsumerChange) -> Row {
    (key, value, change)
}

/// Every key with its value.
fn golden() -> Vec<Row> {
    let classic = MemberSubscription {
        instance_id: None,
        pattern: None,
        server_assignor: None,
        classic: Some(ClassicProtocols {
            session_timeout_ms: 100,
            protocols: vec![SupportedProtocol {
                name: "range".into(),
                metadata: Bytes::from_static(b"sub"),
            }],
        }),
        ..subscription()
    };
    let metadata = PartitionMetadata {
        topics: vec![TopicMetadata {
            id: TopicId(Uuid::from_u128(TOPIC)),
            name: "a".into(),
            partitions: 6,
            racks: vec![(PartitionIndex(1), ["r".into()].into())],
        }],
    };
    vec![
        row(
            b"\0\x03\0\x01g",
            bytes![b"\0\0", b"\0\0\0\x07", b"\0"],
            ConsumerChange::Group(Some(ConsumerGroupMetadata {
                epoch: GroupEpoch(7),
                metadata_hash: 0,
            })),
        ),
        row(
            b"\0\x03\0\x01g",
            bytes![
                b"\0\0",
                b"\0\0\0\x07",
                b"\x01\0\x08",           // one tagged field: tag 0 of 8 bytes
                b"\xff\0\0\0\0\0\0\x02"  // metadataHash
            ],
            ConsumerChange::Group(Some(ConsumerGroupMetadata {
                epoch: GroupEpoch(7),
                metadata_hash: 0xff00_0000_0000_0002_u64.cast_signed(),
            })),
        ),
        row(
            b"\0\x04\0\x01g",
            bytes![
                b"\0\0",
                b"\x02", // topics
                TOPIC_BYTES,
                b"\x02a",                     // topicName
                b"\0\0\0\x06",                // numPartitions
                b"\x02\0\0\0\x01\x02\x02r\0", // partitionMetadata: 1 in r
                b"\0\0"
            ],
            ConsumerChange::PartitionMetadata(Some(Arc::new(metadata))),
        ),
        row(
            b"\0\x05\0\x01g\0\x02m1",
            bytes![
                b"\0\0",
                b"\x02i",          // instanceId
                b"\0",             // rackId
                b"\x02c",          // clientId
                b"\x05/::1",       // clientHost
                b"\x03\x02a\x02b", // subscribedTopicNames
                b"\x04x.*",        // subscribedTopicRegex
                b"\0\0\x01\x2c",   // rebalanceTimeoutMs
                b"\x06range",      // serverAssignor
                b"\0"
            ],
            ConsumerChange::Member("m1".into(), Some(Arc::new(subscription()))),
        ),
        row(
            b"\0\x05\0\x01g\0\x02m1",
            bytes![
                b"\0\0",
                b"\0\0\x02c\x05/::1\x03\x02a\x02b",
                b"\x01", // no regex: an empty one
                b"\0\0\x01\x2c\0",
                b"\x01\0\x12", // one tagged field: tag 0 of 18 bytes
                b"\x01",       // classicMemberMetadata is not null
                b"\0\0\0\x64", // sessionTimeoutMs
                b"\x02\x06range\x04sub\0",
                b"\0"
            ],
            ConsumerChange::Member("m1".into(), Some(Arc::new(classic))),
        ),
        row(
            b"\0\x06\0\x01g",
            bytes![b"\0\0", b"\0\0\0\x06", b"\0"],
            ConsumerChange::TargetEpoch(Some(GroupEpoch(6))),
        ),
        row(
            b"\0\x07\0\x01g\0\x02m1",
            bytes![b"\0\0\x02", TOPIC_BYTES, b"\x03\0\0\0\0\0\0\0\x02\0", b"\0"],
            ConsumerChange::Target("m1".into(), Some(Arc::new(partitions(&[0, 2])))),
        ),
        row(
            b"\0\x08\0\x01g\0\x02m1",
            bytes![
                b"\0\0",
                b"\0\0\0\x04", // memberEpoch
                b"\0\0\0\x03", // previousMemberEpoch
                b"\x01",       // state
                b"\x02",
                TOPIC_BYTES,
                b"\x03\0\0\0\0\0\0\0\x02\0", // assignedPartitions
                b"\x02",
                TOPIC_BYTES,
                b"\x02\0\0\0\x05\0", // partitionsPendingRevocation
                b"\0"
            ],
            ConsumerChange::Current("m1".into(), Some(Arc::new(current()))),
        ),
        row(
            b"\0\x10\0\x01g\0\x03x.*",
            bytes![
                b"\0\0",
                b"\x02\x03xy",               // topics
                b"\0\0\0\0\0\0\0\x0b",       // version
                b"\0\0\0\0\x01\x02\x03\x04", // timestamp
                b"\0"
            ],
            ConsumerChange::Pattern(
                "x.*".into(),
                Some(Arc::new(ResolvedPattern {
                    topics: ["xy".into()].into(),
                    version: 11,
                    timestamp_ms: 0x0102_0304,
                })),
            ),
        ),
    ]
}

fn tombstone(change: &ConsumerChange) -> ConsumerChange {
    match change {
        ConsumerChange::Group(_) => ConsumerChange::Group(None),
        ConsumerChange::PartitionMetadata(_) => ConsumerChange::PartitionMetadata(None),
        ConsumerChange::Member(member, _) => ConsumerChange::Member(member.clone(), None),
        ConsumerChange::TargetEpoch(_) => ConsumerChange::TargetEpoch(None),
        ConsumerChange::Target(member, _) => ConsumerChange::Target(member.clone(), None),
        ConsumerChange::Current(member, _) => ConsumerChange::Current(member.clone(), None),
        ConsumerChange::Pattern(pattern, _) => ConsumerChange::Pattern(pattern.clone(), None),
    }
}

#[test]
fn every_record_is_written_and_read_as_kafka_does() {
    for (key, value, change) in golden() {
        let change = Change::Consumer("g".into(), change);
        let record = change.encode();
        assert_eq!(record.key, key, "{change:?}");
        assert_eq!(record.value.as_deref(), Some(&value[..]), "{change:?}");
        assert_eq!(Change::decode(key, Some(&value)), Ok(change));
    }
}

#[test]
fn tombstones_have_the_key_alone() {
    for (key, _, change) in golden() {
        assert!(!change.is_tombstone());
        let tombstone = tombstone(&change);
        assert!(tombstone.is_tombstone());
        let change = Change::Consumer("g".into(), tombstone);
        let record = change.encode();
        assert_eq!((&record.key[..], record.value), (key, None));
        assert_eq!(Change::decode(key, None), Ok(change));
    }
}

#[test]
fn a_record_that_is_cut_or_goes_on_is_refused() {
    for (key, value, change) in golden() {
        for end in 0..value.len() {
            let error = Change::decode(key, Some(&value[..end])).expect_err("cut");
            assert_eq!(error, RecordError::Truncated, "{change:?} {end}");
        }
        let longer = bytes![value, b"\0"];
        assert_eq!(
            Change::decode(key, Some(&longer)),
            Err(RecordError::LeftOver),
            "{change:?}"
        );
        let longer = bytes![key, b"\0"];
        assert_eq!(Change::decode(&longer, Some(&value)), Err(RecordError::LeftOver));
        let newer = bytes![b"\0\x01", value[2..]];
        let version = i16::from(key[1]);
        assert_eq!(
            Change::decode(key, Some(&newer)),
            Err(RecordError::UnsupportedValue {
                key: version,
                version: 1
            })
        );
    }
}

#[test]
fn what_later_versions_of_kafka_add_is_passed_over() {
    // Kafka 4.3: epochs of partitions under each topic, and when the target was computed.
    let value = bytes![
        b"\0\0\x02",
        TOPIC_BYTES,
        b"\x02\0\0\0\x01",
        b"\x01\0\x05\x02\0\0\0\x09",
        b"\0"
    ];
    assert_eq!(
        Change::decode(b"\0\x07\0\x01g\0\x02m1", Some(&value)),
        Ok(Change::Consumer(
            "g".into(),
            ConsumerChange::Target("m1".into(), Some(Arc::new(partitions(&[1]))))
        ))
    );
    assert_eq!(
        Change::decode(
            b"\0\x06\0\x01g",
            Some(b"\0\0\0\0\0\x06\x01\0\x08\0\0\0\0\0\0\0\x01")
        ),
        Ok(Change::Consumer(
            "g".into(),
            ConsumerChange::TargetEpoch(Some(GroupEpoch(6)))
        ))
    );
}

#[test]
fn impossible_numbers_are_refused() {
    let group = |value: &[u8]| Change::decode(b"\0\x03\0\x01g", Some(value));
    assert_eq!(group(b"\0\0\xff\xff\xff\xff\0"), Err(RecordError::Epoch(-1)));
    let current = |value: &[u8]| Change::decode(b"\0\x08\0\x01g\0\x02m1", Some(value));
    assert_eq!(
        current(b"\0\0\xff\xff\xff\xff\0\0\0\0\0\x01\x01\0"),
        Err(RecordError::Epoch(-1))
    );
    // A static member that will be back, in a state of a later version.
    let away = current(b"\0\0\xff\xff\xff\xfe\0\0\0\x03\x09\x01\x01\0").expect("Kafka writes it");
    let Change::Consumer(_, ConsumerChange::Current(_, Some(away))) = away else {
        panic!("{away:?}");
    };
    assert_eq!((away.epoch, away.state), (GroupEpoch::AWAY, MemberState::Unknown));
    let negative = bytes![b"\0\0\x02", TOPIC_BYTES, b"\x02\xff\xff\xff\xff\0", b"\0"];
    assert_eq!(
        Change::decode(b"\0\x07\0\x01g\0\x02m1", Some(&negative)),
        Err(RecordError::Partition(-1))
    );
    // A count that the bytes cannot have.
    assert_eq!(
        Change::decode(b"\0\x07\0\x01g\0\x02m1", Some(b"\0\0\xff\xff\xff\xff\x0f")),
        Err(RecordError::Truncated)
    );
}

proptest! {
    #[test]
    fn foreign_bytes_never_panic(value in prop::collection::vec(any::<u8>(), 0..120), key in 3u8..17) {
        let value = bytes![[0, 0], value];
        for key in [bytes![[0, key], b"\0\x01g"], bytes![[0, key], b"\0\x01g\0\x02m1"]] {
            if let Ok(change) = Change::decode(&key, Some(&value)) {
                let record = change.encode();
                prop_assert_eq!(Change::decode(&record.key, record.value.as_deref()), Ok(change));
            }
        }
    }
}
