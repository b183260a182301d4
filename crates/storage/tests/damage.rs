//! What a log makes of a damaged disk: torn tails are cut, anything else is refused or reported.

mod support;

use std::{fs, path::PathBuf};

use proptest::prelude::*;
use protocol::{Offset, batch::Batches};
use storage::{Damage, Log, RecoveryReport, StorageError, format::FileKind};
use support::*;

/// Segment files in order, with their bytes.
fn segment_files(log: &TestLog) -> Vec<(PathBuf, Vec<u8>)> {
    let mut paths: Vec<_> = fs::read_dir(log.dir())
        .expect("list")
        .map(|entry| entry.expect("entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let bytes = fs::read(&path).expect("read");
            (path, bytes)
        })
        .collect()
}

/// (base offset, next offset, position) of each batch of a file.
fn layout(bytes: &[u8]) -> Vec<(i64, i64, usize)> {
    let mut at = 0;
    Batches::new(bytes.to_vec().into())
        .map(|batch| {
            let (header, _) = batch.expect("whole");
            let position = at;
            at += header.size;
            (header.base_offset.0, header.next_offset().0, position)
        })
        .collect()
}

/// A log of 24 batches in several segments, its path and its last segment.
fn written() -> (TestLog, PathBuf, Vec<u8>) {
    let log = TestLog::new(small());
    for epoch in 0..24 {
        lead(&log, batch(2, 70), epoch / 5);
    }
    let files = segment_files(&log);
    assert!(files.len() > 3);
    let (path, bytes) = files.into_iter().next_back().expect("segments");
    assert!(layout(&bytes).len() > 1);
    (log, path, bytes)
}

fn reopen(log: TestLog, options: storage::OpenOptions) -> (TestLog, RecoveryReport) {
    log.reopen(options)
}

