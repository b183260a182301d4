//! Loads of logs that are whole, damaged in places, or not committed.

#[path = "../../../../../replication/tests/support/mod.rs"]
mod support;

use std::fs;
use std::path::PathBuf;

use bytes::Bytes;
use protocol::{CONSUMER_OFFSETS, PartitionIndex};
use support::{Broker, Cluster, ONE, TWO, eventually, replicate};

use super::super::journal;
use super::*;
use crate::coordinator::group::records::{Change, OffsetKey, OffsetValue};
use crate::coordinator::group::{CoordinatorRecord, Outcome};

const EPOCH: LeaderEpoch = LeaderEpoch(0);

/// What a group commits once.
fn commit(group: usize) -> CoordinatorRecord {
    let key = OffsetKey {
        group: name(group).as_str().into(),
        topic: "orders".into(),
        partition: PartitionIndex(0),
    };
    let value = OffsetValue {
        offset: Offset(7),
        leader_epoch: None,
        metadata: "".into(),
        commit_timestamp_ms: 1,
        expire_timestamp_ms: None,
    };
    Change::Offset(key, Some(value)).encode()
}

fn name(group: usize) -> String {
    format!("group-{group:02}")
}

async fn append(partition: &Partition, record: CoordinatorRecord) {
    append_all(partition, vec![record]).await;
}

async fn append_all(partition: &Partition, records: Vec<CoordinatorRecord>) {
    let outcome = Outcome {
        records,
        ..Outcome::default()
    };
    journal::append(partition, EPOCH, 1, &outcome)
        .await
        .expect("appended");
}

/// The leader of a partition of which it has the only replica, with a batch for each of so many groups.
pub(in super::super) async fn sole_leader(groups: usize) -> (Broker, Arc<Partition>) {
    let cluster = Cluster::with_brokers(&[ONE]);
    let tp = cluster.create_topic(CONSUMER_OFFSETS, &[ONE]);
    let broker = Broker::start(&cluster, ONE);
    broker.catch_up().await;
    let partition = broker.partition(tp);
    for group in 0..groups {
        append(&partition, commit(group)).await;
    }
    committed(&partition).await;
    (broker, partition)
}

async fn committed(partition: &Partition) {
    eventually("the commit of everything", || {
        let offsets = partition.offsets();
        offsets.high_watermark == offsets.log_end
    })
    .await;
}

async fn load_now(partition: &Arc<Partition>) -> Result<Loaded, LoadError> {
    let moved = Notify::new();
    load(
        partition,
        EPOCH,
        &moved,
        GroupConfig::default(),
        Arc::default(),
        Clock::start(),
    )
    .await
}

/// The groups that a shard has.
fn groups(loaded: &Loaded) -> Vec<String> {
    let snapshot = loaded.shard.snapshot();
    snapshot.0.keys().map(ToString::to_string).collect()
}

fn all_but(count: usize, gone: &[usize]) -> Vec<String> {
    (0..count)
        .filter(|group| !gone.contains(group))
        .map(name)
        .collect()
}

/// The log's file, and where its batches begin.
fn file_of(broker: &Broker, partition: &Partition) -> (PathBuf, Vec<usize>) {
    let log = broker.logs.get(partition.tp()).expect("open");
    let path = log.dir().join("00000000000000000000.log");
    let bytes = Bytes::from(fs::read(&path).expect("read"));
    let mut at = 0;
    let positions = Batches::new(bytes).map(|batch| {
        let begin = at;
        at += batch.expect("whole").0.size;
        begin
    });
    let positions = positions.collect();
    (path, positions)
}

fn overwrite(path: &PathBuf, at: usize, with: u8) {
    let mut bytes = fs::read(path).expect("read");
    assert_ne!(bytes[at], with);
    bytes[at] = with;
    fs::write(path, bytes).expect("write");
}

#[tokio::test]
async fn a_damaged_batch_is_skipped_and_all_others_load() {
    const GROUPS: usize = 60;
    // In a record, where the header still leads on; in the length, which leads nowhere; in the magic; a base
    // offset that the log does not reach.
    for (at, with) in [(70, 0xff), (8, 0x7f), (16, 9), (0, 0x7f)] {
        for damaged in [0, 31, GROUPS - 1] {
            let (broker, partition) = sole_leader(GROUPS).await;
            let (path, positions) = file_of(&broker, &partition);
            overwrite(&path, positions[damaged] + at, with);
            let loaded = load_now(&partition).await.expect("loads");
            assert_eq!(loaded.skipped, 1, "byte {at} of batch {damaged}");
            assert_eq!(groups(&loaded), all_but(GROUPS, &[damaged]));
            broker.stop().await;
        }
    }
}

