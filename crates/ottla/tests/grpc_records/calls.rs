//! Every broker takes every call, whoever leads or coordinates.

use bytes::Bytes;
use protocol::grpc::v1::{
    Acks, AssignedTopic, CommitRequest, CommittedRequest, Compression, FetchPartition, FetchRequest,
    NewRecord, OffsetToCommit, ProduceRequest, RecordHeader, fetch_partition, fetch_request::Start,
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use crate::cluster::{Cluster, from_earliest, next, read_out, run, to, value};

/// Three partitions, each led by another broker and known to two.
const SPREAD: [&[i32]; 3] = [&[1, 2], &[2, 3], &[3, 1]];

fn header(key: &str, value: Option<&'static [u8]>) -> RecordHeader {
    RecordHeader {
        key: key.to_owned(),
        value: value.map(Bytes::from_static),
    }
}

fn at(partition: i32, record: NewRecord) -> NewRecord {
    NewRecord {
        partition: Some(partition),
        ..record
    }
}

#[test]
fn records_come_back_from_every_broker_as_they_were_given() {
    let cluster = Cluster::shared();
    run(async {
        cluster.topic("given", &SPREAD, &[]).await;
        let record = |partition| NewRecord {
            key: Some(Bytes::from_static(b"\xff\x00key")),
            value: None,
            headers: vec![header("h", Some(b"1")), header("h", None), header("é", Some(b""))],
            timestamp_ms: Some(1_700_000_000_000),
            partition: Some(partition),
        };
        for broker in 1..=3 {
            let records = (0..3).map(record).collect();
            let mut client = cluster.records(broker);
            let answer = client.produce(to("given", records)).await.unwrap().into_inner();
            assert_eq!(answer.failed, 0);
            for (partition, written) in answer.records.iter().enumerate() {
                let expected = (partition as i32, broker as i64 - 1, 1_700_000_000_000);
                let found = (written.partition, written.offset, written.timestamp_ms);
                assert_eq!((found, &written.error), (expected, &None));
            }
        }
        for broker in 1..=3 {
            let request = FetchRequest {
                stop_at_end: true,
                ..from_earliest("given")
            };
            let stream = cluster.records(broker).fetch(request).await.unwrap().into_inner();
            let found = read_out(stream).await;
            assert_eq!(found.keys().copied().collect::<Vec<_>>(), [0, 1, 2]);
            for (partition, records) in found {
                let given = record(partition);
                assert_eq!(records.len(), 3);
                for (offset, found) in records.into_iter().enumerate() {
                    assert_eq!(found.offset, offset as i64);
                    assert_eq!(Some(found.timestamp_ms), given.timestamp_ms);
                    assert_eq!((found.key, found.value), (given.key.clone(), None));
                    assert_eq!(found.headers, given.headers);
                }
            }
        }
    });
}

#[test]
fn every_acks_and_codec_is_taken() {
    let cluster = Cluster::shared();
    run(async {
        cluster.topic("manners", &[&[2, 3]], &[]).await;
        let mut expected = 0;
        for acks in [Acks::All, Acks::Leader, Acks::None] {
            for codec in [
                Compression::None,
                Compression::Gzip,
                Compression::Snappy,
                Compression::Lz4,
                Compression::Zstd,
            ] {
                let request = ProduceRequest {
                    acks: acks.into(),
                    compression: codec.into(),
                    ..to("manners", vec![value(&"x".repeat(1000)); 100])
                };
                let answer = cluster.records(1).produce(request).await.unwrap().into_inner();
                for written in answer.records {
                    assert_eq!(
                        (written.offset, written.error),
                        (expected, None),
                        "{acks:?} {codec:?}"
                    );
                    expected += 1;
                }
            }
        }
        // Without acknowledgements the last of them may not be committed yet.
        let stream = cluster.records(3).fetch(from_earliest("manners")).await;
        let mut stream = stream.unwrap().into_inner();
        let mut at = 0;
        while at < expected {
            for record in next(&mut stream)
                .await
                .unwrap()
                .expect("the stream goes on")
                .records
            {
                assert_eq!(record.offset, at);
                assert_eq!(record.value.as_deref(), Some("x".repeat(1000).as_bytes()));
                at += 1;
            }
        }
    });
}

#[test]
fn keys_decide_as_in_kafka_and_keyless_records_take_turns() {
    let cluster = Cluster::shared();
    run(async {
        cluster.topic("keys", &[&[1], &[2], &[3], &[1], &[2]], &[]).await;
        let keyed = |key: &'static str| NewRecord {
            key: Some(Bytes::from_static(key.as_bytes())),
            ..NewRecord::default()
        };
        // Kafka's Java client: toPositive(murmur2(key)) % 5.
        let records = vec![keyed("21"), keyed("foobar"), keyed("abc")];
        let answer = cluster
            .records(2)
            .produce(to("keys", records))
            .await
            .unwrap()
            .into_inner();
        let positive = |hash: i32| (hash & 0x7fff_ffff) % 5;
        let partitions: Vec<i32> = answer.records.iter().map(|written| written.partition).collect();
        assert_eq!(
            partitions,
            [
                positive(-973_932_308),
                positive(-790_332_482),
                positive(479_470_107)
            ]
        );

        let mut client = cluster.records(3);
        let mut seen = std::collections::BTreeSet::new();
        // Other tests take turns at the same broker.
        for _ in 0..200 {
            let request = to("keys", vec![value("a"), value("b")]);
            let answer = client.produce(request).await.unwrap().into_inner();
            assert_eq!(answer.records[0].partition, answer.records[1].partition);
            seen.insert(answer.records[0].partition);
            if seen.len() == 5 {
                return;
            }
        }
        panic!("only {seen:?} have had a turn");
    });
}

