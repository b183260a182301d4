//! Crashes and failures at each single file operation of a log.
//!
//! A crash is an image of the log's directory just before the operation; each image is opened and must
//! hold what the log had promised by then. A failure is the operation's error; the log must stay usable,
//! or say that it has failed, as the operation demands.

use std::{
    cell::{Cell, RefCell},
    fs, io,
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use protocol::{LeaderEpoch, Offset, ProducerId};
use rustix::io::Errno;

use super::{Log, OpenOptions};
use crate::{
    AppendError, LogConfig, StorageError,
    disk::faults,
    format::FileKind,
    test_support::{TestLog, batch, lead, read_all, sequenced, small, synced_below, try_lead},
};

/// The directory of a log as a crash would leave it, and where that happened.
pub(super) struct Image {
    pub(super) dir: tempfile::TempDir,
    pub(super) before: String,
}

pub(super) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("create");
    for entry in fs::read_dir(from).expect("list") {
        let path = entry.expect("entry").path();
        fs::copy(&path, to.join(path.file_name().expect("name"))).expect("copy");
    }
}

/// Takes an image of the log before each operation of `body`, and one after the last.
pub(super) fn images(log: &Log, body: impl FnOnce()) -> Vec<Image> {
    images_of(&log.dir(), body)
}

/// As [`images`], of a log's directory.
pub(super) fn images_of(dir: &Path, body: impl FnOnce()) -> Vec<Image> {
    let images = Rc::new(RefCell::new(Vec::new()));
    let taken = Rc::clone(&images);
    let from = dir.to_owned();
    let take = move |before: String| {
        let dir = tempfile::tempdir().expect("temp dir");
        copy(&from, &dir.path().join("t-0"));
        taken.borrow_mut().push(Image { dir, before });
    };
    let last = take.clone();
    faults::with(
        move |operation, path| {
            take(format!(
                "{operation} {}",
                path.file_name().unwrap_or_default().display()
            ));
            Ok(())
        },
        body,
    );
    last("the end".to_owned());
    images.take()
}

fn open(image: &Image, recovery_point: i64) -> (Log, crate::RecoveryReport) {
    Log::open(
        &image.dir.path().join("t-0"),
        small(),
        synced_below(recovery_point),
    )
    .unwrap_or_else(|error| panic!("before {}: {error}", image.before))
}

#[test]
fn a_crash_anywhere_in_a_roll_loses_nothing() {
    let log = TestLog::new(small());
    for sequence in 0..5 {
        lead(&log, sequenced(1, 0, sequence), 2);
    }
    log.flush().expect("flush");
    let images = images(&log, || {
        log.roll(0).expect("roll");
        lead(&log, sequenced(1, 0, 5), 3);
        log.flush().expect("flush");
    });
    assert!(images.len() > 8, "{}", images.len());
    let mut last_end = 0;
    for image in &images {
        let (log, report) = open(image, 5);
        assert!(!report.lost, "before {}", image.before);
        let end = log.log_end_offset().0;
        assert!((5..=6).contains(&end), "before {}", image.before);
        assert_eq!(read_all(&log, 0, 1 << 20).len() as i64, end);
        last_end = end;
        let last = log
            .producer(ProducerId(1))
            .and_then(|entry| entry.last_sequence());
        assert_eq!(last, Some(end as i32 - 1), "before {}", image.before);
        lead(&log, sequenced(1, 0, end as i32), 3);
    }
    assert_eq!(last_end, 6);
}

