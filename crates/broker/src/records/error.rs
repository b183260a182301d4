//! Why a produced batch is refused, and what Kafka calls it.

use std::fmt;

use protocol::{
    ErrorCode,
    batch::{BatchError, Compression},
    records::Malformed,
};

/// Faults of single records that one refusal names at most. Producers fail the records that are
/// not named along with the batch.
pub(super) const MAX_FAULTS: usize = 1000;

/// Why the records that a client sent for one partition cannot be appended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Null or empty records.
    #[error("a produce request must have one record batch per partition, this one has none")]
    NoBatch,
    /// More than one batch.
    #[error("a produce request must have exactly one record batch per partition")]
    SeveralBatches,
    /// The batch's header or checksum is wrong, or bytes of it are missing.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// The batch is larger than the topic's `max.message.bytes`, as sent or after recompression.
    #[error("the batch takes {} bytes, the topic's max.message.bytes is {limit}", AtLeast(*size, *limit))]
    TooLarge {
        /// Its size; 0 where recompression was given up at the limit.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// The batch decompresses to more than its [bounds](protocol::records::OpenBounds) allow.
    #[error("the batch decompresses to more than {limit} bytes")]
    OpensTooLarge {
        /// Bytes that were allowed.
        limit: u64,
    },
    /// Zstandard in a produce version that does not have it (KIP-110).
    #[error("{0:?} compression needs a newer version of the produce request")]
    Unsupported(Compression),
    /// The base offset, which a producer leaves at 0.
    #[error("the base offset of a produced batch should be 0, it is {0}")]
    BaseOffset(i64),
    /// Count and offsets contradict each other.
    #[error("the batch declares {count} records and a last offset delta of {last_offset_delta}")]
    Count {
        /// Declared count.
        count: i32,
        /// Last offset delta.
        last_offset_delta: i32,
    },
    /// Control batches are the broker's own.
    #[error("clients are not allowed to write control records")]
    Control,
    /// A transactional batch where there is no transaction.
    #[error("the batch is transactional, and no transaction is going on")]
    Transactional,
    /// A producer id without a sequence number.
    #[error("invalid sequence number {0} in a batch with a producer id")]
    Sequence(i32),
    /// A producer claims the broker's clock.
    #[error("producers must not set the timestamp type to LogAppendTime")]
    TimestampType,
    /// A timestamp of the header is out of range, where only the header is looked at.
    #[error("the batch's timestamp {0} is out of range")]
    HeaderTimestamp(i64),
    /// What is inside the batch are not the records that it declares.
    #[error("record {index} of the batch: {what}")]
    Malformed {
        /// Index of the record in the batch.
        index: i32,
        /// What is wrong with it.
        what: Malformed,
    },
    /// Whole records that are refused one by one; the others are refused with them.
    #[error("one or more records have been rejected: {}", First(faults))]
    Records {
        /// The first thousand faults.
        faults: Vec<RecordFault>,
    },
}

/// What is wrong with one record of an otherwise sound batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordFault {
    /// Index of the record in the batch (`batch_index` of a produce response).
    pub index: i32,
    /// What is wrong.
    pub kind: RecordFaultKind,
}

/// What can be wrong with a single record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordFaultKind {
    /// No key, on a compacted topic.
    #[error("a compacted topic cannot accept a record without a key")]
    NoKey,
    /// Outside `message.timestamp.before.max.ms` and `message.timestamp.after.max.ms`.
    #[error("timestamp {timestamp} is out of range, it should be within {earliest} and {latest}")]
    Timestamp {
        /// The record's timestamp in milliseconds since 1970.
        timestamp: i64,
        /// The earliest that is accepted.
        earliest: i64,
        /// The latest that is accepted.
        latest: i64,
    },
}

impl RecordError {
    /// The code that Kafka answers.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Batch(BatchError::Truncated { .. } | BatchError::Length(_) | BatchError::Crc { .. }) => {
                ErrorCode::CorruptMessage
            }
            Self::Batch(BatchError::Magic(_) | BatchError::OffsetDelta(_)) => ErrorCode::InvalidRecord,
            Self::Batch(BatchError::Compression(_)) | Self::Unsupported(_) => {
                ErrorCode::UnsupportedCompressionType
            }
            Self::TooLarge { .. } | Self::OpensTooLarge { .. } => ErrorCode::MessageTooLarge,
            Self::Transactional => ErrorCode::TransactionalIdAuthorizationFailed,
            Self::TimestampType | Self::HeaderTimestamp(_) => ErrorCode::InvalidTimestamp,
            Self::Records { faults } => {
                let of_time = |fault: &RecordFault| matches!(fault.kind, RecordFaultKind::Timestamp { .. });
                if faults.iter().any(of_time) {
                    ErrorCode::InvalidTimestamp
                } else {
                    ErrorCode::InvalidRecord
                }
            }
            Self::NoBatch
            | Self::SeveralBatches
            | Self::BaseOffset(_)
            | Self::Count { .. }
            | Self::Control
            | Self::Sequence(_)
            | Self::Malformed { .. } => ErrorCode::InvalidRecord,
        }
    }

    /// The faults of single records, for the `record_errors` of a produce response (KIP-467);
    /// empty where the batch as a whole is at fault.
    pub fn record_faults(&self) -> &[RecordFault] {
        match self {
            Self::Records { faults } => faults,
            _ => &[],
        }
    }
}

/// A size, or "more than" the limit where it was not worked out.
struct AtLeast(usize, usize);

impl fmt::Display for AtLeast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self(0, limit) => write!(f, "more than {limit}"),
            Self(size, _) => size.fmt(f),
        }
    }
}

/// The first three faults, as Kafka's message shows them.
struct First<'a>(&'a [RecordFault]);

impl fmt::Display for First<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, fault) in self.0.iter().take(3).enumerate() {
            let separator = if i == 0 { "" } else { "; " };
            write!(f, "{separator}record {}: {}", fault.index, fault.kind)?;
        }
        match self.0.len() {
            0..=3 => Ok(()),
            more => write!(f, "; {} more", more - 3),
        }
    }
}
