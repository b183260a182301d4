//! The judge of chaos runs: a [`history`] of what clients saw goes in, [anomalies](crate::anomaly) come out.
//!
//! **Owns** the history's format (JSON lines) and the rules. It is pure: no clock, no file, no cluster, so
//! that a recorded history can be judged again after the rules have changed, and so that each rule can be
//! shown to notice what it is there for.
//!
//! **Never** knows which faults were injected or what the cluster did: only what was sent, what was
//! answered, and what was read. The rules are those of Jepsen's Kafka workload, re-implemented, without
//! transactions; what goes beyond them says so where it stands.
//!
//! A *value* is written once at most, to one partition: whoever records a history guarantees that. A history
//! may be about a second, compacted topic too, where what counts is not each record but the last of each
//! key; its events and anomalies speak of keys.

pub mod anomaly;
mod check;
mod compacted;
pub mod history;
mod key_log;
mod partition_log;

pub use anomaly::Anomaly;
pub use check::{Counts, Report, Rules, Verdict, check};
pub use compacted::KeyCounts;
pub use history::{
    Entry, Event, HistoryError, Holder, Key, KeyRecord, Outcome, Partition, Process, Value, Version,
    read_history,
};
