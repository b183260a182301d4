//! What travels between nodes, and what a node asks of the world.

use protocol::grpc::v1::{
    AlterPartitionsRequest, AlteredPartition, AssignDirectoriesRequest, MetadataEntry, Register,
};
use protocol::{BrokerEpoch, DirectoryId, ErrorCode, LeaderEpoch, Offset, TopicPartition};
use replication::streams::stream_state::StreamMessage;
use replication::streams::wire::News;

/// A `node.id`: brokers from 1, controllers from 101.
pub(crate) type Node = i32;

/// One connection: in order within each direction, in no order beside others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Conn(pub(crate) u64);

/// An entry of the metadata log.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) offset: Offset,
    pub(crate) term: LeaderEpoch,
    pub(crate) body: MetadataEntry,
}

/// Why a controller ends a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Fenced,
    NotActive,
}

#[derive(Clone, Debug)]
pub(crate) enum Message {
    /// Broker to controller: opens a session.
    Register(Box<Register>),
    /// How far the metadata is applied, and which directories and replicas have failed.
    Heartbeat(Offset, Vec<DirectoryId>, Vec<TopicPartition>),
    /// Controller to broker: the session is open.
    Registered(BrokerEpoch, LeaderEpoch),
    /// The answer to a heartbeat: whether the broker is fenced.
    State {
        fenced: bool,
    },
    Entries(Vec<Entry>),
    Ended(Ended),
    /// Follower to leader: opens a replication stream.
    Hello(BrokerEpoch),
    Follower(StreamMessage),
    /// Leader to follower.
    Leader(Vec<News>),
    /// Leader to controller, and back; nothing comes where the outcome stays unknown.
    Alter(AlterPartitionsRequest),
    Altered(Result<Vec<AlteredPartition>, ErrorCode>),
    /// Broker to controller, about one replica's directory, and back: the error code, or `None` where the request
    /// was refused as a whole.
    Assign(AssignDirectoriesRequest),
    Assigned(Option<i32>),
    /// An idempotent producer's batch: producer id, sequence and value.
    Produce(TopicPartition, i64, i32, i64),
    /// The answer: its sequence and, where it is committed, its offset.
    Produced(i32, Option<Offset>),
    /// The connection is gone.
    Reset,
}

/// What a node asks of the world.
#[derive(Debug)]
pub(crate) enum Out {
    Send(Conn, Node, Message),
    /// The sender ends a connection.
    Close(Conn),
    /// The log's flush ends after this many milliseconds.
    Flush(TopicPartition, u64, usize),
    /// An unanswered request is given up.
    GiveUp(Conn),
    /// The active controller proposes the newest entry it holds.
    Propose,
    /// Asks who answers at a broker's port.
    Probe(controller::decisions::SessionId, Node, protocol::IncarnationId),
}
