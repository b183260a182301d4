//! A leader and a follower, without a network between them: replication, divergence, rebuilding.

mod support;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
    mpsc,
};

use parking_lot::Mutex;
use protocol::{LeaderEpoch, Offset, TopicPartition};
use replication::{Acks, FetchRead, ProgressListener, ReadRefused, ReplicaError, RoleError};
use storage::{FlushFailed, FlushListener, ManagerConfig};
use support::{
    Broker, Cluster, ONE, TWO, append, eventually, fetch_once, join_isr, produce, read_from, replicate, soon,
};

async fn pair(isr: &[protocol::BrokerId]) -> (Broker, Broker, TopicPartition) {
    let cluster = Cluster::with_brokers(&[ONE, TWO]);
    let tp = cluster.create_topic("events", &[ONE, TWO]);
    cluster.change(tp, |record| record.isr = isr.to_vec());
    let brokers = (Broker::start(&cluster, ONE), Broker::start(&cluster, TWO));
    brokers.0.catch_up().await;
    brokers.1.catch_up().await;
    (brokers.0, brokers.1, tp)
}

#[tokio::test]
async fn acks_all_waits_for_the_follower() {
    let (one, two, tp) = pair(&[ONE, TWO]).await;
    let partition = one.partition(tp);
    let waiting = partition.append(produce(&["a", "b"], Acks::All));
    append(&partition, &["c"], Acks::Leader).await.unwrap();
    assert_eq!(partition.offsets().high_watermark, Offset(0));
    replicate(&one, &two, tp).await;
    assert_eq!(waiting.committed(soon()).await.unwrap().base_offset, Offset(0));

    let follower = two.partition(tp);
    let from_follower = FetchRead {
        from_follower_ok: true,
        ..read_from(0)
    };
    let theirs = follower.read(from_follower).await.unwrap();
    assert_eq!(
        theirs.records,
        partition.read(read_from(0)).await.unwrap().records
    );
    assert_eq!(
        follower.read(read_from(0)).await.unwrap_err(),
        ReadRefused::Role(RoleError::NotLeader)
    );
    let beyond = FetchRead {
        from: Offset(4),
        ..from_follower
    };
    assert_eq!(
        follower.read(beyond).await.unwrap_err(),
        ReadRefused::NotAvailable
    );
    one.stop().await;
    two.stop().await;
}

/// Holds every flush thread that tells it, until the channel closes.
struct Held {
    threads: AtomicUsize,
    closed: Mutex<mpsc::Receiver<()>>,
}

impl FlushListener for Held {
    fn flushed(&self, _: Result<Offset, FlushFailed>) {
        self.threads.fetch_add(1, Ordering::Relaxed);
        let _ = self.closed.lock().recv();
    }
}

/// Counts what it is told.
struct Told(AtomicUsize);

