//! What a start finds, and what it refuses.

use super::*;

#[test]
fn a_clean_restart_finds_everything_and_knows_its_epoch() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (manager, first) = open(dir.path());
    assert!(first.clean && first.same_boot && first.previous_broker_epoch.is_none());
    let directories = manager.directories();
    let partitions: Vec<_> = (0..5).map(partition).collect();
    for &partition in &partitions {
        append(&create(&manager, partition, "orders"), "a value");
    }
    manager.close(Some(BrokerEpoch(7)));
    drop(manager);

    let (manager, report) = open(dir.path());
    assert!(report.clean && report.same_boot);
    assert_eq!(report.previous_broker_epoch, Some(BrokerEpoch(7)));
    assert_eq!(report.scanned_bytes, 0);
    assert_eq!(manager.directories(), directories);
    assert_eq!(manager.logs().len(), 5);
    for partition in partitions {
        let log = manager.get(partition).expect("found again");
        assert_eq!(log.log_end_offset(), Offset(1));
        assert!(contains(&log, "a value"));
    }
}

/// Retention must never go by the defaults that a log was found with.
#[test]
fn a_log_that_was_found_takes_its_settings_before_anybody_uses_it() {
    let dir = tempfile::tempdir().expect("temp dir");
    let partition = partition(0);
    let (manager, _) = open(dir.path());
    append(&create(&manager, partition, "orders"), "a value");
    manager.close(Some(BrokerEpoch(7)));
    drop(manager);

    let (manager, _) = open(dir.path());
    let compacted = LogConfig {
        delete: false,
        compact: true,
        ..LogConfig::default()
    };
    let log = manager
        .create(partition, &topic("orders"), None, compacted)
        .expect("found again");
    assert!(contains(&log, "a value"));
    assert!(log.config().compact && !log.config().delete);
}

#[test]
fn a_wiped_directory_is_another_directory() {
    let dir = tempfile::tempdir().expect("temp dir");
    let dir = dir.path().join("data");
    let (manager, _) = open(&dir);
    let before = manager.directories();
    create(&manager, partition(0), "orders");
    manager.close(Some(BrokerEpoch(7)));
    drop(manager);
    fs::remove_dir_all(&dir).expect("wipe");

    let (manager, report) = open(&dir);
    assert_ne!(manager.directories(), before);
    assert!(manager.logs().is_empty());
    assert_eq!(report.previous_broker_epoch, None);
}

#[test]
fn a_foreign_directory_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().expect("temp dir");
    let east = ClusterId::new("east").expect("valid");
    let (manager, _) = open(dir.path());
    manager.set_cluster_id(&east).expect("not known before");
    manager.set_cluster_id(&east).expect("the same again");
    let west = ClusterId::new("west").expect("valid");
    assert!(matches!(
        manager.set_cluster_id(&west),
        Err(OpenError::Identity(
            meta_properties::MetaPropertiesError::OtherCluster { .. }
        ))
    ));
    manager.close(Some(BrokerEpoch(7)));
    drop(manager);

    let before = names_in(dir.path());
    let other_node = ManagerConfig {
        node_id: BrokerId(2),
        ..config(dir.path())
    };
    let error = LogManager::open(other_node, BOOT)
        .expect_err("another node's")
        .to_string();
    assert!(error.contains("node 1") && error.contains("node 2"), "{error}");
    let other_cluster = ManagerConfig {
        cluster_id: Some(west),
        ..config(dir.path())
    };
    let error = LogManager::open(other_cluster, BOOT)
        .expect_err("another cluster's")
        .to_string();
    assert!(error.contains("east") && error.contains("west"), "{error}");
    assert_eq!(names_in(dir.path()), before);
    assert_eq!(open(dir.path()).1.previous_broker_epoch, Some(BrokerEpoch(7)));
}

