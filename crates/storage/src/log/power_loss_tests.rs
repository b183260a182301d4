//! What a power loss leaves of the names in a log's directory: one may be back that was removed, and another gone.

use std::{cell::RefCell, fs, path::Path, rc::Rc};

use protocol::{Offset, ProducerId};

use super::{Log, OpenOptions, crash_tests::copy};
use crate::{
    disk::{
        faults,
        power_loss::{Journal, Order},
    },
    format::FileKind,
    test_support::{TestLog, batch, lead, read_all, sequenced, small, synced_below, try_read},
};

/// Of the segments that retention deletes a power loss may bring back an old one, and none up to the log's end:
/// there is nothing to read, as at the end, until something is appended.
#[test]
fn a_hole_up_to_the_end_is_read_over_once_there_is_something_behind_it() {
    let log = TestLog::new(small());
    for sequence in 0..40 {
        lead(&log, sequenced(1, 0, sequence), 0);
    }
    log.roll(0).expect("roll");
    log.flush().expect("flush");
    let bases: Vec<_> = log.segments.load().iter().map(|segment| segment.base()).collect();
    let dir = log.dir();
    let [oldest, deleted @ .., active] = &bases[..] else {
        panic!("{bases:?}");
    };
    assert!(
        deleted.len() > 1 && *active == Offset(40),
        "{oldest} {deleted:?} {active}"
    );
    for base in deleted {
        fs::remove_file(FileKind::Log.path(&dir, *base)).expect("remove");
    }
    drop(log.log);
    let (log, report) = Log::open(&dir, small(), synced_below(40)).expect("opens");
    assert!(!report.lost);
    assert_eq!(log.log_end_offset(), Offset(40));
    let within = deleted[1].0;
    let read = try_read(&log, within, i64::MAX, 1 << 20).expect("read");
    assert_eq!((read.first, read.next_offset.0), (None, within));
    lead(&log, sequenced(1, 0, 40), 0);
    let read = try_read(&log, within, i64::MAX, 1 << 20).expect("read");
    assert_eq!((read.first, read.next_offset.0), (Some(Offset(40)), 41));
}

/// The file operations of `body`, each with the name that it is about.
fn operations_of(body: impl FnOnce()) -> Vec<String> {
    let operations = Rc::new(RefCell::new(Vec::new()));
    let seen = Rc::clone(&operations);
    let note = move |operation: &'static str, path: &Path| {
        let name = path.file_name().unwrap_or_default().display();
        seen.borrow_mut().push(format!("{operation} {name}"));
        Ok(())
    };
    faults::with(note, body);
    operations.take()
}

/// A log of four batches that are synced; the fifth is lost, and the segment that began behind it is there.
fn with_a_segment_behind_a_gap() -> TestLog {
    let log = TestLog::new(small());
    for sequence in 0..4 {
        lead(&log, sequenced(1, 0, sequence), 0);
    }
    log.flush().expect("flush");
    let synced = log.active().size();
    lead(&log, sequenced(1, 0, 4), 0);
    log.roll(0).expect("roll");
    cut(&FileKind::Log.path(&log.dir(), Offset(0)), synced);
    log
}

fn cut(path: &Path, len: u64) {
    let file = fs::OpenOptions::new().write(true).open(path).expect("open");
    file.set_len(len).expect("cut");
}

/// An empty segment is removed without a byte being cut: that it is gone must be durable before batches are
/// appended across the offset where it began.
#[test]
fn a_segment_that_recovery_removes_is_gone_for_good_before_anything_is_appended() {
    let TestLog { dir: _dir, log } = with_a_segment_behind_a_gap();
    let dir = log.dir();
    drop(log);
    let mut opened = None;
    let operations = operations_of(|| opened = Some(Log::open(&dir, small(), synced_below(4))));
    let (log, report) = opened.expect("opened").expect("opens");
    assert_eq!((log.log_end_offset(), report.lost), (Offset(4), false));
    let at = |wanted: &str| operations.iter().rposition(|operation| operation == wanted);
    let removed = at("remove 00000000000000000005.log").expect("removed");
    let synced = at("sync t-0").expect("synced");
    assert!(removed < synced, "{operations:?}");
}

