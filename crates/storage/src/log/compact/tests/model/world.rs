//! The log, and all that was ever written to it.

use std::{collections::HashSet, time::Duration};

use super::*;
use crate::{
    OpenOptions,
    disk::{
        self,
        power_loss::{Journal, Moment, Order},
    },
    durable_file::read_if_present,
    format::AbortedEntry,
};

pub(super) const HOUR: i64 = 3_600_000;
/// How long records stay in topics that delete them.
const RETENTION: Duration = Duration::from_millis(60 * HOUR as u64);
/// Times that a recovery is crashed in its turn, at most.
const CRASHES_MAX: u64 = 3;

/// Where a step ends before its end.
#[derive(Clone, Debug)]
pub(super) struct Crash {
    pub(super) moment: prop::sample::Index,
    /// The machine stops, and not only the process.
    pub(super) power: bool,
    pub(super) seed: u64,
}

/// A record, or the end of a transaction, as it was written.
#[derive(Clone, Debug)]
pub(super) struct Written {
    pub(super) read: Read,
    /// Whose transaction it belongs to, or ends.
    pub(super) transaction: Option<i64>,
    /// What the end of a transaction says.
    pub(super) commits: bool,
}

/// A batch of a producer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Produced {
    pub(super) producer: i64,
    last_offset: i64,
    pub(super) last_sequence: i32,
}

pub(super) struct World {
    pub(super) log: TestLog,
    pub(super) journal: Journal,
    pub(super) written: Vec<Written>,
    pub(super) produced: Vec<Produced>,
    pub(super) now: i64,
    epoch: i32,
    /// What was acknowledged: no crash takes it.
    durable: i64,
    /// Nothing below may be cut: it may have been cleaned by.
    stable: i64,
    /// Where the log was asked to start.
    start: Offset,
    /// What the last checkpoint says, which may be from long ago.
    checkpoint: Checkpoint,
}

#[derive(Clone, Copy, Debug)]
struct Checkpoint {
    recovery_point: Offset,
    log_start: Offset,
    first_dirty: Option<Offset>,
}

impl Checkpoint {
    fn of(log: &Log) -> Self {
        log.note_checkpoint(log.recovery_point(), log.generation());
        Self {
            recovery_point: log.recovery_point(),
            log_start: log.log_start_offset(),
            first_dirty: log.first_dirty_offset(),
        }
    }

    fn options(&self, clean_shutdown: bool) -> OpenOptions {
        OpenOptions {
            recovery_point: Some(self.recovery_point),
            log_start_offset: self.log_start,
            is_alone: false,
            clean_shutdown,
            now_ms: 0,
        }
    }
}

impl World {
    pub(super) fn new(deletes: bool) -> Self {
        let log = TestLog::new(LogConfig {
            delete: deletes,
            retention_ms: Some(RETENTION),
            ..config()
        });
        let journal = Journal::of(&log.dir());
        let checkpoint = Checkpoint::of(&log);
        Self {
            log,
            journal,
            written: Vec::new(),
            produced: Vec::new(),
            now: 100 * HOUR,
            epoch: 1,
            durable: 0,
            stable: 0,
            start: Offset::ZERO,
            checkpoint,
        }
    }

