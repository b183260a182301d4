//! A log as leaders, followers and readers use it.

mod support;

use protocol::{
    LeaderEpoch, Offset, ProducerId,
    batch::{BatchBuilder, Batches, TimestampType, put_record, verify_crc},
};
use storage::{AppendError, AppendOutcome, LeaderAppend, LogConfig, StorageError};
use support::*;

#[test]
fn a_leader_places_batches_and_readers_see_them_whole() {
    let log = TestLog::new(LogConfig::default());
    let first = lead(&log, batch(3, 10), 5);
    assert_eq!(
        (first.first_offset, first.last_offset, first.next_offset),
        (Offset(0), Offset(2), Offset(3))
    );
    let two = [batch(1, 10), batch(2, 10)].concat();
    let second = lead(&log, two.into(), 6);
    assert_eq!((second.first_offset, second.last_offset), (Offset(3), Offset(5)));
    assert!(second.flush_due);

    let all = read(&log, 0);
    assert_eq!(headers(&all.bytes), [(0, 2, 5), (3, 3, 6), (4, 5, 6)]);
    assert_eq!((all.first, all.next_offset), (Some(Offset(0)), Offset(6)));
    for batch in Batches::new(all.bytes) {
        verify_crc(&batch.expect("whole").1).expect("unchanged");
    }
    // Inside a batch: the whole batch. Below an upper bound: only what ends before it.
    assert_eq!(headers(&read(&log, 5).bytes), [(4, 5, 6)]);
    assert_eq!(
        headers(&try_read(&log, 0, 5, 1 << 20).expect("read").bytes),
        [(0, 2, 5), (3, 3, 6)]
    );
    assert_eq!(headers(&try_read(&log, 4, 5, 1 << 20).expect("read").bytes), []);
    // At least one batch, however small the limit.
    assert_eq!(
        headers(&try_read(&log, 0, 6, 1).expect("read").bytes),
        [(0, 2, 5)]
    );
    assert_eq!(read(&log, 6).first, None);
    for outside in [-1, 7] {
        assert!(matches!(
            try_read(&log, outside, 6, 1),
            Err(StorageError::OffsetOutOfRange { .. })
        ));
    }
}

#[test]
fn durable_is_what_was_flushed() {
    let log = TestLog::new(LogConfig::default());
    lead(&log, batch(3, 10), 0);
    assert_eq!(
        (log.durable_offset(), log.recovery_point()),
        (Offset(0), Offset(0))
    );
    assert_eq!(log.flush().expect("flush"), Offset(3));
    assert_eq!(
        (log.durable_offset(), log.recovery_point()),
        (Offset(3), Offset(3))
    );

    let cached = TestLog::new(LogConfig {
        flush_messages: u64::MAX,
        ..LogConfig::default()
    });
    assert!(!lead(&cached, batch(3, 10), 0).flush_due);
    assert_eq!(
        (cached.durable_offset(), cached.recovery_point()),
        (Offset(3), Offset(0))
    );

    let counted = TestLog::new(LogConfig {
        flush_messages: 4,
        ..LogConfig::default()
    });
    assert!(!lead(&counted, batch(3, 10), 0).flush_due);
    assert!(lead(&counted, batch(3, 10), 0).flush_due);
    assert_eq!(counted.durable_offset(), Offset(6));
}

#[test]
fn a_follower_takes_only_what_follows() {
    let log = TestLog::new(LogConfig::default());
    log.append_as_follower(placed(0, 1, 3, 5)).expect("append");
    let info = log
        .append_as_follower(placed(7, 1, 1, 5))
        .expect("a gap, as compaction leaves it");
    assert_eq!((info.first_offset, info.next_offset), (Offset(7), Offset(8)));
    assert!(matches!(
        log.append_as_follower(placed(7, 1, 1, 5)),
        Err(AppendError::OffsetWentBack {
            log_end: Offset(8),
            found: Offset(7)
        })
    ));
    assert!(matches!(
        log.append_as_follower(placed(8, 0, 1, 5)),
        Err(AppendError::EpochWentBack { .. })
    ));
    let mut damaged = placed(8, 1, 1, 5).to_vec();
    damaged[70] ^= 1;
    assert!(matches!(
        log.append_as_follower(damaged.into()),
        Err(AppendError::Batch(_))
    ));
    let cut_off = placed(8, 1, 1, 5);
    assert!(matches!(
        log.append_as_follower(cut_off.slice(..50)),
        Err(AppendError::Batch(_))
    ));
    assert!(matches!(
        log.append_as_follower(bytes::Bytes::new()),
        Err(AppendError::Empty)
    ));
    assert_eq!(log.log_end_offset(), Offset(8));
    // A reader inside the gap gets what comes next.
    assert_eq!(headers(&read(&log, 4).bytes), [(7, 7, 1)]);
}

