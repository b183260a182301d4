//! A broker's log directories: one log a partition, of which a loss of power takes what was not synced.

use std::collections::BTreeMap;

use bytes::Bytes;
use protocol::batch::{BatchBuilder, BatchHeader, Batches};
use protocol::{DirectoryId, LeaderEpoch, Offset, TopicPartition};
use replication::{EpochLookup, LogView, Position};
use storage::epochs::EpochCache;
use storage::producers::ProducerState;

/// One record; each is a batch of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// The epoch it was appended in.
    pub(crate) epoch: LeaderEpoch,
    /// No other record has it.
    pub(crate) value: i64,
    /// Producer id and sequence, where its producer is idempotent.
    pub(crate) sequence: Option<(i64, i32)>,
}

impl Record {
    fn batch(&self, at: Offset) -> Bytes {
        let (producer_id, base_sequence) = self.sequence.unwrap_or((-1, -1));
        let batch = BatchBuilder {
            base_offset: at,
            leader_epoch: self.epoch,
            base_timestamp: self.value,
            producer_id,
            producer_epoch: if producer_id < 0 { -1 } else { 0 },
            base_sequence,
            ..BatchBuilder::default()
        };
        batch.build_records(&[(None, None)]).into()
    }

    /// The header of its batch at this offset.
    pub(crate) fn header(&self, at: Offset) -> BatchHeader {
        let batch = Batches::new(self.batch(at)).next();
        batch
            .and_then(Result::ok)
            .expect("the simulation builds whole batches")
            .0
    }

    fn of(header: &BatchHeader) -> Self {
        Self {
            epoch: header.leader_epoch,
            value: header.base_timestamp,
            sequence: header.producer_id.map(|id| (id.get(), header.base_sequence)),
        }
    }
}

/// One replica's log. Offsets are indexes: nothing is ever deleted from the front.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    pub(crate) records: Vec<Record>,
    pub(crate) durable: usize,
    /// Voids flushes that began before a truncation.
    pub(crate) generation: u64,
    pub(crate) flushing: bool,
    pub(crate) epochs: EpochCache,
    /// What idempotent producers have written, as the product's leaders and followers keep it.
    pub(crate) producers: ProducerState,
    /// How many records are known to be what was committed: the checker's own.
    pub(crate) verified: usize,
    /// Which directory it lies in.
    pub(crate) home: usize,
}

/// A log directory, as a broker with one or two of them has it.
#[derive(Debug)]
pub(crate) struct Directory {
    pub(crate) id: DirectoryId,
    /// It cannot be read or written: what lies in it is there, and out of reach.
    pub(crate) failed: bool,
}

/// What survives a process.
#[derive(Debug)]
pub(crate) struct Disk {
    pub(crate) directories: Vec<Directory>,
    pub(crate) logs: BTreeMap<TopicPartition, Log>,
    /// Copies that are to take the place of the log, in the other directory.
    pub(crate) futures: BTreeMap<TopicPartition, Log>,
}

impl Disk {
    /// Blank directories.
    pub(crate) fn new(ids: impl Iterator<Item = DirectoryId>) -> Self {
        Self {
            directories: ids.map(|id| Directory { id, failed: false }).collect(),
            logs: BTreeMap::new(),
            futures: BTreeMap::new(),
        }
    }
}

impl Log {
    pub(crate) fn end(&self) -> Offset {
        Offset(self.records.len() as i64)
    }

    /// `pretend`: a mutation by which all that was written passes for durable.
    pub(crate) fn view(&self, pretend: bool) -> LogView {
        let durable = if pretend { self.records.len() } else { self.durable };
        LogView {
            start: Offset::ZERO,
            end: self.end(),
            durable: Offset(durable as i64),
        }
    }

    pub(crate) fn position(&self, pretend: bool) -> Position {
        let view = self.view(pretend);
        Position {
            last_epoch: self.records.last().map(|record| record.epoch),
            log_end: view.end,
            durable: view.durable,
            log_start: view.start,
        }
    }

    pub(crate) fn push(&mut self, record: Record) {
        self.epochs.assign(record.epoch, self.end());
        if record.sequence.is_some() {
            self.producers.update(&record.header(self.end()));
        }
        self.records.push(record);
    }

    pub(crate) fn truncate(&mut self, end: usize) {
        self.records.truncate(end);
        self.durable = self.durable.min(self.records.len());
        self.verified = self.verified.min(self.records.len());
        self.generation += 1;
        self.flushing = false;
        self.epochs.truncate_from_end(self.end());
        self.replay_producers();
    }

    fn replay_producers(&mut self) {
        self.producers.clear();
        for (at, record) in self.records.iter().enumerate() {
            if record.sequence.is_some() {
                self.producers.update(&record.header(Offset(at as i64)));
            }
        }
    }

    /// The directory has failed: what is being flushed may or may not be on it.
    pub(crate) fn void_flushes(&mut self) {
        self.generation += 1;
        self.flushing = false;
    }

    /// What recovery finds: epochs are read from the records, flushes of the process before are void.
    pub(crate) fn recover(&mut self) {
        self.void_flushes();
        self.epochs = EpochCache::default();
        for (at, record) in self.records.iter().enumerate() {
            self.epochs.assign(record.epoch, Offset(at as i64));
        }
        self.replay_producers();
    }

    /// Whole batches from `from` on, one record each, and the offset after them.
    pub(crate) fn read(&self, from: usize, max_bytes: usize) -> (Bytes, Offset) {
        let mut bytes = Vec::new();
        let mut next = from;
        for record in self.records.iter().skip(from) {
            let batch = record.batch(Offset(next as i64));
            if !bytes.is_empty() && bytes.len() + batch.len() > max_bytes {
                break;
            }
            bytes.extend_from_slice(&batch);
            next += 1;
        }
        (bytes.into(), Offset(next as i64))
    }
}

/// The records of batches that [`Log::read`] made.
pub(crate) fn decode(batches: Bytes) -> Vec<Record> {
    Batches::new(batches)
        .map(|batch| {
            let (header, _) = batch.expect("the simulation builds whole batches");
            Record::of(&header)
        })
        .collect()
}

/// The epochs of a log, as the pure core asks for them.
pub(crate) struct Epochs<'a> {
    pub(crate) log: &'a Log,
    /// A mutation: every position passes for a prefix of this log.
    pub(crate) blind: bool,
}

impl EpochLookup for Epochs<'_> {
    fn end_offset_for_epoch(&self, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        if self.blind {
            return Some((epoch, Offset(i64::MAX)));
        }
        self.log.epochs.end_offset(epoch, self.log.end())
    }
}
