//! Log directories that fail: what goes with them, and what goes on.

use std::{
    io,
    sync::atomic::{AtomicUsize, Ordering},
};

use super::*;
use crate::disk::faults;

/// Two directories with one log each.
struct Pair {
    dir: tempfile::TempDir,
    manager: Arc<LogManager>,
    ids: [DirectoryId; 2],
    partitions: [TopicPartition; 2],
    logs: [Arc<Log>; 2],
}

fn paths(dir: &tempfile::TempDir) -> [PathBuf; 2] {
    [dir.path().join("a"), dir.path().join("b")]
}

fn two(dir: &tempfile::TempDir) -> ManagerConfig {
    ManagerConfig {
        log_dirs: paths(dir).to_vec(),
        ..config(dir.path())
    }
}

impl Pair {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("temp dir");
        let (manager, _) = LogManager::open(two(&dir), BOOT).expect("new");
        let ids: [DirectoryId; 2] = manager.directories().try_into().expect("two");
        let partitions = [partition(0), partition(1)];
        let logs = [0, 1].map(|i| {
            let log = manager
                .create(
                    partitions[i],
                    &topic("orders"),
                    Some(ids[i]),
                    LogConfig::default(),
                )
                .expect("create");
            append(&log, "a value");
            log.flush().expect("flush");
            log
        });
        Self {
            dir,
            manager,
            ids,
            partitions,
            logs,
        }
    }

    /// Puts a plain file in the place of the second directory.
    fn replace_second(&self) -> PathBuf {
        let [_, second] = paths(&self.dir);
        let away = self.dir.path().join("away");
        fs::rename(&second, &away).expect("rename");
        fs::write(&second, "").expect("write");
        away
    }

    fn bring_back(&self) {
        let [_, second] = paths(&self.dir);
        fs::remove_file(&second).expect("remove");
        fs::rename(self.dir.path().join("away"), &second).expect("rename");
    }

    fn probe(&self) {
        self.manager.directories.iter().for_each(DataDirectory::probe);
    }

    fn assert_second_is_offline(&self) {
        assert_eq!(self.manager.offline_directories(), [self.ids[1]]);
        assert_eq!(self.manager.online_directories(), [self.ids[0]]);
        assert!(self.logs[1].has_failed() && !self.logs[0].has_failed());
        append(&self.logs[0], "another value");
        assert!(self.logs[0].flush().is_ok());
    }
}

#[test]
fn a_directory_that_is_gone_takes_its_logs_and_no_others() {
    let pair = Pair::new();
    pair.probe();
    assert!(pair.manager.offline_directories().is_empty());
    let told = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&told);
    pair.manager.on_directory_failure(move || {
        count.fetch_add(1, Ordering::SeqCst);
    });
    pair.replace_second();
    pair.probe();
    pair.probe();
    assert_eq!(told.load(Ordering::SeqCst), 1);
    pair.assert_second_is_offline();
    assert!(!pair.manager.all_offline());

    // New logs go where there is a disk, and what may come back is not built anew.
    let new = partition(2);
    let create = |partition, home| {
        pair.manager
            .create(partition, &topic("orders"), home, LogConfig::default())
    };
    create(new, None).expect("create");
    assert_eq!(pair.manager.directory_of(new), Some(pair.ids[0]));
    for partition in [pair.partitions[1], partition(3)] {
        let refused = create(partition, Some(pair.ids[1]));
        assert!(
            matches!(refused, Err(StorageError::Offline { directory }) if directory == pair.ids[1]),
            "{refused:?}"
        );
    }
    let described = pair.manager.describe_directories();
    assert!(described[0].space.is_ok() && described[0].replicas.len() == 2);
    assert!(described[1].space.is_err() && described[1].replicas.is_empty());
}

