//! A run: clients at work, faults on schedule, then healing, the last reading, and the verdict's material.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, bail};

use crate::{
    cluster::{Cluster, ClusterConfig},
    faults,
    producer::{self, Habits, Target},
    reader,
    recorder::Recorder,
    replicas,
    schedule::{Schedule, Shape},
    topic::TopicView,
};

/// After healing, when every node is ready, each partition acknowledges again within this.
const WRITES_RESUME: Duration = Duration::from_secs(120);
/// After healing, each replica is in sync again within this.
const IN_SYNC_AGAIN: Duration = Duration::from_secs(120);
/// How long the last reader waits for the next record.
const READ: Duration = Duration::from_secs(180);

/// What happened, apart from the history.
#[derive(Debug, Default)]
pub(crate) struct Happened {
    /// How often each kind of fault was injected.
    pub(crate) faults: BTreeMap<&'static str, usize>,
    /// What went wrong that no history shows: a node that ended by itself, replicas that differ, a
    /// cluster that does not heal.
    pub(crate) failures: Vec<String>,
    pub(crate) batches_compared: usize,
}

/// Plays the seed's schedule for `duration` in the empty directory `dir`.
pub(crate) fn run(
    binary: &Path,
    dir: &Path,
    shape: Shape,
    seed: u64,
    duration: Duration,
    recorder: &Arc<Recorder>,
) -> anyhow::Result<Happened> {
    let mut cluster = Cluster::start(&ClusterConfig {
        binary: binary.to_owned(),
        dir: dir.to_owned(),
        brokers: shape.brokers,
        controllers: shape.controllers,
        settings: vec![format!(
            "broker.session.timeout.ms={}",
            shape.session_timeout.as_millis()
        )],
    })?;
    let target = Target {
        bootstrap: cluster.bootstrap().to_owned(),
        topic: cluster.create_topic(shape.partitions)?,
        partitions: shape.partitions,
    };
    recorder.say(&format!(
        "topic {} at {}, data in {}",
        target.topic,
        target.bootstrap,
        dir.display()
    ));
    let view = TopicView::new(&target)?;
    let mut happened = Happened::default();
    let (stop_writing, stop_reading) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| -> anyhow::Result<()> {
        let habits = [
            Habits::idempotent(Duration::from_secs(60)),
            Habits::idempotent(Duration::from_secs(60)),
            // One that gives up early: many sends of which nobody knows, and new producer epochs.
            Habits::idempotent(Duration::from_secs(4)),
            Habits::refused(),
        ];
        let mut clients = Vec::new();
        for (number, habits) in (1..).zip(habits) {
            let (target, stop) = (&target, &stop_writing);
            clients.push(scope.spawn(move || producer::run(target, &habits, seed ^ number, recorder, stop)));
        }
        let mut readers = Vec::new();
        for number in 101..103 {
            let (target, stop) = (&target, &stop_reading);
            readers.push(scope.spawn(move || reader::run(target, seed ^ number, recorder, stop)));
        }
        let played = play(
            &mut cluster,
            &view,
            shape,
            seed,
            duration,
            recorder,
            &mut happened,
        );
        // Whatever happened: nobody is left running.
        stop_writing.store(true, Ordering::Relaxed);
        let wrote = join(clients);
        stop_reading.store(true, Ordering::Relaxed);
        let read = join(readers);
        played.and(wrote).and(read)
    })?;
    recorder.say("everybody has stopped writing");
    if let Err(error) = view.wait_in_sync(shape.brokers, IN_SYNC_AGAIN) {
        happened.failures.push(format!("after the last write: {error:#}"));
    }
    let ends = reader::read_everything(&target, recorder, READ)?;
    let directories: Vec<&Path> = cluster
        .brokers()
        .iter()
        .map(|broker| broker.data.as_path())
        .collect();
    match replicas::compare(&directories, &target.topic, &ends) {
        Ok((differences, batches)) => {
            happened.batches_compared = batches;
            happened.failures.extend(differences);
        }
        Err(error) => happened.failures.push(format!("comparing replicas: {error:#}")),
    }
    happened.failures.extend(cluster.fallen()?);
    Ok(happened)
}

/// Faults until the time is over, then healing.
fn play(
    cluster: &mut Cluster,
    view: &TopicView,
    shape: Shape,
    seed: u64,
    duration: Duration,
    recorder: &Recorder,
    happened: &mut Happened,
) -> anyhow::Result<()> {
    let end = Instant::now() + duration;
    for episode in Schedule::new(shape, seed) {
        std::thread::sleep(Duration::from_millis(episode.quiet_ms));
        if Instant::now() >= end {
            break;
        }
        recorder.say(&format!(
            "{} ({} acknowledged so far)",
            episode.fault,
            recorder.acknowledged()
        ));
        *happened.faults.entry(episode.fault.kind()).or_default() += 1;
        if let Err(error) = faults::inject(cluster, &episode.fault, view, shape.brokers, recorder) {
            recorder.say(&format!("FAILURE: {error:#}"));
            happened.failures.push(format!("{}: {error:#}", episode.fault));
        }
        for fallen in cluster.fallen()? {
            recorder.say(&format!("FAILURE: {fallen}"));
            happened.failures.push(fallen);
        }
        cluster.start_all()?;
    }
    recorder.say("healing");
    cluster.start_all()?;
    let healed = Instant::now();
    if let Err(error) = cluster.wait_ready() {
        happened.failures.push(format!("after healing: {error:#}"));
    }
    let ready = Instant::now();
    while !recorder.all_acknowledged_since(shape.partitions, healed) {
        if ready.elapsed() > WRITES_RESUME {
            happened.failures.push(format!(
                "{} s after healing not every partition acknowledges: {:?}",
                WRITES_RESUME.as_secs(),
                view.partitions()
            ));
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    if let Err(error) = view.wait_in_sync(shape.brokers, IN_SYNC_AGAIN) {
        happened.failures.push(format!("after healing: {error:#}"));
    }
    Ok(())
}

fn join(threads: Vec<std::thread::ScopedJoinHandle<'_, anyhow::Result<()>>>) -> anyhow::Result<()> {
    for thread in threads {
        match thread.join() {
            Ok(ended) => ended.context("a client")?,
            Err(_) => bail!("a client panicked"),
        }
    }
    Ok(())
}
