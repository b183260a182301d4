//! A replica that lies in several directories: the metadata says which of them it is.

use super::*;
use crate::disk::faults;

/// A replica of two records in the first of three directories, of which the second has an older log with the
/// first record alone.
struct Ground {
    dir: tempfile::TempDir,
    manager: Arc<LogManager>,
    ids: Vec<DirectoryId>,
    partition: TopicPartition,
    other: TopicPartition,
}

fn three(dir: &tempfile::TempDir) -> ManagerConfig {
    ManagerConfig {
        log_dirs: ["a", "b", "c"].map(|name| dir.path().join(name)).to_vec(),
        ..config(dir.path())
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).expect("mkdir");
    for file in names_in(from) {
        fs::copy(from.join(&file), to.join(&file)).expect("copy");
    }
}

impl Ground {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("temp dir");
        let (partition, other) = (partition(0), partition(1));
        let [first, second] = ["a", "b"].map(|name| dir.path().join(name).join("orders-0"));
        for value in ["old", "new"] {
            let (manager, _) = LogManager::open(three(&dir), BOOT).expect("ours");
            let home = Some(manager.directories()[0]);
            for partition in [partition, other] {
                let log = manager.create(partition, &topic("orders"), home, LogConfig::default());
                let log = log.expect("create");
                append(&log, value);
                log.flush().expect("flush");
            }
            manager.close(Some(BrokerEpoch(7)));
            drop(manager);
            if value == "old" {
                copy(&first, &second);
            }
            // The second directory is away while the replica is written to.
            let (here, away) = (dir.path().join("b"), dir.path().join("away"));
            if value == "old" {
                fs::rename(&here, &away).expect("rename");
            } else {
                fs::remove_dir_all(&here).expect("its replacement goes");
                fs::rename(&away, &here).expect("rename");
            }
        }
        let (manager, report) = LogManager::open(three(&dir), BOOT).expect("ours");
        assert!(report.clean && report.damaged.is_empty() && report.failed.is_empty());
        let ids = manager.directories();
        Self {
            dir,
            manager,
            ids,
            partition,
            other,
        }
    }

    /// The next run.
    fn restart(self) -> (Self, StartupReport) {
        let Self {
            dir,
            manager,
            ids,
            partition,
            other,
        } = self;
        assert_eq!(Arc::strong_count(&manager), 1, "the directories must be free");
        drop(manager);
        let (manager, report) = LogManager::open(three(&dir), BOOT).expect("ours");
        let next = Self {
            dir,
            manager,
            ids,
            partition,
            other,
        };
        (next, report)
    }

    fn create(&self, home: Option<DirectoryId>) -> Result<Arc<Log>, StorageError> {
        self.manager
            .create(self.partition, &topic("orders"), home, LogConfig::default())
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Which directories have something under the partition's name, and which something stray.
    fn lies_in(&self) -> (Vec<&str>, Vec<&str>) {
        let names = ["a", "b", "c"];
        let here = names
            .into_iter()
            .filter(|name| self.at(name).join("orders-0").exists());
        let stray = names
            .into_iter()
            .filter(|name| ending_with(&self.at(name), "-stray") > 0);
        (here.collect(), stray.collect())
    }
}

fn assert_offline_for(refused: Result<Arc<Log>, StorageError>, words: &[&str]) {
    let Err(StorageError::Failed { reason, .. }) = refused else {
        panic!("{refused:?}");
    };
    assert!(words.iter().all(|word| reason.contains(word)), "{reason}");
}

#[test]
fn the_directory_that_the_metadata_names_has_the_replica_be_it_the_shorter_one() {
    for (named, rest, records) in [(0, "b", 2), (1, "a", 1)] {
        let ground = Ground::new();
        assert!(ground.manager.get(ground.partition).is_none(), "not yet known");
        assert!(
            ground.manager.get(ground.other).is_some(),
            "the others are not affected"
        );
        assert_eq!(ground.manager.directory_of(ground.partition), None);
        let log = ground.create(Some(ground.ids[named])).expect("it is there");
        assert_eq!(log.log_end_offset(), Offset(records));
        assert_eq!(
            ground.manager.directory_of(ground.partition),
            Some(ground.ids[named])
        );
        assert_eq!(ground.lies_in().1, [rest], "kept");
        ground
            .manager
            .remove_due(Monotonic::now() + Duration::from_secs(23 * 60 * 60));
        assert_eq!(ground.lies_in().1, [rest], "not deleted at once");
        append(&log, "on");
        ground.manager.close(Some(BrokerEpoch(8)));
        drop(log);

        let (ground, report) = ground.restart();
        assert!(report.clean);
        let log = ground.manager.get(ground.partition).expect("there is one left");
        assert_eq!(log.log_end_offset(), Offset(records + 1));
        ground
            .manager
            .remove_due(Monotonic::now() + Duration::from_secs(25 * 60 * 60));
        assert!(ground.lies_in().1.is_empty());
    }
}

