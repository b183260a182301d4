//! Compaction against a model: what each key says last, whatever else happens to the log, and wherever it
//! crashes or loses its power.
//!
//! The histories are the same each time; `PROPTEST_CASES` asks for so many others, and `PROPTEST_RNG_SEED` for the ones of
//! that seed. `OTTLA_CLEANED_SEGMENTS` names a folder that the cleaned logs of the first few are copied to, for Kafka's own
//! tools to read.

mod checks;
mod world;

use proptest::{prelude::*, test_runner::RngSeed};

use super::*;
use crate::disk::faults;
use world::{Crash, World};

/// Histories, unless somebody asks for others.
const CASES: u32 = 40;

fn histories() -> ProptestConfig {
    let number = |name| -> Option<u64> { Some(std::env::var(name).ok()?.parse().expect("a number")) };
    let (cases, seed) = (number("PROPTEST_CASES"), number("PROPTEST_RNG_SEED"));
    ProptestConfig {
        cases: cases.map_or(CASES, |cases| cases as u32),
        rng_seed: match (seed, cases) {
            (Some(seed), _) => RngSeed::Fixed(seed),
            (None, Some(_)) => RngSeed::Random,
            (None, None) => RngSeed::Fixed(3),
        },
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// One thing that happens to a log.
#[derive(Clone, Debug)]
enum Step {
    Append {
        records: Vec<(u8, Option<u8>)>,
        codec: usize,
        /// An idempotent producer.
        producer: Option<i64>,
        /// By how much the clock of the one who wrote is slow.
        late_hours: i64,
        new_epoch: bool,
    },
    /// Records of a transaction, which may have begun long ago.
    Transact {
        producer: i64,
        records: Vec<(u8, Option<u8>)>,
    },
    EndTransaction {
        producer: i64,
        commits: bool,
    },
    Roll,
    Flush,
    /// Compacts what is durable.
    Compact {
        hours: i64,
        map_slots: u64,
    },
    /// `retention.ms`, where the topic has it.
    Retain,
    DeleteRecords {
        at: prop::sample::Index,
    },
    Truncate {
        at: prop::sample::Index,
    },
    /// The process ends, properly or not.
    Reopen {
        properly: bool,
    },
}

fn any_records() -> impl Strategy<Value = Vec<(u8, Option<u8>)>> {
    proptest::collection::vec((0..8_u8, proptest::option::weighted(0.7, any::<u8>())), 1..6)
}

fn any_step() -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        16 => (any_records(), 0..5_usize, proptest::option::of(0..3_i64), 0..30_i64, proptest::bool::weighted(0.2))
            .prop_map(|(records, codec, producer, late_hours, new_epoch)| Step::Append {
                records, codec, producer, late_hours, new_epoch,
            }),
        4 => (10..12_i64, any_records()).prop_map(|(producer, records)| Step::Transact { producer, records }),
        3 => (10..12_i64, any::<bool>())
            .prop_map(|(producer, commits)| Step::EndTransaction { producer, commits }),
        3 => Just(Step::Roll),
        4 => Just(Step::Flush),
        7 => (0..40_i64, 16..40_u64).prop_map(|(hours, map_slots)| Step::Compact { hours, map_slots }),
        2 => Just(Step::Retain),
        1 => index().prop_map(|at| Step::DeleteRecords { at }),
        2 => index().prop_map(|at| Step::Truncate { at }),
        2 => any::<bool>().prop_map(|properly| Step::Reopen { properly }),
    ]
}

fn any_crash() -> impl Strategy<Value = Option<Crash>> {
    let crash = (
        any::<prop::sample::Index>(),
        proptest::bool::weighted(0.8),
        any::<u64>(),
    );
    let crash = crash.prop_map(|(moment, power, seed)| Crash { moment, power, seed });
    proptest::option::weighted(0.25, crash)
}

proptest! {
    #![proptest_config(histories())]

    /// Show 3: whatever is written, cleaned, deleted, cut and crashed, each key says what it said last.
    #[test]
    fn a_compacted_log_says_what_the_whole_log_said(
        deletes in any::<bool>(),
        steps in proptest::collection::vec((any_step(), any_crash(), any::<bool>()), 1..50),
    ) {
        let mut world = World::new(deletes);
        faults::with(world.journal.hook(), || {
            for (step, crash, checkpoints) in steps {
                world.take(step, crash, checkpoints);
                world.check();
            }
            world.finish();
        });
    }
}
