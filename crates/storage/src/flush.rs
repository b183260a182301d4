//! Group commit: a few threads that flush logs, so that many appends share one fdatasync.
//!
//! While a log's flush runs, requests for it gather; the next flush answers all of them. A log has at
//! most one flush running and one queued, however many ask. The interface is dirty files in, durable
//! offsets out, so that one journal for all logs could take the files' place.

use std::{
    collections::{HashMap, VecDeque},
    fmt, io,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Instant,
};

use parking_lot::{Condvar, Mutex};
use protocol::Offset;

use crate::{error::StorageError, log::Log, metric_names};

/// Is told when a flush that began after its request has ended.
pub trait FlushListener: Send + Sync {
    /// `result` is the log's durable offset. Called on a flush thread, without any lock held: be short,
    /// other logs wait. After a truncation the offset may be lower than what was appended.
    fn flushed(&self, result: Result<Offset, FlushFailed>);
}

/// Why a flush made nothing durable.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FlushFailed {
    /// The log could not be flushed; [`StorageError::Failed`] is for good.
    #[error(transparent)]
    Storage(#[from] Arc<StorageError>),
    /// The flusher was shut down.
    #[error("the flusher is shut down")]
    ShutDown,
}

/// Threads that flush logs on request.
pub struct Flusher {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    /// Logs with a flush to begin, in the order of their requests.
    queue: VecDeque<LogKey>,
    logs: HashMap<LogKey, Requests>,
    shut_down: bool,
}

/// The address of a log that an `Arc` in the same map keeps in its place.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct LogKey(usize);

struct Requests {
    log: Arc<Log>,
    listeners: Vec<Arc<dyn FlushListener>>,
    running: bool,
}

/// A flush to run, and who waits for it.
struct Turn {
    key: LogKey,
    log: Arc<Log>,
    listeners: Vec<Arc<dyn FlushListener>>,
}

impl fmt::Debug for Flusher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flusher")
            .field("threads", &self.threads.lock().len())
            .finish_non_exhaustive()
    }
}

impl Flusher {
    /// Starts `threads` threads named `ottla-flush-N`, at least one: that many flushes run at once.
    pub fn new(threads: usize) -> io::Result<Self> {
        let flusher = Self {
            shared: Arc::new(Shared {
                state: Mutex::default(),
                wake: Condvar::new(),
            }),
            threads: Mutex::default(),
        };
        for n in 0..threads.max(1) {
            let shared = Arc::clone(&flusher.shared);
            let thread = thread::Builder::new()
                .name(format!("ottla-flush-{n}"))
                .spawn(move || shared.run())?;
            flusher.threads.lock().push(thread);
        }
        Ok(flusher)
    }

    /// Has `log` flushed soon and `done` told. A listener that already waits for the log's next flush is
    /// told once. Not blocking.
    pub fn request(&self, log: Arc<Log>, done: Arc<dyn FlushListener>) {
        metrics::counter!(metric_names::FLUSH_REQUESTS_TOTAL).increment(1);
        let mut state = self.shared.state.lock();
        if state.shut_down {
            drop(state);
            done.flushed(Err(FlushFailed::ShutDown));
            return;
        }
        let key = LogKey(Arc::as_ptr(&log) as usize);
        let requests = state.logs.entry(key).or_insert_with(|| Requests {
            log,
            listeners: Vec::with_capacity(1),
            running: false,
        });
        let is_first = requests.listeners.is_empty();
        if is_first
            || !requests
                .listeners
                .iter()
                .any(|listener| Arc::ptr_eq(listener, &done))
        {
            requests.listeners.push(done);
        }
        // A log whose flush is running is queued again when that has ended.
        if is_first && !requests.running {
            state.queue.push_back(key);
            self.shared.wake.notify_one();
        }
    }

    /// Runs what was requested before, ends the threads, and answers later requests with
    /// [`FlushFailed::ShutDown`].
    pub fn shutdown(&self) {
        self.shared.state.lock().shut_down = true;
        self.shared.wake.notify_all();
        for handle in self.threads.lock().drain(..) {
            // The last owner may be a listener: a thread cannot wait for itself, and ends anyway.
            if handle.thread().id() != thread::current().id() && handle.join().is_err() {
                tracing::error!("a flush thread panicked");
            }
        }
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.shutdown();
    }
}

impl Shared {
    fn run(&self) {
        while let Some(Turn { key, log, listeners }) = self.next() {
            let began = Instant::now();
            let result = log.flush().map_err(|error| FlushFailed::Storage(Arc::new(error)));
            metrics::histogram!(metric_names::FLUSH_SECONDS).record(began.elapsed());
            metrics::counter!(metric_names::FLUSHES_TOTAL).increment(1);
            if result.is_err() {
                metrics::counter!(metric_names::FLUSH_FAILURES_TOTAL).increment(1);
            }
            // Before the listeners run: what they append and request goes into the next flush at once.
            self.ended(key);
            for listener in listeners {
                listener.flushed(result.clone());
            }
        }
    }

    /// Waits for a log to flush; `None` when there is none left after the shutdown.
    fn next(&self) -> Option<Turn> {
        let mut state = self.state.lock();
        loop {
            if let Some(key) = state.queue.pop_front() {
                let requests = state.logs.get_mut(&key).expect("a queued log has requests");
                requests.running = true;
                return Some(Turn {
                    key,
                    log: Arc::clone(&requests.log),
                    listeners: std::mem::take(&mut requests.listeners),
                });
            }
            // A flush that runs elsewhere may still queue its log again.
            if state.shut_down && state.logs.is_empty() {
                return None;
            }
            self.wake.wait(&mut state);
        }
    }

    fn ended(&self, key: LogKey) {
        let mut state = self.state.lock();
        let requests = state.logs.get_mut(&key).expect("a running log has requests");
        requests.running = false;
        if requests.listeners.is_empty() {
            state.logs.remove(&key);
            if state.shut_down && state.logs.is_empty() {
                self.wake.notify_all();
            }
        } else {
            state.queue.push_back(key);
            self.wake.notify_one();
        }
    }
}
