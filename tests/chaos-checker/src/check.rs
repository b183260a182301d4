//! The rules: a history in, every anomaly out, each with what one needs to look for it in the logs.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Serialize;

use crate::{
    anomaly::Anomaly,
    compacted::{self, KeyCounts},
    history::{Entry, Event, Outcome, Partition, Process, Value},
    partition_log::PartitionLog,
};

/// What becomes of an anomaly that some clients may cause themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is an anomaly.
    Forbidden,
    /// It is told, and is no failure.
    Counted,
}

/// What the producers of a history promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// One value at two offsets: forbidden with idempotence (unless the producer gave a record up), a
    /// retry's ordinary effect without.
    pub duplicates: Verdict,
    /// Acknowledgements out of the order of sending: likewise.
    pub reordered_sends: Verdict,
    /// Deleted keys that are there again. Forbidden, unless a replica was away for longer than tombstones
    /// are kept (`delete.retention.ms`): it never hears of those that went meanwhile.
    pub resurrections: Verdict,
}

impl Rules {
    /// For histories of idempotent producers.
    pub const IDEMPOTENT: Self = Self {
        duplicates: Verdict::Forbidden,
        reordered_sends: Verdict::Forbidden,
        resurrections: Verdict::Forbidden,
    };
    /// For histories of producers without idempotence.
    pub const AT_LEAST_ONCE: Self = Self {
        duplicates: Verdict::Counted,
        reordered_sends: Verdict::Counted,
        resurrections: Verdict::Forbidden,
    };

    fn verdict(self, anomaly: &Anomaly) -> Verdict {
        match anomaly {
            Anomaly::Duplicate { .. } => self.duplicates,
            Anomaly::NonmonotonicSend { .. } => self.reordered_sends,
            Anomaly::KeyWentBack { from, to, .. } if from == to => self.duplicates,
            Anomaly::KeyWentBack { .. } => self.reordered_sends,
            Anomaly::KeyResurrected { .. } => self.resurrections,
            // One that has forgotten the key, and one that has not.
            Anomaly::KeyDiverged { versions, .. }
                if versions.iter().any(|(_, version)| version.is_none()) =>
            {
                self.resurrections
            }
            _ => Verdict::Forbidden,
        }
    }
}

/// How much a history holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Values sent.
    pub sent: usize,
    /// Values acknowledged.
    pub acknowledged: usize,
    /// Values refused for good.
    pub refused: usize,
    /// Values of which nobody knows, those without any answer included.
    pub unknown: usize,
    /// Records given to readers before the end.
    pub polled: usize,
    /// Records that were there at the end.
    pub at_the_end: usize,
}

/// What came out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// How much there was to judge.
    pub counts: Counts,
    /// The same of the compacted topic.
    pub keys: KeyCounts,
    /// What must not be.
    pub anomalies: Vec<Anomaly>,
    /// What [`Rules`] allow, and what one may want to know of.
    pub counted: Vec<Anomaly>,
}

impl Report {
    /// How often each kind of anomaly was found.
    pub fn by_kind(&self) -> BTreeMap<&'static str, usize> {
        by_kind(&self.anomalies)
    }

    /// How often each kind was found where the producers may have caused it.
    pub fn counted_by_kind(&self) -> BTreeMap<&'static str, usize> {
        by_kind(&self.counted)
    }

    /// Whether an acknowledged record, or one that was shown to a reader, is gone.
    pub fn has_loss(&self) -> bool {
        self.anomalies.iter().any(Anomaly::is_loss)
    }
}

fn by_kind(anomalies: &[Anomaly]) -> BTreeMap<&'static str, usize> {
    let mut kinds = BTreeMap::new();
    for anomaly in anomalies {
        *kinds.entry(anomaly.kind()).or_default() += 1;
    }
    kinds
}

