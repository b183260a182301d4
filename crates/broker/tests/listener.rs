//! One port for everything: what each kind of client finds there.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use broker::config::{ConnectionLimits, HostPort};
use broker::http::{Readiness, recorder, router};
use broker::listener::{ConnectionGate, Http2Windows, KafkaService, Services, SniffedStream, bind, serve};
use futures::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy, split};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

const SOON: Duration = Duration::from_secs(60);

/// Sends back what it is sent.
struct Echo;

impl KafkaService for Echo {
    fn serve(&self, stream: SniffedStream, _: SocketAddr, stop: CancellationToken) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let (mut read, mut write) = split(stream);
            tokio::select! {
                () = stop.cancelled() => {}
                _ = copy(&mut read, &mut write) => {}
            }
        })
    }
}

struct Port {
    address: SocketAddr,
    stop: CancellationToken,
    served: JoinHandle<()>,
}

impl Port {
    async fn open(kafka: bool, limits: ConnectionLimits) -> Self {
        let listener = bind(&HostPort::new("127.0.0.1", 0))
            .await
            .expect("loopback works");
        let address = listener.local_addr().expect("loopback works");
        let (_, health) = tonic_health::server::health_reporter();
        let readiness = || Readiness {
            ready: false,
            detail: String::from("not registered"),
        };
        let services = Services {
            web: router(
                recorder().handle(),
                Arc::new(readiness),
                tonic::service::Routes::new(health),
            ),
            windows: Http2Windows::CLIENTS,
            kafka: kafka.then(|| Arc::new(Echo) as Arc<dyn KafkaService>),
        };
        let stop = CancellationToken::new();
        let gate = ConnectionGate::new(limits);
        let served = tokio::spawn(serve(listener, services, gate, stop.clone()));
        Self {
            address,
            stop,
            served,
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("loopback works")
    }

    async fn get(&self, path: &str) -> String {
        let mut stream = self.connect().await;
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        stream
            .write_all(request.as_bytes())
            .await
            .expect("loopback works");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("loopback works");
        answer
    }

    /// Whether the port closes the connection after these bytes, without a word.
    async fn closes_after(&self, bytes: &[u8]) -> bool {
        let mut stream = self.connect().await;
        stream.write_all(bytes).await.expect("loopback works");
        let mut answer = Vec::new();
        let ended = timeout(SOON, stream.read_to_end(&mut answer))
            .await
            .expect("closed in time");
        // A close with unread bytes arrives as a reset.
        (ended.is_ok() || ended.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset))
            && answer.is_empty()
    }

    /// A connection that is served. Its place may be free only once the server has seen an earlier one go, and
    /// on a busy machine it may be closed as idle before its first byte is there: it is tried again.
    async fn place(&self) -> TcpStream {
        let mut echoed = [0; 5];
        let served = async {
            loop {
                let mut stream = self.connect().await;
                let asked = stream.write_all(b"\0\0\0\x01x").await;
                if asked.is_ok() && stream.read_exact(&mut echoed).await.is_ok() {
                    return stream;
                }
            }
        };
        timeout(SOON, served).await.expect("a place in time")
    }

    async fn close(self) {
        self.stop.cancel();
        timeout(SOON, self.served)
            .await
            .expect("ends in time")
            .expect("loopback works");
    }
}

#[tokio::test]
async fn kafka_http_and_grpc_share_a_port() {
    let port = Port::open(true, ConnectionLimits::default()).await;

    let mut kafka = port.connect().await;
    // The first byte alone, then the rest: every byte reaches the protocol.
    kafka.write_all(&[0]).await.unwrap();
    kafka.write_all(b"\0\0\x05hello").await.unwrap();
    let mut echoed = [0; 9];
    kafka.read_exact(&mut echoed).await.unwrap();
    assert_eq!(&echoed, b"\0\0\0\x05hello");

    assert!(port.get("/livez").await.starts_with("HTTP/1.1 200"));
    let ready = port.get("/readyz").await;
    assert!(
        ready.starts_with("HTTP/1.1 503") && ready.contains("not registered"),
        "{ready}"
    );
    let metrics = port.get("/metrics").await;
    assert!(metrics.contains("text/plain; version=0.0.4"), "{metrics}");
    assert!(port.get("/nothing").await.starts_with("HTTP/1.1 404"));

    let channel = Endpoint::from_shared(format!("http://{}", port.address))
        .unwrap()
        .connect()
        .await
        .unwrap();
    let mut health = HealthClient::new(channel);
    let unknown = HealthCheckRequest {
        service: String::from("nobody"),
    };
    assert!(health.check(HealthCheckRequest::default()).await.is_ok());
    assert_eq!(
        health.check(unknown).await.unwrap_err().code(),
        tonic::Code::NotFound
    );
    port.close().await;
}

#[tokio::test]
async fn strangers_are_closed_without_a_word() {
    let client_port = Port::open(true, ConnectionLimits::default()).await;
    assert!(client_port.closes_after(&[0x16, 0x03, 0x01, 0x02, 0x00]).await);
    client_port.close().await;

    let internal_port = Port::open(false, ConnectionLimits::default()).await;
    assert!(internal_port.closes_after(&[0, 0, 0, 12, 0, 18]).await);
    assert!(internal_port.get("/livez").await.starts_with("HTTP/1.1 200"));
    internal_port.close().await;
}

#[tokio::test]
async fn connections_are_bounded_per_address_and_by_idleness() {
    let limits = ConnectionLimits {
        per_address: 1,
        idle: Duration::from_millis(300),
        ..ConnectionLimits::default()
    };
    let port = Port::open(true, limits).await;
    let first = port.place().await;
    assert!(port.closes_after(b"").await, "a second one is refused");
    drop(first);
    drop(port.place().await);
    assert!(port.closes_after(b"").await, "a silent connection ends");
    port.close().await;
}
