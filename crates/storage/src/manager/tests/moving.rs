//! Moving a log to another directory: the swap, stopped before any of its steps, and what is left then.

use std::{
    io,
    sync::atomic::{AtomicUsize, Ordering},
};

use super::*;
use crate::disk::faults;

struct Ground {
    dir: tempfile::TempDir,
    manager: Arc<LogManager>,
    from: DirectoryId,
    to: DirectoryId,
    partition: TopicPartition,
}

fn both(dir: &tempfile::TempDir) -> ManagerConfig {
    ManagerConfig {
        log_dirs: vec![dir.path().join("a"), dir.path().join("b")],
        ..config(dir.path())
    }
}

impl Ground {
    /// A log of three records in the first directory.
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("temp dir");
        let (manager, _) = LogManager::open(both(&dir), BOOT).expect("new");
        let ids = manager.directories();
        let partition = partition(0);
        let log = manager
            .create(partition, &topic("orders"), Some(ids[0]), LogConfig::default())
            .expect("create");
        for value in ["one", "two", "three"] {
            append(&log, value);
        }
        log.flush().expect("flush");
        Self {
            dir,
            manager,
            from: ids[0],
            to: ids[1],
            partition,
        }
    }

    /// Begins the move and copies everything.
    fn fill(&self) -> Arc<Log> {
        let future = self.manager.begin_move(self.partition, self.to).expect("begin");
        let current = self.manager.get(self.partition).expect("there");
        let read = current
            .read(ReadRequest {
                from: future.log_end_offset(),
                upper: current.log_end_offset(),
                max_bytes: 1 << 20,
                min_one_batch: true,
            })
            .expect("read");
        future.append_as_follower(read.bytes).expect("append");
        future.flush().expect("flush");
        future
    }

    /// Puts the future in the place of the current log.
    fn swap(&self) -> Result<(), StorageError> {
        let current = self.manager.get(self.partition).expect("there");
        let (future, _) = self.manager.future(self.partition).expect("there");
        self.manager.complete_move(self.partition, (&current, &future))
    }

    /// The next run.
    fn restart(self) -> Self {
        let Self { dir, manager, .. } = &self;
        let config = both(dir);
        assert_eq!(Arc::strong_count(manager), 1, "the directories must be free");
        let Self {
            dir,
            manager,
            from,
            to,
            partition,
        } = self;
        drop(manager);
        let (manager, _) = LogManager::open(config, BOOT).expect("ours");
        Self {
            dir,
            manager,
            from,
            to,
            partition,
        }
    }

    /// The replica as the metadata wants it, which names `home`.
    fn replica(&self, home: DirectoryId) -> Arc<Log> {
        self.manager
            .create(self.partition, &topic("orders"), Some(home), LogConfig::default())
            .expect("the replica is there")
    }

    /// How many directories claim to be the replica.
    fn claims(&self) -> usize {
        let dirs = ["a", "b"].map(|dir| self.dir.path().join(dir));
        dirs.iter().filter(|dir| dir.join("orders-0").exists()).count()
    }

    fn futures(&self) -> usize {
        ["a", "b"]
            .iter()
            .map(|dir| ending_with(&self.dir.path().join(dir), "-future"))
            .sum()
    }
}

fn has_all(log: &Log) -> bool {
    log.log_end_offset() == Offset(3) && ["one", "two", "three"].iter().all(|value| contains(log, value))
}

#[test]
fn a_log_moves_and_works_on_and_can_move_back() {
    let ground = Ground::new();
    let before = ground.manager.get(ground.partition).expect("there");
    let future = ground.fill();
    assert_eq!(ground.manager.directory_of(ground.partition), Some(ground.from));
    let described = ground.manager.describe_directories();
    assert!(described[1].replicas[0].is_future && !described[0].replicas[0].is_future);

    let stranger = ground.manager.complete_move(ground.partition, (&before, &before));
    assert!(matches!(stranger, Err(StorageError::NotTheSame { .. })));
    ground.swap().expect("move");
    let moved = ground.manager.get(ground.partition).expect("there");
    assert!(Arc::ptr_eq(&moved, &future));
    assert_eq!(ground.manager.directory_of(ground.partition), Some(ground.to));
    assert!(
        has_all(&moved) && has_all(&before),
        "readers of the old one go on"
    );
    assert!(ground.manager.future(ground.partition).is_none());
    append(&moved, "four");
    assert_eq!((ground.claims(), ground.futures()), (1, 0));

    let back = ground
        .manager
        .begin_move(ground.partition, ground.from)
        .expect("begin");
    back.append_as_follower(
        moved
            .read(ReadRequest {
                from: Offset::ZERO,
                upper: Offset(4),
                max_bytes: 1 << 20,
                min_one_batch: true,
            })
            .expect("read")
            .bytes,
    )
    .expect("append");
    back.flush().expect("flush");
    ground.swap().expect("move back");
    ground.manager.close(None);
    drop((before, future, moved, back));
    let ground = ground.restart();
    let log = ground.replica(ground.from);
    assert!(contains(&log, "four") && log.log_end_offset() == Offset(4));
}

