//! What a cleaning keeps of a log, and what it leaves alone.

mod beside;
mod crashes;
mod followers;
mod model;
mod producers;
mod transactions;

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use protocol::{
    LeaderEpoch, Offset, ProducerId,
    batch::{BatchBuilder, BatchHeader, Batches, Compression, HEADER_LEN, put_varint},
    records::{Deltas, OpenBounds, RecordWalk, open, recompress},
};

use super::{CompactError, Compacted, CompactionResources, Log};
use crate::{
    LogConfig, Throttle,
    dump::{DumpOptions, dump_segment},
    format::{CLEANED_SUFFIX, FileKind, SWAP_SUFFIX},
    test_support::{TestLog, lead, small, synced_below, try_read},
};

const DAY: i64 = 24 * 3_600_000;
const CODECS: [Compression; 5] = [
    Compression::None,
    Compression::Gzip,
    Compression::Snappy,
    Compression::Lz4,
    Compression::Zstd,
];

/// A record as it is read back.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Read {
    offset: i64,
    epoch: i32,
    /// Of a transaction's end.
    control: bool,
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<Vec<u8>>,
}

fn config() -> LogConfig {
    LogConfig {
        compact: true,
        delete: false,
        min_cleanable_dirty_ratio: 0.0,
        ..small()
    }
}

/// A batch of keyed records, each a millisecond after the one before, with a header of its own.
fn keyed(builder: BatchBuilder, codec: Compression, records: &[(&[u8], Option<&[u8]>)]) -> Bytes {
    let mut framed = Vec::new();
    for (i, (key, value)) in records.iter().enumerate() {
        let mut body = vec![0];
        put_varint(&mut body, i as i64);
        put_varint(&mut body, i as i64);
        put_varint(&mut body, key.len() as i64);
        body.extend_from_slice(key);
        put_varint(&mut body, value.map_or(-1, |value| value.len() as i64));
        body.extend_from_slice(value.unwrap_or_default());
        body.extend_from_slice(&[2, 2, b'h', 2, i as u8]);
        put_varint(&mut framed, body.len() as i64);
        framed.extend_from_slice(&body);
    }
    let builder = BatchBuilder {
        max_timestamp: builder.base_timestamp + records.len() as i64 - 1,
        ..builder
    };
    let plain = builder.build(&framed, records.len() as i32);
    recompress(&plain, &plain[HEADER_LEN..], codec, usize::MAX)
        .expect("to memory")
        .into()
}

fn at(timestamp: i64) -> BatchBuilder {
    BatchBuilder {
        base_timestamp: timestamp,
        ..BatchBuilder::default()
    }
}

fn put(log: &Log, key: &str, value: Option<&str>) -> i64 {
    let record = (key.as_bytes(), value.map(str::as_bytes));
    lead(log, keyed(at(1000), Compression::None, &[record]), 1)
        .first_offset
        .0
}

fn batches(log: &Log) -> Vec<(BatchHeader, Bytes)> {
    batches_from(log, log.log_start_offset().0)
}

fn batches_from(log: &Log, mut from: i64) -> Vec<(BatchHeader, Bytes)> {
    let mut all = Vec::new();
    while from < log.log_end_offset().0 {
        let read = try_read(log, from, i64::MAX, 1 << 20).expect("read");
        if read.first.is_none() {
            // A crash may leave an old segment of those that retention deleted, and not the ones up to the end.
            let active = log.active();
            assert_eq!(
                (active.base(), active.size()),
                (log.log_end_offset(), 0),
                "nothing from {from} on"
            );
            break;
        }
        assert!(read.next_offset.0 > from, "no progress at {from}");
        all.extend(Batches::new(read.bytes).map(|batch| batch.expect("whole")));
        from = read.next_offset.0;
    }
    all
}

fn records(log: &Log) -> Vec<Read> {
    records_from(log, log.log_start_offset().0)
}

