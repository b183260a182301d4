//! The shard as its clients and its log see it.

mod bench;
mod consumer;
mod failover;
mod offsets;
mod rebalance;
mod replica;
mod states;
mod static_members;