#[test]
fn a_move_survives_a_restart_and_can_be_given_up() {
    let ground = Ground::new();
    drop(ground.fill());
    let ground = ground.restart();
    assert!(has_all(&ground.replica(ground.from)));
    let (future, to) = ground.manager.future(ground.partition).expect("goes on");
    assert!(to == ground.to && has_all(&future));
    assert!(ground.manager.begin_move(ground.partition, ground.to).is_ok());
    drop(future);

    ground.manager.cancel_move(ground.partition).expect("cancel");
    ground
        .manager
        .cancel_move(ground.partition)
        .expect("nothing to do");
    assert_eq!(ground.futures(), 0);
    let current = ground.manager.get(ground.partition).expect("there");
    let over = ground
        .manager
        .complete_move(ground.partition, (&current, &current));
    assert!(over.is_err());
    drop(current);
    let ground = ground.restart();
    assert!(ground.manager.future(ground.partition).is_none());
    assert!(has_all(&ground.replica(ground.from)));
}

#[test]
fn a_copy_that_lacks_something_does_not_become_the_replica() {
    let ground = Ground::new();
    let future = ground.fill();
    let current = ground.manager.get(ground.partition).expect("there");
    append(&current, "four");
    let refused = ground.swap();
    assert!(
        matches!(refused, Err(StorageError::NotTheSame { .. })),
        "{refused:?}"
    );
    drop(future);
    assert_eq!(ground.manager.directory_of(ground.partition), Some(ground.from));
}

#[test]
fn a_replica_that_goes_takes_its_future_along() {
    let ground = Ground::new();
    drop(ground.fill());
    ground.manager.delete(ground.partition).expect("delete");
    assert_eq!((ground.claims(), ground.futures()), (0, 0));
    assert!(ground.manager.future(ground.partition).is_none());
}

/// From the `fatal`-th file operation on nothing works, as for a process that dies there.
fn stopped_at<T>(fatal: usize, body: impl FnOnce() -> T) -> (T, usize) {
    let steps = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&steps);
    let hook = move |_: &'static str, _: &Path| {
        if count.fetch_add(1, Ordering::SeqCst) < fatal {
            Ok(())
        } else {
            Err(io::Error::other("the process is gone"))
        }
    };
    let result = faults::with(hook, body);
    (result, steps.load(Ordering::SeqCst))
}

#[test]
fn a_swap_that_stops_anywhere_leaves_one_whole_replica() {
    for fatal in 0.. {
        let ground = Ground::new();
        drop(ground.fill());
        let (done, steps) = stopped_at(fatal, || ground.swap().is_ok());
        let ground = ground.restart();
        assert!(ground.claims() <= 1, "step {fatal}");
        // Whatever the future is worth, the old one is not removed before the new one has its place.
        ground.manager.remove_due(Monotonic::now());
        let kept = ending_with(&ground.dir.path().join("a"), "-stray");
        assert!(ground.claims() == 1 || kept == 1, "step {fatal}");
        // The metadata has named the new directory before the swap.
        let log = ground.replica(ground.to);
        assert!(has_all(&log), "step {fatal}");
        assert_eq!(ground.claims(), 1, "step {fatal}");
        append(&log, "four");
        drop(log);
        let ground = ground.restart();
        assert_eq!(
            ground.replica(ground.to).log_end_offset(),
            Offset(4),
            "step {fatal}"
        );
        if done && steps < fatal {
            return;
        }
    }
}

#[test]
fn a_move_that_stops_while_it_begins_costs_nothing() {
    for fatal in 0.. {
        let ground = Ground::new();
        let (begun, steps) = stopped_at(fatal, || {
            ground.manager.begin_move(ground.partition, ground.to).is_ok()
        });
        let ground = ground.restart();
        let log = ground.replica(ground.from);
        assert!(has_all(&log), "step {fatal}");
        drop(log);
        drop(
            ground
                .manager
                .begin_move(ground.partition, ground.to)
                .expect("begin again"),
        );
        assert_eq!(ground.futures(), 1, "step {fatal}");
        if begun && steps <= fatal {
            return;
        }
    }
}

