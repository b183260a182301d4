//! One replica of one partition: the shell around [`PartitionState`] and a [`Log`].
//!
//! ```text
//!  requests, streams            strand (disk threads, in order)          flush threads
//!  append ──────────────▶ append to the log ─┐                     ┌─ fdatasync is done
//!  follower fetch ─┐      append replicated ─┤                     │
//!  tick, ISR reply ┤      truncate, new role ┤                     │
//!                  ▼                         ▼                     ▼
//!              Core (one mutex, held for microseconds): view of the log, PartitionState, waiters
//!                  │
//!                  ▼ after the mutex: answers to producers, listeners, ISR proposals, flush requests
//! ```
//! Whatever changes the log's end runs on the partition's strand; the core's *view* of the log changes
//! with it under the mutex. Every event therefore sees offsets that belong together, and a high
//! watermark is never judged against a log that is being cut.

mod append;
mod lead;
mod read;
mod replicate;
mod role;
mod status;
mod tail;

use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use protocol::{LeaderEpoch, Offset, TopicName, TopicPartition};
use storage::{FlushFailed, FlushListener, Log, StorageError};

pub use append::{Acks, AppendTicket, ProduceAppend};
pub use read::{EpochEnd, FetchRead, FetchedRecords, Isolation};
pub(crate) use replicate::append_following;
pub(crate) use role::Standing;
pub use status::{PartitionOffsets, PartitionStatus, ReplicaRole};
pub(crate) use tail::TailBudget;

use crate::{
    AlterIsr, AppendRefused, Effects, EpochLookup, Facts, LogView, PartitionState, Position,
    ProgressListener, RoleError,
    disk::Strand,
    listeners::{Interest, Listeners, Subscription},
    metric_names,
    shared::Shared,
    waiters::{Due, Waiters},
};
use tail::Tail;

/// A replica that this broker holds.
pub struct Partition {
    tp: TopicPartition,
    topic: TopicName,
    /// Another one, with the same contents, once the replica has moved to another directory.
    log: ArcSwap<Log>,
    strand: Strand,
    shared: Arc<Shared>,
    core: Mutex<Core>,
    listeners: Arc<Listeners>,
    me: Weak<Self>,
}

struct Core {
    state: PartitionState,
    /// The log's end as of the last finished change, and what of it is durable.
    end: Offset,
    durable: Offset,
    /// Epoch of the last batch; changes together with `end`.
    last_epoch: Option<LeaderEpoch>,
    /// `acks=all`: waiting for the high watermark.
    committed: Waiters,
    /// `acks=1`: waiting for the leader's disk.
    durable_here: Waiters,
    /// What followers are sent next, while this replica leads.
    tail: Tail,
}

/// What is to be done once the core is unlocked.
#[derive(Default)]
struct After {
    due: Vec<Due>,
    propose: Option<AlterIsr>,
    moved: bool,
    high_watermark_moved: bool,
    flush: bool,
}

impl std::fmt::Debug for Partition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Partition")
            .field("topic", &self.topic)
            .field("tp", &self.tp)
            .finish_non_exhaustive()
    }
}

/// The log's epochs, as the pure core asks for them.
pub(crate) struct LogEpochs<'a>(pub(crate) &'a Log);

impl EpochLookup for LogEpochs<'_> {
    fn end_offset_for_epoch(&self, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        self.0.end_offset_for_epoch(epoch)
    }
}

impl Core {
    fn view(&self, log: &Log) -> LogView {
        LogView {
            // Retention moves it at any time, but never above the high watermark.
            start: log.log_start_offset().min(self.end),
            end: self.end,
            durable: self.durable,
        }
    }

    /// Takes over where the log is now. Only for the strand, between two changes of the log.
    ///
    /// What it takes over from a flush that has ended is told here: the flush itself finds nothing new
    /// then, and a follower's leader would wait for an acknowledgement that never comes.
    fn refresh(&mut self, log: &Log, after: &mut After) {
        let before = (self.end, self.durable);
        self.end = log.log_end_offset();
        self.durable = log.durable_offset().min(self.end);
        self.last_epoch = last_epoch(log, self.end);
        after.moved |= before != (self.end, self.durable);
    }

