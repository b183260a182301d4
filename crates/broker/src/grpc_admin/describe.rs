//! The cluster as public messages.

use std::collections::HashMap;

use metadata::{BrokerRegistration, ClusterImage, ConfigResource, Topic};
use protocol::{
    BrokerId, ErrorCode, TopicName,
    grpc::v1::{
        BrokerNode, ControllerNode, DescribeClusterResponse, DescribeQuorumReply, KafkaError,
        ListTopicsResponse, PartitionDescription, TopicDescription, TopicSummary,
    },
};

pub(super) fn cluster(image: &ClusterImage, quorum: DescribeQuorumReply) -> DescribeClusterResponse {
    let controllers = quorum.voters.iter().map(|voter| ControllerNode {
        node_id: voter.node_id,
        address: voter.address.clone(),
        active: voter.node_id == quorum.leader_id,
        log_end_offset: voter.log_end_offset,
        lag: (quorum.log_end_offset - voter.log_end_offset).max(0),
    });
    DescribeClusterResponse {
        cluster_id: image
            .cluster_id
            .as_ref()
            .map_or_else(String::new, ToString::to_string),
        active_controller: quorum.leader_id,
        controller_epoch: quorum.leader_epoch,
        metadata_committed_offset: quorum.committed_offset,
        controllers: controllers.collect(),
        brokers: brokers(image),
    }
}

pub(super) fn brokers(image: &ClusterImage) -> Vec<BrokerNode> {
    let mut leaders: HashMap<BrokerId, i32> = HashMap::new();
    for partition in image.topics.values().flat_map(|topic| topic.partitions.values()) {
        if let Some(leader) = partition.leader {
            *leaders.entry(leader).or_default() += 1;
        }
    }
    image
        .brokers
        .values()
        .map(|broker| BrokerNode {
            leaders: leaders.get(&broker.id).copied().unwrap_or_default(),
            replicas: image
                .partitions_by_broker
                .get(&broker.id)
                .map_or(0, |held| held.len() as i32),
            ..node(broker)
        })
        .collect()
}

fn node(broker: &BrokerRegistration) -> BrokerNode {
    let listeners = broker.endpoints.iter().map(|endpoint| {
        (
            endpoint.listener.clone(),
            format!("{}:{}", endpoint.host, endpoint.port),
        )
    });
    BrokerNode {
        broker_id: broker.id.get(),
        listeners: listeners.collect(),
        rack: broker.rack.clone().unwrap_or_default(),
        fenced: broker.fenced,
        in_controlled_shutdown: broker.in_controlled_shutdown,
        broker_epoch: broker.epoch.get(),
        version: broker.version.clone(),
        leaders: 0,
        replicas: 0,
    }
}

pub(super) fn topics(image: &ClusterImage, include_internal: bool) -> ListTopicsResponse {
    let topics = image
        .topic_ids
        .iter()
        .filter(|(name, _)| include_internal || !name.is_internal())
        .filter_map(|(_, id)| image.topics.get(id))
        .map(|topic| {
            let count = |test: fn(&metadata::PartitionRegistration) -> bool| {
                topic
                    .partitions
                    .values()
                    .filter(|partition| test(partition))
                    .count() as i32
            };
            TopicSummary {
                name: topic.name.to_string(),
                topic_id: topic.id.to_string(),
                partitions: topic.partitions.len() as i32,
                replication_factor: topic
                    .partitions
                    .values()
                    .map(|p| p.replicas.len())
                    .max()
                    .unwrap_or(0) as i32,
                under_replicated: count(|partition| partition.isr.len() < partition.replicas.len()),
                offline: count(|partition| partition.leader.is_none()),
            }
        });
    ListTopicsResponse {
        topics: topics.collect(),
    }
}

pub(super) fn named_topic(image: &ClusterImage, name: String) -> TopicDescription {
    let error = match TopicName::new(&name) {
        Err(error) => (ErrorCode::InvalidTopicException, error.to_string()),
        Ok(_) => match image.topic(&name) {
            Some(found) => return topic(image, found),
            None => (
                ErrorCode::UnknownTopicOrPartition,
                "the topic does not exist".to_owned(),
            ),
        },
    };
    let error = Some(KafkaError {
        code: error.0.code().into(),
        message: error.1,
    });
    TopicDescription {
        name,
        error,
        ..TopicDescription::default()
    }
}

pub(super) fn topic(image: &ClusterImage, topic: &Topic) -> TopicDescription {
    let ids = |ids: &[BrokerId]| ids.iter().map(|id| id.get()).collect();
    let partitions = topic
        .partitions
        .iter()
        .map(|(index, partition)| PartitionDescription {
            partition: index.get(),
            leader: partition.leader.map_or(-1, BrokerId::get),
            leader_epoch: partition.leader_epoch.get(),
            replicas: ids(&partition.replicas),
            isr: ids(&partition.isr),
            elr: ids(&partition.elr),
            partition_epoch: partition.partition_epoch.get(),
        });
    let configs = image.configs.get(&ConfigResource::Topic(topic.name.clone()));
    TopicDescription {
        name: topic.name.to_string(),
        topic_id: topic.id.to_string(),
        error: None,
        partitions: partitions.collect(),
        configs: configs
            .into_iter()
            .flatten()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect(),
    }
}
