//! Topics that come to be because a client asks for them (`auto.create.topics.enable`).

use std::collections::BTreeMap;
use std::time::Duration;

use protocol::grpc::v1::{CreateTopicsRequest, NewTopic};
use protocol::{CONSUMER_OFFSETS, ErrorCode, TopicName};
use tokio::time::Instant;

use crate::context::BrokerContext;

/// How long an answer waits for a topic that it causes to be created.
const WAIT: Duration = Duration::from_secs(2);

/// Creates those of the topics that have a valid name and are not there. Returns what went wrong, by
/// name; what else was created is in this broker's image.
pub(crate) async fn create_missing<'a>(
    broker: &BrokerContext,
    names: impl Iterator<Item = &'a str>,
) -> BTreeMap<String, ErrorCode> {
    let image = broker.images.current();
    let missing: Vec<NewTopic> = names
        .filter(|name| image.topic(name).is_none() && TopicName::new(name).is_ok())
        .map(|name| NewTopic {
            name: name.to_owned(),
            partitions: -1,
            replication_factor: -1,
            ..NewTopic::default()
        })
        .collect();
    // The coordinator knows how its topic must look.
    let (internal, missing): (Vec<_>, Vec<_>) = missing
        .into_iter()
        .partition(|topic| topic.name == CONSUMER_OFFSETS);
    if !internal.is_empty()
        && let Err((error, why)) = broker.groups.ensure_topic().await
    {
        tracing::debug!(%error, %why, "automatic creation of {CONSUMER_OFFSETS} failed");
    }
    if missing.is_empty() {
        return BTreeMap::new();
    }
    let create = CreateTopicsRequest {
        topics: missing,
        validate_only: false,
        timeout_ms: WAIT.as_millis() as u32,
        auto_create: true,
    };
    let wanted: Vec<String> = create.topics.iter().map(|topic| topic.name.clone()).collect();
    let reply = match broker
        .controller
        .create_topics(create, Instant::now() + WAIT)
        .await
    {
        Ok(reply) => reply,
        // The client asks again; by then the topic may be there.
        Err(error) => {
            tracing::debug!(%error, "automatic topic creation failed");
            return wanted
                .into_iter()
                .map(|name| (name, ErrorCode::LeaderNotAvailable))
                .collect();
        }
    };
    reply
        .topics
        .into_iter()
        .filter_map(|topic| {
            let code = topic.error.map_or(0, |error| error.code) as i16;
            match ErrorCode::from_code(code).unwrap_or(ErrorCode::LeaderNotAvailable) {
                ErrorCode::None | ErrorCode::TopicAlreadyExists => None,
                error => Some((topic.name, error)),
            }
        })
        .collect()
}
