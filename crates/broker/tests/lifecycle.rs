//! A whole broker, up and down, under a controller whose every word the test says.

mod fake_controller;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use broker::broker::Broker;
use broker::config::{BrokerConfig, ConnectionLimits, HostPort, ListenerConfig, SecurityProtocol};
use broker::http::recorder;
use fake_controller::{FakeController, SOON, SessionPeer};
use metadata::Endpoint;
use metadata::configs::NodeDefaults;
use protocol::grpc::v1::controller_message::Message;
use protocol::grpc::v1::metadata_record::Record;
use protocol::grpc::v1::node_client::NodeClient;
use protocol::grpc::v1::{
    BrokerState, CommittedEntries, CommittedEntry, InternalHello, MetadataEntry, MetadataRecord,
    ProbeRequest, RegisterBrokerRecord, Registered,
};
use protocol::{BrokerId, ClaimId, INTERNAL_PROTOCOL_VERSION, IncarnationId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic::transport::Endpoint as Peer;

fn config(controller: &FakeController, dir: &Path) -> BrokerConfig {
    let node_id = BrokerId(1);
    BrokerConfig {
        node_id,
        cluster_id: None,
        listeners: vec![ListenerConfig {
            name: String::from("PLAINTEXT"),
            bind: HostPort::new("127.0.0.1", 0),
            security_protocol: SecurityProtocol::Plaintext,
        }],
        advertised: vec![Endpoint {
            listener: String::from("PLAINTEXT"),
            host: String::from("localhost"),
            port: 0,
            security_protocol: String::from("PLAINTEXT"),
        }],
        internal_listen: HostPort::new("127.0.0.1", 0),
        internal_advertised: HostPort::new("127.0.0.1", 0),
        controllers: vec![controller.voter()],
        log_dirs: vec![dir.to_owned()],
        rack: None,
        heartbeat_interval: Duration::from_millis(50),
        session_timeout: Duration::from_secs(30),
        controlled_shutdown_timeout: SOON,
        replica_lag_time_max: Duration::from_secs(30),
        socket_request_max_bytes: 1 << 20,
        connections: ConnectionLimits::default(),
        auto_create_topics: true,
        max_partitions_described: 2000,
        batch_validation_header_only: false,
        groups: broker::config::GroupSettings::default(),
        disk_threads: 2,
        flush_threads: 1,
        recovery_threads_per_dir: 1,
        node_defaults: NodeDefaults::new(BTreeMap::new()),
        static_values: BTreeMap::new(),
    }
}

fn hello() -> InternalHello {
    InternalHello {
        cluster_id: String::from("test"),
        node_id: 101,
        protocol_version: INTERNAL_PROTOCOL_VERSION,
        expected_node_id: -1,
        ..InternalHello::default()
    }
}

/// The controller's part of a broker's way up: the claim, the registration, and the word that it serves.
async fn bring_up(session: &mut SessionPeer) {
    let register = session.register.clone();
    let claim: Vec<u8> = ClaimId::random().to_vec();
    let entry = |makes_claim, records| MetadataEntry {
        format_version: 1,
        claim_id: claim.clone().into(),
        makes_claim,
        records,
    };
    let registration = Record::RegisterBroker(RegisterBrokerRecord {
        broker_id: 1,
        incarnation_id: register.hello.as_ref().expect("a hello").incarnation_id.clone(),
        broker_epoch: 1,
        listeners: register.listeners.clone(),
        internal_address: register.internal_address.clone(),
        rack: String::new(),
        log_dirs: register.log_dirs.clone(),
        version: register.version.clone(),
    });
    session
        .send(
            1,
            Message::Registered(Registered {
                broker_epoch: 1,
                catch_up_to: 1,
                controller: Some(hello()),
            }),
        )
        .await;
    let committed = |offset, entry| CommittedEntry {
        offset,
        epoch: 1,
        entry: Some(entry),
    };
    let record = MetadataRecord {
        record: Some(registration),
    };
    session
        .send(
            1,
            Message::Entries(CommittedEntries {
                entries: vec![
                    committed(0, entry(true, Vec::new())),
                    committed(1, entry(false, vec![record])),
                ],
            }),
        )
        .await;
    session.heartbeat(|heartbeat| heartbeat.applied_offset == 1).await;
    let state = BrokerState {
        fenced: false,
        caught_up: true,
        may_shut_down: false,
        committed_offset: 1,
    };
    session.send(1, Message::State(state)).await;
}

async fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("the port is open");
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    stream
        .write_all(request.as_bytes())
        .await
        .expect("loopback works");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("loopback works");
    answer
}

