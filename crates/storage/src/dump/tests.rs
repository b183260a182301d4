//! The printed text, line by line, and what is said about damage.

use std::fs;

use bytes::Bytes;
use protocol::{
    LeaderEpoch,
    batch::{BatchBuilder, Compression, HEADER_LEN},
    records,
};

use super::*;
use crate::{
    log::{LeaderAppend, Log, OpenOptions},
    log_config::LogConfig,
    producer_snapshot,
};

const T0: i64 = 1_700_000_000_000;

/// A closed log of three batches at epoch 3: idempotent, plain, and of one null record.
fn closed_log(dir: &Path) {
    let config = LogConfig {
        index_interval_bytes: 1,
        ..LogConfig::default()
    };
    let options = OpenOptions {
        recovery_point: None,
        log_start_offset: Offset::ZERO,
        is_alone: false,
        clean_shutdown: false,
        now_ms: T0,
    };
    let (log, _) = Log::open(dir, config, options).expect("open");
    let plain = |time| BatchBuilder {
        base_timestamp: time,
        max_timestamp: time,
        ..BatchBuilder::default()
    };
    let idempotent = BatchBuilder {
        producer_id: 7,
        producer_epoch: 1,
        base_sequence: 0,
        ..plain(T0)
    };
    for batch in [
        idempotent.build_records(&[(Some(b"k1"), Some(b"v1")), (None, Some(b"two\nlines"))]),
        plain(T0 + 5).build_records(&[(Some(b"k2"), Some(b"v2"))]),
        plain(T0 + 5).build_records(&[(None, None)]),
    ] {
        log.append_as_leader(LeaderAppend {
            batches: Bytes::from(batch),
            leader_epoch: LeaderEpoch(3),
            now_ms: T0,
            log_append_time: None,
        })
        .expect("append");
    }
    log.close(true).expect("close");
}

fn dump(path: &Path, options: &DumpOptions) -> (DumpSummary, Vec<String>) {
    let mut out = Vec::new();
    let summary = dump_segment(path, options, &mut out).expect("dump");
    let text = String::from_utf8(out).expect("text");
    (summary, text.lines().map(str::to_owned).collect())
}

fn file(dir: &Path, extension: &str) -> PathBuf {
    dir.join(format!("{:020}.{extension}", 0))
}

#[test]
fn batches_and_records_are_printed_as_kafka_prints_them() {
    let dir = tempfile::tempdir().expect("temp dir");
    closed_log(dir.path());
    let path = file(dir.path(), "log");
    let data = DumpOptions {
        print_data: true,
        ..DumpOptions::default()
    };
    let (summary, lines) = dump(&path, &data);
    assert!(summary.is_sound());
    assert_eq!(summary.entries, 3);
    assert_eq!(lines[0], format!("Dumping {}", path.display()));
    assert_eq!(lines[1], "Log starting offset: 0");
    let (before_crc, after_crc) = lines[2].split_once(" crc: ").expect("a header line");
    assert_eq!(
        before_crc,
        "baseOffset: 0 lastOffset: 1 count: 2 baseSequence: 0 lastSequence: 1 producerId: 7 \
         producerEpoch: 1 partitionLeaderEpoch: 3 isTransactional: false isControl: false \
         deleteHorizonMs: OptionalLong.empty position: 0 CreateTime: 1700000000000 size: 88 magic: 2 \
         compresscodec: none"
    );
    assert!(after_crc.ends_with(" isvalid: true"));
    assert_eq!(
        lines[3..5],
        [
            "| offset: 0 CreateTime: 1700000000000 keySize: 2 valueSize: 2 sequence: 0 headerKeys: [] key: k1 payload: v1",
            "| offset: 1 CreateTime: 1700000000000 keySize: -1 valueSize: 9 sequence: 1 headerKeys: [] payload: two\\nlines",
        ]
    );
    assert_eq!(
        lines[8],
        "| offset: 3 CreateTime: 1700000000005 keySize: -1 valueSize: -1 sequence: -1 headerKeys: []"
    );

    let deep = DumpOptions {
        deep: true,
        ..DumpOptions::default()
    };
    assert_eq!(
        dump(&path, &deep).1[3],
        "| offset: 0 CreateTime: 1700000000000 keySize: 2 valueSize: 2 sequence: 0 headerKeys: []"
    );
    assert_eq!(dump(&path, &DumpOptions::default()).1.len(), 5);
    let one = DumpOptions {
        max_bytes: Some(1),
        ..DumpOptions::default()
    };
    assert_eq!(dump(&path, &one).0.entries, 1);
}

#[test]
fn damage_is_printed_and_counted() {
    let dir = tempfile::tempdir().expect("temp dir");
    closed_log(dir.path());
    let path = file(dir.path(), "log");
    let mut bytes = fs::read(&path).expect("read");
    bytes[70] ^= 1;
    bytes.truncate(bytes.len() - 1);
    fs::write(&path, bytes).expect("write");
    let (summary, lines) = dump(&path, &DumpOptions::default());
    assert_eq!((summary.entries, summary.invalid), (2, 1));
    assert!(!summary.is_sound() && summary.invalid_bytes > 0);
    assert!(lines[2].ends_with("isvalid: false"), "{}", lines[2]);
    assert!(lines[4].starts_with("Found "), "{}", lines[4]);
}

