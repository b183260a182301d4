//! What every handler of a request sees of its broker.

use std::sync::Arc;

use protocol::BrokerEpoch;
use replication::{ReplicaManager, streams::LostLeaders};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::config::BrokerConfig;
use crate::controller_client::ControllerClient;
use crate::coordinator::group_runtime::GroupCoordinator;
use crate::producer_ids::ProducerIds;
use crate::records::Validator;
use crate::relay::Peers;
use crate::session::ImageStore;

/// The parts of a broker that request handlers use. A clone is a handle to the same broker.
#[derive(Clone, Debug)]
pub struct BrokerContext {
    /// The static configuration.
    pub config: Arc<BrokerConfig>,
    /// The broker's image of the cluster.
    pub images: ImageStore,
    /// The replicas on this broker.
    pub replicas: Arc<ReplicaManager>,
    /// Leaders that this broker follows, or followed, and whose streams broke a moment ago.
    pub lost_leaders: LostLeaders,
    /// Judges the records that clients produce.
    pub validator: Validator,
    /// The active controller, wherever it is.
    pub controller: ControllerClient,
    /// Ids for idempotent producers.
    pub producer_ids: ProducerIds,
    /// Consumer groups: those of this broker, and the way to the others.
    pub groups: GroupCoordinator,
    /// The way to the internal ports of other brokers.
    pub(crate) peers: Peers,
    /// The epoch of the current registration; `None` before the first.
    pub broker_epoch: watch::Receiver<Option<BrokerEpoch>>,
    /// When the broker started.
    pub started: Instant,
}
