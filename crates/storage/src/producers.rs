//! Idempotent producers: what each of them appended last, and whether the next batch follows (KIP-98).
//!
//! [`ProducerState`] is pure: it takes batch headers in log order and holds, for each producer, its
//! epoch and its last five batches with the offsets they got. Five is what a client may have in
//! flight, so that any batch it can still repeat is recognised and answered with its first offset.
//! Leaders check before they append; leaders, followers and replay update after.

use std::{collections::HashMap, time::Duration};

use protocol::{Offset, ProducerEpoch, ProducerId, batch::BatchHeader};

/// Batches remembered per producer: Kafka's bound on `max.in.flight.requests.per.connection` for
/// idempotent producers.
pub const BATCHES_KEPT: usize = 5;

/// What a leader does with a batch, by its producer's sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SequenceCheck {
    /// It is the next one, or its producer is not idempotent: append it.
    New,
    /// It is in the log already: answer with the offsets that it has.
    Duplicate {
        /// Offset of its first record.
        first_offset: Offset,
        /// Offset of its last record; the answer waits until the high watermark has passed it.
        last_offset: Offset,
        /// The batch's max timestamp, ms since 1970; the append time under LogAppendTime.
        timestamp: i64,
    },
}

/// Why a leader refuses a batch of an idempotent producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SequenceError {
    /// A batch before this one is missing. On the wire: `OUT_OF_ORDER_SEQUENCE_NUMBER`.
    #[error("producer {producer_id}: sequence {found} does not follow, {expected} is expected")]
    OutOfOrder {
        /// Whose batch it is.
        producer_id: ProducerId,
        /// The sequence that would follow.
        expected: i32,
        /// The batch's base sequence.
        found: i32,
    },
    /// A newer instance of the producer has written. On the wire: `INVALID_PRODUCER_EPOCH`.
    #[error("producer {producer_id}: epoch {found} is fenced by epoch {current}")]
    InvalidEpoch {
        /// Whose batch it is.
        producer_id: ProducerId,
        /// The newest epoch seen.
        current: ProducerEpoch,
        /// The batch's epoch.
        found: ProducerEpoch,
    },
}

/// One appended batch of a producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerBatch {
    /// Sequence of the batch's last record.
    pub last_sequence: i32,
    /// Offset of the batch's last record.
    pub last_offset: Offset,
    /// Offsets from its first record to its last.
    pub offset_delta: i32,
    /// Its max timestamp, ms since 1970, −1 for none.
    pub timestamp: i64,
}

impl ProducerBatch {
    /// Sequence of the batch's first record; sequences wrap from `i32::MAX` to 0.
    pub fn first_sequence(&self) -> i32 {
        let first = i64::from(self.last_sequence) - i64::from(self.offset_delta);
        first.rem_euclid(1 << 31) as i32
    }

    /// Offset of the batch's first record.
    pub fn first_offset(&self) -> Offset {
        Offset(self.last_offset.0 - i64::from(self.offset_delta))
    }
}

/// What is known of one producer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerEntry {
    epoch: ProducerEpoch,
    batches: Vec<ProducerBatch>,
    coordinator_epoch: i32,
    transaction_start: Option<Offset>,
}

impl ProducerEntry {
    pub(crate) fn new(epoch: ProducerEpoch) -> Self {
        Self {
            epoch,
            batches: Vec::with_capacity(1),
            coordinator_epoch: -1,
            transaction_start: None,
        }
    }

    /// The newest epoch that wrote.
    pub fn epoch(&self) -> ProducerEpoch {
        self.epoch
    }

    /// The last batches of that epoch, oldest first, at most [`BATCHES_KEPT`].
    pub fn batches(&self) -> &[ProducerBatch] {
        &self.batches
    }

    /// Sequence of the last record of that epoch, `None` when the epoch has no data yet.
    pub fn last_sequence(&self) -> Option<i32> {
        self.batches.last().map(|batch| batch.last_sequence)
    }

