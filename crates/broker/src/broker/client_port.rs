//! Kafka on the client port: open once the broker serves.

use std::net::SocketAddr;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::complaints::Complaints;
use crate::context::BrokerContext;
use crate::kafka::connection::{self, ConnectionInfo};
use crate::listener::{KafkaService, SniffedStream};

/// Serves the Kafka connections of one listener.
pub(super) struct KafkaPort {
    pub(super) listener: Arc<str>,
    pub(super) context: BrokerContext,
    /// About clients whose connections have to be closed.
    pub(super) complaints: Complaints,
    /// False until the broker was ready for the first time. Before, a client is closed as a port that is
    /// not open yet would close it, so that it turns to another broker.
    pub(super) open: watch::Receiver<bool>,
}

impl KafkaService for KafkaPort {
    fn serve(
        &self,
        stream: SniffedStream,
        peer: SocketAddr,
        stop: CancellationToken,
    ) -> BoxFuture<'static, ()> {
        if !*self.open.borrow() {
            debug!(%peer, "connection closed: the broker does not serve yet");
            return futures::future::ready(()).boxed();
        }
        let info = ConnectionInfo {
            listener: Arc::clone(&self.listener),
            peer,
            complaints: self.complaints.clone(),
        };
        connection::serve(stream, self.context.clone(), info, stop).boxed()
    }
}
