//! A partition directory as a crash, a bad disk or somebody's hands may leave it.
//!
//! ```text
//! flags u8 | entries of the offset index u8 | entries of the time index u8
//!   | offset index | time index | segment file
//! ```
//! Flags: 1 put the batches' checksums right, 2 closed cleanly, 4 synced below offset 3, 8 with an
//! epoch checkpoint.

use std::{fs, path::Path};

use bytes::Bytes;
use protocol::{
    LeaderEpoch, Offset,
    batch::{self, BatchBuilder, Batches},
};
use storage::{
    AppendOutcome, LeaderAppend, Log, LogConfig, OpenOptions, ReadRequest, RecoveryReport, StorageError,
    dump::{DumpError, DumpOptions, DumpSummary, dump_segment},
    format::{EPOCH_CHECKPOINT_FILE, FileKind, OffsetEntry, TimeEntry},
};

const FIX_CHECKSUMS: u8 = 1;
const CLEAN: u8 = 2;
const SYNCED: u8 = 4;
const EPOCHS: u8 = 8;
const NOW_MS: i64 = 1_700_000_000_000;

/// Prints and opens the directory that `data` describes: the log comes up or says why not; what it
/// then holds is in order and can be read; it takes a batch, is the same after it was closed and
/// opened, and its files print as sound.
///
/// # Panics
/// When that is not so, or when the machine refuses temporary files.
pub fn run(data: &[u8]) {
    let Some((&[flags, offsets, times], rest)) = data.split_first_chunk() else {
        return;
    };
    let (index, rest) = split(rest, usize::from(offsets) * OffsetEntry::LEN);
    let (time_index, rest) = split(rest, usize::from(times) * TimeEntry::LEN);
    let mut segment = rest.to_vec();
    if flags & FIX_CHECKSUMS != 0 {
        fix_checksums(&mut segment);
    }

    let dir = tempfile::tempdir().expect("temporary files can be made");
    let write = |kind: FileKind, bytes: &[u8]| {
        fs::write(kind.path(dir.path(), Offset::ZERO), bytes).expect("temporary files can be written");
    };
    write(FileKind::Log, &segment);
    if offsets > 0 {
        write(FileKind::OffsetIndex, index);
    }
    if times > 0 {
        write(FileKind::TimeIndex, time_index);
    }
    if flags & EPOCHS != 0 {
        fs::write(dir.path().join(EPOCH_CHECKPOINT_FILE), "0\n1\n0 0\n").expect("and this one");
    }

    for kind in FileKind::ALL {
        // Whatever it says: that it comes to an end is what counts.
        let _ = print(dir.path(), kind);
    }
    let options = OpenOptions {
        recovery_point: (flags & SYNCED != 0).then_some(Offset(3)),
        log_start_offset: Offset::ZERO,
        is_alone: false,
        clean_shutdown: flags & CLEAN != 0,
        now_ms: NOW_MS,
    };
    // What was synced, or closed cleanly, is not scanned: its damage may show when it is read.
    let trusted = flags & (CLEAN | SYNCED) != 0;
    match open(dir.path(), options) {
        Err(StorageError::Corrupt { .. }) if trusted => {}
        Err(error) => panic!("a log that may be cut always opens: {error}"),
        Ok((log, report)) => {
            assert!(
                report.bytes_cut <= segment.len() as u64,
                "no more is cut than there was"
            );
            use_log(dir.path(), log, trusted);
        }
    }
}

fn open(dir: &Path, options: OpenOptions) -> Result<(Log, RecoveryReport), StorageError> {
    let config = LogConfig {
        // The page cache will do: the process does not die in here.
        flush_messages: u64::MAX,
        segment_bytes: 1 << 20,
        ..LogConfig::default()
    };
    Log::open(dir, config, options)
}