/// Where it came back nevertheless, it is removed once more: kept, it would begin within a batch.
#[test]
fn a_segment_that_begins_within_the_one_before_is_removed() {
    let TestLog { dir: _dir, log } = with_a_segment_behind_a_gap();
    let dir = log.dir();
    drop(log);
    let (log, _) = Log::open(&dir, small(), synced_below(4)).expect("opens");
    let appended = lead(&log, batch(2, 1), 0);
    assert_eq!(
        (appended.first_offset, log.log_end_offset()),
        (Offset(4), Offset(6))
    );
    log.flush().expect("flush");
    drop(log);
    fs::write(FileKind::Log.path(&dir, Offset(5)), b"").expect("write");
    for recovery_point in [4, 6] {
        let (log, report) = Log::open(&dir, small(), synced_below(recovery_point)).expect("opens");
        assert!(!report.lost);
        assert_eq!((log.segment_count(), log.log_end_offset()), (1, Offset(6)));
        assert_eq!(read_all(&log, 0, 1 << 20).len(), 5, "batches");
        let last = log
            .producer(ProducerId(1))
            .and_then(|entry| entry.last_sequence());
        assert_eq!(last, Some(3));
        fs::write(FileKind::Log.path(&dir, Offset(5)), b"").expect("write");
    }
}

/// The producer snapshot where a log begins tells of batches that are deleted. A clean close writes it again.
#[test]
fn a_producer_snapshot_is_not_lost_while_it_is_written_again() {
    let log = TestLog::new(small());
    lead(&log, sequenced(1, 0, 0), 0);
    log.roll(0).expect("roll");
    log.flush().expect("flush");
    log.advance_log_start(Offset(1)).expect("advance");
    let journal = Journal::of(&log.dir());
    let moments = journal.moments(|| faults::with(journal.hook(), || log.close(true).expect("close")));
    assert!(moments.len() > 3, "{moments:?}");
    for moment in &moments {
        for seed in 0..20 {
            let dir = tempfile::tempdir().expect("temp dir");
            let path = dir.path().join("t-0");
            moment.leave(Order::Files, seed, &path);
            let options = OpenOptions {
                log_start_offset: Offset(1),
                ..synced_below(1)
            };
            let (log, _) = Log::open(&path, small(), options).expect("opens");
            let last = log
                .producer(ProducerId(1))
                .and_then(|entry| entry.last_sequence());
            assert_eq!(last, Some(0), "before {}, seed {seed}", moment.before);
        }
    }
}

/// A start removes the producer snapshot of an end that was lost. Whoever starts after it finds nothing to remove,
/// and must sync all the same what it was left.
#[test]
fn what_a_start_has_removed_is_gone_for_good_with_the_flush_of_a_later_one() {
    let TestLog { dir: _dir, log } = TestLog::new(small());
    lead(&log, batch(1, 1), 0);
    log.flush().expect("flush");
    let synced = log.active().size();
    lead(&log, batch(1, 1), 0);
    log.close(true).expect("close");
    let dir = log.dir();
    drop(log);
    cut(&FileKind::Log.path(&dir, Offset(0)), synced);
    let snapshot = FileKind::ProducerSnapshot.path(&dir, Offset(2));
    assert!(snapshot.exists());
    drop(Log::open(&dir, small(), synced_below(1)).expect("opens"));
    assert!(!snapshot.exists());
    let (log, _) = Log::open(&dir, small(), synced_below(1)).expect("opens");
    lead(&log, sequenced(1, 0, 0), 0);
    let operations = operations_of(|| assert_eq!(log.flush().expect("flush"), Offset(2)));
    assert!(
        operations.iter().any(|operation| operation == "sync t-0"),
        "{operations:?}"
    );
}