#[test]
fn segments_roll_and_reads_cross_them() {
    let log = TestLog::new(small());
    for _ in 0..50 {
        lead(&log, batch(2, 60), 1);
    }
    assert!(log.segment_count() > 5, "{}", log.segment_count());
    let expected: Vec<_> = (0..50).map(|i| (2 * i, 2 * i + 1, 1)).collect();
    for max_bytes in [1, 300, 1 << 20] {
        assert_eq!(read_all(&log, 0, max_bytes), expected);
    }
    for from in 0..100 {
        let first = headers(&read(&log, from).bytes)[0];
        assert!(first.0 <= from && from <= first.1, "{from}: {first:?}");
    }
    assert_eq!(log.flush().expect("flush"), Offset(100));
    assert_eq!(log.recovery_point(), Offset(100));
}

#[test]
fn truncation_takes_whole_batches_and_bumps_the_generation() {
    let log = TestLog::new(small());
    for epoch in 0..20 {
        lead(&log, batch(3, 40), epoch);
    }
    log.flush().expect("flush");
    let generation = log.generation();
    log.truncate_to(Offset(31)).expect("truncate");
    assert_eq!(
        log.log_end_offset(),
        Offset(30),
        "offset 31 lies inside the batch of 30 to 32"
    );
    assert_eq!(
        (log.durable_offset(), log.recovery_point()),
        (Offset(30), Offset(30))
    );
    assert!(log.generation() > generation);
    assert_eq!(log.latest_epoch(), Some(LeaderEpoch(9)));
    assert_eq!(read_all(&log, 0, 1 << 20).last(), Some(&(27, 29, 9)));

    log.truncate_to(Offset(30)).expect("nothing to do");
    assert_eq!(log.generation(), generation + 1);
    let info = lead(&log, batch(1, 40), 30);
    assert_eq!(info.first_offset, Offset(30));
    let (log, report) = log.reopen(synced_below(30));
    assert!(!report.lost);
    assert_eq!(read_all(&log, 27, 1 << 20), [(27, 29, 9), (30, 30, 30)]);

    log.truncate_fully_and_start_at(Offset(500)).expect("start anew");
    assert_eq!(
        (log.log_start_offset(), log.log_end_offset()),
        (Offset(500), Offset(500))
    );
    assert_eq!(log.latest_epoch(), None);
    lead(&log, batch(1, 40), 31);
    assert_eq!(read_all(&log, 500, 1 << 20), [(500, 500, 31)]);
}

#[test]
fn epochs_end_where_the_next_begins() {
    let log = TestLog::new(LogConfig::default());
    lead(&log, batch(10, 5), 2);
    lead(&log, batch(10, 5), 5);
    log.assign_epoch_start(LeaderEpoch(6), Offset(20));
    assert_eq!(
        log.end_offset_for_epoch(LeaderEpoch(2)),
        Some((LeaderEpoch(2), Offset(10)))
    );
    assert_eq!(
        log.end_offset_for_epoch(LeaderEpoch(4)),
        Some((LeaderEpoch(2), Offset(10)))
    );
    assert_eq!(
        log.end_offset_for_epoch(LeaderEpoch(6)),
        Some((LeaderEpoch(6), Offset(20)))
    );
    assert_eq!(log.epoch_start(LeaderEpoch(5)), Some(Offset(10)));
    assert!(matches!(
        try_lead(&log, batch(1, 5), 5),
        Err(AppendError::EpochWentBack { .. })
    ));
}

#[test]
fn a_repeated_batch_is_answered_with_its_offsets() {
    let log = TestLog::new(LogConfig::default());
    for sequence in 0..3 {
        lead(&log, sequenced(9, 0, sequence), 1);
    }
    let repeated = try_lead(&log, sequenced(9, 0, 1), 1).expect("known");
    assert_eq!(
        repeated,
        AppendOutcome::Duplicate {
            first_offset: Offset(1),
            last_offset: Offset(1),
            log_append_time: None
        }
    );
    assert!(matches!(
        try_lead(&log, sequenced(9, 0, 5), 1),
        Err(AppendError::OutOfOrderSequence {
            expected: 3,
            found: 5,
            ..
        })
    ));
    lead(&log, sequenced(9, 1, 0), 1);
    assert!(matches!(
        try_lead(&log, sequenced(9, 0, 3), 1),
        Err(AppendError::InvalidProducerEpoch { .. })
    ));
    // Two batches of one producer in one append follow one another.
    let both = [sequenced(9, 1, 1), sequenced(9, 1, 2)].concat();
    assert_eq!(lead(&log, both.into(), 1).next_offset, Offset(6));
    let hole = [sequenced(9, 1, 3), sequenced(9, 1, 5)].concat();
    assert!(matches!(
        try_lead(&log, hole.into(), 1),
        Err(AppendError::OutOfOrderSequence { .. })
    ));
    assert_eq!(log.log_end_offset(), Offset(6));

    // Truncation takes back what the producer wrote.
    log.truncate_to(Offset(2)).expect("truncate");
    assert_eq!(
        log.producer(ProducerId(9)).expect("known").last_sequence(),
        Some(1)
    );
    lead(&log, sequenced(9, 0, 2), 2);
}