/// Judges a history.
pub fn check(history: &[Entry], rules: Rules) -> Report {
    let logs = gather(history);
    let mut found = Vec::new();
    for (&partition, log) in &logs {
        values(partition, log, &mut found);
        places(partition, log, &mut found);
        sends(partition, log, &mut found);
    }
    polls(history, &logs, &mut found);
    let renewed = renewed(history);
    let mut compacted = compacted::check(history, &renewed);
    found.append(&mut compacted.found);
    let values_renewed = values_of(history, &renewed);
    let (anomalies, mut counted): (Vec<_>, Vec<_>) = found.into_iter().partition(|anomaly| {
        rules.verdict(anomaly) == Verdict::Forbidden && !excused(anomaly, &values_renewed)
    });
    counted.append(&mut compacted.excused);
    Report {
        counts: count(history, &logs),
        keys: compacted.counts,
        anomalies,
        counted,
    }
}

/// How librdkafka says that it gave a record up on its own.
const TIMED_OUT: &str = "MessageTimedOut";

/// Every process that gave a record up: it was refused for good, or its time was up at the client. librdkafka
/// then gives the producer a new epoch, and with it new sequences to batches that are still to be sent again,
/// on every partition: in the new epoch no broker can know them as the duplicates that they may be.
fn renewed(history: &[Entry]) -> BTreeSet<Process> {
    let gave_up = |outcome: &Outcome| match outcome {
        Outcome::Refused { .. } => true,
        Outcome::Unknown { error } => error.contains(TIMED_OUT),
        Outcome::Acknowledged { .. } => false,
    };
    history
        .iter()
        .filter(|entry| match &entry.event {
            Event::Answered { outcome, .. } | Event::KeyAnswered { outcome, .. } => gave_up(outcome),
            _ => false,
        })
        .map(|entry| entry.process)
        .collect()
}

/// The values that these processes sent.
fn values_of(history: &[Entry], processes: &BTreeSet<Process>) -> BTreeSet<Value> {
    history
        .iter()
        .filter(|entry| processes.contains(&entry.process))
        .filter_map(|entry| match entry.event {
            Event::Invoked { value, .. } => Some(value),
            _ => None,
        })
        .collect()
}

/// A duplicate that its own producer may have caused; it is counted.
fn excused(anomaly: &Anomaly, values_renewed: &BTreeSet<Value>) -> bool {
    matches!(anomaly, Anomaly::Duplicate { value, .. } if values_renewed.contains(value))
}

fn gather(history: &[Entry]) -> BTreeMap<Partition, PartitionLog> {
    let mut logs: BTreeMap<Partition, PartitionLog> = BTreeMap::new();
    for entry in history {
        match &entry.event {
            Event::Invoked { partition, value } => {
                logs.entry(*partition).or_default().invoked(entry.process, *value);
            }
            Event::Answered {
                partition,
                value,
                outcome,
            } => logs.entry(*partition).or_default().answered(*value, outcome),
            Event::Polled { partition, records } => logs.entry(*partition).or_default().read(records),
            Event::FinalRead { partition, records } => {
                logs.entry(*partition).or_default().final_read(records);
            }
            // The compacted topic has rules of its own.
            _ => {}
        }
    }
    logs
}

fn count(history: &[Entry], logs: &BTreeMap<Partition, PartitionLog>) -> Counts {
    let mut counts = Counts::default();
    for outcome in logs.values().flat_map(|log| log.sends.values()) {
        counts.sent += 1;
        match outcome {
            Some(Outcome::Acknowledged { .. }) => counts.acknowledged += 1,
            Some(Outcome::Refused { .. }) => counts.refused += 1,
            Some(Outcome::Unknown { .. }) | None => counts.unknown += 1,
        }
    }
    for entry in history {
        match &entry.event {
            Event::Polled { records, .. } => counts.polled += records.len(),
            Event::FinalRead { records, .. } => counts.at_the_end += records.len(),
            _ => {}
        }
    }
    counts
}

