//! Ottla: the segmented commit log, recovery, retention, checkpoints and group commit.

pub mod checkpoint;
pub mod clean_shutdown;
pub mod descriptors;
pub mod dump;
mod durable_file;
pub mod epochs;
mod error;
mod flush;
pub mod format;
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
pub use durable_file::{read_if_present, remove_durably, sync_dir, write_atomically};
pub use error::{Damage, StorageError};
pub use flush::{FlushFailed, FlushListener, Flusher};
pub use log::{
    AppendError, AppendInfo, AppendOutcome, Decompress, LeaderAppend, Log, OpenOptions, ReadOutcome,
    ReadRequest, TimestampedOffset,
};
pub use log_config::LogConfig;
pub use manager::{LogManager, ManagerConfig, OpenError, StartupReport};
pub use producers::{ProducerBatch, ProducerEntry, ProducerState, SequenceCheck, SequenceError};
pub use recovery::RecoveryReport;
