//! Replays the fuzzers' corpora: every seed and every finding, on a stable toolchain.

#[path = "../../../fuzz/src/lib.rs"]
pub mod targets;

use std::{
    fs,
    path::{Path, PathBuf},
};

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/corpus")
        .join(target)
}

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

#[test]
fn segment_files() {
    replay("segment_file", targets::segment_file::run);
}

#[test]
fn group_records() {
    replay("group_record", targets::group_record::run);
}

/// `OTTLA_WRITE_SEEDS=1` writes them.
fn assert_seeds_are_current(target: &str, seeds: impl IntoIterator<Item = (impl AsRef<Path>, Vec<u8>)>) {
    for (name, seed) in seeds {
        let path = corpus(target).join(name);
        if std::env::var_os("OTTLA_WRITE_SEEDS").is_some() {
            fs::write(&path, &seed).expect("the corpus can be written");
        }
        assert!(
            fs::read(&path).is_ok_and(|there| there == seed),
            "{}",
            path.display()
        );
    }
}

#[test]
fn seeds_of_segment_files_are_current() {
    assert_seeds_are_current("segment_file", targets::segment_file::seeds());
}

#[test]
fn seeds_of_group_records_are_current() {
    assert_seeds_are_current("group_record", targets::group_record::seeds());
}
