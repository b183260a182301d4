//! What clients of one listener are told about brokers and leaders.

use kafka_protocol::messages::BrokerId as WireBrokerId;
use metadata::{BrokerRegistration, ClusterImage, PartitionRegistration};
use protocol::{BrokerId, ErrorCode, LeaderEpoch};

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

/// A partition as clients of one listener are told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PartitionView {
    /// The leader, where it lives and has an address on the listener, else the error that says so.
    pub(crate) leader: Result<BrokerId, ErrorCode>,
    /// Replicas whose broker does not live.
    pub(crate) offline_replicas: Vec<BrokerId>,
}

impl PartitionView {
    /// The leader as the wire names it: −1 where there is none.
    pub(crate) fn wire_leader(&self) -> WireBrokerId {
        WireBrokerId(self.leader.map_or(-1, BrokerId::get))
    }
}

/// What clients of `listener` are told of a partition.
pub(crate) fn partition(
    image: &ClusterImage,
    listener: &str,
    partition: &PartitionRegistration,
) -> PartitionView {
    let live = |id: BrokerId| image.brokers.get(&id).filter(|broker| !broker.fenced);
    let leader = match partition.leader.and_then(live) {
        None => Err(ErrorCode::LeaderNotAvailable),
        Some(broker) => match address(broker, listener) {
            None => Err(ErrorCode::ListenerNotFound),
            Some(address) => Ok(address.id),
        },
    };
    let offline_replicas = partition
        .replicas
        .iter()
        .copied()
        .filter(|&id| image.is_replica_offline(partition, id))
        .collect();
    PartitionView {
        leader,
        offline_replicas,
    }
}

/// Broker ids as the wire has them.
pub(crate) fn wire_ids(ids: &[BrokerId]) -> Vec<WireBrokerId> {
    ids.iter().map(|id| WireBrokerId(id.get())).collect()
}

/// The partition's leader and its epoch, as hints for a client that asked the wrong broker (KIP-951). There is
/// none where nobody leads: librdkafka would count it and then read memory that it never wrote.
pub(crate) fn leader_hint(partition: &PartitionRegistration) -> Option<(BrokerId, LeaderEpoch)> {
    Some((partition.leader?, partition.leader_epoch))
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

#[cfg(test)]
mod tests {
    use protocol::PartitionEpoch;

    use super::*;

    #[test]
    fn nobody_is_hinted_at_where_nobody_leads() {
        let mut partition = PartitionRegistration {
            replicas: vec![BrokerId(1), BrokerId(2)],
            directories: Vec::new(),
            isr: vec![BrokerId(2)],
            elr: Vec::new(),
            leader: Some(BrokerId(2)),
            leader_epoch: LeaderEpoch(4),
            partition_epoch: PartitionEpoch(9),
            adding: Vec::new(),
            removing: Vec::new(),
        };
        assert_eq!(leader_hint(&partition), Some((BrokerId(2), LeaderEpoch(4))));
        partition.leader = None;
        assert_eq!(leader_hint(&partition), None);
    }
}
