//! One move of a replica to another log directory.
//!
//! It fills the future log while the replica works on, then holds the replica, takes the rest, has the
//! controller note the new directory, swaps the logs, and lets go. From the controller's word to the swap
//! nothing is appended: whenever the process ends, the directory that the metadata names has everything. So
//! an outcome that is unknown is asked for again, and the replica waits.

use std::sync::Arc;
use std::time::Duration;

use protocol::{DirectoryId, ErrorCode};
use storage::Log;
use tokio::time::Instant;

use super::{ReplicaManager, Signals};
use crate::moving::{MoveError, Progress, settle, take_step};
use crate::{AssignError, Partition, disk::DiskBusy};

/// Before another attempt where space, descriptors or disk threads lack.
const PAUSE: Duration = Duration::from_secs(1);
/// Before the controller is asked again, while the replica waits.
const ASK_AGAIN: Duration = Duration::from_millis(200);
/// Chunks that are copied between two flushes of the copy: what is not durable when the replica comes to rest
/// has to be waited for then.
const CHUNKS_PER_FLUSH: u32 = 64;
/// A move that keeps to its rate looks this often whether that is another one by now.
const RATE_LOOK: Duration = Duration::from_millis(200);

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

/// One replica's move.
pub(super) struct Move {
    pub(super) manager: Arc<ReplicaManager>,
    pub(super) replica: Arc<Partition>,
    pub(super) future: Arc<Log>,
    pub(super) to: DirectoryId,
    pub(super) signals: Signals,
}

impl Move {
    pub(super) async fn run(self) {
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
        loop {
            self.keep_to_rate().await;
            if self.signals.cancel.is_cancelled() {
                return Ok(Ok(()));
            }
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
            if let Progress::Copied { bytes, .. } = progress {
                self.manager.moves.copied(bytes);
            }
            match progress {
                Progress::Copied {
                    whole_chunk: true, ..
                } => *unsynced += 1,
                Progress::Cut => {}
                // What came during the flush is not much.
                Progress::Copied { .. } | Progress::Same if *unsynced > 0 => {
                    *unsynced = CHUNKS_PER_FLUSH;
                }
                Progress::Copied { .. } | Progress::Same => return Ok(Ok(())),
            }
        }
    }

    /// Waits until the rate allows more to be copied, or until the move is called back. Before each chunk: none is
    /// waited for after the last, which leaves less to be copied with the replica at rest.
    async fn keep_to_rate(&self) {
        while !self.signals.cancel.is_cancelled() {
            let owed = self.manager.moves.throttle.owed(Instant::now().into_std());
            if owed.is_zero() {
                return;
            }
            self.pause(owed.min(RATE_LOOK)).await;
        }
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
            Ok(Ok(copied)) => self.manager.moves.copied(copied),
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