#[test]
fn a_crash_anywhere_in_a_truncation_leaves_a_prefix_and_never_brings_batches_back() {
    let log = TestLog::new(small());
    for sequence in 0..40 {
        lead(&log, sequenced(1, 0, sequence), sequence / 10);
    }
    log.flush().expect("flush");
    assert!(log.segment_count() > 2);
    let written = read_all(&log, 0, 1 << 20);
    let images = images(&log, || log.truncate_to(Offset(7)).expect("truncate"));
    assert!(images.len() > 6, "{}", images.len());
    for image in &images {
        let (log, _) = open(image, 7);
        let end = log.log_end_offset().0 as usize;
        assert!((7..=40).contains(&end), "before {}", image.before);
        assert_eq!(
            read_all(&log, 0, 1 << 20),
            written[..end],
            "before {}",
            image.before
        );
        let last = log
            .producer(ProducerId(1))
            .and_then(|entry| entry.last_sequence());
        assert_eq!(last, Some(end as i32 - 1), "before {}", image.before);
    }
    let (last, _) = open(&images[images.len() - 1], 7);
    assert_eq!(last.log_end_offset(), Offset(7));

    // What is appended next, and nothing of what was truncated, survives every crash from here on.
    let images = self::images(&log, || {
        for sequence in 7..30 {
            lead(&log, sequenced(1, 0, sequence), 9);
        }
        log.flush().expect("flush");
    });
    for image in &images {
        let (log, report) = open(image, 7);
        assert!(!report.lost, "before {}", image.before);
        for &(base, _, epoch) in &read_all(&log, 0, 1 << 20)[7..] {
            assert_eq!(epoch, 9, "offset {base}, before {}", image.before);
        }
        assert_eq!(
            log.end_offset_for_epoch(LeaderEpoch(0)),
            Some((LeaderEpoch(0), Offset(7)))
        );
    }
}

#[test]
fn a_crash_anywhere_in_a_new_beginning_leaves_the_old_log_or_the_new() {
    let log = TestLog::new(small());
    for sequence in 0..40 {
        lead(&log, sequenced(1, 0, sequence), 0);
    }
    let written = read_all(&log, 0, 1 << 20);
    let images = images(&log, || {
        log.truncate_fully_and_start_at(Offset(100)).expect("start anew");
    });
    for image in &images {
        let (log, _) = open(image, 0);
        let start = log.log_start_offset().0;
        assert!(start == 0 || start == 100, "before {}", image.before);
        if start == 0 {
            assert_eq!(
                read_all(&log, 0, 1 << 20),
                written[..log.log_end_offset().0 as usize]
            );
        } else {
            assert_eq!(
                (log.log_end_offset(), log.producer(ProducerId(1))),
                (Offset(100), None)
            );
        }
    }
}

#[test]
fn a_crash_anywhere_in_retention_loses_only_what_is_deleted() {
    let log = TestLog::new(small());
    for sequence in 0..40 {
        lead(&log, sequenced(1, 0, sequence), sequence / 10);
    }
    log.flush().expect("flush");
    let images = images(&log, || {
        log.advance_log_start(Offset(25)).expect("advance");
        log.flush().expect("flush");
    });
    for image in &images {
        for log_start_offset in [Offset(0), Offset(25)] {
            let options = OpenOptions {
                log_start_offset,
                ..synced_below(40)
            };
            let (log, report) = Log::open(&image.dir.path().join("t-0"), small(), options)
                .unwrap_or_else(|error| panic!("before {}: {error}", image.before));
            assert!(!report.lost, "before {}", image.before);
            assert!(log.log_start_offset() <= Offset(25), "before {}", image.before);
            let held = read_all(&log, log.log_start_offset().0, 1 << 20);
            assert_eq!(held.last().map(|last| last.1), Some(39));
            let last = log
                .producer(ProducerId(1))
                .and_then(|entry| entry.last_sequence());
            assert_eq!(last, Some(39), "before {}", image.before);
        }
    }
}

/// A segment that comes back has its transaction index, or records of aborted transactions would count.
#[test]
fn a_crash_in_a_truncation_leaves_no_segment_without_its_transaction_index() {
    let log = TestLog::new(small());
    for sequence in 0..40 {
        lead(&log, sequenced(1, 0, sequence), 0);
    }
    log.flush().expect("flush");
    let bases: Vec<_> = log.segments.load().iter().map(|segment| segment.base()).collect();
    for &base in &bases {
        fs::write(FileKind::TransactionIndex.path(&log.dir(), base), b"").expect("write");
    }
    let images = images(&log, || log.truncate_to(Offset(2)).expect("truncate"));
    let mut left = Vec::new();
    for image in &images {
        let dir = image.dir.path().join("t-0");
        let (with_log, with_index): (Vec<_>, Vec<_>) = (
            bases
                .iter()
                .filter(|&&base| FileKind::Log.path(&dir, base).exists())
                .collect(),
            bases
                .iter()
                .filter(|&&base| FileKind::TransactionIndex.path(&dir, base).exists())
                .collect(),
        );
        assert!(
            with_index.starts_with(&with_log),
            "before {}: {with_log:?}",
            image.before
        );
        left.push(with_log.len());
    }
    assert!(left.contains(&2) && left.contains(&(bases.len() - 1)), "{left:?}");
}

