//! Several log directories: replicas move between them while they work, and go with one that fails.

mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use protocol::batch::Batches;
use protocol::{
    BrokerEpoch, BrokerId, DirectoryId, ErrorCode, Offset, PartitionIndex, TopicName, TopicPartition,
};
use replication::{Acks, AppendRefused, AssignError, DirectoryChannel, Partition, RoleError};
use support::{Broker, Cluster, ONE, TWO, append, eventually, produce, read_from, soon};
use tokio::time::{Instant, timeout_at};

/// Appends under way at most.
const QUEUE: usize = 1000;

/// A controller that notes every directory, but whose first answers are lost.
struct Notes {
    cluster: Cluster,
    broker: BrokerId,
    lost: AtomicUsize,
    /// A disk that breaks as soon as a directory is noted.
    breaking: Mutex<Option<PathBuf>>,
}

impl DirectoryChannel for Notes {
    fn assign(
        &self,
        tp: TopicPartition,
        directory: DirectoryId,
    ) -> BoxFuture<'static, Result<(), AssignError>> {
        self.cluster.change(tp, |record| {
            let at = record.replicas.iter().position(|&id| id == self.broker);
            record.directories[at.expect("a replica")] = directory;
        });
        if let Some(path) = self.breaking.lock().take() {
            break_disk(&path);
        }
        let lost = self
            .lost
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |lost| lost.checked_sub(1));
        Box::pin(std::future::ready(match lost {
            Ok(_) => Err(AssignError::Unknown),
            Err(_) => Ok(()),
        }))
    }
}

/// A broker with two directories; the first so many answers of its controller are lost.
fn two_disks(cluster: &Cluster, lost: usize) -> Broker {
    let broker = Broker::with_disks(cluster, ONE, 2);
    note(&broker, lost);
    broker
}

fn note(broker: &Broker, lost: usize) {
    note_and_break(broker, lost, None);
}

/// As [`note`]; with the first directory that is noted a disk breaks.
fn note_and_break(broker: &Broker, lost: usize, disk: Option<usize>) {
    broker.manager.set_directory_channel(Arc::new(Notes {
        cluster: broker.cluster.clone(),
        broker: broker.id,
        lost: AtomicUsize::new(lost),
        breaking: Mutex::new(disk.map(|disk| broker.disk(disk))),
    }));
}

/// Takes a log directory away, and leaves what is none in its place.
fn break_disk(path: &Path) {
    std::fs::rename(path, path.with_extension("away")).expect("the directory is there");
    std::fs::write(path, "").expect("its place is free");
}

/// Brings back what [`break_disk`] took away.
fn mend_disk(path: &Path) {
    std::fs::remove_file(path).expect("the directory is away");
    std::fs::rename(path.with_extension("away"), path).expect("its place is free");
}

/// The metadata has the replica in a log directory, counted from 1.
fn place(broker: &Broker, tp: TopicPartition, disk: usize) {
    let directory = broker.logs.directories()[disk - 1];
    broker
        .cluster
        .change(tp, |record| record.directories = vec![directory]);
}

async fn alter(broker: &Broker, topic: &str, disk: usize) -> ErrorCode {
    let topic = TopicName::new(topic).expect("a valid name");
    broker
        .manager
        .alter_log_dir(&topic, PartitionIndex(0), &broker.disk(disk), soon())
        .await
}

/// The directory that the replica lies in, counted from 1, once it is not on its way.
fn disk_of(broker: &Broker, tp: TopicPartition) -> Option<usize> {
    let home = broker.logs.directory_of(tp)?;
    let at = broker.logs.directories().iter().position(|&id| id == home)?;
    broker.logs.future(tp).is_none().then_some(at + 1)
}

async fn values(partition: &Partition) -> usize {
    let end = partition.offsets().high_watermark;
    let mut from = 0;
    while Offset(from) < end {
        let read = partition.read(read_from(from)).await.expect("read");
        let last = Batches::new(read.records).last().expect("more is committed");
        from = last.expect("whole batches").0.next_offset().get();
    }
    from as usize
}

