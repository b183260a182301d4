//! The records of `__consumer_offsets`: whatever lies there, a coordinator loads it.
//!
//! The input is a row of records: a byte that says whether there is a value, the key's length (one
//! byte), the key, and the value's length (two bytes) with the value.

use broker::coordinator::group::{
    Assignment, GroupConfig, GroupEpoch, GroupShard, Now,
    records::{
        Change, ClassicProtocols, ConsumerChange, ConsumerGroupMetadata, CurrentAssignment, GroupMetadata,
        MemberMetadata, MemberState, MemberSubscription, OffsetKey, OffsetValue, PartitionMetadata,
        ResolvedPattern, SupportedProtocol, TopicMetadata,
    },
};
use bytes::Bytes;
use protocol::{LeaderEpoch, Offset, PartitionIndex, TopicId};

/// A record's key and value.
type Record<'a> = (&'a [u8], Option<&'a [u8]>);

/// Takes the first record off; `None` when there is no whole one.
fn split(data: &[u8]) -> Option<(Record<'_>, &[u8])> {
    let (&[has_value, key_len], rest) = data.split_first_chunk()?;
    let (key, rest) = rest.split_at_checked(key_len.into())?;
    if has_value & 1 == 0 {
        return Some(((key, None), rest));
    }
    let (len, rest) = rest.split_first_chunk()?;
    let (value, rest) = rest.split_at_checked(u16::from_be_bytes(*len).into())?;
    Some(((key, Some(value)), rest))
}

/// Decoding takes any bytes; what is accepted is written and read again as it was; a shard that has
/// loaded it lives on until nothing is due, and what it writes on the way says what it holds.
///
/// # Panics
/// When that is not so.
pub fn run(data: &[u8]) {
    let mut shard = GroupShard::new(GroupConfig::default());
    let mut follower = GroupShard::new(GroupConfig::default());
    let mut rest = data;
    while let Some(((key, value), after)) = split(rest) {
        rest = after;
        if let Ok(change) = Change::decode(key, value) {
            let record = change.encode();
            let again = Change::decode(&record.key, record.value.as_deref());
            assert_eq!(again, Ok(change), "written as it was read");
            let replayed = follower.replay(&record.key, record.value.as_deref());
            replayed.expect("what was written can be read");
            shard.replay(key, value).expect("what was decoded");
        } else {
            let before = shard.snapshot();
            assert!(shard.replay(key, value).is_err());
            assert_eq!(shard.snapshot(), before, "what cannot be read changes nothing");
        }
    }
    assert_eq!(
        shard.snapshot(),
        follower.snapshot(),
        "every version says the same"
    );

    let mut now = Now {
        instant_ms: 0,
        wall_ms: 1_700_000_000_000,
    };
    shard.loaded(now);
    // Sessions, rebalances and expiries; a group has few of them before nobody is left.
    for _ in 0..64 {
        let Some(due) = shard.next_deadline() else {
            break;
        };
        now.wall_ms = now.wall_ms.saturating_add_unsigned(due - now.instant_ms);
        now.instant_ms = due;
        let outcome = shard.tick(now);
        assert!(outcome.replies.is_empty(), "nobody asked");
        for record in outcome.records {
            let replayed = follower.replay(&record.key, record.value.as_deref());
            replayed.expect("what was written can be read");
        }
        assert_eq!(shard.snapshot(), follower.snapshot(), "the log says it all");
    }
    assert!(shard.unload().is_empty(), "nobody waits");
}

/// One record in the target's form.
fn framed(key: &[u8], value: Option<&[u8]>) -> Vec<u8> {
    let mut bytes = vec![u8::from(value.is_some()), key.len() as u8];
    bytes.extend(key);
    if let Some(value) = value {
        bytes.extend((value.len() as u16).to_be_bytes());
        bytes.extend(value);
    }
    bytes
}