#[test]
fn only_an_empty_directory_is_formatted() {
    let dir = tempfile::tempdir().expect("temp dir");
    fs::create_dir(dir.path().join("lost+found")).expect("a file system's own");
    fs::create_dir(dir.path().join("orders-0")).expect("somebody's data");
    let error = LogManager::open(config(dir.path()), BOOT)
        .expect_err("not empty")
        .to_string();
    assert!(
        error.contains("orders-0") && error.contains("meta.properties"),
        "{error}"
    );
    fs::remove_dir(dir.path().join("orders-0")).expect("remove");
    fs::write(dir.path().join("meta.properties.tmp"), "vers").expect("a crash while formatting");
    open(dir.path());
}

#[test]
fn a_directory_has_one_user_at_a_time() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (manager, _) = open(dir.path());
    assert!(matches!(
        LogManager::open(config(dir.path()), BOOT),
        Err(OpenError::InUse(_))
    ));
    drop(manager);
    open(dir.path());
}

#[test]
fn a_damaged_replica_is_offline_until_it_is_rebuilt_and_costs_no_other() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (good, bad) = (partition(0), partition(1));
    let (manager, _) = open(dir.path());
    append(&create(&manager, good, "orders"), "good");
    let log = create(&manager, bad, "orders");
    append(&log, "damaged");
    append(&log, "behind it");
    log.flush().expect("flush");
    manager.checkpoint();
    drop((log, manager));
    let segment = dir.path().join("orders-1/00000000000000000000.log");
    let mut bytes = fs::read(&segment).expect("read");
    bytes[16] = 9;
    fs::write(&segment, bytes).expect("damage below the recovery point");

    let (manager, report) = open(dir.path());
    assert_eq!(report.failed.len(), 1);
    assert_eq!(report.failed[0].0, bad);
    assert!(matches!(report.failed[0].1, StorageError::Corrupt { .. }));
    assert_eq!(manager.offline().len(), 1);
    assert!(manager.get(bad).is_none() && manager.get(good).is_some());
    assert_eq!(manager.names().len(), 2);
    assert_eq!(manager.directory_of(bad), Some(manager.directories()[0]));
    let refused = manager.create(bad, &topic("orders"), None, LogConfig::default());
    assert!(matches!(refused, Err(StorageError::Failed { .. })));
    // Its recovery point is kept: without it the next start would cut instead of complaining.
    manager.checkpoint();
    let points = checkpoint::read_offsets(&dir.path().join(RECOVERY_POINTS))
        .expect("read")
        .expect("there");
    assert_eq!(points[&(topic("orders"), PartitionIndex(1))], Offset(2));
    manager.close(Some(BrokerEpoch(7)));
    drop(manager);

    let (manager, report) = open(dir.path());
    assert!(
        !report.clean,
        "a directory with an offline replica is never marked clean"
    );
    assert_eq!(report.failed.len(), 1);
    manager.mark_stray(bad).expect("put aside");
    let log = create(&manager, bad, "orders");
    assert_eq!(log.log_end_offset(), Offset::ZERO);
    assert!(manager.offline().is_empty());
    assert_eq!(ending_with(dir.path(), "-stray"), 1);
}

#[test]
fn a_replica_that_lost_synced_records_is_reported() {
    let dir = tempfile::tempdir().expect("temp dir");
    let partition = partition(0);
    let (manager, _) = open(dir.path());
    let log = create(&manager, partition, "orders");
    append(&log, "kept");
    let kept = log.size_bytes();
    append(&log, "lost");
    log.flush().expect("flush");
    manager.checkpoint();
    drop((log, manager));
    let segment = dir.path().join("orders-0/00000000000000000000.log");
    fs::File::options()
        .write(true)
        .open(segment)
        .and_then(|file| file.set_len(kept))
        .expect("truncate");

    let (manager, report) = open(dir.path());
    assert_eq!(report.damaged, [partition]);
    assert_eq!(manager.get(partition).expect("open").log_end_offset(), Offset(1));
}

