//! Appends what a client produced: looks the replica up, has the batch judged, and queues it.

use std::time::Duration;

use ::metadata::{ClusterImage, Topic, configs::TopicSettings};
use bytes::Bytes;
use protocol::{ErrorCode, PartitionIndex, TopicPartition, batch::TimestampType};
use replication::{Acks, AppendRefused, AppendTicket, ProduceAppend};

use crate::{
    context::BrokerContext,
    metric_names,
    records::{RecordError, RecordRules},
};

/// How a client produces, as far as it decides what is taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Producing {
    pub(crate) acks: Acks,
    /// Whether the client knows of Zstandard (KIP-110).
    pub(crate) zstd: bool,
    /// Whether it may write to internal topics.
    pub(crate) internal_topics: bool,
}

/// Why a batch was not appended, or not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) error: ErrorCode,
    pub(crate) message: String,
    /// What is wrong with single records (KIP-467), by their index in the batch.
    pub(crate) faults: Vec<(i32, String)>,
}

impl Refusal {
    pub(crate) fn new(error: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            error,
            message: message.into(),
            faults: Vec::new(),
        }
    }
}

impl From<AppendRefused> for Refusal {
    fn from(refused: AppendRefused) -> Self {
        Self::new(refused.code(), refused.to_string())
    }
}

impl From<RecordError> for Refusal {
    fn from(error: RecordError) -> Self {
        let faults = error.record_faults().iter();
        Self {
            error: error.code(),
            message: error.to_string(),
            faults: faults
                .map(|fault| (fault.index, fault.kind.to_string()))
                .collect(),
        }
    }
}

/// Validates `batches`, of which there must be one, and queues it. Appends are made in the order in which
/// these calls end.
pub(crate) async fn begin(
    broker: &BrokerContext,
    image: &ClusterImage,
    topic: &Topic,
    partition: PartitionIndex,
    batches: Option<Bytes>,
    producing: Producing,
) -> Result<AppendTicket, Refusal> {
    if topic.name.is_internal() && !producing.internal_topics {
        let why = format!("Cannot append to internal topic {}", topic.name);
        return Err(Refusal::new(ErrorCode::InvalidTopicException, why));
    }
    let replica = broker
        .replicas
        .partition(TopicPartition::new(topic.id, partition))
        .map_err(|error| Refusal::new(error, format!("{error}: {}-{partition}", topic.name)))?;
    // Before the records are looked at: see `check_produce`.
    replica.check_produce(producing.acks)?;
    let settings = TopicSettings::resolve(image, &topic.name, &broker.config.node_defaults);
    let rules = rules(broker, producing, &settings);
    let Some(batches) = batches.filter(|batches| !batches.is_empty()) else {
        return Err(Refusal::new(
            ErrorCode::InvalidRecord,
            "the request has no record batch for the partition",
        ));
    };
    let bytes = batches.len() as u64;
    let valid = broker.validator.validate(batches, rules).await?;
    metrics::counter!(metric_names::TOPIC_BYTES_IN).increment(bytes);
    metrics::counter!(metric_names::RECORDS_IN).increment(valid.record_count.unsigned_abs().into());
    Ok(replica.append(ProduceAppend {
        batches: valid.batches,
        acks: producing.acks,
        leader_epoch: None,
        log_append_time: (rules.timestamp_type == TimestampType::LogAppendTime).then_some(rules.now_ms),
    }))
}

/// By what the topic's records are judged.
fn rules(broker: &BrokerContext, producing: Producing, settings: &TopicSettings) -> RecordRules {
    let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    RecordRules {
        max_message_bytes: settings.max_message_bytes as usize,
        compacted: settings.cleanup_policy.compact,
        timestamp_type: settings.timestamp_type,
        before_max_ms: settings.timestamp_before_max.map_or(i64::MAX, millis),
        after_max_ms: millis(settings.timestamp_after_max),
        compression: settings.compression,
        header_only: broker.config.batch_validation_header_only,
        zstd: producing.zstd,
        transactional: false,
        now_ms: now_ms(),
    }
}

/// Milliseconds since 1970, as record timestamps count.
pub(crate) fn now_ms() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |elapsed| {
            i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)
        })
}
