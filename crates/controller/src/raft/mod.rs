//! Raft over the metadata log. Every type of the consensus library stays in here.
//!
//! * [`codec`]: an entry is one record batch of one record; index = offset, term = leader epoch.
//! * [`log_store`], [`log_writer`], [`quorum_state`]: what must survive, and the one thread that writes it.
//! * [`state_machine`], [`snapshot`]: the cluster image and its files.
//! * [`network`], [`service`], [`wire`]: the conversation between controllers.
//! * [`node`]: all of it, started and stopped.

mod codec;
mod committed_log;
mod log_store;
mod log_writer;
mod network;
mod node;
mod quorum_state;
mod service;
mod snapshot;
mod state_machine;
#[cfg(test)]
mod storage_suite;
mod types;
mod wire;

pub(crate) use committed_log::CommittedLog;
pub(crate) use node::{LogPosition, Proposal, ProposalError, RaftNode, ReplicaView, Role};
pub use node::{RaftSettings, RaftStartError};