/// What retention could not rename is not forgotten: nobody else would delete it before the next start.
#[test]
fn a_deletion_that_fails_half_way_is_finished_later() {
    let log = TestLog::new(small());
    for sequence in 0..40 {
        lead(&log, sequenced(1, 0, sequence), 0);
    }
    log.flush().expect("flush");
    let refused = Cell::new(false);
    let full = move |operation: &'static str, path: &Path| {
        let is_second = operation == "rename" && !path.ends_with("00000000000000000000.log");
        if is_second && path.extension().is_some_and(|kind| kind == "log") && !refused.replace(true) {
            return Err(Errno::NOSPC.into());
        }
        Ok(())
    };
    let deleted = faults::with(full, || log.advance_log_start(Offset(40)));
    assert!(deleted.is_err());
    assert_eq!(log.log_start_offset(), Offset(40));
    let logs = || {
        let entries = fs::read_dir(log.dir()).expect("list");
        let paths = entries.map(|entry| entry.expect("entry").path());
        paths
            .filter(|path| path.extension().is_some_and(|kind| kind == "log"))
            .count()
    };
    assert!(logs() > 1);
    log.remove_deleted();
    assert_eq!(logs(), 1);
}

/// Nor does it take a segment that begins where one of them began.
#[test]
fn a_deletion_that_failed_does_not_reach_a_log_that_begins_anew() {
    let TestLog { dir: _dir, log } = TestLog::new(small());
    for sequence in 0..40 {
        lead(&log, sequenced(1, 0, sequence), 0);
    }
    log.flush().expect("flush");
    let second = log.segments.load()[1].base();
    let refuse = |operation: &'static str, _: &Path| match operation {
        "rename" => Err(Errno::NOSPC.into()),
        _ => Ok(()),
    };
    assert!(faults::with(refuse, || log.advance_log_start(Offset(40))).is_err());
    log.truncate_fully_and_start_at(second).expect("begins anew");
    lead(&log, sequenced(1, 0, 40), 1);
    log.flush().expect("flush");
    log.remove_deleted();
    let dir = log.dir();
    drop(log);
    let (log, report) = Log::open(&dir, small(), synced_below(second.0)).expect("opens");
    assert_eq!((log.log_end_offset(), report.lost), (second.next(), false));
    assert_eq!(read_all(&log, second.0, 1 << 20).len(), 1);
}

/// Retention may have hundreds of files to rename and to unlink: whoever appends must not wait for one of
/// them.
#[test]
fn retention_stops_no_append() {
    let TestLog { dir: _dir, log } = TestLog::new(LogConfig {
        retention_bytes: Some(1500),
        ..small()
    });
    let log = Arc::new(log);
    for sequence in 0..60 {
        lead(&log, sequenced(1, 0, sequence), 0);
    }
    log.flush().expect("flush");
    let (beside, next) = (Arc::clone(&log), Rc::new(Cell::new(60)));
    let appended = Rc::clone(&next);
    let append = move |_: &'static str, _: &Path| {
        let (log, sequence) = (Arc::clone(&beside), appended.get());
        let (done, is_done) = std::sync::mpsc::channel();
        let appending = std::thread::spawn(move || {
            lead(&log, sequenced(1, 0, sequence), 0);
            log.flush().expect("flush");
            let _ = done.send(());
        });
        is_done
            .recv_timeout(Duration::from_secs(60))
            .expect("an append passes whatever is renamed or removed");
        appending.join().expect("appended");
        appended.set(sequence + 1);
        Ok(())
    };
    let deleted = faults::with(append, || {
        log.advance_log_start(Offset(17)).expect("advance");
        log.delete_expired(0, Offset(60)).expect("retention")
    });
    assert!(
        deleted > 0 && next.get() > 80,
        "{deleted} segments, {}",
        next.get()
    );
    assert_eq!(log.log_end_offset(), Offset(i64::from(next.get())));
    let start = log.log_start_offset();
    assert_eq!(
        read_all(&log, start.0, 1 << 20).len() as i64,
        i64::from(next.get()) - start.0
    );
}