#[test]
fn without_a_word_of_the_metadata_both_are_held_over_restarts_and_checkpoints() {
    let mut ground = Ground::new();
    for _ in 0..2 {
        let named = ground.manager.names();
        assert_eq!(named.iter().filter(|(id, _)| *id == ground.partition).count(), 1);
        let described = ground.manager.describe_directories();
        let shown = described.iter().map(|dir| {
            let of_partition = dir
                .replicas
                .iter()
                .filter(|log| log.partition == ground.partition);
            of_partition.map(|log| log.log_end_offset).collect::<Vec<_>>()
        });
        assert_eq!(
            shown.collect::<Vec<_>>(),
            [vec![Offset(2)], vec![Offset(1)], vec![]]
        );
        ground.manager.checkpoint();
        ground.manager.close(Some(BrokerEpoch(8)));
        let (next, report) = ground.restart();
        assert!(report.clean && report.scanned_bytes == 0);
        ground = next;
    }
    assert_eq!(ground.lies_in(), (vec!["a", "b"], vec![]));
    for (directory, end) in [("a", 2), ("b", 1)] {
        let points = checkpoint::read_offsets(&ground.at(directory).join(RECOVERY_POINTS));
        let points = points.expect("read").expect("there");
        assert_eq!(points[&(topic("orders"), PartitionIndex(0))], Offset(end));
    }
    assert!(ground.create(Some(ground.ids[0])).is_ok());
}

#[test]
fn a_replica_in_directories_that_the_metadata_does_not_name_is_offline_and_nothing_is_touched() {
    let ground = Ground::new();
    for home in [None, Some(DirectoryId::ZERO), Some(ground.ids[2])] {
        let both = ["a/orders-0", "b/orders-0", "restart the broker"];
        assert_offline_for(ground.create(home), &both);
    }
    let unknown = ground.create(Some(DirectoryId::random()));
    assert!(
        matches!(unknown, Err(StorageError::Offline { .. })),
        "{unknown:?}"
    );
    assert_eq!(ground.lies_in(), (vec!["a", "b"], vec![]));
    // The metadata's word may come later.
    let log = ground.create(Some(ground.ids[1])).expect("it is there");
    assert_eq!(log.log_end_offset(), Offset(1));
}

#[test]
fn what_the_operator_leaves_is_the_replica() {
    let ground = Ground::new();
    assert!(ground.create(None).is_err());
    ground.manager.close(None);
    fs::remove_dir_all(ground.at("b").join("orders-0")).expect("remove");
    let (ground, _) = ground.restart();
    let log = ground.create(Some(ground.ids[2])).expect("there is one left");
    assert_eq!(log.log_end_offset(), Offset(2));
}

#[test]
fn a_replica_that_nobody_counts_on_begins_anew_and_one_that_is_deleted_goes_everywhere() {
    let ground = Ground::new();
    assert!(ground.create(Some(ground.ids[2])).is_err());
    ground.manager.mark_stray(ground.partition).expect("put aside");
    assert_eq!(ground.lies_in(), (vec![], vec!["a", "b"]));
    let log = ground.create(Some(ground.ids[2])).expect("built anew");
    assert_eq!(log.log_end_offset(), Offset::ZERO);

    let ground = Ground::new();
    ground.manager.delete(ground.partition).expect("delete");
    assert_eq!(ground.lies_in(), (vec![], vec![]));
    assert!(ground.manager.names().iter().all(|(id, _)| *id == ground.other));
    // The name is free for another topic.
    create(&ground.manager, partition(0), "orders");
}

#[test]
fn another_topic_of_the_name_puts_both_aside() {
    let ground = Ground::new();
    let log = create(&ground.manager, partition(0), "orders");
    assert_eq!(log.log_end_offset(), Offset::ZERO);
    assert_eq!(ground.lies_in().1, ["a", "b"]);
}

