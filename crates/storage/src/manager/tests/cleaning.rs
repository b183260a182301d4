//! The cleaner threads.

use protocol::batch::Batches;

use super::*;
use crate::checkpoint::CLEANER_OFFSETS;

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
        .create(partition, &topic("table"), compacted())
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