/// The records of the batches from the one on that holds `from`.
fn records_from(log: &Log, from: i64) -> Vec<Read> {
    let mut all = Vec::new();
    for (header, batch) in batches_from(log, from) {
        let codec = header.compression().expect("known");
        let opened = open(codec, &batch[HEADER_LEN..], OpenBounds::STORED).expect("opens");
        let mut walk = RecordWalk::keeping(opened, &header, Deltas::Ascending);
        while let Some(view) = walk.next_record().expect("sound") {
            let part =
                |span: Option<protocol::records::Span>| span.map(|span| span.of(walk.record()).to_vec());
            all.push(Read {
                offset: header.base_offset.0 + i64::from(view.offset_delta),
                epoch: header.leader_epoch.get(),
                control: header.is_control(),
                timestamp: view.timestamp,
                key: part(view.key),
                value: part(view.value),
                headers: view
                    .header_keys(walk.record())
                    .into_iter()
                    .map(Vec::from)
                    .collect(),
            });
        }
    }
    assert!(all.is_sorted_by(|a: &Read, b: &Read| a.offset < b.offset));
    all
}

/// What each key says last; a tombstone says nothing.
fn last_of_each<'a>(records: impl IntoIterator<Item = &'a Read>) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut map = BTreeMap::new();
    for record in records.into_iter().filter(|record| !record.control) {
        let key = record.key.clone().expect("keyed");
        match &record.value {
            Some(value) => map.insert(key, value.clone()),
            None => map.remove(&key),
        };
    }
    map
}

fn try_compact(log: &Log, stable: i64, now_ms: i64, map_bytes: u64) -> Result<Compacted, CompactError> {
    let resources = CompactionResources {
        map_bytes,
        load_factor: 0.9,
        io_buffer: 100,
        throttle: &Throttle::new(f64::MAX),
        stopping: &AtomicBool::new(false),
    };
    let dirtiness = log.dirtiness(Offset(stable), now_ms)?;
    log.compact(&dirtiness, now_ms, &resources)
}

fn compact(log: &Log, now_ms: i64) -> Compacted {
    log.flush().expect("flush");
    try_compact(log, i64::MAX, now_ms, 1 << 20).expect("compacts")
}

fn offsets(log: &Log) -> Vec<i64> {
    records(log).iter().map(|record| record.offset).collect()
}

#[track_caller]
fn assert_sound_files(dir: &Path) {
    let deep = DumpOptions {
        deep: true,
        ..DumpOptions::default()
    };
    let entries = fs::read_dir(dir).expect("list");
    let paths: Vec<_> = entries.map(|entry| entry.expect("entry").path()).collect();
    let name_of = |path: &Path| path.file_name().expect("name").to_string_lossy().into_owned();
    let parsed = paths.iter().filter_map(|path| FileKind::parse(&name_of(path)));
    let logs = parsed.filter(|(_, kind)| *kind == FileKind::Log);
    let active = logs.map(|(base, _)| base).max();
    for path in paths {
        let name = name_of(&path);
        assert!(
            !name.ends_with(CLEANED_SUFFIX) && !name.ends_with(SWAP_SUFFIX),
            "{name}"
        );
        let Some((base, kind)) = FileKind::parse(&name) else {
            continue;
        };
        // The active segment's indexes are in memory: what their files say is from before.
        let is_index = matches!(kind, FileKind::OffsetIndex | FileKind::TimeIndex);
        if kind == FileKind::Log || is_index && Some(base) < active {
            let mut out = Vec::new();
            let summary = dump_segment(&path, &deep, &mut out).expect("prints");
            let text = String::from_utf8_lossy(&out);
            assert!(
                summary.is_sound() && !text.contains("no record"),
                "{name}: {text}"
            );
        }
    }
}

#[test]
fn the_last_record_of_each_key_stays_and_its_bytes_with_it() {
    for codec in CODECS {
        let log = TestLog::new(config());
        let first: &[(&[u8], Option<&[u8]>)] = &[(b"a", Some(b"1")), (b"b", Some(b"1")), (b"c", Some(b"1"))];
        let second: &[(&[u8], Option<&[u8]>)] = &[(b"a", Some(b"2")), (b"c", Some(b"2")), (b"d", Some(b"2"))];
        lead(&log, keyed(at(100), codec, first), 1);
        log.roll(0).expect("roll");
        lead(&log, keyed(at(200), codec, second), 2);
        log.roll(0).expect("roll");
        let before = records(&log);
        let done = compact(&log, 0);
        assert_eq!((done.records_read, done.records_kept, done.keys), (6, 4, 4));
        assert_eq!((done.segments_read, done.segments_left), (2, 1));
        let expected: Vec<Read> = [1, 3, 4, 5].map(|at: usize| before[at].clone()).into();
        assert_eq!(records(&log), expected, "{codec:?}");
        let all = batches(&log);
        assert_eq!(
            (all[0].0.base_offset, all[0].0.last_offset()),
            (Offset(0), Offset(2))
        );
        assert_eq!(all[0].0.max_timestamp, 101);
        assert_eq!(all[0].0.compression(), Ok(codec));
        assert_sound_files(&log.dir());
        assert_eq!(log.first_dirty_offset(), Some(Offset(6)));
        assert_eq!(compact(&log, 0).bytes_written, 0, "nothing is left to do");
        // Epochs, and the search by time, are what they were.
        assert_eq!(log.epoch_at(Offset(0)), Some(LeaderEpoch(1)));
        let found = log.offset_for_timestamp(150).expect("search").expect("some");
        assert_eq!((found.offset, found.timestamp), (Offset(3), 200));
    }
}

