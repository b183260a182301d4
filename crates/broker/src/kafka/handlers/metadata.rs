//! Metadata (key 3), versions 0–13: brokers, topics, partitions and who leads them.
//!
//! Answers from this broker's image. Where `auto.create.topics.enable` and the request allow it, a
//! topic that is not there is created, and the answer waits (briefly) until this broker knows it. The
//! broker named as controller is a live broker: any broker forwards admin requests.

use std::{collections::BTreeMap, sync::Arc};

use ::metadata::{ClusterImage, PartitionRegistration, Topic};
use kafka_protocol::{
    messages::{
        ApiKey, BrokerId as WireBrokerId, MetadataRequest, MetadataResponse, TopicName as WireTopicName,
        metadata_response::{MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic},
    },
    protocol::StrBytes,
};
use protocol::{BrokerId, ErrorCode, PartitionIndex, TopicId, TopicName};
use tokio::time::Instant;

use crate::{
    auto_create,
    kafka::{Request, api::Api, authorized_operations, cluster_view},
};

pub(crate) const API: Api = Api::new(ApiKey::Metadata, 0, 13);

/// What a client asked for: a name, an id or (answering either) why neither can be looked up.
enum Wanted {
    Name(String),
    Id(TopicId),
}

pub(crate) async fn handle(request: Request, message: MetadataRequest) -> MetadataResponse {
    let wanted = wanted(&request, &message);
    // Before version 4 clients could not say no.
    let may_create = request.version < 4 || message.allow_auto_topic_creation;
    let mut creation_errors = BTreeMap::new();
    if let (Some(wanted), true) = (&wanted, may_create && request.broker.config.auto_create_topics) {
        let names = wanted.iter().filter_map(|wanted| match wanted {
            Wanted::Name(name) => Some(name.as_str()),
            Wanted::Id(_) => None,
        });
        creation_errors = auto_create::create_missing(&request.broker, names).await;
    }
    let image = settled_image(&request, wanted.as_deref()).await;
    let topic_operations = authorized_operations::when(
        message.include_topic_authorized_operations && request.version >= 8,
        authorized_operations::ALL_OF_TOPIC,
    );
    let topics = match wanted {
        None => image
            .topics
            .values()
            .map(|topic| describe(&request, &image, topic))
            .collect(),
        Some(wanted) => wanted
            .iter()
            .map(|wanted| match look_up(&image, wanted) {
                Ok(topic) => describe(&request, &image, topic),
                Err(error) => absent(&request, wanted, &creation_errors, error),
            })
            .collect::<Vec<_>>(),
    };
    let topics = topics
        .into_iter()
        .map(|topic| topic.with_topic_authorized_operations(topic_operations))
        .collect();
    let nodes = cluster_view::live_nodes(&image, &request.listener);
    let controller =
        cluster_view::stand_in_controller(&image, &request.listener, request.broker.config.node_id);
    let brokers = nodes.into_iter().map(|node| {
        MetadataResponseBroker::default()
            .with_node_id(WireBrokerId(node.id.get()))
            .with_host(StrBytes::from_string(node.host))
            .with_port(i32::from(node.port))
            .with_rack(node.rack.map(StrBytes::from_string))
    });
    let cluster_operations = authorized_operations::when(
        message.include_cluster_authorized_operations && (8..=10).contains(&request.version),
        authorized_operations::ALL_OF_CLUSTER,
    );
    MetadataResponse::default()
        .with_brokers(brokers.collect())
        .with_cluster_id(
            image
                .cluster_id
                .as_ref()
                .map(|id| StrBytes::from_string(id.to_string())),
        )
        .with_controller_id(WireBrokerId(controller.map_or(-1, BrokerId::get)))
        .with_cluster_authorized_operations(cluster_operations)
        .with_topics(topics)
}

