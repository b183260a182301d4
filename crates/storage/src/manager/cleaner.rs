//! The cleaner threads: each takes the dirtiest log that no other has, compacts it, and notes how far.
//!
//! A log whose batches cannot be read, or over which a cleaner panics, is left alone until it is cut,
//! built anew or opened again, and counted; where anything else goes wrong, all other logs come first, and
//! it is tried again.

use std::{
    any::Any,
    collections::{BTreeMap, HashMap, HashSet},
    io,
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use protocol::{Offset, TopicPartition};

use super::{
    LogManager, Monotonic,
    background::{HighWatermark, RetentionClock, Signal, wall_clock_ms},
};
use crate::{
    compaction::{Dirtiness, Throttle},
    error::StorageError,
    log::{CompactError, CompactionResources, Log},
    metric_names,
};

/// The least that a cleaner's buffers are, whatever is configured.
const BUFFER_MIN: u64 = 4096;
/// No cleaner looks for work more often than this.
const BACKOFF_MIN: Duration = Duration::from_millis(10);
/// How long a log that could not be compacted lets others come first.
const POSTPONED_FOR: Duration = Duration::from_secs(60);

/// `log.cleaner.*`. What belongs to a topic is in [`LogConfig`](crate::LogConfig).
#[derive(Clone, Debug, PartialEq)]
pub struct CleanerConfig {
    /// `log.cleaner.enable`: without it nothing is compacted.
    pub enabled: bool,
    /// `log.cleaner.threads`.
    pub threads: usize,
    /// `log.cleaner.dedupe.buffer.size`: bytes for the maps of keys, over all threads.
    pub dedupe_buffer_bytes: u64,
    /// `log.cleaner.io.buffer.load.factor`: how full a map may get, 0 to 1.
    pub load_factor: f64,
    /// `log.cleaner.io.buffer.size`: bytes read and written at once, over all threads.
    pub io_buffer_bytes: u64,
    /// `log.cleaner.io.max.bytes.per.second`: read and written, over all threads.
    pub max_bytes_per_second: f64,
    /// `log.cleaner.backoff.ms`: how long to wait where there is nothing to do.
    pub backoff: Duration,
}

impl Default for CleanerConfig {
    /// Kafka's defaults.
    fn default() -> Self {
        Self {
            enabled: true,
            threads: 1,
            dedupe_buffer_bytes: 128 << 20,
            load_factor: 0.9,
            io_buffer_bytes: 512 << 10,
            max_bytes_per_second: f64::MAX,
            backoff: Duration::from_secs(15),
        }
    }
}

impl CleanerConfig {
    /// What one thread has of something that all share.
    fn share(&self, bytes: u64) -> u64 {
        bytes / self.threads.max(1) as u64
    }
}

/// The threads, and what they have agreed on.
#[derive(Debug)]
pub(super) struct Cleaners {
    config: ArcSwap<CleanerConfig>,
    throttle: Throttle,
    signal: Arc<Signal>,
    /// Interrupts the cleanings that go on.
    stopping: AtomicBool,
    state: Mutex<State>,
    threads: Mutex<BTreeMap<usize, JoinHandle<()>>>,
    high_watermark: OnceLock<Bound>,
}

/// Up to where a log may be cleaned.
struct Bound(Arc<HighWatermark>);

impl std::fmt::Debug for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Bound")
    }
}

#[derive(Debug)]
struct State {
    /// Logs that a thread is at.
    busy: HashSet<TopicPartition>,
    /// Logs that cannot be cleaned, and why.
    uncleanable: HashMap<TopicPartition, (Subject, String)>,
    /// Logs whose cleaning has failed, and until when others come first.
    postponed: HashMap<TopicPartition, (Subject, Monotonic)>,
    clock: RetentionClock,
    last_run: Instant,
}

/// What was found out about a log says nothing about one that takes its place, nor about what is left of
/// it after a cut.
#[derive(Clone, Debug)]
struct Subject {
    log: Weak<Log>,
    generation: u64,
}

impl Subject {
    fn of(log: &Arc<Log>) -> Self {
        Self {
            log: Arc::downgrade(log),
            generation: log.generation(),
        }
    }

