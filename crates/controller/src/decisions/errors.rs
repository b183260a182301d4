//! Why a decision is refused: one enum per operation, and the one map from them to Kafka's codes.

use metadata::{ApplyError, configs::ConfigError};
use protocol::{
    BrokerEpoch, BrokerId, DirectoryId, ErrorCode, InvalidTopicName, LeaderEpoch, PartitionEpoch, TopicName,
    grpc::v1::KafkaError,
};

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

/// A broker's word on where a replica lies is refused (KIP-858).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AssignDirectoryError {
    /// An id is not 16 bytes, or the directory's is all zeroes.
    #[error("the assignment is malformed")]
    Malformed,
    /// No such topic or partition.
    #[error("no such topic or partition")]
    UnknownPartition,
    /// The broker holds no replica of the partition.
    #[error("broker {broker} holds no replica of the partition")]
    NotReplica {
        /// The broker.
        broker: BrokerId,
    },
    /// The directory is not among those that the broker has online.
    #[error("log directory {directory} is not online")]
    NotOnline {
        /// The directory.
        directory: DirectoryId,
    },
}

/// A topic is not created, changed or deleted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// The name breaks Kafka's rules.
    #[error(transparent)]
    InvalidName(#[from] InvalidTopicName),
    /// The name differs from an existing one only in `.` against `_`.
    #[error("topic {name:?} collides with the existing topic {existing:?}")]
    Collides {
        /// The name.
        name: TopicName,
        /// The topic that is there.
        existing: TopicName,
    },
    /// The name is taken.
    #[error("topic {0:?} already exists")]
    Exists(TopicName),
    /// Only the system itself has topics of this name.
    #[error("topic {0:?} belongs to the system and is not created on request")]
    Reserved(TopicName),
    /// No topic has this name.
    #[error("there is no topic {0:?}")]
    UnknownName(String),
    /// No topic has this id.
    #[error("no topic has the id {0}")]
    UnknownId(String),
    /// `delete.topic.enable=false`.
    #[error("topics cannot be deleted: delete.topic.enable is false")]
    DeletionDisabled,
    /// The request names a topic twice.
    #[error("the request names the topic twice")]
    NamedTwice,
    /// The request contradicts itself.
    #[error("{0}")]
    Contradiction(&'static str),
    /// The number of partitions is not possible.
    #[error("{0}")]
    Partitions(String),
    /// The replication factor is not possible.
    #[error("{0}")]
    ReplicationFactor(String),
    /// The request's own assignment is not possible.
    #[error("{0}")]
    Assignment(String),
    /// The request makes more partitions than one request may.
    #[error("the request makes more than {0} partitions: make fewer at a time")]
    TooMany(usize),
    /// A key or value of its configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A key without a value.
    #[error("configuration {0} has no value")]
    NullValue(String),
    /// The decision's records do not fit the image it was made on: a defect of this program.
    #[error("the controller decided what does not fit: {0}")]
    Unfit(#[from] ApplyError),
}

/// A configuration is not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AlterConfigsError {
    /// The resource is neither a topic nor a broker, or has an impossible name.
    #[error("{0}")]
    Resource(String),
    /// No topic has this name.
    #[error("there is no topic {0:?}")]
    UnknownTopic(TopicName),
    /// The request names a resource or a key twice.
    #[error("the request names {0} twice")]
    NamedTwice(String),
    /// A key without a value.
    #[error("configuration {0} has no value")]
    NullValue(String),
    /// An operation of an unknown kind.
    #[error("operation {op} on configuration {key} is not known")]
    UnknownOperation {
        /// The key.
        key: String,
        /// The operation's number.
        op: i32,
    },
    /// A list operation on what is no list.
    #[error("configuration {0} is not a list: it can be set or deleted")]
    NotAList(String),
    /// A key or value.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The decision's records do not fit the image it was made on: a defect of this program.
    #[error("the controller decided what does not fit: {0}")]
    Unfit(#[from] ApplyError),
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

impl KafkaCode for AssignDirectoryError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Malformed => ErrorCode::InvalidRequest,
            Self::UnknownPartition => ErrorCode::UnknownTopicOrPartition,
            Self::NotReplica { .. } => ErrorCode::NotLeaderOrFollower,
            Self::NotOnline { .. } => ErrorCode::KafkaStorageError,
        }
    }
}

impl KafkaCode for TopicError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::InvalidName(_) | Self::Collides { .. } | Self::Reserved(_) => {
                ErrorCode::InvalidTopicException
            }
            Self::Exists(_) => ErrorCode::TopicAlreadyExists,
            Self::UnknownName(_) => ErrorCode::UnknownTopicOrPartition,
            Self::UnknownId(_) => ErrorCode::UnknownTopicId,
            Self::DeletionDisabled => ErrorCode::TopicDeletionDisabled,
            Self::NamedTwice | Self::Contradiction(_) => ErrorCode::InvalidRequest,
            Self::Partitions(_) => ErrorCode::InvalidPartitions,
            Self::ReplicationFactor(_) => ErrorCode::InvalidReplicationFactor,
            Self::Assignment(_) => ErrorCode::InvalidReplicaAssignment,
            Self::TooMany(_) => ErrorCode::PolicyViolation,
            Self::Config(_) | Self::NullValue(_) => ErrorCode::InvalidConfig,
            Self::Unfit(_) => ErrorCode::UnknownServerError,
        }
    }
}

impl KafkaCode for AlterConfigsError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Resource(_) | Self::NamedTwice(_) | Self::NullValue(_) | Self::UnknownOperation { .. } => {
                ErrorCode::InvalidRequest
            }
            Self::UnknownTopic(_) => ErrorCode::UnknownTopicOrPartition,
            Self::NotAList(_) | Self::Config(_) => ErrorCode::InvalidConfig,
            Self::Unfit(_) => ErrorCode::UnknownServerError,
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
