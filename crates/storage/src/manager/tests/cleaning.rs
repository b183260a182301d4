//! The cleaner threads.

use protocol::batch::Batches;

use super::*;
use crate::{checkpoint::CLEANER_OFFSETS, disk};

fn quick(dir: &Path) -> ManagerConfig {
    ManagerConfig {
        checkpoint_interval: Duration::from_millis(5),
        cleaner: CleanerConfig {
            threads: 2,
            backoff: Duration::ZERO,
            ..CleanerConfig::default()
        },
        ..config(dir)
    }
}

fn compacted() -> LogConfig {
    LogConfig {
        compact: true,
        delete: false,
        min_cleanable_dirty_ratio: 0.0,
        ..LogConfig::default()
    }
}

fn append_keyed(log: &Log, key: &str) {
    let batch = BatchBuilder::default().build_records(&[(Some(key.as_bytes()), Some(b"v"))]);
    log.append_as_leader(LeaderAppend {
        batches: batch.into(),
        leader_epoch: LeaderEpoch(0),
        now_ms: 1_000,
        log_append_time: None,
    })
    .expect("append");
}

/// A log with four records of the same key in a sealed segment, on the disk.
fn dirty_log(manager: &LogManager, partition: TopicPartition) -> Arc<Log> {
    let log = manager
        .create(partition, &topic("table"), None, compacted())
        .expect("create");
    for _ in 0..4 {
        append_keyed(&log, "k");
    }
    log.roll(1_000).expect("roll");
    log.flush().expect("flush");
    log
}

fn records_in(log: &Log) -> i32 {
    let read = log
        .read(ReadRequest {
            from: log.log_start_offset(),
            upper: log.log_end_offset(),
            max_bytes: 1 << 20,
            min_one_batch: true,
        })
        .expect("read");
    Batches::new(read.bytes)
        .map(|batch| batch.expect("whole").0.record_count)
        .sum()
}

#[test]
fn cleaners_compact_what_is_committed_and_note_how_far() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (manager, _) = LogManager::open(quick(dir.path()), BOOT).expect("new");
    let (committed, open_ended) = (partition(0), partition(1));
    let log = dirty_log(&manager, committed);
    let other = dirty_log(&manager, open_ended);
    manager
        .background(move |partition| Some(Offset(if partition == committed { 4 } else { 3 })))
        .expect("threads");
    wait_until("the log is compacted", || records_in(&log) == 1);
    let noted = || {
        let offsets = checkpoint::read_offsets(&dir.path().join(CLEANER_OFFSETS));
        offsets.ok().flatten().unwrap_or_default()
    };
    let name = (topic("table"), PartitionIndex(0));
    wait_until("it is noted", || noted().get(&name) == Some(&Offset(4)));
    assert_eq!(records_in(&other), 4, "its segment is not committed");
    manager.close(None);
    drop((manager, log, other));
    let (manager, _) = open(dir.path());
    let log = manager.get(committed).expect("there");
    assert_eq!(log.first_dirty_offset(), Some(Offset(4)));
}

#[test]
fn a_log_that_cannot_be_cleaned_is_told_and_holds_no_other_up() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (manager, _) = LogManager::open(quick(dir.path()), BOOT).expect("new");
    let (damaged, sound) = (partition(0), partition(1));
    let bad = dirty_log(&manager, damaged);
    let path = bad.dir().join("00000000000000000000.log");
    let mut bytes = fs::read(&path).expect("read");
    bytes[65] ^= 1;
    fs::write(&path, &bytes).expect("write");
    let good = dirty_log(&manager, sound);
    manager.background(|_| Some(Offset(4))).expect("threads");
    wait_until("the damage is told", || {
        let told = manager.uncleanable();
        told.len() == 1 && told[0].0 == damaged && told[0].1.contains("CRC")
    });
    wait_until("the other is compacted", || records_in(&good) == 1);
    assert_eq!(fs::read(&path).expect("read"), bytes);
    manager.close(None);
}

#[test]
fn cleaners_come_and_go_with_their_settings() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut config = quick(dir.path());
    config.cleaner.threads = 0;
    let cleaner = config.cleaner.clone();
    let (manager, _) = LogManager::open(config, BOOT).expect("new");
    let log = dirty_log(&manager, partition(0));
    manager.background(|_| Some(Offset(4))).expect("threads");
    assert_eq!(manager.cleaners.threads(), 0);
    let with = |threads, enabled| {
        let config = CleanerConfig {
            enabled,
            threads,
            ..cleaner.clone()
        };
        manager.set_cleaner_config(config).expect("threads");
    };
    with(3, true);
    wait_until("the log is compacted", || records_in(&log) == 1);
    with(1, true);
    wait_until("two threads have ended", || manager.cleaners.threads() == 1);
    with(1, false);
    wait_until("the last has ended", || manager.cleaners.threads() == 0);
    manager.close(None);
}

/// Whose cleaner threads are the test's own calls of `clean_dirtiest`.
fn without_threads(dir: &Path) -> Arc<LogManager> {
    let mut config = quick(dir);
    config.cleaner.threads = 0;
    LogManager::open(config, BOOT).expect("new").0
}

