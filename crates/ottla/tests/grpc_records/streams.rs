//! Streams that follow a topic as it grows, is deleted and comes back, and streams that end.

use prost::Message;
use protocol::grpc::v1::{
    AddPartitionsRequest, Compression, FetchRequest, NewRecord, ProduceProgress, ProduceRequest, RecordHeader,
};
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
            assert!(message.records.len() <= 2, "a megabyte each");
            for record in message.records {
                assert_eq!(record.offset, at);
                at += 1;
            }
        }
        assert_eq!(at, 40);
    });
}

#[test]
fn a_batch_of_many_parts_arrives_whole_and_in_messages_of_a_megabyte() {
    let cluster = Cluster::shared();
    run(async {
        cluster.topic("parts", &[&[3, 1]], &[]).await;
        // Small on the wire once they are compressed, and just under a megabyte each.
        let large = value(&"z".repeat(1_000_000));
        let many = ProduceRequest {
            compression: Compression::Zstd.into(),
            ..to("parts", vec![value("a"), value("b"), large])
        };
        for _ in 0..3 {
            cluster.records(2).produce(many.clone()).await.unwrap();
        }
        let request = FetchRequest {
            stop_at_end: true,
            ..from_earliest("parts")
        };
        let mut stream = cluster.records(1).fetch(request).await.unwrap().into_inner();
        let mut at = 0;
        while let Some(message) = next(&mut stream).await.unwrap() {
            assert!(message.encoded_len() <= 1 << 20);
            for record in message.records {
                assert_eq!(record.offset, at);
                at += 1;
            }
            assert_eq!(message.next_offset, at);
        }
        assert_eq!(at, 9);
    });
}

#[test]
fn a_stream_of_many_that_ends_early_says_how_far_it_came() {
    let cluster = Cluster::shared();
    run(async {
        cluster.topic("early", &[&[2, 3]], &[]).await;
        let fat = NewRecord {
            headers: vec![RecordHeader::default(); 200_001],
            ..value("v")
        };
        let messages = vec![to("early", vec![value("v")]), to("early", vec![fat])];
        let failed = cluster
            .records(1)
            .produce_many(tokio_stream::iter(messages))
            .await;
        let failed = failed.expect_err("too many headers");
        assert_eq!((failed.code(), kafka_code(&failed)), (Code::InvalidArgument, 18));
        let progress: ProduceProgress = detail(&failed, "ProduceProgress");
        assert!(progress.messages <= 1, "{progress:?}");
    });
}