fn use_log(dir: &Path, log: Log, trusted: bool) {
    let (start, end) = (log.log_start_offset(), log.log_end_offset());
    assert!(start <= log.durable_offset() && log.durable_offset() <= end);
    let read = read_through(&log, trusted);
    for timestamp in [i64::MIN, 0, NOW_MS] {
        let found = log.offset_for_timestamp(timestamp);
        assert!(found.is_ok() || trusted, "{found:?}");
    }
    let newest = log.max_timestamp();
    assert!(newest.is_ok() || trusted, "{newest:?}");
    if !read {
        return;
    }

    let epoch = log.latest_epoch().unwrap_or(LeaderEpoch::ZERO);
    let appended = log.append_as_leader(LeaderAppend {
        batches: BatchBuilder::default()
            .build_records(&[(None, Some(b"after"))])
            .into(),
        leader_epoch: epoch,
        now_ms: NOW_MS,
        log_append_time: None,
    });
    // Refused where the damage left offsets or epochs that nothing can follow.
    let Ok(AppendOutcome::Appended(appended)) = appended else {
        return;
    };
    assert_eq!(appended.first_offset, end, "a batch goes to the end");
    assert!(read_through(&log, trusted));
    log.close(true).expect("a log that took a batch closes");
    let recovery_point = Some(log.recovery_point());
    drop(log);

    let (again, report) = open(
        dir,
        OpenOptions {
            recovery_point,
            log_start_offset: start,
            is_alone: false,
            clean_shutdown: true,
            now_ms: NOW_MS,
        },
    )
    .expect("a log that was closed opens");
    assert_eq!(
        (report.bytes_cut, report.lost),
        (0, false),
        "and has lost nothing"
    );
    assert_eq!(again.log_end_offset(), appended.next_offset);
    assert!(read_through(&again, trusted));
    if !trusted {
        for kind in [FileKind::Log, FileKind::OffsetIndex, FileKind::TimeIndex] {
            let printed = print(dir, kind).expect("the files of a log print");
            assert!(printed.is_sound(), "{kind:?}: {printed:?}");
        }
    }
}

/// What `ottla dump-log` makes of a file.
fn print(dir: &Path, kind: FileKind) -> Result<DumpSummary, DumpError> {
    let options = DumpOptions {
        deep: true,
        print_data: true,
        ..DumpOptions::default()
    };
    dump_segment(&kind.path(dir, Offset::ZERO), &options, &mut std::io::sink())
}

/// Reads all of the log. False where damage that was trusted shows.
fn read_through(log: &Log, trusted: bool) -> bool {
    let end = log.log_end_offset();
    let mut from = log.log_start_offset();
    while from < end {
        let outcome = log.read(ReadRequest {
            from,
            upper: end,
            max_bytes: 4096,
            min_one_batch: true,
        });
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(StorageError::Corrupt { .. }) if trusted => return false,
            Err(error) => panic!("what was recovered can be read: {error}"),
        };
        let mut expected = from;
        let mut first = true;
        for batch in Batches::new(outcome.bytes) {
            let (header, bytes) = batch.expect("reads return whole batches");
            batch::verify_crc(&bytes).expect("with their checksums");
            assert!(
                first || header.base_offset >= expected,
                "in the order of their offsets"
            );
            first = false;
            expected = header.next_offset();
        }
        assert!(
            !first || outcome.next_offset == end || trusted,
            "no hole in front of the end"
        );
        if first {
            return true;
        }
        assert!(outcome.next_offset > from, "a read makes progress");
        from = outcome.next_offset;
    }
    true
}

fn split(bytes: &[u8], at: usize) -> (&[u8], &[u8]) {
    bytes.split_at(at.min(bytes.len()))
}

/// Puts right the checksums of the batches that lie back to back from the start.
fn fix_checksums(segment: &mut [u8]) {
    let mut at = 0;
    while let Ok(size) = batch::batch_size(&segment[at..]) {
        match segment.get_mut(at..at + size) {
            Some(batch) => batch::renew_crc(batch),
            None => return,
        }
        at += size;
    }
}

