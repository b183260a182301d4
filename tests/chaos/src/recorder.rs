//! The history as it comes: every event in a file at once, and in memory for the checker.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Instant,
};

use anyhow::Context;
use chaos_checker::{Entry, Event, Outcome, Partition, Process};

/// The harness itself, where it has something to note.
const HARNESS: Process = 0;

/// The topic that a partition is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Topic {
    /// The one where each record counts.
    Values,
    /// The compacted one.
    Keys,
}

/// Takes the events of all clients.
#[derive(Debug)]
pub(crate) struct Recorder {
    began: Instant,
    path: PathBuf,
    next_process: AtomicU32,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    entries: Vec<Entry>,
    file: BufWriter<File>,
    failed: Option<std::io::Error>,
    last_acknowledgement: BTreeMap<(Topic, Partition), Instant>,
    acknowledged: u64,
}

impl Recorder {
    pub(crate) fn new(path: &Path) -> anyhow::Result<Self> {
        let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self {
            began: Instant::now(),
            path: path.to_owned(),
            next_process: AtomicU32::new(HARNESS + 1),
            inner: Mutex::new(Inner {
                entries: Vec::new(),
                file: BufWriter::new(file),
                failed: None,
                last_acknowledgement: BTreeMap::new(),
                acknowledged: 0,
            }),
        })
    }

    /// A number for a new client.
    pub(crate) fn new_process(&self) -> Process {
        self.next_process.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn record(&self, process: Process, event: Event) {
        let mut inner = self.lock();
        if let Some(partition) = acknowledged_in(&event) {
            inner.last_acknowledgement.insert(partition, Instant::now());
            inner.acknowledged += 1;
        }
        let entry = Entry {
            at_ms: self.began.elapsed().as_millis() as u64,
            process,
            event,
        };
        let line = entry.to_line();
        if let Err(error) = writeln!(inner.file, "{line}") {
            inner.failed.get_or_insert(error);
        }
        inner.entries.push(entry);
    }

    /// Notes something for people, and tells it at once.
    pub(crate) fn say(&self, text: &str) {
        println!("[{:7.1} s] {text}", self.began.elapsed().as_secs_f64());
        self.note(HARNESS, text);
    }

    pub(crate) fn note(&self, process: Process, text: &str) {
        self.record(
            process,
            Event::Note {
                text: text.to_owned(),
            },
        );
    }

    /// Whether every one of so many partitions of a topic has acknowledged something since then.
    pub(crate) fn all_acknowledged_since(&self, topic: Topic, partitions: i32, since: Instant) -> bool {
        let inner = self.lock();
        (0..partitions).all(|partition| {
            inner
                .last_acknowledgement
                .get(&(topic, partition))
                .is_some_and(|&at| at > since)
        })
    }

    pub(crate) fn acknowledged(&self) -> u64 {
        self.lock().acknowledged
    }

    /// The whole history; its file is complete.
    pub(crate) fn finish(&self) -> anyhow::Result<Vec<Entry>> {
        let mut inner = self.lock();
        let flushed = inner.file.flush();
        inner
            .failed
            .take()
            .map_or(flushed, Err)
            .with_context(|| format!("cannot write {}", self.path.display()))?;
        Ok(std::mem::take(&mut inner.entries))
    }

    /// A client thread that panicked had recorded its last event whole.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where something was acknowledged by this event.
const fn acknowledged_in(event: &Event) -> Option<(Topic, Partition)> {
    match *event {
        Event::Answered {
            partition,
            outcome: Outcome::Acknowledged { .. },
            ..
        } => Some((Topic::Values, partition)),
        Event::KeyAnswered {
            partition,
            outcome: Outcome::Acknowledged { .. },
            ..
        } => Some((Topic::Keys, partition)),
        _ => None,
    }
}
