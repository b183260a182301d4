//! Groups of the KIP-848 protocol as their clients and their log see them.

mod convergence;
mod describe;
mod heartbeat;
mod migration;
mod offsets;
mod patterns;
mod racks;
mod removal;
mod static_members;

use std::collections::BTreeMap;

use kafka_protocol::messages::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse,
    consumer_group_heartbeat_request::TopicPartitions,
};
use protocol::ErrorCode;

use super::bench::{Bench, text, topic_id};

/// Partitions by the names of their topics.
type Places = BTreeMap<String, Vec<i32>>;

/// Partitions of topic `t`.
fn t(partitions: &[i32]) -> Places {
    let mut places = Places::new();
    if !partitions.is_empty() {
        places.insert("t".to_owned(), partitions.to_vec());
    }
    places
}

/// A bench with topic `t` of six partitions, and `u` of three.
fn bench() -> Bench {
    let mut bench = Bench::new();
    bench.set_topics(&[("t", 6), ("u", 3)]);
    bench
}

/// A heartbeat that says nothing new.
fn beats(member: &str, epoch: i32) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest::default()
        .with_group_id(text("g").into())
        .with_member_id(text(member))
        .with_member_epoch(epoch)
        .with_instance_id(None)
        .with_rack_id(None)
        .with_rebalance_timeout_ms(-1)
        .with_subscribed_topic_names(None)
        .with_subscribed_topic_regex(None)
        .with_server_assignor(None)
        .with_topic_partitions(None)
}

/// The first heartbeat of a member that wants these topics.
fn joins(member: &str, topics: &[&str]) -> ConsumerGroupHeartbeatRequest {
    let topics = topics.iter().map(|topic| text(topic).into()).collect();
    beats(member, 0)
        .with_rebalance_timeout_ms(60_000)
        .with_subscribed_topic_names(Some(topics))
        .with_topic_partitions(Some(Vec::new()))
}

/// A heartbeat that says what the member owns.
fn owns(member: &str, epoch: i32, owned: &Places) -> ConsumerGroupHeartbeatRequest {
    let owned = owned.iter().map(|(topic, partitions)| {
        TopicPartitions::default()
            .with_topic_id(topic_id(topic).0)
            .with_partitions(partitions.clone())
    });
    beats(member, epoch).with_topic_partitions(Some(owned.collect()))
}

/// What an answer assigns; `None` if it says nothing about that.
fn assigned(bench: &Bench, reply: &ConsumerGroupHeartbeatResponse) -> Option<Places> {
    let assignment = reply.assignment.as_ref()?;
    let places = assignment.topic_partitions.iter().map(|topic| {
        let name = bench.topic_name(topic.topic_id);
        (name, topic.partitions.clone())
    });
    Some(places.collect())
}

fn error(reply: &ConsumerGroupHeartbeatResponse) -> ErrorCode {
    ErrorCode::from_code(reply.error_code).expect("a code that there is")
}

/// The epoch and the assignment of an answer without error.
fn told(bench: &Bench, reply: &ConsumerGroupHeartbeatResponse) -> (i32, Option<Places>) {
    assert_eq!(error(reply), ErrorCode::None, "{reply:?}");
    (reply.member_epoch, assigned(bench, reply))
}

/// A stable group of two members of topic `t`: `a` has 0 to 2 and `b` 3 to 5, or the other way around.
/// Returns both shares and the epoch.
fn two_members(bench: &mut Bench) -> (Places, Places, i32) {
    let reply = bench.beat(joins("a", &["t"]));
    let (epoch, all) = told(bench, &reply);
    assert_eq!((epoch, all), (1, Some(t(&[0, 1, 2, 3, 4, 5]))));
    let reply = bench.beat(joins("b", &["t"]));
    assert_eq!(told(bench, &reply), (2, Some(Places::new())));
    let reply = bench.beat(beats("a", 1));
    let (epoch, share) = told(bench, &reply);
    assert_eq!(epoch, 1);
    let a = share.expect("something was taken away");
    let reply = bench.beat(owns("a", 1, &a));
    assert_eq!(told(bench, &reply), (2, None));
    let reply = bench.beat(beats("b", 2));
    let (epoch, share) = told(bench, &reply);
    let b = share.expect("something was given");
    assert_eq!((epoch, a["t"].len(), b["t"].len()), (2, 3, 3));
    assert_eq!(bench.state(), "Stable");
    (a, b, 2)
}
