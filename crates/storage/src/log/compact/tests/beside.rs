//! Readers and writers beside a cleaning.

use std::sync::{Arc, atomic::AtomicI64};

use super::*;
use crate::ReadRequest;

/// Tells the others, also when it panics, that a thread is done.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Whoever has a segment goes on reading it, also after it was replaced.
#[test]
fn readers_of_replaced_segments_are_not_disturbed() {
    let log = TestLog::new(config());
    for _ in 0..20 {
        put(&log, "a", Some("x"));
    }
    log.roll(0).expect("roll");
    // Notes where the read ended, for the next one.
    let some = |from| {
        log.read(ReadRequest {
            from: Offset(from),
            upper: Offset(100),
            max_bytes: 200,
            min_one_batch: true,
        })
    };
    let old = log.segments.load_full();
    assert_eq!(some(0).expect("read").first, Some(Offset(0)));
    compact(&log, 0);
    // What was in the hole is not waited for, and a hint of the old segment is not followed.
    for from in 1..20 {
        let read = some(from).expect("read");
        let first = read.first.expect("the last batch of each segment stays");
        assert!(
            first.0 >= from && read.next_offset == first.next(),
            "{from}: {first}"
        );
    }
    for segment in &old[..old.len() - 1] {
        let file = segment.file().expect("pinned");
        let size = file.metadata().expect("stat").len();
        assert_eq!(size, segment.size());
        segment
            .with_indexes(|indexes| assert!(indexes.position_for(Offset(19)) < size))
            .expect("pinned");
    }
}

/// Old or new, never a mix: every walk from the beginning meets, of each key, ever larger values up to
/// at least the one that was the last when the walk began.
#[test]
fn walks_beside_cleanings_miss_nothing() {
    const KEYS: i64 = 7;
    const RECORDS: i64 = 1500;
    let log = TestLog::new(LogConfig {
        segment_bytes: 4000,
        ..config()
    });
    let (written, all_written) = (AtomicI64::new(0), AtomicBool::new(false));
    let number = |text: &[u8]| -> i64 {
        let text = std::str::from_utf8(text).expect("digits");
        text.parse().expect("digits")
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _done = Done(&all_written);
            for i in 0..RECORDS {
                put(&log, &(i % KEYS).to_string(), Some(&i.to_string()));
                written.store(i + 1, Ordering::Release);
                if i % 50 == 0 {
                    log.flush().expect("flush");
                }
            }
        });
        scope.spawn(|| {
            while !all_written.load(Ordering::Acquire) {
                let end = log.log_end_offset().0;
                try_compact(&log, end, 0, 1 << 20).expect("compacts");
            }
        });
        scope.spawn(|| {
            let mut last_walk = false;
            while !last_walk {
                last_walk = all_written.load(Ordering::Acquire);
                let before = written.load(Ordering::Acquire);
                let mut last = [-1; KEYS as usize];
                for record in records(&log) {
                    let key = number(&record.key.expect("keyed")) as usize;
                    let value = number(&record.value.expect("no tombstone"));
                    assert!(value > last[key]);
                    last[key] = value;
                }
                for i in (before - KEYS).max(0)..before {
                    assert!(last[(i % KEYS) as usize] >= i, "{i} of {before}: {last:?}");
                }
            }
        });
    });
    log.roll(0).expect("roll");
    compact(&log, 0);
    assert_eq!(offsets(&log), (RECORDS - KEYS..RECORDS).collect::<Vec<_>>());
    assert_sound_files(&log.dir());
}

/// Runs `body` with `log`'s start moved to `start`, by another thread, just before the `nth` operation of this
/// thread that opens a `.log`.
fn trimming<T>(log: &Arc<Log>, nth: usize, start: i64, body: impl FnOnce() -> T) -> T {
    let (log, mut seen) = (Arc::clone(log), 0);
    let trim = move |operation: &'static str, path: &Path| {
        if operation == "open" && path.extension().is_some_and(|extension| extension == "log") {
            seen += 1;
            if seen == nth {
                let log = Arc::clone(&log);
                let trimming = std::thread::spawn(move || log.advance_log_start(Offset(start)));
                trimming.join().expect("no panic").expect("advance");
            }
        }
        Ok(())
    };
    crate::disk::faults::with(trim, body)
}

/// What a cleaning finds gone because retention, or DeleteRecords, has taken it, says nothing about the log:
/// it begins again at once.
#[test]
fn a_start_that_moves_interrupts_a_cleaning() {
    for nth in 1..=4 {
        let TestLog { dir: _dir, log } = TestLog::new(config());
        let log = Arc::new(log);
        for i in 0..60 {
            put(&log, &format!("k{}", i % 7), Some("x"));
        }
        log.roll(0).expect("roll");
        log.flush().expect("flush");
        assert!(log.segment_count() > 4);
        let cleaned = trimming(&log, nth, 50, || try_compact(&log, 100, 0, 1 << 20));
        assert!(
            matches!(cleaned, Err(CompactError::Interrupted)),
            "{nth}: {cleaned:?}"
        );
        assert!(!log.has_failed());
        let left = |log: &Log| {
            let offsets = offsets(log).into_iter();
            offsets.filter(|&offset| offset >= 50).collect::<Vec<_>>()
        };
        assert_eq!(left(&log), (50..60).collect::<Vec<_>>());
        compact(&log, 0);
        assert_eq!(left(&log), (53..60).collect::<Vec<_>>());
        assert_sound_files(&log.dir());
    }
}

/// Nor does what is found out about it before.
#[test]
fn how_dirty_a_log_is_can_be_said_while_its_start_moves() {
    let TestLog { dir: _dir, log } = TestLog::new(LogConfig {
        max_compaction_lag: Some(std::time::Duration::from_secs(1)),
        ..config()
    });
    let log = Arc::new(log);
    for _ in 0..60 {
        put(&log, "k", Some("x"));
    }
    log.roll(0).expect("roll");
    log.flush().expect("flush");
    let dirtiness = trimming(&log, 1, 50, || log.dirtiness(Offset(60), 0)).expect("known");
    assert_eq!(
        (dirtiness.first_dirty, dirtiness.first_uncleanable),
        (Offset(50), Offset(60))
    );
}