/// Checkpoints are written every few seconds: one from before a truncation says that more is synced than there is.
#[test]
fn a_checkpoint_from_before_a_truncation_is_not_believed() {
    let TestLog { dir: _dir, log } = TestLog::new(small());
    for sequence in 0..10 {
        lead(&log, sequenced(1, 0, sequence), 0);
    }
    log.flush().expect("flush");
    let checkpoint = synced_below(10);
    log.truncate_to(Offset(6)).expect("truncate");
    for sequence in 6..8 {
        lead(&log, sequenced(1, 0, sequence), 1);
    }
    log.flush().expect("flush");
    let synced = log.active().size();
    lead(&log, sequenced(1, 0, 8), 1);
    lead(&log, sequenced(1, 0, 9), 1);
    let (dir, active) = (log.dir(), log.active().path(FileKind::Log));
    let size = log.active().size();
    drop(log);
    let elsewhere = tempfile::tempdir().expect("temp dir");
    let before = elsewhere.path().join("t-0");
    copy(&dir, &before);

    // The process was killed: what was never synced is synced before it counts as durable.
    let mut opened = None;
    let operations = operations_of(|| opened = Some(Log::open(&dir, small(), checkpoint)));
    let (log, report) = opened.expect("opened").expect("opens");
    let name = active.file_name().expect("name").display().to_string();
    assert!(operations.contains(&format!("sync {name}")), "{operations:?}");
    assert_eq!((log.durable_offset(), report.lost), (Offset(10), false));
    drop(log);

    // The power failed: of the two last batches there are a header, and zeroes in the body's place.
    let active = before.join(name);
    cut(&active, synced + 62);
    fs::OpenOptions::new()
        .write(true)
        .open(&active)
        .and_then(|file| file.set_len(size))
        .expect("zeroes");
    let (log, report) = Log::open(&before, small(), checkpoint).expect("nothing synced is damaged");
    assert_eq!(log.log_end_offset(), Offset(8));
    assert_eq!(read_all(&log, 0, 1 << 20).len(), 8);
    assert!(report.lost, "that was a whole header once");
}

/// Nobody knows a recovery point of a log that is younger than the last checkpoint. Its second segment
/// may be on the disk, and the end of its first one not.
#[test]
fn a_young_log_that_lost_the_end_of_its_first_segment_ends_there() {
    for torn in [false, true] {
        let TestLog { dir: _dir, log } = with_a_segment_behind_a_gap();
        let dir = log.dir();
        if torn {
            let first = FileKind::Log.path(&dir, Offset(0));
            cut(&first, fs::metadata(&first).expect("stat").len() + 5);
        }
        drop(log);
        let (log, report) = Log::open(&dir, small(), OpenOptions::default()).expect("opens");
        assert_eq!((log.log_end_offset(), log.segment_count()), (Offset(4), 1));
        assert!(!report.lost);
    }
}

/// A log without checkpoints, such as a controller's, never has a hole: what lies before a segment is synced first.
#[test]
fn a_log_that_is_alone_is_synced_up_to_its_last_segment() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("t-0");
    let options = OpenOptions {
        is_alone: true,
        ..OpenOptions::default()
    };
    let (log, _) = Log::open(&path, small(), options).expect("opens");
    lead(&log, sequenced(1, 0, 0), 0);
    log.flush().expect("flush");
    let journal = Journal::of(&path);
    let moments = journal.moments(|| {
        faults::with(journal.hook(), || {
            for sequence in 1..4 {
                lead(&log, sequenced(1, 0, sequence), 0);
                log.roll(0).expect("roll");
            }
            lead(&log, sequenced(1, 0, 4), 0);
            log.flush().expect("flush");
        });
    });
    let mut ends = Vec::new();
    for (moment, seed) in moments.iter().zip(0..) {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("t-0");
        moment.leave(Order::Files, seed, &path);
        let (log, report) = Log::open(&path, small(), options)
            .unwrap_or_else(|error| panic!("before {}: {error}", moment.before));
        assert!(!report.lost, "before {}", moment.before);
        let held = read_all(&log, 0, 1 << 20);
        assert_eq!(
            held.len() as i64,
            log.log_end_offset().0,
            "before {}",
            moment.before
        );
        ends.push(log.log_end_offset().0);
    }
    assert!(ends.contains(&1) && ends.last() == Some(&5), "{ends:?}");
}

