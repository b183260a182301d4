//! Ottla: the segmented commit log, recovery, retention, checkpoints and group commit.

pub mod checkpoint;
pub mod clean_shutdown;
pub mod descriptors;
mod durable_file;
pub mod hints;
pub mod meta_properties;
pub mod partition_metadata;
pub mod producer_snapshot;
pub mod producers;
mod properties;

pub use clean_shutdown::boot_id;
pub use durable_file::{read_if_present, remove_durably, sync_dir, write_atomically};
pub use producers::{ProducerBatch, ProducerEntry, ProducerState, SequenceCheck, SequenceError};
