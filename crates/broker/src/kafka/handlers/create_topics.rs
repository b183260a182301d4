//! CreateTopics (key 19), versions 2–7: forwarded to the active controller, answered once every live
//! broker has applied the result (within the request's timeout).

use std::collections::BTreeSet;

use kafka_protocol::{
    messages::{
        ApiKey, CreateTopicsRequest, CreateTopicsResponse,
        create_topics_request::CreatableTopic,
        create_topics_response::{CreatableTopicConfigs, CreatableTopicResult},
    },
    protocol::StrBytes,
};
use protocol::{
    TopicId,
    grpc::v1::{self, ConfigEntry, NewTopic, ReplicaAssignment},
};
use uuid::Uuid;

use crate::kafka::{Request, admin, api::Api};

pub(crate) const API: Api = Api::new(ApiKey::CreateTopics, 2, 7);

/// DescribeConfigs' numbers for a value set for the topic itself, and for one that it only inherits.
const SOURCE_TOPIC: i8 = 1;
const SOURCE_DEFAULT: i8 = 5;

pub(crate) async fn handle(request: Request, message: CreateTopicsRequest) -> CreateTopicsResponse {
    let (timeout_ms, deadline) = admin::deadline(message.timeout_ms);
    let names: Vec<_> = message.topics.iter().map(|topic| topic.name.clone()).collect();
    let own_keys: BTreeSet<(String, String)> = message
        .topics
        .iter()
        .flat_map(|topic| {
            let name = topic.name.to_string();
            let keys = topic.configs.iter().map(|config| config.name.to_string());
            keys.map(move |key| (name.clone(), key))
        })
        .collect();
    let create = v1::CreateTopicsRequest {
        topics: message.topics.into_iter().map(new_topic).collect(),
        validate_only: message.validate_only,
        timeout_ms,
        auto_create: false,
    };
    let topics = match request.broker.controller.create_topics(create, deadline).await {
        Ok(reply) => reply
            .topics
            .into_iter()
            .map(|topic| result(&request, topic, &own_keys))
            .collect(),
        Err(error) => names
            .into_iter()
            .map(|name| {
                let (code, text) = admin::failure(&error);
                CreatableTopicResult::default()
                    .with_name(name)
                    .with_error_code(code)
                    .with_error_message(text)
                    .with_num_partitions(-1)
                    .with_replication_factor(-1)
            })
            .collect(),
    };
    CreateTopicsResponse::default().with_topics(topics)
}

fn new_topic(topic: CreatableTopic) -> NewTopic {
    NewTopic {
        name: topic.name.to_string(),
        partitions: topic.num_partitions,
        replication_factor: topic.replication_factor.into(),
        assignments: topic
            .assignments
            .into_iter()
            .map(|assignment| ReplicaAssignment {
                partition: assignment.partition_index,
                brokers: assignment.broker_ids.into_iter().map(|id| id.0).collect(),
            })
            .collect(),
        configs: topic
            .configs
            .into_iter()
            .map(|config| ConfigEntry {
                key: config.name.to_string(),
                value: config.value.map(|value| value.to_string()),
            })
            .collect(),
    }
}

/// `own_keys` are the (topic, key) pairs that the request sets.
fn result(
    request: &Request,
    topic: v1::CreatedTopic,
    own_keys: &BTreeSet<(String, String)>,
) -> CreatableTopicResult {
    let (code, text) = admin::outcome(topic.error);
    let result = CreatableTopicResult::default()
        .with_name(StrBytes::from_string(topic.name.clone()).into())
        .with_error_code(code)
        .with_error_message(text);
    if code != 0 || request.version < 5 {
        return result
            .with_num_partitions(-1)
            .with_replication_factor(-1)
            .with_configs((request.version >= 5).then(Vec::new));
    }
    let configs = topic.configs.into_iter().map(|config| {
        let own = own_keys.contains(&(topic.name.clone(), config.key.clone()));
        CreatableTopicConfigs::default()
            .with_name(StrBytes::from_string(config.key))
            .with_value(config.value.map(StrBytes::from_string))
            .with_config_source(if own { SOURCE_TOPIC } else { SOURCE_DEFAULT })
    });
    let result = result
        .with_num_partitions(topic.partitions)
        .with_replication_factor(topic.replication_factor as i16)
        .with_configs(Some(configs.collect()));
    if request.version < 7 {
        return result;
    }
    result.with_topic_id(TopicId::from_slice(&topic.topic_id).map_or_else(Uuid::nil, |id| id.0))
}
