//! Replicas on their way to another log directory (AlterReplicaLogDirs, KIP-113).
//!
//! One task a move. It fills the future log while the replica works on, then holds the replica, takes the
//! rest, has the controller note the new directory, swaps the logs, and lets go. From the controller's word
//! to the swap nothing is appended: whenever the process ends, the directory that the metadata names has
//! everything. So an outcome that is unknown is asked for again, and the replica waits.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use protocol::{DirectoryId, ErrorCode, PartitionIndex, TopicName, TopicPartition};
use storage::{Log, LogManager, NamedDirectory};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::{Hosted, ReplicaManager};
use crate::moving::{MoveError, Progress, settle, take_step};
use crate::{AssignError, Partition, disk::DiskBusy};

/// Before another attempt where space, descriptors or disk threads lack.
const PAUSE: Duration = Duration::from_secs(1);
/// Before the controller is asked again, while the replica waits.
const ASK_AGAIN: Duration = Duration::from_millis(200);
/// Chunks that are copied between two flushes of the copy: what is not durable when the replica comes to rest
/// has to be waited for then.
const CHUNKS_PER_FLUSH: u32 = 64;
/// How long others wait for a replica that a move holds.
const HELD_MAX: Duration = Duration::from_millis(500);

/// The moves of a broker.
#[derive(Debug)]
pub(super) struct Moves {
    /// One wish at a time is looked at.
    altering: tokio::sync::Mutex<()>,
    running: Mutex<HashMap<TopicPartition, Running>>,
    /// As many at once as there are directories: Kafka's default.
    turns: Arc<Semaphore>,
}

#[derive(Debug)]
struct Running {
    signals: Signals,
    task: JoinHandle<()>,
}

/// Between a move's task and those who want it to end.
#[derive(Clone, Debug, Default)]
struct Signals {
    /// It is called back: it ends at the next place where that leaves one directory with everything, and the
    /// metadata naming it.
    cancel: CancellationToken,
    /// Nobody needs what the replica has, so it ends without the controller's word too.
    abandon: CancellationToken,
    /// It has ended.
    ended: CancellationToken,
}

impl Moves {
    pub(super) fn new(directories: usize) -> Self {
        Self {
            altering: tokio::sync::Mutex::default(),
            running: Mutex::default(),
            turns: Arc::new(Semaphore::new(directories.max(1))),
        }
    }
}

/// Why a move's task ends.
#[derive(Debug)]
enum MoveEnd {
    /// The replica lies in the new directory.
    Moved,
    /// It was called back, or the broker stops. The future log is whoever ended it's.
    Called,
    /// The metadata does not want the replica there: the future log goes.
    Refused(ErrorCode),
    /// It cannot go on. The future log goes, for compaction would wait for it for ever; unless the replica has
    /// failed too, and the future may be all that is left of it.
    Failed(MoveError),
}

impl ReplicaManager {
    /// Moves this broker's replica of a partition to the log directory at an absolute path. Where it goes
    /// elsewhere already it goes there instead; where it lies there already a move away from it ends.
    /// `REQUEST_TIMED_OUT` where the move that goes on still has not ended at `until`: it may be waiting for
    /// the controller's word.
    ///
    /// Returns once the move has begun: DescribeLogDirs shows how far it is. For a replica that is not here
    /// the wish is remembered until it is made, and the answer is `REPLICA_NOT_AVAILABLE`, as in Kafka.
    pub async fn alter_log_dir(
        &self,
        topic: &TopicName,
        partition: PartitionIndex,
        path: &Path,
        until: Instant,
    ) -> ErrorCode {
        let Ok(_turn) = timeout_at(until, self.moves.altering.lock()).await else {
            return ErrorCode::RequestTimedOut;
        };
        match self.begin_altering(topic, partition, path, until).await {
            Ok(()) => ErrorCode::None,
            Err(code) => code,
        }
    }