    pub(super) fn take(&mut self, step: Step, crash: Option<Crash>, checkpoints: bool) {
        if checkpoints {
            self.checkpoint = Checkpoint::of(&self.log);
        }
        match step {
            Step::Append {
                records,
                codec,
                producer,
                late_hours,
                new_epoch,
            } => {
                self.epoch += i32::from(new_epoch);
                let mut builder = at(self.now - late_hours * HOUR);
                if let Some(producer) = producer {
                    builder = self.sequenced(builder, producer, records.len());
                }
                self.append(crash, builder, CODECS[codec], &records, None);
            }
            Step::Transact { producer, records } => {
                let builder = BatchBuilder {
                    attributes: 0x10,
                    ..at(self.now)
                };
                let builder = self.sequenced(builder, producer, records.len());
                self.append(crash, builder, Compression::None, &records, Some(producer));
            }
            Step::EndTransaction { producer, commits } => self.end_transaction(producer, commits, crash),
            Step::Roll => self.perform(crash, Order::Files, |log| log.roll(0).expect("roll")),
            Step::Flush => {
                self.perform(crash, Order::Files, |log| {
                    log.flush().expect("flush");
                });
            }
            Step::Compact { hours, map_slots } => {
                self.now += hours * HOUR;
                self.compact(crash, map_slots);
            }
            Step::Retain => {
                let (now, upper) = (self.now, Offset(self.durable));
                self.perform(crash, Order::Files, |log| {
                    log.delete_expired(now, upper).expect("retention");
                });
            }
            Step::DeleteRecords { at } => {
                let start = self.log.log_start_offset().0;
                let to = start + at.index((self.durable - start) as usize + 1) as i64;
                self.perform(crash, Order::Files, |log| {
                    log.advance_log_start(Offset(to)).expect("advance");
                });
            }
            Step::Truncate { at } => self.truncate(at, crash),
            Step::Reopen { properly } => {
                let (closes, closed) = (properly, properly && crash.is_none());
                self.perform(crash, Order::Files, |log| {
                    if closes {
                        log.close(true).expect("close");
                    }
                });
                self.reopen(closed);
            }
        }
        self.durable = self.log.durable_offset().0.max(self.log.log_start_offset().0);
    }

    /// The batch's sequence follows; it counts as produced from here on.
    fn sequenced(&mut self, builder: BatchBuilder, producer: i64, records: usize) -> BatchBuilder {
        let last = self
            .produced
            .iter()
            .rev()
            .find(|batch| batch.producer == producer);
        let base_sequence = last.map_or(0, |last| last.last_sequence + 1);
        self.produced.push(Produced {
            producer,
            last_offset: self.log.log_end_offset().0 + records as i64 - 1,
            last_sequence: base_sequence + records as i32 - 1,
        });
        BatchBuilder {
            producer_id: producer,
            producer_epoch: 0,
            base_sequence,
            ..builder
        }
    }

    fn append(
        &mut self,
        crash: Option<Crash>,
        builder: BatchBuilder,
        codec: Compression,
        records: &[(u8, Option<u8>)],
        transaction: Option<i64>,
    ) {
        let parts: Vec<_> = records
            .iter()
            .map(|(key, value)| ([*key], value.map(|value| vec![value; 20])))
            .collect();
        let borrowed: Vec<(&[u8], Option<&[u8]>)> = parts
            .iter()
            .map(|(key, value)| (&key[..], value.as_deref()))
            .collect();
        self.append_batch(crash, keyed(builder, codec, &borrowed), transaction, true);
    }

    fn append_batch(&mut self, crash: Option<Crash>, batch: Bytes, transaction: Option<i64>, commits: bool) {
        let (end, epoch) = (self.log.log_end_offset().0, self.epoch);
        self.perform_writing(crash, Order::Files, |log| {
            lead(log, batch, epoch);
            let appended = records_from(log, end).into_iter();
            let written = appended.map(|read| Written {
                read,
                transaction,
                commits,
            });
            written.collect()
        });
    }

    /// Ends a producer's transaction, where it has one. The index of aborted ones is nobody's but the test's
    /// by now: it is there before the power may fail again.
    fn end_transaction(&mut self, producer: i64, commits: bool, crash: Option<Crash>) {
        let Some(first) = self.open_transaction(producer) else {
            return;
        };
        let key = [0, 0, 0, u8::from(commits)];
        let builder = BatchBuilder {
            attributes: 0x30,
            producer_id: producer,
            producer_epoch: 0,
            base_sequence: -1,
            max_timestamp: self.now,
            ..at(self.now)
        };
        let marker = builder.build_records(&[(Some(&key), Some(&[0; 6]))]);
        let offset = self.log.log_end_offset();
        let crash = crash.filter(|_| commits);
        self.append_batch(crash, marker.into(), Some(producer), commits);
        if commits {
            return;
        }
        self.log.flush().expect("flush");
        let entry = AbortedEntry {
            producer_id: ProducerId(producer),
            first_offset: Offset(first),
            last_offset: offset,
            last_stable_offset: offset.next(),
        };
        self.rewrite_aborted(|entries| entries.push(entry));
    }

