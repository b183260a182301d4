//! What takes a second broker: too few in-sync replicas, epochs that are over, and a broker that slept
//! through the deletion of a topic.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use kafka_protocol::messages::{
    CreateTopicsRequest, DeleteTopicsRequest, FetchRequest, ProduceRequest,
    create_topics_request::{CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig},
    delete_topics_request::DeleteTopicState,
    fetch_request::{FetchPartition, FetchTopic},
};
use protocol::ErrorCode;
use tempfile::TempDir;

use crate::{
    ground::{TIMEOUT_MS, Topic, only_partition, produce, produce_request},
    internal::replicate_in,
    reads::{fetch_from, fetch_request, list_offsets, offset_for_epoch},
    scene::Scene,
    support::{
        Client, batch, free_port, records_of,
        server_node::{ServerNode, broker_properties, client, loopback},
        text, topic_name,
    },
};

/// A change in the cluster has reached everybody within this, however busy the machine is.
const SETTLED: Duration = Duration::from_secs(60);

/// Node 1, which is broker and controller, and broker 2 beside it.
struct Two {
    scene: Scene,
    second: ServerNode,
    port: u16,
    voters: String,
    dir: TempDir,
}

impl Two {
    fn start() -> Self {
        let scene = Scene::start(&[]);
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        let voters = format!("1@127.0.0.1:{}", scene.node.address().port() + 10_100);
        let second = start_second(&dir, port, &voters);
        Self {
            scene,
            second,
            port,
            voters,
            dir,
        }
    }

    fn restart_second(&mut self) {
        self.second.kill();
        self.second = start_second(&self.dir, self.port, &self.voters);
    }

    fn to_second(&self) -> Client {
        client(self.port)
    }

    /// A topic of one partition with these replicas, the first of which leads.
    fn topic(&self, name: &str, replicas: &[i32], min_isr: &str) -> Result<Topic, ErrorCode> {
        let assigned = replicas.iter().map(|id| (*id).into()).collect();
        let request = CreateTopicsRequest::default()
            .with_timeout_ms(TIMEOUT_MS)
            .with_topics(vec![
                CreatableTopic::default()
                    .with_name(topic_name(name))
                    .with_num_partitions(-1)
                    .with_replication_factor(-1)
                    .with_assignments(vec![
                        CreatableReplicaAssignment::default().with_broker_ids(assigned),
                    ])
                    .with_configs(vec![
                        CreatableTopicConfig::default()
                            .with_name(text("min.insync.replicas"))
                            .with_value(Some(text(min_isr))),
                    ]),
            ]);
        let created = self.scene.client().call(7, &request).topics.remove(0);
        match ErrorCode::from_code(created.error_code).unwrap() {
            ErrorCode::None => Ok(Topic {
                name: name.to_owned(),
                id: created.topic_id,
            }),
            error => Err(error),
        }
    }

    fn delete(&self, topic: &Topic) {
        let request = DeleteTopicsRequest::default()
            .with_timeout_ms(TIMEOUT_MS)
            .with_topics(vec![
                DeleteTopicState::default().with_name(Some(topic_name(&topic.name))),
            ]);
        let deleted = self.scene.client().call(6, &request).responses.remove(0);
        assert_eq!(deleted.error_code, 0, "{:?}", deleted.error_message);
    }
}

fn start_second(dir: &TempDir, port: u16, voters: &str) -> ServerNode {
    let logs: PathBuf = dir.path().join("logs");
    let mut second = ServerNode::start(dir.path(), "second", &broker_properties(2, port, voters, &logs));
    second.expect_ready(loopback(port), SETTLED);
    second
}