#[test]
fn a_crash_anywhere_in_a_clean_close_is_an_unclean_stop() {
    let log = TestLog::new(small());
    for sequence in 0..12 {
        lead(&log, sequenced(1, 0, sequence), 4);
    }
    for image in images(&log, || log.close(true).expect("close")) {
        for clean_shutdown in [false, true] {
            let options = OpenOptions {
                clean_shutdown,
                ..synced_below(0)
            };
            let (log, report) = Log::open(&image.dir.path().join("t-0"), small(), options)
                .unwrap_or_else(|error| panic!("before {}: {error}", image.before));
            assert_eq!(
                (report.lost, log.log_end_offset()),
                (false, Offset(12)),
                "before {}",
                image.before
            );
            assert_eq!(log.latest_epoch(), Some(LeaderEpoch(4)));
            let last = log
                .producer(ProducerId(1))
                .and_then(|entry| entry.last_sequence());
            assert_eq!(last, Some(11), "before {}", image.before);
        }
    }
}

/// Lets the `nth` operation of a kind, on files that end like this, fail.
fn failing(
    kind: &'static str,
    ending: &'static str,
    nth: usize,
    errno: Errno,
) -> impl FnMut(&'static str, &Path) -> io::Result<()> {
    let mut seen = 0;
    move |operation: &'static str, path: &Path| {
        if operation == kind && path.to_string_lossy().ends_with(ending) {
            seen += 1;
            if seen == nth {
                return Err(errno.into());
            }
        }
        Ok(())
    }
}

#[test]
fn a_full_disk_refuses_the_write_and_nothing_else() {
    let log = TestLog::new(small());
    lead(&log, batch(3, 20), 0);
    let refused = faults::with(failing("write", ".log", 1, Errno::NOSPC), || {
        try_lead(&log, batch(3, 20), 0)
    });
    assert!(
        matches!(refused, Err(AppendError::Storage(StorageError::NoSpace { .. }))),
        "{refused:?}"
    );
    assert_eq!(log.log_end_offset(), Offset(3));
    let on_disk = fs::metadata(log.dir().join("00000000000000000000.log"))
        .expect("stat")
        .len();
    assert_eq!(on_disk, log.size_bytes(), "the half that was written is cut back");
    assert_eq!(read_all(&log, 0, 1 << 20).len(), 1);
    // Service resumes without a restart.
    lead(&log, batch(3, 20), 0);
    assert_eq!(log.flush().expect("flush"), Offset(6));
}

#[test]
fn a_roll_that_finds_no_space_or_descriptor_refuses_the_append() {
    for (kind, ending, errno) in [
        ("create", ".log", Errno::MFILE),
        ("create", ".log", Errno::NOSPC),
        ("write", ".snapshot", Errno::NOSPC),
        ("write", ".index", Errno::MFILE),
    ] {
        let log = TestLog::new(small());
        while log.size_bytes() < 900 {
            lead(&log, batch(1, 50), 0);
        }
        let end = log.log_end_offset();
        let refused = faults::with(failing(kind, ending, 1, errno), || {
            try_lead(&log, batch(1, 100), 0)
        });
        let Err(AppendError::Storage(error)) = refused else {
            panic!("{refused:?}")
        };
        assert!(error.is_exhaustion(), "{error}");
        assert_eq!((log.log_end_offset(), log.segment_count()), (end, 1));
        lead(&log, batch(1, 100), 0);
        assert_eq!(log.segment_count(), 2);
        assert_eq!(log.flush().expect("flush"), end.next());
    }
}

#[test]
fn a_flush_without_descriptors_is_tried_again() {
    let log = TestLog::new(small());
    for _ in 0..30 {
        lead(&log, batch(1, 50), 0);
    }
    for (kind, ending) in [
        ("replace", "leader-epoch-checkpoint"),
        ("open", ".index"),
        ("open", ".snapshot"),
        ("open", "t-0"),
    ] {
        let failed = faults::with(failing(kind, ending, 1, Errno::MFILE), || log.flush());
        assert!(failed.is_err_and(|error| error.is_exhaustion()), "{ending}");
        assert_eq!(
            (log.durable_offset(), log.recovery_point()),
            (Offset(0), Offset(0)),
            "{ending}"
        );
    }
    assert_eq!(log.flush().expect("flush"), Offset(30));
    let (log, report) = log.reopen(synced_below(30));
    assert_eq!((log.log_end_offset(), report.lost), (Offset(30), false));
}

