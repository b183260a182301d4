//! A leader is killed while records are written and read: nothing is lost, repeated or out of order.

use protocol::grpc::v1::{FetchRequest, ProduceRequest};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::cluster::{Cluster, from_earliest, next, read_out, run, to, value};

const RECORDS: usize = 3000;
const PER_MESSAGE: usize = 10;
/// Of what has come through when the leader is killed.
const KILLED_AFTER: usize = 500;

fn message(topic: &str, number: usize) -> ProduceRequest {
    let first = number * PER_MESSAGE;
    let records = (first..first + PER_MESSAGE).map(|n| value(&n.to_string()));
    to(topic, records.collect())
}

/// Takes the next message of a following stream, which must go on where the last one ended.
fn check(at: &mut usize, message: &protocol::grpc::v1::FetchResponse) {
    for record in &message.records {
        assert_eq!(record.offset, *at as i64, "no offset twice, none left out");
        assert_eq!(record.value.as_deref(), Some(at.to_string().as_bytes()));
        *at += 1;
    }
    assert_eq!(message.next_offset, *at as i64);
}

#[test]
fn streams_outlive_the_leader_that_they_began_with() {
    let mut cluster = Cluster::start();
    run(async {
        // Led by broker 2, which is neither asked nor the controller.
        cluster
            .topic("outlives", &[&[2, 3, 1]], &[("min.insync.replicas", "2")])
            .await;
        let follow = || from_earliest("outlives");
        let mut at_first = cluster.records(1).fetch(follow()).await.unwrap().into_inner();
        let mut at_third = cluster.records(3).fetch(follow()).await.unwrap().into_inner();

        let (sender, messages) = mpsc::channel(4);
        let mut client = cluster.records(1);
        let written = tokio::spawn(async move { client.produce_many(ReceiverStream::new(messages)).await });
        let sending = tokio::spawn(async move {
            for number in 0..RECORDS / PER_MESSAGE {
                // The stream has ended: its status will say why.
                if sender.send(message("outlives", number)).await.is_err() {
                    return;
                }
                // So that there is something left to write when the leader is gone.
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            }
        });

        let mut at = 0;
        while at < KILLED_AFTER {
            let message = next(&mut at_first).await.unwrap().expect("the stream goes on");
            check(&mut at, &message);
        }
        cluster.kill(2);
        while at < RECORDS {
            let message = next(&mut at_first).await.unwrap().expect("the stream goes on");
            check(&mut at, &message);
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
    });
}
