//! Random histories of a compacted log that behaves: never an anomaly; with one thing wrong: always one.

use std::collections::BTreeMap;

use chaos_checker::{Anomaly, Entry, Event, Holder, KeyRecord, Outcome, Rules, check};
use proptest::{prelude::*, sample::Index};

const LAST_READER: u32 = 1_000_000;
const HOLDERS: [Holder; 3] = [Holder::Clients, Holder::Replica(1), Holder::Replica(2)];

/// What one step of the world does.
#[derive(Clone, Debug)]
enum Step {
    /// The producer writes a key.
    Write { key: u32, tombstone: bool, fate: Fate },
    /// The producer ends, and another takes its keys over.
    Die,
    /// What ended producers had on their way arrives.
    Arrive,
    /// A holder's log is cleaned up to its end.
    Clean { holder: usize, tombstones: bool },
    /// A reader is given all that the first holder has behind what it was given before.
    Poll,
}

#[derive(Clone, Copy, Debug)]
enum Fate {
    /// Appended; the producer learns of it or not.
    Taken { told: bool },
    /// Nobody knows; it arrives once its producer has ended, if ever.
    OnItsWay,
}

fn step() -> impl Strategy<Value = Step> {
    let fate = prop_oneof![
        8 => prop::bool::weighted(0.9).prop_map(|told| Fate::Taken { told }),
        1 => Just(Fate::OnItsWay),
    ];
    prop_oneof![
        12 => (0..8_u32, prop::bool::weighted(0.2), fate)
            .prop_map(|(key, tombstone, fate)| Step::Write { key, tombstone, fate }),
        1 => Just(Step::Die),
        1 => Just(Step::Arrive),
        3 => (0..HOLDERS.len(), any::<bool>())
            .prop_map(|(holder, tombstones)| Step::Clean { holder, tombstones }),
        2 => Just(Step::Poll),
    ]
}

/// A key's writes that a dead producer had on its way must not be followed by others of that producer.
#[derive(Debug, Default)]
struct World {
    history: Vec<Entry>,
    process: u32,
    versions: BTreeMap<u32, u64>,
    next_offset: i64,
    logs: [Vec<KeyRecord>; HOLDERS.len()],
    /// Of the producer that lives, and of those that do not.
    on_their_way: (Vec<KeyRecord>, Vec<KeyRecord>),
    position: i64,
}

impl World {
    fn say(&mut self, process: u32, event: Event) {
        let at_ms = self.history.len() as u64;
        self.history.push(Entry {
            at_ms,
            process,
            event,
        });
    }

    fn append(&mut self, record: KeyRecord) -> i64 {
        let offset = self.next_offset;
        self.next_offset += 1;
        for log in &mut self.logs {
            log.push(KeyRecord { offset, ..record });
        }
        offset
    }

    fn write(&mut self, key: u32, tombstone: bool, fate: Fate) {
        let version = self.versions.entry(key).or_default();
        *version += 1;
        let record = KeyRecord {
            offset: -1,
            key,
            version: *version,
            tombstone,
        };
        let version = *version;
        let partition = 0;
        let invoked = Event::KeyInvoked {
            partition,
            key,
            version,
            tombstone,
        };
        self.say(self.process, invoked);
        // Behind what is on its way in order; a producer sends nothing past it.
        let blocked = !self.on_their_way.0.is_empty();
        let outcome = match fate {
            Fate::Taken { told } if !blocked => {
                let offset = self.append(record);
                told.then_some(Outcome::Acknowledged { offset: Some(offset) })
            }
            _ => {
                self.on_their_way.0.push(record);
                None
            }
        };
        let outcome = outcome.unwrap_or_else(|| Outcome::Unknown {
            error: "silence".to_owned(),
        });
        let answered = Event::KeyAnswered {
            partition,
            key,
            version,
            outcome,
        };
        self.say(self.process, answered);
    }