/// Base offsets lie outside the checksum: the batches behind one that became larger are not passed over.
#[tokio::test]
async fn a_base_offset_that_leads_past_sound_batches_costs_its_own() {
    const GROUPS: usize = 60;
    for damaged in [0, 15, GROUPS - 2] {
        let (broker, partition) = sole_leader(GROUPS).await;
        let (path, positions) = file_of(&broker, &partition);
        overwrite(&path, positions[damaged] + 7, GROUPS as u8 - 1);
        let loaded = load_now(&partition).await.expect("loads");
        assert_eq!(groups(&loaded), all_but(GROUPS, &[damaged]));
        broker.stop().await;
    }
}

#[tokio::test]
async fn batches_of_several_records_that_contradict_each_other_do_not_hold_a_load() {
    let (broker, partition) = sole_leader(0).await;
    for batch in 0..5 {
        let records: Vec<_> = (5 * batch..5 * (batch + 1)).map(commit).collect();
        append_all(&partition, records).await;
    }
    committed(&partition).await;
    let (path, positions) = file_of(&broker, &partition);
    // The fourth batch says that it begins at 3.
    overwrite(&path, positions[3] + 7, 3);
    let loaded = load_now(&partition).await.expect("loads");
    let gone: Vec<_> = (10..20).collect();
    assert_eq!(groups(&loaded), all_but(25, &gone));
    broker.stop().await;
}

#[test]
fn a_batch_that_is_found_and_never_read_is_left_behind() {
    // What is found is always the batch of these offsets, sound by itself.
    let batch = 10..1000;
    let (mut from, mut tries, mut turns) = (Offset(batch.start), Tries::default(), 0);
    while from < Offset(batch.end) {
        let next = tries.asked(from);
        tries.found(from, next);
        assert!(next >= from);
        from = next;
        turns += 1;
    }
    assert_eq!(turns, i64::from(TRIES) + batch.end - batch.start);
    // Behind it, everything is tried as often again.
    tries.found(from, Offset(batch.end + 10));
    assert_eq!(tries.asked(from), from);
}

#[tokio::test]
async fn a_record_that_says_nothing_is_skipped_and_all_others_load() {
    let (broker, partition) = sole_leader(3).await;
    let cut_off = CoordinatorRecord {
        value: Some(Bytes::from_static(&[0, 3, 1])),
        ..commit(3)
    };
    append(&partition, cut_off).await;
    append(&partition, commit(4)).await;
    committed(&partition).await;
    let loaded = load_now(&partition).await.expect("loads");
    assert_eq!((loaded.records, loaded.skipped), (4, 1));
    assert_eq!(groups(&loaded), all_but(5, &[3]));
    broker.stop().await;
}

#[tokio::test]
async fn nothing_is_skipped_that_another_replica_has() {
    let cluster = Cluster::with_brokers(&[ONE, TWO]);
    let tp = cluster.create_topic(CONSUMER_OFFSETS, &[ONE, TWO]);
    let (one, two) = (Broker::start(&cluster, ONE), Broker::start(&cluster, TWO));
    for broker in [&one, &two] {
        broker.catch_up().await;
    }
    let partition = one.partition(tp);
    for group in 0..5 {
        append(&partition, commit(group)).await;
    }
    replicate(&one, &two, tp).await;
    let (path, positions) = file_of(&one, &partition);
    overwrite(&path, positions[2] + 70, 0xff);
    let outcome = load_now(&partition).await.map(|loaded| groups(&loaded));
    assert!(outcome.is_err(), "{outcome:?}");
    assert!(partition.leading().is_err(), "the replica is given up");
    for broker in [one, two] {
        broker.stop().await;
    }
}

#[tokio::test]
async fn what_is_not_committed_is_told_and_not_waited_for_without_end() {
    let cluster = Cluster::with_brokers(&[ONE, TWO]);
    let tp = cluster.create_topic(CONSUMER_OFFSETS, &[ONE, TWO]);
    cluster.set_config(CONSUMER_OFFSETS, "min.insync.replicas", "2");
    let (one, two) = (Broker::start(&cluster, ONE), Broker::start(&cluster, TWO));
    for broker in [&one, &two] {
        broker.catch_up().await;
    }
    let partition = one.partition(tp);
    append(&partition, commit(0)).await;
    tokio::time::pause();
    let outcome = load_now(&partition).await.map(|loaded| groups(&loaded));
    tokio::time::resume();
    let unsettled = |error: &LoadError| {
        matches!(error, LoadError::Unsettled { end, high_watermark }
            if (*end, *high_watermark) == (Offset(1), Offset(0)))
    };
    assert!(outcome.as_ref().is_err_and(unsettled), "{outcome:?}");
    replicate(&one, &two, tp).await;
    let loaded = load_now(&partition).await.expect("loads");
    assert_eq!(groups(&loaded), all_but(1, &[]));
    for broker in [one, two] {
        broker.stop().await;
    }
}
