//! What a broker answers while its logs are still being opened, which may take minutes after a crash:
//! that it lives, that it is not ready, and which run of it this is. The controller's crash probe thus
//! learns at once that the last run is dead.

use std::net::SocketAddr;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::service::Routes;

use crate::config::ConnectionLimits;
use crate::controller_client::ControllerLocator;
use crate::http::{self, Readiness};
use crate::identity::NodeIdentity;
use crate::internal_server::NodeService;
use crate::listener::{self, ConnectionGate, Http2Windows, KafkaService, Services, SniffedStream};

/// Serves ports until it is dropped; the ports stay bound for whoever serves them next.
#[derive(Debug)]
pub(super) struct EarlyPorts {
    metrics: PrometheusHandle,
    identity: Arc<NodeIdentity>,
    stop: CancellationToken,
    _ends: DropGuard,
}

impl EarlyPorts {
    /// For the run that `identity` names; its directory may not be known yet.
    pub(super) fn new(metrics: PrometheusHandle, identity: NodeIdentity) -> Self {
        let stop = CancellationToken::new();
        Self {
            metrics,
            identity: Arc::new(identity),
            _ends: stop.clone().drop_guard(),
            stop,
        }
    }

    /// Serves a client port for now: pages alone. Gives the port back.
    pub(super) fn serve_client(&self, port: TcpListener) -> std::io::Result<TcpListener> {
        self.serve(port, Routes::default())
    }

    /// Serves the internal port for now: pages, and who this node is. Gives the port back.
    pub(super) fn serve_internal(&self, port: TcpListener) -> std::io::Result<TcpListener> {
        let nobody = ControllerLocator::new(Arc::clone(&self.identity), Vec::new());
        let node = NodeService::server(Arc::clone(&self.identity), nobody);
        self.serve(port, Routes::new(node))
    }

    /// Accepts by a second handle to the port's socket, so that the port stays bound when it ends.
    fn serve(&self, port: TcpListener, grpc: Routes) -> std::io::Result<TcpListener> {
        let socket = port.into_std()?;
        let second = TcpListener::from_std(socket.try_clone()?)?;
        let opening = || Readiness {
            ready: false,
            detail: String::from("opening the log directories"),
        };
        let services = Services {
            web: http::router(self.metrics.clone(), Arc::new(opening), grpc),
            windows: Http2Windows::CLIENTS,
            kafka: Some(Arc::new(NotYet)),
        };
        let gate = ConnectionGate::new(ConnectionLimits::default());
        tokio::spawn(listener::serve(second, services, gate, self.stop.clone()));
        TcpListener::from_std(socket)
    }
}

/// Closes Kafka's connections, as a port that is not open yet would.
struct NotYet;

impl KafkaService for NotYet {
    fn serve(&self, _: SniffedStream, _: SocketAddr, _: CancellationToken) -> BoxFuture<'static, ()> {
        futures::future::ready(()).boxed()
    }
}

#[cfg(test)]
mod tests {
    use protocol::grpc::v1::ProbeRequest;
    use protocol::grpc::v1::node_client::NodeClient;
    use protocol::{BrokerId, ClusterId, DirectoryId, IncarnationId};
    use tonic::Code;
    use tonic::transport::Endpoint;

    use super::*;
    use crate::config::HostPort;

    async fn probe(address: SocketAddr) -> Result<IncarnationId, Code> {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
        let mut node = NodeClient::new(endpoint.connect_lazy());
        let reply = node
            .probe(ProbeRequest::default())
            .await
            .map_err(|status| status.code())?;
        let hello = reply.into_inner().hello.expect("a hello");
        Ok(IncarnationId::from_slice(&hello.incarnation_id).expect("an id"))
    }

    #[tokio::test]
    async fn a_broker_that_recovers_says_which_run_it_is_and_keeps_its_ports() {
        let incarnation = IncarnationId::random();
        let cluster = ClusterId::new("test").unwrap();
        let identity = NodeIdentity::new(BrokerId(1), DirectoryId::ZERO, incarnation, Some(cluster));
        let early = EarlyPorts::new(http::recorder().handle(), identity);
        let any = HostPort::new("127.0.0.1", 0);
        let internal = early.serve_internal(listener::bind(&any).await.unwrap()).unwrap();
        let client = early.serve_client(listener::bind(&any).await.unwrap()).unwrap();
        let (internal_at, client_at) = (internal.local_addr().unwrap(), client.local_addr().unwrap());
        assert_eq!(probe(internal_at).await, Ok(incarnation));
        assert_eq!(probe(client_at).await, Err(Code::Unimplemented));
        drop(early);
        // Still bound: connecting succeeds, into the backlog at least.
        assert!(tokio::net::TcpStream::connect(internal_at).await.is_ok());
    }
}
