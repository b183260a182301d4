//! The one thread through which everything reaches the metadata log's disk, strictly in order.
//!
//! It drains its queue: appends that waited while the disk was busy share one write and one flush,
//! and only then are reported durable. Votes, truncations and purges take their place in the same
//! queue. After the first failure nothing is written any more: an fsync is never retried.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};
use std::{io, thread};

use bytes::{Bytes, BytesMut};
use openraft::storage::IOFlushed;
use protocol::Offset;
use storage::Log;
use tokio::sync::oneshot;

use super::quorum_state::QuorumState;
use super::types::{LogId, TypeConfig, Vote};
use crate::metric;

/// How often the hint of the committed entry is written, at most.
const COMMITTED_HINT_INTERVAL: Duration = Duration::from_secs(1);

/// Reports the end of a job that its sender waits for.
pub(crate) type Done = oneshot::Sender<io::Result<()>>;

/// What the thread does, in the order of the queue.
pub(crate) enum Job {
    /// Append encoded batches, the last of which has this index.
    Append {
        /// Encoded batches, back to back.
        batches: Bytes,
        /// Index of the last one.
        last_index: u64,
        /// Told when they are on disk.
        flushed: IOFlushed<TypeConfig>,
    },
    /// Remove everything from this offset on.
    Truncate(Offset, Done),
    /// Remove everything up to and including this entry.
    Purge(LogId, Done),
    /// Make a vote durable.
    Vote(Vote, Done),
    /// Remember what is committed, lazily.
    Committed(Option<LogId>),
    /// Flush, write the pointers and end the thread.
    Close(Done),
}

/// The sending half of the queue.
#[derive(Clone, Debug)]
pub(crate) struct LogWriter {
    queue: Sender<Job>,
}

impl LogWriter {
    /// Starts the thread, which holds `lock` until it ends. `durable` is called with the index up to which appends are on disk.
    pub(crate) fn start(
        log: Arc<Log>,
        directory: PathBuf,
        lock: File,
        state: QuorumState,
        durable: impl Fn(u64) + Send + 'static,
    ) -> io::Result<Self> {
        let (queue, jobs) = channel();
        let writer = Writer {
            log,
            directory,
            lock: Some(lock),
            state,
            hint_written: Instant::now(),
            hint_is_due: false,
            failed: None,
            durable,
        };
        thread::Builder::new()
            .name("ottla-raft-log".to_owned())
            .spawn(move || writer.run(&jobs))?;
        Ok(Self { queue })
    }

    /// Puts a job into the queue.
    pub(crate) fn send(&self, job: Job) -> io::Result<()> {
        self.queue.send(job).map_err(|_| closed())
    }

    /// Puts a job into the queue and waits for its end.
    pub(crate) async fn run(&self, job: impl FnOnce(Done) -> Job) -> io::Result<()> {
        let (done, result) = oneshot::channel();
        self.send(job(done))?;
        result.await.map_err(|_| closed())?
    }
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the metadata log is closed")
}

struct Writer<F> {
    log: Arc<Log>,
    directory: PathBuf,
    /// Held for as long as this thread may write.
    lock: Option<File>,
    state: QuorumState,
    hint_written: Instant,
    hint_is_due: bool,
    /// The first failure; every later job is answered with it.
    failed: Option<(io::ErrorKind, String)>,
    durable: F,
}

impl<F: Fn(u64)> Writer<F> {
    fn run(mut self, jobs: &Receiver<Job>) {
        loop {
            let first = if self.hint_is_due {
                match jobs.recv_timeout(COMMITTED_HINT_INTERVAL) {
                    Ok(job) => job,
                    Err(RecvTimeoutError::Timeout) => {
                        self.write_hint();
                        continue;
                    }
                    Err(RecvTimeoutError::Disconnected) => break,
                }
            } else {
                match jobs.recv() {
                    Ok(job) => job,
                    Err(_) => break,
                }
            };
            let mut next = Some(first);
            while let Some(job) = next.take() {
                match job {
                    Job::Append {
                        batches,
                        last_index,
                        flushed,
                    } => next = self.append(jobs, batches, last_index, flushed),
                    Job::Truncate(offset, done) => {
                        let result = self.guarded(|w| w.truncate(offset));
                        answer(done, result);
                    }
                    Job::Purge(upto, done) => {
                        let result = self.guarded(|w| w.purge(upto));
                        answer(done, result);
                    }
                    Job::Vote(vote, done) => {
                        let result = self.guarded(|w| {
                            w.state.vote = Some(vote);
                            w.store_state()
                        });
                        answer(done, result);
                    }
                    Job::Committed(committed) => {
                        self.state.committed = committed;
                        self.hint_is_due = true;
                    }
                    Job::Close(done) => {
                        let result = self.guarded(|w| {
                            w.log.flush().map_err(io::Error::other)?;
                            w.store_state()?;
                            w.log.close(true).map_err(io::Error::other)
                        });
                        // Whoever waits for the end may open the log again.
                        self.lock = None;
                        answer(done, result);
                        return;
                    }
                }
            }
            if self.hint_is_due && self.hint_written.elapsed() >= COMMITTED_HINT_INTERVAL {
                self.write_hint();
            }
        }
        self.write_hint();
    }

