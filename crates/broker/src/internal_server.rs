//! What a broker answers to other nodes beside replication: who it is, and whom it believes to be the
//! active controller.

use std::sync::Arc;

use protocol::grpc::v1::node_server::{Node, NodeServer};
use protocol::grpc::v1::{ControllerAddress, ProbeReply, ProbeRequest};
use tonic::{Request, Response, Status};

use crate::controller_client::ControllerLocator;
use crate::identity::NodeIdentity;

/// The Node service of a broker.
#[derive(Clone, Debug)]
pub struct NodeService {
    identity: Arc<NodeIdentity>,
    locator: ControllerLocator,
}

impl NodeService {
    /// Answers with `identity`, and with what `locator` last learned.
    pub fn server(identity: Arc<NodeIdentity>, locator: ControllerLocator) -> NodeServer<Self> {
        NodeServer::new(Self { identity, locator })
    }
}

#[tonic::async_trait]
impl Node for NodeService {
    /// The controller's crash probe: an answer says that this incarnation lives.
    async fn probe(&self, request: Request<ProbeRequest>) -> Result<Response<ProbeReply>, Status> {
        if let Some(hello) = &request.get_ref().hello {
            self.identity.check(hello)?;
        }
        let active_controller = self.locator.known_active().map(|active| ControllerAddress {
            node_id: active.id.get(),
            address: active.address,
            epoch: active.epoch.get(),
        });
        Ok(Response::new(ProbeReply {
            hello: Some(self.identity.hello(None)),
            active_controller,
        }))
    }
}