#[test]
fn a_partition_without_identity_is_never_served() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (manager, _) = open(dir.path());
    for (index, name) in ["nameless", "garbled"].into_iter().enumerate() {
        append(&create(&manager, partition(index as i32), name), "a value");
    }
    drop(manager);
    fs::remove_file(dir.path().join("nameless-0").join(partition_metadata::FILE_NAME)).expect("remove");
    fs::write(
        dir.path().join("garbled-1").join(partition_metadata::FILE_NAME),
        "?",
    )
    .expect("garble");
    fs::create_dir(dir.path().join("empty-0")).expect("mkdir");
    fs::create_dir(dir.path().join("half-0.0123-new")).expect("mkdir");

    let (manager, report) = open(dir.path());
    assert!(manager.logs().is_empty());
    assert_eq!(report.unidentified.len(), 2);
    assert_eq!(ending_with(dir.path(), "-stray"), 2);
    let names = names_in(dir.path());
    assert!(
        !names.contains("empty-0") && !names.contains("half-0.0123-new"),
        "{names:?}"
    );
}

#[test]
fn the_controllers_log_and_foreign_things_are_left_alone() {
    let dir = tempfile::tempdir().expect("temp dir");
    open(dir.path());
    for name in ["__cluster_metadata-0", "hints"] {
        fs::create_dir(dir.path().join(name)).expect("mkdir");
    }
    fs::write(dir.path().join("readme"), "").expect("write");
    let (manager, report) = open(dir.path());
    assert!(manager.logs().is_empty() && report.unidentified.is_empty());
    assert!(dir.path().join("__cluster_metadata-0").exists());
}

#[test]
fn two_directories_share_the_partitions() {
    let dir = tempfile::tempdir().expect("temp dir");
    let dirs = [dir.path().join("a"), dir.path().join("b")];
    let config = ManagerConfig {
        log_dirs: dirs.to_vec(),
        ..config(dir.path())
    };
    let (manager, _) = LogManager::open(config.clone(), BOOT).expect("new");
    let ids = manager.directories();
    let partitions: Vec<_> = (0..4).map(partition).collect();
    for &partition in &partitions {
        create(&manager, partition, "orders");
    }
    for id in ids {
        let count = partitions
            .iter()
            .filter(|&&p| manager.directory_of(p) == Some(id))
            .count();
        assert_eq!(count, 2);
    }
    manager.close(Some(BrokerEpoch(3)));
    drop(manager);
    let (manager, report) = LogManager::open(config, BOOT).expect("ours");
    assert_eq!(
        (manager.logs().len(), report.previous_broker_epoch),
        (4, Some(BrokerEpoch(3)))
    );
}

#[test]
fn a_directory_that_cannot_be_used_costs_its_replicas_and_not_the_broker() {
    let dir = tempfile::tempdir().expect("temp dir");
    let dirs = [dir.path().join("good"), dir.path().join("not a directory")];
    fs::write(&dirs[1], "").expect("write");
    let config = ManagerConfig {
        log_dirs: dirs.to_vec(),
        ..config(dir.path())
    };
    let (manager, report) = LogManager::open(config.clone(), BOOT).expect("one is left");
    assert_eq!(report.offline_directories.len(), 1);
    assert_eq!(manager.directories().len(), 1);
    append(&create(&manager, partition(0), "orders"), "a value");
    drop(manager);
    let none_left = ManagerConfig {
        log_dirs: dirs[1..].to_vec(),
        ..config
    };
    assert!(matches!(
        LogManager::open(none_left, BOOT),
        Err(OpenError::Storage(_))
    ));
}

#[test]
fn one_foreign_directory_leaves_the_others_markers_alone() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (ours, foreign) = (dir.path().join("ours"), dir.path().join("foreign"));
    open(&ours).0.close(Some(BrokerEpoch(7)));
    fs::create_dir(&foreign).expect("mkdir");
    meta_properties::format(&foreign, None, BrokerId(9), DirectoryId::random()).expect("format");
    let both = ManagerConfig {
        log_dirs: vec![ours.clone(), foreign],
        ..config(dir.path())
    };
    assert!(matches!(
        LogManager::open(both, BOOT),
        Err(OpenError::Identity(_))
    ));
    assert_eq!(open(&ours).1.previous_broker_epoch, Some(BrokerEpoch(7)));
}

