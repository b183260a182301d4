//! One port for Kafka, gRPC and HTTP, told apart by the first bytes of a connection.
//!
//! The same server is a broker's client port, a broker's internal port and a controller's port: they
//! differ in what is mounted.

mod bind;
mod gate;
mod sniff;
mod sniffed;
mod stall;
mod web;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

pub use bind::{BindError, bind};
pub use gate::ConnectionGate;
pub use sniffed::SniffedStream;
pub use web::Http2Windows;

use sniff::Protocol;

use crate::complaints::Complaints;
use crate::metric_names;

/// After a failed accept (no descriptors left), how long until the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long connections may take to end once they were told to.
const DRAIN: Duration = Duration::from_secs(2);

/// Serves connections that speak Kafka's protocol.
pub trait KafkaService: Send + Sync + 'static {
    /// Serves one connection to its end; after `stop` it takes no further request.
    fn serve(
        &self,
        stream: SniffedStream,
        peer: SocketAddr,
        stop: CancellationToken,
    ) -> BoxFuture<'static, ()>;
}

/// What a port serves.
#[derive(Clone)]
pub struct Services {
    /// HTTP/1, HTTP/2 and gRPC.
    pub web: Router,
    /// Flow control for HTTP/2.
    pub windows: Http2Windows,
    /// Kafka, where the port has it.
    pub kafka: Option<Arc<dyn KafkaService>>,
}

impl std::fmt::Debug for Services {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Services")
            .field("windows", &self.windows)
            .field("kafka", &self.kafka.is_some())
            .finish_non_exhaustive()
    }
}

/// Accepts and serves connections until `stop`, then waits for those that are open to end, within a
/// bound.
pub async fn serve(listener: TcpListener, services: Services, gate: ConnectionGate, stop: CancellationToken) {
    let port = Arc::new(Port {
        services,
        gate,
        stop: stop.clone(),
        cut: CancellationToken::new(),
        refusals: Complaints::new(),
        strangers: Complaints::new(),
    });
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (port, cut) = (Arc::clone(&port), port.cut.clone());
                connections.spawn(cut.run_until_cancelled_owned(port.connection(stream, peer)));
            }
            Err(error) => {
                if let Some(turn) = port.refusals.may_speak() {
                    warn!(%error, "a connection could not be accepted{turn}");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // Whoever connects from now on is refused, not left waiting for a server that will not come.
    drop(listener);
    connections.close();
    if timeout(DRAIN, connections.wait()).await.is_err() {
        debug!(open = connections.len(), "connections were still open at the end");
        port.cut.cancel();
        connections.wait().await;
    }
}

struct Port {
    services: Services,
    gate: ConnectionGate,
    stop: CancellationToken,
    /// Cancelled when connections have had their time to end by themselves.
    cut: CancellationToken,
    /// About connections that there is no room for.
    refusals: Complaints,
    /// About clients that speak what this port does not.
    strangers: Complaints,
}

impl Port {
    async fn connection(self: Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        let place = match self.gate.admit(peer.ip()) {
            Ok(place) => place,
            Err(refused) => {
                if let Some(turn) = self.refusals.may_speak() {
                    warn!(%peer, %refused, "connection refused{turn}");
                }
                return;
            }
        };
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%peer, %error, "connection broke");
            return;
        }
        let told = tokio::select! {
            () = self.stop.cancelled() => return,
            told = timeout(self.gate.limits().idle, read_first(stream)) => told,
        };
        // Without a first byte in time, or with a connection that broke, there is nobody to answer.
        let Ok(Some((protocol, stream))) = told else {
            return;
        };
        match (protocol, &self.services.kafka) {
            (Protocol::Http, _) => {
                let (router, windows) = (self.services.web.clone(), self.services.windows);
                let idle = self.gate.limits().idle;
                web::serve_connection(stream, router, windows, idle, self.stop.clone()).await;
            }
            (Protocol::Kafka, Some(kafka)) => {
                let _counted = Counted::new();
                kafka.serve(stream, peer, self.stop.clone()).await;
            }
            (Protocol::Kafka, None) => {
                if let Some(turn) = self.strangers.may_speak() {
                    warn!(%peer, "this port serves nodes of the cluster; closed a connection that speaks neither gRPC nor HTTP{turn}");
                }
            }
            (Protocol::Tls, _) => {
                if let Some(turn) = self.strangers.may_speak() {
                    warn!(%peer, "a TLS client on a PLAINTEXT port; closed: set security.protocol=PLAINTEXT at the client{turn}");
                }
            }
        }
        drop(place);
    }
}

/// Counts a Kafka connection while it lives.
struct Counted;

impl Counted {
    fn new() -> Self {
        metrics::gauge!(metric_names::CONNECTIONS).increment(1);
        Self
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        metrics::gauge!(metric_names::CONNECTIONS).decrement(1);
    }
}

/// Reads until the protocol is known. `None` where the connection ended before.
async fn read_first(mut stream: TcpStream) -> Option<(Protocol, SniffedStream)> {
    let mut first = BytesMut::with_capacity(sniff::ENOUGH);
    loop {
        let room = sniff::ENOUGH.saturating_sub(first.len()) as u64;
        let read = (&mut stream).take(room).read_buf(&mut first).await;
        if !matches!(read, Ok(count) if count > 0) {
            return None;
        }
        if let Some(protocol) = sniff::classify(&first) {
            return Some((protocol, SniffedStream::new(Bytes::from(first), stream)));
        }
    }
}