    /// Changes the active segment's index of aborted transactions, durably.
    fn rewrite_aborted(&self, change: impl FnOnce(&mut Vec<AbortedEntry>)) {
        let path = self.log.active().path(FileKind::TransactionIndex);
        let bytes = read_if_present(&path).expect("read").unwrap_or_default();
        let mut entries: Vec<_> = bytes
            .chunks(AbortedEntry::LEN)
            .map(|entry| AbortedEntry::from_bytes(entry).expect("whole"))
            .collect();
        let before = entries.clone();
        change(&mut entries);
        if entries != before {
            let bytes: Vec<u8> = entries.iter().flat_map(|entry| entry.to_bytes()).collect();
            disk::replace_durably(&path, &bytes).expect("write");
        }
    }

    /// Where a producer's transaction began that has not ended.
    pub(super) fn open_transaction(&self, producer: i64) -> Option<i64> {
        let own = self
            .written
            .iter()
            .filter(|written| written.transaction == Some(producer));
        own.fold(None, |open, written| {
            if written.read.control {
                None
            } else {
                open.or(Some(written.read.offset))
            }
        })
    }

    /// The offsets of records whose transaction was aborted.
    pub(super) fn aborted(&self) -> HashSet<i64> {
        let (mut open, mut aborted) = (BTreeMap::<i64, Vec<i64>>::new(), HashSet::new());
        for written in &self.written {
            let Some(producer) = written.transaction else {
                continue;
            };
            let own = open.entry(producer).or_default();
            if !written.read.control {
                own.push(written.read.offset);
            } else if written.commits {
                own.clear();
            } else {
                aborted.extend(own.drain(..));
            }
        }
        aborted
    }

    fn compact(&mut self, crash: Option<Crash>, map_slots: u64) {
        // What was acknowledged; the rest may still be cut.
        self.log.flush().expect("flush");
        self.durable = self.log.durable_offset().0;
        self.stable = self.durable;
        let before = self.holding();
        let (stable, now) = (self.stable, self.now);
        let crashes = crash.is_some();
        let mut done = None;
        self.perform(crash, Order::Files, |log| {
            done = Some(try_compact(log, stable, now, 24 * map_slots).expect("compacts"));
        });
        if !crashes {
            self.check_cleaned(&before, &done.expect("compacted"));
        }
    }

    /// A crash leaves the log's start where it was, on its way, or where a checkpoint told long ago: whoever asked
    /// asks again.
    fn ask_for_start(&mut self) {
        assert!(self.log.log_start_offset() <= self.start);
        // Whatever is left can be read.
        let _ = records(&self.log);
        self.log.advance_log_start(self.start).expect("advance");
        assert_eq!(self.log.log_start_offset(), self.start);
    }

    fn truncate(&mut self, at: prop::sample::Index, crash: Option<Crash>) {
        // The batch that holds the log's start stays.
        let start = self.log.log_start_offset();
        let first = batches(&self.log)
            .first()
            .map(|(header, _)| (header.base_offset, header.next_offset()));
        let first = first
            .filter(|&(base, _)| base < start)
            .map_or(start, |(_, next)| next);
        let lowest = self.stable.max(first.0);
        let end = self.log.log_end_offset().0;
        let to = lowest + at.index((end - lowest) as usize + 1) as i64;
        let mut kept = to;
        // The newest segments go first, and what a file system may lose of that is the end of it.
        self.perform(crash, Order::Directory, |log| {
            log.truncate_to(Offset(to)).expect("truncate");
            kept = log.log_end_offset().0;
        });
        assert!(kept >= lowest, "what is stable ends with a batch");
        self.rewrite_aborted_above();
    }

    /// What is at or above the log's end is not written any more.
    fn forget_above(&mut self) {
        let end = self.log.log_end_offset().0;
        self.written.retain(|written| written.read.offset < end);
        self.produced.retain(|batch| batch.last_offset < end);
    }

    fn rewrite_aborted_above(&self) {
        let end = self.log.log_end_offset();
        self.rewrite_aborted(|entries| entries.retain(|entry| entry.last_offset < end));
    }

