//! A leader is killed, or hangs, while records are written and read: nothing is lost, repeated or out of
//! order. And what a stream is told whose own broker ends.

use protocol::grpc::v1::{FetchRequest, FetchResponse, ProduceRequest};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use crate::cluster::{Cluster, from_earliest, next, read_out, run, to, value};

const RECORDS: usize = 3000;
const PER_MESSAGE: usize = 10;
/// So many have come through when the leader is lost, and so many more may be on their way.
const LOST_AFTER: usize = 500;
const ON_THEIR_WAY: usize = 200;

fn message(topic: &str, number: usize) -> ProduceRequest {
    let first = number * PER_MESSAGE;
    let records = (first..first + PER_MESSAGE).map(|n| value(&n.to_string()));
    to(topic, records.collect())
}

/// Takes the next message of a following stream, which must go on where the last one ended.
fn check(at: &mut usize, message: &FetchResponse) {
    for record in &message.records {
        assert_eq!(record.offset, *at as i64, "no offset twice, none left out");
        assert_eq!(record.value.as_deref(), Some(at.to_string().as_bytes()));
        *at += 1;
    }
    assert_eq!(message.next_offset, *at as i64);
}

/// Writes and reads by way of brokers 1 and 3 while broker 2, which leads, is lost.
async fn lose_the_leader(cluster: &mut Cluster, lose: impl FnOnce(&mut Cluster)) {
    cluster
        .topic("outlives", &[&[2, 3, 1]], &[("min.insync.replicas", "2")])
        .await;
    let follow = || from_earliest("outlives");
    let mut at_first = cluster.records(1).fetch(follow()).await.unwrap().into_inner();
    let mut at_third = cluster.records(3).fetch(follow()).await.unwrap().into_inner();

    let (sender, messages) = mpsc::channel(4);
    let mut client = cluster.records(1);
    let written = tokio::spawn(async move { client.produce_many(ReceiverStream::new(messages)).await });
    let (seen, mut read) = watch::channel(0);
    let sending = tokio::spawn(async move {
        for number in 0..RECORDS / PER_MESSAGE {
            let due = |read: &usize| number * PER_MESSAGE < read + ON_THEIR_WAY;
            // Either has ended: the stream's status, or the reader, will say why.
            if read.wait_for(due).await.is_err() || sender.send(message("outlives", number)).await.is_err() {
                return;
            }
        }
    });

    let mut lose = Some(lose);
    let mut at = 0;
    while at < RECORDS {
        let message = next(&mut at_first).await.unwrap().expect("the stream goes on");
        check(&mut at, &message);
        seen.send_replace(at);
        if at >= LOST_AFTER
            && let Some(lose) = lose.take()
        {
            lose(cluster);
        }
    }
    let mut at = 0;
    while at < RECORDS {
        let message = next(&mut at_third).await.unwrap().expect("the stream goes on");
        check(&mut at, &message);
    }
    sending.await.unwrap();
    let summary = written.await.unwrap().unwrap().into_inner();
    assert_eq!(summary.records, RECORDS as u64);
    let partition = &summary.partitions[0];
    assert_eq!(
        (partition.first_offset, partition.last_offset),
        (0, RECORDS as i64 - 1)
    );

    // The log has each of them once.
    let request = FetchRequest {
        stop_at_end: true,
        ..follow()
    };
    let stream = cluster.records(1).fetch(request).await.unwrap().into_inner();
    assert_eq!(read_out(stream).await[&0].len(), RECORDS);

    // And single calls find the new leader, from both that are left.
    for broker in [1, 3] {
        let request = to("outlives", vec![value("afterwards")]);
        let answer = cluster
            .records(broker)
            .produce(request)
            .await
            .unwrap()
            .into_inner();
        assert_eq!(answer.failed, 0);
    }
}

#[test]
fn streams_outlive_a_leader_that_dies() {
    let mut cluster = Cluster::start();
    run(async {
        lose_the_leader(&mut cluster, |cluster| cluster.kill(2)).await;
    });
}

#[test]
fn streams_outlive_a_leader_that_hangs_and_end_with_their_own_broker() {
    let mut cluster = Cluster::start();
    run(async {
        lose_the_leader(&mut cluster, |cluster| cluster.signal(2, "STOP")).await;
        let latest = FetchRequest {
            start: None,
            ..from_earliest("outlives")
        };
        let mut stream = cluster.records(3).fetch(latest).await.unwrap().into_inner();
        cluster.signal(3, "TERM");
        let ended = next(&mut stream).await.expect_err("broker 3 is going");
        assert_eq!(ended.code(), Code::Unavailable, "{ended:?}");
    });
}