#[test]
fn where_the_named_one_is_damaged_the_other_stays_where_it_is() {
    let ground = Ground::new();
    ground.manager.close(None);
    fs::remove_file(ground.at("a").join("clean-shutdown")).expect("as after a crash");
    let segment = ground.at("a/orders-0/00000000000000000000.log");
    let mut bytes = fs::read(&segment).expect("read");
    bytes[16] = 9;
    fs::write(&segment, bytes).expect("damage below the recovery point");
    let (ground, report) = ground.restart();
    assert_eq!(report.failed.len(), 1);
    for _ in 0..2 {
        assert_offline_for(ground.create(Some(ground.ids[0])), &["a/orders-0", "b/orders-0"]);
    }
    assert_eq!(ground.lies_in(), (vec!["a", "b"], vec![]));
    ground.manager.close(None);
    let (ground, report) = ground.restart();
    assert!(
        !report.clean,
        "a directory with a log that does not open is never marked clean"
    );
    let log = ground
        .create(Some(ground.ids[1]))
        .expect("the metadata has changed its mind");
    assert_eq!(log.log_end_offset(), Offset(1));
    assert_eq!(ground.lies_in(), (vec!["b"], vec!["a"]));
}

#[test]
fn a_replica_whose_named_directory_goes_offline_is_not_taken_from_another() {
    let ground = Ground::new();
    ground.manager.directories[0].health().fail(&"on purpose");
    let refused = ground.create(Some(ground.ids[0]));
    assert!(
        matches!(refused, Err(StorageError::Offline { directory }) if directory == ground.ids[0]),
        "{refused:?}"
    );
    assert_eq!(ground.lies_in(), (vec!["a", "b"], vec![]));
    // And the other way round: what is offline cannot be renamed, and waits for the next start.
    let ground = Ground::new();
    ground.manager.directories[1].health().fail(&"on purpose");
    let log = ground.create(Some(ground.ids[0])).expect("it is there");
    assert_eq!(log.log_end_offset(), Offset(2));
    assert_eq!(ground.lies_in(), (vec!["a", "b"], vec![]));
}

#[test]
fn a_contest_goes_on_where_only_a_part_of_it_can_be_put_aside() {
    let ground = Ground::new();
    let first = ground.at("a").join("orders-0");
    let full = move |operation: &str, path: &Path| {
        if operation == "rename" && path == first {
            Err(rustix::io::Errno::NOSPC.into())
        } else {
            Ok(())
        }
    };
    let put_aside = || ground.manager.mark_stray(ground.partition);
    faults::with(full, put_aside).expect_err("the first stays");
    assert_eq!(ground.lies_in(), (vec!["a"], vec!["b"]));
    assert!(ground.manager.get(ground.partition).is_none());
    assert_offline_for(ground.create(Some(ground.ids[1])), &["a/orders-0"]);
    ground
        .manager
        .mark_stray(ground.partition)
        .expect("there is space again");
    assert!(ground.lies_in().0.is_empty());
}

#[test]
fn an_old_log_is_not_the_replica_where_the_metadata_names_a_directory_that_has_lost_it() {
    type Loss = fn(&Path);
    let losses: [Loss; 4] = [
        |replica| fs::rename(replica, replica.with_file_name("#123")).expect("rename"),
        |replica| {
            fs::remove_dir_all(replica).expect("remove");
            fs::create_dir(replica).expect("mkdir");
        },
        |replica| fs::remove_file(replica.join(partition_metadata::FILE_NAME)).expect("remove"),
        // Reading it fails as on a bad disk.
        |replica| {
            fs::remove_file(replica.join(partition_metadata::FILE_NAME)).expect("remove");
            fs::create_dir(replica.join(partition_metadata::FILE_NAME)).expect("mkdir");
        },
    ];
    for (at, lose) in losses.into_iter().enumerate() {
        let mut ground = Ground::new();
        ground.manager.close(None);
        lose(&ground.at("a").join("orders-0"));
        for _ in 0..2 {
            let (next, _) = ground.restart();
            ground = next;
            assert!(ground.manager.get(ground.partition).is_none(), "loss {at}");
            assert_offline_for(ground.create(Some(ground.ids[0])), &["a/orders-0", "b/orders-0"]);
            ground.manager.checkpoint();
            ground.manager.close(None);
        }
        let (ground, _) = ground.restart();
        let log = ground
            .create(Some(ground.ids[1]))
            .expect("the metadata means the other");
        assert_eq!(log.log_end_offset(), Offset(1), "loss {at}");
        ground.manager.close(None);
        drop(log);
        let (ground, _) = ground.restart();
        assert!(ground.manager.get(ground.partition).is_some(), "loss {at}");
    }
}

#[test]
fn what_the_operator_leaves_is_the_replica_be_it_the_shorter_one() {
    let ground = Ground::new();
    assert!(ground.create(Some(ground.ids[2])).is_err());
    ground.manager.close(None);
    fs::remove_dir_all(ground.at("a").join("orders-0")).expect("remove");
    let (ground, _) = ground.restart();
    let log = ground.create(Some(ground.ids[2])).expect("there is one left");
    assert_eq!(log.log_end_offset(), Offset(1));
}
