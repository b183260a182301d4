//! One partition as the history shows it: which values were seen at which offsets, and by whom.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::history::{Outcome, Process, Value};

/// What a history says about one partition.
#[derive(Debug, Default)]
pub(crate) struct PartitionLog {
    /// Every offset that was acknowledged or read, with all that it held.
    pub(crate) offsets: BTreeMap<i64, BTreeSet<Value>>,
    /// The same, the other way round.
    pub(crate) places: HashMap<Value, BTreeSet<i64>>,
    /// How each value's sending ended; `None` while it has not.
    pub(crate) sends: HashMap<Value, Option<Outcome>>,
    /// Each process's values in the order of sending.
    pub(crate) sent_by: BTreeMap<Process, Vec<Value>>,
    /// Offsets at which each value was read.
    pub(crate) read_at: HashMap<Value, BTreeSet<i64>>,
    /// What was there at the end, once somebody looked.
    pub(crate) at_the_end: Option<HashSet<Value>>,
}

impl PartitionLog {
    pub(crate) fn invoked(&mut self, process: Process, value: Value) {
        self.sends.insert(value, None);
        self.sent_by.entry(process).or_default().push(value);
    }

    pub(crate) fn answered(&mut self, value: Value, outcome: &Outcome) {
        if let Outcome::Acknowledged { offset: Some(offset) } = outcome {
            self.place(value, *offset);
        }
        self.sends.insert(value, Some(outcome.clone()));
    }

    pub(crate) fn read(&mut self, records: &[(i64, Value)]) {
        for &(offset, value) in records {
            self.place(value, offset);
            self.read_at.entry(value).or_default().insert(offset);
        }
    }

    pub(crate) fn final_read(&mut self, records: &[(i64, Value)]) {
        self.read(records);
        self.at_the_end
            .get_or_insert_default()
            .extend(records.iter().map(|&(_, value)| value));
    }

    /// The highest offset that anybody was given.
    pub(crate) fn read_up_to(&self) -> Option<i64> {
        self.read_at
            .values()
            .filter_map(|offsets| offsets.last().copied())
            .max()
    }

    /// The offset of an acknowledged value, for processes that were told.
    pub(crate) fn acknowledged_at(&self, value: Value) -> Option<i64> {
        match self.sends.get(&value) {
            Some(Some(Outcome::Acknowledged { offset })) => *offset,
            _ => None,
        }
    }

    fn place(&mut self, value: Value, offset: i64) {
        self.offsets.entry(offset).or_default().insert(value);
        self.places.entry(value).or_default().insert(offset);
    }
}
