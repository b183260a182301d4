//! Leaders die while topics are created: what was acknowledged is there, whoever leads in the end.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use protocol::ErrorCode;
use protocol::grpc::v1::{CreateTopicsRequest, NewTopic};
use support::{FakeBroker, Quorum, SESSION_TIMEOUT};
use tokio::time::{Instant, timeout};

const ROUNDS: usize = 4;
const TOPICS_PER_ROUND: usize = 15;

#[derive(Debug, PartialEq)]
enum Outcome {
    Created,
    NotActive,
    Unknown,
}

async fn create(quorum: &Quorum, i: usize, name: &str) -> Outcome {
    let request = CreateTopicsRequest {
        topics: vec![NewTopic {
            name: name.to_owned(),
            partitions: 2,
            replication_factor: 1,
            ..NewTopic::default()
        }],
        timeout_ms: 0,
        ..CreateTopicsRequest::default()
    };
    let mut client = quorum.client(i);
    match timeout(Duration::from_secs(10), client.create_topics(request)).await {
        Ok(Ok(reply)) => {
            let reply = reply.into_inner();
            let code = reply.header.unwrap().error.unwrap().code;
            if code == i32::from(ErrorCode::NotController.code()) {
                return Outcome::NotActive;
            }
            assert_eq!(code, 0);
            let code = reply.topics[0].error.as_ref().unwrap().code;
            assert_eq!(code, 0, "{:?}", reply.topics[0].error);
            Outcome::Created
        }
        Ok(Err(_)) | Err(_) => Outcome::Unknown,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_every_leader() {
    let mut quorum = Quorum::start(3).await;
    let mut broker = FakeBroker::new(1).await;
    let mut active = quorum.join(&mut broker).await;
    let mut acknowledged = BTreeSet::new();
    let mut attempted = BTreeSet::new();
    for round in 0..ROUNDS {
        for i in 0..TOPICS_PER_ROUND {
            let name = format!("topic-{round}-{i}");
            attempted.insert(name.clone());
            let creating = create(&quorum, active, &name);
            if create_outcome(&mut broker, creating).await == Outcome::Created {
                acknowledged.insert(name);
            } else {
                active = quorum.join(&mut broker).await;
            }
        }
        // The last requests of a round are under way when the leader goes.
        let name = format!("topic-{round}-last");
        attempted.insert(name.clone());
        let client = quorum.client(active);
        let in_flight = tokio::spawn(async move {
            let mut client = client;
            let request = CreateTopicsRequest {
                topics: vec![NewTopic {
                    name,
                    partitions: 1,
                    replication_factor: 1,
                    ..NewTopic::default()
                }],
                ..CreateTopicsRequest::default()
            };
            let _ = client.create_topics(request).await;
        });
        quorum.stop_seat(active).await;
        in_flight.await.unwrap();
        broker.hang_up();
        let stopped = active;
        active = quorum.join(&mut broker).await;
        quorum.start_seat(stopped).await;
    }
    assert!(
        acknowledged.len() >= ROUNDS * TOPICS_PER_ROUND / 2,
        "most requests were answered: {}",
        acknowledged.len()
    );
    for i in 0..3 {
        let image = quorum
            .image(i, |image| {
                acknowledged.iter().all(|name| image.topic(name).is_some())
            })
            .await;
        for name in image.topic_ids.keys() {
            assert!(attempted.contains(name.as_str()), "{name} was never asked for");
        }
    }
    quorum.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_dies_with_the_active_controller_is_fenced_by_the_next_one_before_its_session_timeout()
{
    let mut quorum = Quorum::start(3).await;
    let (mut dying, mut living) = (FakeBroker::new(1).await, FakeBroker::new(2).await);
    quorum.join(&mut dying).await;
    let active = quorum.join(&mut living).await;
    quorum.stop_seat(active).await;
    let (dead, mute) = (dying.id, living.id);
    dying.die().await;
    // Its process is there and answers probes, but it does not find the new controller yet.
    living.hang_up();
    let next = quorum.active().await;
    let elected = Instant::now();
    let image = quorum
        .image(next, |image| {
            image.brokers.get(&dead).is_some_and(|broker| broker.fenced)
        })
        .await;
    let took = elected.elapsed();
    assert!(took < SESSION_TIMEOUT / 2, "fenced after {took:?}");
    assert!(
        !image.brokers[&mute].fenced,
        "who answers keeps its full session timeout"
    );
    quorum.stop().await;
}

/// Keeps the broker alive while a request is under way.
async fn create_outcome(broker: &mut FakeBroker, creating: impl Future<Output = Outcome>) -> Outcome {
    tokio::select! {
        outcome = creating => outcome,
        () = broker.live() => Outcome::Unknown,
    }
}
