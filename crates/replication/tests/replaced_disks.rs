//! An old disk is plugged in again after its replacement was filled: a replica lies in two log directories.

mod support;

use std::path::Path;
use std::sync::Arc;

use protocol::{BrokerEpoch, DirectoryId, ErrorCode, Offset, TopicPartition};
use replication::Acks;
use support::{Broker, Cluster, ONE, TWO, append};
use tempfile::TempDir;

/// The directory of the topic "events" on a disk, counted from 1.
fn replica_on(dir: &TempDir, disk: usize) -> std::path::PathBuf {
    dir.path().join(format!("disk-{disk}/events-0"))
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).expect("its place is free");
    for file in std::fs::read_dir(from).expect("listed") {
        let file = file.expect("listed");
        std::fs::copy(file.path(), to.join(file.file_name())).expect("copied");
    }
}

fn strays_on(dir: &TempDir, disk: usize) -> usize {
    let entries = std::fs::read_dir(dir.path().join(format!("disk-{disk}"))).expect("listed");
    let names = entries.map(|entry| entry.expect("listed").file_name());
    names
        .filter(|name| name.as_encoded_bytes().ends_with(b"-stray"))
        .count()
}

/// The metadata has the broker's replica in this directory.
fn assign(cluster: &Cluster, tp: TopicPartition, directory: DirectoryId) {
    cluster.change(tp, |record| {
        let at = record.replicas.iter().position(|&id| id == ONE);
        record.directories[at.expect("a replica")] = directory;
    });
}

fn next_run(cluster: &Cluster, dir: Arc<TempDir>, epoch: i64) -> Broker {
    cluster.register(ONE, BrokerEpoch(epoch));
    Broker::start_on(cluster, ONE, BrokerEpoch(epoch), dir, 2)
}

/// A replica of two records on the first disk, and one of only the first record on the second.
async fn plugged_in_again(cluster: &Cluster, tp: TopicPartition) -> Broker {
    let broker = Broker::with_disks(cluster, ONE, 2);
    assign(cluster, tp, broker.logs.directories()[0]);
    broker.catch_up().await;
    append(&broker.partition(tp), &["old"], Acks::Leader)
        .await
        .expect("written");
    let (_, _, dir) = broker.stop().await;
    let old = dir.path().join("old");
    copy(&replica_on(&dir, 1), &old);

    let broker = next_run(cluster, dir, 100);
    cluster.elect(tp, ONE, &[ONE]);
    broker.catch_up().await;
    append(&broker.partition(tp), &["new"], Acks::Leader)
        .await
        .expect("written");
    let (_, _, dir) = broker.stop().await;
    std::fs::rename(old, replica_on(&dir, 2)).expect("its place is free");
    next_run(cluster, dir, 200)
}

#[tokio::test]
async fn the_broker_serves_what_the_metadata_names_and_keeps_the_other() {
    for (disk, records) in [(1, 2), (2, 1)] {
        let cluster = Cluster::with_brokers(&[ONE]);
        let tp = cluster.create_topic("events", &[ONE]);
        let broker = plugged_in_again(&cluster, tp).await;
        assign(&cluster, tp, broker.logs.directories()[disk - 1]);
        cluster.elect(tp, ONE, &[ONE]);
        broker.catch_up().await;
        let partition = broker.partition(tp);
        assert_eq!(partition.log().log_end_offset(), Offset(records));
        append(&partition, &["on"], Acks::All).await.unwrap();
        assert!(broker.manager.failed_replicas().is_empty());
        drop(partition);
        let (_, _, dir) = broker.stop().await;
        assert_eq!(strays_on(&dir, 3 - disk), 1);
        assert_eq!(strays_on(&dir, disk), 0);
    }
}

#[tokio::test]
async fn a_replica_that_the_metadata_has_nowhere_is_offline_alone_until_nobody_counts_on_it() {
    let cluster = Cluster::with_brokers(&[ONE, TWO]);
    let tp = cluster.create_topic("events", &[ONE, TWO]);
    let other = cluster.create_topic("other", &[ONE]);
    cluster.elect(tp, ONE, &[ONE]);
    let broker = plugged_in_again(&cluster, tp).await;
    assign(&cluster, tp, DirectoryId::ZERO);
    cluster.elect(other, ONE, &[ONE]);
    // In sync; then eligible, while its leader may die any moment; then neither.
    for (isr, elr) in [(vec![TWO, ONE], vec![]), (vec![TWO], vec![ONE])] {
        cluster.elect(tp, TWO, &isr);
        cluster.change(tp, |record| record.elr = elr);
        broker.catch_up().await;
        assert_eq!(
            broker.manager.partition(tp).unwrap_err(),
            ErrorCode::KafkaStorageError
        );
        assert_eq!(broker.manager.failed_replicas(), [tp]);
        append(&broker.partition(other), &["on"], Acks::All)
            .await
            .unwrap();
    }
    cluster.change(tp, |record| record.elr.clear());
    broker.catch_up().await;
    assert_eq!(
        broker.partition(tp).log().log_end_offset(),
        Offset(0),
        "begun anew"
    );
    let (_, _, dir) = broker.stop().await;
    assert_eq!([1, 2].map(|disk| strays_on(&dir, disk)), [1, 1], "both are kept");
}