    fn is(&self, log: &Arc<Log>) -> bool {
        Weak::as_ptr(&self.log) == Arc::as_ptr(log) && self.generation == log.generation()
    }
}

impl State {
    fn may_clean(&self, partition: &TopicPartition, log: &Arc<Log>) -> bool {
        let cleanable = self
            .uncleanable
            .get(partition)
            .is_none_or(|(subject, _)| !subject.is(log));
        let due = |(subject, until): &(Subject, Monotonic)| !subject.is(log) || *until <= Monotonic::now();
        !self.busy.contains(partition) && cleanable && self.postponed.get(partition).is_none_or(due)
    }
}

/// A log that is to be compacted now.
struct Chosen {
    partition: TopicPartition,
    log: Arc<Log>,
    subject: Subject,
    dirtiness: Dirtiness,
}

impl Cleaners {
    pub(super) fn new(config: CleanerConfig) -> Self {
        Self {
            throttle: Throttle::new(config.max_bytes_per_second),
            config: ArcSwap::from_pointee(config),
            signal: Arc::default(),
            stopping: AtomicBool::new(false),
            state: Mutex::new(State {
                busy: HashSet::new(),
                uncleanable: HashMap::new(),
                postponed: HashMap::new(),
                clock: RetentionClock::new(wall_clock_ms(), Instant::now()),
                last_run: Instant::now(),
            }),
            threads: Mutex::default(),
            high_watermark: OnceLock::new(),
        }
    }

    /// How many threads there are.
    #[cfg(test)]
    pub(super) fn threads(&self) -> usize {
        self.threads.lock().len()
    }

    /// How many logs are being compacted.
    #[cfg(test)]
    pub(super) fn busy(&self) -> usize {
        self.state.lock().busy.len()
    }

    /// Ends the threads and waits for them; a cleaning that goes on is given up.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.signal.stop();
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads.into_values() {
            // The last owner of a manager may be a cleaner, which cannot wait for itself.
            if thread.thread().id() != thread::current().id() && thread.join().is_err() {
                tracing::error!("a log cleaner thread had panicked");
            }
        }
    }
}

impl Drop for Cleaners {
    fn drop(&mut self) {
        self.stop();
    }
}

impl LogManager {
    /// Other settings for compaction, at once: threads come and go, cleanings that run keep theirs but
    /// for the rate.
    pub fn set_cleaner_config(self: &Arc<Self>, config: CleanerConfig) -> io::Result<()> {
        if **self.cleaners.config.load() == config {
            return Ok(());
        }
        self.cleaners.throttle.set_rate(config.max_bytes_per_second);
        self.cleaners.config.store(Arc::new(config));
        self.cleaners.signal.wake();
        self.spawn_cleaners()
    }

    /// Partitions that cannot be compacted, with the reason.
    pub fn uncleanable(&self) -> Vec<(TopicPartition, String)> {
        let state = self.cleaners.state.lock();
        let uncleanable = state.uncleanable.iter();
        uncleanable
            .map(|(&partition, (_, reason))| (partition, reason.clone()))
            .collect()
    }

    pub(super) fn start_cleaners(self: &Arc<Self>, high_watermark: Arc<HighWatermark>) -> io::Result<()> {
        let _ = self.cleaners.high_watermark.set(Bound(high_watermark));
        self.spawn_cleaners()
    }

    /// Starts the threads that are missing, once there is somebody to say what is committed.
    fn spawn_cleaners(self: &Arc<Self>) -> io::Result<()> {
        let mut threads = self.cleaners.threads.lock();
        let config = self.cleaners.config.load();
        if self.cleaners.high_watermark.get().is_none()
            || !config.enabled
            || self.cleaners.stopping.load(Ordering::Acquire)
        {
            return Ok(());
        }
        for index in 0..config.threads {
            if threads.contains_key(&index) {
                continue;
            }
            let (manager, signal) = (Arc::downgrade(self), Arc::clone(&self.cleaners.signal));
            let thread = thread::Builder::new()
                .name(format!("ottla-log-cleaner-{index}"))
                .spawn(move || run(&manager, &signal, index))?;
            threads.insert(index, thread);
        }
        Ok(())
    }

