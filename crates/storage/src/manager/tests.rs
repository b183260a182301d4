//! Restarts, foreign and damaged directories, deletion, and names that are used again.

use std::{
    cell::Cell,
    collections::BTreeSet,
    fs,
    time::{Duration, Instant},
};

use bytes::Bytes;
use protocol::{LeaderEpoch, Offset, PartitionIndex, TopicId, batch::BatchBuilder};
use uuid::Uuid;

use super::*;
use crate::{
    checkpoint::{self, RECOVERY_POINTS},
    log::{AppendOutcome, LeaderAppend, ReadRequest},
    meta_properties, partition_metadata,
};

mod claims;
mod cleaning;
mod deletion;
mod directories;
mod losses;
mod model;
mod moving;
mod restart;
mod upkeep;

const BOOT: &str = "boot-1";

fn config(dir: &Path) -> ManagerConfig {
    ManagerConfig {
        flush_threads: 1,
        ..ManagerConfig::new(vec![dir.to_owned()], BrokerId(1))
    }
}

fn open(dir: &Path) -> (Arc<LogManager>, StartupReport) {
    LogManager::open(config(dir), BOOT).expect("the directory is ours")
}

fn topic(name: &str) -> TopicName {
    TopicName::new(name).expect("valid name")
}

/// An id that no other topic of the test has: as unordered as a random one, and the same in every run.
fn topic_id() -> TopicId {
    /// Odd: no two multiples of it are the same.
    const STRIDE: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
    thread_local! {
        static LAST: Cell<u128> = const { Cell::new(0) };
    }
    let next = LAST.get().wrapping_add(STRIDE);
    LAST.set(next);
    TopicId(Uuid::from_u128(next))
}

fn partition(index: i32) -> TopicPartition {
    TopicPartition::new(topic_id(), PartitionIndex(index))
}

fn create(manager: &LogManager, partition: TopicPartition, name: &str) -> Arc<Log> {
    manager
        .create(partition, &topic(name), None, LogConfig::default())
        .expect("create")
}

fn append(log: &Log, value: &str) -> Offset {
    let batch = BatchBuilder {
        base_timestamp: 1_000,
        max_timestamp: 1_000,
        ..BatchBuilder::default()
    };
    let outcome = log
        .append_as_leader(LeaderAppend {
            batches: Bytes::from(batch.build_records(&[(None, Some(value.as_bytes()))])),
            leader_epoch: LeaderEpoch(0),
            now_ms: 1_000,
            log_append_time: None,
        })
        .expect("append");
    match outcome {
        AppendOutcome::Appended(info) => info.last_offset,
        AppendOutcome::Duplicate { .. } => unreachable!("the producer is not idempotent"),
    }
}

fn contains(log: &Log, value: &str) -> bool {
    let read = log
        .read(ReadRequest {
            from: log.log_start_offset(),
            upper: log.log_end_offset(),
            max_bytes: 1 << 20,
            min_one_batch: true,
        })
        .expect("read");
    read.bytes
        .windows(value.len())
        .any(|window| window == value.as_bytes())
}

/// Names in a directory.
fn names_in(dir: &Path) -> BTreeSet<String> {
    fs::read_dir(dir)
        .expect("list")
        .map(|entry| entry.expect("list").file_name().into_string().expect("UTF-8"))
        .collect()
}

fn ending_with(dir: &Path, suffix: &str) -> usize {
    names_in(dir).iter().filter(|name| name.ends_with(suffix)).count()
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "still waiting until {what}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}
