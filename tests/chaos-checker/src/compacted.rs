//! The rules of a compacted topic: of each key, the last write counts, and it is never taken back.
//!
//! Offsets say which write is the last, since those that were acknowledged or read have one. A write of which
//! nobody knows may be there or not; after its process has ended it may even arrive behind those of the
//! process that took the key over. What compaction takes when is its own affair: any write behind which there
//! is another of its key may be gone or not, and so may a tombstone.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Serialize;

use crate::{
    anomaly::Anomaly,
    history::{Entry, Event, Holder, Key, KeyRecord, Outcome, Partition, Process, Version},
    key_log::{KeyLog, KeySend},
};

/// How much a history holds of a compacted topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct KeyCounts {
    /// Keys that were written.
    pub keys: usize,
    /// Writes sent.
    pub sent: usize,
    /// Tombstones among them.
    pub tombstones: usize,
    /// Writes acknowledged.
    pub acknowledged: usize,
    /// Writes of which nobody knows.
    pub unknown: usize,
    /// Records given to readers before the end.
    pub polled: usize,
    /// Records that clients were given at the end.
    pub at_the_end: usize,
    /// Keys that have a value for clients at the end.
    pub live: usize,
    /// Acknowledged tombstones that were their key's last write and of which clients were given nothing at
    /// the end: their time was over.
    pub tombstones_gone: usize,
}

/// What came out.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) counts: KeyCounts,
    pub(crate) found: Vec<Anomaly>,
    /// What a producer may have caused itself, or a write that came late.
    pub(crate) excused: Vec<Anomaly>,
}

/// Judges what a history says of the compacted topic. `renewed` are the processes that gave a record up.
pub(crate) fn check(history: &[Entry], renewed: &BTreeSet<Process>) -> Findings {
    let logs = gather(history);
    let mut findings = Findings::default();
    for (&partition, log) in &logs {
        let judge = Judge {
            partition,
            log,
            renewed,
        };
        judge.reads(&mut findings.found);
        judge.order(&mut findings);
        judge.ends(&mut findings.found);
        judge.agreement(&mut findings.found);
        judge.cleaning(&mut findings.found);
    }
    polls(history, &logs, &mut findings.found);
    findings.counts = count(history, &logs);
    findings
}

fn gather(history: &[Entry]) -> BTreeMap<Partition, KeyLog> {
    let mut logs: BTreeMap<Partition, KeyLog> = BTreeMap::new();
    for entry in history {
        match &entry.event {
            &Event::KeyInvoked {
                partition,
                key,
                version,
                tombstone,
            } => {
                let log = logs.entry(partition).or_default();
                log.invoked(entry.process, key, version, tombstone);
            }
            Event::KeyAnswered {
                partition,
                key,
                version,
                outcome,
            } => logs
                .entry(*partition)
                .or_default()
                .answered(*key, *version, outcome),
            Event::KeysPolled { partition, records } => logs.entry(*partition).or_default().polled(records),
            Event::KeysAtTheEnd {
                partition,
                holder,
                records,
            } => logs
                .entry(*partition)
                .or_default()
                .held_at_the_end(*holder, records),
            _ => {}
        }
    }
    logs
}

/// The last write of a key that is known to have happened.
#[derive(Clone, Copy, Debug)]
struct Known {
    version: Version,
    /// Where, if anybody was told.
    offset: Option<i64>,
}

/// One partition, with what its rules need.
struct Judge<'a> {
    partition: Partition,
    log: &'a KeyLog,
    renewed: &'a BTreeSet<Process>,
}

