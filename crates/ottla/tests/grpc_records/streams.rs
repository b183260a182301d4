//! Streams that follow a topic as it grows, is deleted and comes back, and streams that end.

use protocol::grpc::v1::{AddPartitionsRequest, FetchRequest, NewRecord, ProduceProgress, ProduceRequest};
use tonic::Code;

use crate::cluster::{Cluster, detail, from_earliest, kafka_code, next, run, to, value};

#[test]
fn a_stream_ends_with_its_topic() {
    let cluster = Cluster::shared();
    run(async {
        cluster.topic("ends", &[&[2, 3]], &[]).await;
        cluster
            .records(1)
            .produce(to("ends", vec![value("v")]))
            .await
            .unwrap();
        let mut streams = Vec::new();
        for broker in 1..=3 {
            let stream = cluster.records(broker).fetch(from_earliest("ends")).await;
            let mut stream = stream.unwrap().into_inner();
            assert_eq!(next(&mut stream).await.unwrap().unwrap().records.len(), 1);
            streams.push(stream);
        }
        cluster.delete("ends").await;
        cluster.topic("ends", &[&[2, 3]], &[]).await;
        cluster
            .records(1)
            .produce(to("ends", vec![value("another")]))
            .await
            .unwrap();
        for mut stream in streams {
            let ended = next(&mut stream).await.expect_err("the topic is gone");
            assert_eq!(
                (ended.code(), kafka_code(&ended)),
                (Code::NotFound, 100),
                "{ended:?}"
            );
            assert!(ended.message().contains("was deleted"), "{ended:?}");
        }
    });
}

#[test]
fn a_stream_finds_new_partitions() {
    let cluster = Cluster::shared();
    run(async {
        cluster.topic("grows", &[&[1, 2]], &[]).await;
        let mut stream = cluster
            .records(3)
            .fetch(from_earliest("grows"))
            .await
            .unwrap()
            .into_inner();
        let request = AddPartitionsRequest {
            topic: "grows".to_owned(),
            total_count: 3,
            ..AddPartitionsRequest::default()
        };
        let added = cluster
            .admin(1)
            .add_partitions(request)
            .await
            .unwrap()
            .into_inner();
        assert_eq!(added.error.unwrap_or_default().code, 0);
        let record = NewRecord {
            partition: Some(2),
            ..value("new")
        };
        cluster
            .records(1)
            .produce(to("grows", vec![record]))
            .await
            .unwrap();
        let message = next(&mut stream).await.unwrap().expect("a record");
        assert_eq!((message.partition, message.records[0].offset), (2, 0));
    });
}

#[test]
fn a_stream_of_many_is_summed_up_and_ends_with_the_first_failure() {
    let cluster = Cluster::shared();
    run(async {
        cluster.topic("many", &[&[1, 2], &[2, 3]], &[]).await;
        let record = |partition| NewRecord {
            partition: Some(partition),
            ..value("v")
        };
        let message = |partition| to("many", vec![record(0), record(partition)]);
        let good: Vec<ProduceRequest> = (0..100).map(|_| message(1)).collect();
        let summary = cluster.records(3).produce_many(tokio_stream::iter(good)).await;
        let summary = summary.unwrap().into_inner();
        assert_eq!(summary.records, 200);
        let of_partitions: Vec<_> = summary
            .partitions
            .iter()
            .map(|wrote| {
                (
                    wrote.partition,
                    wrote.records,
                    wrote.first_offset,
                    wrote.last_offset,
                )
            })
            .collect();
        assert_eq!(of_partitions, [(0, 100, 0, 99), (1, 100, 0, 99)]);

        // What fails is not in the way of what goes with it, but the stream is over.
        let bad = ProduceRequest {
            timeout_ms: Some(20_000),
            ..message(7)
        };
        let messages = vec![message(1), message(1), bad];
        let failed = cluster
            .records(3)
            .produce_many(tokio_stream::iter(messages))
            .await;
        let failed = failed.expect_err("there is no partition 7");
        assert_eq!((failed.code(), kafka_code(&failed)), (Code::NotFound, 3));
        let progress: ProduceProgress = detail(&failed, "ProduceProgress");
        assert_eq!((progress.messages, progress.records), (2, 5));
    });
}

#[test]
fn large_logs_are_read_in_bounded_messages() {
    let cluster = Cluster::shared();
    run(async {
        cluster.topic("large", &[&[3, 1]], &[]).await;
        let mut client = cluster.records(1);
        for _ in 0..20 {
            let records = vec![value(&"y".repeat(500_000)); 2];
            client.produce(to("large", records)).await.unwrap();
        }
        let request = FetchRequest {
            stop_at_end: true,
            ..from_earliest("large")
        };
        let mut stream = cluster.records(2).fetch(request).await.unwrap().into_inner();
        let mut at = 0;
        while let Some(message) = next(&mut stream).await.unwrap() {
            assert!(message.records.len() <= 3, "about a megabyte each");
            for record in message.records {
                assert_eq!(record.offset, at);
                at += 1;
            }
        }
        assert_eq!(at, 40);
    });
}
