//! What a leader does with a client's write, and when it answers: the shell of `replication::Partition`
//! around `PartitionState` and `storage::ProducerState`.

use protocol::{LeaderEpoch, Offset, TopicPartition};
use storage::producers::SequenceCheck;

use crate::broker::{Broker, Replica};
use crate::context::Context;
use crate::disk::Record;
use crate::message::{Conn, Message, Node};
use crate::settings::Mutation;

/// What must be true before a write is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Acks {
    /// `acks=1`: durable at the leader.
    Leader,
    /// `acks=all`: committed.
    All,
}

/// A write that is in the log and was not answered yet.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    record: Record,
    at: Offset,
    pub(crate) acks: Acks,
    /// Where the answer goes, if its client is one that listens.
    answer: Option<(Conn, Node)>,
}

impl Replica {
    /// Answers everybody who waits for no more than this: the high watermark, or the durable end.
    pub(crate) fn release(
        &mut self,
        me: Node,
        tp: TopicPartition,
        acks: Acks,
        to: Offset,
        context: &mut Context,
    ) {
        let all = std::mem::take(&mut self.waiting);
        let (done, waiting): (Vec<_>, _) = all
            .into_iter()
            .partition(|waiting| waiting.acks == acks && waiting.at < to);
        self.waiting = waiting;
        for waiting in done {
            waiting.acknowledge(me, tp, context);
        }
    }

    /// Answers that these writes were not acknowledged: whether they will be committed is not known.
    pub(crate) fn reject(&mut self, me: Node, these: impl Fn(&Waiting) -> bool, context: &mut Context) {
        let all = std::mem::take(&mut self.waiting);
        let (rejected, waiting): (Vec<_>, _) = all.into_iter().partition(these);
        self.waiting = waiting;
        for waiting in rejected {
            waiting.answer(me, None, context);
        }
    }
}

impl Waiting {
    fn acknowledge(&self, me: Node, tp: TopicPartition, context: &mut Context) {
        match self.acks {
            Acks::All => context.checker.acknowledged(tp, self.at, self.record.value),
            Acks::Leader => context.checker.acknowledged_by_leader(tp, self.record, self.at),
        }
        self.answer(me, Some(self.at), context);
    }

    fn answer(&self, me: Node, at: Option<Offset>, context: &mut Context) {
        if let (Some((conn, client)), Some((_, sequence))) = (self.answer, self.record.sequence) {
            context.send(me, conn, client, Message::Produced(sequence, at));
        }
    }
}

impl Broker {
    /// The epoch in which this broker takes writes of these `acks`, if it does.
    fn takes(&self, tp: TopicPartition, acks: Acks) -> Option<LeaderEpoch> {
        let state = &self.process.as_ref()?.replicas.get(&tp)?.state;
        let epoch = state.check_append(None).ok().filter(|_| !self.is_held(tp))?;
        (acks == Acks::Leader || !state.is_under_min_isr()).then_some(epoch)
    }

    /// A write of a client that does not wait for the answer.
    pub(crate) fn produce(&mut self, tp: TopicPartition, value: i64, acks: Acks, context: &mut Context) {
        if let Some(epoch) = self.takes(tp, acks) {
            let record = Record {
                epoch,
                value,
                sequence: None,
            };
            self.append_as_leader(tp, record, acks, None, context);
        }
    }

    /// A write of an idempotent producer, which waits for the answer and may ask again.
    pub(crate) fn produce_in_sequence(
        &mut self,
        (conn, from): (Conn, Node),
        tp: TopicPartition,
        (producer, sequence): (i64, i32),
        value: i64,
        context: &mut Context,
    ) {
        let refusal = Message::Produced(sequence, None);
        let (Some(epoch), Some(log)) = (self.takes(tp, Acks::All), self.disk.logs.get(&tp)) else {
            return context.send(self.id, conn, from, refusal);
        };
        let record = Record {
            epoch,
            value,
            sequence: Some((producer, sequence)),
        };
        let check = if context.is(Mutation::ForgetsSequences) {
            Ok(SequenceCheck::New)
        } else {
            log.producers.check(&record.header(log.end()))
        };
        match check {
            Ok(SequenceCheck::New) => {
                self.append_as_leader(tp, record, Acks::All, Some((conn, from)), context);
            }
            Ok(SequenceCheck::Duplicate { first_offset, .. }) => {
                context.checker.counts.duplicates += 1;
                let waiting = Waiting {
                    record,
                    at: first_offset,
                    acks: Acks::All,
                    answer: Some((conn, from)),
                };
                let me = self.id;
                let process = self.process.as_mut();
                if let Some(replica) = process.and_then(|process| process.replicas.get_mut(&tp)) {
                    replica.waiting.push(waiting);
                    let committed = replica.state.high_watermark();
                    replica.release(me, tp, Acks::All, committed, context);
                }
            }
            Err(_) => context.send(self.id, conn, from, refusal),
        }
    }

    fn append_as_leader(
        &mut self,
        tp: TopicPartition,
        record: Record,
        acks: Acks,
        answer: Option<(Conn, Node)>,
        context: &mut Context,
    ) {
        let Some(process) = &mut self.process else { return };
        let (Some(replica), Some(log)) = (process.replicas.get_mut(&tp), self.disk.logs.get_mut(&tp)) else {
            return;
        };
        context.checker.appended(tp, log, record);
        replica.waiting.push(Waiting {
            record,
            at: log.end(),
            acks,
            answer,
        });
        log.push(record);
        process.moved.insert(tp);
        self.event(tp, context, |state, _, facts| state.on_log_progress(facts));
        self.flush(tp, context);
        self.pump(context);
    }

    /// A flush has ended: what is durable here is acknowledged to those who asked for no more.
    pub(crate) fn release_durable(&mut self, tp: TopicPartition, context: &mut Context) {
        let me = self.id;
        let (Some(process), Some(log)) = (&mut self.process, self.disk.logs.get(&tp)) else {
            return;
        };
        let Some(replica) = process.replicas.get_mut(&tp).filter(|r| r.state.leader().is_ok()) else {
            return;
        };
        let durable = log.view(self.pretends).durable;
        replica.release(me, tp, Acks::Leader, durable, context);
        if context.is(Mutation::AcksAlone) {
            replica.release(me, tp, Acks::All, durable, context);
        }
    }
}
