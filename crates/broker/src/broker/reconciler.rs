//! What ties the replicas to the rest of the broker: images from the session, and this node's identity
//! for the replication streams.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::FutureExt;
use futures::future::BoxFuture;
use metadata::ClusterImage;
use protocol::grpc::v1::InternalHello;
use protocol::{BrokerEpoch, BrokerId, DirectoryId, TopicPartition};
use replication::ReplicaManager;
use replication::streams::LocalBroker;
use storage::LogManager;
use tokio::sync::watch;
use tonic::Status;
use tracing::error;

use crate::identity::NodeIdentity;
use crate::session::ImageConsumer;

/// Applies images to the replicas.
pub(super) struct Reconciler {
    pub(super) identity: Arc<NodeIdentity>,
    pub(super) logs: Arc<LogManager>,
    pub(super) replicas: Arc<ReplicaManager>,
    /// Whether the log directories carry the cluster's id.
    pub(super) directories_named: AtomicBool,
}

impl Reconciler {
    /// Writes the cluster id into directories that this broker formatted before it met its quorum.
    async fn name_directories(&self) {
        let Some(cluster_id) = self.identity.cluster_id().cloned() else {
            return;
        };
        let logs = Arc::clone(&self.logs);
        let named = tokio::task::spawn_blocking(move || logs.set_cluster_id(&cluster_id)).await;
        match named {
            Ok(Ok(())) => self.directories_named.store(true, Ordering::Relaxed),
            // Tried again with the next image. Until then the directory could be mistaken for another
            // cluster's at the next start, which is refused there.
            Ok(Err(error)) => error!(%error, "the cluster id could not be written to the log directories"),
            Err(error) => error!(%error, "the cluster id could not be written to the log directories"),
        }
    }
}

impl ImageConsumer for Reconciler {
    fn apply_image<'a>(
        &'a self,
        older: &'a ClusterImage,
        newer: Arc<ClusterImage>,
        epoch: BrokerEpoch,
    ) -> BoxFuture<'a, ()> {
        async move {
            if !self.directories_named.load(Ordering::Relaxed) {
                self.name_directories().await;
            }
            self.replicas.apply_image(older, newer, epoch).await;
        }
        .boxed()
    }

    fn resign_all(&self) {
        self.replicas.resign_all();
    }

    fn failed_replicas(&self) -> Vec<TopicPartition> {
        self.replicas.failed_replicas()
    }

    fn offline_directories(&self) -> Vec<DirectoryId> {
        self.replicas.offline_directories()
    }

    fn failures(&self) -> watch::Receiver<u64> {
        self.replicas.failures()
    }
}

/// This node, as it greets leaders and is greeted by followers.
pub(super) struct Local {
    pub(super) identity: Arc<NodeIdentity>,
    pub(super) broker_epoch: watch::Receiver<Option<BrokerEpoch>>,
}

impl LocalBroker for Local {
    fn hello(&self, expected: BrokerId) -> InternalHello {
        self.identity.hello(Some(expected))
    }

    fn check(&self, hello: &InternalHello) -> Result<(), Status> {
        Ok(self.identity.check(hello)?)
    }

    fn epoch(&self) -> Option<BrokerEpoch> {
        *self.broker_epoch.borrow()
    }
}
