//! Golden bytes, written out by hand from Kafka's schemas, and what foreign bytes may not do.

use bytes::Bytes;
use proptest::prelude::*;
use protocol::{LeaderEpoch, Offset, PartitionIndex};

use super::{super::ids::GenerationId, *};

/// Puts pieces of bytes together.
macro_rules! bytes {
    ($($piece:expr),* $(,)?) => {{
        let mut all: Vec<u8> = Vec::new();
        $(all.extend_from_slice(&$piece[..]);)*
        all
    }};
}

fn offset_key() -> OffsetKey {
    OffsetKey {
        group: "g".into(),
        topic: "orders".into(),
        partition: PartitionIndex(5),
    }
}

fn offset_value() -> OffsetValue {
    OffsetValue {
        offset: Offset(0x1122),
        leader_epoch: Some(LeaderEpoch(7)),
        metadata: "note".into(),
        commit_timestamp_ms: 0x0102_0304,
        expire_timestamp_ms: None,
    }
}

const OFFSET_KEY_1: &[u8] = b"\0\x01\0\x01g\0\x06orders\0\0\0\x05";

#[test]
fn a_committed_offset_is_written_as_kafka_writes_it() {
    let record = Change::Offset(offset_key(), Some(offset_value())).encode();
    assert_eq!(record.key, OFFSET_KEY_1);
    let value = bytes![
        b"\0\x03",                   // version
        b"\0\0\0\0\0\0\x11\x22",     // offset
        b"\0\0\0\x07",               // leaderEpoch
        b"\0\x04note",               // metadata
        b"\0\0\0\0\x01\x02\x03\x04"  // commitTimestamp
    ];
    assert_eq!(record.value.as_deref(), Some(&value[..]));
}

#[test]
fn an_offset_with_an_expiry_is_written_in_version_1() {
    let value = OffsetValue {
        expire_timestamp_ms: Some(9),
        ..offset_value()
    };
    let record = Change::Offset(offset_key(), Some(value)).encode();
    let bytes = bytes![
        b"\0\x01",
        b"\0\0\0\0\0\0\x11\x22",
        b"\0\x04note",
        b"\0\0\0\0\x01\x02\x03\x04",
        b"\0\0\0\0\0\0\0\x09"
    ];
    assert_eq!(record.value.as_deref(), Some(&bytes[..]));
}

#[test]
fn every_version_of_a_committed_offset_is_read() {
    let plain = OffsetValue {
        leader_epoch: None,
        ..offset_value()
    };
    let common: &[u8] = b"\0\0\0\0\0\0\x11\x22\0\x04note\0\0\0\0\x01\x02\x03\x04";
    let cases = [
        (bytes![b"\0\0", common], plain.clone()),
        (bytes![b"\0\x01", common, [0xff; 8]], plain.clone()),
        (bytes![b"\0\x02", common], plain),
        (
            // Flexible, with a tagged field (a topic id, as later brokers write it).
            bytes![
                b"\0\x04",
                b"\0\0\0\0\0\0\x11\x22\0\0\0\x07\x05note\0\0\0\0\x01\x02\x03\x04",
                b"\x01\0\x10",
                [0xaa; 16]
            ],
            offset_value(),
        ),
    ];
    for (bytes, value) in cases {
        for key_version in [0, 1] {
            let mut key = OFFSET_KEY_1.to_vec();
            key[1] = key_version;
            assert_eq!(
                Change::decode(&key, Some(&bytes)),
                Ok(Change::Offset(offset_key(), Some(value.clone()))),
                "{bytes:?}"
            );
        }
    }
}

fn group() -> GroupMetadata {
    GroupMetadata {
        protocol_type: "consumer".into(),
        generation: GenerationId(3),
        protocol: Some("range".into()),
        leader: Some("a-1".into()),
        state_timestamp_ms: Some(0x0a0b),
        members: vec![MemberMetadata {
            member_id: "a-1".into(),
            instance_id: Some("i".into()),
            client_id: "a".into(),
            client_host: "/::1".into(),
            rebalance_timeout_ms: 300,
            session_timeout_ms: 100,
            subscription: Bytes::from_static(b"sub"),
            assignment: Bytes::from_static(b"own"),
        }],
    }
}

#[test]
fn a_group_is_written_as_kafka_writes_it() {
    let record = Change::Classic("g".into(), Some(Arc::new(group()))).encode();
    assert_eq!(&record.key[..], b"\0\x02\0\x01g");
    let value = bytes![
        b"\0\x03",               // version
        b"\0\x08consumer",       // protocolType
        b"\0\0\0\x03",           // generation
        b"\0\x05range",          // protocol
        b"\0\x03a-1",            // leader
        b"\0\0\0\0\0\0\x0a\x0b", // currentStateTimestamp
        b"\0\0\0\x01",           // members
        b"\0\x03a-1",            // memberId
        b"\0\x01i",              // groupInstanceId
        b"\0\x01a",              // clientId
        b"\0\x04/::1",           // clientHost
        b"\0\0\x01\x2c",         // rebalanceTimeout
        b"\0\0\0\x64",           // sessionTimeout
        b"\0\0\0\x03sub",        // subscription
        b"\0\0\0\x03own",        // assignment
    ];
    assert_eq!(record.value.as_deref(), Some(&value[..]));
}

