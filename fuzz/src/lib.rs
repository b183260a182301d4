//! What the fuzzer runs, and what a test replays over the corpus: each target takes foreign bytes
//! and panics when a promise about them is broken.

pub mod group_record;
pub mod record_batch;
pub mod request_frame;
pub mod segment_file;
