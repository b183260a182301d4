//! The cleaner threads: each takes the dirtiest log that no other has, compacts it, and notes how far.
//!
//! A log whose batches cannot be read is left alone until the next start, and counted; where anything
//! else goes wrong, all other logs come first, and it is tried again.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use protocol::TopicPartition;

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
    uncleanable: HashMap<TopicPartition, String>,
    /// Logs whose cleaning has failed, and until when others come first.
    postponed: HashMap<TopicPartition, Monotonic>,
    clock: RetentionClock,
    last_run: Instant,
}

impl State {
    fn may_clean(&self, partition: &TopicPartition) -> bool {
        !self.busy.contains(partition)
            && !self.uncleanable.contains_key(partition)
            && self
                .postponed
                .get(partition)
                .is_none_or(|&until| until <= Monotonic::now())
    }
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
        let pair = |(&partition, reason): (&TopicPartition, &String)| (partition, reason.clone());
        state.uncleanable.iter().map(pair).collect()
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
    fn clean_dirtiest(&self, high_watermark: &HighWatermark) -> bool {
        let now_ms = {
            let mut state = self.cleaners.state.lock();
            state.last_run = Instant::now();
            state.clock.now_ms(wall_clock_ms(), Instant::now())
        };
        let Some((partition, log, dirtiness)) = self.take_dirtiest(now_ms, high_watermark) else {
            return false;
        };
        let cleaned = self.clean(&log, &dirtiness, now_ms);
        let mut state = self.cleaners.state.lock();
        state.busy.remove(&partition);
        match cleaned {
            Ok(()) => true,
            Err(CompactError::Interrupted) => {
                tracing::debug!(log = %log.dir().display(), "compaction was interrupted");
                false
            }
            Err(CompactError::Storage(error)) if !matches!(error, StorageError::Corrupt { .. }) => {
                tracing::warn!(log = %log.dir().display(), %error, "compaction failed and is tried again");
                let until = Monotonic::now() + POSTPONED_FOR;
                state.postponed.insert(partition, until);
                true
            }
            Err(error) => {
                tracing::error!(log = %log.dir().display(), %error, "log cannot be compacted; it is left alone until the next start");
                state.uncleanable.insert(partition, error.to_string());
                true
            }
        }
    }

    /// Reserves the dirtiest log that is due for the calling thread.
    fn take_dirtiest(
        &self,
        now_ms: i64,
        high_watermark: &HighWatermark,
    ) -> Option<(TopicPartition, Arc<Log>, Dirtiness)> {
        let logs = self.logs();
        let (mut dirtiest, mut largest) = (None, 0.0_f64);
        for (partition, log) in &logs {
            let config = log.config();
            if !config.compact || log.has_failed() {
                continue;
            }
            if let Err(error) = log.roll_if_due(now_ms) {
                tracing::debug!(log = %log.dir().display(), %error, "roll failed");
            }
            let Some(stable) = high_watermark(*partition) else {
                continue;
            };
            let Ok(dirtiness) = log.dirtiness(stable, now_ms) else {
                continue;
            };
            largest = largest.max(dirtiness.ratio());
            if !self.cleaners.state.lock().may_clean(partition) {
                continue;
            }
            let dirtier =
                |(_, _, other): &(TopicPartition, Arc<Log>, Dirtiness)| dirtiness.ratio() > other.ratio();
            if dirtiness.is_due(&config) && dirtiest.as_ref().is_none_or(dirtier) {
                dirtiest = Some((*partition, Arc::clone(log), dirtiness));
            }
        }
        let mut state = self.cleaners.state.lock();
        let hosted: HashSet<TopicPartition> = logs.iter().map(|&(partition, _)| partition).collect();
        state
            .uncleanable
            .retain(|partition, _| hosted.contains(partition));
        let now = Monotonic::now();
        state.postponed.retain(|_, until| *until > now);
        metrics::gauge!(metric_names::CLEANER_MAX_DIRTY_RATIO).set(largest);
        metrics::gauge!(metric_names::CLEANER_UNCLEANABLE_PARTITIONS).set(state.uncleanable.len() as f64);
        // Another thread may have taken it in between.
        dirtiest.filter(|&(partition, _, _)| state.busy.insert(partition))
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
        self.checkpoint();
        Ok(())
    }

    /// Shows how long ago a cleaner last looked for work.
    pub(super) fn report_cleaners(&self) {
        let idle = self.cleaners.state.lock().last_run.elapsed();
        metrics::gauge!(metric_names::CLEANER_SECONDS_SINCE_LAST_RUN).set(idle.as_secs_f64());
    }
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
