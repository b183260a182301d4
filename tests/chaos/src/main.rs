//! Chaos runs: the real binary as real processes, real librdkafka clients, real faults on a schedule that
//! its seed determines; at the end the [checker](chaos_checker) says what must not be.
//!
//! Exit codes: 0, nothing was found (a control: the loss was found); 1, something was; 2, the run itself
//! did not work.

mod cluster;
mod compacted;
mod control;
mod faults;
mod payload;
mod producer;
mod random;
mod reader;
mod recorder;
mod replicas;
mod run;
mod schedule;
mod topic;
mod watch;
mod work;

use std::{
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use chaos_checker::{Report, Rules, Verdict, check, read_history};
use clap::{Parser, Subcommand};

use crate::{recorder::Recorder, schedule::Shape};

/// Anomalies of one kind that are told in full.
const TOLD: usize = 10;

#[derive(Debug, Parser)]
#[command(
    name = "chaos",
    about = "Faults against a real Ottla cluster, and a checker that judges what clients saw"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Inject faults for a while and check.
    Run {
        #[command(flatten)]
        place: Place,
        /// The same seed is the same schedule of faults.
        #[arg(long)]
        seed: u64,
        /// How long faults are injected, in seconds; healing and checking come after.
        #[arg(long)]
        seconds: u64,
    },
    /// Lose records on purpose; succeeds when the checker notices.
    Control {
        #[command(flatten)]
        place: Place,
        /// `1`, which must lose; or `all`, which loses only in a build without the ISR check.
        #[arg(long, default_value = "1", value_parser = ["1", "all"])]
        acks: String,
    },
    /// Judge a recorded history again.
    Check {
        /// JSON lines, as a run leaves them.
        history: PathBuf,
    },
}

#[derive(Debug, clap::Args)]
struct Place {
    /// The program under test.
    #[arg(long, env = "OTTLA_BIN")]
    ottla: PathBuf,
    /// Keep data, logs and history here, also after success. Must be empty or absent.
    #[arg(long)]
    dir: Option<PathBuf>,
}

fn main() -> ExitCode {
    let verdict = match Arguments::parse().command {
        Command::Run { place, seed, seconds } => {
            // First of all, whatever comes after.
            println!("seed {seed}");
            in_directory(place.dir.as_deref(), |dir| {
                chaos(&place.ottla, dir, seed, Duration::from_secs(seconds))
            })
        }
        Command::Control { place, acks } => {
            in_directory(place.dir.as_deref(), |dir| control_run(&place.ottla, dir, &acks))
        }
        Command::Check { history } => judge_file(&history),
    };
    match verdict {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("chaos: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Runs in the directory given, or in one that is removed after success and kept after failure.
fn in_directory(
    given: Option<&Path>,
    run: impl FnOnce(&Path) -> anyhow::Result<bool>,
) -> anyhow::Result<bool> {
    if let Some(dir) = given {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        anyhow::ensure!(
            std::fs::read_dir(dir)?.next().is_none(),
            "{} is not empty",
            dir.display()
        );
        return run(&std::path::absolute(dir)?);
    }
    let mut dir = tempfile::Builder::new().prefix("ottla-chaos-").tempdir()?;
    let verdict = run(dir.path());
    if !matches!(verdict, Ok(true)) {
        dir.disable_cleanup(true);
        println!("data, logs and history are kept in {}", dir.path().display());
    }
    verdict
}

fn chaos(ottla: &Path, dir: &Path, seed: u64, duration: Duration) -> anyhow::Result<bool> {
    let shape = Shape {
        brokers: 3,
        controllers: 3,
        partitions: 3,
        session_timeout: Duration::from_secs(3),
    };
    let recorder = Arc::new(Recorder::new(&dir.join("history.jsonl"))?);
    let happened = run::run(ottla, dir, shape, seed, duration, &recorder);
    // The file is complete also where the run was not.
    let history = recorder.finish()?;
    let mut happened = happened?;
    let mut rules = Rules::IDEMPOTENT;
    if compacted::may_miss_tombstones(&happened.watched) {
        rules.resurrections = Verdict::Counted;
    }
    let report = check(&history, rules);
    if report.counts.refused == 0 {
        let text = "no record from the future was refused: aborted reads were not looked for";
        happened.failures.push(text.to_owned());
    }
    println!("seed {seed}");
    println!("faults: {:?}", happened.faults);
    println!("replicas: {} batches compared", happened.batches_compared);
    println!(
        "cleanings by each broker, at least: {:?}; a replica was away for {:.1} s at most",
        happened.watched.cleanings,
        happened.watched.longest_away.as_secs_f64()
    );
    tell(&report);
    for failure in &happened.failures {
        println!("FAILURE: {failure}");
    }
    let good = report.anomalies.is_empty() && happened.failures.is_empty();
    println!(
        "{}",
        if good {
            "chaos: nothing was lost"
        } else {
            "chaos: FAILED"
        }
    );
    Ok(good)
}

fn control_run(ottla: &Path, dir: &Path, acks: &str) -> anyhow::Result<bool> {
    let recorder = Arc::new(Recorder::new(&dir.join("history.jsonl"))?);
    let made = control::run(ottla, dir, acks, &recorder);
    let history = recorder.finish()?;
    made?;
    let report = check(&history, Rules::AT_LEAST_ONCE);
    tell(&report);
    let noticed = report.has_loss();
    println!(
        "control: the checker {}",
        if noticed {
            "noticed the loss, as it must"
        } else {
            "noticed NO LOSS"
        }
    );
    Ok(noticed)
}

fn judge_file(path: &Path) -> anyhow::Result<bool> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let history = read_history(BufReader::new(file))?;
    let report = check(&history, Rules::IDEMPOTENT);
    tell(&report);
    Ok(report.anomalies.is_empty())
}

fn tell(report: &Report) {
    let counts = report.counts;
    println!(
        "sent {}, acknowledged {}, refused {}, unknown {}; read {} while faults went on, {} at the end",
        counts.sent, counts.acknowledged, counts.refused, counts.unknown, counts.polled, counts.at_the_end
    );
    let keys = report.keys;
    if keys.sent > 0 {
        println!(
            "of {} keys: sent {} ({} tombstones), acknowledged {}, unknown {}; read {} while faults went on, {} at \
             the end; {} keys have a value, {} were deleted without a trace",
            keys.keys,
            keys.sent,
            keys.tombstones,
            keys.acknowledged,
            keys.unknown,
            keys.polled,
            keys.at_the_end,
            keys.live,
            keys.tombstones_gone
        );
    }
    if report.anomalies.is_empty() {
        println!("anomalies: none");
    }
    for (kind, count) in report.by_kind() {
        println!("ANOMALY {kind}: {count}");
        let of_kind = report.anomalies.iter().filter(|anomaly| anomaly.kind() == kind);
        for anomaly in of_kind.take(TOLD) {
            println!("  {anomaly}");
        }
    }
    for (kind, count) in report.counted_by_kind() {
        println!("allowed to these producers, and counted: {kind}: {count}");
        let of_kind = report.counted.iter().filter(|anomaly| anomaly.kind() == kind);
        for anomaly in of_kind.take(TOLD) {
            println!("  {anomaly}");
        }
    }
}