#[tokio::test]
async fn a_replica_moves_while_it_is_written_to() {
    for lost_answers in [0, 3] {
        let cluster = Cluster::with_brokers(&[ONE]);
        let tp = cluster.create_topic("events", &[ONE]);
        let broker = two_disks(&cluster, lost_answers);
        broker.catch_up().await;
        assert_eq!(disk_of(&broker, tp), Some(1));
        let partition = broker.partition(tp);
        let mut written = 0;
        for disk in [2, 1, 2] {
            let mut tickets = Vec::new();
            for _ in 0..100 {
                tickets.push(partition.append(produce(&["a value"], Acks::All)));
            }
            assert_eq!(alter(&broker, "events", disk).await, ErrorCode::None);
            eventually("the move", || {
                // While the replica is held they wait in its queue, which is bounded.
                if tickets.len() < QUEUE {
                    tickets.push(partition.append(produce(&["a value"], Acks::All)));
                }
                disk_of(&broker, tp) == Some(disk)
            })
            .await;
            for ticket in tickets {
                let result = ticket.committed(soon()).await.unwrap();
                assert_eq!(
                    result.base_offset,
                    Offset(written),
                    "in order, and each of them once"
                );
                written += 1;
            }
            let home = broker.logs.directory_of(tp).unwrap();
            let noted = cluster.image().partition(tp).unwrap().directory_of(ONE);
            assert_eq!(noted, Some(home), "the metadata knows");
            broker.catch_up().await;
        }
        assert_eq!(values(&partition).await as i64, written);

        drop(partition);
        let broker = broker.restart().await;
        note(&broker, 0);
        cluster.elect(tp, ONE, &[ONE]);
        broker.catch_up().await;
        assert_eq!(disk_of(&broker, tp), Some(2));
        let partition = broker.partition(tp);
        assert_eq!(partition.log().log_end_offset(), Offset(written));
        append(&partition, &["on"], Acks::All).await.unwrap();
        broker.stop().await;
    }
}

#[tokio::test]
async fn a_move_goes_on_after_a_restart() {
    let cluster = Cluster::with_brokers(&[ONE]);
    let tp = cluster.create_topic("events", &[ONE]);
    // Nobody ever says what the metadata names: the broker ends while it waits for that.
    let broker = two_disks(&cluster, usize::MAX);
    place(&broker, tp, 1);
    broker.catch_up().await;
    let partition = broker.partition(tp);
    for _ in 0..10 {
        append(&partition, &["a value"], Acks::All).await.unwrap();
    }
    let future = broker.logs.directories()[1];
    assert_eq!(alter(&broker, "events", 2).await, ErrorCode::None);
    eventually("the swap", || {
        let image = cluster.image();
        image.partition(tp).unwrap().directory_of(ONE) == Some(future)
    })
    .await;
    drop(partition);

    let broker = broker.restart().await;
    note(&broker, 0);
    cluster.elect(tp, ONE, &[ONE]);
    broker.catch_up().await;
    // It lies in the first directory still, of which the controller is told first.
    let first = broker.logs.directories()[0];
    eventually("the truth", || {
        let image = cluster.image();
        let noted = image.partition(tp).unwrap().directory_of(ONE);
        noted == Some(first) || disk_of(&broker, tp) == Some(2)
    })
    .await;
    broker.catch_up().await;
    eventually("the end of the move", || disk_of(&broker, tp) == Some(2)).await;
    broker.catch_up().await;
    let partition = broker.partition(tp);
    append(&partition, &["on"], Acks::All).await.unwrap();
    assert_eq!(partition.log().log_end_offset(), Offset(11));
    broker.stop().await;
}