    /// Epoch of the transaction coordinator that last ended a transaction here, −1 for none.
    pub fn coordinator_epoch(&self) -> i32 {
        self.coordinator_epoch
    }

    /// First offset of the producer's open transaction.
    pub fn transaction_start(&self) -> Option<Offset> {
        self.transaction_start
    }

    pub(crate) fn set_coordinator_epoch(&mut self, epoch: i32) {
        self.coordinator_epoch = epoch;
    }

    pub(crate) fn set_transaction_start(&mut self, start: Option<Offset>) {
        self.transaction_start = start;
    }

    pub(crate) fn push(&mut self, batch: ProducerBatch) {
        if self.batches.len() == BATCHES_KEPT {
            self.batches.remove(0);
        }
        self.batches.push(batch);
    }

    fn next_sequence(&self) -> i32 {
        match self.last_sequence() {
            None | Some(i32::MAX) => 0,
            Some(last) => last + 1,
        }
    }

    fn duplicate_of(&self, header: &BatchHeader) -> Option<&ProducerBatch> {
        if header.producer_epoch != self.epoch {
            return None;
        }
        self.batches.iter().find(|batch| {
            batch.first_sequence() == header.base_sequence && batch.last_sequence == header.last_sequence()
        })
    }
}

#[derive(Clone, Debug)]
struct Producer {
    entry: ProducerEntry,
    /// When a sweep first found the producer idle; `None` since its last batch.
    idle_since_ms: Option<i64>,
}

/// The producers of one partition, as of some offset of its log.
#[derive(Clone, Debug, Default)]
pub struct ProducerState {
    producers: HashMap<ProducerId, Producer>,
}

impl PartialEq for ProducerState {
    /// Two states are equal when they answer every batch alike; how long a producer is idle is not
    /// part of that.
    fn eq(&self, other: &Self) -> bool {
        self.producers.len() == other.producers.len()
            && self.entries().all(|(id, entry)| other.get(id) == Some(entry))
    }
}

impl ProducerState {
    /// No producer has written.
    pub fn new() -> Self {
        Self::default()
    }

    /// What a leader does with a batch that is not yet in the log, by Kafka's rules: a duplicate of
    /// one of the last five is answered; an older epoch is fenced; a new epoch begins at sequence 0;
    /// within an epoch the sequence continues. A producer of which nothing is known (its batches
    /// were deleted by retention, or it was idle for too long) may continue wherever it is.
    pub fn check(&self, header: &BatchHeader) -> Result<SequenceCheck, SequenceError> {
        let Some(producer_id) = header.producer_id else {
            return Ok(SequenceCheck::New);
        };
        if header.is_control() {
            return Ok(SequenceCheck::New);
        }
        let known = self.get(producer_id);
        let out_of_order = |expected| SequenceError::OutOfOrder {
            producer_id,
            expected,
            found: header.base_sequence,
        };
        if header.base_sequence < 0 {
            return Err(out_of_order(known.map_or(0, ProducerEntry::next_sequence)));
        }
        let Some(entry) = known else {
            return Ok(SequenceCheck::New);
        };
        if let Some(batch) = entry.duplicate_of(header) {
            return Ok(SequenceCheck::Duplicate {
                first_offset: batch.first_offset(),
                last_offset: batch.last_offset,
                timestamp: batch.timestamp,
            });
        }
        if header.producer_epoch < entry.epoch {
            return Err(SequenceError::InvalidEpoch {
                producer_id,
                current: entry.epoch,
                found: header.producer_epoch,
            });
        }
        let expected = if header.producer_epoch == entry.epoch {
            entry.next_sequence()
        } else {
            0
        };
        if header.base_sequence == expected {
            Ok(SequenceCheck::New)
        } else {
            Err(out_of_order(expected))
        }
    }