#[test]
fn an_empty_group_and_tombstones_are_written_as_kafka_writes_them() {
    let empty = GroupMetadata {
        protocol: None,
        leader: None,
        members: Vec::new(),
        ..group()
    };
    let record = Change::Classic("g".into(), Some(Arc::new(empty))).encode();
    let value: &[u8] = b"\0\x03\0\x08consumer\0\0\0\x03\xff\xff\xff\xff\0\0\0\0\0\0\x0a\x0b\0\0\0\0";
    assert_eq!(record.value.as_deref(), Some(value));
    assert_eq!(Change::Classic("g".into(), None).encode().value, None);
    let tombstone = Change::Offset(offset_key(), None).encode();
    assert_eq!((&tombstone.key[..], tombstone.value), (OFFSET_KEY_1, None));
}

#[test]
fn every_version_of_a_group_is_read() {
    let head: &[u8] = b"\0\x08consumer\0\0\0\x03\0\x05range\0\x03a-1";
    let since: &[u8] = b"\0\0\0\0\0\0\x0a\x0b";
    let tail: &[u8] = b"\0\0\0\x03sub\0\0\0\x03own";
    let older = |state: Option<i64>, rebalance: i32| {
        let mut group = group();
        group.state_timestamp_ms = state;
        group.members[0].instance_id = None;
        group.members[0].rebalance_timeout_ms = rebalance;
        group
    };
    let one: &[u8] = b"\0\0\0\x01\0\x03a-1";
    let client: &[u8] = b"\0\x01a\0\x04/::1";
    let cases = [
        (
            bytes![b"\0\0", head, one, client, b"\0\0\0\x64", tail],
            older(None, 100),
        ),
        (
            bytes![b"\0\x01", head, one, client, b"\0\0\x01\x2c\0\0\0\x64", tail],
            older(None, 300),
        ),
        (
            bytes![
                b"\0\x02",
                head,
                since,
                one,
                client,
                b"\0\0\x01\x2c\0\0\0\x64",
                tail
            ],
            older(Some(0x0a0b), 300),
        ),
        (
            bytes![
                b"\0\x04\x09consumer\0\0\0\x03\x06range\x04a-1",
                since,
                b"\x02\x04a-1\x02i\x02a\x05/::1\0\0\x01\x2c\0\0\0\x64\x04sub\x04own",
                b"\x01\x63\x02zz", // an unknown tagged field of the member
                b"\0",
            ],
            group(),
        ),
    ];
    for (bytes, value) in cases {
        assert_eq!(
            Change::decode(b"\0\x02\0\x01g", Some(&bytes)),
            Ok(Change::Classic("g".into(), Some(Arc::new(value)))),
            "{bytes:?}"
        );
    }
}

#[test]
fn what_cannot_be_read_is_refused_by_name() {
    let value = Change::Offset(offset_key(), Some(offset_value()))
        .encode()
        .value
        .expect("no tombstone");
    let decode = |key: &[u8], value: &[u8]| Change::decode(key, Some(value)).unwrap_err();
    for version in (9..=15).chain(17..=20) {
        assert_eq!(
            decode(&[0, version, 0, 1, b'g'], b"\0\0"),
            RecordError::UnsupportedKey(version.into())
        );
    }
    assert_eq!(
        decode(OFFSET_KEY_1, b"\0\x05\0\0"),
        RecordError::UnsupportedValue { key: 1, version: 5 }
    );
    assert_eq!(
        decode(b"\0\x02\0\x01g", b"\xff\xff"),
        RecordError::UnsupportedValue { key: 2, version: -1 }
    );
    assert_eq!(decode(b"\0", &value), RecordError::Truncated);
    assert_eq!(decode(b"\0\x02\xff\xff", &value), RecordError::Null);
    assert_eq!(decode(b"\0\x02\x80\0", &value), RecordError::Length);
    assert_eq!(decode(b"\0\x02\0\x01\xff", &value), RecordError::Utf8);
    assert_eq!(decode(OFFSET_KEY_1, &bytes![value, b"x"]), RecordError::LeftOver);
    for end in 0..value.len() {
        assert_eq!(decode(OFFSET_KEY_1, &value[..end]), RecordError::Truncated);
    }
    let mut twice = group();
    twice.members.push(twice.members[0].clone());
    let without_protocol = GroupMetadata {
        protocol: None,
        ..group()
    };
    for contradiction in [twice, without_protocol] {
        let record = Change::Classic("g".into(), Some(Arc::new(contradiction))).encode();
        assert_eq!(
            Change::decode(&record.key, record.value.as_deref()),
            Err(RecordError::Inconsistent)
        );
    }
}

proptest! {
    #[test]
    fn foreign_bytes_never_panic(key in prop::collection::vec(any::<u8>(), 0..60),
                                 value in prop::collection::vec(any::<u8>(), 0..120),
                                 key_version in 0u8..18, value_version in 0u8..6) {
        let key = bytes![[0, key_version], key];
        let value = bytes![[0, value_version], value];
        let _ = Change::decode(&key, Some(&value));
        let _ = Change::decode(OFFSET_KEY_1, Some(&value));
        let _ = Change::decode(b"\0\x02\0\x01g", Some(&value));
    }

    #[test]
    fn what_is_written_is_read_as_it_was(offset: i64, epoch in prop::option::of(0i32..),
                                         metadata in ".{0,40}", at: i64,
                                         expire in prop::option::of(0i64..)) {
        let value = OffsetValue {
            offset: Offset(offset),
            // Version 1, which alone has an expiry, has no epoch.
            leader_epoch: epoch.filter(|_| expire.is_none()).map(LeaderEpoch),
            metadata: metadata.into(),
            commit_timestamp_ms: at,
            expire_timestamp_ms: expire,
        };
        let change = Change::Offset(offset_key(), Some(value));
        let record = change.encode();
        prop_assert_eq!(Change::decode(&record.key, record.value.as_deref()), Ok(change));
    }
}
