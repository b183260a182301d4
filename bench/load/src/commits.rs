//! As many offset commits as acknowledgements allow, by members of one group or of many.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use parking_lot::Mutex;
use rdkafka::{
    ClientContext, Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext, Rebalance},
    error::KafkaError,
};
use serde_json::{Value, json};

use crate::{
    group::{Membership, partitions},
    latency::Latencies,
    window::{Edges, Window},
};

/// Until all groups are stable.
const PATIENCE: Duration = Duration::from_secs(90);
/// Without a rebalance for this long (two heartbeats), they are.
const STABLE: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) bootstrap: String,
    pub(crate) topic: String,
    /// What the groups' names begin with.
    pub(crate) group: String,
    pub(crate) membership: Membership,
    pub(crate) groups: usize,
    /// Of each group.
    pub(crate) members: usize,
    /// Commits on their way, of each member.
    pub(crate) in_flight: usize,
    pub(crate) window: Window,
}

/// Where the run is; all members look at it.
#[derive(Debug, Default)]
struct Stage {
    /// Members that own partitions.
    assigned: AtomicUsize,
    rebalances: AtomicUsize,
    committing: AtomicBool,
    /// Acknowledgements count while the window is open.
    open: AtomicBool,
    ended: AtomicBool,
}

/// Joins, waits until all groups are stable, commits until the window closes, and tells what happened in it.
pub(crate) fn run(load: &Load) -> anyhow::Result<Value> {
    let stage = Arc::new(Stage::default());
    let (edges, tallies) = thread::scope(|scope| -> anyhow::Result<_> {
        let mut threads = Vec::new();
        for group in 0..load.groups {
            for _ in 0..load.members {
                let stage = Arc::clone(&stage);
                threads.push(scope.spawn(move || attend(load, group, stage)));
            }
        }
        let edges = wait_stable(load, &stage).and_then(|()| {
            stage.committing.store(true, Ordering::Relaxed);
            load.window.observe(Edges::Timed, &stage.open)
        });
        stage.ended.store(true, Ordering::Relaxed);
        let tallies: anyhow::Result<Vec<Tally>> = threads
            .into_iter()
            .map(|thread| thread.join().expect("a member does not panic"))
            .collect();
        // A member's failure is the cause where both have failed.
        let tallies = tallies?;
        Ok((edges?, tallies))
    })?;
    let (before, after) = edges;
    let mut all = Tally::default();
    for tally in tallies {
        all.append(tally);
    }
    let seconds = after.seconds_since(&before);
    let commits = all.latencies.count();
    Ok(json!({
        "seconds": seconds,
        "commits": commits,
        "commits_per_second": commits as f64 / seconds,
        "commit_ms": all.latencies.summary(),
        "failed": all.failed,
        "first_failure": all.first_failure,
        "cpu_seconds": after.since(&before),
    }))
}

fn wait_stable(load: &Load, stage: &Stage) -> anyhow::Result<()> {
    let expected = load.groups * load.members;
    let deadline = Instant::now() + PATIENCE;
    let (mut since, mut seen) = (Instant::now(), 0);
    loop {
        thread::sleep(LOOK);
        let assigned = stage.assigned.load(Ordering::Relaxed);
        let rebalances = stage.rebalances.load(Ordering::Relaxed);
        if assigned < expected || rebalances != seen {
            (since, seen) = (Instant::now(), rebalances);
        }
        if since.elapsed() >= STABLE {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!(
                "{assigned} of {expected} members have partitions after {} s",
                PATIENCE.as_secs()
            );
        }
    }
}

/// One member's life; returns what it has measured. Commits on their way are threads that wait: the client
/// does not tell whoever does not wait.
fn attend(load: &Load, group: usize, stage: Arc<Stage>) -> anyhow::Result<Tally> {
    let consumer: BaseConsumer<Member> = load
        .membership
        .config(&load.bootstrap, &format!("{}-{group}", load.group))
        .create_with_context(Member::new(Arc::clone(&stage)))
        .context("cannot make a member")?;
    consumer.subscribe(&[&load.topic])?;
    let next_offset = AtomicI64::new(0);
    thread::scope(|scope| {
        let committers: Vec<_> = (0..load.in_flight)
            .map(|_| scope.spawn(|| commit(&consumer, &load.topic, &next_offset, &stage)))
            .collect();
        let polled = poll(&consumer, &stage);
        // Also where this member has failed: without it the figures are worth nothing.
        stage.ended.store(true, Ordering::Relaxed);
        let mut all = Tally::default();
        for committer in committers {
            all.append(committer.join().expect("a committer does not panic")?);
        }
        polled.map(|()| all)
    })
}

/// Serves the member's callbacks until the run has ended.
fn poll(consumer: &BaseConsumer<Member>, stage: &Stage) -> anyhow::Result<()> {
    while !stage.ended.load(Ordering::Relaxed) {
        if let Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) = consumer.poll(LOOK) {
            return Err(error).context("the member is of no use any more");
        }
    }
    Ok(())
}

/// One commit after the other, each when the last one is acknowledged.
fn commit(
    consumer: &BaseConsumer<Member>,
    topic: &str,
    next_offset: &AtomicI64,
    stage: &Stage,
) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    while !stage.ended.load(Ordering::Relaxed) {
        let owned = *consumer.context().owned.lock();
        let (true, Some(partition)) = (stage.committing.load(Ordering::Relaxed), owned) else {
            thread::sleep(LOOK);
            continue;
        };
        let mut offsets = TopicPartitionList::new();
        let offset = next_offset.fetch_add(1, Ordering::Relaxed);
        offsets.add_partition_offset(topic, partition, Offset::Offset(offset))?;
        let sent = Instant::now();
        match consumer.commit(&offsets, CommitMode::Sync) {
            Ok(()) if stage.open.load(Ordering::Relaxed) => tally.latencies.add(sent.elapsed()),
            Ok(()) => {}
            Err(error) => {
                tally.failed += 1;
                tally.first_failure.get_or_insert_with(|| error.to_string());
            }
        }
    }
    Ok(tally)
}

#[derive(Debug, Default)]
struct Tally {
    latencies: Latencies,
    failed: usize,
    first_failure: Option<String>,
}

impl Tally {
    fn append(&mut self, other: Self) {
        self.latencies.append(other.latencies);
        self.failed += other.failed;
        self.first_failure = self.first_failure.take().or(other.first_failure);
    }
}

#[derive(Debug)]
struct Member {
    stage: Arc<Stage>,
    /// The partition that it commits for.
    owned: Mutex<Option<i32>>,
}

impl Member {
    fn new(stage: Arc<Stage>) -> Self {
        Self {
            stage,
            owned: Mutex::default(),
        }
    }

    /// Owns another partition, or none.
    fn own(&self, next: Option<i32>) {
        let before = std::mem::replace(&mut *self.owned.lock(), next);
        match (before, next) {
            (None, Some(_)) => {
                self.stage.assigned.fetch_add(1, Ordering::Relaxed);
            }
            (Some(_), None) => {
                self.stage.assigned.fetch_sub(1, Ordering::Relaxed);
            }
            _ => {}
        }
        self.stage.rebalances.fetch_add(1, Ordering::Relaxed);
    }
}

impl ClientContext for Member {}

impl ConsumerContext for Member {
    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let owned = *self.owned.lock();
        self.own(match rebalance {
            Rebalance::Assign(list) => owned.or_else(|| partitions(list).first().copied()),
            Rebalance::Revoke(list) => owned.filter(|kept| !partitions(list).contains(kept)),
            Rebalance::Error(_) => None,
        });
    }
}