impl Judge<'_> {
    /// Only what was sent is read, and an offset has one record.
    fn reads(&self, found: &mut Vec<Anomaly>) {
        for &(key, version, tombstone, offset) in &self.log.read {
            let sent = |send: &KeySend| send.tombstone == tombstone && !send.is_refused();
            if !self.log.send(key, version).is_some_and(sent) {
                found.push(Anomaly::KeyPhantom {
                    partition: self.partition,
                    key,
                    version,
                    offset,
                });
            }
        }
        for (&offset, held) in self.log.offsets.iter().filter(|(_, held)| held.len() > 1) {
            found.push(Anomaly::KeyOffset {
                partition: self.partition,
                offset,
                held: held.iter().copied().collect(),
            });
        }
    }

    /// Along the offsets, those that compaction took included, each key's versions rise.
    fn order(&self, findings: &mut Findings) {
        let mut highest: BTreeMap<Key, BTreeMap<Process, (Version, i64)>> = BTreeMap::new();
        for (&offset, held) in &self.log.offsets {
            for &(key, version) in held {
                // What nobody sent is told elsewhere.
                let Some(send) = self.log.send(key, version) else {
                    continue;
                };
                let highest = highest.entry(key).or_default();
                let in_front = highest
                    .iter()
                    .filter(|(_, (in_front, _))| *in_front >= version)
                    // Its own process's is the one that has fewer excuses.
                    .max_by_key(|(process, _)| **process == send.process)
                    .map(|(&process, &(version, offset))| (process, version, offset));
                if let Some((process, from, from_at)) = in_front {
                    let late = process != send.process && send.is_open();
                    let went_back = Anomaly::KeyWentBack {
                        partition: self.partition,
                        key,
                        from,
                        from_at,
                        to: version,
                        to_at: offset,
                    };
                    if late || self.renewed.contains(&send.process) {
                        findings.excused.push(went_back);
                    } else {
                        findings.found.push(went_back);
                    }
                }
                let own = highest.entry(send.process).or_insert((version, offset));
                *own = (*own).max((version, offset));
            }
        }
    }

    /// At the end each holder has each key as it was last written, or as somebody wrote it later of whom
    /// nobody knows.
    fn ends(&self, found: &mut Vec<Anomaly>) {
        for (&holder, records) in &self.log.at_the_end {
            let last = last_of_each_key(records);
            for &key in self.log.sends.keys() {
                let last = last.get(&key);
                let broken = self
                    .last_known(key)
                    .into_iter()
                    .find(|&known| !last.is_some_and(|last| self.is_no_older(last, known)));
                let Some(Known { version, offset }) = broken else {
                    continue;
                };
                let partition = self.partition;
                match last.filter(|last| !last.tombstone) {
                    Some(last) => {
                        let deleted = self.log.send(key, version).is_some_and(|send| send.tombstone);
                        let (found_version, found_at) = (last.version, last.offset);
                        found.push(if deleted {
                            Anomaly::KeyResurrected {
                                partition,
                                holder,
                                key,
                                found: found_version,
                                found_at,
                                version,
                                offset,
                            }
                        } else {
                            Anomaly::KeyStale {
                                partition,
                                holder,
                                key,
                                found: found_version,
                                found_at,
                                version,
                                offset,
                            }
                        });
                    }
                    None if self.may_be_deleted(key, version) => {}
                    None => found.push(Anomaly::KeyLost {
                        partition,
                        holder,
                        key,
                        version,
                        offset,
                    }),
                }
            }
        }
        let is_replica = |holder: &Holder| matches!(holder, Holder::Replica(_));
        let mut missing = Vec::new();
        if !self.log.at_the_end.contains_key(&Holder::Clients) {
            missing.push("clients");
        }
        if !self.log.at_the_end.keys().any(is_replica) {
            missing.push("replicas");
        }
        found.extend(missing.into_iter().map(|missing| Anomaly::KeyNoFinalRead {
            partition: self.partition,
            missing,
        }));
    }

    /// The last write of a key that has an offset, and the last one that was acknowledged without.
    fn last_known(&self, key: Key) -> Vec<Known> {
        let placed = self.log.known.get(&key).and_then(BTreeMap::last_key_value);
        let placed = placed.map(|(&offset, &version)| Known {
            version,
            offset: Some(offset),
        });
        let somewhere = self.log.known_somewhere.get(&key).map(|&version| Known {
            version,
            offset: None,
        });
        placed.into_iter().chain(somewhere).collect()
    }

    /// Whether a record may stand for its key although that write happened.
    fn is_no_older(&self, last: &KeyRecord, known: Known) -> bool {
        match known.offset {
            Some(offset) => last.offset >= offset,
            None => {
                let excused = |send: &KeySend| send.is_open() || self.renewed.contains(&send.process);
                last.version >= known.version || self.log.send(last.key, last.version).is_some_and(excused)
            }
        }
    }

    /// Whether a key may have been deleted at or after that write.
    fn may_be_deleted(&self, key: Key, known: Version) -> bool {
        let Some(sends) = self.log.sends.get(&key) else {
            return false;
        };
        let writer = sends.get(&known).map(|send| send.process);
        sends
            .iter()
            .filter(|(_, send)| send.tombstone && !send.is_refused())
            .any(|(&version, send)| {
                let late = send.is_open() && Some(send.process) != writer;
                let later = version > known && !self.is_placed(key, version);
                version == known || late || later || self.renewed.contains(&send.process)
            })
    }

    /// Whether anybody knows where a write is.
    fn is_placed(&self, key: Key, version: Version) -> bool {
        let places = self.log.known.get(&key);
        places.is_some_and(|places| places.values().any(|&placed| placed == version))
    }

    /// Holders clean at different times, and have the same value for each key, or none.
    fn agreement(&self, found: &mut Vec<Anomaly>) {
        let lasts: Vec<_> = self
            .log
            .at_the_end
            .iter()
            .map(|(&holder, records)| (holder, last_of_each_key(records)))
            .collect();
        let keys: BTreeSet<Key> = lasts.iter().flat_map(|(_, last)| last.keys().copied()).collect();
        for key in keys {
            let versions: Vec<_> = lasts
                .iter()
                .map(|(holder, last)| {
                    let live = last.get(&key).filter(|last| !last.tombstone);
                    (*holder, live.map(|last| last.version))
                })
                .collect();
            if versions.iter().any(|(_, version)| *version != versions[0].1) {
                found.push(Anomaly::KeyDiverged {
                    partition: self.partition,
                    key,
                    versions,
                });
            }
        }
    }

    /// A log that was cleaned has lost something that it may lose.
    fn cleaning(&self, found: &mut Vec<Anomaly>) {
        let superseded = self.log.superseded();
        for (&holder, records) in &self.log.at_the_end {
            if superseded.iter().all(|offset| records.contains_key(offset)) {
                found.push(Anomaly::NotCompacted {
                    partition: self.partition,
                    holder,
                    superseded: superseded.len(),
                });
            }
        }
    }
}