    async fn begin_altering(
        &self,
        topic: &TopicName,
        partition: PartitionIndex,
        path: &Path,
        until: Instant,
    ) -> Result<(), ErrorCode> {
        let logs = &self.shared.logs;
        if !LogManager::may_move(topic, partition) {
            return Err(ErrorCode::InvalidTopicException);
        }
        let to = match logs.directory_at(path) {
            NamedDirectory::Online(id) => id,
            NamedDirectory::Offline => return Err(ErrorCode::KafkaStorageError),
            NamedDirectory::Unknown => return Err(ErrorCode::LogDirNotFound),
        };
        let known = self
            .image()
            .topic(topic.as_str())
            .filter(|topic| topic.partitions.contains_key(&partition))
            .map(|topic| TopicPartition::new(topic.id, partition));
        let hosted = known.and_then(|tp| self.partitions.read().get(&tp).cloned());
        let replica = match (known, hosted) {
            (_, Some(Hosted::Online(replica))) if !replica.is_failed() => replica,
            (_, Some(Hosted::Online(_) | Hosted::Offline)) => return Err(ErrorCode::KafkaStorageError),
            (known, None) => {
                logs.wish(topic, partition, to);
                return Err(match known {
                    Some(_) => ErrorCode::ReplicaNotAvailable,
                    None => ErrorCode::UnknownTopicOrPartition,
                });
            }
        };
        let tp = replica.tp();
        let end_move = || async move {
            let ended = timeout_at(until, self.end_move(tp)).await;
            ended.map_err(|_elapsed| ErrorCode::RequestTimedOut)
        };
        if logs.future(tp).is_some_and(|(_, at)| at != to) {
            end_move().await?;
            self.on_disk(move |logs| logs.cancel_move(tp)).await?;
        }
        if logs.directory_of(tp) == Some(to) {
            return Ok(());
        }
        if logs.future(tp).is_none() {
            // One that has just arrived may not have said so yet.
            end_move().await?;
            // As Kafka: what is offline may hold a future log already.
            if logs.unusable_directories() > 0 {
                return Err(ErrorCode::KafkaStorageError);
            }
            self.on_disk(move |logs| logs.begin_move(tp, to).map(|_| ()))
                .await?;
        }
        self.resume_move(&replica);
        Ok(())
    }

    /// Runs what the metadata or an administrator wants of the disk.
    async fn on_disk(
        &self,
        work: impl FnOnce(&LogManager) -> Result<(), storage::StorageError> + Send + 'static,
    ) -> Result<(), ErrorCode> {
        let logs = Arc::clone(&self.shared.logs);
        let done = self.shared.run_for_metadata(move || work(&logs)).await;
        match done {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                tracing::error!(%error, "a replica's move could not be begun or ended");
                Err(ErrorCode::KafkaStorageError)
            }
            Err(_busy) => Err(ErrorCode::KafkaStorageError),
        }
    }

    /// Goes on with the move of a replica that has a future log, unless that is being done.
    pub(super) fn resume_move(&self, replica: &Arc<Partition>) {
        let tp = replica.tp();
        let mut running = self.moves.running.lock();
        if running
            .get(&tp)
            .is_some_and(|running| !running.signals.ended.is_cancelled())
        {
            return;
        }
        // Only now: what a move that has ended meanwhile had before it is not the future any more.
        let (Some((future, to)), Some(manager)) = (self.shared.logs.future(tp), self.me.upgrade()) else {
            return;
        };
        let signals = Signals {
            cancel: self.stop.child_token(),
            ..Signals::default()
        };
        let task = Move {
            manager,
            replica: Arc::clone(replica),
            future,
            to,
            signals: signals.clone(),
        };
        let ended = signals.ended.clone().drop_guard();
        let task = self.shared.runtime.spawn(async move {
            let _ended = ended;
            task.run().await;
        });
        running.insert(tp, Running { signals, task });
    }

    /// Ends a move's task and waits for that. It may have been over just before. Who does not wait until the
    /// end leaves it called back, and known.
    pub(super) async fn end_move(&self, tp: TopicPartition) {
        let signals = {
            let running = self.moves.running.lock();
            running.get(&tp).map(|running| running.signals.clone())
        };
        let Some(signals) = signals else {
            return;
        };
        signals.cancel.cancel();
        signals.ended.cancelled().await;
        let over = {
            let mut running = self.moves.running.lock();
            let is_over = |running: &Running| running.signals.ended.is_cancelled();
            if running.get(&tp).is_some_and(is_over) {
                running.remove(&tp)
            } else {
                None
            }
        };
        if let Some(Running { task, .. }) = over
            && task.await.is_err()
        {
            tracing::error!(%tp, "a replica's move had panicked");
        }
    }

    /// As [`ReplicaManager::end_move`], for a replica that goes: not even the controller's word is waited
    /// for.
    pub(super) async fn abandon_move(&self, tp: TopicPartition) {
        if let Some(running) = self.moves.running.lock().get(&tp) {
            running.signals.abandon.cancel();
        }
        self.end_move(tp).await;
    }

    /// Resolves when a replica on the move has been waited for long enough: it may be held until the
    /// controller answers, and the others must not wait for that. Never for one that stays where it is.
    pub(super) async fn is_held_for_long(&self, tp: TopicPartition) {
        loop {
            tokio::time::sleep(HELD_MAX).await;
            if self.shared.logs.future(tp).is_some() {
                return;
            }
        }
    }

    /// Ends every move's task; the next run goes on with them.
    pub(super) async fn end_all_moves(&self) {
        let all: Vec<TopicPartition> = self.moves.running.lock().keys().copied().collect();
        for tp in all {
            self.end_move(tp).await;
        }
    }
}