#[test]
fn the_leaders_clock_renews_the_checksum() {
    let log = TestLog::new(LogConfig::default());
    let append = LeaderAppend {
        batches: batch(2, 10),
        leader_epoch: LeaderEpoch(0),
        now_ms: 1234,
        log_append_time: Some(1234),
    };
    let AppendOutcome::Appended(info) = log.append_as_leader(append).expect("append") else {
        panic!("new batch");
    };
    assert_eq!(info.log_append_time, Some(1234));
    let (header, _) = Batches::new(read(&log, 0).bytes)
        .next()
        .expect("one")
        .expect("whole");
    assert_eq!(
        (header.timestamp_type(), header.max_timestamp),
        (TimestampType::LogAppendTime, 1234)
    );
}

#[test]
fn the_start_moves_and_whole_segments_go() {
    let log = TestLog::new(small());
    for _ in 0..40 {
        lead(&log, batch(1, 100), 1);
    }
    log.advance_log_start(Offset(25)).expect("advance");
    assert_eq!(log.log_start_offset(), Offset(25));
    assert!(matches!(
        try_read(&log, 24, 40, 1),
        Err(StorageError::OffsetOutOfRange { .. })
    ));
    assert_eq!(read_all(&log, 25, 1 << 20).len(), 15);
    assert!(log.advance_log_start(Offset(41)).is_err());
    let (log, _) = log.reopen(unclean());
    assert!(
        (1..=25).contains(&log.log_start_offset().0),
        "{}",
        log.log_start_offset()
    );
    let (log, _) = log.reopen(storage::OpenOptions {
        log_start_offset: Offset(25),
        ..unclean()
    });
    assert_eq!(log.log_start_offset(), Offset(25));
    assert_eq!(read_all(&log, 25, 1 << 20).len(), 15);
}

#[test]
fn a_clean_close_needs_no_scan() {
    let log = TestLog::new(small());
    for sequence in 0..30 {
        lead(&log, sequenced(4, 0, sequence), 3);
    }
    log.close(true).expect("close");
    assert!(matches!(
        try_lead(&log, batch(1, 1), 3),
        Err(AppendError::Storage(StorageError::Closed { .. }))
    ));
    let (log, report) = log.reopen(clean(0));
    assert_eq!(report, storage::RecoveryReport::default());
    assert_eq!(
        (log.log_end_offset(), log.durable_offset()),
        (Offset(30), Offset(30))
    );
    assert_eq!(log.latest_epoch(), Some(LeaderEpoch(3)));
    assert_eq!(
        log.producer(ProducerId(4)).expect("known").last_sequence(),
        Some(29)
    );
    assert_eq!(read_all(&log, 0, 1 << 20).len(), 30);
}

#[test]
fn time_finds_the_first_record_at_or_after_it() {
    let log = TestLog::new(small());
    for i in 0..60_i64 {
        lead(&log, valued("x", 1000 + 10 * (i ^ 1)), 7);
    }
    let find = |ts| {
        log.offset_for_timestamp(ts)
            .expect("search")
            .map(|found| (found.timestamp, found.offset.0))
    };
    for ts in 990..1600 {
        let expected = (0..60_i64)
            .map(|i| (1000 + 10 * (i ^ 1), i))
            .find(|&(t, _)| t >= ts);
        assert_eq!(find(ts), expected, "{ts}");
    }
    let newest = log.max_timestamp().expect("search").expect("some");
    assert_eq!(
        (newest.timestamp, newest.offset, newest.leader_epoch),
        (1590, Offset(58), LeaderEpoch(7))
    );
}

