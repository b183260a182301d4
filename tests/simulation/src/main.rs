//! Runs many seeds and prints what they came to.

use std::collections::BTreeMap;

use clap::Parser;
use simulation::{Counts, Mutation, Settings, command, run};

/// Simulates whole clusters, one for each seed.
#[derive(Parser)]
struct Arguments {
    /// How many seeds to run.
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// A fault in the adapter, which the invariants must find: acks-unsynced, skips-truncation,
    /// keeps-directory, acks-alone, forgets-sequences, appends-while-asking; or eager-producers, a habit of clients.
    #[arg(long, value_parser = mutation)]
    mutation: Option<Mutation>,
}

fn mutation(name: &str) -> Result<Mutation, String> {
    let known = Mutation::ALL.into_iter().find(|mutation| mutation.name() == name);
    known.ok_or_else(|| format!("no mutation is called {name:?}"))
}

fn main() -> std::process::ExitCode {
    let Arguments {
        seeds,
        from,
        mutation,
    } = Arguments::parse();
    let began = std::time::Instant::now();
    let mut counts = Counts::default();
    // How many runs each invariant has ended.
    let mut broken: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in from..from + seeds {
        let settings = Settings { seed, mutation };
        let violation = match std::panic::catch_unwind(|| run(settings)) {
            Ok(report) => {
                counts += report.counts;
                report
                    .violation
                    .map(|violation| (violation.invariant, violation.to_string()))
            }
            Err(_) => Some(("panic", "panicked".to_owned())),
        };
        if let Some((invariant, what)) = violation {
            println!("seed {seed}: {what}\n  {}", command(settings));
            *broken.entry(invariant).or_default() += 1;
        }
    }
    println!(
        "{seeds} seeds from {from}: {counts}, {:.1} s",
        began.elapsed().as_secs_f64()
    );
    println!("{} violations", broken.values().sum::<u64>());
    for (invariant, times) in &broken {
        println!("  {invariant}: {times}");
    }
    std::process::ExitCode::from(u8::from(!broken.is_empty()))
}
