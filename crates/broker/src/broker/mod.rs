//! A broker's life: how its parts come up, in which order, and how it leaves.
//!
//! Up: ports are bound (one in use is reported before anything else happens) and answer that the broker
//! lives and is not ready; logs are opened; the internal port serves; the session registers and catches
//! up; only then does the client port take Kafka connections. Down: leaderships move away, clients are
//! let go, replicas stop, logs are closed clean, and the session ends last.

mod client_port;
mod early;
mod public_services;
mod reconciler;
mod start;

use std::net::SocketAddr;
use std::sync::Arc;

use protocol::BrokerEpoch;
use replication::ReplicaManager;
use replication::streams::FetcherManager;
use storage::LogManager;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{error, info, warn};

use crate::context::BrokerContext;
use crate::http::Readiness;
use crate::session::{SessionHandle, SessionRefused, SessionStatus};

pub use start::StartError;

/// Why a broker ended by itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// It cannot be part of the cluster.
    #[error(transparent)]
    Refused(#[from] SessionRefused),
    /// There is nothing left that it could serve.
    #[error("every log directory has failed: repair or replace the disks, or change log.dirs")]
    NoDirectory,
}

/// A running broker. Dropping it without [`Broker::run`] ends its tasks as a crash would.
#[derive(Debug)]
pub struct Broker {
    context: BrokerContext,
    session: SessionHandle,
    logs: Arc<LogManager>,
    replicas: Arc<ReplicaManager>,
    fetchers: Arc<FetcherManager>,
    ports: Ports,
    /// Cancelled when an administrator asks this broker to end.
    shutdown_requested: CancellationToken,
    /// Ends everything that ends after the logs are closed.
    stop: DropGuard,
}

/// The servers of a broker and where they listen.
#[derive(Debug)]
struct Ports {
    clients: Vec<(String, SocketAddr)>,
    internal: SocketAddr,
    stop_clients: CancellationToken,
    client_servers: Vec<JoinHandle<()>>,
    internal_server: JoinHandle<()>,
}

impl Broker {
    /// What the broker's handlers see.
    pub fn context(&self) -> &BrokerContext {
        &self.context
    }

    /// Name and address of each client listener, as bound.
    pub fn client_addresses(&self) -> &[(String, SocketAddr)] {
        &self.ports.clients
    }

    /// The internal port, as bound.
    pub fn internal_address(&self) -> SocketAddr {
        self.ports.internal
    }

    /// How the broker stands with the controller, now and later.
    pub fn status(&self) -> watch::Receiver<SessionStatus> {
        self.session.status()
    }

    /// Runs until `shutdown`, or until an administrator asks this broker to end, then leaves in order: a controlled shutdown, bounded by
    /// `controlled_shutdown_timeout`. Ends by itself, just as orderly, where the broker cannot be part of
    /// the cluster, and where every log directory has failed; the error says why.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), Ended> {
        let result = tokio::select! {
            () = shutdown.cancelled() => Ok(()),
            () = self.shutdown_requested.cancelled() => Ok(()),
            ended = self.session.ended() => ended.map_err(Ended::from),
            () = no_directory_left(&self.replicas) => Err(Ended::NoDirectory),
        };
        if let Err(why) = &result {
            error!(reason = %why, "this broker stops");
        } else {
            info!("shutting down: leaderships move away first");
            if !self
                .session
                .leave(self.context.config.controlled_shutdown_timeout)
                .await
            {
                warn!("leaderships were not all moved away in time");
            }
        }
        self.close().await;
        result
    }

    async fn close(self) {
        let Self {
            context,
            logs,
            replicas,
            fetchers,
            ports,
            stop,
            ..
        } = self;
        ports.stop_clients.cancel();
        for server in ports.client_servers {
            finished("client port", server).await;
        }
        fetchers.shutdown();
        replicas.shutdown().await;
        let epoch: Option<BrokerEpoch> = *context.broker_epoch.borrow();
        let closed = tokio::task::spawn_blocking(move || logs.close(epoch));
        finished("closing of logs", closed).await;
        // The session and the internal port end last: until here the controller sees a live broker.
        drop(stop);
        finished("internal port", ports.internal_server).await;
        info!("broker stopped");
    }
}

/// Waits until no log directory can be used any more.
async fn no_directory_left(replicas: &ReplicaManager) {
    let mut failures = replicas.failures();
    while !replicas.has_no_directory() {
        if failures.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

async fn finished(what: &str, task: JoinHandle<()>) {
    if let Err(error) = task.await {
        error!(%error, "the {what} did not end in order");
    }
}

/// What `/readyz` answers.
fn readiness(status: SessionStatus) -> Readiness {
    let detail = if status.is_ready() {
        "ready"
    } else if !status.registered {
        "not registered with an active controller"
    } else if !status.caught_up {
        "catching up with the cluster's metadata"
    } else {
        "fenced by the controller"
    };
    Readiness {
        ready: status.is_ready(),
        detail: detail.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_names_what_is_missing() {
        let mut status = SessionStatus::default();
        assert!(readiness(status).detail.contains("not registered"));
        status.registered = true;
        assert!(readiness(status).detail.contains("catching up"));
        status.caught_up = true;
        assert!(!readiness(status).ready);
        status.unfenced = true;
        assert!(readiness(status).ready);
    }
}
