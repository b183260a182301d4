//! Replicas of partitions: who leads, who is in sync, what is committed.
//!
//! **Owns** the state of each replica on this broker ([`PartitionState`], pure), the shell that
//! connects it to its log ([`Partition`]), the set of replicas and its reconciliation with the
//! metadata ([`ReplicaManager`]), and the replication streams between brokers.
//!
//! **Never** decides who leads or who is in the ISR: it proposes to the controller
//! ([`IsrChannel`]) and follows the metadata. Never acknowledges what is not durable at every member
//! of the maximal ISR, never blocks a tokio worker on the disk, and never serves one topic's records
//! for another of the same name.
//!
//! ```text
//! log start ≤ high watermark ≤ log end        (follower) durable ≤ log end
//! high watermark ≤ durable offset of every member of the maximal ISR, as acknowledged in this
//!                  leader epoch, from the first advance of that epoch on
//! ```

mod disk;
mod error;
mod exchange;
mod listeners;
mod manager;
pub mod metric_names;
mod moving;
mod partition;
mod shared;
mod state;
pub mod streams;
mod time;
mod waiters;

pub use error::{AppendRefused, FetchRefused, ReadRefused, ReplicaError, RoleError};
pub use exchange::{
    AlterIsr, AlteredPartition, AssignError, DirectoryChannel, FetchVerdict, FollowerFetch, Followers,
    Following, IsrChannel, IsrError, Leading, Position, ProgressListener, ReplicaRead,
};
pub use listeners::Subscription;
pub use manager::{LogDirectory, LogInDirectory, ReplicaManager, ReplicaManagerConfig};
pub use partition::{
    Acks, AppendTicket, EpochEnd, FetchRead, FetchedRecords, Isolation, Partition, PartitionOffsets,
    PartitionStatus, ProduceAppend, ReplicaRole,
};
pub use state::{
    Assignment, Brokers, Effects, EpochLookup, Facts, FollowerProgress, FollowerState, IsrState, LeaderState,
    LogView, PartitionState, Proposal, Role, Transition,
};
pub use storage::TimestampedOffset;
pub use time::Now;
pub use waiters::AppendResult;
