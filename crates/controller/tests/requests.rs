//! What brokers ask of the active controller: answered when committed, and when everybody can see it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

mod support;

use std::time::Duration;

use protocol::grpc::v1::{
    AllocateProducerIdsRequest, AlterConfig, AlterConfigsRequest, AlterConfigsResource, AlterPartition,
    AlterPartitionsRequest, ConfigOp, ConfigResourceType, CreatePartitionsRequest, CreateTopicsRequest,
    DeleteTopicsRequest, ElectLeadersRequest, IsrMember, KafkaError, NewPartitions, NewTopic, TopicRef,
    UnregisterBrokerRequest,
};
use protocol::{BrokerId, ErrorCode, PartitionIndex, TopicId, TopicPartition};
use support::{FakeBroker, PATIENCE, Quorum};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

fn topic(name: &str, partitions: i32, replication_factor: i32) -> NewTopic {
    NewTopic {
        name: name.to_owned(),
        partitions,
        replication_factor,
        ..NewTopic::default()
    }
}

fn create(topics: Vec<NewTopic>) -> CreateTopicsRequest {
    CreateTopicsRequest {
        topics,
        timeout_ms: 10_000,
        ..CreateTopicsRequest::default()
    }
}

/// Brokers that live on in the background until the token is cancelled.
struct Alive {
    stop: CancellationToken,
    brokers: Vec<JoinHandle<FakeBroker>>,
}

impl Alive {
    async fn start(quorum: &Quorum, count: i32) -> Self {
        let stop = CancellationToken::new();
        let mut brokers = Vec::new();
        for id in 1..=count {
            let mut broker = FakeBroker::new(id).await;
            quorum.join(&mut broker).await;
            let stop = stop.clone();
            brokers.push(tokio::spawn(async move {
                tokio::select! {
                    () = broker.live() => {}
                    () = stop.cancelled() => {}
                }
                broker
            }));
        }
        Self { stop, brokers }
    }

