//! Raft's log over [`storage::Log`]: index = offset, term = leader epoch.
//!
//! The newest entries are also held in memory ([`Tail`]): they are readable the moment they are
//! queued, replication to a follower that keeps up never touches the disk, and what a read misses
//! there it takes from the log on a blocking thread. All writing happens in [`super::log_writer`].

use std::collections::VecDeque;
use std::fmt::{self, Debug};
use std::fs::File;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::BytesMut;
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, RaftLogReader, RaftLogStorage};
use openraft::{LogState, OptionalSend};
use parking_lot::Mutex;
use protocol::Offset;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use storage::{Log, LogConfig, OpenOptions, ReadRequest};

use super::codec;
use super::log_writer::{Job, LogWriter, offset_after, purge_log};
use super::quorum_state::{QuorumState, QuorumStateError};
use super::types::{Entry, LogId, Payload, TypeConfig, Vote};

/// The file whose lock keeps a second process away.
const LOCK_FILE: &str = ".lock";
/// Bytes of entries that are kept in memory although they are on disk.
const TAIL_BYTES: usize = 8 << 20;
/// Bytes of entries that one replication message carries, unless a single entry is larger.
const MESSAGE_BYTES: usize = 1 << 20;
/// Bytes that are read from the log at a time.
const READ_BYTES: usize = 4 << 20;

/// Why the metadata log could not be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogStoreError {
    /// The vote or the pointers cannot be read.
    #[error(transparent)]
    State(#[from] QuorumStateError),
    /// The log cannot be opened or read.
    #[error("metadata log in {directory}: {source}", directory = directory.display())]
    Log {
        /// The log's directory.
        directory: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process has the log open.
    #[error("metadata log in {directory} is in use by another process", directory = directory.display())]
    InUse {
        /// The log's directory.
        directory: PathBuf,
    },
    /// Entries that this controller had acknowledged are gone. Voting without them could undo what
    /// the quorum committed.
    #[error(
        "metadata log in {directory} has lost acknowledged entries; remove this controller from the \
         quorum and add it again with an empty directory",
        directory = directory.display()
    )]
    Lost {
        /// The log's directory.
        directory: PathBuf,
    },
}

/// The metadata log of this controller; clones share it.
#[derive(Clone)]
pub(crate) struct LogStore {
    shared: Arc<Shared>,
    writer: LogWriter,
}

struct Shared {
    log: Arc<Log>,
    view: Mutex<View>,
}

/// What is known without asking the disk; it runs ahead of the disk by what is queued.
struct View {
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    /// Index of the first entry in the log, or of the first that can come.
    first: u64,
    last: Option<LogId>,
    tail: Tail,
}

impl Debug for LogStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogStore")
            .field("log", &self.shared.log.dir())
            .finish_non_exhaustive()
    }
}

/// The newest entries, without gaps up to the last one.
#[derive(Default)]
struct Tail {
    entries: VecDeque<Entry>,
    bytes: usize,
    /// Entries up to this index are on disk and may be dropped from memory.
    durable: Option<u64>,
}

impl Tail {
    fn first_index(&self) -> Option<u64> {
        self.entries.front().map(Entry::index)
    }

    fn push(&mut self, entry: Entry) {
        self.bytes += weight(&entry);
        self.entries.push_back(entry);
    }

    /// Drops the oldest entries that are on disk, down to the bound.
    fn shrink(&mut self) {
        while self.bytes > TAIL_BYTES {
            match self.entries.front() {
                Some(first) if Some(first.index()) <= self.durable => self.drop_first(),
                _ => break,
            }
        }
    }

    fn drop_first(&mut self) {
        if let Some(first) = self.entries.pop_front() {
            self.bytes -= weight(&first);
        }
    }

    fn purge(&mut self, upto: u64) {
        while self.first_index().is_some_and(|index| index <= upto) {
            self.drop_first();
        }
    }

    /// Keeps what is below `end`.
    fn truncate(&mut self, end: u64) {
        while self.entries.back().is_some_and(|last| last.index() >= end) {
            if let Some(last) = self.entries.pop_back() {
                self.bytes -= weight(&last);
            }
        }
        self.durable = self.durable.min(end.checked_sub(1));
    }

    /// The entries from `start` to before `end` that are here.
    fn range(&self, start: u64, end: u64) -> impl Iterator<Item = &Entry> {
        let first = self.first_index().unwrap_or(end);
        let skip = start.saturating_sub(first) as usize;
        self.entries
            .iter()
            .skip(skip)
            .take_while(move |entry| entry.index() < end)
    }
}

/// About what an entry takes in memory and in a message.
fn weight(entry: &Entry) -> usize {
    const OVERHEAD: usize = 128;
    OVERHEAD
        + match &entry.payload {
            Payload::Normal(command) => command.entry.len(),
            Payload::Blank => 0,
            Payload::Membership(membership) => 64 * membership.nodes().count(),
        }
}