    fn perform(&mut self, crash: Option<Crash>, order: Order, action: impl FnOnce(&Log)) {
        self.perform_writing(crash, order, |log| {
            action(log);
            Vec::new()
        });
    }

    /// Does something to the log, up to a crash if there is to be one; `action` returns what was written by
    /// it when it is done.
    fn perform_writing(
        &mut self,
        crash: Option<Crash>,
        order: Order,
        action: impl FnOnce(&Log) -> Vec<Written>,
    ) {
        let Some(crash) = crash else {
            self.written.extend(action(&self.log));
            self.start = self.log.log_start_offset();
            return self.forget_above();
        };
        let before = self.log.log_end_offset().0;
        let (log, mut written) = (&self.log, Vec::new());
        let moments = self.journal.moments(|| written = action(log));
        self.written.extend(written);
        self.start = self.log.log_start_offset();
        let after = self.log.log_end_offset().0;
        let least = if crash.power { self.durable } else { before }.min(after);
        self.recover(&crash, order, moments, least..=before.max(after));
        self.ask_for_start();
        self.forget_above();
        self.rewrite_aborted_above();
    }

    /// Opens what a crash leaves, which may be crashed in its turn.
    fn recover(
        &mut self,
        crash: &Crash,
        order: Order,
        mut moments: Vec<Moment>,
        ends: std::ops::RangeInclusive<i64>,
    ) {
        let (mut order, mut highest) = (order, *ends.end());
        let config = self.log.config().as_ref().clone();
        for round in 0..CRASHES_MAX {
            let seed = crash.seed.wrapping_add(round);
            let moment = moments.swap_remove(crash.moment.index(moments.len()));
            let dir = tempfile::tempdir().expect("temp dir");
            let path = dir.path().join("t-0");
            if crash.power {
                moment.leave(order, seed, &path);
            } else {
                moment.copy(&path);
            }
            self.journal.turn_to(&path);
            let mut opened = None;
            let checkpoint = self.checkpoint;
            moments = self.journal.moments(|| {
                opened = Some(Log::open(&path, config.clone(), checkpoint.options(false)));
            });
            let whence = format!("before {}, {crash:?}, {order:?}", moment.before);
            let (log, report) = opened
                .expect("opened")
                .unwrap_or_else(|error| panic!("{whence}: {error}"));
            // Without its power a log may seem to have lost what nobody was promised.
            assert!(crash.power || !report.lost, "{whence}");
            let end = log.log_end_offset().0;
            assert!(
                (*ends.start()..=highest).contains(&end),
                "{end} is not in {ends:?}, {whence}"
            );
            if let Some(first_dirty) = checkpoint.first_dirty {
                log.restore_first_dirty_offset(first_dirty);
            }
            self.log = TestLog { dir, log };
            assert_sound_files(&path);
            if seed % 4 != 0 {
                break;
            }
            (order, highest) = (Order::Files, end);
        }
        self.checkpoint = Checkpoint::of(&self.log);
    }

    /// The process ends and begins again.
    fn reopen(&mut self, properly: bool) {
        let end = self.log.log_end_offset();
        if properly {
            self.checkpoint = Checkpoint::of(&self.log);
        }
        let checkpoint = self.checkpoint;
        let config = self.log.config().as_ref().clone();
        let (log, report) =
            Log::open(&self.log.dir(), config, checkpoint.options(properly)).expect("opens again");
        assert!(!report.lost);
        assert_eq!(log.log_end_offset(), end);
        if let Some(first_dirty) = checkpoint.first_dirty {
            log.restore_first_dirty_offset(first_dirty);
        }
        self.log.log = log;
        assert_sound_files(&self.log.dir());
        self.ask_for_start();
        self.checkpoint = Checkpoint::of(&self.log);
    }

    /// Cleans all there is, and looks at it once more.
    pub(super) fn finish(&mut self) {
        for producer in 10..12 {
            self.end_transaction(producer, true, None);
        }
        self.log.roll(0).expect("roll");
        self.compact(None, 1 << 16);
        self.check();
        self.check_compacted();
        assert_sound_files(&self.log.dir());
        self.show();
    }
}
