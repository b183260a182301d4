//! What one log is told about itself: the storage part of a topic's configuration.

use std::time::Duration;

use protocol::batch::TimestampType;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A log's settings. Defaults are Kafka's, but for `flush_messages`.
#[derive(Clone, Debug, PartialEq)]
pub struct LogConfig {
    /// `segment.bytes`: a segment is rolled before it grows past this many bytes.
    pub segment_bytes: u32,
    /// `segment.ms`: a segment is rolled when its first batch is this old.
    pub segment_ms: Duration,
    /// `index.interval.bytes`: one index entry for about this many bytes of batches.
    pub index_interval_bytes: u32,
    /// `segment.index.bytes`: a segment is rolled when an index would grow past this many bytes.
    pub segment_index_bytes: u32,
    /// `retention.ms`: segments whose largest timestamp is older are deleted; `None` keeps them.
    pub retention_ms: Option<Duration>,
    /// `retention.bytes`: the oldest segments are deleted while the log is larger; `None` keeps them.
    pub retention_bytes: Option<u64>,
    /// `max.message.bytes`: the largest batch that clients may append, in bytes.
    pub max_message_bytes: u32,
    /// `flush.messages`: 1 (Ottla's default) makes a record durable by fdatasync before it is
    /// acknowledged; `u64::MAX` (Kafka's default) calls the page cache durable; between them, the
    /// page cache is durable and a flush is due after this many records.
    pub flush_messages: u64,
    /// `flush.ms`: a flush is due when a record is this long unflushed; `None`: never by time.
    pub flush_ms: Option<Duration>,
    /// `cleanup.policy` contains `delete`: retention applies.
    pub delete: bool,
    /// `cleanup.policy` contains `compact`: of each key, the last record is kept.
    pub compact: bool,
    /// `min.cleanable.dirty.ratio`: the dirty share, 0 to 1, from which on a log is compacted.
    pub min_cleanable_dirty_ratio: f64,
    /// `min.compaction.lag.ms`: segments with a younger record are not compacted.
    pub min_compaction_lag: Duration,
    /// `max.compaction.lag.ms`: a log with an older dirty record is compacted however little of it is
    /// dirty; `None`: never for that.
    pub max_compaction_lag: Option<Duration>,
    /// `delete.retention.ms`: how long a tombstone stays after a compaction has met it.
    pub delete_retention: Duration,
    /// `file.delete.delay.ms`: how long a deleted segment's files stay, renamed `.deleted`. Zero
    /// removes them at once.
    pub file_delete_delay: Duration,
    /// `preallocate`: reserve a whole segment when it is created; otherwise space is reserved in
    /// steps, ahead of the writes.
    pub preallocate: bool,
    /// `message.timestamp.type`.
    pub message_timestamp_type: TimestampType,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            segment_bytes: 1 << 30,
            segment_ms: 7 * DAY,
            index_interval_bytes: 4096,
            segment_index_bytes: 10 << 20,
            retention_ms: Some(7 * DAY),
            retention_bytes: None,
            max_message_bytes: 1_048_588,
            flush_messages: 1,
            flush_ms: None,
            delete: true,
            compact: false,
            min_cleanable_dirty_ratio: 0.5,
            min_compaction_lag: Duration::ZERO,
            max_compaction_lag: None,
            delete_retention: DAY,
            file_delete_delay: Duration::from_secs(60),
            preallocate: false,
            message_timestamp_type: TimestampType::CreateTime,
        }
    }
}

impl LogConfig {
    /// Whether an acknowledged record has been through fdatasync.
    pub fn syncs_before_ack(&self) -> bool {
        self.flush_messages <= 1
    }

    /// After how long a segment is rolled. `max.compaction.lag.ms` holds for the active segment's
    /// records too, which are compacted only once it is sealed.
    pub(crate) fn segment_ms(&self) -> i64 {
        let lag = self.max_compaction_lag.filter(|_| self.compact);
        millis(lag.map_or(self.segment_ms, |lag| lag.min(self.segment_ms)))
    }

    pub(crate) fn min_compaction_lag_ms(&self) -> i64 {
        millis(self.min_compaction_lag)
    }

    pub(crate) fn max_compaction_lag_ms(&self) -> Option<i64> {
        self.max_compaction_lag.map(millis)
    }

    pub(crate) fn delete_retention_ms(&self) -> i64 {
        millis(self.delete_retention)
    }

    pub(crate) fn retention_ms(&self) -> Option<i64> {
        self.retention_ms.map(millis)
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
