//! What has happened so far, as far as invariants need it, and the first one that broke.

use std::collections::BTreeMap;

use protocol::{LeaderEpoch, Offset, TopicPartition};

use crate::counts::Counts;
use crate::disk::{Log, Record};
use crate::message::Node;

/// An invariant that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{invariant} at {at} ms: {what}")]
pub struct Violation {
    /// Its name, as in the literature where it has one.
    pub invariant: &'static str,
    /// When, in virtual milliseconds.
    pub at: u64,
    /// What was found.
    pub what: String,
}

/// What is remembered of one partition.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// Everything that any replica has called committed.
    pub(crate) committed: Vec<Record>,
    /// What each leader epoch wrote where, with the epoch before it.
    pub(crate) written: BTreeMap<(LeaderEpoch, usize), (i64, Option<LeaderEpoch>)>,
    /// Who led in each epoch: node and run.
    pub(crate) leaders: BTreeMap<LeaderEpoch, (Node, u64)>,
    /// The high watermark that each leadership has reached.
    pub(crate) high_watermarks: BTreeMap<LeaderEpoch, Offset>,
    /// Acknowledged values by offset.
    pub(crate) acknowledged: BTreeMap<Offset, i64>,
    /// Values that their leaders alone have acknowledged.
    pub(crate) by_leader: BTreeMap<(LeaderEpoch, Offset), i64>,
    /// How far the sequences of idempotent producers were compared, and what was each one's last.
    pub(crate) sequences: (usize, BTreeMap<i64, i32>),
}

#[derive(Debug, Default)]
pub(crate) struct Checker {
    pub(crate) histories: BTreeMap<TopicPartition, History>,
    pub(crate) broken: Option<(&'static str, String)>,
    pub(crate) counts: Counts,
}

impl Checker {
    pub(crate) fn fail(&mut self, invariant: &'static str, what: String) {
        self.broken.get_or_insert((invariant, what));
    }

    pub(crate) fn history(&mut self, tp: TopicPartition) -> &mut History {
        self.histories.entry(tp).or_default()
    }

    /// A record is about to be appended to `log`.
    pub(crate) fn appended(&mut self, tp: TopicPartition, log: &Log, record: Record) {
        let at = log.records.len();
        let before = log.records.last().map(|record| record.epoch);
        let known = *self
            .history(tp)
            .written
            .entry((record.epoch, at))
            .or_insert((record.value, before));
        if known != (record.value, before) {
            self.fail(
                "LogMatching",
                format!("{tp} offset {at}: {record:?} after {before:?}, written was {known:?}"),
            );
        }
    }

    pub(crate) fn acknowledged(&mut self, tp: TopicPartition, at: Offset, value: i64) {
        self.counts.acknowledgements += 1;
        let before = self.history(tp).acknowledged.insert(at, value);
        if let Some(before) = before.filter(|before| *before != value) {
            self.fail(
                "InconsistentOffsets",
                format!("{tp} offset {at} was acknowledged for {before} and for {value}"),
            );
        }
    }

    /// A record is acknowledged that only its leader is known to have (`acks=1`).
    pub(crate) fn acknowledged_by_leader(&mut self, tp: TopicPartition, record: Record, at: Offset) {
        self.counts.acknowledgements_by_leader += 1;
        let history = self.history(tp);
        history.by_leader.insert((record.epoch, at), record.value);
    }

    /// A replica begins to lead.
    pub(crate) fn leads(&mut self, tp: TopicPartition, epoch: LeaderEpoch, node: Node, run: u64) {
        self.counts.elections += 1;
        let known = *self.history(tp).leaders.entry(epoch).or_insert((node, run));
        if known != (node, run) {
            self.fail(
                "OneLeaderPerEpoch",
                format!("{tp} epoch {epoch}: {known:?} and {:?}", (node, run)),
            );
        }
    }
}