    async fn end(self) -> Vec<FakeBroker> {
        self.stop.cancel();
        let mut brokers = Vec::new();
        for broker in self.brokers {
            brokers.push(broker.await.unwrap());
        }
        brokers
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_is_created_once_every_broker_shows_it() {
    let quorum = Quorum::start(1).await;
    let alive = Alive::start(&quorum, 3).await;
    let mut client = quorum.client(0);
    let reply = client
        .create_topics(create(vec![topic("orders", 6, 3)]))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(reply.header.unwrap().error.unwrap().code, 0);
    assert_eq!(reply.topics[0].error.as_ref().unwrap().code, 0);
    let id = TopicId::from_slice(&reply.topics[0].topic_id).unwrap();
    for broker in alive.end().await {
        let orders = broker.image.topic("orders").expect("visible at every broker");
        assert_eq!((orders.id, orders.partitions.len()), (id, 6));
        assert!(
            orders
                .partitions
                .values()
                .all(|p| p.leader.is_some() && p.isr.len() == 3)
        );
    }
    quorum.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_broker_delays_the_answer_no_longer_than_the_timeout() {
    let quorum = Quorum::start(1).await;
    let mut slow = FakeBroker::new(1).await;
    quorum.join(&mut slow).await;
    let request = CreateTopicsRequest {
        timeout_ms: 300,
        ..create(vec![topic("t", 1, 1)])
    };
    let started = Instant::now();
    let reply = quorum
        .client(0)
        .create_topics(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(reply.topics[0].error.as_ref().unwrap().code, 0);
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(300), "answered after {took:?}");
    quorum.stop().await;
}

/// Creates one topic at whoever is active. Who is no longer active does not say whether the topic was created; it
/// may be there when the next one is asked.
async fn create_once(quorum: &Quorum, request: CreateTopicsRequest) -> KafkaError {
    let not_controller = i32::from(ErrorCode::NotController.code());
    let already_exists = i32::from(ErrorCode::TopicAlreadyExists.code());
    let mut unknown = false;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut client = quorum.client(quorum.active().await);
        let reply = client.create_topics(request.clone()).await.unwrap().into_inner();
        if reply.header.unwrap().error.unwrap().code != not_controller {
            let error = reply.topics[0].error.clone().unwrap();
            let created = unknown && error.code == already_exists;
            return if created { KafkaError::default() } else { error };
        }
        assert!(Instant::now() < deadline, "no controller stays active");
        unknown = true;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_partitions_than_fit_one_entry_appear_at_once() {
    let quorum = Quorum::start(3).await;
    let mut brokers = Vec::new();
    for id in 1..=3 {
        let mut broker = FakeBroker::new(id).await;
        quorum.join(&mut broker).await;
        brokers.push(broker);
    }
    let mut images = quorum.handle(0).images();
    let watching = tokio::spawn(async move {
        let mut seen = vec![0];
        while images.changed().await.is_ok() {
            let image = images.borrow_and_update().clone();
            let partitions = image.topic("wide").map_or(0, |wide| wide.partitions.len());
            if seen.last() != Some(&partitions) {
                seen.push(partitions);
            }
            if partitions == 9000 {
                break;
            }
        }
        seen
    });
    let request = CreateTopicsRequest {
        timeout_ms: 0,
        ..create(vec![topic("wide", 9000, 3)])
    };
    let created = create_once(&quorum, request).await;
    assert_eq!(created.code, 0, "{created:?}");
    let seen = timeout(PATIENCE, watching).await.expect("all in time").unwrap();
    assert_eq!(seen, [0, 9000]);
    quorum.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_is_decided_and_shows_in_the_image() {
    let quorum = Quorum::start(1).await;
    let alive = Alive::start(&quorum, 3).await;
    let mut client = quorum.client(0);
    client
        .create_topics(create(vec![topic("a", 1, 3), topic("b", 1, 3)]))
        .await
        .unwrap();

    let added = client
        .create_partitions(CreatePartitionsRequest {
            topics: vec![NewPartitions {
                name: "a".to_owned(),
                count: 3,
                assignments: Vec::new(),
            }],
            validate_only: false,
            timeout_ms: 5000,
        })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(added.topics[0].error.as_ref().unwrap().code, 0);

    let altered = client
        .alter_configs(AlterConfigsRequest {
            resources: vec![AlterConfigsResource {
                resource_type: ConfigResourceType::Topic.into(),
                resource_name: "a".to_owned(),
                configs: vec![AlterConfig {
                    key: "retention.ms".to_owned(),
                    op: ConfigOp::Set.into(),
                    value: Some("60000".to_owned()),
                }],
            }],
            ..AlterConfigsRequest::default()
        })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(altered.resources[0].error.as_ref().unwrap().code, 0);

    let deleted = client
        .delete_topics(DeleteTopicsRequest {
            topics: vec![TopicRef {
                name: "b".to_owned(),
                ..TopicRef::default()
            }],
            timeout_ms: 5000,
        })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(deleted.topics[0].error.as_ref().unwrap().code, 0);

    let image = quorum.image(0, |image| image.topic("b").is_none()).await;
    let a = image.topic("a").unwrap().clone();
    assert_eq!(a.partitions.len(), 3);
    assert_eq!(
        image.config(&metadata::ConfigResource::Topic(a.name.clone()), "retention.ms"),
        Some("60000")
    );

    // The leader of a partition shrinks its in-sync set.
    let tp = TopicPartition::new(a.id, PartitionIndex(0));
    let partition = image.partition(tp).unwrap();
    let leader = partition.leader.unwrap();
    let leader_epoch = image.brokers[&leader].epoch.get();
    let shrink = AlterPartitionsRequest {
        broker_id: leader.get(),
        broker_epoch: leader_epoch,
        partitions: vec![AlterPartition {
            topic_id: a.id.to_vec().into(),
            partition: 0,
            leader_epoch: partition.leader_epoch.get(),
            partition_epoch: partition.partition_epoch.get(),
            new_isr: vec![IsrMember {
                broker_id: leader.get(),
                broker_epoch: leader_epoch,
            }],
        }],
    };
    let shrunk = client
        .alter_partitions(shrink.clone())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(shrunk.partitions[0].error.as_ref().unwrap().code, 0);
    assert_eq!(shrunk.partitions[0].isr, [leader.get()]);
    let stale = client
        .alter_partitions(AlterPartitionsRequest {
            broker_epoch: leader_epoch - 1,
            ..shrink
        })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(stale.header.unwrap().error.unwrap().code, 77);

    let ids = |epoch| AllocateProducerIdsRequest {
        broker_id: leader.get(),
        broker_epoch: epoch,
    };
    let first = client
        .allocate_producer_ids(ids(leader_epoch))
        .await
        .unwrap()
        .into_inner();
    let second = client
        .allocate_producer_ids(ids(leader_epoch))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(second.first, first.first + i64::from(first.count));

    let elected = client
        .elect_leaders(ElectLeadersRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(elected.header.unwrap().error.unwrap().code, 0);

    let unknown = client
        .unregister_broker(UnregisterBrokerRequest { broker_id: 77 })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(unknown.header.unwrap().error.unwrap().code, 102);
    drop(alive.end().await);
    quorum.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_dies_is_replaced_in_the_entry_that_fences_it() {
    let quorum = Quorum::start(1).await;
    let alive = Alive::start(&quorum, 3).await;
    quorum
        .client(0)
        .create_topics(create(vec![topic("t", 12, 3)]))
        .await
        .unwrap();
    let mut brokers = alive.end().await;
    let dead = brokers.remove(0);
    let dead_id = dead.id;
    dead.die().await;
    let image = quorum.image(0, |image| image.brokers[&dead_id].fenced).await;
    let t = image.topic("t").unwrap();
    for partition in t.partitions.values() {
        assert!(partition.leader.is_some_and(|leader| leader != dead_id));
        assert_eq!(partition.isr.len(), 2);
    }
    assert_eq!(dead_id, BrokerId(1));
    quorum.stop().await;
}
