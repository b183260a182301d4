//! Who comes to the internal ports and is not who it should be: another cluster's node, a broker that
//! another run of it has replaced, a leader whose epoch is over.

use std::net::SocketAddr;

use bytes::Bytes;
use kafka_protocol::messages::MetadataRequest;
use protocol::{
    DirectoryId, ErrorCode, INTERNAL_PROTOCOL_VERSION, IncarnationId,
    grpc::v1::{
        AlterPartition, AlterPartitionsReply, AlterPartitionsRequest, FollowerMessage, InternalHello,
        IsrMember, KafkaError, ListBrokersRequest, PartitionFetch, ProbeRequest, RaftAppendRequest,
        RaftVoteRequest, ReplicationHello, admin_client::AdminClient, controller_client::ControllerClient,
        node_client::NodeClient, raft_client::RaftClient, replication_client::ReplicationClient,
    },
};
use tokio::runtime::Runtime;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};

use crate::{ground::Topic, scene::Scene};

/// `ottla dev` has its broker's internal port so far above its client port,
const BROKER: u16 = 10_000;
/// and its controller's so far.
const CONTROLLER: u16 = 10_100;
const CLIENTS: u16 = 0;

/// A conversation with one node's ports.
struct Talk {
    runtime: Runtime,
    address: SocketAddr,
    cluster_id: String,
}

impl Talk {
    fn with(scene: &Scene) -> Self {
        let everything = MetadataRequest::default().with_topics(Some(Vec::new()));
        let cluster_id = scene.client().call(12, &everything).cluster_id;
        Self {
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap(),
            address: scene.node.address(),
            cluster_id: cluster_id.unwrap().to_string(),
        }
    }

    fn channel(&self, distance: u16) -> Channel {
        let mut address = self.address;
        address.set_port(address.port() + distance);
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        let connecting = endpoint.connect();
        self.runtime.block_on(connecting).unwrap()
    }

    /// The greeting of a node 9 of this cluster.
    fn hello(&self) -> InternalHello {
        InternalHello {
            cluster_id: self.cluster_id.clone(),
            node_id: 9,
            directory_id: DirectoryId::random().to_vec().into(),
            incarnation_id: IncarnationId::random().to_vec().into(),
            protocol_version: INTERNAL_PROTOCOL_VERSION,
            expected_node_id: 1,
        }
    }

    /// Broker 1's epoch.
    fn broker_epoch(&self) -> i64 {
        let mut admin = AdminClient::new(self.channel(CLIENTS));
        let listed = admin.list_brokers(ListBrokersRequest::default());
        let listed = self.runtime.block_on(listed).unwrap().into_inner();
        let own = listed.brokers.iter().find(|broker| broker.broker_id == 1);
        own.unwrap().broker_epoch
    }

    fn probe(&self, distance: u16, hello: InternalHello) -> Result<(), Status> {
        let mut node = NodeClient::new(self.channel(distance));
        let probed = node.probe(ProbeRequest { hello: Some(hello) });
        self.runtime.block_on(probed).map(drop)
    }

    /// How a replication stream begins whose follower wants the topic's one partition.
    fn fetch(&self, topic: &Topic, node_id: i32, broker_epoch: i64, leader_epoch: i32) -> FollowerMessage {
        let hello = InternalHello {
            node_id,
            ..self.hello()
        };
        FollowerMessage {
            hello: Some(ReplicationHello {
                hello: Some(hello),
                broker_epoch,
            }),
            fetches: vec![PartitionFetch {
                topic_id: topic.id.as_bytes().to_vec().into(),
                leader_epoch,
                generation: 1,
                last_epoch: -1,
                ..PartitionFetch::default()
            }],
            credit: 1 << 20,
            ..FollowerMessage::default()
        }
    }

    /// Opens a replication stream with this message; the code that the leader gives for the partition, or
    /// how it refuses the stream.
    fn replicate(&self, first: FollowerMessage) -> Result<i32, Status> {
        let mut replication = ReplicationClient::new(self.channel(BROKER));
        self.runtime.block_on(async {
            let (sender, messages) = tokio::sync::mpsc::channel(1);
            sender.send(first).await.unwrap();
            let mut answers = replication
                .replicate(ReceiverStream::new(messages))
                .await?
                .into_inner();
            loop {
                let answer = answers.message().await?.expect("the leader goes on");
                if let Some(data) = answer.data.first() {
                    return Ok(data.error);
                }
            }
        })
    }
}

fn refused(row: &str, scene: &Scene, result: Result<impl std::fmt::Debug, Status>, code: Code, says: &str) {
    let status = result.expect_err(row);
    assert_eq!(status.code(), code, "{row}: {status:?}");
    assert!(status.message().contains(says), "{row}: {status:?}");
    scene.after(row, &format!("{code:?}: {}", status.message()));
}