/// Asks until the answer is `expected`.
fn eventually(what: &str, expected: ErrorCode, mut ask: impl FnMut() -> i16) {
    let deadline = Instant::now() + SETTLED;
    loop {
        let code = ask();
        if code == expected.code() {
            return;
        }
        assert!(Instant::now() < deadline, "{what}: {code}, expected {expected}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn produce_once(client: &mut Client, topic: &Topic, acks: i16) -> i16 {
    only_partition(client.call(13, &produce_request(13, topic, acks, batch(&[b"x"])))).error_code
}

#[test]
fn too_few_in_sync_replicas_and_epochs_that_are_over() {
    let mut two = Two::start();
    let topic = two.topic("two-of-two", &[1, 2], "2").unwrap();
    let follows = two.topic("led-by-two", &[2, 1], "1").unwrap();
    let (mut first, mut second) = (two.scene.client(), two.to_second());
    eventually("both are there", ErrorCode::None, || {
        produce_once(&mut first, &topic, -1)
    });
    eventually("broker 2 leads", ErrorCode::None, || {
        produce_once(&mut second, &follows, -1)
    });
    let last = produce(&mut first, &topic, batch(&[b"acknowledged"]));

    // Broker 2 stops for longer than a request, and is dead before it would answer: what waits for it has
    // been appended.
    two.second.signal("STOP");
    let waiting = first.send(13, &produce_request(13, &topic, -1, batch(&[b"waits"])));
    // It is in the log once a record of somebody else's comes to lie behind it; acks=1 waits for nobody.
    let mut other = two.scene.client();
    let mut others = 0;
    eventually("the record that waits is appended", ErrorCode::None, || {
        let request = produce_request(13, &topic, 1, batch(&[b"other"]));
        let answer = only_partition(other.call(13, &request));
        assert_eq!(answer.error_code, 0, "acks=1 waits for nobody");
        others += 1;
        let behind = answer.base_offset == last + others + 1;
        if behind {
            ErrorCode::None
        } else {
            ErrorCode::RequestTimedOut
        }
        .code()
    });
    two.second.kill();
    let answer = only_partition(first.receive::<ProduceRequest>(13, waiting));
    let after = ErrorCode::NotEnoughReplicasAfterAppend;
    assert_eq!(ErrorCode::from_code(answer.error_code), Some(after), "{answer:?}");
    two.scene
        .after("ISR < min.insync.replicas, after the append", after.name());

    let before = ErrorCode::NotEnoughReplicas;
    assert_eq!(produce_once(&mut first, &topic, -1), before.code());
    two.scene
        .after("ISR < min.insync.replicas, before the append", before.name());
    assert_eq!(produce_once(&mut first, &topic, 1), 0);
    two.scene.after("the same with acks=1", "NONE");

    // Broker 1 leads what broker 2 led, in a later epoch.
    eventually("broker 1 leads", ErrorCode::None, || {
        produce_once(&mut first, &follows, -1)
    });
    let mut stale = fetch_request(&follows, 0);
    stale.topics[0].partitions[0].current_leader_epoch = 0;
    let fenced = ErrorCode::FencedLeaderEpoch;
    let fetched = first.call(16, &stale).responses.remove(0).partitions.remove(0);
    assert_eq!(fetched.error_code, fenced.code());
    assert_eq!(list_offsets(&mut first, &follows, 0), fenced.code());
    assert_eq!(offset_for_epoch(&mut first, &follows, 0), fenced.code());
    two.scene.after(
        "Fetch, ListOffsets, OffsetForLeaderEpoch with a stale epoch",
        fenced.name(),
    );
    let code = replicate_in(&two.scene, &follows, 0);
    assert_eq!(code, i32::from(fenced.code()));
    two.scene.after("replication in a stale epoch", fenced.name());

    // What was refused is taken again once broker 2 is back.
    two.restart_second();
    eventually("both are back", ErrorCode::None, || {
        produce_once(&mut first, &topic, -1)
    });
    assert!(fetch_from(&mut first, &topic, 0).high_watermark > last + others);
    let kept = fetch_from(&mut first, &topic, last);
    assert_eq!(
        records_of(&kept.records.unwrap())[0].0.base_offset.get(),
        last,
        "what was acknowledged is there"
    );
    two.scene.after("ISR = min.insync.replicas again", "NONE");
}

/// What a broker answers to a fetch of the topic by its name.
fn fetch_by_name(client: &mut Client, name: &str) -> (i16, i64, usize) {
    let request = FetchRequest::default().with_max_bytes(1 << 20).with_topics(vec![
        FetchTopic::default()
            .with_topic(topic_name(name))
            .with_partitions(vec![FetchPartition::default().with_partition_max_bytes(1 << 20)]),
    ]);
    let mut answer = client.call(12, &request);
    let partition = answer.responses.remove(0).partitions.remove(0);
    let bytes = partition.records.map_or(0, |records| records.len());
    (partition.error_code, partition.high_watermark, bytes)
}

/// A broker that was down while a topic was deleted and created again never serves the old data, whoever
/// leads the new topic.
#[test]
fn a_topic_deleted_and_recreated_behind_a_broker_s_back() {
    let mut two = Two::start();
    let mut second = two.to_second();
    let moved = two.topic("moved", &[2], "1").unwrap();
    let stays = two.topic("stays", &[2], "1").unwrap();
    for topic in [&moved, &stays] {
        eventually("broker 2 leads", ErrorCode::None, || {
            produce_once(&mut second, topic, -1)
        });
        produce(&mut second, topic, batch(&[b"old"]));
        assert!(fetch_by_name(&mut second, &topic.name).2 > 0);
    }

    two.second.kill();
    for topic in [&moved, &stays] {
        two.delete(topic);
    }
    let moved_again = two.topic("moved", &[1], "1").unwrap();
    // A broker that is down may not be given replicas, or it may: both are right.
    let early = two.topic("stays", &[2], "1");
    two.restart_second();
    let stays_again = match early {
        Ok(topic) => topic,
        Err(_) => two.topic("stays", &[2], "1").unwrap(),
    };

    let (mut first, mut second) = (two.scene.client(), two.to_second());
    // By the old ids there is nothing.
    for topic in [&moved, &stays] {
        let answer = fetch_from(&mut second, topic, 0);
        assert_eq!(answer.error_code, ErrorCode::UnknownTopicId.code());
        assert!(answer.records.is_none_or(|records| records.is_empty()));
    }
    two.scene.after("the old topic by its id", "UNKNOWN_TOPIC_ID");
    // By name, broker 2 sends whoever asks to the new leader.
    let (code, _, bytes) = fetch_by_name(&mut second, "moved");
    assert_eq!((code, bytes), (ErrorCode::NotLeaderOrFollower.code(), 0));
    eventually("broker 1 leads", ErrorCode::None, || {
        produce_once(&mut first, &moved_again, -1)
    });
    assert_eq!(fetch_by_name(&mut first, "moved").1, 1, "the new record alone");
    two.scene.after(
        "a topic that moved to another broker, by its name",
        "NOT_LEADER_OR_FOLLOWER",
    );
    // What it leads anew is empty.
    eventually("broker 2 serves", ErrorCode::None, || {
        fetch_by_name(&mut second, "stays").0
    });
    assert_eq!(fetch_by_name(&mut second, "stays"), (0, 0, 0));
    eventually("broker 2 leads", ErrorCode::None, || {
        produce_once(&mut second, &stays_again, -1)
    });
    assert_eq!(fetch_by_name(&mut second, "stays").1, 1, "the new record alone");
    two.scene.after(
        "a topic that it leads anew, by its name",
        "empty, then the new record alone",
    );
}