#[test]
fn no_log_is_made_after_the_end() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (manager, _) = open(dir.path());
    manager.close(None);
    manager.close(None);
    let refused = manager.create(partition(0), &topic("orders"), None, LogConfig::default());
    assert!(matches!(refused, Err(StorageError::Closed { .. })));
}

/// Lets the log of a partition fail to open, as a full disk would.
fn exhaust(manager: &LogManager, partition: TopicPartition) {
    let mut replicas = manager.replicas.write();
    let Hosted { name, directory, log } = replicas.hosted.remove(&partition).expect("open");
    manager.directories[directory].keep_offline(&name, offsets_of(partition, &log));
    let offline = Offline {
        dir: log.dir(),
        name,
        directory,
        reason: "no space left".to_owned(),
        may_open: true,
    };
    replicas.offline.insert(partition, offline);
}

#[test]
fn a_replica_that_lacked_only_space_opens_when_it_is_asked_for_again() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (manager, _) = open(dir.path());
    let (whole, cut) = (partition(0), partition(1));
    for partition in [whole, cut] {
        let log = create(&manager, partition, "orders");
        append(&log, "first");
        append(&log, "second");
        log.flush().expect("flush");
        log.advance_log_start(Offset(1)).expect("within the log");
        exhaust(&manager, partition);
    }
    manager.checkpoint();
    let log = create(&manager, whole, "orders");
    assert_eq!(
        (log.log_start_offset(), log.log_end_offset()),
        (Offset(1), Offset(2))
    );
    assert_eq!(manager.offline().len(), 1);

    // One that lost records meanwhile must not come back unnoticed.
    fs::write(dir.path().join("orders-1/00000000000000000000.log"), "").expect("cut");
    for _ in 0..2 {
        let refused = manager.create(cut, &topic("orders"), None, LogConfig::default());
        assert!(matches!(refused, Err(StorageError::Failed { .. })));
    }
    manager.checkpoint();
    let points = checkpoint::read_offsets(&dir.path().join(RECOVERY_POINTS))
        .expect("read")
        .expect("there");
    assert!(points.values().all(|&point| point == Offset(2)) && points.len() == 2);
}

#[test]
fn a_name_that_an_unreadable_directory_has_is_freed() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (manager, _) = open(dir.path());
    fs::create_dir(dir.path().join("orders-0")).expect("mkdir");
    fs::write(dir.path().join("orders-0/something"), "").expect("write");
    create(&manager, partition(0), "orders");
    assert_eq!(ending_with(dir.path(), "-stray"), 1);
}

