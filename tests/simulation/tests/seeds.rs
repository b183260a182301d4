//! Seeds that must hold, the same trace for the same seed, and controls that must fail.
//!
//! Longer runs are the same code: `cargo run --release -p simulation -- --seeds 2000`.

use simulation::{Mutation, Settings, command, run};

/// The first violation in these seeds: the invariant's name, and a sentence.
fn first_violation(
    seeds: std::ops::Range<u64>,
    mutation: Option<Mutation>,
) -> Option<(&'static str, String)> {
    seeds.into_iter().find_map(|seed| {
        let settings = Settings { seed, mutation };
        match std::panic::catch_unwind(|| run(settings)) {
            Ok(report) => report.violation.map(|violation| {
                let what = format!("seed {seed}: {violation}\nagain: {}", command(settings));
                (violation.invariant, what)
            }),
            Err(_) => Some(("panic", format!("panicked\nagain: {}", command(settings)))),
        }
    })
}

/// With the ISR check disabled the same seeds must show a loss.
#[test]
#[cfg_attr(feature = "unsafe-no-isr-check", should_panic(expected = "again:"))]
fn seeds_hold() {
    if let Some((_, what)) = first_violation(0..100, None) {
        panic!("{what}");
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..5 {
        let settings = Settings { seed, mutation: None };
        assert_eq!(run(settings), run(settings), "{}", command(settings));
    }
}

/// One of a hundred seeds shows it, and the invariant that it violates is one of `by`.
fn is_found(mutation: Mutation, by: &[&str]) {
    let Some((invariant, what)) = first_violation(0..100, Some(mutation)) else {
        panic!("{} goes unnoticed", mutation.name());
    };
    assert!(by.contains(&invariant), "found by another invariant: {what}");
}

#[test]
fn acknowledging_what_is_not_on_disk_is_found() {
    is_found(Mutation::AcksUnsynced, &["LeaderCandidateCompleteness"]);
}

#[test]
fn a_follower_that_does_not_truncate_is_found() {
    is_found(
        Mutation::SkipsTruncation,
        &["LeaderCandidateCompleteness", "LogMatching"],
    );
}

#[test]
fn a_wiped_disk_that_rejoins_as_if_it_had_its_data_is_found() {
    is_found(Mutation::KeepsDirectory, &["LeaderCandidateCompleteness"]);
}

#[test]
fn acknowledging_without_the_in_sync_replicas_is_found() {
    is_found(
        Mutation::AcksAlone,
        &[
            "LeaderCompleteness",
            "AcknowledgedRecordLost",
            "InconsistentOffsets",
        ],
    );
}

#[test]
fn appending_what_a_producer_repeats_is_found() {
    is_found(Mutation::ForgetsSequences, &["Idempotence"]);
}

#[test]
fn appending_while_a_copy_is_being_noted_is_found() {
    is_found(
        Mutation::AppendsWhileAsking,
        &["LeaderCandidateCompleteness", "LeaderCompleteness", "LogMatching"],
    );
}

/// Kafka's rule for producers that a leader knows nothing of (KIP-360), by which a first batch that was refused
/// and overtaken can never be written (KAFKA-14359, KAFKA-15591). Should this go unnoticed one day because that
/// rule was tightened, simulated producers need their caution no more.
#[test]
fn a_first_batch_that_is_overtaken_is_found() {
    is_found(
        Mutation::EagerProducers,
        &["Idempotence", "EventuallyWriteIsAcceptedOrRejected"],
    );
}