/// Where a fuzzer begins: a name and an input each.
pub fn seeds() -> Vec<(String, Vec<u8>)> {
    let offset_key = OffsetKey {
        group: "group".into(),
        topic: "topic".into(),
        partition: PartitionIndex(3),
    };
    let offset = OffsetValue {
        offset: Offset(42),
        leader_epoch: Some(LeaderEpoch(7)),
        metadata: "note".into(),
        commit_timestamp_ms: 1_600_000_000_000,
        expire_timestamp_ms: None,
    };
    let brief = OffsetValue {
        leader_epoch: None,
        expire_timestamp_ms: Some(1_700_000_000_001),
        ..offset.clone()
    };
    let member = |name: &str, is_static: bool| MemberMetadata {
        member_id: format!("{name}-1").into(),
        instance_id: is_static.then(|| name.into()),
        client_id: name.into(),
        client_host: "/127.0.0.1".into(),
        rebalance_timeout_ms: 60_000,
        session_timeout_ms: 10_000,
        subscription: Bytes::from_static(b"\0\x01\0\0\0\x01\0\x05topic\xff\xff\xff\xff"),
        assignment: Bytes::from_static(b"\0\x01\0\0\0\0\xff\xff\xff\xff"),
    };
    let group = |protocol_type: &str, members: Vec<MemberMetadata>| GroupMetadata {
        protocol_type: protocol_type.into(),
        generation: broker::coordinator::group::GenerationId(5),
        protocol: (!members.is_empty()).then(|| "range".into()),
        leader: members.first().map(|member| member.member_id.clone()),
        state_timestamp_ms: Some(1_600_000_000_000),
        members,
    };
    let written = |change: Change| {
        let record = change.encode();
        framed(&record.key, record.value.as_deref())
    };
    let group_record =
        |value: Option<GroupMetadata>| written(Change::Classic("group".into(), value.map(Into::into)));
    let offset_record = |value: Option<OffsetValue>| written(Change::Offset(offset_key.clone(), value));
    let stable = || group("consumer", vec![member("a", false), member("b", true)]);
    let mut seeds = vec![
        ("nothing".to_owned(), Vec::new()),
        ("offset".to_owned(), offset_record(Some(offset.clone()))),
        ("offset-with-expiry".to_owned(), offset_record(Some(brief))),
        ("offset-tombstone".to_owned(), offset_record(None)),
        ("group-of-consumers".to_owned(), group_record(Some(stable()))),
        (
            "group-of-workers".to_owned(),
            group_record(Some(group("connect", vec![member("a", true)]))),
        ),
        (
            "empty-group".to_owned(),
            group_record(Some(group("consumer", Vec::new()))),
        ),
        ("group-tombstone".to_owned(), group_record(None)),
        (
            "same-member-twice".to_owned(),
            group_record(Some(group(
                "consumer",
                vec![member("a", false), member("a", false)],
            ))),
        ),
        (
            "group-and-offset".to_owned(),
            [group_record(Some(stable())), offset_record(Some(offset.clone()))].concat(),
        ),
        (
            "offset-and-deletion".to_owned(),
            [
                offset_record(Some(offset)),
                group_record(Some(stable())),
                offset_record(None),
                group_record(None),
            ]
            .concat(),
        ),
    ];
    // Every version of the values, in the oldest form of the keys, and one version too many.
    let common: &[u8] = b"\0\0\0\0\0\0\0\x2a\0\x04note\0\0\x01\x74\x76\xdc\x58\0";
    let flexible: &[u8] = b"\0\0\0\0\0\0\0\x2a\0\0\0\x07\x05note\0\0\x01\x74\x76\xdc\x58\0\0";
    let offset_key = b"\0\0\0\x05group\0\x05topic\0\0\0\x03";
    for (version, tail) in [
        (0, common.to_vec()),
        (1, [common, &[0xff; 8]].concat()),
        (2, common.to_vec()),
        (4, flexible.to_vec()),
        (5, flexible.to_vec()),
    ] {
        let value = [&[0, version], &tail[..]].concat();
        seeds.push((format!("offset-v{version}"), framed(offset_key, Some(&value))));
    }
    let head: &[u8] = b"\0\x08consumer\0\0\0\x05\0\x05range\0\x03a-1";
    let since: &[u8] = b"\0\0\x01\x74\x76\xdc\x58\0";
    let one: &[u8] = b"\0\0\0\x01\0\x03a-1\0\x01a\0\x04/::1";
    let tail: &[u8] = b"\0\0\0\x64\0\0\0\0\0\0\0\0";
    let rebalance: &[u8] = b"\0\0\x01\x2c";
    let compact: &[u8] = b"\x02\x04a-1\0\x02a\x05/::1\0\0\x01\x2c\0\0\0\x64\x01\x01\0\0";
    let compact_head: &[u8] = b"\x09consumer\0\0\0\x05\x06range\x04a-1";
    for (version, body) in [
        (0, [head, one, tail].concat()),
        (1, [head, one, rebalance, tail].concat()),
        (2, [head, since, one, rebalance, tail].concat()),
        (4, [compact_head, since, compact].concat()),
        (5, [compact_head, since, compact].concat()),
    ] {
        let value = [&[0, version], &body[..]].concat();
        seeds.push((
            format!("group-v{version}"),
            framed(b"\0\x02\0\x05group", Some(&value)),
        ));
    }
    for version in [3, 8, 9, 15, 17] {
        seeds.push((
            format!("key-v{version}"),
            framed(&[0, version, 0, 1, b'g'], Some(b"\0\0\0\0\0\x01")),
        ));
    }
    let stable = stable();
    let lives: [(&str, Vec<Vec<u8>>); 4] = [
        ("consumer-group", consumer_group(false)),
        ("consumer-group-with-classic-member", consumer_group(true)),
        (
            "upgrade",
            [
                vec![group_record(Some(stable.clone())), group_record(None)],
                consumer_group(true),
            ]
            .concat(),
        ),
        (
            "downgrade",
            [
                consumer_group(true),
                tombstones(),
                vec![group_record(Some(stable))],
            ]
            .concat(),
        ),
    ];
    for (name, records) in lives {
        for (n, record) in records.iter().enumerate() {
            seeds.push((format!("{name}-{n}"), record.clone()));
        }
        seeds.push((name.to_owned(), records.concat()));
    }
    seeds
}

