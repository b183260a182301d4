//! Records over gRPC, against three brokers of the real binary: every broker takes every call, streams
//! outlive the leaders of their partitions, and whatever is refused is refused with Kafka's error. And what
//! brokers ask each other in the name of Kafka clients.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

mod calls;
mod cluster;
mod failover;
mod kafka_offsets;
mod refusals;
mod streams;
#[path = "../support/mod.rs"]
mod support;
