//! What goes on by itself.

use super::*;

fn quick(dir: &Path) -> ManagerConfig {
    ManagerConfig {
        checkpoint_interval: Duration::from_millis(5),
        retention_interval: Duration::from_millis(5),
        ..config(dir)
    }
}

#[test]
fn checkpoints_are_written_and_deleted_partitions_removed() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (manager, _) = LogManager::open(quick(dir.path()), BOOT).expect("new");
    manager.background(|_| None).expect("a thread");
    let (kept, gone) = (partition(0), partition(1));
    let log = create(&manager, kept, "orders");
    append(&log, "a value");
    log.flush().expect("flush");
    create(&manager, gone, "orders").set_config(LogConfig {
        file_delete_delay: Duration::ZERO,
        ..LogConfig::default()
    });
    manager.delete(gone).expect("delete");
    let points = || {
        checkpoint::read_offsets(&dir.path().join(RECOVERY_POINTS))
            .ok()
            .flatten()
    };
    let name = (topic("orders"), PartitionIndex(0));
    wait_until("the recovery point is written", || {
        points().is_some_and(|points| points.len() == 1 && points.get(&name) == Some(&Offset(1)))
    });
    wait_until("the deleted partition is removed", || {
        ending_with(dir.path(), "-delete") == 0
    });
    manager.close(None);
}

#[test]
fn retention_stops_at_the_high_watermark() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (manager, _) = LogManager::open(quick(dir.path()), BOOT).expect("new");
    let (followed, unknown) = (partition(0), partition(1));
    // Records of 1970 with a retention of a minute.
    let short = LogConfig {
        retention_ms: Some(Duration::from_secs(60)),
        ..LogConfig::default()
    };
    for partition in [followed, unknown] {
        let log = manager
            .create(partition, &topic("orders"), None, short.clone())
            .expect("create");
        for _ in 0..3 {
            append(&log, "old");
            log.roll(1_000).expect("roll");
        }
    }
    manager
        .background(move |partition| (partition == followed).then_some(Offset(2)))
        .expect("a thread");
    let log = manager.get(followed).expect("there");
    wait_until("two segments are gone", || log.log_start_offset() == Offset(2));
    let unfollowed = manager.get(unknown).expect("there");
    assert_eq!(unfollowed.log_start_offset(), Offset(0));
    manager.close(None);
    assert_eq!(log.log_start_offset(), Offset(2));
}

#[test]
fn the_upkeep_thread_ends_with_its_manager() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (manager, _) = LogManager::open(quick(dir.path()), BOOT).expect("new");
    let held = Arc::new(());
    let probe = Arc::clone(&held);
    manager
        .background(move |_| {
            let _ = &probe;
            None
        })
        .expect("a thread");
    drop(manager);
    wait_until("the thread has let go", || Arc::strong_count(&held) == 1);
    open(dir.path());
}