    /// Whether thread `index` is to end; it is forgotten then.
    fn retire_cleaner(&self, index: usize) -> bool {
        let mut threads = self.cleaners.threads.lock();
        let config = self.cleaners.config.load();
        let retired = !config.enabled || index >= config.threads;
        if retired {
            threads.remove(&index);
        }
        retired
    }

    /// Compacts the dirtiest log that is due, if there is one. Returns whether there was.
    pub(super) fn clean_dirtiest(&self, high_watermark: &HighWatermark) -> bool {
        let now_ms = {
            let mut state = self.cleaners.state.lock();
            state.last_run = Instant::now();
            state.clock.now_ms(wall_clock_ms(), Instant::now())
        };
        let Some(chosen) = self.take_dirtiest(now_ms, high_watermark) else {
            return false;
        };
        let cleaned = caught(|| self.clean(&chosen.log, &chosen.dirtiness, now_ms));
        if let Err(CompactError::Panicked(_)) = cleaned {
            // It did not get to it itself. The log is still this thread's.
            chosen.log.remove_unfinished();
        }
        self.cleaners.state.lock().busy.remove(&chosen.partition);
        if let Err(error) = cleaned {
            self.put_off(chosen.partition, &chosen.log, chosen.subject, &error);
        }
        true
    }

    /// Draws the consequences where a log could not be compacted, or not even asked.
    fn put_off(&self, partition: TopicPartition, log: &Log, subject: Subject, error: &CompactError) {
        let dir = log.dir();
        let mut state = self.cleaners.state.lock();
        match error {
            // It was cut, or is on its way out; or the log itself has told what happened to it.
            CompactError::Interrupted
            | CompactError::Storage(StorageError::Closed { .. } | StorageError::Failed { .. }) => {
                tracing::debug!(log = %dir.display(), %error, "compaction was interrupted");
            }
            CompactError::Storage(StorageError::Corrupt { .. })
            | CompactError::Records { .. }
            | CompactError::Panicked(_) => {
                if matches!(error, CompactError::Panicked(_)) {
                    metrics::counter!(metric_names::CLEANER_PANICS_TOTAL).increment(1);
                }
                tracing::error!(log = %dir.display(), %error,
                    "log cannot be compacted; it is left alone until it is built anew, or the next start");
                state.uncleanable.insert(partition, (subject, error.to_string()));
            }
            CompactError::Storage(_) => {
                tracing::warn!(log = %dir.display(), %error, "compaction failed and is tried again");
                let until = Monotonic::now() + POSTPONED_FOR;
                state.postponed.insert(partition, (subject, until));
            }
        }
    }

    /// Reserves the dirtiest log that is due for the calling thread.
    fn take_dirtiest(&self, now_ms: i64, high_watermark: &HighWatermark) -> Option<Chosen> {
        let (mut dirtiest, mut largest): (Option<Chosen>, _) = (None, 0.0_f64);
        for (partition, log) in self.logs() {
            if !log.config().compact || log.has_failed() || self.is_moving(partition) {
                continue;
            }
            // Before it is asked anything: what is found out is about the log as it is now.
            let subject = Subject::of(&log);
            let may_clean = self.cleaners.state.lock().may_clean(&partition, &log);
            let dirtiness = match caught(|| dirtiness_of(&log, now_ms, high_watermark(partition))) {
                Ok(Some(dirtiness)) => dirtiness,
                Ok(None) => continue,
                Err(error) => {
                    // Where nothing is expected of it, that was told before.
                    if may_clean {
                        self.put_off(partition, &log, subject, &error);
                    }
                    continue;
                }
            };
            largest = largest.max(dirtiness.ratio());
            let dirtier = |other: &Chosen| dirtiness.ratio() > other.dirtiness.ratio();
            if may_clean && dirtiness.is_due(&log.config()) && dirtiest.as_ref().is_none_or(dirtier) {
                dirtiest = Some(Chosen {
                    partition,
                    log,
                    subject,
                    dirtiness,
                });
            }
        }
        let mut state = self.cleaners.state.lock();
        let hosted = |partition: &TopicPartition, subject: &Subject| {
            let log = self.get(*partition);
            log.is_some_and(|log| subject.is(&log))
        };
        state
            .uncleanable
            .retain(|partition, (subject, _)| hosted(partition, subject));
        let now = Monotonic::now();
        state
            .postponed
            .retain(|partition, (subject, until)| *until > now && hosted(partition, subject));
        metrics::gauge!(metric_names::CLEANER_MAX_DIRTY_RATIO).set(largest);
        metrics::gauge!(metric_names::CLEANER_UNCLEANABLE_PARTITIONS).set(state.uncleanable.len() as f64);
        // Another thread may have taken it in between.
        dirtiest.filter(|chosen| state.busy.insert(chosen.partition))
    }