/// DeleteRecords took three segments, and the name of the oldest came back: it lies below the start, and what was
/// acknowledged behind the hole stays.
#[test]
fn what_a_deletion_leaves_is_not_a_lost_end() {
    let TestLog { dir: _dir, log } = TestLog::new(small());
    let mut bases = Vec::new();
    for sequence in 0..35 {
        if sequence % 10 == 0 {
            log.roll(0).expect("roll");
            bases.push(log.active().base());
        }
        lead(&log, sequenced(1, 0, sequence), 0);
    }
    log.flush().expect("flush");
    let dir = log.dir();
    let oldest = FileKind::Log.path(&dir, bases[0]);
    let bytes = fs::read(&oldest).expect("read");
    log.advance_log_start(Offset(30)).expect("advance");
    drop(log);
    fs::write(&oldest, bytes).expect("write");
    // The last checkpoint is from when there was one segment.
    let (log, report) = Log::open(&dir, small(), synced_below(10)).expect("opens");
    assert_eq!(
        (log.log_start_offset(), log.log_end_offset(), report.lost),
        (Offset(30), Offset(35), false)
    );
    let held = read_all(&log, 30, 1 << 20);
    assert_eq!(held.len(), 5);
}

/// A controller that installs a snapshot begins its log anew beyond the old one. Stopped on the way, it has lost nothing.
#[test]
fn a_new_beginning_that_is_interrupted_is_no_loss() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("t-0");
    let options = OpenOptions {
        is_alone: true,
        ..OpenOptions::default()
    };
    let (log, _) = Log::open(&path, small(), options).expect("opens");
    for sequence in 0..6 {
        lead(&log, sequenced(1, 0, sequence), 0);
        if sequence % 2 == 1 {
            log.roll(0).expect("roll");
        }
    }
    lead(&log, sequenced(1, 0, 6), 0);
    log.flush().expect("flush");
    log.advance_log_start(Offset(3)).expect("advance");
    let journal = Journal::of(&path);
    let moments = journal.moments(|| {
        faults::with(journal.hook(), || {
            log.truncate_fully_and_start_at(Offset(100)).expect("begins anew");
        });
    });
    assert!(moments.len() > 5, "{moments:?}");
    for moment in &moments {
        for seed in 0..10 {
            let dir = tempfile::tempdir().expect("temp dir");
            let path = dir.path().join("t-0");
            moment.leave(Order::Directory, seed, &path);
            let options = OpenOptions {
                log_start_offset: Offset(3),
                ..options
            };
            let (_, report) = Log::open(&path, small(), options)
                .unwrap_or_else(|error| panic!("before {}: {error}", moment.before));
            assert!(!report.lost, "before {}, seed {seed}", moment.before);
        }
    }
}

/// Once a loss is told the log is what it is: the next start does not tell it again, and takes no damage for synced.
#[test]
fn a_log_that_lost_its_end_goes_by_what_is_left() {
    let TestLog { dir: _dir, log } = TestLog::new(small());
    lead(&log, batch(1, 1), 0);
    log.roll(0).expect("roll");
    for _ in 1..10 {
        lead(&log, batch(1, 1), 0);
    }
    log.flush().expect("flush");
    log.advance_log_start(Offset(1)).expect("advance");
    let (dir, active) = (log.dir(), log.active().path(FileKind::Log));
    let of_one = log.active().size() / 9;
    drop(log);
    cut(&active, of_one * 7);
    let (log, report) = Log::open(&dir, small(), synced_below(10)).expect("opens");
    assert_eq!((log.log_end_offset(), report.lost), (Offset(8), true));
    drop(log);
    let (log, report) = Log::open(&dir, small(), synced_below(8)).expect("opens");
    assert_eq!((log.log_end_offset(), report.lost), (Offset(8), false));
    lead(&log, batch(1, 1), 0);
    log.flush().expect("flush");
    lead(&log, batch(1, 1), 0);
    drop(log);
    cut(&active, of_one * 9 - 3);
    let (log, report) = Log::open(&dir, small(), synced_below(8)).expect("a torn tail");
    assert_eq!((log.log_end_offset(), report.lost), (Offset(9), false));
}
