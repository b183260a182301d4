//! Ottla: partition leader and follower state, the in-sync set, the high watermark and replication
//! streams.

mod error;
mod exchange;
mod state;
pub mod streams;
mod time;

pub use error::{FetchRefused, ReadRefused, RoleError};
pub use exchange::{
    AlterIsr, AlteredPartition, FetchVerdict, FollowerFetch, Followers, Following, IsrChannel, IsrError,
    Position, ProgressListener, ReplicaRead,
};
pub use state::{
    Assignment, Brokers, Effects, EpochLookup, Facts, FollowerProgress, FollowerState, IsrState, LeaderState,
    LogView, PartitionState, Proposal, Role, Transition,
};
pub use time::Now;