/// DeleteRecords may have taken the newest record, inside a segment, and inside a batch.
#[test]
fn the_newest_record_is_one_that_is_still_there() {
    let log = TestLog::new(LogConfig {
        index_interval_bytes: 1,
        ..LogConfig::default()
    });
    let times = [10, 90, 20, 80, 30, 70, 40, 60, 50, 50];
    // In batches of two records.
    for pair in times.chunks(2) {
        let builder = BatchBuilder {
            base_timestamp: pair[0],
            max_timestamp: pair[0].max(pair[1]),
            ..BatchBuilder::default()
        };
        let mut framed = Vec::new();
        for (time, delta) in pair.iter().zip(0..) {
            put_record(&mut framed, time - pair[0], delta, (None, Some(b"v")), []);
        }
        lead(&log, builder.build(&framed, 2).into(), 1);
    }
    for start in 0..10 {
        log.advance_log_start(Offset(start)).expect("advance");
        let left = times.iter().zip(0..).skip(start as usize);
        let expected = left.max_by_key(|&(&time, offset)| (time, -offset));
        let found = log.max_timestamp().expect("search").expect("some");
        let (time, offset) = expected.expect("some are left");
        assert_eq!((found.timestamp, found.offset.0), (*time, offset), "from {start}");
    }
    log.advance_log_start(Offset(10)).expect("advance");
    assert_eq!(log.max_timestamp().expect("search"), None);
}

#[test]
fn retention_deletes_old_and_surplus_segments_below_the_high_watermark() {
    let hour = 3_600_000_i64;
    let by_time = LogConfig {
        retention_ms: Some(std::time::Duration::from_millis(2 * hour as u64)),
        ..small()
    };
    let log = TestLog::new(by_time.clone());
    for i in 0..40 {
        lead(&log, valued(&"x".repeat(100), i * hour / 10), 1);
    }
    let segments = log.segment_count();
    assert_eq!(
        log.delete_expired(3 * hour, Offset(0)).expect("retain"),
        0,
        "nothing is committed"
    );
    assert!(log.delete_expired(3 * hour, Offset(40)).expect("retain") > 0);
    let start = log.log_start_offset();
    assert!(
        (1..=10).contains(&start.0),
        "{start}: a segment goes when its newest record is too old"
    );
    assert_eq!(log.delete_expired(3 * hour, Offset(40)).expect("retain"), 0);
    // Even the active segment, when all of it is too old.
    assert!(log.delete_expired(100 * hour, Offset(40)).expect("retain") > 0);
    assert_eq!(
        (log.log_start_offset(), log.log_end_offset(), log.segment_count()),
        (Offset(40), Offset(40), 1)
    );
    assert!(segments > 3);

    log.set_config(LogConfig {
        retention_ms: None,
        retention_bytes: Some(2000),
        ..by_time
    });
    for _ in 0..40 {
        lead(&log, batch(1, 100), 1);
    }
    assert!(log.delete_expired(0, Offset(80)).expect("retain") > 0);
    assert!((2000..3000).contains(&log.size_bytes()), "{}", log.size_bytes());
    log.set_config(LogConfig {
        delete: false,
        retention_bytes: Some(0),
        ..small()
    });
    assert_eq!(log.delete_expired(0, Offset(80)).expect("retain"), 0);
}

#[test]
fn deleted_files_wait_for_their_removal() {
    let log = TestLog::new(LogConfig {
        file_delete_delay: std::time::Duration::from_secs(3600),
        ..small()
    });
    for _ in 0..40 {
        lead(&log, batch(1, 100), 1);
    }
    log.advance_log_start(Offset(40)).expect("advance");
    let deleted = || {
        let entries = std::fs::read_dir(log.dir()).expect("list");
        entries
            .filter(|e| {
                e.as_ref()
                    .is_ok_and(|e| e.path().extension().is_some_and(|x| x == "deleted"))
            })
            .count()
    };
    assert!(deleted() > 0);
    assert_eq!(log.remove_deleted(), 0);
    log.set_config(small());
    assert!(log.remove_deleted() > 0);
    assert_eq!(deleted(), 0);
}

#[test]
fn a_segment_rolls_by_age() {
    let log = TestLog::new(LogConfig {
        segment_ms: std::time::Duration::from_secs(10),
        ..LogConfig::default()
    });
    assert!(
        !log.roll_if_due(1_000_000).expect("roll"),
        "an empty segment never rolls"
    );
    lead(&log, valued("x", 5_000), 0);
    lead(&log, valued("x", 15_000), 0);
    assert_eq!(log.segment_count(), 1);
    lead(&log, valued("x", 15_001), 0);
    assert_eq!(log.segment_count(), 2);
    // What gets no more records rolls by the clock.
    assert!(!log.roll_if_due(1_010_000).expect("roll"));
    assert!(log.roll_if_due(1_010_001).expect("roll"));
    assert_eq!(log.segment_count(), 3);
}

#[test]
fn a_renamed_directory_stays_open() {
    let log = TestLog::new(small());
    for _ in 0..30 {
        lead(&log, batch(1, 100), 1);
    }
    let to = log.dir().with_file_name("t-0.stray");
    log.rename_dir(&to).expect("rename");
    assert_eq!(log.dir(), to);
    assert_eq!(read_all(&log, 0, 1 << 20).len(), 30);
    lead(&log, batch(1, 100), 1);
    assert_eq!(log.flush().expect("flush"), Offset(31));
}