fn try_reopen(log: &TestLog, options: storage::OpenOptions) -> Result<RecoveryReport, StorageError> {
    let config = log.config().as_ref().clone();
    Log::open(&log.dir(), config, options).map(|(_, report)| report)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_tail_cut_anywhere_loses_the_cut_batches_only(cut: prop::sample::Index, garbage in 0..3_u8) {
        let (log, path, bytes) = written();
        let cut = cut.index(bytes.len() + 1);
        let mut torn = bytes[..cut].to_vec();
        match garbage {
            0 => {}
            // What a file system without ordered data may show after the last write.
            1 => torn.extend([0; 200]),
            _ => torn.extend_from_slice(b"not a batch at all, and rather longer than a header of one would be, to be sure"),
        }
        fs::write(&path, &torn).expect("damage");
        let layout = layout(&bytes);
        let begins = |batch: usize| layout.get(batch).map_or(bytes.len(), |&(.., position)| position);
        // By content, not by `cut`: what follows the cut may happen to be what was cut off (a batch may end in zeroes).
        let kept = (0..layout.len())
            .take_while(|&batch| torn.get(begins(batch)..begins(batch + 1)) == bytes.get(begins(batch)..begins(batch + 1)))
            .count();
        let end = if kept == 0 { layout[0].0 } else { layout[kept - 1].1 };
        let valid = begins(kept);

        let (log, report) = reopen(log, synced_below(layout[0].0));
        prop_assert_eq!(log.log_end_offset(), Offset(end));
        prop_assert_eq!(log.durable_offset(), Offset(end));
        prop_assert_eq!(report.bytes_cut, (torn.len() - valid) as u64);
        // A mere prefix of a batch is what a crash leaves behind.
        prop_assert!(garbage != 0 || !report.lost);
        prop_assert_eq!(read_all(&log, 0, 1 << 20).last().map(|last| last.1), Some(end - 1));
        // The log goes on, and stays what it is.
        lead(&log, batch(1, 10), 50);
        let (log, again) = log.reopen(unclean());
        prop_assert_eq!((log.log_end_offset(), again.bytes_cut, again.lost), (Offset(end + 1), 0, false));
    }

    #[test]
    fn a_flipped_bit_above_the_recovery_point_is_cut_and_reported(at: prop::sample::Index, bit in 0..8_u8) {
        let (log, path, mut bytes) = written();
        let at = at.index(bytes.len());
        let layout = layout(&bytes);
        let &(base, _, position) = layout.iter().rev().find(|&&(.., position)| position <= at).expect("a batch");
        // Base offset and leader epoch lie outside the checksum: a larger one cannot be told from compaction.
        prop_assume!(!matches!(at - position, 0..8 | 12..16));
        bytes[at] ^= 1 << bit;
        fs::write(&path, &bytes).expect("damage");
        let (log, report) = reopen(log, synced_below(layout[0].0));
        prop_assert_eq!(log.log_end_offset(), Offset(base));
        prop_assert_eq!(report.bytes_cut, (bytes.len() - position) as u64);
        let is_last = position == layout[layout.len() - 1].2;
        prop_assert!(report.lost || is_last, "whole batches went: {report:?}");
    }

    #[test]
    fn a_flipped_bit_is_never_served(at: prop::sample::Index, bit in 0..8_u8) {
        let (log, path, mut bytes) = written();
        let at = at.index(bytes.len());
        let layout = layout(&bytes);
        let &(base, _, position) = layout.iter().rev().find(|&&(.., position)| position <= at).expect("a batch");
        prop_assume!(!matches!(at - position, 0..8 | 12..16));
        bytes[at] ^= 1 << bit;
        fs::write(&path, &bytes).expect("damage");
        // The batches before it are served, then the damage is named.
        prop_assert_eq!(read_all_until_error(&log, layout[0].0), base);
        let is_corrupt = matches!(try_read(&log, base, i64::MAX, 1 << 20), Err(StorageError::Corrupt { .. }));
        prop_assert!(is_corrupt);
    }

    #[test]
    fn foreign_bytes_in_place_of_any_file_never_panic(
        kind in 0..4_usize, garbage in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let (log, path, _) = written();
        log.close(true).expect("close");
        let extension = ["log", "index", "timeindex", "snapshot"][kind];
        fs::write(path.with_extension(extension), &garbage).expect("damage");
        fs::write(log.dir().join("leader-epoch-checkpoint"), &garbage).expect("damage");
        let (log, _) = reopen(log, clean(0));
        let end = log.log_end_offset().0;
        prop_assert!(extension == "log" || end == 48);
        prop_assert_eq!(read_all(&log, 0, 1 << 20).last().map(|last| last.1), Some(end - 1));
    }
}

/// The offset at which reading fails.
fn read_all_until_error(log: &TestLog, from: i64) -> i64 {
    let mut at = from;
    while let Ok(outcome) = try_read(log, at, i64::MAX, 1 << 20) {
        assert!(outcome.next_offset.0 > at, "the damage must be met");
        at = outcome.next_offset.0;
    }
    at
}

#[test]
fn damage_below_the_recovery_point_is_an_error_not_a_cut() {
    let (log, path, mut bytes) = written();
    let second = layout(&bytes)[1];
    // The length of a synced batch.
    bytes[second.2 + 8] = 0x7f;
    fs::write(&path, &bytes).expect("damage");
    let error = try_reopen(&log, synced_below(48)).expect_err("damaged");
    let StorageError::Corrupt { position, damage, .. } = error else {
        panic!("{error}")
    };
    assert_eq!(position, second.2 as u64);
    assert!(matches!(damage, Damage::Batch(_)));
    assert!(fs::read(&path).expect("read") == bytes, "nothing is cut");
}

#[test]
fn without_a_recovery_point_only_the_last_segment_is_cut() {
    let (log, _, _) = written();
    let (first, mut bytes) = segment_files(&log).swap_remove(0);
    bytes[70] ^= 1;
    fs::write(&first, &bytes).expect("damage");
    assert!(matches!(
        try_reopen(&log, unclean()),
        Err(StorageError::Corrupt { position: 0, .. })
    ));

    let (log, path, mut bytes) = written();
    bytes[70] ^= 1;
    fs::write(&path, &bytes).expect("damage");
    let base = layout_base(&path);
    let (log, report) = reopen(log, unclean());
    assert!(report.lost);
    assert_eq!(log.log_end_offset(), Offset(base));
}

