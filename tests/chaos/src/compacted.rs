//! The compacted topic of a run: how it is made so that cleaners never rest, who writes it, and what its
//! holders have at the end.

use std::{collections::BTreeMap, path::Path, time::Duration};

use chaos_checker::{Event, Holder, Key, Partition};

use crate::{
    cluster::Cluster,
    producer::{Habits, Target},
    recorder::Recorder,
    replicas,
    watch::Watched,
    work::Keys,
};

pub(crate) const PARTITIONS: i32 = 2;
/// What every broker is told: a cleaner that has nothing to do looks again soon.
pub(crate) const BROKER_SETTING: &str = "log.cleaner.backoff.ms=200";
/// Keys that each producer writes.
const KEYS_EACH: Key = 600;
/// Between two sends of a producer: the machine has the other topic's work to do too.
const PACE: Duration = Duration::from_millis(10);
/// How long tombstones are kept: so short that many go during a run of a minute, longer than a replica is
/// away unless the machine is very busy.
const TOMBSTONES_STAY: Duration = Duration::from_secs(25);
/// How far the time that a replica was seen away may be from the time that it was.
const AWAY_UNSEEN: Duration = Duration::from_secs(5);

/// Makes the topic. A cleaner finds work every other second: segments end by their age, since no topic may have
/// smaller ones than 1 MiB.
pub(crate) fn create(cluster: &Cluster) -> anyhow::Result<Target> {
    let configs = [
        "cleanup.policy=compact".to_owned(),
        "segment.bytes=1048576".to_owned(),
        "segment.ms=2000".to_owned(),
        "min.cleanable.dirty.ratio=0.01".to_owned(),
        format!("delete.retention.ms={}", TOMBSTONES_STAY.as_millis()),
    ];
    Ok(Target {
        bootstrap: cluster.bootstrap().to_owned(),
        topic: cluster.create_topic("compacted", PARTITIONS, &configs)?,
        partitions: PARTITIONS,
    })
}

/// Its producers' habits and work. No key is written by two of them.
pub(crate) fn producers() -> Vec<(Habits, Keys)> {
    let habits = [
        Habits::idempotent(Duration::from_secs(60)),
        Habits::idempotent(Duration::from_secs(60)).compressing("lz4"),
        // One that gives up early, as on the other topic.
        Habits::idempotent(Duration::from_secs(4)).compressing("zstd"),
    ];
    (0..)
        .zip(habits)
        .map(|(number, habits)| {
            let first = number * KEYS_EACH;
            (
                habits.at_pace(PACE),
                Keys::new(PARTITIONS, first..first + KEYS_EACH),
            )
        })
        .collect()
}

/// Keys from here on are nobody's.
pub(crate) const FIRST_FREE_KEY: Key = 1_000_000;

/// Whether a replica was away for so long that it may never have heard of tombstones that went meanwhile. As
/// in Kafka, it keeps what they deleted.
pub(crate) fn may_miss_tombstones(watched: &Watched) -> bool {
    watched.longest_away + AWAY_UNSEEN >= TOMBSTONES_STAY
}

/// Records what each broker's files hold below the high watermarks `ends`; gives what cannot be read.
pub(crate) fn record_replicas(
    directories: &[&Path],
    topic: &str,
    ends: &BTreeMap<Partition, i64>,
    recorder: &Recorder,
) -> Vec<String> {
    let mut failures = Vec::new();
    for (broker, directory) in (1..).zip(directories) {
        for (&partition, &end) in ends {
            match replicas::keys_below(&directory.join(format!("{topic}-{partition}")), end) {
                Ok(records) => recorder.record(
                    recorder.new_process(),
                    Event::KeysAtTheEnd {
                        partition,
                        holder: Holder::Replica(broker),
                        records,
                    },
                ),
                Err(error) => failures.push(format!("reading the compacted topic's replicas: {error:#}")),
            }
        }
    }
    failures
}
