//! The controllers of an Ottla cluster: they keep the metadata log and decide what goes into it.
//!
//! **Owns** Raft over `__cluster_metadata-0` (every type of the consensus library stays in `raft`), the
//! pure [`decisions`] on brokers, topics, partitions and configuration, the one event loop in which the
//! active controller takes them, the sessions of brokers, and the services on the internal port.
//!
//! **Never** serves a Kafka client, touches a partition's data, or changes a cluster image other than
//! by proposing records and applying what is committed. Decisions read no clock, socket or file.
//!
//! A request goes `controller_service` (or `session_service`) → `event_loop` → [`decisions`] →
//! `raft::node` (propose) → `raft::log_writer` (fsync) and `raft::network` (the other voters) →
//! `raft::state_machine` (apply, publish the image) → `event_loop` (settle) → the answer.

mod controller;
mod controller_service;
pub mod decisions;
mod event_loop;
mod identity;
mod metric;
mod node_service;
mod prober;
mod raft;
mod session_service;

pub use controller::{Controller, ControllerConfig, ControllerHandle, StartError};
pub use event_loop::{ActiveController, ActiveView};
pub use identity::{HelloRefused, NodeIdentity, Peer};
pub use raft::{RaftSettings, RaftStartError};