/// Sends an ApiVersions request (version 0) and says whether it was answered.
async fn kafka_answers(address: SocketAddr) -> bool {
    let mut stream = TcpStream::connect(address).await.expect("the port is open");
    let request = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 7, 0xff, 0xff];
    stream.write_all(&request).await.expect("loopback works");
    let mut head = [0; 8];
    timeout(SOON, stream.read_exact(&mut head))
        .await
        .expect("an answer or an end in time")
        .is_ok_and(|_| head[4..] == [0, 0, 0, 7])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_comes_up_serves_and_leaves_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let mut controller = FakeController::start(101).await;
    controller.say_active(Some(controller.active_in(1)));
    let broker = Broker::start(
        config(&controller, dir.path()),
        IncarnationId::random(),
        recorder().handle(),
    )
    .await
    .unwrap();
    let (client, internal) = (broker.client_addresses()[0].1, broker.internal_address());
    let mut session = controller.next_session().await;
    assert_eq!(session.register.listeners[0].port, u32::from(client.port()));
    assert_eq!(session.register.internal_address, internal.to_string());
    assert!(
        !session.register.may_have_lost_data,
        "an empty directory lost nothing"
    );

    assert!(get(client, "/livez").await.starts_with("HTTP/1.1 200"));
    assert!(get(client, "/readyz").await.starts_with("HTTP/1.1 503"));
    assert!(!kafka_answers(client).await, "not served before it is caught up");

    bring_up(&mut session).await;
    let mut status = broker.status();
    timeout(SOON, status.wait_for(|status| status.is_ready()))
        .await
        .expect("ready in time")
        .unwrap();
    assert!(get(client, "/readyz").await.starts_with("HTTP/1.1 200"));
    assert!(get(internal, "/readyz").await.starts_with("HTTP/1.1 200"));
    timeout(SOON, async { while !kafka_answers(client).await {} })
        .await
        .expect("served in time");

    let channel = Peer::from_shared(format!("http://{internal}"))
        .unwrap()
        .connect()
        .await
        .unwrap();
    let mut node = NodeClient::new(channel);
    let probe = node
        .probe(ProbeRequest { hello: Some(hello()) })
        .await
        .unwrap()
        .into_inner();
    let own = session.register.hello.clone().unwrap();
    assert_eq!(probe.hello.unwrap().incarnation_id, own.incarnation_id);
    assert_eq!(probe.active_controller.unwrap().node_id, 101);
    let mut stranger = hello();
    stranger.cluster_id = String::from("foreign");
    let refused = node
        .probe(ProbeRequest {
            hello: Some(stranger),
        })
        .await;
    assert_eq!(refused.unwrap_err().code(), Code::FailedPrecondition);

    let shutdown = CancellationToken::new();
    let running = tokio::spawn(broker.run(shutdown.clone()));
    shutdown.cancel();
    session.heartbeat(|heartbeat| heartbeat.want_shutdown).await;
    let state = BrokerState {
        fenced: true,
        caught_up: true,
        may_shut_down: true,
        committed_offset: 1,
    };
    session.send(1, Message::State(state)).await;
    assert_eq!(
        timeout(SOON, running).await.expect("stopped in time").unwrap(),
        Ok(())
    );
    assert!(
        TcpStream::connect(client).await.is_err(),
        "the port is free again"
    );

    // The next run knows its cluster, and that it was closed clean.
    let broker = Broker::start(
        config(&controller, dir.path()),
        IncarnationId::random(),
        recorder().handle(),
    )
    .await
    .unwrap();
    let session = controller.next_session().await;
    assert_eq!(session.register.hello.as_ref().unwrap().cluster_id, "test");
    assert!(!session.register.may_have_lost_data);
    drop(broker);
}

#[tokio::test]
async fn a_port_in_use_is_reported_before_anything_else() {
    let dir = tempfile::tempdir().unwrap();
    let controller = FakeController::start(101).await;
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = config(&controller, dir.path());
    config.listeners[0].bind.port = taken.local_addr().unwrap().port();
    let error = Broker::start(config, IncarnationId::random(), recorder().handle())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("cannot listen"), "{error}");
    assert!(
        dir.path().read_dir().unwrap().next().is_none(),
        "nothing was formatted"
    );
}
