//! Finding the active controller: what a session or an answer taught, else a probe of every voter.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;
use protocol::grpc::v1::node_client::NodeClient;
use protocol::grpc::v1::{ControllerAddress, ProbeReply, ProbeRequest};
use protocol::{BrokerId, LeaderEpoch};
use tokio::time::{Instant, timeout_at};
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use tracing::{debug, warn};

use crate::config::ControllerVoter;
use crate::identity::NodeIdentity;

/// How long one voter may take to answer a probe.
const PROBE_TIMEOUT: Duration = Duration::from_millis(300);
/// After the first voter that names an active controller, how long the others may still contradict it
/// with a later epoch.
const PROBE_SETTLE: Duration = Duration::from_millis(50);
/// How long a connection to a controller may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// A controller that was active in `epoch`, as far as somebody knew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActiveController {
    /// Its `node.id`.
    pub id: BrokerId,
    /// `host:port` of its internal port.
    pub address: String,
    /// The controller epoch in which it is active.
    pub epoch: LeaderEpoch,
}

impl ActiveController {
    fn from_wire(address: &ControllerAddress) -> Self {
        Self {
            id: BrokerId(address.node_id),
            address: address.address.clone(),
            epoch: LeaderEpoch(address.epoch),
        }
    }
}

/// Why no active controller was found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LocateError {
    /// No voter that answered knows an active controller.
    #[error("no active controller: {answered} of {voters} controllers answered, none knows who is active")]
    NoneActive {
        /// Voters that answered.
        answered: usize,
        /// Voters configured.
        voters: usize,
    },
    /// A voter refuses this node, and nobody else knows an active controller.
    #[error("controller {voter} refuses this node: {reason}")]
    Refused {
        /// The voter, as configured.
        voter: String,
        /// Its sentence.
        reason: String,
    },
}

/// Knows the voters, the connections to them and who of them was last seen active. A clone is a handle.
#[derive(Clone, Debug)]
pub struct ControllerLocator {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    identity: Arc<NodeIdentity>,
    voters: Vec<ControllerVoter>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    channels: HashMap<String, Channel>,
    active: Option<ActiveController>,
    highest_epoch: LeaderEpoch,
}

impl ControllerLocator {
    /// Over the voters of `controller.quorum.voters`.
    pub fn new(identity: Arc<NodeIdentity>, voters: Vec<ControllerVoter>) -> Self {
        Self {
            inner: Arc::new(Inner {
                identity,
                voters,
                known: Mutex::default(),
            }),
        }
    }

    /// The controller that was last known to be active.
    pub fn known_active(&self) -> Option<ActiveController> {
        self.inner.known.lock().active.clone()
    }

    /// Somebody says who is active. News of an earlier epoch than one already known is dropped.
    pub fn learn(&self, address: &ControllerAddress) {
        let mut known = self.inner.known.lock();
        if address.epoch < known.highest_epoch.get() || address.address.is_empty() {
            return;
        }
        known.highest_epoch = LeaderEpoch(address.epoch);
        known.active = Some(ActiveController::from_wire(address));
    }

    /// `controller` did not answer, or said that it is not active: look again before the next call.
    pub fn forget(&self, controller: &ActiveController) {
        let mut known = self.inner.known.lock();
        if known.active.as_ref() == Some(controller) {
            known.active = None;
        }
    }

    /// The active controller: the known one, else what the voters say.
    pub async fn find(&self) -> Result<ActiveController, LocateError> {
        match self.known_active() {
            Some(active) => Ok(active),
            None => self.probe_voters().await,
        }
    }

    /// The connection to a controller; made on first use, and again after it broke.
    pub fn channel(&self, address: &str) -> Result<Channel, tonic::transport::Error> {
        let mut known = self.inner.known.lock();
        if let Some(channel) = known.channels.get(address) {
            return Ok(channel.clone());
        }
        let channel = Endpoint::from_shared(format!("http://{address}"))?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            // A controller whose machine is gone says no goodbye; its connection must not linger.
            .http2_keep_alive_interval(Duration::from_secs(2))
            .keep_alive_timeout(Duration::from_secs(2))
            .keep_alive_while_idle(true)
            .connect_lazy();
        known.channels.insert(address.to_owned(), channel.clone());
        Ok(channel)
    }

    async fn probe_voters(&self) -> Result<ActiveController, LocateError> {
        let mut probes: FuturesUnordered<_> =
            self.inner.voters.iter().map(|voter| self.probe(voter)).collect();
        let mut until = Instant::now() + PROBE_TIMEOUT;
        let mut answered = 0;
        let mut refused = None;
        let mut found = false;
        while let Ok(Some((voter, answer))) = timeout_at(until, probes.next()).await {
            match answer {
                Ok(reply) => {
                    answered += 1;
                    if let Some(active) = &reply.active_controller {
                        self.learn(active);
                        if !found {
                            found = true;
                            until = until.min(Instant::now() + PROBE_SETTLE);
                        }
                    }
                }
                Err(status) if status.code() == Code::FailedPrecondition => {
                    warn!(%voter, reason = status.message(), "a controller refuses this node");
                    refused = Some(LocateError::Refused {
                        voter,
                        reason: status.message().to_owned(),
                    });
                }
                Err(status) => debug!(%voter, %status, "controller probe failed"),
            }
        }
        match (self.known_active(), refused) {
            (Some(active), _) => Ok(active),
            (None, Some(refused)) => Err(refused),
            (None, None) => Err(LocateError::NoneActive {
                answered,
                voters: self.inner.voters.len(),
            }),
        }
    }

    async fn probe(&self, voter: &ControllerVoter) -> (String, Result<ProbeReply, tonic::Status>) {
        let address = voter.address.to_string();
        let request = ProbeRequest {
            hello: Some(self.inner.identity.hello(Some(voter.id))),
        };
        let answer = match self.channel(&address) {
            Ok(channel) => NodeClient::new(channel)
                .probe(request)
                .await
                .map(tonic::Response::into_inner),
            Err(error) => Err(tonic::Status::invalid_argument(error.to_string())),
        };
        (format!("{}@{address}", voter.id), answer)
    }
}

#[cfg(test)]
mod tests {
    use protocol::{DirectoryId, IncarnationId};

    use super::*;

    fn address(node_id: i32, epoch: i32) -> ControllerAddress {
        ControllerAddress {
            node_id,
            address: format!("127.0.0.1:{node_id}"),
            epoch,
        }
    }

    #[test]
    fn news_of_an_earlier_epoch_is_dropped() {
        let identity = NodeIdentity::new(BrokerId(1), DirectoryId::random(), IncarnationId::random(), None);
        let locator = ControllerLocator::new(Arc::new(identity), Vec::new());
        locator.learn(&address(101, 5));
        locator.learn(&address(102, 4));
        let active = locator.known_active().unwrap();
        assert_eq!((active.id, active.epoch), (BrokerId(101), LeaderEpoch(5)));

        locator.forget(&active);
        assert_eq!(locator.known_active(), None);
        locator.learn(&address(102, 4));
        assert_eq!(
            locator.known_active(),
            None,
            "an older controller stays forgotten"
        );
        locator.learn(&address(103, 6));
        locator.forget(&active);
        assert_eq!(
            locator.known_active().unwrap().id,
            BrokerId(103),
            "only what failed is forgotten"
        );
    }
}
