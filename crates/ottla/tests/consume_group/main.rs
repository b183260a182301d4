//! `ottla consume --group`: what was printed is committed, no more and no less, and a member that is told
//! to end leaves.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

mod handover;
#[path = "../support/mod.rs"]
mod support;

use std::{
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use protocol::grpc::v1::{
    Compression, DescribeGroupRequest, DescribeGroupResponse, NewRecord, ProduceRequest, RecordHeader,
    admin_client::AdminClient, records_client::RecordsClient,
};
use support::{
    DevNode,
    server_node::{ServerNode, ottla},
};

/// No step takes longer, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(120);

/// Writes these lines to a topic, in their order.
fn produce(node: &DevNode, topic: &str, lines: &[String]) {
    use std::io::Write;

    let mut producer = ottla(&["produce", topic, "--partition", "0", "--bootstrap-server"])
        .arg(node.address().to_string())
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = producer.stdin.take().unwrap();
    for line in lines {
        writeln!(input, "{line}").unwrap();
    }
    drop(input);
    assert!(producer.wait().unwrap().success());
}

fn lines(from: usize, to: usize) -> Vec<String> {
    (from..to).map(|n| format!("line {n}")).collect()
}

/// A member of `group` from the first record on.
fn consume(node: &DevNode, group: &str, arguments: &[&str]) -> Command {
    let mut command = ottla(&[
        "consume",
        "--group",
        group,
        "--from-beginning",
        "--bootstrap-server",
    ]);
    command.arg(node.address().to_string()).args(arguments);
    command
}

/// What a member printed that ends by itself.
fn output(dir: &Path, command: Command) -> Vec<String> {
    let mut member = ServerNode::spawn(command, dir.join("member.log"));
    let (status, said) = member.expect_end(PATIENCE, "the member");
    assert!(status.success(), "{said}");
    // What goes to standard error is beside the point here.
    let printed = said.lines().filter(|line| line.starts_with("line "));
    printed.map(str::to_owned).collect()
}

/// A group as its coordinator sees it.
fn describe(node: &DevNode, group: &str) -> DescribeGroupResponse {
    let address = format!("http://{}", node.address());
    let request = DescribeGroupRequest {
        group_id: group.to_owned(),
    };
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let mut admin = AdminClient::connect(address).await.unwrap();
        admin.describe_group(request).await.unwrap().into_inner()
    })
}

/// Committed for partition 0 of a topic.
fn committed(node: &DevNode, group: &str, topic: &str) -> Option<i64> {
    let described = describe(node, group);
    let mut offsets = described.offsets.iter();
    offsets
        .find(|offset| offset.topic == topic && offset.partition == 0)?
        .committed_offset
}

#[test]
fn a_count_commits_what_was_printed_and_the_next_goes_on() {
    let node = DevNode::shared();
    let dir = tempfile::tempdir().unwrap();
    produce(&node, "counted", &lines(0, 100));
    for (count, from) in [(10, 0), (5, 10), (25, 15)] {
        let command = consume(&node, "counts", &["counted", "--count", &count.to_string()]);
        assert_eq!(output(dir.path(), command), lines(from, from + count));
        assert_eq!(committed(&node, "counts", "counted"), Some((from + count) as i64));
    }
    let rest = output(dir.path(), consume(&node, "counts", &["counted", "--exit"]));
    assert_eq!(rest, lines(40, 100));
    assert_eq!(committed(&node, "counts", "counted"), Some(100));
}

#[test]
fn a_member_that_is_told_to_end_commits_and_leaves() {
    let node = DevNode::shared();
    let dir = tempfile::tempdir().unwrap();
    for (signal, from, upto) in [("TERM", 0, 50), ("INT", 50, 80)] {
        produce(&node, "told", &lines(from, upto));
        let log = dir.path().join(format!("{signal}.log"));
        let mut member = ServerNode::spawn(consume(&node, "tells", &["told"]), log);
        member.expect_log(PATIENCE, "the lines", |said| {
            said.lines().any(|line| line == format!("line {}", upto - 1))
        });
        member.signal(signal);
        let (status, said) = member.expect_end(PATIENCE, "the member");
        assert!(status.success(), "{said}");
        assert_eq!(committed(&node, "tells", "told"), Some(upto as i64));
        assert_eq!(describe(&node, "tells").state, "Empty", "it left");
    }
}

