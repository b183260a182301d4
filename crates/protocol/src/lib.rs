//! The vocabulary that every other crate of Ottla speaks.
//!
//! **Owns** the newtypes for ids, offsets and epochs ([`ids`]), validated topic names
//! ([`TopicName`]), Kafka's error codes ([`ErrorCode`]), a zero-copy view of record batches v2
//! ([`batch`]) with the walk over their records and the codecs ([`records`]), the guard before the Kafka decoder ([`guard`]), the generated gRPC types ([`grpc`])
//! and the greeting between nodes ([`hello`]).
//!
//! **Never** opens a file or a socket, reads a clock, or knows what a broker or a controller is.
//! Nothing here panics on bytes that came from outside: parsers return errors, and their memory is
//! bounded by the bytes they were given.

pub mod batch;
mod error_code;
pub mod grpc;
pub mod guard;
pub mod hello;
pub mod ids;
pub mod records;
mod topic_name;

pub use error_code::ErrorCode;
pub use ids::{
    BrokerEpoch, BrokerId, ClaimId, ClusterId, DirectoryId, IncarnationId, LeaderEpoch, Offset,
    PartitionEpoch, PartitionIndex, ProducerEpoch, ProducerId, StreamGeneration, TopicId, TopicPartition,
};
pub use topic_name::{CONSUMER_OFFSETS, InvalidTopicName, TRANSACTION_STATE, TopicName};

/// Version of the internal gRPC conversation between nodes. A peer that presents another one is
/// refused by name before anything else is exchanged.
pub const INTERNAL_PROTOCOL_VERSION: u32 = 1;