/// One replica's move.
struct Move {
    manager: Arc<ReplicaManager>,
    replica: Arc<Partition>,
    future: Arc<Log>,
    to: DirectoryId,
    signals: Signals,
}

impl Move {
    async fn run(self) {
        let tp = self.replica.tp();
        match self.fill_and_swap().await {
            MoveEnd::Moved | MoveEnd::Called => {}
            MoveEnd::Refused(code) => {
                tracing::warn!(%tp, %code, "the controller does not want the replica to move");
                self.drop_future().await;
            }
            MoveEnd::Failed(error) => {
                tracing::error!(%tp, %error, "the replica does not move on; it stays where it is");
                let has_failed = self.replica.is_failed() || self.replica.log().has_failed();
                if !has_failed && !self.signals.cancel.is_cancelled() {
                    self.drop_future().await;
                }
            }
        }
    }

    async fn drop_future(&self) {
        let tp = self.replica.tp();
        let dropped = self.manager.on_disk(move |logs| logs.cancel_move(tp));
        if dropped.await.is_err() {
            tracing::error!(%tp, "its future log stays until the next start");
        }
    }

    async fn fill_and_swap(&self) -> MoveEnd {
        let mut unsynced: u32 = 0;
        loop {
            let turn = tokio::select! {
                biased;
                () = self.signals.cancel.cancelled() => return MoveEnd::Called,
                turn = self.manager.moves.turns.acquire() => turn,
            };
            let Ok(turn) = turn else {
                return MoveEnd::Called;
            };
            // Others have their turn during the pause.
            let pause = match self.fill(&mut unsynced).await {
                Ok(Ok(())) if self.signals.cancel.is_cancelled() => return MoveEnd::Called,
                Ok(Ok(())) => match self.swap().await {
                    Some(end) => return end,
                    None => ASK_AGAIN,
                },
                Ok(Err(error)) if error.may_pass() => {
                    tracing::warn!(tp = %self.replica.tp(), %error, "the replica's move pauses");
                    PAUSE
                }
                Ok(Err(error)) => return MoveEnd::Failed(error),
                Err(_busy) => PAUSE,
            };
            drop(turn);
            self.pause(pause).await;
        }
    }

    /// Copies until only the last of it is missing, or not durable; or until the move is called back.
    async fn fill(&self, unsynced: &mut u32) -> Result<Result<(), MoveError>, DiskBusy> {
        while !self.signals.cancel.is_cancelled() {
            let (current, future) = (self.replica.log(), Arc::clone(&self.future));
            let flush = *unsynced >= CHUNKS_PER_FLUSH;
            let step = self.manager.shared.reads.run(move || {
                if flush {
                    future.flush()?;
                }
                take_step(&current, &future)
            });
            let progress = match step.await? {
                Ok(progress) => progress,
                Err(error) => return Ok(Err(error)),
            };
            if flush {
                *unsynced = 0;
            }
            match progress {
                Progress::Copied { whole_chunk: true } => *unsynced += 1,
                Progress::Cut => {}
                // What came during the flush is not much.
                Progress::Copied { whole_chunk: false } | Progress::Same if *unsynced > 0 => {
                    *unsynced = CHUNKS_PER_FLUSH;
                }
                Progress::Copied { whole_chunk: false } | Progress::Same => break,
            }
        }
        Ok(Ok(()))
    }

