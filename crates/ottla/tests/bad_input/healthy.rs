//! The client beside all the bad ones: it produces and consumes without a pause that matters, and must
//! never see an error.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::{
    ground::{Topic, produce},
    reads::fetch_from,
    support::{Client, batch, records_of},
};

/// Between two rounds: it shall see every moment, not take the machine.
const BREATH: Duration = Duration::from_millis(3);
/// Nothing that a healthy client asks for takes longer, however busy the machine is.
const UNDISTURBED: Duration = Duration::from_secs(45);

/// What the client has done so far.
#[derive(Debug, Default)]
struct Progress {
    rounds: AtomicU64,
    slowest_us: AtomicU64,
    stop: AtomicBool,
}

/// A client on a thread of its own.
pub(crate) struct Healthy {
    progress: Arc<Progress>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Healthy {
    /// The client connects anew after a pause of its own as long as `rested`: it may have been too long.
    pub(crate) fn start(address: SocketAddr, topic: Topic, rested: Duration) -> Self {
        let progress = Arc::<Progress>::default();
        let shared = Arc::clone(&progress);
        let thread = thread::spawn(move || run(address, &topic, rested, &shared));
        Self {
            progress,
            thread: Mutex::new(Some(thread)),
        }
    }

    /// Waits until two more rounds have gone well, and returns how long the slowest since the last call
    /// took: one of the two began after this call did.
    pub(crate) fn expect_progress(&self, what: &str) -> Duration {
        let from = self.progress.rounds.load(Ordering::SeqCst);
        let deadline = Instant::now() + 2 * UNDISTURBED;
        while self.progress.rounds.load(Ordering::SeqCst) < from + 2 {
            let ended = self
                .thread
                .lock()
                .unwrap()
                .as_ref()
                .is_none_or(JoinHandle::is_finished);
            assert!(!ended, "{what}: the healthy client beside it failed");
            assert!(
                Instant::now() < deadline,
                "{what}: the healthy client beside it hangs"
            );
            thread::park_timeout(BREATH);
        }
        let slowest = Duration::from_micros(self.progress.slowest_us.swap(0, Ordering::SeqCst));
        assert!(
            slowest < UNDISTURBED,
            "{what}: a healthy client waited {slowest:?}"
        );
        slowest
    }
}

impl Drop for Healthy {
    fn drop(&mut self) {
        self.progress.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.lock().unwrap().take() {
            // What went wrong with it has been reported by `expect_progress`.
            let _ = thread.join();
        }
    }
}

/// Writes a record with acks=all, reads it back, again and again over one connection.
fn run(address: SocketAddr, topic: &Topic, rested: Duration, progress: &Progress) {
    let mut client = Client::connect(address);
    let mut last = Instant::now();
    while !progress.stop.load(Ordering::SeqCst) {
        let began = Instant::now();
        if last.elapsed() > rested {
            client = Client::connect(address);
        }
        let value = progress.rounds.load(Ordering::SeqCst).to_be_bytes();
        let sent: Bytes = batch(&[&value]);
        let offset = produce(&mut client, topic, sent.clone());
        let answer = fetch_from(&mut client, topic, offset);
        assert_eq!(answer.error_code, 0);
        let records = records_of(&answer.records.unwrap());
        assert_eq!(records.len(), 1, "what was just written, and nothing else");
        assert_eq!(records[0].0.base_offset.get(), offset);
        assert_eq!(records[0].1[16..], sent[16..], "the very bytes");
        let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        progress.slowest_us.fetch_max(took, Ordering::SeqCst);
        progress.rounds.fetch_add(1, Ordering::SeqCst);
        last = Instant::now();
        thread::park_timeout(BREATH);
    }
}
