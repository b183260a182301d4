//! Runs many seeds and prints what they came to.

use clap::Parser;
use simulation::{Mutation, Settings, command, run};

/// Simulates whole clusters, one for each seed.
#[derive(Parser)]
struct Arguments {
    /// How many seeds to run.
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// A fault in the adapter, which the invariants must find: acks-unsynced, skips-truncation, …
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
    let (mut steps, mut faults, mut elections, mut reads, mut broken) = (0, 0, 0, 0, 0);
    let (mut acknowledged, mut by_leader, mut duplicates) = (0, 0, 0);
    for seed in from..from + seeds {
        let settings = Settings { seed, mutation };
        let Ok(report) = std::panic::catch_unwind(|| run(settings)) else {
            println!("seed {seed}: panicked\n  {}", command(settings));
            broken += 1;
            continue;
        };
        steps += report.steps;
        faults += report.faults;
        acknowledged += report.acknowledgements;
        by_leader += report.acknowledgements_by_leader;
        duplicates += report.duplicates;
        elections += report.elections;
        reads += report.reads;
        if let Some(violation) = report.violation {
            println!("seed {seed}: {violation}\n  {}", command(settings));
            broken += 1;
        }
    }
    println!(
        "{seeds} seeds from {from}: {steps} events, {faults} faults, {elections} leaderships, {acknowledged} \
         records acknowledged, {by_leader} by their leaders alone, {duplicates} duplicates recognised, {reads} reads, \
         {broken} violations, {:.1} s",
        began.elapsed().as_secs_f64()
    );
    std::process::ExitCode::from(u8::from(broken > 0))
}
