//! What clients of one listener are told about brokers and leaders.

use metadata::{BrokerRegistration, ClusterImage, PartitionRegistration};
use protocol::{BrokerId, LeaderEpoch};

/// Where clients reach a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeAddress {
    pub(crate) id: BrokerId,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) rack: Option<String>,
}

/// The broker's address on `listener`, where it has one.
pub(crate) fn address(broker: &BrokerRegistration, listener: &str) -> Option<NodeAddress> {
    let endpoint = broker
        .endpoints
        .iter()
        .find(|endpoint| endpoint.listener == listener)?;
    Some(NodeAddress {
        id: broker.id,
        host: endpoint.host.clone(),
        port: endpoint.port,
        rack: broker.rack.clone(),
    })
}

/// Every live broker that clients of `listener` can reach.
pub(crate) fn live_nodes(image: &ClusterImage, listener: &str) -> Vec<NodeAddress> {
    image
        .live_brokers()
        .filter_map(|broker| address(broker, listener))
        .collect()
}

/// The partition's leader and its epoch, as hints for a client that asked the wrong broker (KIP-951).
pub(crate) fn leader_hint(partition: &PartitionRegistration) -> (Option<BrokerId>, LeaderEpoch) {
    (partition.leader, partition.leader_epoch)
}

/// Addresses of the brokers among `ids`, each once.
pub(crate) fn addresses_of(
    image: &ClusterImage,
    listener: &str,
    ids: impl IntoIterator<Item = BrokerId>,
) -> Vec<NodeAddress> {
    let mut ids: Vec<BrokerId> = ids.into_iter().collect();
    ids.sort_unstable();
    ids.dedup();
    ids.into_iter()
        .filter_map(|id| address(image.brokers.get(&id)?, listener))
        .collect()
}

/// Whom clients take for the controller: this broker where it is live, else any live one. Every broker
/// forwards admin requests to the real one.
pub(crate) fn stand_in_controller(image: &ClusterImage, listener: &str, me: BrokerId) -> Option<BrokerId> {
    let nodes = live_nodes(image, listener);
    nodes
        .iter()
        .find(|node| node.id == me)
        .or_else(|| nodes.first())
        .map(|node| node.id)
}
