//! RELIABILITY's table of bad input, row by row, over real sockets against the real binary. After each
//! row the process lives, its memory is bounded, and a healthy client that produces and consumes all the
//! while has not noticed.
//!
//! `cargo test -p ottla --test bad_input -- --nocapture` prints what was answered to each row.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

mod batches;
mod bombs;
mod brokers;
mod connections;
mod floods;
mod framing;
#[path = "../protocol_matrix/ground.rs"]
mod ground;
mod healthy;
mod internal;
mod reads;
mod scene;
mod small_things;
mod strangers;
#[path = "../support/mod.rs"]
mod support;
mod topics;
