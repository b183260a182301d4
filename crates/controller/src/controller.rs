//! A controller, started and stopped as one thing.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use metadata::ClusterImage;
use metadata::configs::NodeDefaults;
use protocol::grpc::v1::broker_session_server::BrokerSessionServer;
use protocol::grpc::v1::controller_server::ControllerServer;
use protocol::grpc::v1::node_server::NodeServer;
use protocol::{BrokerId, ClusterId, IncarnationId};
use storage::meta_properties::{self, MetaPropertiesError};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::service::{Routes, RoutesBuilder};

use crate::controller_service::ControllerService;
use crate::event_loop::{ActiveView, EventLoop, LoopSettings};
use crate::identity::NodeIdentity;
use crate::metric;
use crate::node_service::NodeService;
use crate::raft::{RaftNode, RaftSettings, RaftStartError};
use crate::session_service::SessionService;

/// The largest request from a broker.
const MAX_MESSAGE: usize = 16 << 20;

/// What a controller is started with.
#[derive(Clone, Debug)]
pub struct ControllerConfig {
    /// Its `node.id`.
    pub node_id: BrokerId,
    /// The cluster it must have been formatted for; `None` takes what the directory says.
    pub cluster_id: Option<ClusterId>,
    /// This run of the process.
    pub incarnation: IncarnationId,
    /// Where its vote and the metadata log live; formatted.
    pub log_dir: PathBuf,
    /// `controller.quorum.voters`: each voter's id and `host:port` of its internal port.
    pub voters: Vec<(BrokerId, String)>,
    /// `broker.session.timeout.ms`.
    pub session_timeout: Duration,
    /// `leader.imbalance.check.interval.seconds`; `None` where `auto.leader.rebalance.enable=false`.
    pub rebalance_interval: Option<Duration>,
    /// The node's own configuration: defaults of topics.
    pub defaults: NodeDefaults,
    /// Raft's timings and bounds.
    pub raft: RaftSettings,
}

/// Why a controller did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A controller never formats by itself: one whose disk vanished must not come back blank and vote.
    #[error(
        "{log_dir} is not formatted. A controller is formatted once, by hand: \
         run `ottla format --cluster-id <ID>` with this node's configuration, then start again. If this \
         controller has run before, its disk is gone: remove it from the quorum and add it again instead",
        log_dir = log_dir.display()
    )]
    NotFormatted {
        /// The directory.
        log_dir: PathBuf,
    },
    /// The directory belongs to another node or cluster, or its identity cannot be read.
    #[error(transparent)]
    Identity(#[from] MetaPropertiesError),
    /// The directory's identity names no cluster.
    #[error(
        "{log_dir} is formatted without a cluster id: run `ottla format --cluster-id <ID>`",
        log_dir = log_dir.display()
    )]
    NoClusterId {
        /// The directory.
        log_dir: PathBuf,
    },
    /// Raft did not start.
    #[error(transparent)]
    Raft(#[from] RaftStartError),
}

/// Starts controllers.
#[derive(Debug)]
pub struct Controller;

impl Controller {
    /// Starts a controller over its formatted directory. Its services must be mounted on its internal
    /// port at once: [`ControllerHandle::routes`]. It runs until `stop`, then [`ControllerHandle::stopped`].
    pub async fn start(
        config: ControllerConfig,
        stop: CancellationToken,
    ) -> Result<ControllerHandle, StartError> {
        metric::describe();
        let identity = Arc::new(identity(&config).await?);
        let node = RaftNode::start(
            Arc::clone(&identity),
            &config.log_dir,
            &config.voters,
            &config.raft,
        )
        .await?;
        let settings = LoopSettings {
            identity: Arc::clone(&identity),
            defaults: config.defaults,
            session_timeout: config.session_timeout,
            rebalance_interval: config.rebalance_interval,
            quorum_timeout: config.raft.election_max * 2,
        };
        let (event_loop, events, watches) = EventLoop::new(node.clone(), settings);
        let mut routes = RoutesBuilder::default();
        let sessions = SessionService::new(
            Arc::clone(&identity),
            events.clone(),
            watches.active.clone(),
            node.images(),
            node.committed(),
        );
        let requests = ControllerService::new(node.clone(), events, &watches);
        routes
            .add_service(node.service())
            .add_service(BrokerSessionServer::new(sessions).max_decoding_message_size(MAX_MESSAGE))
            .add_service(
                ControllerServer::new(requests)
                    .max_decoding_message_size(MAX_MESSAGE)
                    .max_encoding_message_size(MAX_MESSAGE),
            );
        let running = tokio::spawn({
            let node = node.clone();
            async move {
                event_loop.run(stop).await;
                node.shutdown().await;
            }
        });
        Ok(ControllerHandle {
            node_service: NodeService::new(Arc::clone(&identity), watches.active.clone()),
            identity,
            active: watches.active,
            images: node.images(),
            routes: routes.routes(),
            running,
        })
    }
}

/// A running controller.
#[derive(Debug)]
pub struct ControllerHandle {
    identity: Arc<NodeIdentity>,
    active: watch::Receiver<ActiveView>,
    images: watch::Receiver<Arc<ClusterImage>>,
    routes: Routes,
    node_service: NodeService,
    running: JoinHandle<()>,
}

impl ControllerHandle {
    /// Who this controller is.
    pub fn identity(&self) -> &Arc<NodeIdentity> {
        &self.identity
    }

    /// Who is active, as this controller knows it, now and later. `failed` is set when this controller's
    /// Raft has stopped for good: the process should end, loudly.
    pub fn active(&self) -> watch::Receiver<ActiveView> {
        self.active.clone()
    }

    /// The committed image, now and later.
    pub fn images(&self) -> watch::Receiver<Arc<ClusterImage>> {
        self.images.clone()
    }

    /// `Raft`, `BrokerSession`, `Controller` and `Node`: everything that a controller serves on its
    /// internal port.
    pub fn routes(&self) -> Routes {
        self.routes
            .clone()
            .add_service(NodeServer::new(self.node_service.clone()))
    }

    /// As [`ControllerHandle::routes`] without `Node`, for a process that is a broker too and answers
    /// probes itself.
    pub fn routes_beside_broker(&self) -> Routes {
        self.routes.clone()
    }

    /// Waits until the controller has stopped and closed its log.
    pub async fn stopped(self) {
        if let Err(error) = self.running.await
            && error.is_panic()
        {
            std::panic::resume_unwind(error.into_panic());
        }
    }
}

async fn identity(config: &ControllerConfig) -> Result<NodeIdentity, StartError> {
    let (log_dir, node_id, cluster_id) = (config.log_dir.clone(), config.node_id, config.cluster_id.clone());
    let properties = tokio::task::spawn_blocking(move || {
        let Some(properties) = meta_properties::load(&log_dir)? else {
            return Err(StartError::NotFormatted { log_dir });
        };
        properties.verify(&log_dir, cluster_id.as_ref(), node_id)?;
        Ok(properties)
    })
    .await
    .map_err(|error| RaftStartError::Storage(Box::new(error)))??;
    Ok(NodeIdentity {
        cluster_id: properties.cluster_id.ok_or_else(|| StartError::NoClusterId {
            log_dir: config.log_dir.clone(),
        })?,
        node_id,
        directory_id: properties.directory_id,
        incarnation: config.incarnation,
    })
}
