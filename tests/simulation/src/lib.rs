//! A whole cluster in one thread and virtual time: the product's own decisions, image, partition and
//! stream state machines, over a network that loses and delays, disks that lose what was not synced,
//! directories that fail while replicas move between them, and processes that die, stand still and come
//! back. One seed is one run.
//!
//! Real: `controller::decisions` with its session tracker, `metadata::ClusterImage::apply`,
//! `replication::PartitionState`, `replication::streams::stream_state`. Modelled: Raft (a list with what
//! Raft promises), logs (records in memory with durable ends, epochs and generations), the thin shells.
//!
//! # What must hold
//! One file each in `invariants`, by the name that the literature (TLA+ models of Kafka's replication, KIP-101
//! to KIP-966) gives it.
//!
//! | Invariant | Looked at |
//! |---|---|
//! | LogMatching | after every event |
//! | HighWatermarkMonotone | after every event |
//! | Idempotence | after every event |
//! | LeaderCandidateCompleteness | after every event |
//! | LeaderCompleteness | after every event |
//! | MetadataLogMatching | after every event |
//! | MinIsrRecoveryQuorum | after every event |
//! | ReplicationQuorumSuperset | after every event |
//! | OneLeaderPerEpoch | when a replica begins to lead (`checker`) |
//! | InconsistentOffsets | when a record is acknowledged (`checker`) |
//! | ConsistentRead | at every read, at leaders and followers, deposed ones too |
//! | EventuallyWriteIsAcceptedOrRejected, EventuallyWhole | within two minutes after faults end |
//! | AcknowledgedRecordLost, AcksOneTail | in the healed cluster |

mod broker;
mod checker;
mod clients;
mod context;
mod controller;
mod counts;
mod disk;
mod faults;
mod invariants;
mod message;
mod moving;
mod network;
mod producers;
mod producing;
mod quorum;
mod random;
mod serving;
mod settings;
mod world;

pub use checker::Violation;
pub use counts::Counts;
pub use settings::{Mutation, Settings};

use world::World;

/// What a run came to. Equal for equal settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Stands for everything that happened, in order.
    pub trace: u64,
    /// What happened in it, in numbers.
    pub counts: Counts,
    /// The invariant that broke, if one did.
    pub violation: Option<Violation>,
}

/// Runs one seed: faults for a while, then healing.
pub fn run(settings: Settings) -> Report {
    let mut world = World::new(settings);
    world.run_until(world.context.plan.trouble);
    if world.context.checker.broken.is_none() {
        if let Some((invariant, what)) = world.heal() {
            world.context.checker.fail(invariant, what);
        }
        invariants::lost(&world.brokers, &world.truth, &mut world.context.checker);
        invariants::tails(&world.brokers, &world.truth, &mut world.context.checker);
    }
    let checker = &world.context.checker;
    Report {
        trace: world.trace,
        counts: checker.counts,
        violation: checker.broken.clone().map(|(invariant, what)| Violation {
            invariant,
            at: world.context.now,
            what,
        }),
    }
}

/// The command that repeats a run.
pub fn command(settings: Settings) -> String {
    let mutation = settings
        .mutation
        .map_or(String::new(), |m| format!(" --mutation {}", m.name()));
    format!(
        "cargo run -p simulation -- --seeds 1 --from {}{mutation}",
        settings.seed
    )
}
