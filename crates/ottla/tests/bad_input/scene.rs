//! A node, the healthy client beside it, and what must hold after each row.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
    thread,
    time::{Duration, Instant},
};

use crate::{
    ground::{Topic, topic},
    healthy::Healthy,
    support::{Client, DevNode},
};

/// What a node may ever have had resident, in bytes: an idle one has some 60 MiB. No row may come near a
/// frame of 100 MiB for each of its connections, nor a bomb's contents.
const PEAK: u64 = 600 << 20;
const MIB: u64 = 1 << 20;
/// What passes by itself has passed within this, however busy the machine is.
const SETTLED: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Where a test takes place.
pub(crate) struct Scene {
    healthy: Healthy,
    pub(crate) node: DevNode,
}

impl Scene {
    /// The scene that the tests share which need nothing special; as long as one of them lasts.
    pub(crate) fn shared() -> Arc<Self> {
        static SCENE: Mutex<Weak<Scene>> = Mutex::new(Weak::new());
        let mut scene = SCENE.lock().unwrap_or_else(PoisonError::into_inner);
        scene.upgrade().unwrap_or_else(|| {
            let started = Arc::new(Self::start(&[]));
            *scene = Arc::downgrade(&started);
            started
        })
    }

    /// A scene of a test's own, whose node has these configurations.
    pub(crate) fn start(settings: &[&str]) -> Self {
        Self::with_client_that_rests(settings, Duration::MAX)
    }

    /// A scene of a test's own, whose node closes connections that are idle for so long.
    pub(crate) fn impatient(idle: Duration) -> Self {
        let setting = format!("connections.max.idle.ms={}", idle.as_millis());
        Self::with_client_that_rests(&[&setting], idle / 5)
    }

    fn with_client_that_rests(settings: &[&str], rested: Duration) -> Self {
        let node = DevNode::start(settings);
        let topic = topic(&node, "healthy");
        let healthy = Healthy::start(node.address(), topic, rested);
        healthy.expect_progress("before anything bad");
        Self { healthy, node }
    }

    /// A topic with a name of the test's own.
    pub(crate) fn topic(&self, name: &str) -> Topic {
        topic(&self.node, name)
    }

    pub(crate) fn client(&self) -> Client {
        self.node.client()
    }

    /// Megabytes that are resident now.
    pub(crate) fn resident_mib(&self) -> u64 {
        self.node.resident_memory().unwrap_or(0) / MIB
    }

    /// Waits until at most so many megabytes more are resident than were `before`: what was needed for a
    /// while is given back soon, not at once.
    pub(crate) fn expect_given_back(&self, before: u64, at_most: u64, what: &str) {
        let deadline = Instant::now() + SETTLED;
        loop {
            let grown = self.resident_mib().saturating_sub(before);
            if grown <= at_most {
                return;
            }
            assert!(Instant::now() < deadline, "{what}: {grown} MiB are held");
            thread::sleep(LOOK_AGAIN);
        }
    }

    /// The processor time that the node has had.
    pub(crate) fn cpu_time(&self) -> Duration {
        self.node.cpu_time().unwrap_or_default()
    }

    /// What holds after each row of the table; `answer` is what the row got.
    pub(crate) fn after(&self, row: &str, answer: &str) {
        let deadline = Instant::now() + SETTLED;
        loop {
            // Where a test has taken every place, they are given back in a moment.
            let alive = self.node.http_get("/livez").unwrap_or_default();
            if alive.starts_with("HTTP/1.1 200") {
                break;
            }
            let log = self.node.log();
            assert!(
                Instant::now() < deadline,
                "{row}: the node is gone: {alive}\n{log}"
            );
            thread::sleep(LOOK_AGAIN);
        }
        let slowest = self.healthy.expect_progress(row);
        let peak = self.node.peak_memory().unwrap_or(0);
        assert!(peak < PEAK, "{row}: {} MiB were resident", peak / MIB);
        println!(
            "{row} | {answer} | {} MiB, peak {} | {:.0} ms",
            self.resident_mib(),
            peak / MIB,
            slowest.as_secs_f64() * 1000.0
        );
    }

    /// Every directory below the node's place, relative to it.
    pub(crate) fn directories(&self) -> BTreeSet<PathBuf> {
        let data = self.node.data();
        let root = data.parent().unwrap();
        let mut found = BTreeSet::new();
        collect(root, root, &mut found);
        found
    }
}

fn collect(root: &Path, dir: &Path, found: &mut BTreeSet<PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.insert(entry.path().strip_prefix(root).unwrap().to_owned());
            collect(root, &entry.path(), found);
        }
    }
}
