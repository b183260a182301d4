//! Deleted and stray partitions, and names that are used again.

use super::*;
use crate::log::AppendError;

#[test]
fn creating_is_idempotent_also_at_the_same_time() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (manager, _) = open(dir.path());
    let partition = partition(0);
    let logs: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| create(&manager, partition, "orders")))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"))
            .collect()
    });
    assert!(logs.iter().all(|log| Arc::ptr_eq(log, &logs[0])));
    assert_eq!(manager.logs().len(), 1);
    assert_eq!(ending_with(dir.path(), "-new"), 0);
}

#[test]
fn a_deleted_partition_is_closed_at_once_and_removed_later() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (manager, _) = open(dir.path());
    let partition = partition(0);
    let log = create(&manager, partition, "orders");
    append(&log, "a value");
    manager.delete(partition).expect("delete");
    manager.delete(partition).expect("not there is no error");
    assert!(manager.get(partition).is_none() && manager.names().is_empty());
    assert!(!dir.path().join("orders-0").exists());
    assert_eq!(ending_with(dir.path(), "-delete"), 1);
    let refused = log.append_as_follower(Bytes::from(
        BatchBuilder::default().build_records(&[(None, None)]),
    ));
    assert!(matches!(
        refused,
        Err(AppendError::Storage(StorageError::Closed { .. }))
    ));

    manager.remove_due(Monotonic::now());
    assert_eq!(ending_with(dir.path(), "-delete"), 1, "its delay is not over");
    manager.remove_due(Monotonic::now() + Duration::from_secs(61));
    assert_eq!(ending_with(dir.path(), "-delete"), 0);
}

#[test]
fn what_a_crash_left_of_a_deletion_is_removed_after_the_start() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (manager, _) = open(dir.path());
    let partition = partition(0);
    create(&manager, partition, "orders");
    manager.delete(partition).expect("delete");
    drop(manager);
    let (manager, _) = open(dir.path());
    assert!(manager.get(partition).is_none());
    manager.remove_due(Monotonic::now());
    assert_eq!(ending_with(dir.path(), "-delete"), 0);
}

#[test]
fn a_stray_partition_is_kept_for_a_day_from_each_start() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (manager, _) = open(dir.path());
    let partition = partition(0);
    append(&create(&manager, partition, "orders"), "a value");
    manager.mark_stray(partition).expect("put aside");
    let almost = Duration::from_secs(23 * 60 * 60);
    manager.remove_due(Monotonic::now() + almost);
    assert_eq!(ending_with(dir.path(), "-stray"), 1);
    drop(manager);

    let (manager, _) = open(dir.path());
    manager.remove_due(Monotonic::now() + almost);
    assert_eq!(ending_with(dir.path(), "-stray"), 1);
    manager.remove_due(Monotonic::now() + almost + almost);
    assert_eq!(ending_with(dir.path(), "-stray"), 0);
}

/// The new topic must not inherit the old one's log start or recovery point, whatever the crash left
/// of the checkpoint files.
#[test]
fn a_topic_created_again_under_its_name_begins_at_zero() {
    for crash_after_create in [false, true] {
        let dir = tempfile::tempdir().expect("temp dir");
        let (manager, _) = open(dir.path());
        let (old, new) = (partition(0), partition(0));
        let log = create(&manager, old, "orders");
        for _ in 0..10 {
            append(&log, "of the old topic");
        }
        log.flush().expect("flush");
        log.advance_log_start(Offset(8)).expect("delete records");
        manager.checkpoint();
        manager.delete(old).expect("delete");

        let log = create(&manager, new, "orders");
        append(&log, "of the new topic");
        assert_eq!(
            (log.log_start_offset(), log.log_end_offset()),
            (Offset(0), Offset(1))
        );
        if !crash_after_create {
            manager.close(None);
        }
        drop((log, manager));

        let (manager, report) = open(dir.path());
        assert!(report.damaged.is_empty() && report.failed.is_empty());
        assert!(manager.get(old).is_none());
        let log = manager.get(new).expect("found again");
        assert_eq!(
            (log.log_start_offset(), log.log_end_offset()),
            (Offset(0), Offset(1))
        );
        assert!(contains(&log, "of the new topic") && !contains(&log, "of the old topic"));
    }
}

#[test]
fn a_name_that_another_topic_still_has_is_freed_and_nothing_is_lost() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (manager, _) = open(dir.path());
    let (old, new) = (partition(0), partition(0));
    append(&create(&manager, old, "orders"), "of the old topic");
    let log = create(&manager, new, "orders");
    assert_eq!(log.log_end_offset(), Offset(0));
    assert!(manager.get(old).is_none());
    assert_eq!(ending_with(dir.path(), "-stray"), 1);
}

#[test]
fn partitions_come_and_go_at_the_same_time() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (manager, _) = open(dir.path());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..5 {
                    let partition = partition(0);
                    // Another thread may take the name meanwhile and put this log aside.
                    create(&manager, partition, "contested");
                    manager.delete(partition).expect("delete");
                    manager.checkpoint();
                }
            });
        }
    });
    assert!(manager.logs().is_empty());
    assert!(!dir.path().join("contested-0").exists());
    manager.close(None);
    drop(manager);
    assert!(open(dir.path()).1.clean);
}
