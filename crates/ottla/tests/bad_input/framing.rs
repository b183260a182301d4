//! Bytes that are no request: the connection is closed without a word, and nothing is reserved for what a
//! client merely claims to send.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{
    ApiVersionsRequest, ApiVersionsResponse, MetadataRequest, ResponseHeader,
    metadata_request::MetadataRequestTopic,
};
use kafka_protocol::protocol::Decodable;
use protocol::ErrorCode;

use crate::{
    scene::Scene,
    support::{Client, frame, text, topic_name},
};

const CLOSED: &str = "closed without a word";
/// `socket.request.max.bytes`
const LARGEST: i32 = 100 << 20;

const METADATA: i16 = 3;
const FETCH: i16 = 1;

/// A frame's contents: header version 1 with a null client id, and a body.
fn request(key: i16, version: i16, body: &[u8]) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_i16(key);
    bytes.put_i16(version);
    bytes.put_i32(77);
    bytes.put_i16(-1);
    bytes.put_slice(body);
    bytes.freeze()
}

/// The same with the flexible header's (empty) tagged fields.
fn flexible(key: i16, version: i16, body: &[u8]) -> Bytes {
    request(key, version, &[&[0], body].concat())
}

#[test]
fn lengths_that_no_frame_has() {
    let scene = Scene::shared();
    for length in [-1, i32::MIN, 0, 7, LARGEST + 1, i32::MAX] {
        let mut client = scene.client();
        client.send_bytes(&length.to_be_bytes());
        client.send_bytes(&[0; 100]);
        client.expect_silent_close(&format!("length {length}"));
        scene.after(&format!("length prefix {length}"), CLOSED);
    }
}

#[test]
fn a_promise_of_much_costs_nothing() {
    let scene = Scene::start(&[]);
    let before = scene.resident_mib();
    let clients: Vec<Client> = (0..100)
        .map(|_| {
            let mut client = scene.client();
            client.send_bytes(&LARGEST.to_be_bytes());
            client.send_bytes(&[0; 1000]);
            client
        })
        .collect();
    // They were accepted and read from: whoever comes later has been answered.
    scene.after("100 × a length prefix of 100 MiB", "waits for the rest");
    scene.expect_given_back(before, 64, "bytes that never came");
    drop(clients);
}

/// A frame that really is that large is taken, and leaves nothing behind at a connection that idles.
#[test]
fn what_came_is_given_back() {
    let scene = Scene::start(&[]);
    let before = scene.resident_mib();
    // A record batch that is refused: 30 MiB where the topic allows one.
    let topic = scene.topic("given-back");
    let large = crate::support::batch(&[&vec![b'x'; 30 << 20]]);
    let clients: Vec<Client> = (0..8)
        .map(|_| {
            let mut client = scene.client();
            let request = crate::ground::produce_request(13, &topic, -1, large.clone());
            let answer = crate::ground::only_partition(client.call(13, &request));
            assert_eq!(answer.error_code, ErrorCode::MessageTooLarge.code());
            client
        })
        .collect();
    scene.after("8 × a batch of 30 MiB, then idle", "MESSAGE_TOO_LARGE");
    scene.expect_given_back(before, 100, "8 idle connections");
    drop(clients);
}

#[test]
fn bodies_that_end_early() {
    let scene = Scene::shared();
    let topics = (0..3)
        .map(|n| MetadataRequestTopic::default().with_name(Some(topic_name(&format!("some-topic-{n}")))));
    let whole = MetadataRequest::default().with_topics(Some(topics.collect()));
    for version in [1, 9, 12] {
        let whole = frame(version, 1, &whole);
        for cut in (1..whole.len() - 12).step_by(3) {
            let mut client = scene.client();
            client.send_frame(&whole[4..whole.len() - cut]);
            client.expect_silent_close(&format!("Metadata {version} without its last {cut} bytes"));
        }
        scene.after(&format!("Metadata {version} cut at every third byte"), CLOSED);
    }
}