#[test]
fn nothing_uncommitted_and_no_active_segment_is_cleaned() {
    let log = TestLog::new(config());
    for _ in 0..3 {
        put(&log, "a", Some("x"));
        put(&log, "a", Some("y"));
        log.roll(0).expect("roll");
    }
    put(&log, "a", Some("z"));
    log.flush().expect("flush");
    try_compact(&log, 3, 0, 1 << 20).expect("compacts");
    assert_eq!(
        offsets(&log),
        [1, 2, 3, 4, 5, 6],
        "only the first segment lies below offset 3"
    );
    try_compact(&log, 100, 0, 1 << 20).expect("compacts");
    assert_eq!(offsets(&log), [5, 6]);
}

#[test]
fn what_is_not_on_the_disk_is_not_replaced() {
    let log = TestLog::new(config());
    put(&log, "a", Some("x"));
    put(&log, "a", Some("y"));
    log.roll(0).expect("roll");
    try_compact(&log, 100, 0, 1 << 20).expect("compacts");
    assert_eq!(offsets(&log), [0, 1]);
    compact(&log, 0);
    assert_eq!(offsets(&log), [1]);
}

#[test]
fn tombstones_go_a_delete_retention_after_they_were_first_met() {
    let log = TestLog::new(config());
    put(&log, "a", Some("x"));
    put(&log, "a", None);
    log.roll(0).expect("roll");
    let now = 10 * DAY;
    compact(&log, now);
    let (header, _) = batches(&log)[1].clone();
    assert_eq!(offsets(&log), [1]);
    assert_eq!(header.delete_horizon(), Some(now + DAY));
    assert_eq!(records(&log)[0].timestamp, 1000, "relative to the horizon now");
    // Another dirty segment each time, or there is nothing to clean.
    put(&log, "b", Some("x"));
    log.roll(0).expect("roll");
    compact(&log, now + DAY - 1);
    assert_eq!(offsets(&log), [1, 2]);
    put(&log, "c", Some("x"));
    log.roll(0).expect("roll");
    compact(&log, now + DAY);
    assert_eq!(offsets(&log), [2, 3]);
}

#[test]
fn the_horizon_of_a_tombstone_begins_once_what_it_deletes_is_gone() {
    let log = TestLog::new(config());
    for i in 0..14 {
        put(&log, &format!("k{i}"), Some("x"));
    }
    put(&log, "k3", None);
    log.roll(0).expect("roll");
    log.flush().expect("flush");
    let horizons = || -> Vec<i64> {
        let all = batches(&log);
        all.iter()
            .filter_map(|(header, _)| header.delete_horizon())
            .collect()
    };
    // The map holds fourteen keys.
    let done = try_compact(&log, i64::MAX, 0, 24 * 16).expect("compacts");
    assert_eq!((done.cleaned_to, horizons()), (Offset(14), vec![]));
    let done = try_compact(&log, i64::MAX, 1, 24 * 16).expect("compacts");
    assert_eq!((done.cleaned_to, horizons()), (Offset(15), vec![1 + DAY]));
    assert!(!offsets(&log).contains(&3));
}

#[test]
fn records_without_a_key_go() {
    let log = TestLog::new(config());
    lead(
        &log,
        at(1).build_records(&[(None, Some(b"from before"))]).into(),
        1,
    );
    put(&log, "a", Some("x"));
    log.roll(0).expect("roll");
    let done = compact(&log, 0);
    assert_eq!((offsets(&log), done.records_without_key), (vec![1], 1));
}

