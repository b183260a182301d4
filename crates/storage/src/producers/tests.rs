//! Kafka's rules one by one, and any history against a model that remembers everything.

use proptest::prelude::*;
use protocol::LeaderEpoch;

use super::*;

fn batch(producer: i64, epoch: i16, sequence: i32, count: i32, base_offset: i64) -> BatchHeader {
    BatchHeader {
        base_offset: Offset(base_offset),
        size: 100,
        leader_epoch: LeaderEpoch(0),
        crc: 0,
        attributes: 0,
        last_offset_delta: count - 1,
        base_timestamp: base_offset,
        max_timestamp: base_offset,
        producer_id: (producer >= 0).then_some(ProducerId(producer)),
        producer_epoch: ProducerEpoch(epoch),
        base_sequence: sequence,
        record_count: count,
    }
}

fn with(batches: &[BatchHeader]) -> ProducerState {
    let mut state = ProducerState::new();
    for header in batches {
        state.update(header);
    }
    state
}

fn out_of_order(producer: i64, expected: i32, found: i32) -> SequenceError {
    SequenceError::OutOfOrder {
        producer_id: ProducerId(producer),
        expected,
        found,
    }
}

#[test]
fn producers_without_an_id_are_not_checked_or_kept() {
    let mut state = ProducerState::new();
    assert_eq!(state.check(&batch(-1, -1, -1, 3, 0)), Ok(SequenceCheck::New));
    state.update(&batch(-1, -1, -1, 3, 0));
    assert!(state.is_empty());
}

#[test]
fn an_unknown_producer_may_continue_wherever_it_is() {
    assert_eq!(
        ProducerState::new().check(&batch(1, 4, 700, 2, 0)),
        Ok(SequenceCheck::New)
    );
}

#[test]
fn a_sequence_continues_without_gaps() {
    let state = with(&[batch(1, 0, 0, 3, 10)]);
    assert_eq!(state.check(&batch(1, 0, 3, 2, 0)), Ok(SequenceCheck::New));
    assert_eq!(state.check(&batch(1, 0, 4, 2, 0)), Err(out_of_order(1, 3, 4)));
    assert_eq!(state.check(&batch(1, 0, 2, 2, 0)), Err(out_of_order(1, 3, 2)));
    assert_eq!(state.check(&batch(1, 0, -1, 2, 0)), Err(out_of_order(1, 3, -1)));
}

#[test]
fn sequences_wrap_to_zero() {
    let state = with(&[batch(1, 0, i32::MAX - 1, 2, 10)]);
    assert_eq!(state.check(&batch(1, 0, 0, 1, 0)), Ok(SequenceCheck::New));

    let across = batch(1, 0, i32::MAX, 3, 20);
    let state = with(&[across]);
    assert_eq!(state.check(&batch(1, 0, 2, 1, 0)), Ok(SequenceCheck::New));
    assert_eq!(
        state.check(&across),
        Ok(SequenceCheck::Duplicate {
            first_offset: Offset(20),
            last_offset: Offset(22),
            timestamp: 20
        })
    );
}

#[test]
fn each_of_the_last_five_batches_is_recognised_and_no_other() {
    let batches: Vec<_> = (0..7)
        .map(|i| batch(1, 0, i * 2, 2, 100 + i64::from(i) * 2))
        .collect();
    let state = with(&batches);
    for (i, header) in batches.iter().enumerate() {
        let check = state.check(header);
        if i < 2 {
            assert_eq!(check, Err(out_of_order(1, 14, i as i32 * 2)));
        } else {
            let first_offset = Offset(100 + i as i64 * 2);
            let (last_offset, timestamp) = (first_offset.next(), first_offset.0);
            assert_eq!(
                check,
                Ok(SequenceCheck::Duplicate {
                    first_offset,
                    last_offset,
                    timestamp
                })
            );
        }
    }
}

#[test]
fn an_older_epoch_is_fenced_and_a_newer_one_begins_at_zero() {
    let state = with(&[batch(1, 3, 0, 3, 10)]);
    assert_eq!(
        state.check(&batch(1, 2, 3, 1, 0)),
        Err(SequenceError::InvalidEpoch {
            producer_id: ProducerId(1),
            current: ProducerEpoch(3),
            found: ProducerEpoch(2)
        })
    );
    assert_eq!(state.check(&batch(1, 4, 3, 1, 0)), Err(out_of_order(1, 0, 3)));
    assert_eq!(state.check(&batch(1, 4, 0, 1, 0)), Ok(SequenceCheck::New));
    // The batch that an older epoch had at the same sequences is another batch.
    assert_eq!(state.check(&batch(1, 4, 0, 3, 0)), Ok(SequenceCheck::New));
}

#[test]
fn a_marker_ends_the_transaction_and_may_raise_the_epoch() {
    let mut data = batch(1, 0, 0, 3, 10);
    data.attributes = 0x10;
    let mut marker = batch(1, 1, -1, 1, 13);
    marker.attributes = 0x30;
    let mut state = with(&[data]);
    assert_eq!(
        state
            .get(ProducerId(1))
            .and_then(ProducerEntry::transaction_start),
        Some(Offset(10))
    );
    state.update(&marker);
    let entry = state.get(ProducerId(1)).expect("known");
    assert_eq!(
        (entry.transaction_start(), entry.epoch(), entry.last_sequence()),
        (None, ProducerEpoch(1), None)
    );
    assert_eq!(state.check(&batch(1, 1, 0, 1, 0)), Ok(SequenceCheck::New));
    assert_eq!(state.check(&batch(1, 1, 3, 1, 0)), Err(out_of_order(1, 0, 3)));
}

