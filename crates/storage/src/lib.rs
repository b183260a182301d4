//! Ottla: the segmented commit log, recovery, retention, checkpoints and group commit.

mod durable_file;
pub mod producer_snapshot;
pub mod producers;

pub use durable_file::{read_if_present, remove_durably, sync_dir, write_atomically};
pub use producers::{ProducerBatch, ProducerEntry, ProducerState, SequenceCheck, SequenceError};
