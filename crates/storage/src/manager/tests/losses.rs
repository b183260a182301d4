//! What a start says of losses, and for how long.

use super::*;
use crate::format::FileKind;

#[test]
fn an_unclean_restart_says_so_and_keeps_everything() {
    let dir = tempfile::tempdir().expect("temp dir");
    let partition = partition(0);
    let (manager, _) = open(dir.path());
    manager.close(Some(BrokerEpoch(7)));
    drop(manager);
    let (manager, _) = open(dir.path());
    append(&create(&manager, partition, "orders"), "a value");
    drop(manager);

    let (manager, report) = LogManager::open(config(dir.path()), "boot-2").expect("ours");
    assert!(!report.clean && !report.same_boot);
    assert_eq!(report.previous_broker_epoch, None);
    assert!(report.damaged.is_empty() && report.failed.is_empty());
    assert!(contains(&manager.get(partition).expect("found again"), "a value"));
    drop(manager);
    // Killed before it could tell anybody: the next start must.
    let (manager, report) = LogManager::open(config(dir.path()), "boot-2").expect("ours");
    assert!(!report.clean && !report.same_boot);
    manager.losses_are_known().expect("noted");
    drop(manager);
    let (manager, report) = LogManager::open(config(dir.path()), "boot-2").expect("ours");
    assert!(!report.clean && report.same_boot);
    drop(manager);
    assert!(
        !LogManager::open(config(dir.path()), "")
            .expect("ours")
            .1
            .same_boot
    );
}

#[test]
fn a_loss_is_told_until_somebody_has_heard_of_it() {
    let dir = tempfile::tempdir().expect("temp dir");
    let partition = partition(0);
    let (manager, _) = open(dir.path());
    let log = create(&manager, partition, "orders");
    append(&log, "a value");
    append(&log, "another");
    let path = FileKind::Log.path(&log.dir(), Offset(0));
    drop((log, manager));
    let mut bytes = fs::read(&path).expect("read");
    *bytes.last_mut().expect("batches") ^= 1;
    fs::write(&path, bytes).expect("damage");

    let start = || LogManager::open(config(dir.path()), BOOT).expect("ours");
    let (manager, report) = start();
    assert_eq!((report.damaged, report.same_boot), (vec![partition], true));
    drop(manager);
    // The log is sound by now, and shorter than it was.
    let (manager, report) = start();
    assert!(report.damaged.is_empty() && !report.clean && !report.same_boot);
    manager.losses_are_known().expect("noted");
    drop(manager);
    assert!(start().1.same_boot);
}
