//! Ottla: listeners, Kafka handlers, the reconciler and the public services.
//!
//! **Owns** the client port (Kafka, gRPC and HTTP on one address), the internal port of a broker, its
//! session with the active controller, and the order in which a broker comes to life and leaves.
//!
//! **Never** decides anything about the cluster: it asks the active controller ([`controller_client`])
//! and acts on the image that the controller's session streams to it ([`session`]).

mod auto_create;
pub mod broker;
mod complaints;
pub mod config;
pub mod context;
pub mod controller_client;
pub mod coordinator;
mod directory_channel;
mod group_lag;
pub mod grpc_admin;
mod grpc_records;
pub mod http;
pub mod identity;
pub mod internal_server;
pub mod isr_channel;
pub mod kafka;
pub mod listener;
pub mod metric_names;
mod partitions;
pub mod producer_ids;
pub mod records;
mod relay;
pub mod session;
pub mod shutdown;
