//! What the handlers of group requests share: who asks, and which topics there are.

use futures::StreamExt;
use kafka_protocol::protocol::StrBytes;
use metadata::{ClusterImage, Topic};
use protocol::{ErrorCode, PartitionIndex};

use super::Request;
use crate::coordinator::group::{Caller, GroupReply, GroupRequest};

/// The client as the coordinator knows it.
pub(super) fn caller(request: &Request) -> Caller {
    Caller {
        client_id: request.client_id.clone(),
        // Kafka shows addresses as Java prints them, behind the name that was not looked up.
        client_host: StrBytes::from_string(format!("/{}", request.client_address)),
        api_version: request.version,
    }
}

/// Groups of one request that are asked about at a time.
const AT_ONCE: usize = 32;

/// Answers for many groups, in their order. Few at a time: one client must not fill a shard's queue.
pub(super) async fn each<T>(calls: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    futures::stream::iter(calls).buffered(AT_ONCE).collect().await
}

/// Has the group's coordinator answer.
pub(super) async fn call(request: &Request, asked: GroupRequest) -> GroupReply {
    request.broker.groups.call(caller(request), asked).await
}

/// The code for an answer that belongs to another request: a bug, which is told and not hidden.
pub(super) fn mismatch(reply: &GroupReply) -> i16 {
    tracing::error!(?reply, "the group coordinator answered another request");
    ErrorCode::UnknownServerError.code()
}

/// Whether the partition is there, as the image knows it: nothing is committed for, or deleted from, one
/// that is not.
pub(super) fn partition_of(topic: Option<&Topic>, partition: i32) -> Result<(), ErrorCode> {
    match topic {
        Some(topic) if topic.partitions.contains_key(&PartitionIndex(partition)) => Ok(()),
        _ => Err(ErrorCode::UnknownTopicOrPartition),
    }
}

/// A topic by its name on the wire.
pub(super) fn topic<'a>(image: &'a ClusterImage, name: &str) -> Option<&'a Topic> {
    image.topic(name).map(AsRef::as_ref)
}
