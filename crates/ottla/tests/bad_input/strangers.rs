//! Who comes to the client port and speaks something else, or knocks at services that are not there.

use std::{
    thread,
    time::{Duration, Instant},
};

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{ApiVersionsRequest, SaslHandshakeRequest};
use protocol::grpc::v1::{AdminCreateTopicsRequest, AdminNewTopic, admin_client::AdminClient};
use tonic::{Code, transport::Endpoint};

use crate::{
    scene::Scene,
    support::{Client, text},
};

/// A line that was swallowed for the sake of an earlier one comes within this.
const SPOKEN: Duration = Duration::from_secs(60);
/// One line of a kind in so long.
const EVERY: Duration = Duration::from_secs(10);

/// The most lines of a kind that are in a log which is so old.
pub(crate) fn most_lines(age: Duration) -> usize {
    1 + age.as_secs().div_ceil(EVERY.as_secs()) as usize
}

/// Sends strangers, fifty and then as many as it takes, until the log has the line; it has it once in a
/// while and not once for each.
fn one_line(scene: &Scene, what: &str, line: &str, stranger: impl Fn()) {
    let began = Instant::now();
    for _ in 0..50 {
        stranger();
    }
    while !scene.node.log().contains(line) {
        assert!(began.elapsed() < SPOKEN, "{what}: no line says so");
        stranger();
        thread::sleep(EVERY / 100);
    }
    let lines = scene.node.log().matches(line).count();
    assert!(lines <= most_lines(began.elapsed()), "{what}: {lines} lines");
    let log = scene.node.log();
    let said = log.lines().find(|entry| entry.contains(line)).unwrap_or_default();
    scene.after(
        what,
        &format!("closed; log: {}", said.split("  ").last().unwrap_or(said)),
    );
}

#[test]
fn tls_sasl_and_ancient_clients() {
    let scene = Scene::start(&[]);
    // A ClientHello's record and handshake headers; the rest does not matter.
    let hello = [0x16, 0x03, 0x01, 0x00, 0xc8, 0x01, 0x00, 0x00, 0xc4, 0x03, 0x03];
    one_line(
        &scene,
        "50 TLS hellos",
        "a TLS client on a PLAINTEXT port",
        || {
            let mut client = scene.client();
            client.send_bytes(&hello);
            client.expect_silent_close("a TLS hello");
        },
    );
    one_line(
        &scene,
        "50 SASL handshakes",
        "a SASL client on a PLAINTEXT port",
        || {
            let mut client = scene.client();
            let versions = ApiVersionsRequest::default()
                .with_client_software_name(text("test"))
                .with_client_software_version(text("1"));
            assert_eq!(client.call(3, &versions).error_code, 0);
            client.send(1, &SaslHandshakeRequest::default().with_mechanism(text("PLAIN")));
            client.expect_silent_close("a SASL handshake");
        },
    );
    one_line(
        &scene,
        "50 × Produce 0",
        "Produce is not served in version",
        || {
            let mut client = scene.client();
            client.send_frame(&[
                0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0xff, 0, 1, 0, 0, 3, 0xe8, 0, 0, 0, 0,
            ]);
            client.expect_silent_close("Produce version 0");
        },
    );
}

#[test]
fn http_is_served_on_the_same_port() {
    let scene = Scene::shared();
    for (path, status) in [
        ("/livez", "200"),
        ("/readyz", "200"),
        ("/metrics", "200"),
        ("/", "404"),
        ("/../../etc/passwd", "404"),
    ] {
        let answer = scene.node.http_get(path).unwrap();
        let expected = format!("HTTP/1.1 {status}");
        assert!(answer.starts_with(&expected), "{path}: {answer}");
        scene.after(&format!("GET {path}"), &expected);
    }
    let mut http2 = scene.client();
    http2.send_bytes(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    let settings = http2.receive_exact(9).expect("an answer");
    assert_eq!(settings[3], 4, "the server's SETTINGS come first: {settings:?}");
    scene.after("HTTP/2's preface", "SETTINGS");

    let mut nonsense = scene.client();
    nonsense.send_bytes(b"GET nonsense\r\n\r\n");
    let answer = nonsense.read_to_end().unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 400"), "{answer:?}");
    scene.after("GET nonsense", "HTTP/1.1 400");

    let mut endless = scene.client();
    endless.send_bytes(b"GET / HTTP/1.1\r\n");
    endless.send_bytes(&vec![b'a'; 2 << 20]);
    let answer = endless.read_to_end().unwrap();
    assert!(
        answer.starts_with(b"HTTP/1.1 4"),
        "{:?}",
        &answer[..answer.len().min(50)]
    );
    scene.after("a head of 2 MiB", "HTTP/1.1 4xx");
}

/// A gRPC call over HTTP/1: what the head of the answer says.
pub(crate) fn call(client: Client, path: &str, message: &[u8]) -> String {
    let mut client = client;
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/grpc\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n",
        5 + message.len()
    );
    let mut bytes = BytesMut::from(request.as_bytes());
    bytes.put_u8(0);
    bytes.put_u32(message.len() as u32);
    bytes.put_slice(message);
    client.send_bytes(&bytes);
    String::from_utf8_lossy(&client.read_to_end().unwrap()).to_lowercase()
}