#[test]
fn a_future_is_not_the_replica_where_the_metadata_names_another_directory() {
    let ground = Ground::new();
    drop(ground.fill());
    let dir = ground.dir.path().to_owned();
    let ground_dir = ground.dir.path().join("a");
    // The first directory is offline in the next run: what it holds may be ahead of the copy.
    let away = dir.join("away");
    let Ground {
        dir: holder,
        manager,
        from,
        to,
        partition,
    } = ground;
    drop(manager);
    fs::rename(&ground_dir, &away).expect("rename");
    fs::write(&ground_dir, "").expect("write");
    let (manager, _) = LogManager::open(both(&holder), BOOT).expect("one is left");
    let refused = manager.create(partition, &topic("orders"), Some(from), LogConfig::default());
    assert!(
        matches!(refused, Err(StorageError::Offline { .. })),
        "{refused:?}"
    );
    assert!(manager.future(partition).is_some(), "the copy stays");
    drop(manager);

    fs::remove_file(&ground_dir).expect("remove");
    fs::rename(&away, &ground_dir).expect("rename");
    let (manager, _) = LogManager::open(both(&holder), BOOT).expect("ours");
    assert_eq!(manager.future(partition).map(|(_, at)| at), Some(to));
    assert!(has_all(&manager.get(partition).expect("there")));
}

/// An error of the disk itself.
fn broken() -> io::Error {
    io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error())
}

#[test]
fn the_old_log_is_kept_where_the_new_one_may_not_be_durable() {
    let ground = Ground::new();
    drop(ground.fill());
    let new_home = ground.dir.path().join("b");
    let place = new_home.join("orders-0");
    let hook = move |step: &'static str, path: &Path| {
        if step == "sync" && path == new_home && place.exists() {
            Err(broken())
        } else {
            Ok(())
        }
    };
    faults::with(hook, || ground.swap()).expect("the future has taken the place");
    assert_eq!(ground.manager.offline_directories(), [ground.to]);
    let ground = ground.restart();
    ground
        .manager
        .remove_due(Monotonic::now() + Duration::from_secs(23 * 60 * 60));
    let old_home = ground.dir.path().join("a");
    assert_eq!(
        (
            ending_with(&old_home, "-stray"),
            ending_with(&old_home, "-delete")
        ),
        (1, 0)
    );
}

#[test]
fn the_log_start_does_not_go_back_when_a_log_moves() {
    let ground = Ground::new();
    drop(ground.fill());
    let current = ground.manager.get(ground.partition).expect("there");
    current.advance_log_start(Offset(1)).expect("within the log");
    drop(current);
    ground.swap().expect("move");
    let start = |ground: &Ground| ground.replica(ground.to).log_start_offset();
    assert_eq!(start(&ground), Offset(1));
    let ground = ground.restart();
    assert_eq!(start(&ground), Offset(1));
}

#[test]
fn a_copy_of_what_was_compacted_since_begins_anew() {
    for (filled, kept) in [(false, false), (true, true)] {
        let ground = Ground::new();
        if filled {
            drop(ground.fill());
        } else {
            let begun = ground.manager.begin_move(ground.partition, ground.to);
            drop(begun.expect("begin"));
        }
        // As if the first had been compacted while the second was offline.
        let current = ground.manager.get(ground.partition).expect("there");
        current.restore_first_dirty_offset(Offset(2));
        drop(current);
        ground.manager.close(None);
        let ground = ground.restart();
        assert_eq!(ground.manager.future(ground.partition).is_some(), kept);
        assert!(has_all(&ground.replica(ground.from)));
        ground.manager.remove_due(Monotonic::now());
        assert_eq!(ground.futures(), usize::from(kept));
        assert!(ground.manager.begin_move(ground.partition, ground.to).is_ok());
    }
}

/// Restarts without the current log, as after a crash in a swap that the metadata does not know of.
fn without_current(ground: Ground) -> Ground {
    let gone = ground.dir.path().join("a/orders-0");
    fs::rename(gone, ground.dir.path().join("gone")).expect("rename");
    ground.restart()
}

#[test]
fn a_lone_copy_is_kept_as_stray_and_nothing_empty_takes_its_place_unasked() {
    let ground = Ground::new();
    drop(ground.fill());
    let ground = without_current(ground);
    let create = || {
        ground.manager.create(
            ground.partition,
            &topic("orders"),
            Some(ground.from),
            LogConfig::default(),
        )
    };
    let refused = create();
    assert!(matches!(refused, Err(StorageError::Failed { .. })), "{refused:?}");
    ground
        .manager
        .mark_stray(ground.partition)
        .expect("nobody counts on it");
    ground.manager.remove_due(Monotonic::now());
    let kept = ground.dir.path().join("b");
    assert_eq!((ground.futures(), ending_with(&kept, "-stray")), (0, 1));
    create().expect("built anew");
}

