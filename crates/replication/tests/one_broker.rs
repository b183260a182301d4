//! A broker alone: produce, read, positions, deletion, restart.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use protocol::{BrokerEpoch, ErrorCode, LeaderEpoch, Offset, TopicPartition, batch::BatchBuilder};
use replication::{
    Acks, AppendRefused, Isolation, ProduceAppend, ProgressListener, ReadRefused, ReplicaRole, RoleError,
};
use support::{Broker, Cluster, ONE, TWO, append, batch, eventually, produce, read_from, soon};
use tokio::time::Instant;

async fn with_topic() -> (Broker, TopicPartition) {
    let cluster = Cluster::with_brokers(&[ONE]);
    let tp = cluster.create_topic("events", &[ONE]);
    let broker = Broker::start(&cluster, ONE);
    broker.catch_up().await;
    (broker, tp)
}

#[tokio::test]
async fn acknowledged_records_are_durable_and_read_back() {
    let (broker, tp) = with_topic().await;
    let partition = broker.partition(tp);
    for (i, acks) in [Acks::All, Acks::Leader].into_iter().enumerate() {
        let result = append(&partition, &["a", "b"], acks).await.unwrap();
        assert_eq!(result.base_offset, Offset(i as i64 * 2));
        assert!(partition.offsets().durable >= Offset(i as i64 * 2 + 2));
    }
    let mut ticket = partition.append(produce(&["c"], Acks::None));
    assert_eq!(ticket.appended().await.unwrap().base_offset, Offset(4));

    eventually("the commit of all records", || {
        partition.offsets().high_watermark == Offset(5)
    })
    .await;
    let read = partition.read(read_from(1)).await.unwrap();
    assert_eq!(read.high_watermark, Some(Offset(5)));
    assert_eq!(
        read.records.len(),
        batch(&["a", "b"]).len() * 2 + batch(&["c"]).len()
    );
    assert!(partition.read(read_from(5)).await.unwrap().records.is_empty());
    assert!(matches!(
        partition.read(read_from(6)).await,
        Err(ReadRefused::OutOfRange { .. })
    ));
    broker.stop().await;
}

#[tokio::test]
async fn the_order_of_calls_is_the_order_of_appends() {
    let (broker, tp) = with_topic().await;
    let partition = broker.partition(tp);
    let tickets: Vec<_> = (0..200)
        .map(|_| partition.append(produce(&["x"], Acks::All)))
        .collect();
    for (i, ticket) in tickets.into_iter().enumerate() {
        let result = ticket.committed(soon()).await.unwrap();
        assert_eq!(result.base_offset, Offset(i as i64));
    }
    broker.stop().await;
}

#[tokio::test]
async fn a_duplicate_is_answered_with_its_first_offset() {
    let (broker, tp) = with_topic().await;
    let partition = broker.partition(tp);
    append(&partition, &["before"], Acks::All).await.unwrap();
    let request = |base_sequence| ProduceAppend {
        batches: BatchBuilder {
            producer_id: 7,
            producer_epoch: 0,
            base_sequence,
            ..BatchBuilder::default()
        }
        .build_records(&[(None, Some(b"x"))])
        .into(),
        acks: Acks::All,
        leader_epoch: None,
        log_append_time: None,
    };
    for _ in 0..3 {
        let result = partition.append(request(0)).committed(soon()).await.unwrap();
        assert_eq!(result.base_offset, Offset(1));
    }
    assert_eq!(
        partition.append(request(5)).committed(soon()).await,
        Err(AppendRefused::OutOfOrderSequence)
    );
    broker.stop().await;
}

struct Wakes(AtomicUsize);