#[test]
fn a_small_map_cleans_in_several_runs() {
    let log = TestLog::new(config());
    for i in 0..60 {
        put(&log, &format!("k{i}"), Some("x"));
    }
    for i in 0..60 {
        put(&log, &format!("k{i}"), Some("y"));
    }
    log.roll(0).expect("roll");
    log.flush().expect("flush");
    let mut runs = 0;
    let mut cleaned_to = Offset(0);
    while cleaned_to < Offset(120) {
        let done = try_compact(&log, 200, 0, 24 * 20).expect("compacts");
        assert!(done.cleaned_to > cleaned_to && done.keys <= 20);
        cleaned_to = done.cleaned_to;
        runs += 1;
    }
    assert!(runs > 2, "{runs}");
    assert_eq!(offsets(&log), (60..120).collect::<Vec<_>>());
}

#[test]
fn an_interrupted_cleaning_leaves_nothing_behind() {
    let log = TestLog::new(config());
    for _ in 0..8 {
        put(&log, "a", Some("x"));
    }
    log.roll(0).expect("roll");
    log.flush().expect("flush");
    let stopping = AtomicBool::new(true);
    let resources = CompactionResources {
        map_bytes: 1 << 20,
        load_factor: 0.9,
        io_buffer: 100,
        throttle: &Throttle::new(f64::MAX),
        stopping: &stopping,
    };
    let dirtiness = log.dirtiness(Offset(100), 0).expect("known");
    let stopped = log.compact(&dirtiness, 0, &resources);
    assert!(matches!(stopped, Err(CompactError::Interrupted)));
    stopping.store(false, Ordering::Release);
    assert_eq!(log.first_dirty_offset(), None);
    // Segments that are gone by the time the new one is there.
    log.advance_log_start(Offset(8)).expect("advance");
    log.compact(&dirtiness, 0, &resources)
        .expect("there is nothing left to clean");
    assert_sound_files(&log.dir());
}

#[test]
fn damage_is_never_cleaned_away() {
    // In a record, and in base offsets, which no checksum covers: what is before and behind them tells.
    for at in [65, 74, 222] {
        let log = TestLog::new(config());
        for _ in 0..4 {
            put(&log, "a", Some("x"));
        }
        log.roll(0).expect("roll");
        log.flush().expect("flush");
        let path = FileKind::Log.path(&log.dir(), Offset(0));
        let mut bytes = fs::read(&path).expect("read");
        assert_eq!(bytes.len(), 4 * 74);
        bytes[at] ^= 1;
        fs::write(&path, &bytes).expect("write");
        let refused = try_compact(&log, 100, 0, 1 << 20);
        assert!(
            matches!(
                refused,
                Err(CompactError::Storage(crate::StorageError::Corrupt { .. }))
            ),
            "{at}: {refused:?}"
        );
        assert_eq!(fs::read(&path).expect("read"), bytes);
        assert!(!log.has_failed());
    }
}

/// What lies between was never compacted here, though a checkpoint of a longer log says so.
#[test]
fn a_checkpoint_beyond_the_end_is_not_believed() {
    let log = TestLog::new(small());
    put(&log, "k", Some("v"));
    log.restore_first_dirty_offset(Offset(2));
    assert_eq!(log.first_dirty_offset(), None);
    log.restore_first_dirty_offset(Offset(1));
    assert_eq!(log.first_dirty_offset(), Some(Offset(1)));
}

/// What was found out about a log says nothing about what is in it after a cut.
#[test]
fn dirtiness_from_before_a_cut_is_void() {
    let log = TestLog::new(small());
    for _ in 0..20 {
        put(&log, "k", Some("v"));
    }
    log.roll(0).expect("roll");
    log.flush().expect("flush");
    let dirtiness = log.dirtiness(Offset(20), 0).expect("known");
    log.truncate_to(Offset(5)).expect("cut");
    let resources = CompactionResources {
        map_bytes: 1 << 20,
        load_factor: 0.9,
        io_buffer: 100,
        throttle: &Throttle::new(f64::MAX),
        stopping: &AtomicBool::new(false),
    };
    let refused = log.compact(&dirtiness, 0, &resources);
    assert!(matches!(refused, Err(CompactError::Interrupted)), "{refused:?}");
}
