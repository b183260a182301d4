//! What happened in a run, in numbers.

use std::fmt;
use std::ops::AddAssign;

/// Numbers of one run, or of many together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events handled.
    pub events: u64,
    /// Faults injected.
    pub faults: u64,
    /// Losses of power that took unsynced records with them.
    pub unsynced_losses: u64,
    /// Disks lost, with all that was on them.
    pub disk_losses: u64,
    /// Log directories that failed under a broker that has another.
    pub directory_failures: u64,
    /// Replicas that have moved to another log directory.
    pub moves: u64,
    /// Leaderships of partitions begun.
    pub elections: u64,
    /// Times that a follower cut off records which its leader did not have.
    pub truncations: u64,
    /// Records acknowledged once they were committed (`acks=all`).
    pub acknowledgements: u64,
    /// Records acknowledged by their leaders alone (`acks=1`).
    pub acknowledgements_by_leader: u64,
    /// Batches of idempotent producers that a leader had already.
    pub duplicates: u64,
    /// Reads compared with the committed history.
    pub reads: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.events += other.events;
        self.faults += other.faults;
        self.unsynced_losses += other.unsynced_losses;
        self.disk_losses += other.disk_losses;
        self.directory_failures += other.directory_failures;
        self.moves += other.moves;
        self.elections += other.elections;
        self.truncations += other.truncations;
        self.acknowledgements += other.acknowledgements;
        self.acknowledgements_by_leader += other.acknowledgements_by_leader;
        self.duplicates += other.duplicates;
        self.reads += other.reads;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            events,
            faults,
            unsynced_losses,
            disk_losses,
            directory_failures,
            moves,
            elections,
            truncations,
            acknowledgements,
            acknowledgements_by_leader,
            duplicates,
            reads,
        } = self;
        write!(
            out,
            "{events} events, {faults} faults ({unsynced_losses} losses of unsynced records, {disk_losses} of \
             disks, {directory_failures} failures of directories), {moves} moves, {elections} leaderships, {truncations} truncations, {acknowledgements} records acknowledged, \
             {acknowledgements_by_leader} by their leaders alone, {duplicates} duplicates recognised, {reads} reads"
        )
    }
}