#[test]
fn a_lone_copy_that_lacked_only_space_opens_when_it_is_asked_for_again() {
    let ground = Ground::new();
    drop(ground.fill());
    let ground = without_current(ground);
    {
        let mut replicas = ground.manager.replicas.write();
        let future = replicas.futures.remove(&ground.partition).expect("there");
        let offline = Offline {
            dir: future.log.dir(),
            name: future.name,
            directory: future.directory,
            reason: "no space left".to_owned(),
            may_open: true,
        };
        replicas.offline.insert(ground.partition, offline);
    }
    assert!(has_all(&ground.replica(ground.to)));
    assert_eq!((ground.claims(), ground.futures()), (1, 0));
    assert!(ground.manager.offline().is_empty());
}

#[test]
fn a_wish_does_not_build_anew_what_may_come_back() {
    let ground = Ground::new();
    let (name, wished) = (topic("later"), partition(4));
    ground.manager.wish(&name, wished.partition, ground.to);
    ground.manager.directories[0].health().fail(&"on purpose");
    let refused = ground
        .manager
        .create(wished, &name, Some(ground.from), LogConfig::default());
    assert!(
        matches!(refused, Err(StorageError::Offline { .. })),
        "{refused:?}"
    );
    assert!(!ground.dir.path().join("b/later-4").exists());
}

#[test]
fn a_wish_is_remembered_until_the_log_is_made() {
    let ground = Ground::new();
    let name = topic("later");
    let wished = partition(4);
    ground.manager.wish(&name, wished.partition, ground.to);
    let create = |partition| {
        ground
            .manager
            .create(partition, &name, Some(ground.from), LogConfig::default())
            .expect("create")
    };
    create(wished);
    assert_eq!(ground.manager.directory_of(wished), Some(ground.to));
    ground.manager.delete(wished).expect("delete");
    let again = TopicPartition::new(topic_id(), wished.partition);
    create(again);
    assert_eq!(
        ground.manager.directory_of(again),
        Some(ground.from),
        "a wish is for once"
    );
}

#[test]
fn paths_name_directories() {
    let ground = Ground::new();
    let at = |name: &str| ground.manager.directory_at(&ground.dir.path().join(name));
    assert_eq!(at("a"), NamedDirectory::Online(ground.from));
    assert_eq!(at("b"), NamedDirectory::Online(ground.to));
    assert_eq!(at("b/"), NamedDirectory::Unknown, "as Kafka: word for word");
    assert_eq!(at("c"), NamedDirectory::Unknown);
    ground.manager.directories[1].health().fail(&"on purpose");
    assert_eq!(at("b"), NamedDirectory::Offline);
}

#[test]
fn what_lies_in_the_way_of_a_move_is_put_aside_before_it() {
    let ground = Ground::new();
    let in_the_way = ground.dir.path().join("b/orders-0");
    let hinder = || {
        fs::create_dir(&in_the_way).expect("mkdir");
        fs::write(in_the_way.join("something"), "").expect("write");
    };
    hinder();
    drop(ground.fill());
    assert!(!in_the_way.exists());
    hinder();
    ground.swap().expect("move");
    assert!(has_all(&ground.replica(ground.to)));
    assert_eq!(ending_with(&ground.dir.path().join("b"), "-stray"), 2);
}

#[test]
fn what_was_deleted_from_a_copy_is_removed_where_the_copy_has_moved_to() {
    let ground = Ground::new();
    let current = ground.manager.get(ground.partition).expect("there");
    current.set_config(LogConfig {
        segment_bytes: 1,
        ..LogConfig::default()
    });
    let future = ground.manager.begin_move(ground.partition, ground.to);
    let future = future.expect("begin");
    while future.log_end_offset() < current.log_end_offset() {
        let batch = current.read(ReadRequest {
            from: future.log_end_offset(),
            upper: current.log_end_offset(),
            max_bytes: 1,
            min_one_batch: true,
        });
        future
            .append_as_follower(batch.expect("read").bytes)
            .expect("append");
    }
    future.flush().expect("flush");
    for log in [&current, &future] {
        log.advance_log_start(Offset(2)).expect("within the log");
    }
    let place = ground.dir.path().join("b/orders-0");
    ground.swap().expect("move");
    assert!(ending_with(&place, ".deleted") > 0);
    future.set_config(LogConfig {
        file_delete_delay: Duration::ZERO,
        ..LogConfig::default()
    });
    assert!(future.remove_deleted() > 0);
    assert_eq!(ending_with(&place, ".deleted"), 0);
}
