//! Threads for what may block on the disk, so that no tokio worker ever does.
//!
//! A [`Strand`] runs its jobs one at a time in the order of submission: a partition's appends,
//! truncations and role changes never overlap. Strands share the pool's threads and take turns after
//! a few jobs each. What waits is bounded: beyond the bound callers are told that the disk is busy
//! instead of memory growing.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::metric_names;

/// More disk work is waiting than the bound allows, or the pool has been shut down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too much disk work is waiting")]
pub(crate) struct DiskBusy;

/// A strand yields its thread to others after this many jobs.
const JOBS_PER_TURN: usize = 16;

/// A partition may have this many jobs waiting. Broker-wide memory is bounded before, by the bytes of
/// requests in flight; this bounds the queue of one slow disk.
const JOBS_PER_STRAND_MAX: usize = 4096;

type Job = Box<dyn FnOnce() + Send>;

enum Task {
    Job(Job),
    Strand(Arc<StrandQueue>),
}

#[derive(Default)]
struct Ready {
    tasks: VecDeque<Task>,
    closed: bool,
}

struct PoolShared {
    ready: Mutex<Ready>,
    wake: Condvar,
    jobs_max: usize,
}

#[derive(Default)]
struct StrandQueue {
    state: Mutex<StrandState>,
}

#[derive(Default)]
struct StrandState {
    jobs: VecDeque<Job>,
    /// Whether the strand is in the pool's queue, on one of its threads, or parked.
    scheduled: bool,
    /// Somebody holds the strand: no job begins.
    held: bool,
    /// A thread has met the hold and left; whoever lets go schedules the strand again.
    parked: bool,
}

/// A fixed number of threads for disk work.
pub(crate) struct DiskPool {
    shared: Arc<PoolShared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// A queue of jobs that run one at a time, in order, on a [`DiskPool`].
#[derive(Clone)]
pub(crate) struct Strand {
    pool: Arc<PoolShared>,
    queue: Arc<StrandQueue>,
}

impl std::fmt::Debug for DiskPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DiskPool").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Strand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Strand").finish_non_exhaustive()
    }
}

impl DiskPool {
    /// Starts `threads` (at least one) threads named `name-N`. Up to `jobs_max` jobs outside of
    /// strands may wait.
    pub(crate) fn new(name: &str, threads: usize, jobs_max: usize) -> std::io::Result<Self> {
        let shared = Arc::new(PoolShared {
            ready: Mutex::default(),
            wake: Condvar::new(),
            jobs_max,
        });
        let pool = Self {
            shared: Arc::clone(&shared),
            threads: Mutex::default(),
        };
        for index in 0..threads.max(1) {
            let shared = Arc::clone(&shared);
            let thread = std::thread::Builder::new()
                .name(format!("{name}-{index}"))
                .spawn(move || shared.work())?;
            pool.threads.lock().push(thread);
        }
        Ok(pool)
    }

    /// A new, empty strand.
    pub(crate) fn strand(&self) -> Strand {
        Strand {
            pool: Arc::clone(&self.shared),
            queue: Arc::default(),
        }
    }

    /// Runs one job that needs no order, such as a read, and returns its result.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, DiskBusy> {
        let (done, result) = oneshot::channel();
        self.shared.push_job(Box::new(move || {
            // Nobody waits any more: the job was done all the same.
            let _ = done.send(job());
        }))?;
        result.await.map_err(|_| DiskBusy)
    }

    /// Lets what is queued run, refuses more, and waits for the threads to end. Blocks.
    pub(crate) fn shutdown(&self) {
        self.shared.ready.lock().closed = true;
        self.shared.wake.notify_all();
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a disk thread ended by a panic");
            }
        }
    }
}

impl Drop for DiskPool {
    fn drop(&mut self) {
        // The threads end by themselves; whoever wants to wait for them calls `shutdown`.
        self.shared.ready.lock().closed = true;
        self.shared.wake.notify_all();
    }
}

impl PoolShared {
    fn push_job(&self, job: Job) -> Result<(), DiskBusy> {
        let mut ready = self.ready.lock();
        if ready.closed || ready.tasks.len() >= self.jobs_max {
            metrics::counter!(metric_names::DISK_BUSY).increment(1);
            return Err(DiskBusy);
        }
        ready.tasks.push_back(Task::Job(job));
        drop(ready);
        self.wake.notify_one();
        Ok(())
    }

    fn push_strand(&self, strand: Arc<StrandQueue>) {
        self.ready.lock().tasks.push_back(Task::Strand(strand));
        self.wake.notify_one();
    }

    fn work(&self) {
        loop {
            let task = {
                let mut ready = self.ready.lock();
                loop {
                    if let Some(task) = ready.tasks.pop_front() {
                        break task;
                    }
                    if ready.closed {
                        return;
                    }
                    self.wake.wait(&mut ready);
                }
            };
            match task {
                Task::Job(job) => run(job),
                Task::Strand(strand) => self.take_turn(strand),
            }
        }
    }

    fn take_turn(&self, strand: Arc<StrandQueue>) {
        for _ in 0..JOBS_PER_TURN {
            let job = {
                let mut state = strand.state.lock();
                if state.held {
                    state.parked = true;
                    return;
                }
                match state.jobs.pop_front() {
                    Some(job) => job,
                    None => {
                        state.scheduled = false;
                        return;
                    }
                }
            };
            run(job);
        }
        self.push_strand(strand);
    }
}

