//! Answers who this controller is, and who is active.

use std::sync::Arc;

use protocol::BrokerId;
use protocol::grpc::v1::node_server::Node;
use protocol::grpc::v1::{ProbeReply, ProbeRequest};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use crate::event_loop::{ActiveController, ActiveView};
use crate::identity::NodeIdentity;

/// Serves `ottla.v1.Node` on a controller.
#[derive(Clone, Debug)]
pub(crate) struct NodeService {
    identity: Arc<NodeIdentity>,
    active: watch::Receiver<ActiveView>,
}

impl NodeService {
    pub(crate) fn new(identity: Arc<NodeIdentity>, active: watch::Receiver<ActiveView>) -> Self {
        Self { identity, active }
    }
}

#[tonic::async_trait]
impl Node for NodeService {
    async fn probe(&self, request: Request<ProbeRequest>) -> Result<Response<ProbeReply>, Status> {
        let peer = self.identity.check(request.into_inner().hello.as_ref())?;
        Ok(Response::new(ProbeReply {
            hello: Some(self.identity.hello(Some(BrokerId(peer.node_id.get())))),
            active_controller: self
                .active
                .borrow()
                .active
                .as_ref()
                .map(ActiveController::to_wire),
        }))
    }
}
