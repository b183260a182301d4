//! Seeds that must hold, the same trace for the same seed, and controls that must fail.

use simulation::{Mutation, Settings, command, run};

fn first_violation(seeds: std::ops::Range<u64>, mutation: Option<Mutation>) -> Option<String> {
    seeds.into_iter().find_map(|seed| {
        let settings = Settings { seed, mutation };
        match std::panic::catch_unwind(|| run(settings)) {
            Ok(report) => report
                .violation
                .map(|violation| format!("{violation}\nagain: {}", command(settings))),
            Err(_) => Some(format!("panicked\nagain: {}", command(settings))),
        }
    })
}

/// With the ISR check disabled the same seeds must show a loss.
#[test]
#[cfg_attr(feature = "unsafe-no-isr-check", should_panic(expected = "again:"))]
fn seeds_hold() {
    if let Some(violation) = first_violation(0..100, None) {
        panic!("{violation}");
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..5 {
        let settings = Settings { seed, mutation: None };
        assert_eq!(run(settings), run(settings), "{}", command(settings));
    }
}

fn is_found(mutation: Mutation) {
    let found = first_violation(0..200, Some(mutation));
    assert!(found.is_some(), "{} goes unnoticed", mutation.name());
}

#[test]
fn acknowledging_what_is_not_on_disk_is_found() {
    is_found(Mutation::AcksUnsynced);
}

#[test]
fn a_follower_that_does_not_truncate_is_found() {
    is_found(Mutation::SkipsTruncation);
}

#[test]
fn a_wiped_disk_that_rejoins_as_if_it_had_its_data_is_found() {
    is_found(Mutation::KeepsDirectory);
}

#[test]
fn acknowledging_without_the_in_sync_replicas_is_found() {
    is_found(Mutation::AcksAlone);
}

#[test]
fn appending_what_a_producer_repeats_is_found() {
    is_found(Mutation::ForgetsSequences);
}