#[test]
fn index_entries_are_compared_with_the_log() {
    let dir = tempfile::tempdir().expect("temp dir");
    closed_log(dir.path());
    let (summary, lines) = dump(&file(dir.path(), "index"), &DumpOptions::default());
    assert!(summary.is_sound());
    assert_eq!(lines[1], "offset: 2 position: 88");
    let (summary, lines) = dump(&file(dir.path(), "timeindex"), &DumpOptions::default());
    assert!(summary.is_sound(), "{lines:?}");
    assert_eq!(lines[1], "timestamp: 1700000000005 offset: 2");

    let index = file(dir.path(), "index");
    let mut bytes = fs::read(&index).expect("read");
    bytes[7] += 1;
    bytes.push(0);
    fs::write(&index, bytes).expect("write");
    let verify = DumpOptions {
        verify_only: true,
        ..DumpOptions::default()
    };
    let (summary, lines) = dump(&index, &verify);
    assert_eq!((summary.invalid, summary.invalid_bytes), (1, 1));
    assert_eq!(lines[1], "offset: 2 position: 89 (no batch of the log is there)");
}

#[test]
fn an_empty_index_is_named_as_by_kafka() {
    let dir = tempfile::tempdir().expect("temp dir");
    for kind in ["log", "index", "timeindex"] {
        fs::write(file(dir.path(), kind), b"").expect("write");
    }
    let index = file(dir.path(), "index");
    let (_, lines) = dump(&index, &DumpOptions::default());
    assert_eq!(lines[1..], [format!("{} is empty.", index.display())]);
    let (_, lines) = dump(&file(dir.path(), "timeindex"), &DumpOptions::default());
    assert_eq!(lines.len(), 1);
}

#[test]
fn producers_are_printed_as_kafka_prints_them() {
    let dir = tempfile::tempdir().expect("temp dir");
    closed_log(dir.path());
    let path = producer_snapshot::snapshot_path(dir.path(), Offset(4));
    assert_eq!(
        dump(&path, &DumpOptions::default()).1[1],
        "producerId: 7 producerEpoch: 1 coordinatorEpoch: -1 currentTxnFirstOffset: OptionalLong.empty \
         lastTimestamp: 1700000000000 firstSequence: 0 lastSequence: 1 lastOffset: 1 offsetDelta: 1 \
         timestamp: 1700000000000"
    );
    fs::write(&path, "?").expect("damage");
    let error = dump_segment(&path, &DumpOptions::default(), &mut Vec::new()).expect_err("damaged");
    assert!(matches!(error, DumpError::Snapshot { .. }));
}

#[test]
fn compressed_records_are_opened() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = file(dir.path(), "log");
    let plain = BatchBuilder::default().build_records(&[(None, Some(b"hello"))]);
    let gzip = records::recompress(&plain, &plain[HEADER_LEN..], Compression::Gzip, usize::MAX);
    fs::write(&path, gzip.expect("to memory")).expect("write");
    let options = DumpOptions {
        print_data: true,
        ..DumpOptions::default()
    };
    let (_, lines) = dump(&path, &options);
    assert!(lines[2].contains("compresscodec: gzip") && lines[3].ends_with("payload: hello"));
    let garbage = BatchBuilder {
        attributes: 1,
        ..BatchBuilder::default()
    };
    fs::write(&path, garbage.build(b"no gzip", 1)).expect("write");
    assert_eq!(
        dump(&path, &options).1[3],
        "| what follows in this batch is no record: the compressed data are damaged"
    );
}

#[test]
fn the_end_of_a_transaction_is_named() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = file(dir.path(), "log");
    let marker = BatchBuilder {
        attributes: 0x30,
        producer_id: 7,
        producer_epoch: 1,
        ..BatchBuilder::default()
    };
    let (commit, version_and_epoch) = ([0, 0, 0, 1], [0, 0, 0, 0, 0, 5]);
    fs::write(
        &path,
        marker.build_records(&[(Some(&commit), Some(&version_and_epoch))]),
    )
    .expect("write");
    let data = DumpOptions {
        print_data: true,
        ..DumpOptions::default()
    };
    assert_eq!(
        dump(&path, &data).1[3],
        "| offset: 0 CreateTime: -1 keySize: 4 valueSize: 6 sequence: -1 headerKeys: [] \
         endTxnMarker: COMMIT coordinatorEpoch: 5"
    );
}

#[test]
fn only_segment_files_are_printed() {
    for name in ["meta.properties", "1.log", "00000000000000000000.txnindex"] {
        let error = dump_segment(Path::new(name), &DumpOptions::default(), &mut Vec::new()).expect_err(name);
        assert!(matches!(error, DumpError::NotASegmentFile(_)));
    }
}

/// What is said where nothing can be printed; not even a title is.
fn refused(path: &Path) -> String {
    let mut out = Vec::new();
    let error = dump_segment(path, &DumpOptions::default(), &mut out).expect_err("a file is missing");
    assert!(out.is_empty(), "{}", String::from_utf8_lossy(&out));
    error.to_string()
}

#[test]
fn a_missing_file_is_named() {
    let dir = tempfile::tempdir().expect("temp dir");
    for kind in ["log", "index", "timeindex", "snapshot"] {
        let absent = file(dir.path(), kind);
        let said = refused(&absent);
        assert!(said.contains(&absent.display().to_string()), "{said}");
    }
}

#[test]
fn an_index_without_its_log_is_refused() {
    let dir = tempfile::tempdir().expect("temp dir");
    closed_log(dir.path());
    let log = file(dir.path(), "log");
    fs::remove_file(&log).expect("remove");
    for kind in ["index", "timeindex"] {
        let said = refused(&file(dir.path(), kind));
        assert!(
            said.starts_with(&format!("{} is missing", log.display())),
            "{said}"
        );
    }
}
