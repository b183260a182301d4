//! Kafka's errors as gRPC statuses: the table is in `proto/ottla/v1/records.proto`.

use bytes::Bytes;
use prost::Message;
use protocol::ErrorCode;
use protocol::grpc::v1::KafkaError;
use tonic::{Code, Status};

use crate::relay::{code_of, kafka_error};

/// A status travels in headers, and its sentence may quote what the client sent.
const MESSAGE_CHARS: usize = 500;

/// `google.rpc.Status`, which gRPC clients read error details from.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Detail>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
struct Detail {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

impl Detail {
    fn of(name: &str, message: &impl Message) -> Self {
        Self {
            type_url: format!("type.googleapis.com/ottla.v1.{name}"),
            value: message.encode_to_vec().into(),
        }
    }
}

/// The status for a Kafka error.
pub(super) fn of(error: &KafkaError) -> Status {
    let kafka = code_of(error);
    let error = KafkaError {
        code: error.code,
        message: error.message.chars().take(MESSAGE_CHARS).collect(),
    };
    let message = if error.message.is_empty() {
        kafka.name().to_owned()
    } else {
        format!("{}: {}", kafka.name(), error.message)
    };
    and(&Status::new(code(kafka), message), "KafkaError", &error)
}

/// The status for an error of this broker's own.
pub(super) fn refused(code: ErrorCode, why: impl Into<String>) -> Status {
    of(&kafka_error(code, why))
}

/// The status with one more message, which `proto/ottla/v1` calls `name`, among its details.
pub(super) fn and(status: &Status, name: &str, message: &impl Message) -> Status {
    // What is there was written here; anything else would be replaced.
    let mut told = RpcStatus::decode(status.details()).unwrap_or_default();
    told.code = status.code() as i32;
    status.message().clone_into(&mut told.message);
    told.details.push(Detail::of(name, message));
    Status::with_details(status.code(), status.message(), told.encode_to_vec().into())
}

/// The status code that stands for a Kafka error.
fn code(error: ErrorCode) -> Code {
    match error {
        ErrorCode::UnknownTopicOrPartition | ErrorCode::UnknownTopicId | ErrorCode::GroupIdNotFound => {
            Code::NotFound
        }
        ErrorCode::OffsetOutOfRange => Code::OutOfRange,
        ErrorCode::InvalidRequest
        | ErrorCode::InvalidRecord
        | ErrorCode::InvalidTimestamp
        | ErrorCode::InvalidTopicException
        | ErrorCode::InvalidGroupId
        | ErrorCode::MessageTooLarge
        | ErrorCode::RecordListTooLarge
        | ErrorCode::OffsetMetadataTooLarge
        | ErrorCode::InvalidCommitOffsetSize
        | ErrorCode::InvalidRequiredAcks
        | ErrorCode::UnsupportedCompressionType => Code::InvalidArgument,
        ErrorCode::UnknownMemberId
        | ErrorCode::IllegalGeneration
        | ErrorCode::FencedInstanceId
        | ErrorCode::RebalanceInProgress
        | ErrorCode::StaleMemberEpoch
        | ErrorCode::NonEmptyGroup
        | ErrorCode::InvalidConfig
        | ErrorCode::PolicyViolation
        | ErrorCode::InvalidReplicationFactor
        | ErrorCode::InvalidPartitions => Code::FailedPrecondition,
        ErrorCode::RequestTimedOut | ErrorCode::NotEnoughReplicasAfterAppend => Code::DeadlineExceeded,
        ErrorCode::CorruptMessage => Code::DataLoss,
        ErrorCode::FencedLeaderEpoch
        | ErrorCode::OutOfOrderSequenceNumber
        | ErrorCode::InvalidProducerEpoch => Code::Aborted,
        ErrorCode::TopicAuthorizationFailed
        | ErrorCode::GroupAuthorizationFailed
        | ErrorCode::ClusterAuthorizationFailed
        | ErrorCode::TransactionalIdAuthorizationFailed => Code::PermissionDenied,
        ErrorCode::ThrottlingQuotaExceeded => Code::ResourceExhausted,
        retriable if retriable.is_retriable() => Code::Unavailable,
        _ => Code::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_say_what_kafka_would_have_said() {
        let status = refused(ErrorCode::NotEnoughReplicas, "one is down");
        assert_eq!(status.code(), Code::Unavailable);
        assert_eq!(status.message(), "NOT_ENOUGH_REPLICAS: one is down");
        let told = RpcStatus::decode(status.details()).expect("google.rpc.Status");
        assert_eq!(told.code, 14);
        assert_eq!(
            told.details[0].type_url,
            "type.googleapis.com/ottla.v1.KafkaError"
        );
        let error = KafkaError::decode(told.details[0].value.clone()).expect("a KafkaError");
        assert_eq!((error.code, error.message.as_str()), (19, "one is down"));
    }

    #[test]
    fn every_error_has_a_status_and_none_is_ok() {
        for &error in ErrorCode::ALL.iter().filter(|error| !error.is_none()) {
            assert_ne!(code(error), Code::Ok, "{error}");
        }
    }

    /// The table in the .proto is what clients go by.
    #[test]
    fn the_documented_table_is_the_real_one() {
        let proto = include_str!("../../../../proto/ottla/v1/records.proto");
        let table = proto
            .lines()
            .skip_while(|line| !line.contains("become statuses so:"))
            .filter_map(|line| line.strip_prefix("//   "));
        let (mut status, mut seen) = ("", 0);
        for row in table {
            if !row.starts_with(' ') {
                status = row.split(' ').next().unwrap_or_default();
            }
            for word in row.split([' ', ',', ':']) {
                let Some(error) = ErrorCode::ALL.iter().find(|error| error.name() == word) else {
                    continue;
                };
                let actual = format!("{:?}", code(*error)).to_uppercase();
                assert_eq!(actual, status.replace('_', ""), "{word}");
                seen += 1;
            }
        }
        assert!(seen > 30, "only {seen} errors were found in the table");
    }
}
