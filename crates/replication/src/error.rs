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

/// Why records were not appended, or not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendRefused {
    /// Wrong role or epoch, before or after the append.
    #[error(transparent)]
    Role(#[from] RoleError),
    /// Fewer replicas are in sync than `min.insync.replicas`. Nothing was appended.
    #[error("fewer replicas are in sync than min.insync.replicas")]
    NotEnoughReplicas,
    /// Fewer replicas are in sync than `min.insync.replicas` since the append: the records may stay or
    /// go.
    #[error("fewer replicas are in sync than min.insync.replicas since the append")]
    NotEnoughReplicasAfterAppend,
    /// The time was up before enough replicas had the records: they may stay or go.
    #[error("the records were appended, but not acknowledged in time")]
    TimedOut,
    /// A batch of an idempotent producer does not follow its last one.
    #[error("the producer's sequence does not follow")]
    OutOfOrderSequence,
    /// A newer instance of the producer has written.
    #[error("the producer's epoch is fenced")]
    InvalidProducerEpoch,
    /// The bytes are no whole batches.
    #[error("the bytes are no whole record batches")]
    Malformed,
    /// The disk refused the write; the log is as it was.
    #[error("the log could not be written")]
    Storage,
    /// Too much disk work is waiting. Nothing was appended.
    #[error("too much disk work is waiting")]
    Busy,
}

impl AppendRefused {
    /// Kafka's code.
    pub fn code(self) -> ErrorCode {
        match self {
            Self::Role(role) => role.code(),
            Self::NotEnoughReplicas => ErrorCode::NotEnoughReplicas,
            Self::NotEnoughReplicasAfterAppend => ErrorCode::NotEnoughReplicasAfterAppend,
            Self::TimedOut | Self::Busy => ErrorCode::RequestTimedOut,
            Self::OutOfOrderSequence => ErrorCode::OutOfOrderSequenceNumber,
            Self::InvalidProducerEpoch => ErrorCode::InvalidProducerEpoch,
            Self::Malformed => ErrorCode::CorruptMessage,
            Self::Storage => ErrorCode::KafkaStorageError,
        }
    }
}

/// Why a follower did not take what its leader sent, or could not cut its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplicaError {
    /// The replica does not follow a leader of that epoch any more: the data is void.
    #[error(transparent)]
    Role(#[from] RoleError),
    /// The data does not follow directly: a new generation begins at the log's end.
    #[error("the data follows offset {previous}, the log ends at {log_end}")]
    NotNext {
        /// Where the data expects the log to end.
        previous: Offset,
        /// Where it ends.
        log_end: Offset,
    },
    /// What the leader said about the log was said about another end of it: it is asked again.
    #[error("the leader's answer is not about a log that ends at {log_end}")]
    Outdated {
        /// Where the log ends.
        log_end: Offset,
    },
    /// Checksum, offsets or epochs of the data are wrong: it was damaged on its way or at the leader.
    #[error("the data is damaged")]
    Damaged,
    /// The disk is full or there are no descriptors: it may be tried again.
    #[error("the disk is full, or no file descriptors are left")]
    Exhausted,
    /// Too much disk work is waiting: it may be tried again.
    #[error("too much disk work is waiting")]
    Busy,
}
