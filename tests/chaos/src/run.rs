//! A run: clients at work, faults on schedule, then healing, the last reading, and the verdict's material.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow, bail};

use crate::{
    cluster::{Cluster, ClusterConfig},
    compacted, faults,
    producer::{self, Habits, Target},
    reader::{self, OfKeys, OfValues},
    recorder::{Recorder, Topic},
    replicas,
    schedule::{Schedule, Shape},
    topic::TopicView,
    watch::{self, Watched},
    work::Values,
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
    /// What the verdict on the compacted topic depends on.
    pub(crate) watched: Watched,
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
        settings: vec![
            format!("broker.session.timeout.ms={}", shape.session_timeout.as_millis()),
            compacted::BROKER_SETTING.to_owned(),
        ],
    })?;
    let target = Target {
        bootstrap: cluster.bootstrap().to_owned(),
        topic: cluster.create_topic("chaos", shape.partitions, &[])?,
        partitions: shape.partitions,
    };
    let compacted = compacted::create(&cluster)?;
    recorder.say(&format!(
        "topics {} and {} at {}, data in {}",
        target.topic,
        compacted.topic,
        target.bootstrap,
        dir.display()
    ));
    let view = TopicView::new(&[&target, &compacted])?;
    let compacted_view = TopicView::new(&[&compacted])?;
    let addresses = addresses(&target)?;
    let mut happened = Happened::default();
    let (stop_writing, stop_reading) = (AtomicBool::new(false), AtomicBool::new(false));
    let stop_watching = AtomicBool::new(false);
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
            let work = Values::new(target.partitions);
            clients.push(
                scope.spawn(move || producer::run(target, &habits, work, seed ^ number, recorder, stop)),
            );
        }
        for (number, (habits, work)) in (11..).zip(compacted::producers()) {
            let (target, stop) = (&compacted, &stop_writing);
            clients.push(
                scope.spawn(move || producer::run(target, &habits, work, seed ^ number, recorder, stop)),
            );
        }
        let mut readers = Vec::new();
        for number in 101..103 {
            let (target, stop) = (&target, &stop_reading);
            readers.push(scope.spawn(move || reader::run::<OfValues>(target, seed ^ number, recorder, stop)));
        }
        let (keys, stop, number) = (&compacted, &stop_reading, 111);
        readers.push(scope.spawn(move || reader::run::<OfKeys>(keys, seed ^ number, recorder, stop)));
        let watcher = scope.spawn(|| watch::run(&compacted_view, &addresses, &stop_watching));
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
        stop_watching.store(true, Ordering::Relaxed);
        happened.watched = watcher.join().map_err(|_| anyhow!("the watcher panicked"))?;
        played.and(wrote).and(read)
    })?;
    recorder.say("everybody has stopped writing");
    producer::mark_ends(&compacted, recorder, compacted::FIRST_FREE_KEY)?;
    if let Err(error) = view.wait_in_sync(shape.brokers, IN_SYNC_AGAIN) {
        happened.failures.push(format!("after the last write: {error:#}"));
    }
    let ends = reader::read_everything::<OfValues>(&target, recorder, READ)?;
    let key_ends = reader::read_everything::<OfKeys>(&compacted, recorder, READ)?;
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
    happened.failures.extend(compacted::record_replicas(
        &directories,
        &compacted.topic,
        &key_ends,
        recorder,
    ));
    happened.failures.extend(cluster.fallen()?);
    Ok(happened)
}

/// Where the brokers are, in their order.
fn addresses(target: &Target) -> anyhow::Result<Vec<SocketAddr>> {
    let addresses = target.bootstrap.split(',').map(str::parse);
    addresses
        .collect::<Result<_, _>>()
        .with_context(|| format!("{} are no addresses", target.bootstrap))
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
    let resumed = || {
        [
            (Topic::Values, shape.partitions),
            (Topic::Keys, compacted::PARTITIONS),
        ]
        .into_iter()
        .all(|(topic, partitions)| recorder.all_acknowledged_since(topic, partitions, healed))
    };
    while !resumed() {
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
