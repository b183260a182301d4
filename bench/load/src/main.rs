//! The load of `bench/compare.sh`: one stock client (librdkafka) that is the same for every broker, and the
//! CPU time that the named processes take while it is at work. Each command prints one JSON object.
//!
//! What is counted is counted in a window: it opens after a warm-up and closes before the last records are
//! waited for, so neither the first connection nor the end of the run is in the figures.

mod client;
mod consume;
mod latency;
mod memory;
mod produce;
mod ready;
mod topics;
mod usage;

use std::{process::ExitCode, time::Duration};

use anyhow::Context;
use clap::{Parser, Subcommand};

use crate::usage::Group;

#[derive(Debug, Parser)]
#[command(
    name = "load",
    about = "Load on a Kafka cluster by a stock client, and what it costs the cluster's processes"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Touch memory once, so that a virtual machine's host has backed it before anything is measured.
    Touch {
        /// How much, in MiB; never more than three quarters of what is available.
        #[arg(long)]
        mib: u64,
    },
    /// Wait until a cluster that is starting has all its brokers and acknowledges a record.
    Ready {
        #[command(flatten)]
        cluster: Cluster,
        /// How many brokers make it complete; the probe's topic has as many replicas.
        #[arg(long)]
        brokers: usize,
        /// When the processes were started, in seconds since 1970.
        #[arg(long)]
        since: f64,
        /// Give up after this many seconds.
        #[arg(long, default_value_t = 120)]
        patience: u64,
    },
    /// Create a topic and wait until all replicas are in sync.
    CreateTopic {
        #[command(flatten)]
        topic: Topic,
        #[arg(long)]
        partitions: i32,
        #[arg(long)]
        replication_factor: i32,
        /// key=value, as often as needed.
        #[arg(long = "config")]
        configs: Vec<String>,
    },
    /// Delete a topic.
    DeleteTopic {
        #[command(flatten)]
        topic: Topic,
    },
    /// Produce with acks=all, as fast as it goes or at a fixed rate.
    Produce {
        #[command(flatten)]
        topic: Topic,
        #[command(flatten)]
        window: Window,
        #[arg(long, default_value_t = 1024)]
        record_bytes: usize,
        /// Records a second on a fixed schedule (open loop). Without it: as fast as acknowledgements allow.
        #[arg(long)]
        rate: Option<u32>,
        /// Without --rate: records on their way at a time.
        #[arg(long, default_value_t = 16_384)]
        in_flight: usize,
        #[arg(long, default_value_t = 5)]
        linger_ms: u32,
    },
    /// Consume the newest records over and over.
    Consume {
        #[command(flatten)]
        topic: Topic,
        #[command(flatten)]
        window: Window,
        /// How many of the newest records, over all partitions.
        #[arg(long, default_value_t = 524_288)]
        newest: i64,
    },
}

#[derive(Debug, clap::Args)]
struct Cluster {
    /// host:port,…
    #[arg(long)]
    bootstrap: String,
}

#[derive(Debug, clap::Args)]
struct Topic {
    #[command(flatten)]
    cluster: Cluster,
    #[arg(long)]
    topic: String,
}

/// When is counted, and whose CPU time.
#[derive(Debug, clap::Args)]
struct Window {
    /// Before the window opens.
    #[arg(long, default_value_t = 2.0)]
    warm_up_seconds: f64,
    #[arg(long)]
    seconds: f64,
    /// Processes whose CPU time is counted: NAME=PID,PID,… as often as needed.
    #[arg(long = "pids")]
    groups: Vec<Group>,
}

impl Window {
    fn warm_up(&self) -> anyhow::Result<Duration> {
        Duration::try_from_secs_f64(self.warm_up_seconds).context("--warm-up-seconds")
    }

    fn length(&self) -> anyhow::Result<Duration> {
        Duration::try_from_secs_f64(self.seconds).context("--seconds")
    }
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(figures) => {
            println!("{figures}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("load: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<serde_json::Value> {
    match command {
        Command::Touch { mib } => memory::touch(mib),
        Command::Ready {
            cluster,
            brokers,
            since,
            patience,
        } => ready::wait(&cluster.bootstrap, brokers, since, Duration::from_secs(patience)),
        Command::CreateTopic {
            topic,
            partitions,
            replication_factor,
            configs,
        } => topics::create(
            &topic.cluster.bootstrap,
            &topic.topic,
            partitions,
            replication_factor,
            &configs,
        ),
        Command::DeleteTopic { topic } => topics::delete(&topic.cluster.bootstrap, &topic.topic),
        Command::Produce {
            topic,
            window,
            record_bytes,
            rate,
            in_flight,
            linger_ms,
        } => produce::run(&produce::Load {
            bootstrap: topic.cluster.bootstrap,
            topic: topic.topic,
            warm_up: window.warm_up()?,
            length: window.length()?,
            groups: window.groups,
            record_bytes,
            pace: rate.map_or(produce::Pace::Saturating { in_flight }, |per_second| {
                produce::Pace::Scheduled { per_second }
            }),
            linger_ms,
        }),
        Command::Consume {
            topic,
            window,
            newest,
        } => consume::run(&consume::Load {
            bootstrap: topic.cluster.bootstrap,
            topic: topic.topic,
            warm_up: window.warm_up()?,
            length: window.length()?,
            groups: window.groups,
            newest,
        }),
    }
}