impl LogStore {
    /// Opens the log in `directory`, which is created if it is absent. Blocking.
    pub(crate) fn open(directory: &Path, now_ms: i64) -> Result<Self, LogStoreError> {
        let failed = |source: io::Error| LogStoreError::Log {
            directory: directory.to_owned(),
            source,
        };
        std::fs::create_dir_all(directory).map_err(failed)?;
        let lock = lock(directory)?;
        let state = QuorumState::load(directory)?;
        let log_start = match state.purged {
            Some(purged) => offset_after(purged).map_err(failed)?,
            None => Offset::ZERO,
        };
        let options = OpenOptions {
            recovery_point: None,
            log_start_offset: log_start,
            is_alone: true,
            clean_shutdown: false,
            now_ms,
        };
        let (log, report) =
            Log::open(directory, log_config(), options).map_err(|e| failed(io::Error::other(e)))?;
        if report.lost {
            return Err(LogStoreError::Lost {
                directory: directory.to_owned(),
            });
        }
        if let Some(purged) = state.purged
            && log.log_start_offset() <= offset_after(purged).map_err(failed)?
        {
            purge_log(&log, purged).map_err(failed)?;
        }
        let mut tail = Tail::default();
        let mut last = state.purged;
        let mut first = None;
        let mut from = log.log_start_offset();
        // The whole log is read once: what a snapshot does not cover is bounded, and an entry that
        // cannot be read is better found now than in an election.
        while from < log.log_end_offset() {
            let (entries, next) = read_log(&log, from, log.log_end_offset(), READ_BYTES).map_err(failed)?;
            for entry in entries {
                first = first.or_else(|| Some(entry.index()));
                last = Some(entry.log_id());
                tail.push(entry);
            }
            tail.durable = last.map(|id| id.index);
            tail.shrink();
            from = next;
        }
        let shared = Arc::new(Shared {
            log: Arc::new(log),
            view: Mutex::new(View {
                vote: state.vote,
                committed: state.committed,
                purged: state.purged,
                first: first.unwrap_or_else(|| state.purged.map_or(0, |id| id.index + 1)),
                last,
                tail,
            }),
        });
        let on_durable = {
            let shared = Arc::clone(&shared);
            move |index| {
                let mut view = shared.view.lock();
                let end = view.last.map(|id| id.index);
                view.tail.durable = Some(index).min(end);
                view.tail.shrink();
            }
        };
        let writer = LogWriter::start(
            Arc::clone(&shared.log),
            directory.to_owned(),
            lock,
            state,
            on_durable,
        )
        .map_err(failed)?;
        Ok(Self { shared, writer })
    }

    /// Flushes, writes the pointers and ends the writer: the directory may be opened again.
    pub(crate) async fn close(&self) -> io::Result<()> {
        self.writer.run(Job::Close).await
    }

    /// The last entry and the hint of the last committed one.
    pub(crate) fn pointers(&self) -> (Option<LogId>, Option<LogId>) {
        let view = self.shared.view.lock();
        (view.last, view.committed)
    }

    /// The last entry removed from the front.
    pub(crate) fn purged(&self) -> Option<LogId> {
        self.shared.view.lock().purged
    }

    /// The entries from `start` to before `end` that the log has, at most about `max_bytes` of them
    /// but at least one.
    pub(crate) async fn read(&self, start: u64, end: u64, max_bytes: usize) -> io::Result<Vec<Entry>> {
        let (mut entries, from_disk) = {
            let view = self.shared.view.lock();
            let start = start.max(view.first);
            let end = end.min(view.last.map_or(0, |id| id.index + 1));
            if start >= end {
                return Ok(Vec::new());
            }
            match view.tail.first_index() {
                Some(first) if first <= start => {
                    let mut bytes = 0;
                    let entries = view
                        .tail
                        .range(start, end)
                        .take_while(|entry| {
                            let first = bytes == 0;
                            bytes += weight(entry);
                            first || bytes <= max_bytes
                        })
                        .cloned()
                        .collect();
                    return Ok(entries);
                }
                first => {
                    let disk_end = first.unwrap_or(end).min(end);
                    let in_memory: Vec<Entry> = view.tail.range(disk_end, end).cloned().collect();
                    (in_memory, (start, disk_end))
                }
            }
        };
        let log = Arc::clone(&self.shared.log);
        let mut found = tokio::task::spawn_blocking(move || read_disk(&log, from_disk, max_bytes))
            .await
            .map_err(io::Error::other)??;
        if found.last().map(Entry::index) == from_disk.1.checked_sub(1) {
            let mut bytes: usize = found.iter().map(weight).sum();
            entries.retain(|entry| {
                bytes += weight(entry);
                bytes <= max_bytes
            });
            found.append(&mut entries);
        }
        Ok(found)
    }
}