/// What became of each value that was sent.
fn values(partition: Partition, log: &PartitionLog, found: &mut Vec<Anomaly>) {
    if log.at_the_end.is_none() {
        found.push(Anomaly::NoFinalRead { partition });
    }
    let read_up_to = log.read_up_to();
    let mut lost = Vec::new();
    for (&value, outcome) in &log.sends {
        let read_at = log
            .read_at
            .get(&value)
            .and_then(|offsets| offsets.last().copied());
        match (outcome, read_at) {
            (Some(Outcome::Refused { .. }), Some(offset)) => lost.push(Anomaly::AbortedRead {
                partition,
                value,
                offset,
            }),
            // Whoever was given it proves that it was committed, whatever its sender was told.
            (_, Some(offset)) => {
                if log.at_the_end.as_ref().is_some_and(|end| !end.contains(&value)) {
                    lost.push(Anomaly::Vanished {
                        partition,
                        value,
                        offset,
                    });
                }
            }
            (Some(Outcome::Acknowledged { offset }), None) => {
                lost.push(match (offset, read_up_to) {
                    (&Some(offset), Some(read_up_to)) if offset <= read_up_to => Anomaly::LostWrite {
                        partition,
                        value,
                        offset,
                        read_up_to,
                    },
                    _ => Anomaly::Unseen {
                        partition,
                        value,
                        offset: *offset,
                    },
                });
            }
            (_, None) => {}
        }
    }
    for (&value, offsets) in &log.read_at {
        if !log.sends.contains_key(&value) {
            let offset = *offsets.first().expect("a value that was read was read somewhere");
            lost.push(Anomaly::Phantom {
                partition,
                value,
                offset,
            });
        }
    }
    // Hash maps have no order; a report has one.
    lost.sort();
    found.append(&mut lost);
}

/// One offset a value, one value an offset.
fn places(partition: Partition, log: &PartitionLog, found: &mut Vec<Anomaly>) {
    for (&offset, values) in log.offsets.iter().filter(|(_, values)| values.len() > 1) {
        found.push(Anomaly::InconsistentOffset {
            partition,
            offset,
            values: values.iter().copied().collect(),
        });
    }
    let mut duplicates: Vec<_> = log
        .places
        .iter()
        .filter(|(_, offsets)| offsets.len() > 1)
        .map(|(&value, offsets)| Anomaly::Duplicate {
            partition,
            value,
            offsets: offsets.iter().copied().collect(),
        })
        .collect();
    duplicates.sort();
    found.append(&mut duplicates);
}

/// What one process sends one after the other lies one after the other.
fn sends(partition: Partition, log: &PartitionLog, found: &mut Vec<Anomaly>) {
    for (&process, values) in &log.sent_by {
        let acknowledged: Vec<i64> = values
            .iter()
            .filter_map(|&value| log.acknowledged_at(value))
            .collect();
        for pair in acknowledged.windows(2).filter(|pair| pair[1] <= pair[0]) {
            found.push(Anomaly::NonmonotonicSend {
                partition,
                process,
                from: pair[0],
                to: pair[1],
            });
        }
    }
}

/// Readers are given every record, in order. Offsets that nobody ever saw (control records, what
/// compaction took) count as no record: positions are ranks among the offsets that are known.
fn polls(history: &[Entry], logs: &BTreeMap<Partition, PartitionLog>, found: &mut Vec<Anomaly>) {
    let ranks: BTreeMap<Partition, HashMap<i64, usize>> = logs
        .iter()
        .map(|(&partition, log)| {
            let ranks = log
                .offsets
                .keys()
                .enumerate()
                .map(|(rank, &offset)| (offset, rank));
            (partition, ranks.collect())
        })
        .collect();
    let mut positions: HashMap<(Process, Partition), i64> = HashMap::new();
    for entry in history {
        let process = entry.process;
        let (partition, records) = match &entry.event {
            Event::Assigned { partition } => {
                positions.remove(&(process, *partition));
                continue;
            }
            Event::FinalRead { partition, records } => {
                positions.remove(&(process, *partition));
                (*partition, records)
            }
            Event::Polled { partition, records } => (*partition, records),
            _ => continue,
        };
        let ranks = &ranks[&partition];
        for &(to, _) in records {
            let Some(from) = positions.insert((process, partition), to) else {
                continue;
            };
            if to <= from {
                found.push(Anomaly::NonmonotonicPoll {
                    partition,
                    process,
                    from,
                    to,
                });
            } else if ranks[&to] - ranks[&from] > 1 {
                found.push(Anomaly::PollSkip {
                    partition,
                    process,
                    from,
                    to,
                    missed: ranks[&to] - ranks[&from] - 1,
                });
            }
        }
    }
}
