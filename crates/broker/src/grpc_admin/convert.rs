//! Between the public messages and the controller's.

use metadata::configs::ConfigSource;
use protocol::{
    TopicId,
    grpc::v1::{
        AdminNewTopic, AdminTopicResult, ConfigEntry, CreatedTopic, DeletedTopic, NewTopic, ReplicaAssignment,
    },
};

/// A topic to create. Absent counts are the cluster's defaults.
pub(super) fn new_topic(topic: AdminNewTopic) -> NewTopic {
    let mut assignments: Vec<ReplicaAssignment> = topic
        .assignments
        .into_iter()
        .map(|(partition, replicas)| ReplicaAssignment {
            partition,
            brokers: replicas.broker_ids,
        })
        .collect();
    assignments.sort_by_key(|assignment| assignment.partition);
    NewTopic {
        name: topic.name,
        partitions: topic.partitions.unwrap_or(-1),
        replication_factor: topic.replication_factor.unwrap_or(-1),
        assignments,
        configs: topic
            .configs
            .into_iter()
            .map(|(key, value)| ConfigEntry {
                key,
                value: Some(value),
            })
            .collect(),
    }
}

/// What became of a topic to create.
pub(super) fn created_topic(topic: CreatedTopic) -> AdminTopicResult {
    AdminTopicResult {
        name: topic.name,
        topic_id: id_text(&topic.topic_id),
        error: topic.error,
        partitions: topic.partitions,
        replication_factor: topic.replication_factor,
    }
}

/// What became of a topic to delete.
pub(super) fn deleted_topic(topic: DeletedTopic) -> AdminTopicResult {
    AdminTopicResult {
        name: topic.name,
        topic_id: id_text(&topic.topic_id),
        error: topic.error,
        partitions: 0,
        replication_factor: 0,
    }
}

/// Kafka's words for where a value comes from.
pub(super) fn config_source(source: ConfigSource) -> &'static str {
    match source {
        ConfigSource::Topic => "DYNAMIC_TOPIC_CONFIG",
        ConfigSource::DynamicBroker => "DYNAMIC_BROKER_CONFIG",
        ConfigSource::DynamicDefaultBroker => "DYNAMIC_DEFAULT_BROKER_CONFIG",
        ConfigSource::StaticBroker => "STATIC_BROKER_CONFIG",
        ConfigSource::Default => "DEFAULT_CONFIG",
        ConfigSource::Group => "GROUP_CONFIG",
    }
}

/// An id as Kafka's tools print it; empty where there is none.
fn id_text(id: &[u8]) -> String {
    TopicId::from_slice(id)
        .filter(|id| !id.is_zero())
        .map_or_else(String::new, |id| id.to_string())
}
