//! Ottla's disk: one [`Log`] per partition, a [`LogManager`] per broker, a [`Flusher`] for all.
//!
//! **Owns** every byte in the log directories: segments, indexes and producer snapshots in Kafka's
//! format ([`mod@format`]), leader epochs, checkpoints, identity and shutdown files, high-watermark hints.
//! What it calls durable has been through fdatasync, or, where `flush.messages` says so, is in the page
//! cache; what it finds damaged it never repairs by guessing.
//!
//! **Never** decides: who leads, what is committed, whether a replica should exist. It knows no socket,
//! no peer and no metadata. Every call that touches the disk blocks, so callers run on disk threads; the
//! offsets of a log are atomics and may be read anywhere.
//!
//! # Pointers of a log, and their order
//!
//! | pointer | everything below it |
//! |---|---|
//! | log start | was deleted: by retention, by DeleteRecords, by a purge |
//! | recovery point | was in synced segments at the last flush; recovery scans from here |
//! | durable offset | survives what `flush.messages` promises to survive; lowered by a truncation |
//! | log end | was appended and can be read |
//!
//! log start ≤ log end, and recovery point ≤ durable ≤ log end. The high watermark belongs to replication;
//! it may lie above or below this replica's durable offset.
//!
//! # Where to begin
//!
//! [`LogManager::open`] finds the logs of a broker; [`Log::append_as_leader`], [`Log::read`],
//! [`Log::truncate_to`] and [`Log::flush`] are what replication and Raft stand on; [`dump::dump_segment`]
//! prints any of the files. [`ProducerState`] is the one pure state machine here: what idempotent
//! producers may append.

pub mod checkpoint;
pub mod clean_shutdown;
mod compaction;
pub mod descriptors;
mod disk;
pub mod dump;
mod durable_file;
pub mod epochs;
mod error;
mod flush;
pub mod format;
mod health;
pub mod hints;
mod index;
mod log;
mod log_config;
pub mod manager;
pub mod meta_properties;
pub mod metric_names;
pub mod partition_metadata;
pub mod producer_snapshot;
pub mod producers;
mod properties;
mod recovery;
mod scan;
mod segment;

pub use clean_shutdown::boot_id;
pub use compaction::{Dirtiness, FilterError, Throttle};
pub use durable_file::{read_if_present, remove_durably, sync_dir, write_atomically};
pub use error::{Damage, StorageError};
pub use flush::{FlushFailed, FlushListener, Flusher};
pub use log::{
    AppendError, AppendInfo, AppendOutcome, CompactError, Compacted, CompactionResources, LeaderAppend, Log,
    OpenOptions, ReadOutcome, ReadRequest, TimestampedOffset,
};
pub use log_config::LogConfig;
pub use manager::{
    CleanerConfig, DirectorySpace, DirectoryStatus, LogManager, ManagerConfig, NamedDirectory, OpenError,
    ReplicaSize, StartupReport,
};
pub use producers::{ProducerBatch, ProducerEntry, ProducerState, SequenceCheck, SequenceError};
pub use recovery::RecoveryReport;

// Unit tests share the integration tests' support, which names this crate from outside.
#[cfg(test)]
extern crate self as storage;
#[cfg(test)]
#[path = "../tests/support/mod.rs"]
mod test_support;