    /// Writes this append and all that wait behind it with one flush. Returns the job that ended the
    /// run of appends, if one did.
    fn append(
        &mut self,
        jobs: &Receiver<Job>,
        batches: Bytes,
        last_index: u64,
        flushed: IOFlushed<TypeConfig>,
    ) -> Option<Job> {
        let mut waiting = vec![flushed];
        let mut last = last_index;
        let mut more = BytesMut::new();
        let mut next = None;
        while let Ok(job) = jobs.try_recv() {
            if let Job::Append {
                batches,
                last_index,
                flushed,
            } = job
            {
                more.extend_from_slice(&batches);
                last = last_index;
                waiting.push(flushed);
            } else {
                next = Some(job);
                break;
            }
        }
        let started = Instant::now();
        let result = self.guarded(|w| {
            w.log.append_as_follower(batches).map_err(io::Error::other)?;
            if !more.is_empty() {
                w.log
                    .append_as_follower(more.freeze())
                    .map_err(io::Error::other)?;
            }
            w.log.flush().map_err(io::Error::other)?;
            Ok(())
        });
        metrics::histogram!(metric::LOG_FLUSH).record(started.elapsed().as_secs_f64());
        match result {
            Ok(()) => {
                (self.durable)(last);
                for flushed in waiting {
                    flushed.io_completed(Ok(()));
                }
            }
            Err(error) => {
                for flushed in waiting {
                    flushed.io_completed(Err(io::Error::new(error.kind(), error.to_string())));
                }
            }
        }
        next
    }

    fn truncate(&mut self, offset: Offset) -> io::Result<()> {
        self.log.truncate_to(offset).map_err(io::Error::other)?;
        self.log.flush().map_err(io::Error::other)?;
        Ok(())
    }

    fn purge(&mut self, upto: LogId) -> io::Result<()> {
        self.state.purged = Some(upto);
        if self.log.log_end_offset() <= offset_after(upto)? {
            // A snapshot replaces the whole log. The log first: a pointer beyond its end would look as if
            // entries had been lost. An empty log that begins after its pointer is what the snapshot
            // covers, and is purged again at the next start.
            purge_log(&self.log, upto)?;
            self.store_state()
        } else {
            // The pointer first: a log that still begins earlier is cut again at the next start.
            self.store_state()?;
            purge_log(&self.log, upto)
        }
    }

    fn store_state(&mut self) -> io::Result<()> {
        self.state.store(&self.directory).map_err(io::Error::other)?;
        self.hint_written = Instant::now();
        self.hint_is_due = false;
        Ok(())
    }

    fn write_hint(&mut self) {
        if self.hint_is_due {
            // A failure is remembered and answered to the next job that is waited for.
            let _ = self.guarded(Self::store_state);
            self.hint_is_due = false;
        }
    }

    fn guarded(&mut self, work: impl FnOnce(&mut Self) -> io::Result<()>) -> io::Result<()> {
        if let Some((kind, message)) = &self.failed {
            return Err(io::Error::new(*kind, message.clone()));
        }
        work(self).inspect_err(|error| {
            tracing::error!(%error, directory = %self.directory.display(), "the metadata log failed");
            self.failed = Some((error.kind(), error.to_string()));
        })
    }
}

/// Makes the log begin after `upto`, also where it ends before that.
pub(crate) fn purge_log(log: &Log, upto: LogId) -> io::Result<()> {
    let start = offset_after(upto)?;
    if log.log_end_offset() <= start {
        log.truncate_fully_and_start_at(start).map_err(io::Error::other)
    } else {
        log.advance_log_start(start).map_err(io::Error::other)
    }
}

/// The offset that follows an entry.
pub(crate) fn offset_after(id: LogId) -> io::Result<Offset> {
    i64::try_from(id.index)
        .ok()
        .and_then(|index| Offset(index).checked_add(1))
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "Raft index beyond the last offset"))
}

fn answer(done: Done, result: io::Result<()>) {
    // Whoever waited may have gone: the work is done all the same.
    let _ = done.send(result);
}