    fn clean(&mut self, holder: usize, tombstones: bool) {
        let log = &mut self.logs[holder];
        let last: BTreeMap<u32, i64> = log.iter().map(|record| (record.key, record.offset)).collect();
        log.retain(|record| last[&record.key] == record.offset && !(tombstones && record.tombstone));
    }

    fn poll(&mut self) {
        let behind = self.logs[0]
            .iter()
            .filter(|record| record.offset >= self.position);
        let records: Vec<_> = behind.copied().collect();
        self.position = self.next_offset;
        self.say(
            LAST_READER - 1,
            Event::KeysPolled {
                partition: 0,
                records,
            },
        );
    }

    fn play(steps: &[Step]) -> Self {
        let mut world = Self::default();
        // So that there is always something to clean.
        for _ in 0..2 {
            world.write(100, false, Fate::Taken { told: true });
        }
        for step in steps {
            match *step {
                Step::Write { key, tombstone, fate } => world.write(key, tombstone, fate),
                Step::Die => {
                    world.process += 1;
                    let mut left = std::mem::take(&mut world.on_their_way.0);
                    world.on_their_way.1.append(&mut left);
                }
                Step::Arrive => {
                    for record in std::mem::take(&mut world.on_their_way.1) {
                        world.append(record);
                    }
                }
                Step::Clean { holder, tombstones } => world.clean(holder, tombstones),
                Step::Poll => world.poll(),
            }
        }
        for holder in 0..HOLDERS.len() {
            world.clean(holder, false);
        }
        world
    }

    /// The history with what every holder has at the end.
    fn end(mut self) -> Vec<Entry> {
        for (holder, records) in HOLDERS.into_iter().zip(std::mem::take(&mut self.logs)) {
            self.say(
                LAST_READER,
                Event::KeysAtTheEnd {
                    partition: 0,
                    holder,
                    records,
                },
            );
        }
        self.history
    }
}

fn kinds(history: &[Entry]) -> Vec<&'static str> {
    let report = check(history, Rules::IDEMPOTENT);
    report.anomalies.iter().map(Anomaly::kind).collect()
}

proptest! {
    #[test]
    fn a_log_that_behaves_is_never_accused(steps in prop::collection::vec(step(), 0..120)) {
        let history = World::play(&steps).end();
        prop_assert_eq!(check(&history, Rules::IDEMPOTENT).anomalies, vec![]);
    }

    #[test]
    fn a_key_that_one_holder_loses_is_always_missed(
        steps in prop::collection::vec(step(), 1..120),
        holder in 0..HOLDERS.len(),
        which in any::<Index>(),
    ) {
        let mut world = World::play(&steps);
        let log = &mut world.logs[holder];
        let values: Vec<i64> =
            log.iter().filter(|record| !record.tombstone).map(|record| record.offset).collect();
        let gone = *which.get(&values);
        log.retain(|record| record.offset != gone);
        let kinds = kinds(&world.end());
        prop_assert!(kinds.contains(&"key-diverged"), "{kinds:?}");
    }

    #[test]
    fn an_acknowledged_key_that_everybody_loses_is_always_missed(
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut world = World::play(&steps);
        for log in &mut world.logs {
            log.retain(|record| record.key != 100);
        }
        let kinds = kinds(&world.end());
        prop_assert_eq!(kinds.iter().filter(|&&kind| kind == "key-lost").count(), HOLDERS.len());
    }

    #[test]
    fn a_version_exchanged_in_one_holder_is_always_noticed(
        steps in prop::collection::vec(step(), 1..120),
        holder in 0..HOLDERS.len(),
        which in any::<Index>(),
    ) {
        let mut world = World::play(&steps);
        let at = which.index(world.logs[holder].len());
        world.logs[holder][at].version += 1000;
        let kinds = kinds(&world.end());
        prop_assert!(kinds.contains(&"key-phantom"), "{kinds:?}");
    }
}
