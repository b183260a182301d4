//! Replicas on their way to another log directory (AlterReplicaLogDirs, KIP-113).
//!
//! One task a move ([`task`]), which others may call back. As many are at work at once as there are directories,
//! at a rate that they share.

mod task;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use protocol::{ErrorCode, PartitionIndex, TopicName, TopicPartition};
use storage::{LogManager, NamedDirectory, Throttle};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::{Hosted, ReplicaManager};
use crate::Partition;
use task::Move;

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
    /// What all of them copy, at their common rate.
    throttle: Throttle,
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
            throttle: Throttle::new(f64::INFINITY),
        }
    }

    /// Bytes a second that moves may copy from now on, all of them together. With none at all they wait until
    /// there is another rate, but for a chunk an hour.
    pub(super) fn set_rate(&self, bytes_per_second: u64) {
        let rate = if bytes_per_second == 0 {
            f64::MIN_POSITIVE
        } else {
            bytes_per_second as f64
        };
        self.throttle.set_rate(rate);
    }

    /// Notes that so many bytes were copied.
    fn copied(&self, bytes: u64) {
        self.throttle.take(bytes, Instant::now().into_std());
    }
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
