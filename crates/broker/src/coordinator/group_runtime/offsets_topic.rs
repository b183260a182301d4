//! Creates `__consumer_offsets` when the first group asks for its coordinator.

use std::sync::Arc;
use std::time::Duration;

use metadata::ClusterImage;
use protocol::grpc::v1::{ConfigEntry, CreateTopicsReply, CreateTopicsRequest, NewTopic};
use protocol::{CONSUMER_OFFSETS, ErrorCode};
use tokio::time::Instant;

use super::placement::offsets_topic;
use crate::config::GroupSettings;
use crate::controller_client::ControllerClient;
use crate::session::ImageStore;

/// How long a broker that has just started waits for others before the topic is created with fewer
/// replicas than were asked for: the brokers of a new cluster do not all start in the same second, and a
/// replication factor stays.
const GRACE: Duration = Duration::from_secs(10);

/// How long one request waits for the topic; its client asks again.
const CREATE_WAIT: Duration = Duration::from_secs(5);

/// The topic and its creation. A clone is a handle to the same.
#[derive(Clone, Debug)]
pub(super) struct OffsetsTopic {
    images: ImageStore,
    controller: ControllerClient,
    settings: Arc<GroupSettings>,
    started: Instant,
    /// One creation at a time.
    creating: Arc<tokio::sync::Mutex<()>>,
}

impl OffsetsTopic {
    /// For a broker that started at `started`.
    pub(super) fn new(
        images: ImageStore,
        controller: ControllerClient,
        settings: Arc<GroupSettings>,
        started: Instant,
    ) -> Self {
        Self {
            images,
            controller,
            settings,
            started,
            creating: Arc::default(),
        }
    }

    /// An image that has the topic. Creates it where it is not there; `CoordinatorNotAvailable`, with a
    /// sentence, where that does not work now.
    pub(super) async fn ensure(&self) -> Result<Arc<ClusterImage>, (ErrorCode, String)> {
        let image = self.images.current();
        if offsets_topic(&image).is_some() {
            return Ok(image);
        }
        let deadline = Instant::now() + CREATE_WAIT;
        let unavailable = |why: String| (ErrorCode::CoordinatorNotAvailable, why);
        let Ok(_turn) = tokio::time::timeout_at(deadline, self.creating.lock()).await else {
            return Err(unavailable(format!("{CONSUMER_OFFSETS} is being created")));
        };
        let image = self.images.current();
        if offsets_topic(&image).is_some() {
            return Ok(image);
        }
        let live = i32::try_from(image.live_brokers().count()).unwrap_or(i32::MAX);
        let wanted = self.settings.topic_replication_factor;
        if live == 0 || (live < wanted && self.started.elapsed() < GRACE) {
            return Err(unavailable(format!(
                "{CONSUMER_OFFSETS} is to have {wanted} replicas, and {live} brokers are there yet"
            )));
        }
        if live < wanted {
            tracing::warn!(
                wanted,
                live,
                "{CONSUMER_OFFSETS} is created with as many replicas as there are brokers; \
                 offsets.topic.replication.factor asks for more"
            );
        }
        let request = self.request(wanted.min(live));
        match self.controller.create_topics(request, deadline).await {
            Ok(reply) => match refusal(reply) {
                None => {
                    let image = self.images.current();
                    tracing::info!(
                        partitions = self.settings.topic_partitions,
                        "{CONSUMER_OFFSETS} was created"
                    );
                    Ok(image)
                }
                Some(why) => Err(unavailable(format!(
                    "{CONSUMER_OFFSETS} cannot be created: {why}"
                ))),
            },
            Err(error) => Err(unavailable(format!(
                "{CONSUMER_OFFSETS} cannot be created: {error}"
            ))),
        }
    }

    fn request(&self, replication_factor: i32) -> CreateTopicsRequest {
        let config = |key: &str, value: String| ConfigEntry {
            key: key.to_owned(),
            value: Some(value),
        };
        CreateTopicsRequest {
            topics: vec![NewTopic {
                name: CONSUMER_OFFSETS.to_owned(),
                partitions: self.settings.topic_partitions,
                replication_factor,
                configs: vec![
                    config("cleanup.policy", String::from("compact")),
                    config("compression.type", String::from("producer")),
                    config("segment.bytes", self.settings.topic_segment_bytes.to_string()),
                ],
                ..NewTopic::default()
            }],
            validate_only: false,
            timeout_ms: CREATE_WAIT.as_millis() as u32,
            auto_create: false,
        }
    }
}

/// Why the controller did not create it; another broker may have been faster.
fn refusal(reply: CreateTopicsReply) -> Option<String> {
    let error = reply.topics.into_iter().next()?.error?;
    let exists = i32::from(ErrorCode::TopicAlreadyExists.code());
    (error.code != 0 && error.code != exists).then_some(error.message)
}