#[tokio::test]
async fn the_metadata_goes_on_naming_the_copy_when_the_old_disk_fails_in_the_swap() {
    let cluster = Cluster::with_brokers(&[ONE]);
    let tp = cluster.create_topic("events", &[ONE]);
    let broker = Broker::with_disks(&cluster, ONE, 2);
    place(&broker, tp, 1);
    let first = broker.disk(1);
    note_and_break(&broker, 0, Some(1));
    broker.catch_up().await;
    let partition = broker.partition(tp);
    for _ in 0..10 {
        append(&partition, &["a value"], Acks::All).await.unwrap();
    }
    assert_eq!(alter(&broker, "events", 2).await, ErrorCode::None);
    eventually("the failure", || partition.is_failed()).await;
    let directories = broker.logs.directories();
    let noted = || cluster.image().partition(tp).unwrap().directory_of(ONE);
    assert_eq!(noted(), Some(directories[1]));
    drop(partition);

    // The next run finds both disks, and loses nothing.
    let (_, _, dir) = broker.stop().await;
    assert_eq!(noted(), Some(directories[1]));
    mend_disk(&first);
    let epoch = BrokerEpoch(101);
    cluster.register(ONE, epoch);
    let broker = Broker::start_on(&cluster, ONE, epoch, dir, 2);
    note(&broker, 0);
    cluster.elect(tp, ONE, &[ONE]);
    broker.catch_up().await;
    eventually("the truth", || {
        noted() == broker.logs.directory_of(tp) || disk_of(&broker, tp) == Some(2)
    })
    .await;
    broker.catch_up().await;
    eventually("the end of the move", || disk_of(&broker, tp) == Some(2)).await;
    broker.catch_up().await;
    let partition = broker.partition(tp);
    append(&partition, &["on"], Acks::All).await.unwrap();
    assert_eq!(partition.log().log_end_offset(), Offset(11));
    broker.stop().await;
}

#[tokio::test]
async fn a_replica_stays_where_it_is_when_the_new_disk_fails_in_the_swap() {
    let cluster = Cluster::with_brokers(&[ONE]);
    let tp = cluster.create_topic("events", &[ONE]);
    let broker = Broker::with_disks(&cluster, ONE, 2);
    place(&broker, tp, 1);
    note_and_break(&broker, 0, Some(2));
    broker.catch_up().await;
    let partition = broker.partition(tp);
    append(&partition, &["a value"], Acks::All).await.unwrap();
    assert_eq!(alter(&broker, "events", 2).await, ErrorCode::None);
    // Nor is it on its way any more: compaction would wait for that.
    eventually("the end of the move", || disk_of(&broker, tp) == Some(1)).await;
    append(&partition, &["on"], Acks::All).await.unwrap();
    assert_eq!(partition.log().log_end_offset(), Offset(2));
    let noted = cluster.image().partition(tp).unwrap().directory_of(ONE);
    assert_eq!(noted, Some(broker.logs.directories()[0]));
    broker.stop().await;
}

#[tokio::test]
async fn a_copy_without_its_log_is_not_taken_for_a_replica_that_nobody_counts_on() {
    let cluster = Cluster::with_brokers(&[ONE, TWO]);
    let tp = cluster.create_topic("events", &[TWO, ONE]);
    cluster.elect(tp, TWO, &[TWO]);
    let broker = two_disks(&cluster, 0);
    let directories = broker.logs.directories();
    let lies_in = |directory| cluster.change(tp, |record| record.directories[1] = directory);
    lies_in(directories[0]);
    broker.catch_up().await;
    let begun = broker.logs.begin_move(tp, directories[1]).unwrap();
    begun.truncate_fully_and_start_at(Offset(5)).unwrap();
    drop(begun);

    // The log goes with its disk, and the replica is given to the other one.
    let current = broker.partition(tp).log().dir();
    let (_, _, dir) = broker.stop().await;
    std::fs::remove_dir_all(current).unwrap();
    lies_in(directories[1]);
    let epoch = BrokerEpoch(101);
    cluster.register(ONE, epoch);
    let broker = Broker::start_on(&cluster, ONE, epoch, dir, 2);
    note(&broker, 0);
    broker.catch_up().await;
    assert_eq!(disk_of(&broker, tp), Some(2));
    assert_eq!(
        broker.partition(tp).log().log_end_offset(),
        Offset(0),
        "begun anew, to be filled by the leader"
    );
    broker.stop().await;
}