/// Keeps other processes away from the log until the file is closed.
fn lock(directory: &Path) -> Result<File, LogStoreError> {
    let file = File::create(directory.join(LOCK_FILE)).map_err(|source| LogStoreError::Log {
        directory: directory.to_owned(),
        source,
    })?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(Errno::WOULDBLOCK) => Err(LogStoreError::InUse {
            directory: directory.to_owned(),
        }),
        Err(error) => Err(LogStoreError::Log {
            directory: directory.to_owned(),
            source: error.into(),
        }),
    }
}

/// Entries of `[start, end)` from the log, up to about `max_bytes`. Blocking.
fn read_disk(log: &Log, (start, end): (u64, u64), max_bytes: usize) -> io::Result<Vec<Entry>> {
    let mut found: Vec<Entry> = Vec::new();
    let mut bytes = 0;
    let mut from = offset(start)?;
    let upper = offset(end)?;
    while from < upper && bytes < max_bytes {
        let (entries, next) = read_log(log, from, upper, READ_BYTES.min(max_bytes - bytes))?;
        if entries.is_empty() {
            break;
        }
        bytes += entries.iter().map(weight).sum::<usize>();
        found.extend(entries);
        from = next;
    }
    Ok(found)
}

/// One read of whole entries, and where the next one begins. Blocking.
fn read_log(log: &Log, from: Offset, upper: Offset, max_bytes: usize) -> io::Result<(Vec<Entry>, Offset)> {
    let outcome = log
        .read(ReadRequest {
            from,
            upper,
            max_bytes,
            min_one_batch: true,
        })
        .map_err(io::Error::other)?;
    let entries = codec::decode_all(outcome.bytes).collect::<Result<Vec<_>, _>>()?;
    if entries.is_empty() && from < upper {
        let what = format!("nothing can be read at offset {from} although the log ends at {upper}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    Ok((entries, outcome.next_offset))
}

fn offset(index: u64) -> io::Result<Offset> {
    i64::try_from(index)
        .map(Offset)
        .map_err(|_| codec::CodecError::Index(index).into())
}

/// The metadata log is never expired by time or size: only snapshots remove from it.
fn log_config() -> LogConfig {
    LogConfig {
        segment_bytes: 64 << 20,
        retention_ms: None,
        retention_bytes: None,
        max_message_bytes: 16 << 20,
        flush_messages: 1,
        delete: false,
        compact: false,
        ..LogConfig::default()
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        let start = match range.start_bound() {
            Bound::Included(&start) => start,
            Bound::Excluded(&start) => start + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(&end) => end + 1,
            Bound::Excluded(&end) => end,
            Bound::Unbounded => u64::MAX,
        };
        self.read(start, end, usize::MAX).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.read(start, end, MESSAGE_BYTES).await
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.shared.view.lock().vote)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let view = self.shared.view.lock();
        Ok(LogState {
            last_purged_log_id: view.purged,
            last_log_id: view.last,
        })
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let vote = *vote;
        if i32::try_from(vote.leader_id.term).is_err() {
            return Err(codec::CodecError::Term(vote.leader_id.term).into());
        }
        self.writer.run(|done| Job::Vote(vote, done)).await?;
        self.shared.view.lock().vote = Some(vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.shared.view.lock().committed = committed;
        self.writer.send(Job::Committed(committed))
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.shared.view.lock().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let mut batches = BytesMut::new();
        for entry in &entries {
            batches.extend_from_slice(&codec::encode(entry)?);
        }
        let Some(last) = entries.last().map(Entry::log_id) else {
            callback.io_completed(Ok(()));
            return Ok(());
        };
        {
            let mut view = self.shared.view.lock();
            if view.last.is_none_or(|last| last.index < view.first) {
                view.first = entries.first().map_or(view.first, Entry::index);
            }
            view.last = Some(last);
            for entry in entries {
                view.tail.push(entry);
            }
        }
        self.writer.send(Job::Append {
            batches: batches.freeze(),
            last_index: last.index,
            flushed: callback,
        })
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> io::Result<()> {
        let keep = match last_log_id {
            Some(id) => offset_after(id)?,
            None => Offset::ZERO,
        };
        {
            let mut view = self.shared.view.lock();
            if view.last <= last_log_id {
                return Ok(());
            }
            view.tail.truncate(last_log_id.map_or(0, |id| id.index + 1));
            view.last = last_log_id.max(view.purged);
        }
        self.writer.run(|done| Job::Truncate(keep, done)).await
    }

    async fn purge(&mut self, log_id: LogId) -> io::Result<()> {
        {
            let mut view = self.shared.view.lock();
            view.tail.purge(log_id.index);
            view.purged = Some(log_id);
            view.first = view.first.max(log_id.index + 1);
            view.last = view.last.max(Some(log_id));
        }
        self.writer.run(|done| Job::Purge(log_id, done)).await
    }
}