fn layout_base(path: &std::path::Path) -> i64 {
    let name = path.file_name().and_then(|name| name.to_str()).expect("name");
    FileKind::parse(name).expect("a segment").0.0
}

#[test]
fn damage_before_later_segments_takes_them_along_and_is_a_loss() {
    let (log, ..) = written();
    let files = segment_files(&log);
    let (path, mut bytes) = files[1].clone();
    let base = layout_base(&path);
    bytes[70] ^= 1;
    fs::write(&path, &bytes).expect("damage");
    let (log, report) = reopen(log, synced_below(base));
    assert!(report.lost);
    assert_eq!(log.log_end_offset(), Offset(base));
    assert_eq!(segment_files(&log).len(), 2);
    assert_eq!(
        read_all(&log, 0, 1 << 20).last().map(|last| last.1),
        Some(base - 1)
    );
}

#[test]
fn zeroes_behind_the_last_batch_were_never_written() {
    let (log, path, mut bytes) = written();
    bytes.extend([0; 5000]);
    fs::write(&path, &bytes).expect("damage");
    let (log, report) = reopen(log, unclean());
    assert_eq!((report.bytes_cut, report.lost), (5000, false));
    assert_eq!(log.log_end_offset(), Offset(48));
}

#[test]
fn an_end_below_the_recovery_point_is_a_loss() {
    let (log, path, bytes) = written();
    let last = *layout(&bytes).last().expect("batches");
    fs::write(&path, &bytes[..last.2]).expect("damage");
    let (log, report) = reopen(log, synced_below(48));
    assert_eq!((report.bytes_cut, report.lost), (0, true));
    assert_eq!(log.log_end_offset(), Offset(last.0));
}

#[test]
fn a_log_without_its_files_is_a_loss() {
    let (log, ..) = written();
    for (path, _) in segment_files(&log) {
        fs::remove_file(path).expect("remove");
    }
    let (log, report) = reopen(log, synced_below(48));
    assert!(report.lost);
    assert_eq!(log.log_end_offset(), Offset(0));
}

#[test]
fn an_index_that_lies_leads_nobody_astray() {
    let (log, ..) = written();
    for (path, bytes) in segment_files(&log) {
        let index = path.with_extension("index");
        if let Ok(entries) = fs::read(&index) {
            // Sane to look at, but between the batches.
            let shifted: Vec<u8> = entries
                .chunks(8)
                .flat_map(|entry| {
                    let position = u32::from_be_bytes(entry[4..].try_into().expect("four bytes")) - 7;
                    [&entry[..4], &position.to_be_bytes()].concat()
                })
                .collect();
            fs::write(&index, shifted).expect("damage");
        }
        for (base, next, _) in layout(&bytes) {
            for from in base..next {
                assert_eq!(read(&log, from).first, Some(Offset(base)));
            }
        }
    }
}

#[test]
fn missing_indexes_come_back() {
    let (log, ..) = written();
    log.close(true).expect("close");
    for (path, _) in segment_files(&log) {
        fs::remove_file(path.with_extension("index")).expect("remove");
        fs::remove_file(path.with_extension("timeindex")).expect("remove");
    }
    let (log, report) = reopen(log, clean(0));
    assert_eq!(report.bytes_cut, 0);
    for from in 0..48 {
        assert_eq!(read(&log, from).first, Some(Offset(from / 2 * 2)));
    }
    assert!(segment_files(&log)[0].0.with_extension("index").exists());
}

#[test]
fn leftovers_of_a_crash_are_removed() {
    let (log, path, _) = written();
    let leftovers = [
        path.with_extension("log.deleted"),
        path.with_extension("index.tmp"),
        log.dir().join("00000000000000009999.index"),
        log.dir().join("leader-epoch-checkpoint.tmp"),
    ];
    for leftover in &leftovers {
        fs::write(leftover, b"x").expect("write");
    }
    let (log, _) = reopen(log, unclean());
    for leftover in leftovers {
        assert!(!leftover.exists(), "{}", leftover.display());
    }
    assert_eq!(log.log_end_offset(), Offset(48));
}