#[tokio::test]
async fn nobody_else_waits_for_a_replica_that_waits_for_the_controller() {
    let cluster = Cluster::with_brokers(&[ONE]);
    let tp = cluster.create_topic("events", &[ONE]);
    let broker = two_disks(&cluster, usize::MAX);
    place(&broker, tp, 1);
    broker.catch_up().await;
    append(&broker.partition(tp), &["a value"], Acks::All)
        .await
        .unwrap();
    let directories = broker.logs.directories();
    assert_eq!(alter(&broker, "events", 2).await, ErrorCode::None);
    eventually("the swap", || {
        let image = cluster.image();
        image.partition(tp).unwrap().directory_of(ONE) == Some(directories[1])
    })
    .await;

    let other = cluster.create_topic("other", &[ONE]);
    // The image touches the one that is held, too.
    cluster.elect(tp, ONE, &[ONE]);
    timeout_at(soon(), broker.catch_up())
        .await
        .expect("the other replica gets its role");
    append(&broker.partition(other), &["a value"], Acks::All)
        .await
        .unwrap();
    let events = TopicName::new("events").expect("a valid name");
    let first = broker.disk(1);
    let shortly = Instant::now() + Duration::from_millis(20);
    let called_back = broker
        .manager
        .alter_log_dir(&events, PartitionIndex(0), &first, shortly);
    assert_eq!(called_back.await, ErrorCode::RequestTimedOut);

    // Nothing of a topic that is deleted is worth the controller's word.
    cluster.delete_topic(tp);
    timeout_at(soon(), broker.catch_up())
        .await
        .expect("the held replica goes");
    assert!(broker.logs.directory_of(tp).is_none() && broker.logs.future(tp).is_none());
    broker.stop().await;
}

#[tokio::test]
async fn wishes_are_refused_by_name_and_remembered() {
    let cluster = Cluster::with_brokers(&[ONE]);
    let tp = cluster.create_topic("events", &[ONE]);
    let broker = two_disks(&cluster, 0);
    broker.catch_up().await;
    assert_eq!(alter(&broker, "events", 1).await, ErrorCode::None, "it is there");
    assert_eq!(alter(&broker, "events", 3).await, ErrorCode::LogDirNotFound);
    assert_eq!(
        alter(&broker, "later", 2).await,
        ErrorCode::UnknownTopicOrPartition
    );
    let later = cluster.create_topic("later", &[ONE]);
    broker.catch_up().await;
    assert_eq!(disk_of(&broker, later), Some(2));
    assert_eq!(
        alter(&broker, &"x".repeat(240), 2).await,
        ErrorCode::InvalidTopicException
    );
    assert!(broker.logs.future(tp).is_none());
    broker.stop().await;
}