#[test]
fn a_stream_begins_where_it_is_told() {
    let cluster = Cluster::shared();
    run(async {
        cluster.topic("begins", &[&[3, 1]], &[]).await;
        let record = |time: i64| NewRecord {
            timestamp_ms: Some(time),
            ..value("v")
        };
        let records = (1..=10).map(|n| record(n * 100)).collect();
        cluster.records(1).produce(to("begins", records)).await.unwrap();
        let from = |start| FetchRequest {
            topic: "begins".to_owned(),
            start: Some(start),
            stop_at_end: true,
            ..FetchRequest::default()
        };
        for (start, first) in [
            (Start::Offset(7), Some(7)),
            (Start::TimestampMs(450), Some(4)),
            (Start::TimestampMs(i64::MAX), None),
            (Start::Latest(protocol::grpc::v1::LatestOffset {}), None),
        ] {
            let stream = cluster.records(2).fetch(from(start)).await.unwrap().into_inner();
            let found = read_out(stream).await.remove(&0).unwrap_or_default();
            assert_eq!(found.first().map(|record| record.offset), first, "{start:?}");
            assert_eq!(found.len(), first.map_or(0, |first| 10 - first as usize));
        }
        // What the partition says counts, not what the request says.
        let request = FetchRequest {
            partitions: vec![FetchPartition {
                partition: 0,
                start: Some(fetch_partition::Start::Offset(9)),
            }],
            ..from(Start::Offset(0))
        };
        let mut stream = cluster.records(1).fetch(request).await.unwrap().into_inner();
        let message = next(&mut stream).await.unwrap().expect("one record");
        assert_eq!((message.records[0].offset, message.next_offset), (9, 10));
        assert_eq!(message.high_watermark, 10);
        assert!(next(&mut stream).await.unwrap().is_none());
    });
}

#[test]
fn offsets_are_committed_and_found_by_every_broker() {
    let cluster = Cluster::shared();
    run(async {
        cluster.topic("offsets", &SPREAD, &[]).await;
        let offset = |partition, offset| OffsetToCommit {
            topic: "offsets".to_owned(),
            partition,
            offset,
            leader_epoch: Some(0),
            metadata: format!("at {offset}"),
        };
        for broker in 1..=3 {
            let request = CommitRequest {
                group_id: "by-hand".to_owned(),
                offsets: vec![offset(broker - 1, i64::from(broker) * 10), offset(99, 1)],
            };
            let answer = cluster
                .records(broker as usize)
                .commit(request)
                .await
                .unwrap()
                .into_inner();
            assert_eq!(answer.offsets[0].error, None);
            let error = answer.offsets[1].error.as_ref().expect("no such partition");
            assert_eq!(error.code, 3);
        }
        for broker in 1..=3 {
            let mut client = cluster.records(broker);
            let request = CommittedRequest {
                group_id: "by-hand".to_owned(),
                topics: Vec::new(),
            };
            let answer = client.committed(request).await.unwrap().into_inner();
            let found: Vec<_> = answer
                .offsets
                .iter()
                .map(|found| (found.partition, found.offset, found.metadata.as_str()))
                .collect();
            let expected = [
                (0, Some(10), "at 10"),
                (1, Some(20), "at 20"),
                (2, Some(30), "at 30"),
            ];
            assert_eq!(found, expected);
            let request = CommittedRequest {
                group_id: "by-hand".to_owned(),
                topics: vec![AssignedTopic {
                    topic: "offsets".to_owned(),
                    partitions: vec![1, 7],
                }],
            };
            let answer = client.committed(request).await.unwrap().into_inner();
            let found: Vec<_> = answer
                .offsets
                .iter()
                .map(|found| (found.partition, found.offset))
                .collect();
            assert_eq!(found, [(1, Some(20)), (7, None)]);
        }
    });
}

#[test]
fn the_service_is_listed_healthy_and_counted() {
    let cluster = Cluster::shared();
    run(async {
        cluster.topic("counted", &[&[1]], &[]).await;
        cluster
            .records(1)
            .produce(to("counted", vec![at(0, value("v"))]))
            .await
            .unwrap();
        let request = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        let mut reflection = ServerReflectionClient::new(cluster.channel(1));
        let asked = tokio_stream::once(request);
        let mut answers = reflection
            .server_reflection_info(asked)
            .await
            .unwrap()
            .into_inner();
        let answer = answers
            .message()
            .await
            .unwrap()
            .and_then(|answer| answer.message_response);
        let Some(MessageResponse::ListServicesResponse(listed)) = answer else {
            panic!("{answer:?}");
        };
        assert!(
            listed
                .service
                .iter()
                .any(|service| service.name == "ottla.v1.Records")
        );

        let request = HealthCheckRequest {
            service: "ottla.v1.Records".to_owned(),
        };
        let healthy = HealthClient::new(cluster.channel(1))
            .check(request)
            .await
            .unwrap();
        assert_eq!(healthy.into_inner().status, 1, "SERVING");

        let metrics = cluster.http_get("/metrics");
        assert!(metrics.contains("ottla_requests_total{request=\"Records.Produce\"}"));
    });
}