    /// Runs one event on the state and gathers what follows from it.
    fn event(
        &mut self,
        partition: &Partition,
        after: &mut After,
        event: impl FnOnce(&mut PartitionState, &Facts<'_>) -> Effects,
    ) {
        let image = partition.shared.image.load();
        let log = self.view(&partition.log.load());
        // Retention may have passed what this replica knew to be committed; what is gone was.
        after.high_watermark_moved |= self.state.on_log_start(log.start);
        let facts = Facts {
            log,
            brokers: &**image,
            now: partition.shared.now(),
        };
        let effects = event(&mut self.state, &facts);
        if effects.high_watermark.is_some() {
            after.high_watermark_moved = true;
        }
        if after.high_watermark_moved {
            self.committed
                .release(self.state.high_watermark(), &mut after.due);
            self.tail.forget_below(self.state.high_watermark());
        }
        if effects.fell_under_min_isr {
            let why = AppendRefused::NotEnoughReplicasAfterAppend;
            self.committed.refuse_all(why, &mut after.due);
        }
        after.propose = effects.propose_isr.or_else(|| after.propose.take());
    }

    /// More of the log may be durable.
    fn durable_moved(&mut self, log: &Log, after: &mut After) {
        let durable = log.durable_offset().min(self.end);
        if durable > self.durable {
            self.durable = durable;
            after.moved = true;
        }
        self.durable_here.release(self.durable, &mut after.due);
    }

    /// The replica does not lead any more: nobody's records will be acknowledged here, or sent to others.
    fn abandon_producers(&mut self, why: RoleError, after: &mut After) {
        self.committed.refuse_all(why.into(), &mut after.due);
        self.durable_here.refuse_all(why.into(), &mut after.due);
        self.tail.clear();
    }

    fn position(&self, log: &Log) -> Position {
        let view = self.view(log);
        Position {
            last_epoch: self.last_epoch,
            log_end: view.end,
            durable: view.durable,
            log_start: view.start,
        }
    }
}

/// Epoch of the batch before `end`. An epoch that began at the end and has no record is not one: its
/// leader appended nothing, and a follower that named it would claim a history it does not have.
pub(crate) fn last_epoch(log: &Log, end: Offset) -> Option<LeaderEpoch> {
    if end <= log.log_start_offset() {
        return None;
    }
    log.epoch_at(Offset(end.0 - 1))
}

impl Partition {
    /// A replica in no role yet. `remembered`: a hint at its high watermark.
    pub(crate) fn new(
        tp: TopicPartition,
        topic: TopicName,
        log: Arc<Log>,
        shared: &Arc<Shared>,
        lag_max: std::time::Duration,
        remembered: Option<Offset>,
    ) -> Arc<Self> {
        let end = log.log_end_offset();
        let view = LogView {
            start: log.log_start_offset(),
            end,
            durable: log.durable_offset().min(end),
        };
        Arc::new_cyclic(|me| Self {
            tp,
            topic,
            strand: shared.writes.strand(),
            shared: Arc::clone(shared),
            core: Mutex::new(Core {
                state: PartitionState::new(shared.broker, lag_max, view, remembered),
                end: view.end,
                durable: view.durable,
                last_epoch: last_epoch(&log, view.end),
                committed: Waiters::default(),
                durable_here: Waiters::default(),
                tail: Tail::new(&shared.tails),
            }),
            listeners: Arc::default(),
            me: Weak::clone(me),
            log: ArcSwap::new(log),
        })
    }

    /// The partition's identity.
    pub fn tp(&self) -> TopicPartition {
        self.tp
    }

    /// The topic's name.
    pub fn topic(&self) -> &TopicName {
        &self.topic
    }

    /// The replica's log. Only what does not change it may be called from outside.
    pub fn log(&self) -> Arc<Log> {
        self.log.load_full()
    }

    fn this(&self) -> Arc<Self> {
        self.me
            .upgrade()
            .expect("a partition lives in an Arc, and `self` keeps it alive")
    }

    /// Carries out what an event brought about. Never under the core's lock.
    fn carry_out(&self, after: After) {
        for due in after.due {
            due.send();
        }
        if after.flush {
            self.shared
                .logs
                .flusher()
                .request(self.log.load_full(), self.this());
        }
        if after.moved || after.high_watermark_moved {
            self.listeners.tell(self.tp, after.high_watermark_moved);
        }
        if let Some(change) = after.propose {
            self.propose(change);
        }
    }

    /// Asks the controller for a change of the ISR, and takes its answer.
    fn propose(&self, change: AlterIsr) {
        let joins = self
            .core
            .lock()
            .state
            .leader()
            .is_ok_and(|leader| change.new_isr.len() > leader.isr().committed().len());
        let metric = if joins {
            metric_names::ISR_EXPANDS
        } else {
            metric_names::ISR_SHRINKS
        };
        metrics::counter!(metric).increment(1);
        tracing::info!(topic = %self.topic, partition = %self.tp.partition, ?change, "proposing an ISR change");
        let answer = self.shared.isr_channel.propose(self.tp, change.clone());
        let partition = self.this();
        self.shared.runtime.spawn(async move {
            let outcome = answer.await;
            if let Err(error) = &outcome {
                tracing::info!(topic = %partition.topic, partition = %partition.tp.partition, %error, "ISR change not made");
            }
            let mut after = After::default();
            partition.core.lock().event(&partition, &mut after, |state, facts| {
                state.on_alter_isr_result(&change, outcome, facts)
            });
            partition.carry_out(after);
        });
    }

    /// Time has passed: lag, retries, flushes that are due by time.
    pub(crate) fn tick(&self) {
        self.storage_failed_if_dead();
        let mut after = After::default();
        {
            let mut core = self.core.lock();
            core.event(self, &mut after, PartitionState::on_tick);
            // A flush that failed for want of space or descriptors is tried again.
            after.flush = core.durable < core.end;
        }
        self.carry_out(after);
    }

    /// Is told of every move of the partition: its log end, durable offset, high watermark, role.
    pub fn subscribe_append(&self, listener: Arc<dyn ProgressListener>) -> Subscription {
        self.listeners.subscribe(Interest::AnyMove, listener)
    }

    /// Is told when the high watermark or the role changes: what a waiting fetch waits for.
    pub fn subscribe_high_watermark(&self, listener: Arc<dyn ProgressListener>) -> Subscription {
        self.listeners.subscribe(Interest::HighWatermark, listener)
    }
}

impl FlushListener for Partition {
    fn flushed(&self, result: Result<Offset, FlushFailed>) {
        if let Err(FlushFailed::Storage(error)) = &result
            && matches!(**error, StorageError::Closed { .. })
        {
            // The log that the replica has moved away from; what was in it is durable in the other one.
            tracing::debug!(topic = %self.topic, partition = %self.tp.partition, "a flush came too late");
        } else if let Err(error) = result {
            tracing::error!(topic = %self.topic, partition = %self.tp.partition, %error, "flush failed");
            self.storage_failed_if_dead();
            return;
        }
        let mut after = After::default();
        {
            let mut core = self.core.lock();
            core.durable_moved(&self.log.load(), &mut after);
            core.event(self, &mut after, PartitionState::on_log_progress);
        }
        self.carry_out(after);
    }
}