    /// Takes in a batch that is in the log: after an append as leader or follower, or in replay.
    /// Batches come in log order; nothing is refused, since the log is what happened.
    pub fn update(&mut self, header: &BatchHeader) {
        let Some(producer_id) = header.producer_id else {
            return;
        };
        let producer = self.producers.entry(producer_id).or_insert_with(|| Producer {
            entry: ProducerEntry::new(header.producer_epoch),
            idle_since_ms: None,
        });
        producer.idle_since_ms = None;
        let entry = &mut producer.entry;
        if entry.epoch != header.producer_epoch {
            entry.epoch = header.producer_epoch;
            entry.batches.clear();
        }
        if header.is_control() {
            entry.transaction_start = None;
            return;
        }
        if header.is_transactional() {
            entry.transaction_start.get_or_insert(header.base_offset);
        }
        if header.base_sequence >= 0 {
            entry.push(ProducerBatch {
                last_sequence: header.last_sequence(),
                last_offset: header.last_offset(),
                offset_delta: header.last_offset_delta,
                timestamp: header.max_timestamp,
            });
        }
    }

    /// Forgets every producer: before a snapshot is loaded and the log replayed behind it.
    pub fn clear(&mut self) {
        self.producers.clear();
    }

    /// Forgets the producers that were idle for `after`, and returns how many. `now_ms` is any clock
    /// that runs evenly, ideally a monotonic one: a producer is idle from the first call that finds
    /// no batch of it since the call before. (Kafka goes by the batches' timestamps, which are the
    /// client's to choose, and a client with an old clock loses its protection at once.) A producer
    /// with an open transaction stays.
    pub fn expire(&mut self, now_ms: i64, after: Duration) -> usize {
        let after_ms = i64::try_from(after.as_millis()).unwrap_or(i64::MAX);
        let before = self.producers.len();
        self.producers.retain(|_, producer| {
            let idle_since = *producer.idle_since_ms.get_or_insert(now_ms);
            producer.entry.transaction_start.is_some() || now_ms.saturating_sub(idle_since) < after_ms
        });
        before - self.producers.len()
    }

    /// What is known of one producer.
    pub fn get(&self, producer_id: ProducerId) -> Option<&ProducerEntry> {
        self.producers.get(&producer_id).map(|producer| &producer.entry)
    }

    /// Every producer, in no order.
    pub fn entries(&self) -> impl Iterator<Item = (ProducerId, &ProducerEntry)> {
        self.producers.iter().map(|(&id, producer)| (id, &producer.entry))
    }

    /// Each producer's epoch and the last offset of its data, where that epoch has any: the batch
    /// that tells them must not be forgotten.
    pub fn last_batches(&self) -> HashMap<ProducerId, (ProducerEpoch, Option<Offset>)> {
        let last = |(id, entry): (ProducerId, &ProducerEntry)| {
            let offset = entry.batches.last().map(|batch| batch.last_offset);
            (id, (entry.epoch, offset))
        };
        self.entries().map(last).collect()
    }

    /// Where the oldest transaction begins that has not ended.
    pub fn first_open_transaction(&self) -> Option<Offset> {
        self.entries()
            .filter_map(|(_, entry)| entry.transaction_start)
            .min()
    }

    /// How many producers are known.
    pub fn len(&self) -> usize {
        self.producers.len()
    }

    /// Whether no producer is known.
    pub fn is_empty(&self) -> bool {
        self.producers.is_empty()
    }

    pub(crate) fn entry_mut(&mut self, producer_id: ProducerId, epoch: ProducerEpoch) -> &mut ProducerEntry {
        let producer = self.producers.entry(producer_id).or_insert_with(|| Producer {
            entry: ProducerEntry::new(epoch),
            idle_since_ms: None,
        });
        if producer.entry.epoch != epoch {
            producer.entry = ProducerEntry::new(epoch);
        }
        &mut producer.entry
    }
}

#[cfg(test)]
mod tests;