#[test]
fn a_partition_that_has_vanished_is_not_replaced_by_an_empty_one_while_it_counts() {
    let remains = [None, Some(&[][..]), Some(&["00000000000000000000.log"][..])];
    for (remains, earlier) in remains
        .into_iter()
        .flat_map(|remains| [(remains, false), (remains, true)])
    {
        let dir = tempfile::tempdir().expect("temp dir");
        let partition = partition(0);
        let (manager, _) = open(dir.path());
        let log = create(&manager, partition, "orders");
        append(&log, "acknowledged");
        log.flush().expect("flush");
        manager.close(Some(BrokerEpoch(7)));
        drop((log, manager));
        // A check of the file system has moved it, or has emptied it.
        fs::rename(dir.path().join("orders-0"), dir.path().join("#123")).expect("rename");
        if let Some(files) = remains {
            fs::create_dir(dir.path().join("orders-0")).expect("mkdir");
            for file in files {
                fs::write(dir.path().join("orders-0").join(file), "").expect("write");
            }
        }
        if earlier {
            // It was here before, and was put aside then.
            let stray = dir.path().join("orders-0.0123456789abcdef-stray");
            fs::create_dir(&stray).expect("mkdir");
            partition_metadata::store(&stray, partition.topic_id).expect("write");
        }

        for _ in 0..3 {
            let (manager, _) = open(dir.path());
            for _ in 0..2 {
                let refused = manager.create(partition, &topic("orders"), None, LogConfig::default());
                assert!(matches!(refused, Err(StorageError::Failed { .. })), "{refused:?}");
            }
            assert_eq!(manager.directory_of(partition), Some(manager.directories()[0]));
            manager.close(None);
        }
        let (manager, _) = open(dir.path());
        manager
            .create(partition, &topic("orders"), None, LogConfig::default())
            .expect_err("still missed");
        manager
            .mark_stray(partition)
            .expect("nobody counts on it any more");
        assert_eq!(
            create(&manager, partition, "orders").log_end_offset(),
            Offset::ZERO
        );
        manager.close(None);
        drop(manager);
        let (manager, report) = open(dir.path());
        assert!(report.failed.is_empty() && manager.get(partition).is_some());
    }
}

#[test]
fn a_partition_that_has_vanished_does_not_hold_up_another_topic_of_its_name() {
    for (remains, known) in [(false, true), (true, true), (false, false)] {
        let dir = tempfile::tempdir().expect("temp dir");
        let (manager, _) = open(dir.path());
        let log = create(&manager, partition(0), "orders");
        for value in ["one", "two", "three"] {
            append(&log, value);
        }
        log.advance_log_start(Offset(2)).expect("within the log");
        log.flush().expect("flush");
        manager.close(Some(BrokerEpoch(7)));
        drop((log, manager));
        fs::rename(dir.path().join("orders-0"), dir.path().join("#123")).expect("rename");
        if remains {
            fs::create_dir(dir.path().join("orders-0")).expect("mkdir");
        }
        if !known {
            // As an earlier version leaves it.
            fs::remove_file(dir.path().join(checkpoint::TOPIC_IDS)).expect("remove");
        }

        // The topic was deleted and made again meanwhile.
        let (manager, _) = open(dir.path());
        let again = partition(0);
        let made = manager.create(again, &topic("orders"), None, LogConfig::default());
        if !known {
            assert!(matches!(made, Err(StorageError::Failed { .. })), "{made:?}");
            continue;
        }
        let log = made.expect("nothing of it was ever here");
        assert_eq!(log.log_end_offset(), Offset::ZERO);
        append(&log, "four");
        log.flush().expect("flush");
        drop((log, manager));
        let (manager, report) = open(dir.path());
        assert!(report.damaged.is_empty() && report.failed.is_empty());
        let log = manager.get(again).expect("there");
        assert_eq!(
            (log.log_start_offset(), log.log_end_offset()),
            (Offset::ZERO, Offset(1)),
            "it has inherited no offsets"
        );
    }
}

/// Two log directories, and what is to be made in them.
fn two(dir: &tempfile::TempDir) -> (ManagerConfig, [PathBuf; 2]) {
    let dirs = [dir.path().join("a"), dir.path().join("b")];
    let config = ManagerConfig {
        log_dirs: dirs.to_vec(),
        ..config(dir.path())
    };
    (config, dirs)
}

