//! A topic as a request names it: by name up to some version of its API, by id from then on.

use std::sync::Arc;

use kafka_protocol::messages::TopicName as WireTopicName;
use metadata::{ClusterImage, Topic};
use protocol::{ErrorCode, TopicId, TopicName};
use uuid::Uuid;

/// How the client named the topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TopicRef {
    /// By name, which may not be a valid one.
    Name(String),
    /// By id, which may be zero.
    Id(TopicId),
}

/// The reference that a request of either kind carries.
pub(crate) fn by_version(by_id: bool, name: &WireTopicName, id: Uuid) -> TopicRef {
    if by_id {
        TopicRef::Id(TopicId(id))
    } else {
        TopicRef::Name(name.to_string())
    }
}

impl TopicRef {
    /// The topic, or the error that Kafka gives for one that is not there.
    pub(crate) fn look_up<'a>(&self, image: &'a ClusterImage) -> Result<&'a Arc<Topic>, ErrorCode> {
        match self {
            // What cannot be a name names a topic that is not there.
            Self::Name(name) => TopicName::new(name)
                .ok()
                .and_then(|name| image.topic(name.as_str()))
                .ok_or(ErrorCode::UnknownTopicOrPartition),
            Self::Id(id) => image.topics.get(id).ok_or(ErrorCode::UnknownTopicId),
        }
    }

    /// The id for the answer: zero where the client named the topic by name.
    pub(crate) fn wire_id(&self) -> Uuid {
        match self {
            Self::Name(_) => Uuid::nil(),
            Self::Id(id) => id.0,
        }
    }
}
