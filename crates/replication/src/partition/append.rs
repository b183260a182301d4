//! Produce, in two phases: the order of calls is the order of appends, and waiting overlaps.

use std::sync::Arc;

use bytes::Bytes;
use protocol::{LeaderEpoch, Offset};
use storage::{AppendError, AppendOutcome, LeaderAppend};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{After, Partition, tail::Piece};
use crate::{
    AppendRefused, PartitionState, metric_names,
    shared::Shared,
    waiters::{AppendResult, Due, Reply},
};

/// When records count as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    /// `acks=0`: nobody waits.
    None,
    /// `acks=1`: durable at the leader.
    Leader,
    /// `acks=all`: durable at every in-sync replica.
    All,
}

/// Records to append.
#[derive(Clone, Debug)]
pub struct ProduceAppend {
    /// Whole batches, validated as the topic asks for.
    pub batches: Bytes,
    /// When they count as written.
    pub acks: Acks,
    /// The leader epoch that the caller expects, where it does.
    pub leader_epoch: Option<LeaderEpoch>,
    /// The timestamp to stamp on them (ms since 1970), with LogAppendTime.
    pub log_append_time: Option<i64>,
}

/// An append under way.
#[derive(Debug)]
pub struct AppendTicket {
    appended: oneshot::Receiver<Result<AppendResult, AppendRefused>>,
    done: oneshot::Receiver<Result<AppendResult, AppendRefused>>,
}

impl AppendTicket {
    /// Waits until the records are in the leader's log, which says nothing about their durability.
    /// Resolves once; for `acks=0`, and whoever needs the offsets early.
    pub async fn appended(&mut self) -> Result<AppendResult, AppendRefused> {
        // The job was dropped with its queue: the disk threads have ended.
        (&mut self.appended).await.unwrap_or(Err(AppendRefused::Busy))
    }

    /// Waits until the records count as written, at most until `deadline`.
    pub async fn committed(self, deadline: Instant) -> Result<AppendResult, AppendRefused> {
        match tokio::time::timeout_at(deadline, self.done).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(AppendRefused::TimedOut),
        }
    }
}

/// The other end of a ticket.
struct Stub {
    appended: Reply,
    done: Reply,
}

impl Stub {
    fn refuse(self, why: AppendRefused) {
        Due::new(self.appended, Err(why)).send();
        Due::new(self.done, Err(why)).send();
    }
}

/// Whether the request may be appended now, and in which epoch.
fn admit(
    state: &PartitionState,
    acks: Acks,
    leader_epoch: Option<LeaderEpoch>,
) -> Result<LeaderEpoch, AppendRefused> {
    let epoch = state.check_append(leader_epoch)?;
    if acks == Acks::All && state.is_under_min_isr() {
        return Err(AppendRefused::NotEnoughReplicas);
    }
    Ok(epoch)
}

impl Partition {
    /// Whether an append would be admitted now. To be asked before the records are judged, as Kafka does:
    /// a producer whose earlier batch was told to come again must not be told of a later batch that it is
    /// refused for good. It would begin a new epoch, in which the earlier batch is no longer known as the
    /// duplicate that it may be.
    pub fn check_produce(&self, acks: Acks) -> Result<(), AppendRefused> {
        admit(&self.core.lock().state, acks, None).map(|_| ())
    }

    /// Queues an append and returns at once. Appends are made in the order of these calls.
    pub fn append(&self, request: ProduceAppend) -> AppendTicket {
        let (appended_reply, appended) = oneshot::channel();
        let (done_reply, done) = oneshot::channel();
        let stub = Stub {
            appended: appended_reply,
            done: done_reply,
        };
        let ticket = AppendTicket { appended, done };
        // Refused early where it is sure; the strand looks again.
        let admitted = admit(&self.core.lock().state, request.acks, request.leader_epoch);
        match admitted {
            Err(why) => stub.refuse(why),
            Ok(_) => {
                let (partition, slot) = (self.this(), Arc::new(parking_lot::Mutex::new(Some(stub))));
                let filled = Arc::clone(&slot);
                let queued = self.strand.submit(move || {
                    if let Some(stub) = filled.lock().take() {
                        partition.append_now(request, stub);
                    }
                });
                if queued.is_err()
                    && let Some(stub) = slot.lock().take()
                {
                    stub.refuse(AppendRefused::Busy);
                }
            }
        }
        ticket
    }