#[test]
fn a_failed_fsync_is_for_good() {
    let log = TestLog::new(small());
    lead(&log, batch(1, 50), 0);
    let failed = faults::with(failing("sync", ".log", 1, Errno::IO), || log.flush());
    assert!(matches!(failed, Err(StorageError::Failed { .. })));
    assert_eq!(log.durable_offset(), Offset(0));
    assert!(matches!(log.flush(), Err(StorageError::Failed { .. })));
    assert!(matches!(
        try_lead(&log, batch(1, 50), 0),
        Err(AppendError::Storage(StorageError::Failed { .. }))
    ));
    assert!(matches!(
        log.truncate_to(Offset(0)),
        Err(StorageError::Failed { .. })
    ));
    let read = log.read(crate::ReadRequest {
        from: Offset(0),
        upper: Offset(1),
        max_bytes: 1,
        min_one_batch: true,
    });
    assert!(matches!(read, Err(StorageError::Failed { .. })));
    // A restart finds out what the disk really holds.
    let (log, _) = log.reopen(synced_below(0));
    assert_eq!(log.log_end_offset(), Offset(1));
}

#[test]
fn a_truncation_that_fails_half_way_is_for_good_and_recovers() {
    for (kind, ending) in [
        ("remove", ".log"),
        ("truncate", ".log"),
        ("sync", ".log"),
        ("sync", "t-0"),
    ] {
        let log = TestLog::new(small());
        for sequence in 0..40 {
            lead(&log, sequenced(1, 0, sequence), 0);
        }
        log.flush().expect("flush");
        let failed = faults::with(failing(kind, ending, 1, Errno::IO), || log.truncate_to(Offset(7)));
        assert!(
            matches!(failed, Err(StorageError::Failed { .. })),
            "{kind} {ending}"
        );
        assert_eq!(log.durable_offset(), Offset(7));
        let (log, _) = log.reopen(synced_below(7));
        assert!(log.log_end_offset() >= Offset(7));
        log.truncate_to(Offset(7)).expect("now");
        assert_eq!(read_all(&log, 0, 1 << 20).len(), 7);
    }
}

#[test]
fn a_truncation_that_cannot_begin_changes_nothing() {
    let log = TestLog::new(small());
    for sequence in 0..40 {
        lead(&log, sequenced(1, 0, sequence), 0);
    }
    log.flush().expect("flush");
    let generation = log.generation();
    let refused = faults::with(failing("open", "t-0", 1, Errno::MFILE), || {
        log.truncate_to(Offset(7))
    });
    assert!(refused.is_err_and(|error| error.is_exhaustion()));
    assert_eq!((log.log_end_offset(), log.generation()), (Offset(40), generation));
    lead(&log, sequenced(1, 0, 40), 0);
    let path: PathBuf = log.dir();
    assert!(path.exists());
}

/// A flush of an older generation publishes nothing: the truncation comes while the flush is at the disk.
#[test]
fn a_flush_that_a_truncation_crosses_publishes_nothing() {
    let TestLog { dir: _dir, log } = TestLog::new(small());
    let log = Arc::new(log);
    for _ in 0..4 {
        lead(&log, batch(1, 50), 0);
    }
    let crossing = Arc::clone(&log);
    let mut crossed = false;
    let durable = faults::with(
        move |operation, path| {
            if operation == "sync" && path.to_string_lossy().ends_with(".log") && !crossed {
                crossed = true;
                // On another thread, as it happens, so that the hook does not meet itself.
                let log = Arc::clone(&crossing);
                let truncation = std::thread::spawn(move || {
                    log.truncate_to(Offset(2)).expect("truncate");
                    lead(&log, batch(3, 50), 1);
                });
                truncation.join().expect("truncated");
            }
            Ok(())
        },
        || log.flush(),
    );
    assert_eq!(durable.expect("flushed"), Offset(0));
    assert_eq!(
        (log.durable_offset(), log.log_end_offset()),
        (Offset(0), Offset(5))
    );
    assert_eq!(log.flush().expect("flush"), Offset(5));
}
