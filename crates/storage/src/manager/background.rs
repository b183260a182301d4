//! What goes on by itself: checkpoints, due flushes, retention, the expiry of idle producers, delayed
//! removals.

use std::{
    fmt, io,
    sync::{Arc, Weak},
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use parking_lot::{Condvar, Mutex};
use protocol::{Offset, TopicPartition};

use super::{LogManager, Monotonic, directory::DataDirectory};
use crate::flush::{FlushFailed, FlushListener};

/// How often logs are asked whether a flush by `flush.ms` is due: the precision of that setting.
const SETTLING_INTERVAL: Duration = Duration::from_secs(1);
/// How often directories are looked at: a failing one is offline about this much later at the latest.
const PROBE_INTERVAL: Duration = Duration::from_millis(250);
/// A step of the wall clock that is worth a line in the log.
const NOTABLE_JUMP_MS: i64 = 60_000;

/// Milliseconds since 1970.
pub(super) fn wall_clock_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// The thread and how to end it.
#[derive(Debug, Default)]
pub(super) struct Background {
    signal: Arc<Signal>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
pub(super) struct Signal {
    state: Mutex<SignalState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct SignalState {
    stopped: bool,
    woken: bool,
}

impl Background {
    /// Ends the thread and waits for it.
    pub(super) fn stop(&self) {
        self.signal.stop();
        let thread = self.thread.lock().take();
        // The last owner of a manager may be the thread itself, which cannot wait for itself.
        if let Some(thread) = thread.filter(|t| t.thread().id() != thread::current().id())
            && thread.join().is_err()
        {
            tracing::error!("the log upkeep thread had panicked");
        }
    }

    /// Lets the thread look at its work anew.
    pub(super) fn wake(&self) {
        self.signal.wake();
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Signal {
    /// Ends every wait for good.
    pub(super) fn stop(&self) {
        self.state.lock().stopped = true;
        self.changed.notify_all();
    }

    /// Ends the waits that go on.
    pub(super) fn wake(&self) {
        self.state.lock().woken = true;
        self.changed.notify_all();
    }

    /// Waits until `until`, or until woken; `false` when it is time to end.
    pub(super) fn wait(&self, until: Monotonic) -> bool {
        let mut state = self.state.lock();
        while !state.stopped && !state.woken {
            if self.changed.wait_until(&mut state, until).timed_out() {
                break;
            }
        }
        state.woken = false;
        !state.stopped
    }
}

/// The time by which retention deletes: the wall clock as of the start, carried on evenly. Were the
/// clock put forward by a year, all data would be a year old at once; so only time that has really
/// passed counts, until the next start. Put back, it deletes later.
#[derive(Debug)]
pub(super) struct RetentionClock {
    started_wall_ms: i64,
    started: Monotonic,
    reported_jump: bool,
}

impl RetentionClock {
    pub(super) fn new(wall_ms: i64, now: Monotonic) -> Self {
        Self {
            started_wall_ms: wall_ms,
            started: now,
            reported_jump: false,
        }
    }

    pub(super) fn now_ms(&mut self, wall_ms: i64, now: Monotonic) -> i64 {
        let even_ms = self.started_wall_ms.saturating_add(self.even_ms(now));
        let jumped = wall_ms.saturating_sub(even_ms).abs() > NOTABLE_JUMP_MS;
        if jumped && !self.reported_jump {
            tracing::warn!(
                ahead_ms = wall_ms.saturating_sub(even_ms),
                "the wall clock has jumped; retention goes by the time that has really passed"
            );
        }
        self.reported_jump = jumped;
        even_ms.min(wall_ms)
    }

    /// Milliseconds since the start.
    fn even_ms(&self, now: Monotonic) -> i64 {
        i64::try_from(now.duration_since(self.started).as_millis()).unwrap_or(i64::MAX)
    }
}

/// What the thread does next, and when.
#[derive(Debug)]
struct Schedule {
    probe: Monotonic,
    settling: Monotonic,
    checkpoint: Monotonic,
    retention: Monotonic,
}

pub(super) type HighWatermark = dyn Fn(TopicPartition) -> Option<Offset> + Send + Sync;

struct Upkeep {
    manager: Weak<LogManager>,
    high_watermark: Arc<HighWatermark>,
    clock: RetentionClock,
    schedule: Schedule,
}

impl fmt::Debug for Upkeep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upkeep")
            .field("schedule", &self.schedule)
            .finish_non_exhaustive()
    }
}

impl LogManager {
    /// Starts the upkeep thread and the cleaners, which end with [`LogManager::close`] or with the
    /// manager. Retention and compaction never touch what is at or above what `high_watermark` says of a
    /// partition, and nothing where it says `None`. A second call does nothing. The error is that of a
    /// system that gives no thread.
    pub fn background(
        self: &Arc<Self>,
        high_watermark: impl Fn(TopicPartition) -> Option<Offset> + Send + Sync + 'static,
    ) -> io::Result<()> {
        let mut thread = self.background.thread.lock();
        if thread.is_some() {
            return Ok(());
        }
        let now = Monotonic::now();
        let high_watermark: Arc<HighWatermark> = Arc::new(high_watermark);
        let upkeep = Upkeep {
            manager: Arc::downgrade(self),
            high_watermark: Arc::clone(&high_watermark),
            clock: RetentionClock::new(wall_clock_ms(), now),
            schedule: Schedule {
                probe: now,
                settling: now + SETTLING_INTERVAL,
                checkpoint: now + self.config.checkpoint_interval,
                retention: now + self.config.retention_interval,
            },
        };
        let signal = Arc::clone(&self.background.signal);
        let handle = thread::Builder::new()
            .name("ottla-log-upkeep".to_owned())
            .spawn(move || upkeep.run(&signal))?;
        *thread = Some(handle);
        drop(thread);
        self.start_cleaners(high_watermark)
    }

    /// Deletes what retention no longer keeps and forgets producers that were idle for too long.
    /// `now_ms` is the wall clock's time since 1970, `even_ms` any evenly running clock's.
    fn expire(&self, now_ms: i64, even_ms: i64, high_watermark: &HighWatermark) {
        for (partition, log) in self.logs() {
            log.expire_producers(even_ms, self.config.producer_expiration);
            if let Err(error) = log.roll_if_due(now_ms) {
                tracing::warn!(log = %log.dir().display(), %error, "roll failed");
            }
            let Some(upper) = high_watermark(partition) else {
                continue;
            };
            match log.delete_expired(now_ms, upper) {
                Ok(0) => {}
                Ok(segments) => {
                    tracing::info!(log = %log.dir().display(), segments, log_start = %log.log_start_offset(), "retention");
                }
                Err(error) => tracing::warn!(log = %log.dir().display(), %error, "retention failed"),
            }
        }
    }
}

impl LogManager {
    /// Requests the flushes that are due by time or count, or that let recovery begin later, and
    /// removes the files of deleted segments whose delay is over.
    fn settle(&self, now_ms: i64) {
        self.report_cleaners();
        self.report_directories();
        for (_, log) in self.logs() {
            log.remove_deleted();
            if log.flush_due(now_ms) {
                self.flusher.request(log, Arc::new(Unattended));
            }
        }
    }
}

/// Nobody waits for the flush: a log that fails notes it by itself.
#[derive(Debug)]
struct Unattended;

impl FlushListener for Unattended {
    fn flushed(&self, result: Result<Offset, FlushFailed>) {
        if let Err(error) = result {
            tracing::debug!(?error, "a flush by time failed");
        }
    }
}

impl Upkeep {
    fn run(mut self, signal: &Signal) {
        loop {
            let Some(manager) = self.manager.upgrade() else {
                return;
            };
            let next = self.tick(&manager, Instant::now());
            // The wait must not keep the manager alive.
            drop(manager);
            if !signal.wait(next) {
                return;
            }
        }
    }

    /// Does what is due at `now`; returns when something is due next.
    fn tick(&mut self, manager: &LogManager, now: Monotonic) -> Monotonic {
        if self.schedule.probe <= now {
            manager.directories.iter().for_each(DataDirectory::probe);
            self.schedule.probe = next_round(now, PROBE_INTERVAL);
        }
        if self.schedule.retention <= now {
            let now_ms = self.clock.now_ms(wall_clock_ms(), now);
            manager.expire(now_ms, self.clock.even_ms(now), &*self.high_watermark);
            self.schedule.retention = next_round(now, manager.config.retention_interval);
        }
        if self.schedule.settling <= now {
            manager.settle(wall_clock_ms());
            self.schedule.settling = next_round(now, SETTLING_INTERVAL);
        }
        if self.schedule.checkpoint <= now {
            manager.checkpoint();
            self.schedule.checkpoint = next_round(now, manager.config.checkpoint_interval);
        }
        manager.remove_due(now);
        let Schedule {
            probe,
            settling,
            checkpoint,
            retention,
        } = self.schedule;
        let next = probe.min(settling).min(checkpoint).min(retention);
        manager.next_removal().map_or(next, |removal| removal.min(next))
    }
}

/// One `interval` from now, and never at once: an interval of zero would spin.
fn next_round(now: Monotonic, interval: Duration) -> Monotonic {
    now + interval.max(Duration::from_millis(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_of_the_wall_clock_does_not_age_the_data() {
        let start = Instant::now();
        let year_ms = 365 * 24 * 3_600_000;
        let mut clock = RetentionClock::new(1_000_000, start);
        let later = start + Duration::from_secs(10);
        assert_eq!(clock.now_ms(1_010_000, later), 1_010_000);
        assert_eq!(clock.now_ms(1_010_000 + year_ms, later), 1_010_000);
        assert_eq!(clock.now_ms(1_010_000 - 3_600_000, later), 1_010_000 - 3_600_000);
    }
}
