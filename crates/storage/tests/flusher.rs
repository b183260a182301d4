//! Group commit: who is told what, and how many flushes it takes.

mod support;

use std::{
    sync::{Arc, mpsc},
    time::Duration,
};

use protocol::Offset;
use storage::{FlushFailed, FlushListener, Flusher, Log, LogConfig};
use support::*;

struct Told(mpsc::Sender<Result<Offset, FlushFailed>>);

impl FlushListener for Told {
    fn flushed(&self, result: Result<Offset, FlushFailed>) {
        // A test that has seen enough no longer listens.
        let _ = self.0.send(result);
    }
}

fn listener() -> (Arc<Told>, mpsc::Receiver<Result<Offset, FlushFailed>>) {
    let (sender, receiver) = mpsc::channel();
    (Arc::new(Told(sender)), receiver)
}

fn wait(receiver: &mpsc::Receiver<Result<Offset, FlushFailed>>) -> Result<Offset, FlushFailed> {
    receiver
        .recv_timeout(Duration::from_secs(60))
        .expect("told in time")
}

fn shared_log() -> (tempfile::TempDir, Arc<Log>) {
    let TestLog { dir, log } = TestLog::new(LogConfig::default());
    (dir, Arc::new(log))
}

#[test]
fn everybody_is_told_what_is_durable() {
    let flusher = Flusher::new(2).expect("threads");
    let logs: Vec<_> = (0..5).map(|_| shared_log()).collect();
    let mut waiting = Vec::new();
    for _ in 0..20 {
        for (_, log) in &logs {
            let end = lead(log, batch(1, 10), 0).next_offset;
            let (told, receiver) = listener();
            flusher.request(Arc::clone(log), told);
            waiting.push((end, receiver));
        }
    }
    for (end, receiver) in waiting {
        assert!(wait(&receiver).expect("flushed") >= end);
    }
    for (_, log) in &logs {
        assert_eq!(log.recovery_point(), Offset(20));
    }
}

/// Asks again from within, as a leader does that has more to flush.
struct Again {
    flusher: Arc<Flusher>,
    log: Arc<Log>,
    told: Arc<Told>,
}

impl FlushListener for Again {
    fn flushed(&self, result: Result<Offset, FlushFailed>) {
        result.expect("flushed");
        lead(&self.log, batch(1, 10), 0);
        self.flusher.request(
            Arc::clone(&self.log),
            Arc::clone(&self.told) as Arc<dyn FlushListener>,
        );
    }
}

#[test]
fn a_listener_may_ask_again_and_own_the_flusher() {
    let (_dir, log) = shared_log();
    lead(&log, batch(1, 10), 0);
    let flusher = Arc::new(Flusher::new(1).expect("thread"));
    let (told, receiver) = listener();
    let again = Again {
        flusher: Arc::clone(&flusher),
        log: Arc::clone(&log),
        told,
    };
    flusher.request(log, Arc::new(again));
    drop(flusher);
    assert_eq!(wait(&receiver).expect("flushed"), Offset(2));
}

#[test]
fn a_shutdown_answers_what_waits_and_refuses_what_comes() {
    let (_dir, log) = shared_log();
    let flusher = Flusher::new(1).expect("thread");
    let (told, receiver) = listener();
    lead(&log, batch(1, 10), 0);
    flusher.request(Arc::clone(&log), Arc::clone(&told) as Arc<dyn FlushListener>);
    flusher.shutdown();
    assert_eq!(wait(&receiver).expect("flushed"), Offset(1));
    flusher.request(log, told);
    assert!(matches!(wait(&receiver), Err(FlushFailed::ShutDown)));
}

#[test]
fn a_closed_log_says_so() {
    let (_dir, log) = shared_log();
    log.close(true).expect("close");
    let flusher = Flusher::new(1).expect("thread");
    let (told, receiver) = listener();
    flusher.request(log, told);
    assert!(matches!(wait(&receiver), Err(FlushFailed::Storage(_))));
}
