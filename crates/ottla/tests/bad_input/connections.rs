//! Connections that take their time, never read, or are too many.

use std::{
    net::Ipv4Addr,
    thread,
    time::{Duration, Instant},
};

use kafka_protocol::messages::ApiVersionsRequest;

use crate::{
    ground::produce,
    reads::fetch_request,
    scene::Scene,
    strangers::most_lines,
    support::{Client, batch, text},
};

/// Everything that waits for the server to lose its patience ends within this.
const LONG: Duration = Duration::from_secs(60);
/// The nodes' `connections.max.idle.ms`, where it matters.
const IDLE: Duration = Duration::from_secs(5);
const MOMENT: Duration = Duration::from_millis(20);

fn versions() -> ApiVersionsRequest {
    ApiVersionsRequest::default()
        .with_client_software_name(text("test"))
        .with_client_software_version(text("1"))
}

/// Whether the connection is served.
fn is_admitted(client: &mut Client) -> bool {
    client.send(4, &versions());
    client.receive_frame().is_ok()
}

/// How many Kafka connections the node says it has.
fn open(scene: &Scene) -> usize {
    let page = scene.node.http_get("/metrics").unwrap_or_default();
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix("ottla_connections "));
    line.map_or(0, |value| value.trim().parse().unwrap())
}

/// Waits for so many Kafka connections.
fn expect_open(scene: &Scene, count: usize, what: &str) {
    let deadline = Instant::now() + LONG;
    loop {
        let now = open(scene);
        if now == count {
            return;
        }
        assert!(Instant::now() < deadline, "{what}: {now} connections are open");
        thread::sleep(MOMENT);
    }
}

#[test]
fn those_who_take_their_time() {
    let scene = Scene::impatient(IDLE);
    let began = Instant::now();
    // All wait at once, each for the same limit.
    let head = [0, 0, 1, 0, 0, 18, 0, 4, 0, 0];
    let partial: [(&str, &[u8]); 8] = [
        ("silent from the start", b""),
        ("one byte of a length", &[0]),
        ("half a header", &head),
        ("one byte of a TLS hello", &[0x16]),
        ("two letters of HTTP", b"GE"),
        (
            "half a head of HTTP/1",
            b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Slow: ",
        ),
        ("a piece of HTTP/2's preface", b"PRI * HTTP/2.0\r\n"),
        (
            "HTTP/2's preface and no request",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        ),
    ];
    let mut waiting = Vec::new();
    for (what, bytes) in partial {
        let mut client = scene.client();
        client.send_bytes(bytes);
        waiting.push((what, client));
    }
    let mut idle = scene.client();
    assert_eq!(idle.call(4, &versions()).error_code, 0);
    waiting.push(("idle after an answer", idle));

    // A fetch that waits for longer than the limit is not idle.
    let topic = scene.topic("waits");
    let mut poller = scene.client();
    let long_poll = poller.send(16, &fetch_request(&topic, 0).with_max_wait_ms(10_000));

    // Slow-loris: a byte now and then is no progress.
    let mut loris = scene.client();
    loris.send_bytes(&1000_i32.to_be_bytes());
    let dripping = Instant::now();
    while loris.is_open() {
        assert!(dripping.elapsed() < LONG, "slow-loris holds its connection");
        loris.send_bytes(&[0]);
        thread::sleep(5 * MOMENT);
    }
    let answer = format!("closed after {:.1?}", dripping.elapsed());
    scene.after("slow-loris, a byte every 100 ms", &answer);

    for (what, client) in waiting {
        // Some protocols say goodbye: what matters is that it ends.
        let rest = client.read_to_end();
        assert!(rest.is_ok(), "{what}: still open after {:?}", began.elapsed());
        scene.after(what, "closed");
    }

    let answer = poller.receive::<kafka_protocol::messages::FetchRequest>(16, long_poll);
    assert_eq!(answer.responses[0].partitions[0].error_code, 0);
    scene.after("a fetch that waits twice the idle limit", "answered");
}

/// Clients that ask for much and never read: each costs one answer, for as long as the limit.
#[test]
fn those_who_never_read() {
    let scene = Scene::impatient(IDLE);
    let topic = scene.topic("unread");
    let mut producer = scene.client();
    for _ in 0..8 {
        produce(&mut producer, &topic, batch(&[&vec![b'x'; 1_000_000]]));
    }
    drop(producer);
    expect_open(&scene, 1, "only the healthy client");
    let before = scene.resident_mib();
    let clients: Vec<Client> = (0..10)
        .map(|_| {
            let mut client = scene.client();
            assert!(is_admitted(&mut client));
            for _ in 0..30 {
                client.send(16, &fetch_request(&topic, 0));
            }
            client
        })
        .collect();
    let mut most = 0;
    let began = Instant::now();
    while open(&scene) > 1 {
        most = most.max(scene.resident_mib());
        assert!(began.elapsed() < LONG, "unread answers hold their connections");
        thread::sleep(MOMENT);
    }
    let took = began.elapsed();
    let grown = most.saturating_sub(before);
    assert!(grown < 250, "{grown} MiB for ten connections of 8 MiB an answer");
    for client in clients {
        let got = client.read_to_end().unwrap().len();
        assert!(
            got < 3 * 8_000_000,
            "{got} bytes were sent to a client that did not read"
        );
    }
    scene.after(
        "10 × 30 fetches of 8 MB, never read",
        &format!("closed after {took:.1?}, {grown} MiB meanwhile"),
    );
}

#[test]
fn those_who_are_too_many() {
    let scene = Scene::start(&["max.connections=60", "max.connections.per.ip=40"]);
    let began = Instant::now();
    let from = |last: u8| Client::connect_from(Ipv4Addr::new(127, 0, 0, last), scene.node.address());
    // A place that was left is given again in a moment.
    let place = |last: u8| {
        let deadline = Instant::now() + LONG;
        loop {
            let mut client = from(last);
            if is_admitted(&mut client) {
                return client;
            }
            assert!(Instant::now() < deadline, "no place for 127.0.0.{last}");
            thread::sleep(MOMENT);
        }
    };

    // The healthy client holds one place, from another address.
    let here: Vec<Client> = (0..40).map(|_| place(2)).collect();
    from(2).expect_silent_close("the 41st from an address");
    scene.after("the 41st connection from an address, cap 40", "closed at once");
    let mut there: Vec<Client> = (0..19).map(|_| place(3)).collect();
    from(4).expect_silent_close("the 61st of all");
    drop(there.pop());
    there.push(place(4));

    // All places are taken; the healthy client keeps its own.
    for n in 0..2000 {
        from(5 + (n % 100) as u8).expect_silent_close("one of a crowd");
    }
    drop(there);
    scene.after(
        "2,001 connections above max.connections=60",
        "each closed at once",
    );
    drop(here);
    expect_open(&scene, 1, "all have left");
    let lines = scene.node.log().matches("connection refused").count();
    assert!(
        lines <= most_lines(began.elapsed()),
        "{lines} lines about refused connections"
    );
}
