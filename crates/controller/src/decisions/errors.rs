//! Why a decision is refused: one enum per operation, and the one map from them to Kafka's codes.

use protocol::{BrokerEpoch, BrokerId, ErrorCode, LeaderEpoch, PartitionEpoch, grpc::v1::KafkaError};

/// A broker is not, or no longer, who it says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BrokerError {
    /// No broker of this id is registered.
    #[error("broker {broker} is not registered")]
    NotRegistered {
        /// The broker.
        broker: BrokerId,
    },
    /// The broker registered again since.
    #[error("broker {broker} presents epoch {presented}; its current epoch is {current}")]
    StaleEpoch {
        /// The broker.
        broker: BrokerId,
        /// What the request carries.
        presented: BrokerEpoch,
        /// What the image holds.
        current: BrokerEpoch,
    },
}

/// A registration is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// Two processes run with the same `node.id`.
    #[error("node.id {broker} is in use: another process with this id has a live session")]
    Duplicate {
        /// The id.
        broker: BrokerId,
    },
    /// A field of the request is not what it should be.
    #[error("registration is malformed: {0}")]
    Malformed(String),
}

/// A leader election does not happen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ElectionError {
    /// No such topic or partition.
    #[error("no such topic or partition")]
    UnknownPartition,
    /// The leader is already who it should be.
    #[error("the leader is already the one that is asked for")]
    NotNeeded,
    /// The preferred leader is not in sync, or not alive.
    #[error("the preferred leader is not an in-sync, live broker")]
    PreferredNotAvailable,
    /// No replica is alive.
    #[error("no replica is alive that could lead")]
    NoneAvailable,
}

/// A change of an in-sync set is refused (KIP-497, KIP-841, KIP-903).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AlterPartitionError {
    /// No such topic.
    #[error("no topic has this id")]
    UnknownTopic,
    /// No such partition.
    #[error("the topic has no such partition")]
    UnknownPartition,
    /// The leader knows more than this controller, which therefore is not the active one.
    #[error("the leader has epochs that this controller has not given")]
    ControllerBehind,
    /// Another leader was elected since.
    #[error("leader epoch {presented} is over; the current one is {current}")]
    FencedLeaderEpoch {
        /// What the request carries.
        presented: LeaderEpoch,
        /// What the image holds.
        current: LeaderEpoch,
    },
    /// The partition changed since.
    #[error("partition epoch {presented} is over; the current one is {current}")]
    OldPartitionEpoch {
        /// What the request carries.
        presented: PartitionEpoch,
        /// What the image holds.
        current: PartitionEpoch,
    },
    /// The request contradicts itself or the partition.
    #[error("the request is not valid: {0}")]
    Invalid(&'static str),
    /// A new member is fenced, shuts down, or is another incarnation than the one that caught up.
    #[error("broker {broker} may not be in the in-sync set: {why}")]
    Ineligible {
        /// The member.
        broker: BrokerId,
        /// Which of these it is.
        why: &'static str,
    },
}

/// An error that has a number on Kafka's wire.
pub(crate) trait KafkaCode: std::fmt::Display {
    /// The number.
    fn code(&self) -> ErrorCode;
}

impl KafkaCode for BrokerError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::NotRegistered { .. } => ErrorCode::BrokerIdNotRegistered,
            Self::StaleEpoch { .. } => ErrorCode::StaleBrokerEpoch,
        }
    }
}

impl KafkaCode for RegisterError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Duplicate { .. } => ErrorCode::DuplicateBrokerRegistration,
            Self::Malformed(_) => ErrorCode::InvalidRequest,
        }
    }
}

impl KafkaCode for ElectionError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::UnknownPartition => ErrorCode::UnknownTopicOrPartition,
            Self::NotNeeded => ErrorCode::ElectionNotNeeded,
            Self::PreferredNotAvailable => ErrorCode::PreferredLeaderNotAvailable,
            Self::NoneAvailable => ErrorCode::EligibleLeadersNotAvailable,
        }
    }
}

impl KafkaCode for AlterPartitionError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::UnknownTopic => ErrorCode::UnknownTopicId,
            Self::UnknownPartition => ErrorCode::UnknownTopicOrPartition,
            Self::ControllerBehind => ErrorCode::NotController,
            Self::FencedLeaderEpoch { .. } => ErrorCode::FencedLeaderEpoch,
            Self::OldPartitionEpoch { .. } => ErrorCode::InvalidUpdateVersion,
            Self::Invalid(_) => ErrorCode::InvalidRequest,
            Self::Ineligible { .. } => ErrorCode::IneligibleReplica,
        }
    }
}

/// The error as it stands in a reply.
#[allow(
    private_bounds,
    reason = "KafkaCode is this module's own map; callers only need the result"
)]
pub fn kafka_error<E: KafkaCode>(error: &E) -> KafkaError {
    KafkaError {
        code: error.code().code().into(),
        message: error.to_string(),
    }
}

/// "No error", as it stands in a reply.
pub fn success() -> KafkaError {
    KafkaError::default()
}
