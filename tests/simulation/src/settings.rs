//! What one run is made of.

use std::time::Duration;

use crate::random::Random;

/// A fault put into the simulation's own adapter, to prove that the invariants notice; the last one is a habit
/// of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// Replicas report as durable what they have only written; power fails.
    AcksUnsynced,
    /// A leader takes every follower's log for a prefix of its own: nobody truncates.
    SkipsTruncation,
    /// A broker whose disk was wiped presents the directory that it had.
    KeepsDirectory,
    /// A leader acknowledges `acks=all` once it has the record itself: the ISR is not asked.
    AcksAlone,
    /// A leader appends what an idempotent producer repeats.
    ForgetsSequences,
    /// A replica is appended to while the controller is asked to note the directory of its copy.
    AppendsWhileAsking,
    /// Idempotent producers have five batches under way before their first one is acknowledged. Nothing is
    /// wrong with that; see `producers` for what comes of it by Kafka's rules.
    EagerProducers,
}

impl Mutation {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::AcksUnsynced,
        Self::SkipsTruncation,
        Self::KeepsDirectory,
        Self::AcksAlone,
        Self::ForgetsSequences,
        Self::AppendsWhileAsking,
        Self::EagerProducers,
    ];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AcksUnsynced => "acks-unsynced",
            Self::SkipsTruncation => "skips-truncation",
            Self::KeepsDirectory => "keeps-directory",
            Self::AcksAlone => "acks-alone",
            Self::ForgetsSequences => "forgets-sequences",
            Self::AppendsWhileAsking => "appends-while-asking",
            Self::EagerProducers => "eager-producers",
        }
    }
}

/// One run: everything else follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where every choice comes from.
    pub seed: u64,
    /// The fault in the adapter; none, to test the product.
    pub mutation: Option<Mutation>,
}

/// The run's parameters, drawn anew for each seed: some runs see one kind of fault often and another
/// never, which finds more than the same mixture every time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) brokers: i32,
    pub(crate) topics: u64,
    pub(crate) lag_max: Duration,
    /// How long faults go on (ms).
    pub(crate) trouble: u64,
    /// The longest ordinary delay on the network and of a flush (ms).
    pub(crate) delay: u64,
    pub(crate) flush: u64,
    /// Between two faults, at most (ms).
    pub(crate) fault_every: u64,
    /// Between two writes, at most (ms).
    pub(crate) write_every: u64,
    /// How many of a hundred ordinary writes are content with `acks=1`.
    pub(crate) acks_one: u64,
    /// Idempotent producers.
    pub(crate) producers: i32,
    /// Weight of each kind of fault.
    pub(crate) weights: [u64; 10],
    /// Log directories of each broker, of which one may fail.
    pub(crate) directories: usize,
}

impl Plan {
    pub(crate) fn draw(seed: u64, random: &mut Random) -> Self {
        let lag = random.pick(&[1_000, 3_000, 10_000]).unwrap_or(10_000);
        Self {
            brokers: random.between(3, 4) as i32,
            topics: random.between(1, 2),
            lag_max: Duration::from_millis(lag),
            trouble: random.between(8_000, 25_000),
            delay: random.pick(&[2, 10, 60]).unwrap_or(2),
            flush: random.pick(&[1, 10, 80]).unwrap_or(1),
            fault_every: random.pick(&[400, 1_200, 3_000]).unwrap_or(1_200),
            write_every: random.pick(&[40, 100, 250]).unwrap_or(40),
            acks_one: random.pick(&[0, 20, 60]).unwrap_or(0),
            producers: random.between(0, 3) as i32,
            weights: std::array::from_fn(|_| random.pick(&[0, 1, 4]).unwrap_or(1)),
            // From a sequence of its own: a seed with one directory is the run that it was before there were two.
            directories: Random::new(!seed).between(1, 2) as usize,
        }
    }
}
