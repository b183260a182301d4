//! Compaction against a model: what each key says last, whatever was cleaned, and wherever it crashed.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::log::crash_tests::images;

/// One thing that happens to a log.
#[derive(Clone, Debug)]
enum Step {
    Append {
        records: Vec<(u8, Option<u8>)>,
        codec: usize,
        producer: Option<i64>,
    },
    Roll,
    Compact {
        hours: i64,
        map_slots: u64,
        crash: Option<proptest::sample::Index>,
    },
    Reopen,
}

fn any_step() -> impl Strategy<Value = Step> {
    let records = proptest::collection::vec((0..8_u8, proptest::option::weighted(0.7, any::<u8>())), 1..6);
    prop_oneof![
        8 => (records, 0..5_usize, proptest::option::of(0..3_i64))
            .prop_map(|(records, codec, producer)| Step::Append { records, codec, producer }),
        2 => Just(Step::Roll),
        3 => (0..40_i64, 16..40_u64, proptest::option::of(any::<proptest::sample::Index>()))
            .prop_map(|(hours, map_slots, crash)| Step::Compact { hours, map_slots, crash }),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Show 3: whatever is written, cleaned and crashed, each key says what it said last.
    #[test]
    fn a_compacted_log_says_what_the_whole_log_said(
        steps in proptest::collection::vec(any_step(), 1..40),
    ) {
        let mut log = TestLog::new(config());
        let (mut all, mut now, mut sequences) = (Vec::<Read>::new(), 0, [0; 3]);
        for step in steps {
            match step {
                Step::Append { records: appended, codec, producer } => {
                    let parts: Vec<_> = appended.iter().map(|(key, value)| ([*key], value.map(|v| vec![v; 20]))).collect();
                    let borrowed: Vec<(&[u8], Option<&[u8]>)> =
                        parts.iter().map(|(key, value)| (&key[..], value.as_deref())).collect();
                    let mut builder = at(now);
                    if let Some(producer) = producer {
                        builder.producer_id = producer;
                        builder.producer_epoch = 0;
                        builder.base_sequence = sequences[producer as usize];
                        sequences[producer as usize] += appended.len() as i32;
                    }
                    let end = log.log_end_offset();
                    lead(&log, keyed(builder, CODECS[codec], &borrowed), 1);
                    all.extend(records(&log).into_iter().filter(|record| record.offset >= end.0));
                }
                Step::Roll => log.roll(0).expect("roll"),
                Step::Reopen => {
                    log.flush().expect("flush");
                    let (end, first_dirty) = (log.log_end_offset().0, log.first_dirty_offset());
                    let (reopened, report) = log.reopen(synced_below(end));
                    prop_assert!(!report.lost);
                    restore(&reopened, first_dirty);
                    log = reopened;
                }
                Step::Compact { hours, map_slots, crash } => {
                    now += hours * 3_600_000;
                    log.flush().expect("flush");
                    let (end, first_dirty) = (log.log_end_offset(), log.first_dirty_offset());
                    let clean = |log: &Log| {
                        try_compact(log, i64::MAX, now, 24 * map_slots).expect("compacts");
                    };
                    if let Some(crash) = crash {
                        let mut images = images(&log, || clean(&log));
                        let image = images.swap_remove(crash.index(images.len()));
                        let opened = Log::open(&image.dir.path().join("t-0"), config(), synced_below(end.0));
                        let (crashed, report) = opened.expect("recovers");
                        prop_assert!(!report.lost);
                        prop_assert_eq!(crashed.log_end_offset(), end, "before {}", &image.before);
                        restore(&crashed, first_dirty);
                        log = TestLog { dir: image.dir, log: crashed };
                        assert_sound_files(&log.dir());
                    } else {
                        clean(&log);
                    }
                }
            }
            let left = records(&log);
            prop_assert_eq!(last_of_each(&left), last_of_each(&all));
            // What is left is what was written: offset, time, key, value, headers.
            let mut written = all.iter();
            for record in &left {
                prop_assert!(written.any(|original| original == record), "{:?}", record);
            }
            for (producer, &next) in sequences.iter().enumerate() {
                let known = log.producer(ProducerId(producer as i64)).and_then(|entry| entry.last_sequence());
                prop_assert_eq!(known.map_or(0, |last| last + 1), next);
            }
        }
        log.roll(0).expect("roll");
        compact(&log, now);
        let left = records(&log);
        prop_assert_eq!(last_of_each(&left), last_of_each(&all));
        let keys: BTreeSet<_> = left.iter().map(|record| &record.key).collect();
        prop_assert_eq!(left.len(), keys.len(), "one record of each key");
        assert_sound_files(&log.dir());
    }
}

/// What the last checkpoint before a crash had said.
fn restore(log: &Log, first_dirty: Option<Offset>) {
    if let Some(offset) = first_dirty {
        log.restore_first_dirty_offset(offset);
    }
}
