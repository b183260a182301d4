//! Members that subscribe with regular expressions.

use kafka_protocol::messages::ConsumerGroupHeartbeatRequest;
use protocol::ErrorCode;

use super::{Places, beats, error, joins, owns, t, told};
use crate::coordinator::group::{
    GroupConfig,
    tests::bench::{Bench, text},
};

fn wants(body: ConsumerGroupHeartbeatRequest, pattern: &str) -> ConsumerGroupHeartbeatRequest {
    body.with_subscribed_topic_regex(Some(text(pattern)))
}

/// Joins with nothing but an expression.
fn joins_with(member: &str, pattern: &str) -> ConsumerGroupHeartbeatRequest {
    wants(joins(member, &[]).with_subscribed_topic_names(None), pattern)
}

fn bench() -> Bench {
    let mut bench = Bench::new();
    bench.set_topics(&[("t", 2), ("tt", 1), ("u", 1)]);
    bench
}

fn names(places: Option<Places>) -> Vec<String> {
    places.expect("an assignment").into_keys().collect()
}

fn resolved(bench: &Bench) -> Vec<String> {
    let snapshot = bench.shard.snapshot();
    let group = snapshot
        .0
        .values()
        .next()
        .and_then(|group| group.consumer.as_ref());
    let patterns = group.iter().flat_map(|group| group.patterns.keys());
    patterns.map(ToString::to_string).collect()
}

#[test]
fn an_expression_stands_for_the_topics_that_it_matches() {
    let mut bench = bench();
    let reply = bench.beat(joins_with("a", "t+"));
    let (epoch, share) = told(&bench, &reply);
    assert_eq!((epoch, names(share)), (1, vec!["t".to_owned(), "tt".to_owned()]));
    // Together with names.
    let reply = bench.beat(beats("a", 1).with_subscribed_topic_names(Some(vec![text("u").into()])));
    let (epoch, share) = told(&bench, &reply);
    assert_eq!((epoch, names(share).len()), (2, 3));
    // What is said again is nothing new.
    let reply = bench.beat(wants(beats("a", 2), "t+"));
    assert_eq!(told(&bench, &reply), (2, None));
    // An empty one takes it back.
    let reply = bench.beat(wants(beats("a", 2), ""));
    let (epoch, share) = told(&bench, &reply);
    assert_eq!((epoch, names(share)), (2, vec!["u".to_owned()]));
    assert_eq!(resolved(&bench), Vec::<String>::new());
}

#[test]
fn what_is_no_expression_is_refused_and_changes_nothing() {
    let mut bench = bench();
    let reply = bench.beat(joins_with("a", "(t"));
    assert_eq!(error(&reply), ErrorCode::InvalidRegularExpression);
    assert!(bench.log.is_empty());
    bench.beat(joins_with("a", "t"));
    let written = bench.log.len();
    let reply = bench.beat(wants(beats("a", 1), "[u"));
    assert_eq!(error(&reply), ErrorCode::InvalidRegularExpression);
    assert_eq!(bench.log.len(), written);
}

#[test]
fn new_topics_are_found_but_not_all_the_time() {
    let mut bench = bench();
    bench.beat(joins_with("a", "t+"));
    bench.set_topics(&[("t", 2), ("tt", 1), ("u", 1), ("ttt", 1)]);
    let reply = bench.beat(beats("a", 1));
    assert_eq!(told(&bench, &reply), (1, None));
    bench.pass(10_000);
    let reply = bench.beat(beats("a", 1));
    let (epoch, share) = told(&bench, &reply);
    assert_eq!((epoch, names(share).len()), (2, 3));
    // A coordinator that takes over looks at once.
    bench.set_topics(&[("t", 2), ("tt", 1), ("u", 1), ("ttt", 1), ("tttt", 1)]);
    bench.fail_over();
    let reply = bench.beat(beats("a", 2));
    let (epoch, share) = told(&bench, &reply);
    assert_eq!((epoch, names(share).len()), (3, 4));
    // A topic that is gone is gone at once, whatever expression it matched.
    bench.set_topics(&[("t", 2)]);
    let reply = bench.beat(beats("a", 3));
    let (epoch, share) = told(&bench, &reply);
    assert_eq!((epoch, share.clone()), (3, Some(t(&[0, 1]))));
    let reply = bench.beat(owns("a", 3, &share.expect("some")));
    assert_eq!(told(&bench, &reply), (4, None));
}

#[test]
fn an_expression_is_forgotten_with_the_last_member_that_uses_it() {
    let mut bench = bench();
    bench.beat(joins_with("a", "t+"));
    bench.beat(joins_with("b", "t+"));
    bench.beat(joins_with("c", "u"));
    assert_eq!(resolved(&bench), ["t+", "u"]);
    bench.beat(beats("a", -1));
    assert_eq!(resolved(&bench), ["t+", "u"]);
    bench.beat(beats("c", -1));
    assert_eq!(resolved(&bench), ["t+"]);
    bench.pass(50_000);
    assert_eq!(bench.state(), "Empty");
    assert_eq!(resolved(&bench), Vec::<String>::new());
}

#[test]
fn an_expression_that_matches_more_than_can_be_written_down_is_refused() {
    let mut bench = Bench::with(GroupConfig {
        max_records_bytes: 100,
        ..GroupConfig::default()
    });
    let long: Vec<String> = (0..9).map(|n| format!("topic-number-{n}")).collect();
    let topics: Vec<(&str, usize)> = long.iter().map(|name| (name.as_str(), 1)).collect();
    bench.set_topics(&topics);
    let reply = bench.beat(joins_with("a", ".*"));
    assert_eq!(error(&reply), ErrorCode::InvalidRegularExpression);
    assert!(bench.log.is_empty());
}

#[test]
fn only_a_members_expression_is_looked_at() {
    let mut bench = bench();
    bench.beat(joins_with("a", "t"));
    // None of these is an expression, and nobody asks.
    let reply = bench.beat(wants(beats("a", 7), "[u"));
    assert_eq!(error(&reply), ErrorCode::FencedMemberEpoch);
    let reply = bench.beat(wants(beats("b", 1), "[u"));
    assert_eq!(error(&reply), ErrorCode::UnknownMemberId);
    let reply = bench.beat(wants(beats("a", 1), &"u".repeat(1025)));
    assert_eq!(error(&reply), ErrorCode::InvalidRegularExpression);
}