/// Damages the first batch of the log's first segment, at that byte.
fn damage(log: &Log, at: usize) {
    let path = log.dir().join("00000000000000000000.log");
    let mut bytes = fs::read(&path).expect("read");
    bytes[at] ^= 1;
    fs::write(&path, &bytes).expect("write");
}

fn uncleanable(manager: &LogManager) -> Vec<TopicPartition> {
    let all = manager.uncleanable();
    all.into_iter().map(|(partition, _)| partition).collect()
}

const ALL_COMMITTED: fn(TopicPartition) -> Option<Offset> = |_| Some(Offset(4));

#[test]
fn a_log_that_was_built_anew_or_cut_is_cleaned_again() {
    let dir = tempfile::tempdir().expect("temp dir");
    let manager = without_threads(dir.path());
    let (rebuilt, cut) = (partition(0), partition(1));
    let log = dirty_log(&manager, rebuilt);
    damage(&log, 65);
    assert!(manager.clean_dirtiest(&ALL_COMMITTED));
    assert_eq!(uncleanable(&manager), [rebuilt]);
    assert!(!manager.clean_dirtiest(&ALL_COMMITTED), "it is left alone");

    manager.mark_stray(rebuilt).expect("put aside");
    let log = dirty_log(&manager, rebuilt);
    assert!(manager.clean_dirtiest(&ALL_COMMITTED));
    assert_eq!(
        (uncleanable(&manager), records_in(&log)),
        (vec![], 1),
        "built anew under the same name"
    );

    let log = dirty_log(&manager, cut);
    damage(&log, 65);
    assert!(manager.clean_dirtiest(&ALL_COMMITTED));
    assert_eq!(uncleanable(&manager), [cut]);
    log.truncate_fully_and_start_at(Offset(0)).expect("cut");
    let log = dirty_log(&manager, cut);
    assert!(manager.clean_dirtiest(&ALL_COMMITTED));
    assert_eq!(
        (uncleanable(&manager), records_in(&log)),
        (vec![], 1),
        "begun anew"
    );
    manager.close(None);
}

#[test]
fn deleting_a_log_ends_its_cleaning() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut config = quick(dir.path());
    // A batch takes a day.
    config.cleaner.max_bytes_per_second = 0.001;
    let (manager, _) = LogManager::open(config, BOOT).expect("new");
    let deleted = partition(0);
    let log = dirty_log(&manager, deleted);
    manager.background(ALL_COMMITTED).expect("threads");
    wait_until("it is being cleaned", || manager.cleaners.busy() == 1);
    manager.delete(deleted).expect("delete");
    wait_until("its cleaning has ended", || manager.cleaners.busy() == 0);
    assert_eq!((uncleanable(&manager), log.has_failed()), (vec![], false));
    manager.close(None);
}

#[test]
fn a_cleaner_that_panics_costs_its_log_the_cleaning_and_no_other() {
    let dir = tempfile::tempdir().expect("temp dir");
    let manager = without_threads(dir.path());
    let unlucky = partition(0);
    dirty_log(&manager, unlucky);
    let lucky = dirty_log(&manager, partition(1));
    let bug = |operation: &'static str, path: &Path| {
        let of_unlucky = path.to_string_lossy().contains("table-0/");
        assert!(operation != "create" || !of_unlucky, "a bug");
        Ok(())
    };
    disk::faults::with(bug, || while manager.clean_dirtiest(&ALL_COMMITTED) {});
    let told = manager.uncleanable();
    assert!(
        told.len() == 1 && told[0].0 == unlucky && told[0].1.contains("a bug"),
        "{told:?}"
    );
    assert_eq!(records_in(&lucky), 1);
    manager.close(None);
}

#[test]
fn a_cleaner_that_panics_leaves_no_files_behind() {
    let dir = tempfile::tempdir().expect("temp dir");
    let manager = without_threads(dir.path());
    let unlucky = partition(0);
    let log = dirty_log(&manager, unlucky);
    let files = || {
        let entries = fs::read_dir(log.dir()).expect("list");
        let mut names: Vec<_> = entries.map(|entry| entry.expect("entry").file_name()).collect();
        names.sort();
        names
    };
    let before = files();
    let bug = |operation: &'static str, path: &Path| {
        let written = path.to_string_lossy().ends_with(".log.cleaned");
        assert!(operation != "sync" || !written || !path.exists(), "a bug");
        Ok(())
    };
    disk::faults::with(bug, || while manager.clean_dirtiest(&ALL_COMMITTED) {});
    assert_eq!(uncleanable(&manager), [unlucky]);
    assert_eq!((files(), records_in(&log)), (before, 4));
    manager.close(None);
}

#[test]
fn a_log_that_cannot_say_how_dirty_it_is_is_told() {
    let dir = tempfile::tempdir().expect("temp dir");
    let manager = without_threads(dir.path());
    let damaged = partition(0);
    let log = dirty_log(&manager, damaged);
    // Whether it is due depends on its first batch, whose magic byte is none.
    log.set_config(LogConfig {
        max_compaction_lag: Some(Duration::from_millis(1)),
        ..compacted()
    });
    damage(&log, 16);
    assert!(!manager.clean_dirtiest(&ALL_COMMITTED));
    assert_eq!(uncleanable(&manager), [damaged]);
    manager.close(None);
}
