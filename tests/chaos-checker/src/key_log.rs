//! One partition of the compacted topic as the history shows it: which writes of which keys there were, where
//! they were seen, and what each holder has at the end.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{Holder, Key, KeyRecord, Outcome, Process, Version};

/// A write, and how its sending ended; no outcome while it has not.
#[derive(Clone, Debug)]
pub(crate) struct KeySend {
    pub(crate) process: Process,
    pub(crate) tombstone: bool,
    pub(crate) outcome: Option<Outcome>,
}

impl KeySend {
    /// Nobody knows whether it is there: it may also come late.
    pub(crate) const fn is_open(&self) -> bool {
        matches!(self.outcome, Some(Outcome::Unknown { .. }) | None)
    }

    pub(crate) const fn is_refused(&self) -> bool {
        matches!(self.outcome, Some(Outcome::Refused { .. }))
    }
}

/// What a history says about one partition of the compacted topic.
#[derive(Debug, Default)]
pub(crate) struct KeyLog {
    /// Every write that was sent.
    pub(crate) sends: BTreeMap<Key, BTreeMap<Version, KeySend>>,
    /// Every offset that was acknowledged or read, with all that it held.
    pub(crate) offsets: BTreeMap<i64, BTreeSet<(Key, Version)>>,
    /// Where clients know each key's writes to be: they were acknowledged there, or given to a reader.
    pub(crate) known: BTreeMap<Key, BTreeMap<i64, Version>>,
    /// The last write of each key that was acknowledged by somebody who did not say where.
    pub(crate) known_somewhere: BTreeMap<Key, Version>,
    /// All that was read, with its offset.
    pub(crate) read: BTreeSet<(Key, Version, bool, i64)>,
    /// What each holder has at the end.
    pub(crate) at_the_end: BTreeMap<Holder, BTreeMap<i64, KeyRecord>>,
}

impl KeyLog {
    pub(crate) fn invoked(&mut self, process: Process, key: Key, version: Version, tombstone: bool) {
        let send = KeySend {
            process,
            tombstone,
            outcome: None,
        };
        self.sends.entry(key).or_default().insert(version, send);
    }

    pub(crate) fn answered(&mut self, key: Key, version: Version, outcome: &Outcome) {
        if let Some(send) = self.sends.get_mut(&key).and_then(|sends| sends.get_mut(&version)) {
            send.outcome = Some(outcome.clone());
        }
        match *outcome {
            Outcome::Acknowledged { offset: Some(offset) } => self.know(key, version, offset),
            Outcome::Acknowledged { offset: None } => {
                let last = self.known_somewhere.entry(key).or_insert(version);
                *last = version.max(*last);
            }
            Outcome::Refused { .. } | Outcome::Unknown { .. } => {}
        }
    }

    pub(crate) fn polled(&mut self, records: &[KeyRecord]) {
        for record in records {
            self.know(record.key, record.version, record.offset);
            self.read(record);
        }
    }

    pub(crate) fn held_at_the_end(&mut self, holder: Holder, records: &[KeyRecord]) {
        for record in records {
            self.read(record);
        }
        let held = self.at_the_end.entry(holder).or_default();
        held.extend(records.iter().map(|&record| (record.offset, record)));
    }

    pub(crate) fn send(&self, key: Key, version: Version) -> Option<&KeySend> {
        self.sends.get(&key)?.get(&version)
    }

    /// The acknowledged writes behind which there is another acknowledged one of the same key, by offset.
    pub(crate) fn superseded(&self) -> BTreeSet<i64> {
        self.known
            .values()
            .flat_map(|places| places.keys().rev().skip(1).copied())
            .collect()
    }

    fn know(&mut self, key: Key, version: Version, offset: i64) {
        self.place(key, version, offset);
        self.known.entry(key).or_default().insert(offset, version);
    }

    fn read(&mut self, record: &KeyRecord) {
        self.place(record.key, record.version, record.offset);
        self.read
            .insert((record.key, record.version, record.tombstone, record.offset));
    }

    fn place(&mut self, key: Key, version: Version, offset: i64) {
        self.offsets.entry(offset).or_default().insert((key, version));
    }
}