impl ProgressListener for Wakes {
    fn progressed(&self, _partition: TopicPartition) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn a_waiting_reader_is_woken_by_the_high_watermark() {
    let (broker, tp) = with_topic().await;
    let partition = broker.partition(tp);
    let wakes = Arc::new(Wakes(AtomicUsize::new(0)));
    let listener: Arc<dyn ProgressListener> = wakes.clone();
    let subscription = partition.subscribe_high_watermark(listener);
    append(&partition, &["a"], Acks::All).await.unwrap();
    eventually("a wake", || wakes.0.load(Ordering::SeqCst) > 0).await;
    drop(subscription);
    let before = wakes.0.load(Ordering::SeqCst);
    append(&partition, &["a"], Acks::All).await.unwrap();
    assert_eq!(wakes.0.load(Ordering::SeqCst), before);
    broker.stop().await;
}

#[tokio::test]
async fn positions_by_time_and_by_name() {
    let (broker, tp) = with_topic().await;
    let partition = broker.partition(tp);
    for timestamp in [1_000, 3_000, 2_000] {
        let batches = BatchBuilder {
            base_timestamp: timestamp,
            max_timestamp: timestamp,
            ..BatchBuilder::default()
        }
        .build_records(&[(None, Some(b"x"))])
        .into();
        let request = ProduceAppend {
            batches,
            acks: Acks::All,
            leader_epoch: Some(LeaderEpoch(0)),
            log_append_time: None,
        };
        partition.append(request).committed(soon()).await.unwrap();
    }
    let at = |time| partition.offset_for_timestamp(time, None);
    assert_eq!(at(1_500).await.unwrap().unwrap().offset, Offset(1));
    assert_eq!(at(9_000).await.unwrap(), None);
    let newest = partition.max_timestamp(None).await.unwrap().unwrap();
    assert_eq!((newest.offset, newest.timestamp), (Offset(1), 3_000));
    assert_eq!(
        partition.latest(None, Isolation::ReadCommitted).unwrap(),
        (Offset(3), LeaderEpoch(0))
    );
    assert_eq!(
        partition.earliest(None).unwrap(),
        (Offset(0), Some(LeaderEpoch(0)))
    );
    assert!(matches!(
        partition.latest(Some(LeaderEpoch(1)), Isolation::ReadUncommitted),
        Err(ReadRefused::Role(RoleError::UnknownEpoch { .. }))
    ));

    assert_eq!(
        partition.delete_records(Some(Offset(2))).await.unwrap(),
        Offset(2)
    );
    assert!(matches!(
        partition.delete_records(Some(Offset(9))).await,
        Err(ReadRefused::OutOfRange { .. })
    ));
    assert!(matches!(
        partition.read(read_from(1)).await,
        Err(ReadRefused::OutOfRange { .. })
    ));
    assert_eq!(partition.delete_records(None).await.unwrap(), Offset(3));
    broker.stop().await;
}

#[tokio::test]
async fn a_topic_created_again_under_its_name_is_another_topic() {
    let (broker, tp) = with_topic().await;
    append(&broker.partition(tp), &["old"], Acks::All).await.unwrap();
    let held = broker.partition(tp);
    broker.cluster.delete_topic(tp);
    let again = broker.cluster.create_topic("events", &[ONE]);
    broker.catch_up().await;
    assert_eq!(
        broker.manager.partition(tp).unwrap_err(),
        ErrorCode::UnknownTopicId
    );
    assert_eq!(broker.partition(again).offsets().log_end, Offset(0));
    assert_eq!(
        append(&held, &["late"], Acks::All).await,
        Err(AppendRefused::Role(RoleError::NotLeader))
    );
    append(&broker.partition(again), &["new"], Acks::All)
        .await
        .unwrap();
    broker.stop().await;
}

#[tokio::test]
async fn a_restarted_broker_leads_only_under_its_new_registration() {
    let (broker, tp) = with_topic().await;
    append(&broker.partition(tp), &["a", "b"], Acks::All)
        .await
        .unwrap();
    let broker = broker.restart().await;

    // An image from before the registration: nothing is led by it.
    let cluster = broker.cluster.clone();
    let current = BrokerEpoch(broker.epoch.0);
    cluster.register(ONE, BrokerEpoch(1));
    broker.catch_up().await;
    assert!(broker.manager.partition(tp).is_err());

    cluster.register(ONE, current);
    cluster.elect(tp, ONE, &[ONE]);
    broker.catch_up().await;
    let partition = broker.partition(tp);
    assert_eq!(partition.leader_epoch(), Some(LeaderEpoch(1)));
    assert_eq!(partition.offsets().high_watermark, Offset(2));
    let result = append(&partition, &["c"], Acks::All).await.unwrap();
    assert_eq!(result.base_offset, Offset(2));
    let (_, end) = (
        partition.read(read_from(0)).await.unwrap(),
        partition
            .end_offset_for_epoch(LeaderEpoch(0), None)
            .unwrap()
            .unwrap(),
    );
    assert_eq!(end.end_offset, Offset(2));
    broker.stop().await;
}

#[tokio::test]
async fn logs_that_the_metadata_does_not_know_are_put_aside() {
    let (broker, tp) = with_topic().await;
    append(&broker.partition(tp), &["a"], Acks::All).await.unwrap();
    broker.cluster.delete_topic(tp);
    let broker = broker.restart().await;
    let again = broker.cluster.create_topic("events", &[ONE]);
    broker.catch_up().await;
    assert!(broker.logs.get(tp).is_none());
    assert_eq!(broker.partition(again).offsets().log_end, Offset(0));
    broker.stop().await;
}

#[tokio::test]
async fn giving_up_fails_the_waiting_and_coming_back_serves_again() {
    let cluster = Cluster::with_brokers(&[ONE, TWO]);
    let tp = cluster.create_topic("events", &[ONE, TWO]);
    let broker = Broker::start(&cluster, ONE);
    broker.catch_up().await;
    let partition = broker.partition(tp);
    // Broker 2 never acknowledges.
    let mut waiting = partition.append(produce(&["a"], Acks::All));
    waiting.appended().await.unwrap();
    broker.manager.resign_all();
    let refused = Err(AppendRefused::Role(RoleError::NotLeader));
    assert_eq!(waiting.committed(soon()).await, refused);
    assert_eq!(append(&partition, &["b"], Acks::Leader).await, refused);
    assert!(!partition.is_leader());

    cluster.change(tp, |_| {});
    broker.catch_up().await;
    assert!(partition.is_leader());
    append(&partition, &["b"], Acks::Leader).await.unwrap();
    broker.stop().await;
}

#[tokio::test]
async fn acks_all_needs_min_insync_replicas() {
    let cluster = Cluster::with_brokers(&[ONE, TWO]);
    let tp = cluster.create_topic("events", &[ONE, TWO]);
    cluster.set_config("events", "min.insync.replicas", "2");
    let broker = Broker::start(&cluster, ONE);
    broker.catch_up().await;
    let partition = broker.partition(tp);

    let timed_out = partition
        .append(produce(&["a"], Acks::All))
        .committed(Instant::now() + Duration::from_millis(50))
        .await;
    assert_eq!(timed_out, Err(AppendRefused::TimedOut));

    let mut waiting = partition.append(produce(&["b"], Acks::All));
    waiting.appended().await.unwrap();
    cluster.change(tp, |record| record.isr = vec![ONE]);
    broker.catch_up().await;
    assert_eq!(
        waiting.committed(soon()).await,
        Err(AppendRefused::NotEnoughReplicasAfterAppend)
    );
    assert_eq!(
        append(&partition, &["c"], Acks::All).await,
        Err(AppendRefused::NotEnoughReplicas)
    );
    append(&partition, &["d"], Acks::Leader).await.unwrap();
    let status = partition.status();
    // What a produce handler asks before it judges records.
    assert_eq!(
        partition.check_produce(Acks::All),
        Err(AppendRefused::NotEnoughReplicas)
    );
    assert_eq!(partition.check_produce(Acks::Leader), Ok(()));
    assert!(status.under_min_isr && status.under_replicated);
    assert_eq!(status.offsets.high_watermark, Offset(0));

    // The setting is taken while the broker runs.
    cluster.set_config("events", "min.insync.replicas", "1");
    broker.catch_up().await;
    eventually("the high watermark", || {
        partition.offsets().high_watermark == Offset(3)
    })
    .await;
    append(&partition, &["e"], Acks::All).await.unwrap();
    broker.stop().await;
}

#[tokio::test]
async fn a_replica_that_is_taken_away_is_deleted() {
    let cluster = Cluster::with_brokers(&[ONE, TWO]);
    let tp = cluster.create_topic("events", &[ONE, TWO]);
    let broker = Broker::start(&cluster, TWO);
    broker.catch_up().await;
    assert_eq!(broker.partition(tp).status().role, ReplicaRole::Follower(ONE));
    cluster.change(tp, |record| {
        record.replicas = vec![ONE];
        record.directories.pop();
        record.isr = vec![ONE];
    });
    broker.catch_up().await;
    assert_eq!(
        broker.manager.partition(tp).unwrap_err(),
        ErrorCode::NotLeaderOrFollower
    );
    assert!(broker.logs.get(tp).is_none());
    broker.stop().await;
}
