//! A whole cluster in one thread and virtual time: the product's own decisions, image, partition and
//! stream state machines, over a network that loses and delays, disks that lose what was not synced,
//! and processes that die, stand still and come back. One seed is one run.
//!
//! Real: `controller::decisions` with its session tracker, `metadata::ClusterImage::apply`,
//! `replication::PartitionState`, `replication::streams::stream_state`. Modelled: Raft (a list with what
//! Raft promises), logs (records in memory with durable ends, epochs and generations), the thin shells.

mod broker;
mod checker;
mod context;
mod controller;
mod disk;
mod faults;
mod invariants;
mod message;
mod random;
mod serving;
mod settings;
mod world;

pub use checker::Violation;
pub use settings::{Mutation, Settings};

use world::World;

/// What a run came to. Equal for equal settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Stands for everything that happened, in order.
    pub trace: u64,
    /// Events handled.
    pub steps: u64,
    /// Faults injected.
    pub faults: u64,
    /// Records acknowledged.
    pub acknowledgements: u64,
    /// Leaderships begun.
    pub elections: u64,
    /// Reads compared with the committed history.
    pub reads: u64,
    /// The invariant that broke, if one did.
    pub violation: Option<Violation>,
}

/// Runs one seed: faults for a while, then healing.
pub fn run(settings: Settings) -> Report {
    let mut world = World::new(settings);
    world.run_until(world.context.plan.trouble);
    if world.context.checker.broken.is_none() {
        if let Some(what) = world.heal() {
            world.context.checker.fail("EventuallyWhole", what);
        }
        invariants::lost(&world.brokers, &world.truth, &mut world.context.checker);
    }
    let checker = &world.context.checker;
    Report {
        trace: world.trace,
        steps: world.steps,
        faults: world.faults,
        acknowledgements: checker.acknowledgements,
        elections: checker.elections,
        reads: checker.reads,
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
