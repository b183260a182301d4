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
    ErrorCode, TopicId,
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
        topic_id: if topic.topic_id.is_nil() {
            Vec::new().into()
        } else {
            TopicId(topic.topic_id).to_vec().into()
        },
    });
    let (topics, ambiguous): (Vec<TopicRef>, Vec<TopicRef>) = by_name
        .chain(by_either)
        .partition(|topic| topic.name.is_empty() != topic.topic_id.is_empty());
    let delete = v1::DeleteTopicsRequest {
        topics: topics.clone(),
        timeout_ms,
    };
    let mut responses: Vec<_> = match request.broker.controller.delete_topics(delete, deadline).await {
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
    responses.extend(ambiguous.into_iter().map(|topic| {
        let refusal = admin::refusal(
            ErrorCode::InvalidRequest,
            "a topic is named by its name or by its id, not by both",
        );
        result(&request, topic.name, &topic.topic_id, refusal)
    }));
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
