//! By what a topic's records are judged, and what is known of them afterwards.

use bytes::Bytes;
use metadata::configs::TopicCompression;
use protocol::batch::{Compression, TimestampType};

/// What a topic, and the request that carries its records, allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordRules {
    /// `max.message.bytes`: the largest batch, in bytes, header included.
    pub max_message_bytes: usize,
    /// Whether `cleanup.policy` contains `compact`: every record needs a key.
    pub compacted: bool,
    /// `message.timestamp.type`. With LogAppendTime the producer's timestamps do not matter; the
    /// log writes its own.
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`.
    pub before_max_ms: i64,
    /// `message.timestamp.after.max.ms`.
    pub after_max_ms: i64,
    /// `compression.type`.
    pub compression: TopicCompression,
    /// `ottla.batch.validation=header`: check the header and the checksum, trust the records.
    /// Compacted topics are walked all the same, since the cleaner relies on keys.
    pub header_only: bool,
    /// Whether Zstandard is allowed: from produce version 7 on.
    pub zstd: bool,
    /// Whether the batch may be part of a transaction.
    pub transactional: bool,
    /// The broker's clock, in milliseconds since 1970.
    pub now_ms: i64,
}

impl Default for RecordRules {
    /// Kafka's defaults for a topic, a current client, no transaction, and a clock at 0.
    fn default() -> Self {
        Self {
            max_message_bytes: 1_048_588,
            compacted: false,
            timestamp_type: TimestampType::CreateTime,
            before_max_ms: i64::MAX,
            after_max_ms: 3_600_000,
            compression: TopicCompression::Producer,
            header_only: false,
            zstd: true,
            transactional: false,
            now_ms: 0,
        }
    }
}

impl RecordRules {
    /// The earliest and the latest timestamp that a record may have.
    pub(super) fn timestamps(&self) -> (i64, i64) {
        (
            self.now_ms.saturating_sub(self.before_max_ms),
            self.now_ms.saturating_add(self.after_max_ms),
        )
    }

    /// Whether a record may have this timestamp; −1 is "none" and always allowed.
    pub(super) fn allows_timestamp(&self, timestamp: i64) -> bool {
        let (earliest, latest) = self.timestamps();
        self.timestamp_type == TimestampType::LogAppendTime
            || timestamp == -1
            || (earliest..=latest).contains(&timestamp)
    }
}

/// A batch that may be appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Validated {
    /// The batch: the very bytes that came, unless it was recompressed or its max timestamp was
    /// wrong. Base offset 0; a LogAppendTime is for the log to set.
    pub batches: Bytes,
    /// Its records.
    pub record_count: i32,
    /// The largest timestamp in milliseconds since 1970, −1 where no record has one.
    pub max_timestamp: i64,
    /// Offset of the first record with that timestamp relative to the first of the batch; `None`
    /// where no record has a timestamp or only the header was looked at.
    pub offset_of_max_timestamp: Option<i32>,
    /// How the producer had compressed it.
    pub source_compression: Compression,
}