/// A batch as it lies in a log.
pub fn placed(base_offset: i64, epoch: i32, builder: BatchBuilder) -> Bytes {
    BatchBuilder {
        base_offset: Offset(base_offset),
        leader_epoch: LeaderEpoch(epoch),
        base_timestamp: NOW_MS.saturating_add(base_offset),
        max_timestamp: NOW_MS.saturating_add(base_offset),
        ..builder
    }
    .build_records(&[(Some(b"key"), Some(b"value")), (None, None)])
    .into()
}

/// What the fuzzer starts from, by name.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let plain = BatchBuilder::default();
    let idempotent = BatchBuilder {
        producer_id: 9,
        producer_epoch: 0,
        base_sequence: 0,
        ..plain
    };
    let log = |batches: &[Bytes]| batches.concat();
    let four = [
        placed(0, 0, plain),
        placed(2, 0, idempotent),
        placed(4, 1, plain),
        placed(9, 1, plain),
    ];
    let whole = log(&four);
    let size = four[0].len();
    let torn = &whole[..whole.len() - 7];
    let mut flipped = whole.clone();
    flipped[size + 70] ^= 1;
    let mut zeroed = whole.clone();
    zeroed[3 * size..].fill(0);
    let backwards = log(&[placed(4, 1, plain), placed(0, 1, plain)]);
    let old_epoch = log(&[placed(0, 3, plain), placed(2, 2, plain)]);
    let far = log(&[placed(0, 0, plain), placed(i64::MAX - 10, 0, plain)]);
    let entry =
        |offset: i32, position: usize| [offset.to_be_bytes(), (position as i32).to_be_bytes()].concat();
    let time = |offset: i32| {
        [
            &(NOW_MS + i64::from(offset)).to_be_bytes()[..],
            &offset.to_be_bytes(),
        ]
        .concat()
    };
    let seed = |flags: u8, index: &[Vec<u8>], times: &[Vec<u8>], segment: &[u8]| {
        let mut out = vec![flags, index.len() as u8, times.len() as u8];
        out.extend(index.concat());
        out.extend(times.concat());
        out.extend_from_slice(segment);
        out
    };
    vec![
        ("empty", seed(0, &[], &[], &[])),
        ("empty-clean", seed(CLEAN | EPOCHS, &[], &[], &[])),
        ("whole", seed(FIX_CHECKSUMS, &[], &[], &whole)),
        (
            "whole-clean",
            seed(CLEAN | EPOCHS, &[entry(3, size)], &[time(2)], &whole),
        ),
        ("whole-synced", seed(SYNCED | EPOCHS, &[], &[], &whole)),
        ("torn", seed(0, &[], &[], torn)),
        ("torn-synced", seed(SYNCED, &[], &[], torn)),
        ("torn-header", seed(0, &[], &[], &whole[..size + 20])),
        ("torn-length", seed(0, &[], &[], &whole[..size + 5])),
        ("flipped", seed(0, &[], &[], &flipped)),
        ("flipped-synced", seed(SYNCED, &[], &[], &flipped)),
        ("flipped-clean", seed(CLEAN | EPOCHS, &[], &[], &flipped)),
        ("zeroed", seed(0, &[], &[], &zeroed)),
        ("backwards", seed(0, &[], &[], &backwards)),
        ("old-epoch", seed(0, &[], &[], &old_epoch)),
        ("far", seed(0, &[], &[], &far)),
        (
            "index-beyond",
            seed(CLEAN | EPOCHS, &[entry(99, 1 << 20)], &[time(99)], &whole),
        ),
        (
            "index-backwards",
            seed(
                CLEAN | EPOCHS,
                &[entry(5, 300), entry(1, 10)],
                &[time(5), time(1)],
                &whole,
            ),
        ),
        (
            "index-within-a-batch",
            seed(CLEAN | EPOCHS, &[entry(3, size + 1)], &[], &whole),
        ),
        (
            "index-negative",
            seed(CLEAN | EPOCHS, &[entry(-5, 0)], &[time(-5)], &whole),
        ),
        (
            "garbage",
            seed(
                0,
                &[],
                &[],
                b"not a segment at all, but long enough for the header of a batch v2",
            ),
        ),
    ]
}
