//! Replays the fuzzers' corpora: every seed and every finding, on a stable toolchain.

#[path = "../../../fuzz/src/lib.rs"]
pub mod targets;

use std::{fs, path::Path};

/// Runs a target over every file of its corpus.
fn replay(target: &str, run: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/corpus")
        .join(target);
    let mut replayed = 0;
    for entry in fs::read_dir(&corpus).expect("the corpus is part of the repository") {
        let path = entry.expect("readable").path();
        // Shown when the target panics.
        println!("{}", path.display());
        run(&fs::read(&path).expect("readable"));
        replayed += 1;
    }
    assert!(replayed >= 20, "{replayed} files in {}", corpus.display());
}

#[test]
fn request_frames() {
    replay("request_frame", targets::request_frame::run);
}

#[test]
fn record_batches() {
    replay("record_batch", targets::record_batch::run);
}