#[test]
fn a_directory_that_is_back_is_used_again_after_a_restart() {
    let pair = Pair::new();
    pair.replace_second();
    pair.probe();
    pair.manager.close(Some(BrokerEpoch(7)));
    let Pair {
        dir,
        manager,
        ids,
        partitions,
        logs,
    } = pair;
    drop((manager, logs));

    // It is still gone: its replica is offline, wherever the metadata has it.
    let (manager, report) = LogManager::open(two(&dir), BOOT).expect("one is left");
    assert_eq!(report.offline_directories.len(), 1);
    assert_eq!((manager.unusable_directories(), manager.logs().len()), (1, 1));
    let refused = manager.create(
        partitions[1],
        &topic("orders"),
        Some(ids[1]),
        LogConfig::default(),
    );
    assert!(
        matches!(refused, Err(StorageError::Offline { .. })),
        "{refused:?}"
    );
    // What lies elsewhere may be older than what is offline.
    let refused = manager.create(
        partitions[0],
        &topic("orders"),
        Some(ids[1]),
        LogConfig::default(),
    );
    assert!(
        matches!(refused, Err(StorageError::Offline { .. })),
        "{refused:?}"
    );
    manager.close(Some(BrokerEpoch(8)));
    drop(manager);

    let [_, second] = paths(&dir);
    fs::remove_file(&second).expect("remove");
    fs::rename(dir.path().join("away"), &second).expect("rename");
    let (manager, report) = LogManager::open(two(&dir), BOOT).expect("ours");
    assert!(!report.clean, "the second was not closed");
    assert_eq!(manager.directories(), ids);
    for partition in partitions {
        assert!(contains(&manager.get(partition).expect("found again"), "a value"));
    }
}

#[test]
fn another_directory_in_its_place_is_not_taken_for_it() {
    let pair = Pair::new();
    pair.replace_second();
    let [_, second] = paths(&pair.dir);
    fs::remove_file(&second).expect("remove");
    fs::create_dir(&second).expect("mkdir");
    pair.probe();
    pair.assert_second_is_offline();
    fs::remove_dir(&second).expect("remove");
    fs::write(&second, "").expect("write");
    pair.bring_back();
    pair.probe();
    pair.assert_second_is_offline();
}

#[test]
fn a_failed_fsync_or_write_takes_the_directory_offline() {
    for operation in ["sync", "write"] {
        let pair = Pair::new();
        append(&pair.logs[1], "not synced");
        let fail = move |step: &str, _: &Path| {
            if step == operation {
                Err(io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error()))
            } else {
                Ok(())
            }
        };
        let log = Arc::clone(&pair.logs[1]);
        faults::with(fail, || {
            if operation == "sync" {
                log.flush().expect_err("fails");
            } else {
                try_append(&log).expect_err("fails");
            }
        });
        pair.assert_second_is_offline();
    }
}

#[test]
fn a_full_disk_is_not_a_failing_one() {
    let pair = Pair::new();
    let full = |step: &str, _: &Path| {
        if step == "write" {
            Err(io::Error::from_raw_os_error(
                rustix::io::Errno::NOSPC.raw_os_error(),
            ))
        } else {
            Ok(())
        }
    };
    let log = Arc::clone(&pair.logs[1]);
    faults::with(full, || try_append(&log).expect_err("fails"));
    assert!(pair.manager.offline_directories().is_empty());
    append(&pair.logs[1], "there is space again");
}

#[test]
fn nothing_is_left_where_every_directory_fails() {
    let pair = Pair::new();
    let [first, _] = paths(&pair.dir);
    pair.replace_second();
    fs::rename(&first, pair.dir.path().join("first away")).expect("rename");
    pair.probe();
    assert!(pair.manager.all_offline());
    let refused = pair
        .manager
        .create(partition(5), &topic("orders"), None, LogConfig::default());
    assert!(
        matches!(refused, Err(StorageError::Offline { .. })),
        "{refused:?}"
    );
    pair.manager.close(None);
}

#[test]
fn a_replica_in_an_offline_directory_is_forgotten_and_found_again() {
    let pair = Pair::new();
    pair.replace_second();
    pair.probe();
    pair.manager
        .delete(pair.partitions[1])
        .expect("nothing to rename");
    assert!(pair.manager.directory_of(pair.partitions[1]).is_none());
    pair.bring_back();
    let Pair {
        dir,
        manager,
        partitions,
        logs,
        ..
    } = pair;
    manager.close(None);
    drop((manager, logs));
    let (manager, _) = LogManager::open(two(&dir), BOOT).expect("ours");
    assert!(manager.names().iter().any(|(found, _)| *found == partitions[1]));
}

fn try_append(log: &Log) -> Result<AppendOutcome, crate::log::AppendError> {
    log.append_as_leader(LeaderAppend {
        batches: Bytes::from(BatchBuilder::default().build_records(&[(None, Some(&b"a value"[..]))])),
        leader_epoch: LeaderEpoch(0),
        now_ms: 1_000,
        log_append_time: None,
    })
}