#[tokio::test]
async fn replicas_go_with_their_directory() {
    let cluster = Cluster::with_brokers(&[ONE]);
    let (stays, goes) = (
        cluster.create_topic("stays", &[ONE]),
        cluster.create_topic("goes", &[ONE]),
    );
    let broker = two_disks(&cluster, 0);
    let (first, second) = (1, 2);
    place(&broker, stays, first);
    place(&broker, goes, second);
    broker.catch_up().await;
    assert_eq!(
        [stays, goes].map(|tp| disk_of(&broker, tp)),
        [Some(first), Some(second)]
    );
    append(&broker.partition(goes), &["a value"], Acks::All)
        .await
        .unwrap();
    let mut failures = broker.manager.failures();
    broker.logs.background(|_| None).unwrap();
    let path = broker.disk(second);
    break_disk(&path);

    eventually("the failure", || broker.partition(goes).is_failed()).await;
    assert!(failures.has_changed().unwrap());
    failures.mark_unchanged();
    let refused = append(&broker.partition(goes), &["lost"], Acks::All).await;
    assert_eq!(refused.unwrap_err(), AppendRefused::Role(RoleError::Failed));
    append(&broker.partition(stays), &["on"], Acks::All)
        .await
        .unwrap();
    assert_eq!(broker.manager.failed_replicas(), [goes]);
    let offline = broker.logs.directories()[second - 1];
    assert_eq!(broker.manager.offline_directories(), [offline]);
    assert!(!broker.manager.has_no_directory());
    assert_eq!(alter(&broker, "goes", first).await, ErrorCode::KafkaStorageError);
    assert_eq!(
        alter(&broker, "stays", second).await,
        ErrorCode::KafkaStorageError
    );
    let described = broker.manager.log_directories().await.unwrap();
    assert_eq!(described.iter().filter(|dir| dir.space.is_err()).count(), 1);

    // Gone at the next start too: the replica is offline, and not built anew.
    let broker = broker.restart().await;
    note(&broker, 0);
    cluster.elect(stays, ONE, &[ONE]);
    cluster.elect(goes, ONE, &[ONE]);
    broker.catch_up().await;
    assert_eq!(
        broker.manager.partition(goes).unwrap_err(),
        ErrorCode::KafkaStorageError
    );
    append(&broker.partition(stays), &["on"], Acks::All)
        .await
        .unwrap();

    // And back.
    mend_disk(&path);
    let broker = broker.restart().await;
    note(&broker, 0);
    cluster.elect(stays, ONE, &[ONE]);
    cluster.elect(goes, ONE, &[ONE]);
    broker.catch_up().await;
    append(&broker.partition(goes), &["on"], Acks::All).await.unwrap();
    assert_eq!(broker.partition(goes).log().log_end_offset(), Offset(2));
    broker.stop().await;
}

#[tokio::test]
async fn a_move_keeps_to_its_rate_and_nobody_else_does() {
    const RATE: &str = "replica.alter.log.dirs.io.max.bytes.per.second";
    // A few chunks: the first is free, and at a byte a second the second comes after twelve days.
    const RECORDS: usize = 12;
    let large = "x".repeat(256 << 10);
    let cluster = Cluster::with_brokers(&[ONE]);
    let tp = cluster.create_topic("events", &[ONE]);
    let broker = two_disks(&cluster, 0);
    place(&broker, tp, 1);
    cluster.set_broker_config(RATE, "1");
    broker.catch_up().await;
    let partition = broker.partition(tp);
    for _ in 0..RECORDS {
        append(&partition, &[large.as_str()], Acks::All).await.unwrap();
    }
    let copied = || broker.logs.future(tp).map(|(future, _)| future.log_end_offset());
    let has_begun = || copied().is_some_and(|end| end > Offset(0));

    // It can be called back while it waits, and images are applied.
    assert_eq!(alter(&broker, "events", 2).await, ErrorCode::None);
    eventually("the first chunk", has_begun).await;
    assert_eq!(alter(&broker, "events", 1).await, ErrorCode::None);
    assert_eq!(disk_of(&broker, tp), Some(1));

    cluster.set_broker_config(RATE, "0");
    timeout_at(soon(), broker.catch_up()).await.expect("applied");
    assert_eq!(alter(&broker, "events", 2).await, ErrorCode::None);
    eventually("the first chunk", has_begun).await;
    for _ in 0..100 {
        append(&partition, &["a value"], Acks::All).await.unwrap();
    }
    assert!(
        copied().is_some_and(|end| end < Offset(RECORDS as i64)),
        "{:?}",
        copied()
    );

    // A rate that is raised counts at once.
    cluster.set_broker_config(RATE, "9223372036854775807");
    broker.catch_up().await;
    eventually("the move", || disk_of(&broker, tp) == Some(2)).await;
    broker.catch_up().await;
    append(&partition, &["on"], Acks::All).await.unwrap();
    assert_eq!(partition.log().log_end_offset(), Offset(RECORDS as i64 + 101));
    broker.stop().await;
}
