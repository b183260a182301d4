//! The Kafka protocol on the client port: frames in, answers out, in order.
//!
//! A connection ([`connection`]) is one task. It cuts frames (`frame`), lets the guard check them,
//! and hands each request to its handler (`dispatch`); there is one file per API in `handlers`,
//! and the table of what is served ([`api`]) is all that ApiVersions knows.

mod admin;
pub mod api;
mod authorized_operations;
mod cluster_view;
mod config_resource;
pub mod connection;
mod dispatch;
mod fetch_encoder;
mod frame;
mod group_call;
mod handlers;
mod request;
mod topic_ref;

pub(crate) use request::{Answer, Request};