#[test]
fn nodes_of_another_cluster() {
    let scene = Scene::shared();
    let talk = Talk::with(&scene);
    let wrong: [(&str, InternalHello, &str); 3] = [
        (
            "a node of another cluster",
            InternalHello {
                cluster_id: "somebody-else-s".to_owned(),
                ..talk.hello()
            },
            "belongs to cluster somebody-else-s",
        ),
        (
            "a node that speaks another version",
            InternalHello {
                protocol_version: 99,
                ..talk.hello()
            },
            "speaks version 99",
        ),
        (
            "a node that wants another one",
            InternalHello {
                expected_node_id: 5,
                ..talk.hello()
            },
            "expected to reach node 5",
        ),
    ];
    let precondition = Code::FailedPrecondition;
    for (who, hello, says) in wrong {
        for (port, distance) in [("a broker", BROKER), ("a controller", CONTROLLER)] {
            let row = format!("{who} probes {port}");
            refused(
                &row,
                &scene,
                talk.probe(distance, hello.clone()),
                precondition,
                says,
            );
        }
        let greeting = FollowerMessage {
            hello: Some(ReplicationHello {
                hello: Some(hello.clone()),
                broker_epoch: talk.broker_epoch(),
            }),
            ..FollowerMessage::default()
        };
        refused(
            &format!("{who} follows"),
            &scene,
            talk.replicate(greeting),
            precondition,
            says,
        );
        let mut raft = RaftClient::new(talk.channel(CONTROLLER));
        let append = raft.append_entries(RaftAppendRequest {
            hello: Some(hello.clone()),
            payload: Bytes::new(),
        });
        let appended = talk.runtime.block_on(append);
        refused(
            &format!("{who} appends to the metadata log"),
            &scene,
            appended,
            precondition,
            says,
        );
        let vote = raft.vote(RaftVoteRequest {
            hello: Some(hello),
            payload: Bytes::new(),
        });
        let voted = talk.runtime.block_on(vote);
        refused(
            &format!("{who} asks for a vote"),
            &scene,
            voted,
            precondition,
            says,
        );
    }
    assert!(talk.probe(BROKER, talk.hello()).is_ok(), "what fits is answered");
}

#[test]
fn raft_messages_that_are_none() {
    let scene = Scene::shared();
    let talk = Talk::with(&scene);
    let mut raft = RaftClient::new(talk.channel(CONTROLLER));
    for (what, payload) in [
        ("empty", &b""[..]),
        ("noise", b"\x00\x01\xff noise"),
        ("a head of 4 GiB", b"\xff\xff\xff\xff{}"),
        ("an empty head", b"\0\0\0\x02{}"),
    ] {
        let payload = Bytes::from_static(payload);
        let append = RaftAppendRequest {
            hello: Some(talk.hello()),
            payload: payload.clone(),
        };
        let appended = talk.runtime.block_on(raft.append_entries(append));
        let invalid = Code::InvalidArgument;
        refused(&format!("Raft append, {what}"), &scene, appended, invalid, "");
        let vote = RaftVoteRequest {
            hello: Some(talk.hello()),
            payload,
        };
        let voted = talk.runtime.block_on(raft.vote(vote));
        refused(&format!("Raft vote, {what}"), &scene, voted, invalid, "");
    }
}

#[test]
fn forged_replication() {
    let scene = Scene::shared();
    let talk = Talk::with(&scene);
    let topic = scene.topic("forged-replication");
    let epoch = talk.broker_epoch();
    let follow = |node_id, broker_epoch, leader_epoch| {
        talk.replicate(talk.fetch(&topic, node_id, broker_epoch, leader_epoch))
    };
    refused(
        "replication by a broker that nobody registered",
        &scene,
        follow(9, epoch, 0),
        Code::Unavailable,
        "not known here",
    );
    refused(
        "replication by an earlier run of a broker",
        &scene,
        follow(1, epoch - 1, 0),
        Code::FailedPrecondition,
        "has ended",
    );
    refused(
        "replication in leader epoch −1",
        &scene,
        follow(1, epoch, -1),
        Code::InvalidArgument,
        "leader_epoch is -1",
    );
    let expected = ErrorCode::UnknownLeaderEpoch;
    assert_eq!(follow(1, epoch, 7).unwrap(), i32::from(expected.code()));
    scene.after(
        "replication in leader epoch 7, the current one is 0",
        expected.name(),
    );
    // Stale epochs: see the two brokers.
}

