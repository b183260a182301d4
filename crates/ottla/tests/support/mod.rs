//! What the tests of the whole binary share: a running `ottla dev`, and a Kafka client that is as exact,
//! or as wrong, as a test wants.

#![allow(
    dead_code,
    unused_imports,
    reason = "each test binary uses its own part of this"
)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

mod batches;
mod client;
mod dev_node;
pub(crate) mod server_node;

pub(crate) use batches::{batch, batch_with, records_of};
pub(crate) use client::{Client, frame, text, topic_name};
pub(crate) use dev_node::{DevNode, free_port};