impl ProgressListener for Told {
    fn progressed(&self, _: TopicPartition) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Between a flush and its telling, the metadata has news of the partition. What the follower synced is told
/// all the same: its leader, whose producers wait for just that, has nothing more to send.
#[tokio::test]
async fn news_from_the_metadata_does_not_swallow_a_flush() {
    let (one, two, tp) = pair(&[ONE, TWO]).await;
    let flush_threads = ManagerConfig::new(Vec::new(), TWO).flush_threads;
    let (release, closed) = mpsc::channel();
    let held = Arc::new(Held {
        threads: AtomicUsize::new(0),
        closed: Mutex::new(closed),
    });
    for n in 0..flush_threads {
        let other = one.cluster.create_topic(&format!("other-{n}"), &[TWO]);
        two.catch_up().await;
        let log = two.partition(other).log();
        two.logs.flusher().request(log, held.clone());
    }
    eventually("every flush thread held", || {
        held.threads.load(Ordering::Relaxed) == flush_threads
    })
    .await;

    append(&one.partition(tp), &["a"], Acks::Leader).await.unwrap();
    fetch_once(&one, &two, tp).await;
    let follower = two.partition(tp);
    assert_eq!(follower.offsets().durable, Offset(0));
    let told = Arc::new(Told(AtomicUsize::new(0)));
    let _subscription = follower.subscribe_append(told.clone());
    assert_eq!(follower.log().flush().unwrap(), Offset(1));
    one.cluster.change(tp, |_| ());
    two.catch_up().await;
    assert_eq!(follower.offsets().durable, Offset(1));
    assert!(told.0.load(Ordering::Relaxed) > 0);

    drop(release);
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn a_follower_that_has_caught_up_joins() {
    let (one, two, tp) = pair(&[ONE]).await;
    append(&one.partition(tp), &["a"], Acks::All).await.unwrap();
    replicate(&one, &two, tp).await;
    join_isr(&one, &two, tp).await;
    assert_eq!(one.cluster.proposals.lock().len(), 1);
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn what_was_not_committed_is_cut_after_a_failover() {
    let (one, two, tp) = pair(&[ONE, TWO]).await;
    append(&one.partition(tp), &["kept"], Acks::Leader).await.unwrap();
    replicate(&one, &two, tp).await;
    // The old leader's tail is on no other broker.
    append(&one.partition(tp), &["lost", "lost"], Acks::Leader)
        .await
        .unwrap();
    one.cluster.elect(tp, TWO, &[TWO]);
    two.catch_up().await;
    append(&two.partition(tp), &["new"], Acks::Leader).await.unwrap();
    one.catch_up().await;
    replicate(&two, &one, tp).await;
    let ours = one.partition(tp).log().clone();
    let theirs = two.partition(tp).log().clone();
    assert_eq!(ours.log_end_offset(), Offset(2));
    assert_eq!(
        ours.end_offset_for_epoch(LeaderEpoch(0)),
        theirs.end_offset_for_epoch(LeaderEpoch(0))
    );

    // And back again, twice, with leaders that append nothing.
    one.cluster.elect(tp, ONE, &[ONE, TWO]);
    one.catch_up().await;
    one.cluster.elect(tp, TWO, &[ONE, TWO]);
    two.catch_up().await;
    one.catch_up().await;
    append(&two.partition(tp), &["newer"], Acks::Leader)
        .await
        .unwrap();
    replicate(&two, &one, tp).await;
    assert_eq!(one.partition(tp).offsets().log_end, Offset(3));
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn a_new_leader_says_nothing_of_the_end_before_it_knows_it() {
    let (one, two, tp) = pair(&[ONE, TWO]).await;
    let partition = one.partition(tp);
    append(&partition, &["a", "b"], Acks::Leader).await.unwrap();
    assert_eq!(
        partition.read(read_from(0)).await.unwrap().high_watermark,
        Some(Offset(0))
    );
    // In its next epoch it is to keep what it has, and does not know yet how far that is committed.
    one.cluster.elect(tp, ONE, &[ONE, TWO]);
    one.catch_up().await;
    let read = partition.read(read_from(0)).await.unwrap();
    assert!(read.records.is_empty());
    assert_eq!((read.high_watermark, read.last_stable_offset), (None, None));
    two.catch_up().await;
    replicate(&one, &two, tp).await;
    assert_eq!(
        partition.read(read_from(0)).await.unwrap().high_watermark,
        Some(Offset(2))
    );
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn an_epoch_without_records_does_not_refuse_older_batches() {
    let (one, two, tp) = pair(&[ONE, TWO]).await;
    append(&one.partition(tp), &["a"], Acks::Leader).await.unwrap();
    replicate(&one, &two, tp).await;
    // Broker 1 appends what broker 2 never sees in epoch 0; broker 2 leads epoch 1 and appends
    // nothing; broker 1 leads again and still has its batch of epoch 0.
    append(&one.partition(tp), &["b"], Acks::Leader).await.unwrap();
    one.cluster.elect(tp, TWO, &[ONE, TWO]);
    two.catch_up().await;
    one.cluster.elect(tp, ONE, &[ONE, TWO]);
    one.catch_up().await;
    two.catch_up().await;
    replicate(&one, &two, tp).await;
    assert_eq!(two.partition(tp).offsets().log_end, Offset(2));
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn a_follower_behind_the_leaders_log_start_begins_anew() {
    let (one, two, tp) = pair(&[ONE]).await;
    for _ in 0..5 {
        append(&one.partition(tp), &["x"], Acks::All).await.unwrap();
    }
    one.partition(tp).delete_records(Some(Offset(3))).await.unwrap();
    replicate(&one, &two, tp).await;
    let offsets = two.partition(tp).offsets();
    assert_eq!((offsets.log_start, offsets.log_end), (Offset(3), Offset(5)));

    // Later deletions reach it with the next data.
    one.partition(tp).delete_records(Some(Offset(4))).await.unwrap();
    fetch_once(&one, &two, tp).await;
    assert_eq!(two.partition(tp).offsets().log_start, Offset(4));
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn a_follower_begins_anew_where_the_leaders_log_starts_inside_a_batch() {
    let (one, two, tp) = pair(&[ONE]).await;
    append(&one.partition(tp), &["a", "b", "c", "d"], Acks::All)
        .await
        .unwrap();
    append(&one.partition(tp), &["e"], Acks::All).await.unwrap();
    one.partition(tp).delete_records(Some(Offset(2))).await.unwrap();
    replicate(&one, &two, tp).await;
    let offsets = two.partition(tp).offsets();
    assert_eq!(
        (offsets.log_start, offsets.durable, offsets.log_end),
        (Offset(2), Offset(5), Offset(5))
    );
    join_isr(&one, &two, tp).await;
    let two = two.restart().await;
    two.catch_up().await;
    assert_eq!(two.partition(tp).offsets().log_end, Offset(5));
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn data_of_an_older_leader_or_out_of_place_is_refused() {
    let (one, two, tp) = pair(&[ONE, TWO]).await;
    append(&one.partition(tp), &["a"], Acks::Leader).await.unwrap();
    let read = one
        .partition(tp)
        .read_for_follower(Offset(0), 1024, LeaderEpoch(0))
        .await
        .unwrap();
    let follower = two.partition(tp);
    let send = |epoch, previous| {
        follower.append_replicated(epoch, previous, read.batches.clone(), Offset(0), Offset(0))
    };
    assert!(send(LeaderEpoch(0), Offset(7)).await.is_err(), "not next");
    let before = follower.following().expect("it follows").position;
    send(LeaderEpoch(0), Offset(0)).await.unwrap();
    assert!(send(LeaderEpoch(0), Offset(0)).await.is_err(), "already here");
    let diverged = (Some(LeaderEpoch(0)), Offset(0));
    let cut = follower.truncate_for(LeaderEpoch(0), before, diverged).await;
    assert!(matches!(cut, Err(ReplicaError::Outdated { log_end: Offset(1) })));
    let restarted = follower.restart_at(LeaderEpoch(0), Offset(1)).await;
    assert!(matches!(
        restarted,
        Err(ReplicaError::Outdated { log_end: Offset(1) })
    ));
    one.cluster.elect(tp, ONE, &[ONE, TWO]);
    two.catch_up().await;
    assert!(send(LeaderEpoch(0), Offset(1)).await.is_err(), "older epoch");
    assert!(matches!(
        follower
            .truncate_for(
                LeaderEpoch(0),
                follower.following().expect("it follows").position,
                diverged
            )
            .await,
        Err(ReplicaError::Role(RoleError::Fenced { .. }))
    ));
    assert_eq!(follower.offsets().log_end, Offset(1));
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn a_restarted_follower_goes_on_where_it_was() {
    let (one, two, tp) = pair(&[ONE, TWO]).await;
    append(&one.partition(tp), &["a"], Acks::Leader).await.unwrap();
    replicate(&one, &two, tp).await;
    let two = two.restart().await;
    one.cluster.change(tp, |record| record.isr = vec![ONE]);
    one.catch_up().await;
    two.catch_up().await;
    append(&one.partition(tp), &["b"], Acks::Leader).await.unwrap();
    replicate(&one, &two, tp).await;
    join_isr(&one, &two, tp).await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn what_is_sent_from_memory_is_what_the_log_has() {
    let (one, two, tp) = pair(&[ONE, TWO]).await;
    let leader = one.partition(tp);
    for values in [&["a", "b"][..], &["c"], &["d", "e", "f"]] {
        append(&leader, values, Acks::Leader).await.unwrap();
    }
    for (from, max_bytes) in [(0, 1 << 20), (2, 1 << 20), (3, 1 << 20), (1, 1 << 20), (0, 1)] {
        let sent = leader
            .read_for_follower(Offset(from), max_bytes, LeaderEpoch(0))
            .await
            .unwrap();
        let read = storage::ReadRequest {
            from: Offset(from),
            upper: Offset(6),
            max_bytes,
            min_one_batch: true,
        };
        let read = leader.log().read(read).unwrap();
        assert_eq!(
            (sent.batches, sent.next),
            (read.bytes, read.next_offset),
            "{from}"
        );
        assert_eq!(Some(sent.base), read.first);
    }
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn a_damaged_replica_is_never_served_and_is_built_anew() {
    let (one, two, tp) = pair(&[ONE, TWO]).await;
    append(&one.partition(tp), &["a", "b"], Acks::Leader)
        .await
        .unwrap();
    replicate(&one, &two, tp).await;

    // A bit of broker 2's copy turns over; it is read when broker 2 leads.
    let segment = two.partition(tp).log().dir().join("00000000000000000000.log");
    let mut bytes = std::fs::read(&segment).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    one.cluster.elect(tp, TWO, &[ONE, TWO]);
    two.catch_up().await;
    one.catch_up().await;
    assert_eq!(
        two.partition(tp).read(read_from(0)).await.unwrap_err(),
        ReadRefused::Corrupt
    );
    assert_eq!(two.manager.failed_replicas(), [tp]);
    assert!(two.partition(tp).following().is_none());

    // The controller takes it out; it begins anew, empty.
    one.cluster.elect(tp, ONE, &[ONE]);
    one.catch_up().await;
    two.catch_up().await;
    assert!(two.manager.failed_replicas().is_empty());
    assert_eq!(two.partition(tp).offsets().log_end, Offset(0));
    replicate(&one, &two, tp).await;
    join_isr(&one, &two, tp).await;
    one.stop().await;
    two.stop().await;
}