    /// On the strand.
    fn append_now(&self, request: ProduceAppend, stub: Stub) {
        let admitted = admit(&self.core.lock().state, request.acks, request.leader_epoch);
        let epoch = match admitted {
            Ok(epoch) => epoch,
            Err(why) => return stub.refuse(why),
        };
        let acks = request.acks;
        // A shared slice of the request. With another timestamp on it, it is not what the log has.
        let batches = request.log_append_time.is_none().then(|| request.batches.clone());
        let appended = self.log.load().append_as_leader(LeaderAppend {
            batches: request.batches,
            leader_epoch: epoch,
            now_ms: Shared::wall_clock_ms(),
            log_append_time: request.log_append_time,
        });
        let mut after = After::default();
        let mut piece = None;
        let (first_offset, until, log_append_time) = match appended {
            Ok(AppendOutcome::Appended(info)) => {
                after.moved = true;
                after.flush = info.flush_due;
                metrics::counter!(metric_names::BYTES_IN).increment(info.bytes);
                piece = batches
                    .filter(|_| self.has_followers())
                    .and_then(|batches| Piece::placed(&batches, info.first_offset, info.next_offset, epoch));
                (info.first_offset, info.next_offset, info.log_append_time)
            }
            Ok(AppendOutcome::Duplicate {
                first_offset,
                last_offset,
                log_append_time,
            }) => (first_offset, last_offset.next(), log_append_time),
            Err(error) => return stub.refuse(self.append_refused(&error)),
        };
        let result = AppendResult {
            base_offset: first_offset,
            log_append_time,
            log_start_offset: self.log.load().log_start_offset(),
        };
        {
            let mut core = self.core.lock();
            core.refresh(&self.log.load(), &mut after);
            after.due.push(Due::new(stub.appended, Ok(result)));
            // This broker may have given up its leaderships while the disk was busy.
            match core.state.check_append(Some(epoch)) {
                Err(why) => after.due.push(Due::new(stub.done, Err(why.into()))),
                Ok(_) => {
                    if let Some(piece) = piece {
                        core.tail.push(piece);
                    }
                    match acks {
                        Acks::None => after.due.push(Due::new(stub.done, Ok(result))),
                        Acks::Leader => core.durable_here.wait(until, result, stub.done),
                        Acks::All => core.wait_committed(until, result, stub.done, &mut after),
                    }
                    core.durable_moved(&self.log.load(), &mut after);
                    core.event(self, &mut after, PartitionState::on_log_progress);
                }
            }
        }
        self.carry_out(after);
    }

    /// Whether this replica leads others.
    fn has_followers(&self) -> bool {
        let core = self.core.lock();
        core.state
            .leader()
            .is_ok_and(|leader| leader.replicas().len() > 1)
    }

    fn append_refused(&self, error: &AppendError) -> AppendRefused {
        match error {
            AppendError::OutOfOrderSequence { .. } => AppendRefused::OutOfOrderSequence,
            AppendError::InvalidProducerEpoch { .. } => AppendRefused::InvalidProducerEpoch,
            AppendError::Empty | AppendError::Batch(_) => AppendRefused::Malformed,
            AppendError::OffsetWentBack { .. }
            | AppendError::EpochWentBack { .. }
            | AppendError::OffsetsExhausted
            | AppendError::Storage(_) => {
                tracing::error!(topic = %self.topic, partition = %self.tp.partition, %error, "append failed");
                self.storage_failed_if_dead();
                AppendRefused::Storage
            }
        }
    }
}

impl super::Core {
    /// An `acks=all` producer waits, unless its answer is known: a duplicate may be committed already,
    /// and where the ISR has become too small nobody can say when that ends.
    fn wait_committed(&mut self, until: Offset, result: AppendResult, reply: Reply, after: &mut After) {
        if until <= self.state.high_watermark() {
            after.due.push(Due::new(reply, Ok(result)));
        } else if self.state.is_under_min_isr() {
            let why = AppendRefused::NotEnoughReplicasAfterAppend;
            after.due.push(Due::new(reply, Err(why)));
        } else {
            self.committed.wait(until, result, reply);
        }
    }
}