/// What the leader, broker 1, answers to a follower that takes `leader_epoch` for the current one.
pub(crate) fn replicate_in(scene: &Scene, topic: &Topic, leader_epoch: i32) -> i32 {
    let talk = Talk::with(scene);
    let fetch = talk.fetch(topic, 1, talk.broker_epoch(), leader_epoch);
    talk.replicate(fetch).unwrap()
}

/// What a sound request of the topic's leader says: nothing is to change.
fn sound(topic: &Topic, broker_epoch: i64) -> AlterPartition {
    AlterPartition {
        topic_id: topic.id.as_bytes().to_vec().into(),
        new_isr: vec![IsrMember {
            broker_id: 1,
            broker_epoch,
        }],
        ..AlterPartition::default()
    }
}

fn code_of(error: Option<KafkaError>) -> ErrorCode {
    let code = i16::try_from(error.unwrap_or_default().code).unwrap();
    ErrorCode::from_code(code).unwrap()
}

#[test]
fn forged_in_sync_sets() {
    let scene = Scene::shared();
    let talk = Talk::with(&scene);
    let topic = scene.topic("forged-isr");
    let epoch = talk.broker_epoch();
    let mut controller = ControllerClient::new(talk.channel(CONTROLLER));
    let mut alter = |broker_id, broker_epoch, wish: AlterPartition| -> AlterPartitionsReply {
        let request = AlterPartitionsRequest {
            broker_id,
            broker_epoch,
            partitions: vec![wish],
        };
        let altered = controller.alter_partitions(request);
        talk.runtime.block_on(altered).unwrap().into_inner()
    };
    let member = |broker_id, broker_epoch| IsrMember {
        broker_id,
        broker_epoch,
    };
    let wish = |change: &dyn Fn(&mut AlterPartition)| {
        let mut wish = sound(&topic, epoch);
        change(&mut wish);
        wish
    };
    for (what, forged, expected) in [
        (
            "leader epoch −1",
            wish(&|w| w.leader_epoch = -1),
            ErrorCode::FencedLeaderEpoch,
        ),
        // Kafka's answer too: a controller that knows less than the leader is not the active one.
        (
            "leader epoch 7",
            wish(&|w| w.leader_epoch = 7),
            ErrorCode::NotController,
        ),
        (
            "partition epoch −1",
            wish(&|w| w.partition_epoch = -1),
            ErrorCode::InvalidUpdateVersion,
        ),
        (
            "partition epoch 7",
            wish(&|w| w.partition_epoch = 7),
            ErrorCode::NotController,
        ),
        (
            "an empty ISR",
            wish(&|w| w.new_isr.clear()),
            ErrorCode::InvalidRequest,
        ),
        (
            "a member that is no replica",
            wish(&|w| w.new_isr.push(member(9, 1))),
            ErrorCode::InvalidRequest,
        ),
        (
            "a member twice",
            wish(&|w| w.new_isr.push(member(1, epoch))),
            ErrorCode::InvalidRequest,
        ),
        (
            "a member's earlier run",
            wish(&|w| w.new_isr = vec![member(1, epoch - 1)]),
            ErrorCode::IneligibleReplica,
        ),
        (
            "a topic that is not there",
            wish(&|w| w.topic_id = vec![7; 16].into()),
            ErrorCode::UnknownTopicId,
        ),
        (
            "a topic id of 3 bytes",
            wish(&|w| w.topic_id = vec![7; 3].into()),
            ErrorCode::UnknownTopicId,
        ),
        (
            "partition −1",
            wish(&|w| w.partition = -1),
            ErrorCode::UnknownTopicOrPartition,
        ),
    ] {
        let mut reply = alter(1, epoch, forged);
        let code = code_of(reply.partitions.remove(0).error);
        assert_eq!(code, expected, "{what}");
        scene.after(&format!("AlterPartition, {what}"), code.name());
    }
    for (what, id, sent, expected) in [
        (
            "an earlier run of broker 1",
            1,
            epoch - 1,
            ErrorCode::StaleBrokerEpoch,
        ),
        ("broker 9", 9, epoch, ErrorCode::BrokerIdNotRegistered),
    ] {
        let reply = alter(id, sent, sound(&topic, epoch));
        let code = code_of(reply.header.unwrap().error);
        assert_eq!(code, expected, "{what}");
        scene.after(&format!("AlterPartition by {what}"), code.name());
    }
    let mut reply = alter(1, epoch, sound(&topic, epoch));
    let kept = reply.partitions.remove(0);
    assert_eq!(code_of(kept.error), ErrorCode::None);
    assert_eq!((kept.leader, kept.isr), (1, vec![1]), "nothing has changed");
}
