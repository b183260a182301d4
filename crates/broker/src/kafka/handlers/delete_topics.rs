//! DeleteTopics (key 20), versions 1–6: by name, from version 6 on also by id. Forwarded to the active
//! controller.

use kafka_protocol::{
    messages::{
        ApiKey, DeleteTopicsRequest, DeleteTopicsResponse, TopicName as WireTopicName,
        delete_topics_response::DeletableTopicResult,
    },
    protocol::StrBytes,
};
use protocol::{
    TopicId,
    grpc::v1::{self, TopicRef},
};
use uuid::Uuid;

use crate::kafka::{Request, admin, api::Api};

pub(crate) const API: Api = Api::new(ApiKey::DeleteTopics, 1, 6);

pub(crate) async fn handle(request: Request, message: DeleteTopicsRequest) -> DeleteTopicsResponse {
    let (timeout_ms, deadline) = admin::deadline(message.timeout_ms);
    let by_name = message.topic_names.iter().map(|name| TopicRef {
        name: name.to_string(),
        ..TopicRef::default()
    });
    let by_either = message.topics.iter().map(|topic| TopicRef {
        name: topic
            .name
            .as_ref()
            .map_or_else(String::new, |name| name.to_string()),
        topic_id: if topic.name.is_none() {
            TopicId(topic.topic_id).to_vec().into()
        } else {
            Vec::new().into()
        },
    });
    let topics: Vec<TopicRef> = by_name.chain(by_either).collect();
    let delete = v1::DeleteTopicsRequest {
        topics: topics.clone(),
        timeout_ms,
    };
    let responses = match request.broker.controller.delete_topics(delete, deadline).await {
        Ok(reply) => reply
            .topics
            .into_iter()
            .map(|topic| result(&request, topic.name, &topic.topic_id, admin::outcome(topic.error)))
            .collect(),
        Err(error) => topics
            .into_iter()
            .map(|topic| result(&request, topic.name, &topic.topic_id, admin::failure(&error)))
            .collect(),
    };
    DeleteTopicsResponse::default().with_responses(responses)
}

fn result(
    request: &Request,
    name: String,
    topic_id: &[u8],
    (code, text): (i16, Option<StrBytes>),
) -> DeletableTopicResult {
    let result = DeletableTopicResult::default()
        // Null names are allowed from version 6 on.
        .with_name(
            (!name.is_empty() || request.version < 6).then(|| WireTopicName(StrBytes::from_string(name))),
        )
        .with_error_code(code);
    let result = if request.version >= 5 {
        result.with_error_message(text)
    } else {
        result
    };
    if request.version >= 6 {
        result.with_topic_id(TopicId::from_slice(topic_id).map_or_else(Uuid::nil, |id| id.0))
    } else {
        result
    }
}
