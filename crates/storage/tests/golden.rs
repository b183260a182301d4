//! The files of a segment, byte for byte as Kafka writes them. The bytes below were computed apart from
//! this code, from Kafka's description of its format.

mod support;

use std::fs;

use protocol::{LeaderEpoch, Offset, batch::BatchBuilder};
use storage::{LogConfig, OpenOptions};
use support::*;

const FIRST_BATCH: &str = "0000000000000064000000490000000702de5fdc780000000000010000018bcfe568000000018bcfe56800\
    ffffffffffffffffffffffffffff0000000216000000010a6672616e7a0016000002010a6f74746c6100";
const SECOND_BATCH: &str = "00000000000000660000003e0000000802922321aa0000000000000000018bcfe56be80000018bcfe56be8\
    00000000000000090000000000000000000118000000010c70726167756500";

fn unhex(text: &str) -> Vec<u8> {
    let digits = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("hex"), 16).expect("hex");
    text.as_bytes().chunks(2).map(digits).collect()
}

#[test]
fn the_files_of_a_segment_are_kafkas() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("letters-0");
    let config = LogConfig {
        index_interval_bytes: 1,
        ..LogConfig::default()
    };
    let options = OpenOptions {
        log_start_offset: Offset(100),
        ..unclean()
    };
    let (log, _) = storage::Log::open(&path, config, options).expect("open");
    let first = BatchBuilder {
        base_timestamp: 1_700_000_000_000,
        max_timestamp: 1_700_000_000_000,
        ..BatchBuilder::default()
    };
    lead(
        &log,
        first
            .build_records(&[(None, Some(b"franz")), (None, Some(b"ottla"))])
            .into(),
        7,
    );
    let second = BatchBuilder {
        base_timestamp: 1_700_000_001_000,
        max_timestamp: 1_700_000_001_000,
        producer_id: 9,
        producer_epoch: 0,
        base_sequence: 0,
        ..BatchBuilder::default()
    };
    lead(&log, second.build_records(&[(None, Some(b"prague"))]).into(), 8);
    log.close(true).expect("close");

    let file = |name: &str| fs::read(path.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(
        file("00000000000000000100.log"),
        unhex(&[FIRST_BATCH, SECOND_BATCH].concat())
    );
    // The second batch ends at relative offset 2 and begins at byte 85; the first needs no entry.
    assert_eq!(file("00000000000000000100.index"), unhex("0000000200000055"));
    assert_eq!(
        file("00000000000000000100.timeindex"),
        unhex("0000018bcfe56be800000002")
    );
    assert_eq!(file("leader-epoch-checkpoint"), b"0\n2\n7 100\n8 102\n");
    let mut names: Vec<_> = fs::read_dir(&path)
        .expect("list")
        .map(|entry| entry.expect("entry").file_name().into_string().expect("text"))
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "00000000000000000100.index",
            "00000000000000000100.log",
            "00000000000000000100.timeindex",
            "00000000000000000103.snapshot",
            "leader-epoch-checkpoint",
        ]
    );
}

#[test]
fn a_directory_of_kafkas_opens() {
    let dir = tempfile::tempdir().expect("temp dir");
    let bytes = unhex(&[FIRST_BATCH, SECOND_BATCH].concat());
    fs::write(dir.path().join("00000000000000000100.log"), bytes).expect("write");
    // Kafka leaves preallocated, zeroed index files behind when it is killed.
    fs::write(dir.path().join("00000000000000000100.index"), [0; 4096]).expect("write");
    fs::write(dir.path().join("00000000000000000100.timeindex"), [0; 4096]).expect("write");
    fs::write(dir.path().join("leader-epoch-checkpoint"), "0\n2\n7 100\n8 102\n").expect("write");
    let (log, report) = storage::Log::open(dir.path(), LogConfig::default(), unclean()).expect("open");
    assert_eq!((report.bytes_cut, report.lost), (0, false));
    assert_eq!(
        (log.log_start_offset(), log.log_end_offset()),
        (Offset(100), Offset(103))
    );
    assert_eq!(log.latest_epoch(), Some(LeaderEpoch(8)));
    assert_eq!(read_all(&log, 100, 1 << 20), [(100, 101, 7), (102, 102, 8)]);
}
