//! Compacted logs that are copied to followers, and cut by them.

use super::*;
use crate::format::{CLEANER_CHECKPOINT_VOID_FILE, EPOCH_CHECKPOINT_FILE};

#[test]
fn a_follower_that_begins_anew_takes_a_compacted_log_with_its_holes() {
    let log = TestLog::new(config());
    for i in 0..40 {
        put(&log, &format!("k{}", i % 7), Some("x"));
    }
    log.roll(0).expect("roll");
    compact(&log, 0);
    put(&log, "k0", Some("y"));
    let follower = TestLog::new(config());
    for (_, batch) in batches(&log) {
        follower.append_as_follower(batch).expect("what follows");
    }
    assert_eq!(records(&follower), records(&log));
    assert_eq!(follower.log_end_offset(), log.log_end_offset());
    follower.flush().expect("flush");
    let (follower, report) = follower.reopen(synced_below(0));
    assert!(!report.lost);
    assert_eq!(records(&follower), records(&log));
    // Cleaned by itself, it comes to the same records.
    follower.roll(0).expect("roll");
    log.roll(0).expect("roll");
    compact(&follower, 0);
    compact(&log, 0);
    assert_eq!(records(&follower), records(&log));
}

#[test]
fn a_truncation_makes_what_it_left_dirty_again() {
    let log = TestLog::new(config());
    for _ in 0..6 {
        put(&log, "a", Some("x"));
    }
    log.roll(0).expect("roll");
    compact(&log, 0);
    assert_eq!(offsets(&log), [5]);
    log.truncate_to(Offset(3)).expect("into what was cleaned");
    // Where the epoch begins is still there.
    assert_eq!(log.log_end_offset(), Offset(1));
    put(&log, "a", Some("y"));
    put(&log, "a", Some("z"));
    log.roll(0).expect("roll");
    compact(&log, 0);
    assert_eq!(offsets(&log), [2]);
}

/// What was truncated and written anew would pass for clean, by a checkpoint from before.
#[test]
fn a_checkpoint_from_before_a_truncation_is_not_believed() {
    let log = TestLog::new(config());
    for i in 0..6 {
        put(&log, &format!("k{i}"), Some("x"));
    }
    log.roll(0).expect("roll");
    compact(&log, 0);
    assert_eq!(log.first_dirty_offset(), Some(Offset(6)));
    log.truncate_to(Offset(3)).expect("below what was cleaned");
    for _ in 0..4 {
        put(&log, "k1", None);
    }
    log.roll(0).expect("roll");
    log.flush().expect("flush");
    let (log, _) = log.reopen(synced_below(7));
    log.restore_first_dirty_offset(Offset(6));
    assert_eq!(log.first_dirty_offset(), None);
    let void = log.dir().join(CLEANER_CHECKPOINT_VOID_FILE);
    assert_eq!(fs::read(&void).expect("there"), b"6\n");
    compact(&log, 0);
    assert_eq!(offsets(&log), [0, 2, 6]);
    assert!(!void.exists(), "cleaned beyond what the checkpoint could say");
    let (log, _) = log.reopen(synced_below(7));
    log.restore_first_dirty_offset(Offset(7));
    assert_eq!(log.first_dirty_offset(), Some(Offset(7)));
}

/// By the epochs a follower is told what to truncate: they must not move with the records.
#[test]
fn where_epochs_begin_outlives_their_records() {
    let log = TestLog::new(config());
    let one: &[(&[u8], Option<&[u8]>)] = &[(b"k", Some(b"v"))];
    for epoch in [1, 1, 4, 4, 4, 6, 6] {
        lead(&log, keyed(at(1), Compression::None, one), epoch);
    }
    log.roll(0).expect("roll");
    compact(&log, 0);
    assert_eq!(offsets(&log), [6]);
    let epochs = |log: &Log| [1, 4, 6].map(|epoch| log.epoch_start(LeaderEpoch(epoch)));
    let expected = [0, 2, 5].map(|start| Some(Offset(start)));
    assert_eq!(epochs(&log), expected);
    let follower = TestLog::new(config());
    for (_, batch) in batches(&log) {
        follower.append_as_follower(batch).expect("what follows");
    }
    assert_eq!(epochs(&follower), expected);
    fs::remove_file(log.dir().join(EPOCH_CHECKPOINT_FILE)).expect("remove");
    let (log, _) = log.reopen(synced_below(7));
    assert_eq!(epochs(&log), expected);
}