#[test]
fn topics_may_be_several_or_an_expression_and_nothing_is_committed_where_nobody_wants_it() {
    let node = DevNode::shared();
    let dir = tempfile::tempdir().unwrap();
    produce(&node, "several-a", &lines(0, 3));
    produce(&node, "several-b", &lines(3, 6));
    for (group, topics) in [
        ("by-name", &["several-a", "several-b"][..]),
        ("by-expression", &["^several-.*"]),
    ] {
        let mut arguments = topics.to_vec();
        arguments.extend(["--count", "6"]);
        let mut found = output(dir.path(), consume(&node, group, &arguments));
        found.sort();
        assert_eq!(found, lines(0, 6));
        for topic in ["several-a", "several-b"] {
            assert_eq!(committed(&node, group, topic), Some(3));
        }
    }
    let looking = &[
        "several-a",
        "--count",
        "3",
        "--consumer-property",
        "enable.auto.commit=false",
    ];
    for _ in 0..2 {
        assert_eq!(output(dir.path(), consume(&node, "looks", looking)), lines(0, 3));
    }
}

#[test]
fn offsets_are_committed_while_a_member_reads() {
    let node = DevNode::shared();
    let dir = tempfile::tempdir().unwrap();
    produce(&node, "meanwhile", &lines(0, 20));
    let arguments = &[
        "meanwhile",
        "-X",
        "auto.commit.interval.ms=100",
        "-X",
        "session.timeout.ms=6000",
    ];
    let mut member = ServerNode::spawn(consume(&node, "reads", arguments), dir.path().join("member.log"));
    member.expect_log(PATIENCE, "the lines", |said| said.contains("line 19"));
    let deadline = Instant::now() + PATIENCE;
    while committed(&node, "reads", "meanwhile") != Some(20) {
        assert!(Instant::now() < deadline, "{:?}", describe(&node, "reads"));
        thread::sleep(Duration::from_millis(50));
    }
    // Nothing of it depends on an orderly end.
    member.kill();
    produce(&node, "meanwhile", &lines(20, 22));
    // Its place is free when its session is over.
    let command = consume(&node, "reads", &["meanwhile", "--count", "2"]);
    assert_eq!(output(dir.path(), command), lines(20, 22));
}

/// What was written over gRPC is read by librdkafka, whatever the codec.
#[test]
fn a_stock_client_reads_what_came_over_grpc() {
    let node = DevNode::shared();
    let dir = tempfile::tempdir().unwrap();
    let address = format!("http://{}", node.address());
    let codecs = [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ];
    let record = |n: usize| NewRecord {
        key: Some(format!("key {n}").into()),
        value: Some(format!("value {n}").into()),
        headers: ["1", "2"]
            .map(|value| RecordHeader {
                key: "h".to_owned(),
                value: Some(value.into()),
            })
            .to_vec(),
        partition: Some(0),
        ..NewRecord::default()
    };
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let mut records = RecordsClient::connect(address).await.unwrap();
        for (at, codec) in codecs.into_iter().enumerate() {
            // A topic that is not there is created.
            let request = ProduceRequest {
                topic: "over-grpc".to_owned(),
                records: (at * 100..(at + 1) * 100).map(record).collect(),
                compression: codec.into(),
                ..ProduceRequest::default()
            };
            let answer = records.produce(request).await.unwrap().into_inner();
            assert_eq!(answer.failed, 0);
        }
    });
    let arguments = &["over-grpc", "--exit", "--headers", "--key-separator", ":"];
    let command = consume(&node, "of-grpc", arguments);
    let mut member = ServerNode::spawn(command, dir.path().join("member.log"));
    let (status, said) = member.expect_end(PATIENCE, "the member");
    assert!(status.success(), "{said}");
    let expected: Vec<String> = (0..500).map(|n| format!("h=1,h=2\tkey {n}:value {n}")).collect();
    let found: Vec<&str> = said.lines().filter(|line| line.starts_with("h=")).collect();
    assert_eq!(found, expected);
}