#[test]
fn what_another_topic_of_the_name_has_elsewhere_is_not_what_is_missed() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (config, dirs) = two(&dir);
    let aside = dir.path().join("aside");
    let topics = [partition(0), partition(0)];
    // The first topic's disk is away while that topic is deleted and the second one of its name made.
    for (id, home) in [(topics[0], 1), (topics[1], 0)] {
        let (manager, _) = LogManager::open(config.clone(), BOOT).expect("ours");
        let home = Some(manager.directories()[home]);
        let log = manager
            .create(id, &topic("orders"), home, LogConfig::default())
            .expect("create");
        append(&log, "acknowledged");
        manager.close(None);
        drop((log, manager));
        if id == topics[0] {
            fs::rename(dirs[1].join("orders-0"), &aside).expect("rename");
        }
    }
    fs::rename(dirs[0].join("orders-0"), dir.path().join("lost")).expect("rename");
    fs::rename(&aside, dirs[1].join("orders-0")).expect("rename");
    for _ in 0..2 {
        let (manager, _) = LogManager::open(config.clone(), BOOT).expect("ours");
        let home = Some(manager.directories()[0]);
        let refused = manager.create(topics[1], &topic("orders"), home, LogConfig::default());
        assert!(matches!(refused, Err(StorageError::Failed { .. })), "{refused:?}");
        assert_eq!(ending_with(&dirs[1], "-stray"), 1, "it is nobody's any more");
        manager.close(None);
    }
}

#[test]
fn a_log_directory_and_its_copy_are_not_used_together() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (config, dirs) = two(&dir);
    drop(LogManager::open(config.clone(), BOOT).expect("new"));
    let identity = |dir: &Path| dir.join("meta.properties");
    fs::copy(identity(&dirs[0]), identity(&dirs[1])).expect("copy");
    let before = names_in(&dirs[0]);
    let Err(refused) = LogManager::open(config, BOOT) else {
        panic!("one of them would be taken for the other");
    };
    assert!(matches!(refused, OpenError::SameId { .. }), "{refused}");
    let message = refused.to_string();
    assert!(
        dirs.iter()
            .all(|dir| message.contains(&dir.display().to_string())),
        "{message}"
    );
    assert_eq!(names_in(&dirs[0]), before, "nothing is changed");
}

#[test]
fn a_partition_whose_identity_cannot_be_read_stays_where_it_is() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (manager, _) = open(dir.path());
    manager.close(None);
    drop(manager);
    // Reading it fails as on a bad disk, and nothing tells whether it counts.
    let unreadable = dir.path().join("orders-0").join(partition_metadata::FILE_NAME);
    fs::create_dir_all(unreadable).expect("mkdir");
    let (manager, _) = open(dir.path());
    let partition = partition(0);
    let create = || manager.create(partition, &topic("orders"), None, LogConfig::default());
    let refused = create();
    assert!(matches!(refused, Err(StorageError::Failed { .. })), "{refused:?}");
    assert!(dir.path().join("orders-0").exists());
    manager.mark_stray(partition).expect("nobody counts on it");
    create().expect("built anew");
    assert_eq!(ending_with(dir.path(), "-stray"), 1);
}

#[test]
fn a_partition_that_was_deleted_is_not_missed() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (manager, _) = open(dir.path());
    let old = partition(0);
    create(&manager, old, "orders");
    manager.checkpoint();
    manager.delete(old).expect("delete");
    manager.remove_due(Monotonic::now() + Duration::from_secs(61));
    assert_eq!(ending_with(dir.path(), "-delete"), 0);
    drop(manager);
    let (manager, _) = open(dir.path());
    create(&manager, partition(0), "orders");
}

#[test]
fn a_partition_that_lies_in_another_directory_is_not_missed() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (config, dirs) = two(&dir);
    let (manager, _) = LogManager::open(config.clone(), BOOT).expect("new");
    let ids = manager.directories();
    let partition = partition(0);
    let create = |manager: &LogManager, home| {
        manager.create(partition, &topic("orders"), Some(home), LogConfig::default())
    };
    append(&create(&manager, ids[0]).expect("create"), "a value");
    manager.close(None);
    drop(manager);
    fs::rename(dirs[0].join("orders-0"), dirs[1].join("orders-0")).expect("moved by hand");
    let (manager, _) = LogManager::open(config, BOOT).expect("ours");
    assert!(contains(&create(&manager, ids[0]).expect("found"), "a value"));
    manager.mark_stray(partition).expect("put aside");
    create(&manager, ids[0]).expect("neither directory misses it");
}
