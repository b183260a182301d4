//! Random histories of a log that behaves: never an anomaly; with one thing wrong: always one.

use chaos_checker::{Anomaly, Entry, Event, Outcome, Rules, check, read_history};
use proptest::{prelude::*, sample::Index};

const LAST_READER: u32 = 99;

/// What one step of the world does.
#[derive(Clone, Debug)]
enum Step {
    /// A producer sends to a partition; the log takes it or not, the producer learns of it or not.
    Send {
        producer: u32,
        partition: i32,
        taken: bool,
        told: bool,
    },
    /// A reader reads on.
    Poll {
        reader: u32,
        partition: i32,
        most: usize,
    },
    /// A reader goes back to some earlier offset.
    Assign { reader: u32, partition: i32, to: Index },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0..3_u32, 0..2_i32, prop::bool::weighted(0.9), prop::bool::weighted(0.8)).prop_map(
            |(producer, partition, taken, told)| Step::Send { producer, partition, taken, told }
        ),
        3 => (10..12_u32, 0..2_i32, 1..5_usize).prop_map(|(reader, partition, most)| Step::Poll {
            reader,
            partition,
            most
        }),
        1 => (10..12_u32, 0..2_i32, any::<Index>()).prop_map(|(reader, partition, to)| Step::Assign {
            reader,
            partition,
            to
        }),
    ]
}

/// Plays the steps on two partitions that lose nothing, and reads both to their ends.
fn play(steps: &[Step]) -> (Vec<Entry>, [Vec<u64>; 2]) {
    let mut logs: [Vec<u64>; 2] = Default::default();
    let mut positions = std::collections::HashMap::new();
    let mut history = Vec::new();
    let mut say = |process, event| {
        let at_ms = history.len() as u64;
        history.push(Entry {
            at_ms,
            process,
            event,
        });
    };
    for (value, step) in (1000_u64..).zip(steps) {
        match step {
            &Step::Send {
                producer,
                partition,
                taken,
                told,
            } => {
                let log = &mut logs[partition as usize];
                say(producer, Event::Invoked { partition, value });
                let offset = log.len() as i64;
                if taken {
                    log.push(value);
                }
                let outcome = match (taken, told) {
                    (true, true) => Outcome::Acknowledged { offset: Some(offset) },
                    (false, true) => Outcome::Refused {
                        error: "no".to_owned(),
                    },
                    (_, false) => Outcome::Unknown {
                        error: "silence".to_owned(),
                    },
                };
                say(
                    producer,
                    Event::Answered {
                        partition,
                        value,
                        outcome,
                    },
                );
            }
            &Step::Poll {
                reader,
                partition,
                most,
            } => {
                let log = &logs[partition as usize];
                let from = *positions.entry((reader, partition)).or_insert(0);
                let to = (from + most).min(log.len());
                positions.insert((reader, partition), to);
                let records = (from..to).map(|n| (n as i64, log[n])).collect();
                say(reader, Event::Polled { partition, records });
            }
            Step::Assign {
                reader,
                partition,
                to,
            } => {
                let (reader, partition) = (*reader, *partition);
                positions.insert((reader, partition), to.index(logs[partition as usize].len() + 1));
                say(reader, Event::Assigned { partition });
            }
        }
    }
    for (partition, log) in (0_i32..).zip(&logs) {
        let records = (0_i64..).zip(log.iter().copied()).collect();
        say(LAST_READER, Event::FinalRead { partition, records });
    }
    (history, logs)
}

/// Takes a value out of everything that anybody read.
fn forget(history: &mut [Entry], gone: u64) {
    for entry in history {
        if let Event::Polled { records, .. } | Event::FinalRead { records, .. } = &mut entry.event {
            records.retain(|&(_, value)| value != gone);
        }
    }
}

fn acknowledged(history: &[Entry]) -> Vec<u64> {
    history
        .iter()
        .filter_map(|entry| match &entry.event {
            Event::Answered {
                value,
                outcome: Outcome::Acknowledged { .. },
                ..
            } => Some(*value),
            _ => None,
        })
        .collect()
}

proptest! {
    #[test]
    fn a_log_that_behaves_is_never_accused(steps in prop::collection::vec(step(), 0..120)) {
        let (history, _) = play(&steps);
        prop_assert_eq!(check(&history, Rules::IDEMPOTENT).anomalies, vec![]);
    }

    #[test]
    fn one_acknowledged_value_taken_away_is_always_missed(
        steps in prop::collection::vec(step(), 1..120),
        which in any::<Index>(),
    ) {
        let (mut history, _) = play(&steps);
        let candidates = acknowledged(&history);
        prop_assume!(!candidates.is_empty());
        let gone = *which.get(&candidates);
        forget(&mut history, gone);
        let report = check(&history, Rules::IDEMPOTENT);
        let missed = report.anomalies.iter().any(|anomaly| match anomaly {
            Anomaly::LostWrite { value, .. } | Anomaly::Unseen { value, .. } => *value == gone,
            _ => false,
        });
        prop_assert!(missed && report.has_loss(), "{:?}", report.anomalies);
    }

    #[test]
    fn a_value_exchanged_at_the_end_is_always_noticed(
        steps in prop::collection::vec(step(), 1..120),
        which in any::<Index>(),
    ) {
        let (mut history, logs) = play(&steps);
        prop_assume!(!logs[0].is_empty());
        let at = which.index(logs[0].len());
        for entry in &mut history {
            if let Event::FinalRead { partition: 0, records } = &mut entry.event {
                records[at].1 = 7;
            }
        }
        let kinds = check(&history, Rules::IDEMPOTENT).by_kind();
        prop_assert!(kinds.contains_key("phantom"), "{kinds:?}");
    }

    #[test]
    fn a_history_survives_its_lines(steps in prop::collection::vec(step(), 0..60)) {
        let (history, _) = play(&steps);
        let text: String = history.iter().map(|entry| entry.to_line() + "\n").collect();
        prop_assert_eq!(read_history(text.as_bytes()).expect("what was written is read"), history);
    }
}
