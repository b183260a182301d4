//! Ottla: partition leader and follower state, the in-sync set, the high watermark and replication
//! streams.

mod exchange;

pub use exchange::{
    AlterIsr, AlteredPartition, FetchVerdict, FollowerFetch, Followers, Following, IsrChannel, IsrError,
    Position, ProgressListener, ReplicaRead,
};
