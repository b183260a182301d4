//! Why a partition refuses, one enum an operation, and the one place where each cause gets its Kafka
//! error code.

use protocol::{BrokerEpoch, BrokerId, ErrorCode, LeaderEpoch, Offset};

/// The replica is not in the role, or not in the epoch, that the caller expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RoleError {
    /// Another broker leads, or nobody does.
    #[error("this broker does not lead the partition")]
    NotLeader,
    /// The caller knows an older leader than this one (KIP-320).
    #[error("leader epoch {asked} is over: the partition is in epoch {current}")]
    Fenced {
        /// What the caller said.
        asked: LeaderEpoch,
        /// What this replica knows.
        current: LeaderEpoch,
    },
    /// The caller knows of a leader that this broker has not heard of yet (KIP-320).
    #[error("leader epoch {asked} is not known yet: the partition is in epoch {current}")]
    UnknownEpoch {
        /// What the caller said.
        asked: LeaderEpoch,
        /// What this replica knows.
        current: LeaderEpoch,
    },
    /// The replica's storage has failed.
    #[error("the replica's storage has failed")]
    Failed,
}

impl RoleError {
    /// Kafka's code.
    pub fn code(self) -> ErrorCode {
        match self {
            Self::NotLeader => ErrorCode::NotLeaderOrFollower,
            Self::Fenced { .. } => ErrorCode::FencedLeaderEpoch,
            Self::UnknownEpoch { .. } => ErrorCode::UnknownLeaderEpoch,
            Self::Failed => ErrorCode::KafkaStorageError,
        }
    }
}

/// Why a leader refuses a follower's fetch. Nothing of the fetch was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchRefused {
    /// Wrong role or epoch.
    #[error(transparent)]
    Role(#[from] RoleError),
    /// The broker holds no replica of the partition, as far as this broker knows.
    #[error("broker {0} holds no replica of the partition")]
    NotReplica(BrokerId),
    /// An earlier incarnation of the broker (KIP-903).
    #[error("broker epoch {asked} is over: the broker is in epoch {current}")]
    StaleBrokerEpoch {
        /// What the fetch said.
        asked: BrokerEpoch,
        /// What the leader knows.
        current: BrokerEpoch,
    },
    /// The follower's log ends outside the leader's log: it has to begin anew at `log_start`.
    #[error("the follower's log end {log_end} is outside the leader's log, which starts at {log_start}")]
    OutOfRange {
        /// The follower's.
        log_end: Offset,
        /// The leader's.
        log_start: Offset,
    },
}

impl FetchRefused {
    /// Kafka's code.
    pub fn code(self) -> ErrorCode {
        match self {
            Self::Role(role) => role.code(),
            Self::NotReplica(_) => ErrorCode::NotLeaderOrFollower,
            Self::StaleBrokerEpoch { .. } => ErrorCode::StaleBrokerEpoch,
            Self::OutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        }
    }
}

/// Why a client's read of positions or records is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadRefused {
    /// Wrong role or epoch.
    #[error(transparent)]
    Role(#[from] RoleError),
    /// The offset is not in the log.
    #[error("offset {from} is outside {log_start}..={end}")]
    OutOfRange {
        /// What was asked for.
        from: Offset,
        /// The first offset that is kept.
        log_start: Offset,
        /// The last offset that may be asked for.
        end: Offset,
    },
    /// The answer depends on a high watermark that this replica does not know yet: a follower that
    /// lags (KIP-392), or a new leader that has not reached the start of its epoch.
    #[error("the high watermark is not known far enough")]
    NotAvailable,
    /// The log could not be read.
    #[error("the log could not be read")]
    Storage,
    /// The log's bytes are damaged.
    #[error("the log is damaged")]
    Corrupt,
    /// Too much disk work is waiting; the same request may succeed in a moment.
    #[error("too much disk work is waiting")]
    Busy,
}

impl ReadRefused {
    /// Kafka's code.
    pub fn code(self) -> ErrorCode {
        match self {
            Self::Role(role) => role.code(),
            Self::OutOfRange { .. } => ErrorCode::OffsetOutOfRange,
            Self::NotAvailable => ErrorCode::OffsetNotAvailable,
            Self::Storage => ErrorCode::KafkaStorageError,
            Self::Corrupt => ErrorCode::CorruptMessage,
            Self::Busy => ErrorCode::RequestTimedOut,
        }
    }
}