/// The image to answer from. A client that asks for metadata has often just lost the leader that this
/// broker has lost too: within tens of milliseconds there is another one, and an answer that still named
/// the dead one would cost the client its next refresh, a second or more. So the answer waits for the
/// election, for as long as [`replication::streams::LOST_FOR`] at the most.
async fn settled_image(request: &Request, wanted: Option<&[Wanted]>) -> Arc<ClusterImage> {
    let mut images = request.broker.images.subscribe();
    loop {
        let image = Arc::clone(&images.borrow_and_update());
        let until = match wanted {
            None => image
                .topics
                .values()
                .find_map(|topic| led_by_the_lost(request, topic)),
            Some(wanted) => wanted
                .iter()
                .filter_map(|wanted| look_up(&image, wanted).ok())
                .find_map(|topic| led_by_the_lost(request, topic)),
        };
        let Some(until) = until else { return image };
        // Time out or not, the next round decides; without a publisher there is nothing to wait for.
        if let Ok(Err(_)) = tokio::time::timeout_at(until, images.changed()).await {
            return image;
        }
    }
}

/// Until when the answer about this topic should wait for an election.
fn led_by_the_lost(request: &Request, topic: &Topic) -> Option<Instant> {
    let lost = &request.broker.lost_leaders;
    topic
        .partitions
        .values()
        .find_map(|partition| lost.lost_until(partition.leader?))
}

/// `None`: every topic. In version 0 an empty list says so, later a null one.
fn wanted(request: &Request, message: &MetadataRequest) -> Option<Vec<Wanted>> {
    let topics = message.topics.as_ref()?;
    if topics.is_empty() && request.version == 0 {
        return None;
    }
    Some(
        topics
            .iter()
            .map(|topic| match &topic.name {
                Some(name) => Wanted::Name(name.to_string()),
                None => Wanted::Id(TopicId(topic.topic_id)),
            })
            .collect(),
    )
}

fn look_up<'a>(image: &'a ClusterImage, wanted: &Wanted) -> Result<&'a Arc<Topic>, ErrorCode> {
    match wanted {
        Wanted::Name(name) => {
            TopicName::new(name).map_err(|_| ErrorCode::InvalidTopicException)?;
            image.topic(name).ok_or(ErrorCode::UnknownTopicOrPartition)
        }
        Wanted::Id(id) if id.is_zero() => Err(ErrorCode::UnknownTopicId),
        Wanted::Id(id) => image.topics.get(id).ok_or(ErrorCode::UnknownTopicId),
    }
}

fn absent(
    request: &Request,
    wanted: &Wanted,
    creation_errors: &BTreeMap<String, ErrorCode>,
    error: ErrorCode,
) -> MetadataResponseTopic {
    match wanted {
        Wanted::Name(name) => {
            let error = creation_errors.get(name).copied().unwrap_or(error);
            MetadataResponseTopic::default()
                .with_error_code(error.code())
                .with_name(Some(WireTopicName(StrBytes::from_string(name.clone()))))
        }
        Wanted::Id(id) => MetadataResponseTopic::default()
            .with_error_code(error.code())
            .with_topic_id(id.0)
            // Null names are allowed from version 12 on.
            .with_name((request.version < 12).then(WireTopicName::default)),
    }
}

fn describe(request: &Request, image: &ClusterImage, topic: &Topic) -> MetadataResponseTopic {
    let partitions = topic
        .partitions
        .iter()
        .map(|(index, partition)| describe_partition(request, image, *index, partition))
        .collect();
    MetadataResponseTopic::default()
        .with_name(Some(WireTopicName(StrBytes::from_string(topic.name.to_string()))))
        .with_topic_id(topic.id.0)
        .with_is_internal(topic.name.is_internal())
        .with_partitions(partitions)
}

fn describe_partition(
    request: &Request,
    image: &ClusterImage,
    index: PartitionIndex,
    partition: &PartitionRegistration,
) -> MetadataResponsePartition {
    let seen = cluster_view::partition(image, &request.listener, partition);
    // Clients before version 6 do not know the other error.
    let error = match seen.leader {
        Err(_) if request.version < 6 => ErrorCode::LeaderNotAvailable,
        Err(error) => error,
        Ok(_) => ErrorCode::None,
    };
    MetadataResponsePartition::default()
        .with_error_code(error.code())
        .with_partition_index(index.get())
        .with_leader_id(seen.wire_leader())
        .with_leader_epoch(partition.leader_epoch.get())
        .with_replica_nodes(cluster_view::wire_ids(&partition.replicas))
        .with_isr_nodes(cluster_view::wire_ids(&partition.isr))
        .with_offline_replicas(cluster_view::wire_ids(&seen.offline_replicas))
}
