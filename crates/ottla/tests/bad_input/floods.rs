//! More HTTP/2 streams than a connection may have, and streams that end as soon as they began.

use std::collections::HashSet;

use bytes::{BufMut, BytesMut};

use crate::{scene::Scene, support::Client};

/// Streams that one connection may have open, as the server's SETTINGS say.
const MAX_STREAMS: usize = 128;

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;

fn put_frame(bytes: &mut BytesMut, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    bytes.put_uint(payload.len() as u64, 3);
    bytes.put_u8(kind);
    bytes.put_u8(flags);
    bytes.put_u32(stream);
    bytes.put_slice(payload);
}

/// The head of a gRPC call whose message is still to come.
fn head() -> Vec<u8> {
    let path = b"/ottla.v1.Admin/ListBrokers";
    // POST, http, and then a literal path, authority and content type (RFC 7541, 6.2.2).
    let mut block = vec![0x83, 0x86, 0x04, path.len() as u8];
    block.extend_from_slice(path);
    block.extend_from_slice(b"\x01\x01x\x0f\x10\x10application/grpc");
    block
}

/// Preface, SETTINGS, and so many calls that are begun.
fn begun(scene: &Scene, calls: usize, reset: bool) -> Client {
    let mut bytes = BytesMut::from(&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..]);
    put_frame(&mut bytes, SETTINGS, 0, 0, &[]);
    put_frame(&mut bytes, SETTINGS, ACK, 0, &[]);
    for call in 0..calls as u32 {
        put_frame(&mut bytes, HEADERS, END_HEADERS, 2 * call + 1, &head());
        if reset {
            put_frame(&mut bytes, RST_STREAM, 0, 2 * call + 1, &CANCEL.to_be_bytes());
        }
    }
    put_frame(&mut bytes, PING, 0, 0, b"the end.");
    let mut client = scene.client();
    client.send_bytes(&bytes);
    client
}

/// The next frame: kind, flags, stream, payload. Nothing once the server has closed the connection.
fn frame(client: &mut Client) -> Option<(u8, u8, u32, Vec<u8>)> {
    let head = client.receive_exact(9)?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
    let payload = client.receive_exact(length)?.to_vec();
    Some((head[3], head[4], stream, payload))
}

#[test]
fn more_streams_than_a_connection_may_have() {
    const MORE: usize = 500;
    let scene = Scene::start(&[]);
    let before = scene.resident_mib();
    let mut client = begun(&scene, MAX_STREAMS + MORE, false);
    let mut refused = HashSet::new();
    while refused.len() < MORE {
        let (kind, _, stream, payload) = frame(&mut client).expect("the connection goes on");
        assert_ne!(kind, GOAWAY, "{payload:?}");
        if kind == RST_STREAM {
            assert_eq!(payload, REFUSED_STREAM.to_be_bytes(), "stream {stream}");
            refused.insert(stream);
        }
    }
    let first = 2 * MAX_STREAMS as u32 + 1;
    assert!(
        refused.iter().all(|&stream| stream >= first),
        "those above the cap"
    );
    scene.expect_given_back(before, 64, "628 gRPC calls on one connection");
    scene.after(
        "628 gRPC calls on one connection, cap 128",
        "REFUSED_STREAM × 500",
    );
}

/// What is begun and given up costs the server work for every stream: it may go on, or end the connection,
/// but must not gather them.
#[test]
fn streams_that_end_as_they_begin() {
    const STREAMS: usize = 20_000;
    let scene = Scene::start(&[]);
    let before = scene.resident_mib();
    let mut client = begun(&scene, STREAMS, true);
    let answer = loop {
        match frame(&mut client) {
            Some((PING, ACK, ..)) => break "answered to the end".to_owned(),
            Some((GOAWAY, _, _, payload)) => {
                let reason = String::from_utf8_lossy(&payload[8..]).into_owned();
                break format!("GOAWAY {reason}");
            }
            Some(_) => {}
            // Its farewell was overtaken by the reset for what it had not read.
            None => break "closed".to_owned(),
        }
    };
    scene.expect_given_back(before, 64, "streams that end as they begin");
    scene.after("20,000 gRPC calls, each given up at once", &answer);
}
