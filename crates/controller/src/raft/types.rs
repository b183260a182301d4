//! The consensus library's types, fixed once for the metadata log: terms and indices as Raft's own
//! numbers, standard leader ids (one leader a term), and what an entry carries.

use std::fmt;

use bytes::Bytes;
use openraft::impls::{ProgressResponder, leader_id_std};
use openraft::type_config::alias;
use protocol::DirectoryId;
use serde::{Deserialize, Serialize};

openraft::declare_raft_types!(
    /// Binds openraft to the metadata log.
    pub(crate) TypeConfig:
        D = Command,
        R = Applied,
        NodeId = u64,
        Node = Voter,
        LeaderId = leader_id_std::LeaderId<u64, u64>,
);

pub(crate) type Entry = alias::EntryOf<TypeConfig>;
pub(crate) type LogId = alias::LogIdOf<TypeConfig>;
pub(crate) type Vote = alias::VoteOf<TypeConfig>;
pub(crate) type Payload = openraft::EntryPayload<Command, u64, Voter>;
pub(crate) type Membership = openraft::Membership<u64, Voter>;
pub(crate) type StoredMembership = alias::StoredMembershipOf<TypeConfig>;
pub(crate) type SnapshotMeta = alias::SnapshotMetaOf<TypeConfig>;
pub(crate) type Snapshot = alias::SnapshotOf<TypeConfig, super::snapshot::SnapshotFile>;
pub(crate) type Raft = openraft::Raft<TypeConfig, super::state_machine::StateMachine>;
pub(crate) type Responder<T> = ProgressResponder<TypeConfig, T>;

/// What a proposal puts into the log: an encoded `MetadataEntry` and when it was decided.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Command {
    /// Milliseconds since 1970 on the proposer's clock: the record's timestamp, for people.
    pub(crate) timestamp_ms: i64,
    /// The entry, encoded.
    pub(crate) entry: Bytes,
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Command({} bytes)", self.entry.len())
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.entry.len())
    }
}

/// The answer of the state machine: that the entry is in the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Applied;

impl fmt::Display for Applied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("applied")
    }
}

/// A member of the quorum: where it answers, and which directory holds its vote.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Voter {
    /// `host:port` of its internal port.
    pub(crate) address: String,
    /// The voter's directory; zero where the quorum was configured by address alone.
    pub(crate) directory_id: DirectoryId,
}

impl fmt::Display for Voter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}

/// The log id of an index in a term.
pub(crate) fn log_id(term: u64, index: u64) -> LogId {
    LogId::new_term_index(term, index)
}
