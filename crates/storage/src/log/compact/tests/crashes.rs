//! Crashes and failures at each single file operation of a cleaning.

use rustix::io::Errno;

use super::*;
use crate::{
    disk::{
        faults,
        power_loss::{Journal, Order},
    },
    log::crash_tests::{copy, images, images_of},
};

const END: i64 = 24;

fn wide() -> LogConfig {
    LogConfig {
        segment_bytes: 1 << 20,
        ..config()
    }
}

/// Three segments of eight records that become one, and an empty one behind them.
fn three_segments() -> TestLog {
    let log = TestLog::new(wide());
    for round in 0..3 {
        for i in 0..8 {
            let key = format!("k{}", (i + round) % 9);
            put(&log, &key, (i != 4).then_some("value"));
        }
        log.roll(0).expect("roll");
    }
    log.flush().expect("flush");
    log
}

/// What a start makes of an image of the log.
#[track_caller]
fn recovered(dir: &Path, recovery_point: Option<Offset>) -> Vec<Read> {
    let options = crate::OpenOptions {
        recovery_point,
        ..synced_below(0)
    };
    let (log, report) = Log::open(dir, wide(), options).expect("recovers");
    assert!(!report.lost);
    assert_eq!(log.log_end_offset(), Offset(END));
    assert_sound_files(dir);
    records(&log)
}

#[test]
fn a_crash_anywhere_in_a_cleaning_leaves_the_log_before_or_after() {
    let log = three_segments();
    let before = records(&log);
    let images = images(&log, || {
        try_compact(&log, 100, 0, 1 << 20).expect("compacts");
    });
    let after = records(&log);
    assert!(
        after.len() < before.len() && images.len() > 20,
        "{}",
        images.len()
    );
    let mut turned = false;
    for image in &images {
        let dir = image.dir.path().join("t-0");
        let expected = |turned: bool| if turned { &after } else { &before };
        let has_swap = || {
            let mut names = fs::read_dir(&dir)
                .expect("list")
                .map(|entry| entry.expect("entry").path());
            names.any(|path| path.to_string_lossy().ends_with(SWAP_SUFFIX))
        };
        let mut again = Vec::new();
        if has_swap() {
            // Recovery crashes too, at each of its own steps.
            let spare = tempfile::tempdir().expect("temp dir");
            let first_try = spare.path().join("t-0");
            copy(&dir, &first_try);
            again = images_of(&first_try, || drop(recovered(&first_try, None)));
        }
        let found = recovered(&dir, None);
        turned |= found == after;
        assert_eq!(&found, expected(turned), "before {}", image.before);
        for second in again {
            let found = recovered(&second.dir.path().join("t-0"), Some(Offset(END)));
            let whence = format!("before {}, {}", image.before, second.before);
            assert_eq!(&found, expected(turned), "{whence}");
        }
    }
    assert!(turned);
}

/// What was not synced may be gone, each file by itself: an fsync of files or of the directory that is missing
/// shows here.
#[test]
fn a_power_loss_anywhere_in_a_cleaning_leaves_the_log_before_or_after() {
    const SEEDS: u64 = 12;
    let log = three_segments();
    let before = records(&log);
    let journal = Journal::of(&log.dir());
    let moments = journal.moments(|| {
        faults::with(journal.hook(), || {
            try_compact(&log, 100, 0, 1 << 20).expect("compacts");
        });
    });
    let after = records(&log);
    assert!(after.len() < before.len() && moments.len() > 20);
    let last = moments.len() - 1;
    for (at, moment) in moments.iter().enumerate() {
        for seed in 0..SEEDS {
            let spare = tempfile::tempdir().expect("temp dir");
            let dir = spare.path().join("t-0");
            moment.leave(Order::Files, seed * 1000 + at as u64, &dir);
            let found = recovered(&dir, Some(Offset(END)));
            // A checkpoint may tell of a cleaning that is done: it stays done.
            let allowed = found == after || found == before && at < last;
            assert!(allowed, "before {}, {seed}: {found:?}", moment.before);
        }
    }
}

#[test]
fn a_failure_anywhere_in_a_cleaning_is_one_of_the_cleaning_or_of_the_log() {
    let (mut nth, mut refused, mut failed) = (0, 0, 0);
    loop {
        nth += 1;
        let log = three_segments();
        let before = records(&log);
        let mut left = nth;
        let full_disk = move |_: &'static str, _: &Path| {
            left -= 1;
            if left == 0 {
                Err(Errno::NOSPC.into())
            } else {
                Ok(())
            }
        };
        let outcome = faults::with(full_disk, || try_compact(&log, 100, 0, 1 << 20));
        if log.has_failed() {
            // Half way through the swap: a restart finishes it.
            failed += 1;
            assert!(outcome.is_err());
            let (log, report) = log.reopen(synced_below(END));
            assert!(!report.lost);
            assert_eq!(last_of_each(&records(&log)), last_of_each(&before));
            assert_sound_files(&log.dir());
            continue;
        }
        let was_refused = outcome.is_err();
        if was_refused {
            refused += 1;
            assert_eq!(records(&log), before, "operation {nth}");
            assert_sound_files(&log.dir());
        }
        put(&log, "later", Some("value"));
        compact(&log, 0);
        assert!(records(&log).len() < before.len(), "operation {nth}");
        if !was_refused {
            break;
        }
    }
    assert!(refused > 10 && failed > 3, "{refused} refused, {failed} failed");
}

/// The old segments must not go for a new one that is not there.
#[test]
fn a_new_segment_that_has_vanished_replaces_nothing() {
    for kind in [FileKind::Log, FileKind::OffsetIndex, FileKind::TimeIndex] {
        let log = three_segments();
        let before = records(&log);
        let thief = move |operation: &'static str, path: &Path| {
            let suffix = format!(".{}{CLEANED_SUFFIX}", kind.extension());
            if operation == "rename" && path.to_string_lossy().ends_with(&suffix) {
                fs::remove_file(path)?;
            }
            Ok(())
        };
        let outcome = faults::with(thief, || try_compact(&log, 100, 0, 1 << 20));
        assert!(outcome.is_err(), "{kind:?}: {outcome:?}");
        assert!(!log.has_failed());
        assert_eq!(records(&log), before);
        assert_sound_files(&log.dir());
        compact(&log, 0);
        assert!(records(&log).len() < before.len());
    }
}