fn last_of_each_key(records: &BTreeMap<i64, KeyRecord>) -> BTreeMap<Key, KeyRecord> {
    records.values().map(|&record| (record.key, record)).collect()
}

/// Readers are given records in order. Only the last value of a key is sure not to have been compacted away
/// when a reader came by: whoever passes that over was made to skip it.
fn polls(history: &[Entry], logs: &BTreeMap<Partition, KeyLog>, found: &mut Vec<Anomaly>) {
    let last_values: BTreeMap<Partition, BTreeSet<i64>> = logs
        .iter()
        .filter_map(|(&partition, log)| {
            let records = log.at_the_end.get(&Holder::Clients)?;
            let last = last_of_each_key(records);
            let values = last.values().filter(|last| !last.tombstone);
            Some((partition, values.map(|last| last.offset).collect()))
        })
        .collect();
    let mut positions: HashMap<(Process, Partition), i64> = HashMap::new();
    for entry in history {
        let process = entry.process;
        let (partition, records, polled) = match &entry.event {
            Event::KeyAssigned { partition } => {
                positions.remove(&(process, *partition));
                continue;
            }
            Event::KeysAtTheEnd {
                partition, records, ..
            } => {
                positions.remove(&(process, *partition));
                (*partition, records, false)
            }
            Event::KeysPolled { partition, records } => (*partition, records, true),
            _ => continue,
        };
        for &KeyRecord { offset: to, .. } in records {
            let Some(from) = positions.insert((process, partition), to) else {
                continue;
            };
            if to <= from {
                found.push(Anomaly::KeyThrownBack {
                    partition,
                    process,
                    from,
                    to,
                });
                continue;
            }
            let missed = last_values
                .get(&partition)
                .map_or(0, |offsets| offsets.range(from + 1..to).count());
            if polled && missed > 0 {
                found.push(Anomaly::KeySkip {
                    partition,
                    process,
                    from,
                    to,
                    missed,
                });
            }
        }
    }
}

fn count(history: &[Entry], logs: &BTreeMap<Partition, KeyLog>) -> KeyCounts {
    let mut counts = KeyCounts::default();
    for log in logs.values() {
        counts.keys += log.sends.len();
        for send in log.sends.values().flat_map(BTreeMap::values) {
            counts.sent += 1;
            counts.tombstones += usize::from(send.tombstone);
            counts.unknown += usize::from(send.is_open());
            let acknowledged = matches!(send.outcome, Some(Outcome::Acknowledged { .. }));
            counts.acknowledged += usize::from(acknowledged);
        }
        let Some(records) = log.at_the_end.get(&Holder::Clients) else {
            continue;
        };
        counts.at_the_end += records.len();
        let last = last_of_each_key(records);
        counts.live += last.values().filter(|last| !last.tombstone).count();
        let gone = log.known.iter().filter(|(key, places)| {
            let (_, &version) = places.last_key_value().expect("a key that is known has a place");
            let deleted = log.send(**key, version).is_some_and(|send| send.tombstone);
            deleted && !last.contains_key(key)
        });
        counts.tombstones_gone += gone.count();
    }
    for entry in history {
        if let Event::KeysPolled { records, .. } = &entry.event {
            counts.polled += records.len();
        }
    }
    counts
}