#[test]
fn the_cluster_s_own_services_are_not_on_the_client_port() {
    let scene = Scene::shared();
    for path in [
        "/ottla.v1.Raft/AppendEntries",
        "/ottla.v1.Raft/Vote",
        "/ottla.v1.Raft/PreVote",
        "/ottla.v1.Raft/TransferLeader",
        "/ottla.v1.Raft/InstallSnapshot",
        "/ottla.v1.BrokerSession/Session",
        "/ottla.v1.Controller/CreateTopics",
        "/ottla.v1.Controller/DeleteTopics",
        "/ottla.v1.Controller/AlterConfigs",
        "/ottla.v1.Controller/AlterPartitions",
        "/ottla.v1.Controller/AllocateProducerIds",
        "/ottla.v1.Controller/UnregisterBroker",
        "/ottla.v1.Controller/DescribeQuorum",
        "/ottla.v1.Replication/Replicate",
        "/ottla.v1.Node/Probe",
        "/ottla.v1.Nobody/Nothing",
    ] {
        let answer = call(scene.client(), path, &[]);
        assert!(answer.contains("grpc-status: 12"), "{path}: {answer}");
        scene.after(path, "UNIMPLEMENTED");
    }
    // What the port does have answers otherwise, and so does the internal port.
    let listed = call(scene.client(), "/ottla.v1.Admin/ListBrokers", &[]);
    assert!(!listed.contains("grpc-status: 12"), "{listed}");
    let mut internal = scene.node.address();
    internal.set_port(internal.port() + 10_000);
    let probed = call(Client::connect(internal), "/ottla.v1.Node/Probe", &[]);
    assert!(!probed.contains("grpc-status: 12"), "{probed}");
}

#[test]
fn a_grpc_message_above_the_cap() {
    let scene = Scene::shared();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let topic = AdminNewTopic {
        name: "x".repeat(1000),
        ..AdminNewTopic::default()
    };
    let request = AdminCreateTopicsRequest {
        topics: vec![topic; 8000],
        ..AdminCreateTopicsRequest::default()
    };
    let status = runtime.block_on(async {
        let endpoint = Endpoint::from_shared(format!("http://{}", scene.node.address())).unwrap();
        let mut admin = AdminClient::new(endpoint.connect().await.unwrap());
        admin.admin_create_topics(request).await.unwrap_err()
    });
    assert!(
        matches!(status.code(), Code::OutOfRange | Code::ResourceExhausted),
        "{status:?}"
    );
    scene.after(
        "a gRPC message of 8 MB",
        &format!("{:?}: {}", status.code(), status.message()),
    );

    // A message that only claims to be large.
    let mut body = BytesMut::new();
    body.put_u8(0);
    body.put_u32(u32::MAX);
    let mut client = scene.client();
    let head = "POST /ottla.v1.Admin/ListBrokers HTTP/1.1\r\nHost: x\r\nContent-Type: application/grpc\r\n\
                Connection: close\r\nContent-Length: 5\r\n\r\n";
    client.send_bytes(&Bytes::from([head.as_bytes(), &body].concat()));
    let answer = String::from_utf8_lossy(&client.read_to_end().unwrap()).to_lowercase();
    assert!(
        answer.contains("grpc-status: 11") || answer.contains("grpc-status: 8"),
        "{answer}"
    );
    scene.after("a gRPC message that claims 4 GiB", "OUT_OF_RANGE");
}
