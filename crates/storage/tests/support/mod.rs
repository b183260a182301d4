//! What the tests of logs share: batches, options, and a log in a temp dir.
#![allow(dead_code, reason = "each test binary uses its part of the module")]

use bytes::Bytes;
use protocol::{
    LeaderEpoch, Offset,
    batch::{BatchBuilder, BatchHeader},
};
use storage::{
    AppendError, AppendInfo, AppendOutcome, LeaderAppend, Log, LogConfig, OpenOptions, ReadOutcome,
    ReadRequest, StorageError,
};
use tempfile::TempDir;

/// A batch of `count` records with a value of `len` bytes each.
pub(crate) fn batch(count: usize, len: usize) -> Bytes {
    let value = vec![b'v'; len];
    let records = vec![(None, Some(&value[..])); count];
    BatchBuilder::default().build_records(&records).into()
}

/// A batch of one record that is told by its value, at a time.
pub(crate) fn valued(value: &str, timestamp: i64) -> Bytes {
    let builder = BatchBuilder {
        base_timestamp: timestamp,
        max_timestamp: timestamp,
        ..BatchBuilder::default()
    };
    builder.build_records(&[(None, Some(value.as_bytes()))]).into()
}

/// A batch of one record of an idempotent producer.
pub(crate) fn sequenced(producer_id: i64, producer_epoch: i16, base_sequence: i32) -> Bytes {
    let builder = BatchBuilder {
        producer_id,
        producer_epoch,
        base_sequence,
        ..BatchBuilder::default()
    };
    builder.build_records(&[(None, Some(b"v"))]).into()
}

/// A batch as a leader has placed it.
pub(crate) fn placed(base_offset: i64, epoch: i32, count: usize, len: usize) -> Bytes {
    let value = vec![b'p'; len];
    let builder = BatchBuilder {
        base_offset: Offset(base_offset),
        leader_epoch: LeaderEpoch(epoch),
        ..BatchBuilder::default()
    };
    builder
        .build_records(&vec![(None, Some(&value[..])); count])
        .into()
}

/// How a log is opened that was not closed properly and of which no checkpoint tells.
pub(crate) fn unclean() -> OpenOptions {
    OpenOptions {
        recovery_point: None,
        log_start_offset: Offset::ZERO,
        is_alone: false,
        clean_shutdown: false,
        now_ms: 0,
    }
}

pub(crate) fn synced_below(recovery_point: i64) -> OpenOptions {
    OpenOptions {
        recovery_point: Some(Offset(recovery_point)),
        ..unclean()
    }
}

pub(crate) fn clean(log_start: i64) -> OpenOptions {
    OpenOptions {
        clean_shutdown: true,
        log_start_offset: Offset(log_start),
        ..unclean()
    }
}

/// Small segments and dense indexes, so that a few batches meet every boundary.
pub(crate) fn small() -> LogConfig {
    LogConfig {
        segment_bytes: 1000,
        index_interval_bytes: 150,
        file_delete_delay: std::time::Duration::ZERO,
        ..LogConfig::default()
    }
}

/// A log and the temp dir around it.
pub(crate) struct TestLog {
    pub(crate) dir: TempDir,
    pub(crate) log: Log,
}

impl std::ops::Deref for TestLog {
    type Target = Log;

    fn deref(&self) -> &Log {
        &self.log
    }
}

impl TestLog {
    pub(crate) fn new(config: LogConfig) -> Self {
        let dir = tempfile::tempdir().expect("temp dir");
        let (log, report) = Log::open(&dir.path().join("t-0"), config, unclean()).expect("open");
        assert!(!report.lost);
        Self { dir, log }
    }

    /// Drops the log as a crash would and opens it again.
    pub(crate) fn reopen(self, options: OpenOptions) -> (Self, storage::RecoveryReport) {
        let config = self.log.config().as_ref().clone();
        let path = self.log.dir();
        drop(self.log);
        let (log, report) = Log::open(&path, config, options).expect("open again");
        (Self { dir: self.dir, log }, report)
    }
}

pub(crate) fn try_lead(log: &Log, batches: Bytes, epoch: i32) -> Result<AppendOutcome, AppendError> {
    log.append_as_leader(LeaderAppend {
        batches,
        leader_epoch: LeaderEpoch(epoch),
        now_ms: 0,
        log_append_time: None,
    })
}

pub(crate) fn lead(log: &Log, batches: Bytes, epoch: i32) -> AppendInfo {
    match try_lead(log, batches, epoch).expect("append") {
        AppendOutcome::Appended(info) => info,
        duplicate @ AppendOutcome::Duplicate { .. } => panic!("{duplicate:?}"),
    }
}

pub(crate) fn try_read(
    log: &Log,
    from: i64,
    upper: i64,
    max_bytes: usize,
) -> Result<ReadOutcome, StorageError> {
    log.read(ReadRequest {
        from: Offset(from),
        upper: Offset(upper),
        max_bytes,
        min_one_batch: true,
    })
}

pub(crate) fn read(log: &Log, from: i64) -> ReadOutcome {
    try_read(log, from, i64::MAX, 1 << 20).expect("read")
}

/// Base offset, last offset and epoch of each batch.
pub(crate) fn headers(bytes: &Bytes) -> Vec<(i64, i64, i32)> {
    protocol::batch::Batches::new(bytes.clone())
        .map(|batch| {
            let (header, _): (BatchHeader, Bytes) = batch.expect("whole batch");
            (
                header.base_offset.0,
                header.last_offset().0,
                header.leader_epoch.0,
            )
        })
        .collect()
}

/// Every batch from `from` to the log's end, read segment by segment.
pub(crate) fn read_all(log: &Log, from: i64, max_bytes: usize) -> Vec<(i64, i64, i32)> {
    let mut all = Vec::new();
    let mut at = from;
    while at < log.log_end_offset().0 {
        let outcome = try_read(log, at, i64::MAX, max_bytes).expect("read");
        assert!(outcome.next_offset.0 > at, "no progress at {at}");
        all.extend(headers(&outcome.bytes));
        at = outcome.next_offset.0;
    }
    all
}
