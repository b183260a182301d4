//! Ottla: openraft over the metadata log, decisions, the broker registry and placement.

pub mod decisions;
