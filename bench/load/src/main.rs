//! The load of `bench/compare.sh`: one stock client (librdkafka) that is the same for every broker, and the
//! CPU time that the named processes take while it is at work. Each command prints one JSON object; `members`
//! prints one for each event before that.
//!
//! What is counted is counted in a window: it opens after a warm-up and closes before the last records are
//! waited for, so neither the first connection nor the end of the run is in the figures.

mod client;
mod clock;
mod commits;
mod consume;
mod fill;
mod group;
mod latency;
mod members;
mod memory;
mod produce;
mod ready;
mod topics;
mod usage;
mod window;

use std::{process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};

use crate::{
    group::Membership,
    window::{Edges, Window},
};

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
    /// Wait until all replicas of a topic are in sync.
    WaitInSync {
        #[command(flatten)]
        topic: Topic,
        #[arg(long)]
        partitions: i32,
        #[arg(long)]
        replication_factor: i32,
        /// Give up after this many seconds.
        #[arg(long, default_value_t = 120)]
        patience: u64,
    },
    /// Give a topic these configurations and no others.
    AlterTopic {
        #[command(flatten)]
        topic: Topic,
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
        /// A line on standard input opens the window, after the warm-up, and the end of the input closes
        /// it; either must come within --seconds.
        #[arg(long)]
        told: bool,
    },
    /// Produce a number of records with keys that come again and again.
    Fill {
        #[command(flatten)]
        topic: Topic,
        #[arg(long)]
        records: u64,
        /// How many different keys there are.
        #[arg(long)]
        keys: u64,
        #[arg(long, default_value_t = 1024)]
        record_bytes: usize,
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
    /// Be members of a group, and tell what happens to them, until standard input ends.
    Members {
        #[command(flatten)]
        topic: Topic,
        #[arg(long)]
        group: String,
        #[command(flatten)]
        membership: Membership,
        #[arg(long)]
        count: usize,
        /// Have each member commit this often, one commit at a time.
        #[arg(long)]
        commit_every_ms: Option<u64>,
    },
    /// Commit offsets as fast as it goes, as members of stable groups.
    Commits {
        #[command(flatten)]
        topic: Topic,
        /// What the groups' names begin with.
        #[arg(long)]
        group: String,
        #[command(flatten)]
        membership: Membership,
        #[arg(long, default_value_t = 1)]
        groups: usize,
        /// Of each group.
        #[arg(long, default_value_t = 1)]
        members: usize,
        /// Commits on their way at a time, of each member.
        #[arg(long, default_value_t = 1)]
        in_flight: usize,
        #[command(flatten)]
        window: Window,
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
        Command::WaitInSync {
            topic,
            partitions,
            replication_factor,
            patience,
        } => topics::wait_in_sync(
            &topic.cluster.bootstrap,
            &topic.topic,
            partitions,
            replication_factor,
            Duration::from_secs(patience),
        ),
        Command::AlterTopic { topic, configs } => {
            topics::alter(&topic.cluster.bootstrap, &topic.topic, &configs)
        }
        Command::DeleteTopic { topic } => topics::delete(&topic.cluster.bootstrap, &topic.topic),
        Command::Produce {
            topic,
            window,
            record_bytes,
            rate,
            in_flight,
            linger_ms,
            told,
        } => produce::run(&produce::Load {
            bootstrap: topic.cluster.bootstrap,
            topic: topic.topic,
            window,
            edges: if told { Edges::Told } else { Edges::Timed },
            record_bytes,
            pace: rate.map_or(produce::Pace::Saturating { in_flight }, |per_second| {
                produce::Pace::Scheduled { per_second }
            }),
            linger_ms,
        }),
        Command::Fill {
            topic,
            records,
            keys,
            record_bytes,
        } => fill::run(&fill::Load {
            bootstrap: topic.cluster.bootstrap,
            topic: topic.topic,
            records,
            keys,
            record_bytes,
        }),
        Command::Consume {
            topic,
            window,
            newest,
        } => consume::run(&consume::Load {
            bootstrap: topic.cluster.bootstrap,
            topic: topic.topic,
            window,
            newest,
        }),
        Command::Members {
            topic,
            group,
            membership,
            count,
            commit_every_ms,
        } => members::run(&members::Members {
            bootstrap: topic.cluster.bootstrap,
            topic: topic.topic,
            group,
            membership,
            count,
            commit_every: commit_every_ms.map(Duration::from_millis),
        }),
        Command::Commits {
            topic,
            group,
            membership,
            groups,
            members,
            in_flight,
            window,
        } => commits::run(&commits::Load {
            bootstrap: topic.cluster.bootstrap,
            topic: topic.topic,
            group,
            membership,
            groups,
            members,
            in_flight,
            window,
        }),
    }
}