fn consumer_record(change: ConsumerChange) -> Vec<u8> {
    let record = Change::Consumer("group".into(), change).encode();
    framed(&record.key, record.value.as_deref())
}

/// A group of the KIP-848 protocol: one member waits for what the other is to give up.
fn consumer_group(with_classic: bool) -> Vec<Vec<u8>> {
    let topic = TopicId(uuid::Uuid::from_u128(7));
    let partitions = |indexes: &[i32]| -> Assignment {
        let indexes = indexes.iter().copied().map(PartitionIndex).collect();
        [(topic, indexes)].into()
    };
    let subscription = |classic: bool| MemberSubscription {
        instance_id: (!classic).then(|| "b".into()),
        rack_id: Some("r".into()),
        client_id: "client".into(),
        client_host: "/127.0.0.1".into(),
        topics: ["topic".into()].into(),
        pattern: (!classic).then(|| "t.*".into()),
        rebalance_timeout_ms: 60_000,
        server_assignor: Some("range".into()),
        classic: classic.then(|| ClassicProtocols {
            session_timeout_ms: 10_000,
            protocols: vec![SupportedProtocol {
                name: "range".into(),
                metadata: Bytes::from_static(b"\0\x01\0\0\0\x01\0\x05topic\xff\xff\xff\xff\0\0\0\0"),
            }],
        }),
    };
    let current = |epoch, state, assigned: &[i32], revoking: &[i32]| CurrentAssignment {
        epoch: GroupEpoch(epoch),
        previous_epoch: GroupEpoch(epoch - 1),
        state,
        assigned: partitions(assigned),
        revoking: if revoking.is_empty() {
            Assignment::new()
        } else {
            partitions(revoking)
        },
    };
    let revoking = current(4, MemberState::UnrevokedPartitions, &[0], &[1]);
    let waiting = current(5, MemberState::UnreleasedPartitions, &[2], &[]);
    let racks = vec![(PartitionIndex(0), ["r".into()].into())];
    let changes = [
        ConsumerChange::PartitionMetadata(Some(
            PartitionMetadata {
                topics: vec![TopicMetadata {
                    id: topic,
                    name: "topic".into(),
                    partitions: 3,
                    racks,
                }],
            }
            .into(),
        )),
        ConsumerChange::Member("a-1".into(), Some(subscription(with_classic).into())),
        ConsumerChange::Member("b-1".into(), Some(subscription(false).into())),
        ConsumerChange::Pattern(
            "t.*".into(),
            Some(
                ResolvedPattern {
                    topics: ["topic".into()].into(),
                    version: 3,
                    timestamp_ms: 1_600_000_000_000,
                }
                .into(),
            ),
        ),
        ConsumerChange::Group(Some(ConsumerGroupMetadata {
            epoch: GroupEpoch(5),
            metadata_hash: 77,
        })),
        ConsumerChange::Target("a-1".into(), Some(partitions(&[0]).into())),
        ConsumerChange::Target("b-1".into(), Some(partitions(&[1, 2]).into())),
        ConsumerChange::TargetEpoch(Some(GroupEpoch(5))),
        ConsumerChange::Current("a-1".into(), Some(revoking.into())),
        ConsumerChange::Current("b-1".into(), Some(waiting.into())),
    ];
    changes.into_iter().map(consumer_record).collect()
}

/// What leaves nothing of [`consumer_group`].
fn tombstones() -> Vec<Vec<u8>> {
    let mut changes = Vec::new();
    for member in ["a-1", "b-1"] {
        changes.push(ConsumerChange::Current(member.into(), None));
        changes.push(ConsumerChange::Target(member.into(), None));
        changes.push(ConsumerChange::Member(member.into(), None));
    }
    changes.push(ConsumerChange::TargetEpoch(None));
    changes.push(ConsumerChange::Pattern("t.*".into(), None));
    changes.push(ConsumerChange::PartitionMetadata(None));
    changes.push(ConsumerChange::Group(None));
    changes.into_iter().map(consumer_record).collect()
}