    async fn pause(&self, how_long: Duration) {
        tokio::select! {
            () = self.signals.cancel.cancelled() => {}
            () = tokio::time::sleep(how_long) => {}
        }
    }

    /// Takes the last step with the replica at rest. `None`: not now.
    async fn swap(&self) -> Option<MoveEnd> {
        let tp = self.replica.tp();
        // Else the reconciler would tell of the old directory what is about to be told of the new one.
        if !self.manager.telling.lock().insert(tp) {
            return None;
        }
        let end = self.swap_at_rest().await;
        self.manager.telling.lock().remove(&tp);
        end
    }

    async fn swap_at_rest(&self) -> Option<MoveEnd> {
        let tp = self.replica.tp();
        let Ok(hold) = self.replica.hold().await else {
            return Some(MoveEnd::Called);
        };
        if self.replica.is_failed() || self.replica.is_unassigned() {
            return None;
        }
        let shared = &self.manager.shared;
        let (current, future) = (self.replica.log(), Arc::clone(&self.future));
        let compared = (Arc::clone(&current), Arc::clone(&future));
        let before = Arc::clone(&current);
        match shared.reads.run(move || settle(&current, &future)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) if error.may_pass() => return None,
            Ok(Err(error)) => return Some(MoveEnd::Failed(error)),
            Err(_busy) => return None,
        }
        if self.signals.cancel.is_cancelled() {
            return Some(MoveEnd::Called);
        }
        let from = shared.logs.directory_of(tp)?;
        match self.assign(self.to).await {
            Some(Ok(())) => {}
            Some(Err(code)) => return Some(MoveEnd::Refused(code)),
            None => {
                // Nobody knows which directory the metadata names. Nothing may be appended to either until
                // the next run has told.
                if !self.signals.abandon.is_cancelled() {
                    self.replica.storage_failed();
                }
                return Some(MoveEnd::Called);
            }
        }
        let logs = Arc::clone(&shared.logs);
        let swapped = shared
            .reads
            .run(move || logs.complete_move(tp, (&compared.0, &compared.1)))
            .await;
        match swapped {
            Ok(Ok(())) => {
                self.replica.take_log(Arc::clone(&self.future));
                drop(hold);
                Some(MoveEnd::Moved)
            }
            Ok(Err(error)) => {
                // Where the old directory failed nobody knows whether its log has its name still. The future
                // has everything, and the metadata goes on naming it: the next run takes whichever it finds.
                if before.has_failed() || self.assign(from).await != Some(Ok(())) {
                    self.replica.storage_failed();
                }
                Some(MoveEnd::Failed(error.into()))
            }
            Err(_stopping) => {
                self.replica.storage_failed();
                Some(MoveEnd::Called)
            }
        }
    }

    /// Has the controller note a directory, however long that takes; `None` where the broker stops, or the
    /// replica goes, before its word is known.
    async fn assign(&self, directory: DirectoryId) -> Option<Result<(), ErrorCode>> {
        let Some(channel) = self.manager.shared.directory_channel() else {
            return Some(Ok(()));
        };
        let (stop, abandon) = (&self.manager.stop, &self.signals.abandon);
        loop {
            let noted = tokio::select! {
                () = stop.cancelled() => return None,
                () = abandon.cancelled() => return None,
                noted = channel.assign(self.replica.tp(), directory) => noted,
            };
            match noted {
                Ok(()) => return Some(Ok(())),
                Err(AssignError::Refused(code)) => return Some(Err(code)),
                Err(AssignError::Unknown) => {}
            }
            tokio::select! {
                () = stop.cancelled() => return None,
                () = abandon.cancelled() => return None,
                () = tokio::time::sleep(ASK_AGAIN) => {}
            }
        }
    }
}
