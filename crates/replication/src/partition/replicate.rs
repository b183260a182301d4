//! The follower's side of replication: what a leader sent is appended, or the log is cut.

use bytes::Bytes;
use protocol::{LeaderEpoch, Offset, batch::BatchHeader};
use storage::{AppendError, AppendInfo, Log, StorageError};
use tokio::sync::oneshot;

use super::{After, Partition};
use crate::{Following, PartitionState, Position, ReplicaError, metric_names};

impl Partition {
    /// Whom the replica follows and from where; `None` where it leads, or nobody does.
    pub fn following(&self) -> Option<Following> {
        let core = self.core.lock();
        let (leader, leader_epoch) = core.state.following()?;
        Some(Following {
            leader,
            leader_epoch,
            in_sync: core.state.is_in_sync_follower(),
            position: core.position(&self.log.load()),
        })
    }

    /// Appends batches from the leader of `leader_epoch` that directly follow the log's end at
    /// `previous`, and takes over its high watermark and log start. Without batches only these are
    /// news, and nothing waits for the disk.
    ///
    /// Queued at once: the order of calls is the order of appends. Resolves when the batches are
    /// written; that they have become durable is told to the listeners of
    /// [`Partition::subscribe_append`].
    pub fn append_replicated(
        &self,
        leader_epoch: LeaderEpoch,
        previous: Offset,
        batches: Bytes,
        high_watermark: Offset,
        log_start: Offset,
    ) -> impl Future<Output = Result<(), ReplicaError>> + Send + 'static + use<> {
        let (done, result) = oneshot::channel();
        if batches.is_empty() && log_start <= self.log.load().log_start_offset() {
            // Nobody else holds the receiver yet.
            let _ = done.send(self.hear_high_watermark(leader_epoch, high_watermark));
        } else {
            let partition = self.this();
            // Where the queue is full the sender is dropped with the job.
            let _ = self.strand.submit(move || {
                let appended =
                    partition.append_sent(leader_epoch, previous, batches, high_watermark, log_start);
                // A stream that has ended does not ask any more.
                let _ = done.send(appended);
            });
        }
        async move { result.await.unwrap_or(Err(ReplicaError::Busy)) }
    }

    fn hear_high_watermark(&self, epoch: LeaderEpoch, high_watermark: Offset) -> Result<(), ReplicaError> {
        let mut after = After::default();
        {
            let mut core = self.core.lock();
            core.state.check_follows(epoch)?;
            core.event(self, &mut after, |state, facts| {
                state.on_leader_high_watermark(high_watermark, facts)
            });
        }
        self.carry_out(after);
        Ok(())
    }

    /// On the strand.
    fn append_sent(
        &self,
        epoch: LeaderEpoch,
        previous: Offset,
        batches: Bytes,
        high_watermark: Offset,
        log_start: Offset,
    ) -> Result<(), ReplicaError> {
        {
            let core = self.core.lock();
            core.state.check_follows(epoch)?;
            if core.end != previous {
                return Err(ReplicaError::NotNext {
                    previous,
                    log_end: core.end,
                });
            }
        }
        let mut after = After::default();
        let appended = if batches.is_empty() {
            Ok(())
        } else {
            append_following(&self.log.load(), previous, batches).map(|info| {
                metrics::counter!(metric_names::REPLICATION_BYTES_IN).increment(info.bytes);
                after.flush = info.flush_due;
                after.moved = true;
            })
        };
        {
            let mut core = self.core.lock();
            // Also after an error: some of the batches may be in the log.
            core.refresh(&self.log.load(), &mut after);
            if core.state.check_follows(epoch).is_ok() {
                core.event(self, &mut after, |state, facts| {
                    state.on_leader_high_watermark(high_watermark, facts)
                });
            }
        }
        self.carry_out(after);
        appended.map_err(|error| self.replica_error(&error))?;
        self.follow_log_start(log_start)
    }

    /// The leader has deleted the beginning of its log: so does the follower, as far as what goes is
    /// committed.
    fn follow_log_start(&self, log_start: Offset) -> Result<(), ReplicaError> {
        let target = log_start.min(self.core.lock().state.high_watermark());
        if target <= self.log.load().log_start_offset() {
            return Ok(());
        }
        self.log
            .load()
            .advance_log_start(target)
            .map_err(|error| self.replica_error(&AppendError::Storage(error)))
    }

    fn replica_error(&self, error: &AppendError) -> ReplicaError {
        tracing::warn!(topic = %self.topic, partition = %self.tp.partition, %error, "replication failed");
        match error {
            AppendError::Storage(storage) if storage.is_exhaustion() => ReplicaError::Exhausted,
            AppendError::Storage(StorageError::Corrupt { .. }) | AppendError::OffsetsExhausted => {
                self.storage_failed();
                crate::RoleError::Failed.into()
            }
            AppendError::Storage(_) => {
                // An I/O error leaves the log usable or marks it failed; either way this data is not in.
                self.storage_failed_if_dead();
                ReplicaError::Exhausted
            }
            AppendError::Empty
            | AppendError::Batch(_)
            | AppendError::OffsetWentBack { .. }
            | AppendError::EpochWentBack { .. }
            | AppendError::OutOfOrderSequence { .. }
            | AppendError::InvalidProducerEpoch { .. } => ReplicaError::Damaged,
        }
    }

    /// Cuts the log to where it and the leader's can still agree, after the leader of `leader_epoch`
    /// answered [`crate::FetchVerdict::Diverged`] with `diverged` (KIP-101, KIP-279) to a fetch at `judged`. The
    /// fetch that follows either continues or diverges again, further back.
    ///
    /// A log that does not end there any more is left as it is: within one leader epoch, what has come since came
    /// from that leader, and has perhaps been acknowledged.
    pub async fn truncate_for(
        &self,
        leader_epoch: LeaderEpoch,
        judged: Position,
        diverged: (Option<LeaderEpoch>, Offset),
    ) -> Result<Position, ReplicaError> {
        let partition = self.this();
        let cut = self
            .strand
            .run(move || {
                partition.check_judged(judged)?;
                partition.cut(leader_epoch, |end, start| {
                    let (epoch, leader_end) = diverged;
                    let own_end =
                        match epoch.and_then(|epoch| partition.log.load().end_offset_for_epoch(epoch)) {
                            Some((_, own_end)) => own_end,
                            // Nothing here is as old as what the leader has: nothing can agree.
                            None => start,
                        };
                    end.min(leader_end).min(own_end)
                })
            })
            .await;
        cut.map_err(|_| ReplicaError::Busy)?
    }

    /// Begins anew, empty, at the leader's log start: the leader of `leader_epoch` no longer has what
    /// follows the replica's log end. A log that has reached the leader's is left as it is.
    pub async fn restart_at(
        &self,
        leader_epoch: LeaderEpoch,
        log_start: Offset,
    ) -> Result<Position, ReplicaError> {
        let partition = self.this();
        let restarted = self
            .strand
            .run(move || {
                let log_end = {
                    let core = partition.core.lock();
                    core.state.check_follows(leader_epoch)?;
                    core.end
                };
                if log_end >= log_start {
                    return Err(ReplicaError::Outdated { log_end });
                }
                tracing::warn!(
                    topic = %partition.topic,
                    partition = %partition.tp.partition,
                    %log_end,
                    %log_start,
                    "the leader's log does not reach back to this replica's: beginning anew"
                );
                partition.restart(log_start)
            })
            .await;
        restarted.map_err(|_| ReplicaError::Busy)?
    }

    /// On the strand: whether the log ends where the leader has judged it, with the same history before.
    fn check_judged(&self, judged: Position) -> Result<(), ReplicaError> {
        let core = self.core.lock();
        let now = core.position(&self.log.load());
        if (now.last_epoch, now.log_end) == (judged.last_epoch, judged.log_end) {
            Ok(())
        } else {
            Err(ReplicaError::Outdated { log_end: now.log_end })
        }
    }

    /// On the strand: truncates to what `target` computes from the log's end and start.
    fn cut(
        &self,
        leader_epoch: LeaderEpoch,
        target: impl FnOnce(Offset, Offset) -> Offset,
    ) -> Result<Position, ReplicaError> {
        let start = self.log.load().log_start_offset();
        let (end, high_watermark) = {
            let core = self.core.lock();
            core.state.check_follows(leader_epoch)?;
            (core.end, core.state.high_watermark())
        };
        let target = target(end, start);
        if target < start {
            return self.restart(target);
        }
        if target < high_watermark {
            // Only an unclean election does this, or a lost disk elsewhere: committed records go.
            tracing::error!(
                topic = %self.topic,
                partition = %self.tp.partition,
                %target,
                %high_watermark,
                "the leader does not have records that were committed: truncating below the high watermark"
            );
        } else {
            tracing::info!(topic = %self.topic, partition = %self.tp.partition, %end, %target, "truncating to the leader's history");
        }
        self.change_log(target, |log| log.truncate_to(target))
    }

    fn restart(&self, at: Offset) -> Result<Position, ReplicaError> {
        self.change_log(at, |log| log.truncate_fully_and_start_at(at))
    }

    /// Cuts the log to `end`. What others see is cut before, so that nothing is judged by offsets that
    /// are on their way out, and is looked up again afterwards.
    fn change_log(
        &self,
        end: Offset,
        change: impl FnOnce(&Log) -> Result<(), StorageError>,
    ) -> Result<Position, ReplicaError> {
        {
            let mut core = self.core.lock();
            core.end = core.end.min(end);
            core.durable = core.durable.min(end);
            core.tail.clear();
            let view = core.view(&self.log.load());
            core.state.on_truncated(view);
        }
        let changed = change(&self.log.load());
        let mut after = After {
            moved: true,
            high_watermark_moved: true,
            ..After::default()
        };
        let position = {
            let mut core = self.core.lock();
            core.refresh(&self.log.load(), &mut after);
            let view = core.view(&self.log.load());
            core.state.on_truncated(view);
            core.event(self, &mut after, PartitionState::on_log_progress);
            after.flush = core.durable < core.end;
            core.position(&self.log.load())
        };
        self.carry_out(after);
        changed.map_err(|error| self.replica_error(&AppendError::Storage(error)))?;
        Ok(position)
    }
}

/// Appends what follows `previous`. Where the log that the batches are from starts inside a batch
/// (DeleteRecords counts records, not batches), an empty log takes the whole of that batch and starts inside
/// it too.
pub(crate) fn append_following(
    log: &Log,
    previous: Offset,
    batches: Bytes,
) -> Result<AppendInfo, AppendError> {
    let first = BatchHeader::parse(&batches)?;
    let holds_previous = first.base_offset < previous && previous < first.next_offset();
    if !holds_previous || log.log_start_offset() != log.log_end_offset() {
        return log.append_as_follower(batches);
    }
    log.truncate_fully_and_start_at(first.base_offset)?;
    let info = log.append_as_follower(batches)?;
    log.advance_log_start(previous)?;
    // What is durable here was told to be `previous`, and never goes back without a truncation.
    log.flush()?;
    Ok(info)
}
