//! Many producers at once while the partition's role changes under them.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use protocol::{Offset, batch::Batches};
use replication::{Acks, AppendRefused, RoleError};
use support::{Broker, Cluster, ONE, append, eventually, read_from};

const PRODUCERS: usize = 8;
const RECORDS_EACH: usize = 40;

/// Every acknowledged record is at its offset, once, whatever epochs and resignations lay between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_records_keep_their_offsets_through_elections() {
    let cluster = Cluster::with_brokers(&[ONE]);
    let tp = cluster.create_topic("events", &[ONE]);
    let broker = Arc::new(Broker::start(&cluster, ONE));
    broker.catch_up().await;
    let partition = broker.partition(tp);

    let acknowledged = Arc::new(Mutex::new(BTreeMap::new()));
    let mut producers = Vec::new();
    for producer in 0..PRODUCERS {
        let (partition, acknowledged) = (Arc::clone(&partition), Arc::clone(&acknowledged));
        producers.push(tokio::spawn(async move {
            for record in 0..RECORDS_EACH {
                let value = format!("<{producer}/{record}>");
                loop {
                    match append(&partition, &[&value], Acks::All).await {
                        Ok(result) => {
                            let before = acknowledged.lock().insert(result.base_offset, value);
                            assert_eq!(before, None, "one offset for two records");
                            break;
                        }
                        // Not led for a moment; a record of unknown fate may show up twice.
                        Err(AppendRefused::Role(RoleError::NotLeader)) => tokio::task::yield_now().await,
                        Err(other) => panic!("{other}"),
                    }
                }
            }
        }));
    }
    let finished = || producers.iter().all(tokio::task::JoinHandle::is_finished);
    while !finished() {
        broker.manager.resign_all();
        cluster.elect(tp, ONE, &[ONE]);
        broker.catch_up().await;
        let before = acknowledged.lock().len();
        eventually("an acknowledgement", || {
            acknowledged.lock().len() > before || finished()
        })
        .await;
    }
    for producer in producers {
        producer.await.unwrap();
    }

    let end = partition.offsets().log_end;
    eventually("the commit of all records", || {
        partition.offsets().high_watermark == end
    })
    .await;
    let mut found: BTreeMap<Offset, Bytes> = BTreeMap::new();
    let mut next = Offset::ZERO;
    while next < end {
        let read = partition.read(read_from(next.0)).await.unwrap();
        for batch in Batches::new(read.records) {
            let (header, bytes) = batch.unwrap();
            assert_eq!(header.base_offset, next);
            next = header.next_offset();
            found.insert(header.base_offset, bytes);
        }
    }
    let acknowledged = std::mem::take(&mut *acknowledged.lock());
    assert_eq!(acknowledged.len(), PRODUCERS * RECORDS_EACH);
    for (offset, value) in &acknowledged {
        let batch = &found[offset];
        assert!(
            batch
                .windows(value.len())
                .any(|window| window == value.as_bytes()),
            "{value} is not at {offset}"
        );
    }
    drop(partition);
    let broker = Arc::into_inner(broker).expect("nobody else holds the broker");
    broker.stop().await;
}