/// A job that panics takes neither its thread nor its strand with it; whoever waits for its result
/// sees that there is none.
fn run(job: Job) {
    if catch_unwind(AssertUnwindSafe(job)).is_err() {
        tracing::error!("a disk job panicked");
    }
}

impl Strand {
    /// Queues a job, unless too many wait.
    pub(crate) fn submit(&self, job: impl FnOnce() + Send + 'static) -> Result<(), DiskBusy> {
        self.push(JOBS_PER_STRAND_MAX, Box::new(job))
    }

    /// Queues a job however many wait, and returns its result: for what must not be refused and comes
    /// in small numbers, such as role changes. An error means that the pool has been shut down.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, DiskBusy> {
        let (done, result) = oneshot::channel();
        self.push(
            usize::MAX,
            Box::new(move || {
                // As in `DiskPool::run`.
                let _ = done.send(job());
            }),
        )?;
        result.await.map_err(|_| DiskBusy)
    }

    /// Waits until every job queued so far is done, and lets none begin until the guard is dropped: what
    /// comes meanwhile is queued. For what takes its time elsewhere and must find the log at rest.
    pub(crate) async fn hold(&self) -> Result<StrandHold, DiskBusy> {
        let strand = self.clone();
        self.run(move || {
            strand.queue.state.lock().held = true;
            StrandHold(strand)
        })
        .await
    }

    fn push(&self, jobs_max: usize, job: Job) -> Result<(), DiskBusy> {
        if self.pool.ready.lock().closed {
            return Err(DiskBusy);
        }
        let mut state = self.queue.state.lock();
        if state.jobs.len() >= jobs_max {
            metrics::counter!(metric_names::DISK_BUSY).increment(1);
            return Err(DiskBusy);
        }
        state.jobs.push_back(job);
        let idle = !std::mem::replace(&mut state.scheduled, true);
        drop(state);
        if idle {
            self.pool.push_strand(Arc::clone(&self.queue));
        }
        Ok(())
    }
}

/// Keeps a strand from running jobs; see [`Strand::hold`].
#[derive(Debug)]
pub(crate) struct StrandHold(Strand);

impl Drop for StrandHold {
    fn drop(&mut self) {
        let mut state = self.0.queue.state.lock();
        state.held = false;
        // Else the thread that ran the holding job is still there, and goes on by itself.
        if std::mem::take(&mut state.parked) {
            drop(state);
            self.0.pool.push_strand(Arc::clone(&self.0.queue));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_strand_keeps_order_and_never_overlaps() {
        let pool = DiskPool::new("test-disk", 4, 16).unwrap();
        let strand = pool.strand();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let running = Arc::new(AtomicUsize::new(0));
        for i in 0..200 {
            let (seen, running) = (Arc::clone(&seen), Arc::clone(&running));
            strand
                .submit(move || {
                    assert_eq!(running.fetch_add(1, Ordering::SeqCst), 0);
                    seen.lock().push(i);
                    running.fetch_sub(1, Ordering::SeqCst);
                })
                .unwrap();
        }
        strand.run(|| ()).await.unwrap();
        assert_eq!(*seen.lock(), (0..200).collect::<Vec<_>>());
        pool.shutdown();
    }

    #[tokio::test]
    async fn a_held_strand_runs_nothing_and_then_everything_in_order() {
        let pool = DiskPool::new("test-disk", 2, 16).unwrap();
        let (strand, other) = (pool.strand(), pool.strand());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let mut expected = Vec::new();
        for round in 0..200 {
            let hold = strand.hold().await.unwrap();
            for i in 0..20 {
                let (seen, entry) = (Arc::clone(&seen), round * 20 + i);
                expected.push(entry);
                strand.submit(move || seen.lock().push(entry)).unwrap();
            }
            // Other strands go on, on the same threads.
            other.run(|| ()).await.unwrap();
            assert_eq!(seen.lock().len(), round * 20, "nothing of this round has run");
            drop(hold);
            strand.run(|| ()).await.unwrap();
            assert_eq!(*seen.lock(), expected);
        }
        pool.shutdown();
    }

    #[tokio::test]
    async fn what_waits_is_bounded_and_a_panic_ends_nothing() {
        let pool = DiskPool::new("test-disk", 1, 2).unwrap();
        let gate = Arc::new(Mutex::new(()));
        let held = gate.lock();
        let strand = pool.strand();
        let blocked = Arc::clone(&gate);
        strand.submit(move || drop(blocked.lock())).unwrap();
        let mut refused = 0;
        for _ in 0..JOBS_PER_STRAND_MAX + 10 {
            refused += usize::from(strand.submit(|| ()).is_err());
        }
        // The first job may or may not have left the queue already.
        assert!((10..=11).contains(&refused), "{refused}");
        drop(held);
        assert_eq!(strand.run(|| panic!("on purpose")).await, Err::<(), _>(DiskBusy));
        assert_eq!(strand.run(|| 7).await, Ok(7));
        assert_eq!(pool.run(|| 8).await, Ok(8));
        pool.shutdown();
        assert_eq!(pool.run(|| 8).await, Err(DiskBusy));
    }
}
