//! What is refused, with which status, and with which of Kafka's errors.

use bytes::Bytes;
use protocol::grpc::v1::{
    AssignedTopic, CommitRequest, CommittedRequest, FetchPartition, FetchRequest, NewRecord, OffsetToCommit,
    ProduceRequest, fetch_request::Start,
};
use tonic::{Code, Status};

use crate::cluster::{Cluster, from_earliest, kafka_code, next, run, to, value};

fn told(status: &Status) -> (Code, i32) {
    (status.code(), kafka_code(status))
}

#[test]
fn records_that_cannot_be_written() {
    let cluster = Cluster::shared();
    run(async {
        cluster
            .topic(
                "refuses",
                &[&[2, 3]],
                &[("cleanup.policy", "compact"), ("max.message.bytes", "10000")],
            )
            .await;
        let keyed = |partition| NewRecord {
            key: Some(Bytes::from_static(b"k")),
            partition: Some(partition),
            ..value("v")
        };
        // By a broker that leads nothing of it, and by the leader.
        for broker in [1, 2] {
            let mut client = cluster.records(broker);
            let keyless = client.produce(to("refuses", vec![value("v")])).await;
            let keyless = keyless.expect_err("a compacted topic wants keys");
            assert_eq!(told(&keyless), (Code::InvalidArgument, 87));
            assert!(keyless.message().contains("without a key"), "{keyless:?}");

            let elsewhere = client.produce(to("refuses", vec![keyed(5)])).await;
            assert_eq!(told(&elsewhere.expect_err("no partition 5")), (Code::NotFound, 3));

            let large = NewRecord {
                value: Some(vec![0; 20_000].into()),
                ..keyed(0)
            };
            let large = client.produce(to("refuses", vec![large])).await;
            assert_eq!(told(&large.expect_err("too large")), (Code::InvalidArgument, 10));

            let early = NewRecord {
                timestamp_ms: Some(-5),
                ..keyed(0)
            };
            let early = client.produce(to("refuses", vec![early])).await;
            assert_eq!(told(&early.expect_err("no time")), (Code::InvalidArgument, 32));

            let internal = client.produce(to("__consumer_offsets", vec![keyed(0)])).await;
            assert_eq!(
                told(&internal.expect_err("internal")),
                (Code::InvalidArgument, 17)
            );

            let unnamed = client.produce(to("not a name", vec![keyed(0)])).await;
            assert_eq!(told(&unnamed.expect_err("no name")), (Code::InvalidArgument, 17));

            let unknown = ProduceRequest {
                acks: 9,
                ..to("refuses", vec![keyed(0)])
            };
            let unknown = client.produce(unknown).await;
            assert_eq!(
                told(&unknown.expect_err("no such acks")),
                (Code::InvalidArgument, 42)
            );

            // Some of many: the others are written.
            let some = client.produce(to("refuses", vec![keyed(5), keyed(0)])).await;
            let some = some.unwrap().into_inner();
            assert_eq!(some.failed, 1);
            assert_eq!(some.records[0].error.as_ref().map(|error| error.code), Some(3));
            assert_eq!((some.records[1].partition, &some.records[1].error), (0, &None));
        }
        let nothing = cluster.records(1).produce(to("refuses", Vec::new())).await;
        assert!(nothing.unwrap().into_inner().records.is_empty());
    });
}

#[test]
fn records_that_cannot_be_read() {
    let cluster = Cluster::shared();
    run(async {
        cluster.topic("unreadable", &[&[2, 3]], &[]).await;
        cluster
            .records(3)
            .produce(to("unreadable", vec![value("v")]))
            .await
            .unwrap();
        let mut client = cluster.records(1);
        let absent = client.fetch(from_earliest("absent")).await;
        assert_eq!(told(&absent.expect_err("no topic")), (Code::NotFound, 3));

        let partition = |partition| FetchPartition {
            partition,
            start: None,
        };
        for (partitions, expected) in [
            (vec![partition(4)], (Code::NotFound, 3)),
            (vec![partition(0), partition(0)], (Code::InvalidArgument, 42)),
        ] {
            let request = FetchRequest {
                partitions,
                ..from_earliest("unreadable")
            };
            assert_eq!(told(&client.fetch(request).await.expect_err("refused")), expected);
        }
        let beyond = FetchRequest {
            start: Some(Start::Offset(50)),
            ..from_earliest("unreadable")
        };
        let mut stream = client.fetch(beyond).await.unwrap().into_inner();
        let ended = next(&mut stream).await.expect_err("nothing is there");
        assert_eq!(told(&ended), (Code::OutOfRange, 1));
        let negative = FetchRequest {
            start: Some(Start::Offset(-1)),
            ..from_earliest("unreadable")
        };
        let negative = client.fetch(negative).await.expect_err("no offset");
        assert_eq!(told(&negative), (Code::InvalidArgument, 42));
    });
}

#[test]
fn offsets_that_cannot_be_committed() {
    let cluster = Cluster::shared();
    run(async {
        cluster.topic("uncommitted", &[&[2, 3]], &[]).await;
        let offset = |partition, offset| OffsetToCommit {
            topic: "uncommitted".to_owned(),
            partition,
            offset,
            ..OffsetToCommit::default()
        };
        let commit = |offsets| CommitRequest {
            group_id: "refused".to_owned(),
            offsets,
        };
        for broker in 1..=3 {
            let mut client = cluster.records(broker);
            let absent = client.commit(commit(vec![offset(9, 1)])).await;
            assert_eq!(told(&absent.expect_err("no partition 9")), (Code::NotFound, 3));
            let negative = client.commit(commit(vec![offset(0, -1)])).await;
            assert_eq!(
                told(&negative.expect_err("no offset")),
                (Code::InvalidArgument, 42)
            );
            let wordy = OffsetToCommit {
                metadata: "m".repeat(5000),
                ..offset(0, 1)
            };
            let wordy = client.commit(commit(vec![wordy])).await;
            assert_eq!(told(&wordy.expect_err("too long")), (Code::InvalidArgument, 12));
        }
    });
}

#[test]
fn offsets_that_would_cost_more_than_they_say() {
    let cluster = Cluster::shared();
    run(async {
        for broker in 1..=3 {
            let mut client = cluster.records(broker);
            let asked = |topic: String, partitions: i32| CommittedRequest {
                group_id: "bounded".to_owned(),
                topics: vec![AssignedTopic {
                    topic,
                    partitions: (0..partitions).collect(),
                }],
            };
            let named = client.committed(asked("n".repeat(1 << 20), 100_000)).await;
            assert_eq!(
                told(&named.expect_err("too many, of no topic")),
                (Code::InvalidArgument, 42)
            );
            let named = client.committed(asked("n".repeat(1 << 20), 10)).await;
            assert_eq!(told(&named.expect_err("no name")), (Code::InvalidArgument, 17));
            let offset = OffsetToCommit {
                topic: "n".repeat(1000),
                ..OffsetToCommit::default()
            };
            let commit = CommitRequest {
                group_id: "bounded".to_owned(),
                offsets: vec![offset],
            };
            let commit = client.commit(commit).await;
            assert_eq!(told(&commit.expect_err("no name")), (Code::InvalidArgument, 17));
        }
    });
}
