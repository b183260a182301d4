//! DeleteRecords (key 21), versions 0–2: moves the log start of partitions that this broker leads.
//! Offset −1 stands for the high watermark. Internal topics are refused, as by Kafka.

use ::metadata::configs::TopicSettings;
use kafka_protocol::messages::{
    ApiKey, DeleteRecordsRequest, DeleteRecordsResponse,
    delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult},
};
use protocol::{ErrorCode, Offset, PartitionIndex, TopicPartition};

use crate::kafka::{Request, admin, api::Api, topic_ref::TopicRef};

pub(crate) const API: Api = Api::new(ApiKey::DeleteRecords, 0, 2);

pub(crate) async fn handle(request: Request, message: DeleteRecordsRequest) -> DeleteRecordsResponse {
    let (_, deadline) = admin::deadline(message.timeout_ms);
    let image = request.broker.images.current();
    let mut topics = Vec::with_capacity(message.topics.len());
    for topic in message.topics {
        let reference = TopicRef::Name(topic.name.to_string());
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in &topic.partitions {
            let replica = reference.look_up(&image).and_then(|topic| {
                if topic.name.is_internal() {
                    return Err(ErrorCode::InvalidTopicException);
                }
                let tp = TopicPartition::new(topic.id, PartitionIndex(asked.partition_index));
                let replica = request.broker.replicas.partition(tp)?;
                let settings =
                    TopicSettings::resolve(&image, &topic.name, &request.broker.config.node_defaults);
                // Compaction alone decides there what goes.
                if settings.cleanup_policy.delete {
                    Ok(replica)
                } else {
                    Err(ErrorCode::PolicyViolation)
                }
            });
            let up_to = match asked.offset {
                -1 => Ok(None),
                offset @ 0.. => Ok(Some(Offset(offset))),
                _ => Err(ErrorCode::OffsetOutOfRange),
            };
            let deleted = match (replica, up_to) {
                (Ok(replica), Ok(up_to)) => {
                    match tokio::time::timeout_at(deadline, replica.delete_records(up_to)).await {
                        Ok(Ok(low_watermark)) => Ok(low_watermark),
                        Ok(Err(refused)) => Err(refused.code()),
                        Err(_) => Err(ErrorCode::RequestTimedOut),
                    }
                }
                (Err(error), _) | (_, Err(error)) => Err(error),
            };
            let result = DeleteRecordsPartitionResult::default().with_partition_index(asked.partition_index);
            partitions.push(match deleted {
                Ok(low_watermark) => result.with_low_watermark(low_watermark.get()),
                Err(error) => result.with_low_watermark(-1).with_error_code(error.code()),
            });
        }
        topics.push(
            DeleteRecordsTopicResult::default()
                .with_name(topic.name)
                .with_partitions(partitions),
        );
    }
    DeleteRecordsResponse::default().with_topics(topics)
}