    fn clean(&self, log: &Log, dirtiness: &Dirtiness, now_ms: i64) -> Result<(), CompactError> {
        let started = Instant::now();
        let config = self.cleaners.config.load();
        let resources = CompactionResources {
            map_bytes: config.share(config.dedupe_buffer_bytes),
            load_factor: config.load_factor,
            // Half of it for reading.
            io_buffer: (config.share(config.io_buffer_bytes) / 2).max(BUFFER_MIN),
            throttle: &self.cleaners.throttle,
            stopping: &self.cleaners.stopping,
        };
        let done = log.compact(dirtiness, now_ms, &resources)?;
        metrics::counter!(metric_names::CLEANER_READ_BYTES_TOTAL).increment(done.bytes_read);
        metrics::counter!(metric_names::CLEANER_WRITTEN_BYTES_TOTAL).increment(done.bytes_written);
        metrics::counter!(metric_names::CLEANER_RUNS_TOTAL).increment(1);
        metrics::histogram!(metric_names::CLEANER_RUN_SECONDS).record(started.elapsed());
        tracing::info!(log = %log.dir().display(), ?done, elapsed = ?started.elapsed(), "compacted");
        if done.records_without_key > 0 {
            tracing::warn!(log = %log.dir().display(), records = done.records_without_key,
                "records without a key were removed: a compacted topic keeps none");
        }
        self.checkpoint();
        Ok(())
    }

    /// Shows how long ago a cleaner last looked for work.
    pub(super) fn report_cleaners(&self) {
        let idle = self.cleaners.state.lock().last_run.elapsed();
        metrics::gauge!(metric_names::CLEANER_SECONDS_SINCE_LAST_RUN).set(idle.as_secs_f64());
    }
}

/// How dirty a log is; `None` where nobody can say up to where it may be cleaned.
fn dirtiness_of(log: &Log, now_ms: i64, stable: Option<Offset>) -> Result<Option<Dirtiness>, CompactError> {
    if let Err(error) = log.roll_if_due(now_ms) {
        tracing::debug!(log = %log.dir().display(), %error, "roll failed");
    }
    let Some(stable) = stable else { return Ok(None) };
    Ok(Some(log.dirtiness(stable, now_ms)?))
}

/// Makes an error of a panic: it must cost neither the thread nor the other logs their cleaning. The log
/// is not cleaned again, and what others see of it changes in one step at the end of a swap.
fn caught<T>(work: impl FnOnce() -> Result<T, CompactError>) -> Result<T, CompactError> {
    panic::catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|payload| Err(CompactError::Panicked(message_of(&*payload))))
}

fn message_of(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| String::from("without a message"))
}

fn run(manager: &Weak<LogManager>, signal: &Signal, index: usize) {
    loop {
        let Some(manager) = manager.upgrade() else {
            return;
        };
        if manager.retire_cleaner(index) {
            return;
        }
        let Some(Bound(high_watermark)) = manager.cleaners.high_watermark.get() else {
            return;
        };
        let worked = manager.clean_dirtiest(&**high_watermark);
        if manager.cleaners.stopping.load(Ordering::Acquire) {
            return;
        }
        let backoff = manager.cleaners.config.load().backoff.max(BACKOFF_MIN);
        // The wait must not keep the manager alive.
        drop(manager);
        if !worked && !signal.wait(Monotonic::now() + backoff) {
            return;
        }
    }
}