#[test]
fn counts_and_varints_that_lie() {
    let scene = Scene::shared();
    let bodies: [(&str, Bytes); 8] = [
        (
            "array count 2147483647 in 4 bytes",
            request(METADATA, 1, &[0x7f, 0xff, 0xff, 0xff]),
        ),
        ("array count −2", request(METADATA, 1, &[0xff, 0xff, 0xff, 0xfe])),
        (
            "compact array count of 4 billion",
            flexible(METADATA, 9, &[0xff, 0xff, 0xff, 0xff, 0x0f]),
        ),
        (
            "varint overflow",
            flexible(METADATA, 9, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        ),
        ("varint that does not end", flexible(METADATA, 9, &[0x80])),
        (
            "string length −7",
            request(METADATA, 1, &[0, 0, 0, 1, 0xff, 0xf9]),
        ),
        (
            "a name that is not UTF-8",
            request(METADATA, 1, &[0, 0, 0, 1, 0, 2, 0xc3, 0x28]),
        ),
        (
            "a client id longer than the frame",
            Bytes::from_static(&[0, 3, 0, 1, 0, 0, 0, 1, 0x7f, 0xff]),
        ),
    ];
    for (what, body) in bodies {
        let mut client = scene.client();
        client.send_frame(&body);
        client.expect_silent_close(what);
        scene.after(what, CLOSED);
    }
}

#[test]
fn more_elements_than_a_request_may_have() {
    let scene = Scene::shared();
    let before = scene.resident_mib();
    // 20 MiB of empty names would be gigabytes once decoded.
    let count = 10 << 20;
    let mut body = BytesMut::new();
    body.put_i32(count);
    body.put_bytes(0, 2 * count as usize);
    let mut client = scene.client();
    client.send_frame(&request(METADATA, 1, &body));
    client.expect_silent_close("ten million topics");
    scene.after("Metadata for 10 million empty names", CLOSED);
    scene.expect_given_back(before, 200, "ten million topics");
}

#[test]
fn apis_and_versions_that_are_not_served() {
    let scene = Scene::shared();
    for (key, version) in [
        (-1, 0),
        (4, 0),
        (7, 1),
        (9999, 0),
        (METADATA, 14),
        (METADATA, -1),
        (FETCH, 3),
        (FETCH, 18),
        (0, 0),
        (0, 14),
    ] {
        let mut client = scene.client();
        client.send_frame(&request(key, version, &[0; 30]));
        client.expect_silent_close(&format!("API {key} version {version}"));
        scene.after(&format!("API key {key} version {version}"), CLOSED);
    }
}

#[test]
fn an_unknown_version_of_api_versions_is_answered_in_version_0() {
    let scene = Scene::shared();
    for version in [5, 99, i16::MAX, -1] {
        let mut client = scene.client();
        // The body is not looked at.
        client.send_frame(&request(18, version, &[0xff; 9]));
        let mut bytes = client.receive_frame().unwrap();
        assert_eq!(ResponseHeader::decode(&mut bytes, 0).unwrap().correlation_id, 77);
        let answer = ApiVersionsResponse::decode(&mut bytes, 0).unwrap();
        assert!(bytes.is_empty());
        assert_eq!(answer.error_code, ErrorCode::UnsupportedVersion.code());
        let keys: Vec<_> = answer
            .api_keys
            .iter()
            .map(|api| (api.api_key, api.min_version, api.max_version))
            .collect();
        assert_eq!(keys, [(18, 0, 4)]);
        // The connection goes on.
        let request = ApiVersionsRequest::default()
            .with_client_software_name(text("test"))
            .with_client_software_version(text("1"));
        assert_eq!(client.call(4, &request).error_code, 0);
        scene.after(
            &format!("ApiVersions version {version}"),
            "version 0, UNSUPPORTED_VERSION, (18, 0, 4)",
        );
    }
}