#[test]
fn idle_producers_expire_by_an_even_clock_and_not_by_their_own() {
    let hour = Duration::from_secs(3600);
    let mut state = with(&[batch(1, 0, 0, 1, 0), batch(2, 0, 0, 1, 1)]);
    assert_eq!(state.expire(5_000_000, hour), 0);
    state.update(&batch(2, 0, 1, 1, 2));
    assert_eq!(state.expire(5_000_000 + 3_600_000, hour), 1);
    assert!(state.get(ProducerId(1)).is_none() && state.get(ProducerId(2)).is_some());

    let mut open = batch(3, 0, 0, 1, 3);
    open.attributes = 0x10;
    let mut state = with(&[open]);
    state.expire(0, hour);
    assert_eq!(state.expire(i64::MAX, hour), 0);
}

/// Everything that was appended, in order: the slow truth that five batches stand for.
#[derive(Default)]
struct Model {
    batches: Vec<BatchHeader>,
}

impl Model {
    fn check(&self, header: &BatchHeader) -> Result<SequenceCheck, SequenceError> {
        let producer_id = header.producer_id.expect("the model is of idempotent producers");
        let own: Vec<_> = self
            .batches
            .iter()
            .filter(|b| b.producer_id == Some(producer_id))
            .collect();
        let Some(last) = own.last() else {
            return Ok(SequenceCheck::New);
        };
        let same_epoch = own
            .iter()
            .rev()
            .take_while(|b| b.producer_epoch == last.producer_epoch);
        for old in same_epoch.take(BATCHES_KEPT) {
            let alike = |b: &BatchHeader| (b.producer_epoch, b.base_sequence, b.last_offset_delta);
            if alike(old) == alike(header) {
                return Ok(SequenceCheck::Duplicate {
                    first_offset: old.base_offset,
                    last_offset: old.last_offset(),
                    timestamp: old.max_timestamp,
                });
            }
        }
        if header.producer_epoch < last.producer_epoch {
            return Err(SequenceError::InvalidEpoch {
                producer_id,
                current: last.producer_epoch,
                found: header.producer_epoch,
            });
        }
        let expected = if header.producer_epoch == last.producer_epoch {
            (i64::from(last.base_sequence) + i64::from(last.record_count)) % (1 << 31)
        } else {
            0
        };
        if i64::from(header.base_sequence) == expected {
            Ok(SequenceCheck::New)
        } else {
            Err(out_of_order(producer_id.0, expected as i32, header.base_sequence))
        }
    }
}

/// What a client does next: mostly it continues, now and then it repeats, skips or bumps its epoch.
#[derive(Clone, Debug)]
enum Step {
    Continue {
        producer: i64,
        count: i32,
    },
    Repeat {
        back: usize,
    },
    NewEpoch {
        producer: i64,
        count: i32,
    },
    Anything {
        producer: i64,
        epoch: i16,
        sequence: i32,
        count: i32,
    },
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let sequence = prop_oneof![0..20_i32, (i32::MAX - 5)..=i32::MAX];
    prop_oneof![
        8 => (0..3_i64, 1..4_i32).prop_map(|(producer, count)| Step::Continue { producer, count }),
        4 => (0..12_usize).prop_map(|back| Step::Repeat { back }),
        1 => (0..3_i64, 1..4_i32).prop_map(|(producer, count)| Step::NewEpoch { producer, count }),
        2 => (0..3_i64, 0..4_i16, sequence, 1..4_i32).prop_map(|(producer, epoch, sequence, count)| {
            Step::Anything { producer, epoch, sequence, count }
        }),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    #[test]
    fn five_batches_answer_like_the_whole_history(steps in proptest::collection::vec(step(), 0..80)) {
        let mut model = Model::default();
        let mut state = ProducerState::new();
        let mut next_offset = 0;
        for step in steps {
            let last_of = |producer| {
                let own = |b: &&BatchHeader| b.producer_id == Some(ProducerId(producer));
                model.batches.iter().rfind(own).copied()
            };
            let header = match step {
                Step::Continue { producer, count } => match last_of(producer) {
                    Some(last) => {
                        let next = (i64::from(last.last_sequence()) + 1) % (1 << 31);
                        batch(producer, last.producer_epoch.0, next as i32, count, next_offset)
                    }
                    None => batch(producer, 0, 0, count, next_offset),
                },
                Step::NewEpoch { producer, count } => {
                    let epoch = last_of(producer).map_or(0, |last| last.producer_epoch.0 + 1);
                    batch(producer, epoch, 0, count, next_offset)
                }
                Step::Repeat { back } => match model.batches.iter().rev().nth(back) {
                    Some(&old) => BatchHeader { base_offset: Offset(0), ..old },
                    None => continue,
                },
                Step::Anything { producer, epoch, sequence, count } => {
                    batch(producer, epoch, sequence, count, next_offset)
                }
                Step::Restart => {
                    state = ProducerState::from_snapshot(&state.snapshot_bytes()).expect("own bytes");
                    continue;
                }
            };
            let check = state.check(&header);
            prop_assert_eq!(check, model.check(&header));
            if check == Ok(SequenceCheck::New) {
                let placed = BatchHeader { base_offset: Offset(next_offset), ..header };
                next_offset += i64::from(placed.record_count);
                state.update(&placed);
                model.batches.push(placed);
            }
        }
    }
}
