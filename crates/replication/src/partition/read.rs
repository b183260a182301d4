//! What clients read: records, and positions in the log.

use bytes::Bytes;
use protocol::{LeaderEpoch, Offset};
use storage::{Log, ReadRequest, StorageError, TimestampedOffset};

use super::Partition;
use crate::{ReadRefused, RoleError};

/// Which records a consumer may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Up to the high watermark.
    ReadUncommitted,
    /// Up to the last stable offset.
    ReadCommitted,
}

/// A client's read.
#[derive(Clone, Copy, Debug)]
pub struct FetchRead {
    /// The first offset wanted.
    pub from: Offset,
    /// Bytes to return at most.
    pub max_bytes: usize,
    /// Return a first batch that is larger than `max_bytes` all the same.
    pub min_one_batch: bool,
    /// Which records may be seen.
    pub isolation: Isolation,
    /// The leader epoch that the client knows (KIP-320).
    pub current_leader_epoch: Option<LeaderEpoch>,
    /// Epoch of the last record that the client has: a log that has diverged from it is told so.
    pub last_fetched_epoch: Option<LeaderEpoch>,
    /// Whether a follower may answer (KIP-392).
    pub from_follower_ok: bool,
}

/// Where an epoch ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEnd {
    /// The largest epoch that is not above the asked one.
    pub epoch: LeaderEpoch,
    /// The offset after its last record.
    pub end_offset: Offset,
}

/// What a read found.
#[derive(Clone, Debug)]
pub struct FetchedRecords {
    /// Whole batches; the first may begin before the wanted offset. Empty where there is nothing yet.
    pub records: Bytes,
    /// The high watermark as of the read; `None` while a new leader has not reached the start of its
    /// epoch. What it remembers may lie before acknowledged records, and a client would take it for the
    /// end of the partition.
    pub high_watermark: Option<Offset>,
    /// The last stable offset as of the read; `None` as for the high watermark.
    pub last_stable_offset: Option<Offset>,
    /// The first offset that is kept.
    pub log_start_offset: Offset,
    /// Where the client's history and the log's part; there are no records then.
    pub diverging_epoch: Option<EpochEnd>,
}

/// The offset below which no transaction is open. There are no transactions yet: all that is committed
/// is stable.
pub(super) fn last_stable(high_watermark: Offset) -> Offset {
    high_watermark
}

impl Partition {
    /// Reads records for a client. Where nothing is there yet the answer is empty and comes without a
    /// visit to the disk: [`Partition::subscribe_high_watermark`] tells when to ask again.
    pub async fn read(&self, request: FetchRead) -> Result<FetchedRecords, ReadRefused> {
        let (mut found, committed, sole) = {
            let core = self.core.lock();
            let view = core.view(&self.log.load());
            let upper = core.state.check_read(
                request.from,
                request.current_leader_epoch,
                request.from_follower_ok,
                view,
            )?;
            let settled = core.state.settled_high_watermark(None) != Err(ReadRefused::NotAvailable);
            let found = FetchedRecords {
                records: Bytes::new(),
                high_watermark: settled.then_some(upper),
                last_stable_offset: settled.then_some(last_stable(upper)),
                log_start_offset: view.start,
                diverging_epoch: None,
            };
            let sole = core
                .state
                .leader()
                .is_ok_and(|leader| leader.replicas().len() == 1);
            (found, upper, sole)
        };
        if let Some(asked) = request.last_fetched_epoch
            && let Some(diverged) = self.diverges(asked, request.from)
        {
            found.diverging_epoch = Some(diverged);
            return Ok(found);
        }
        let upper = match request.isolation {
            Isolation::ReadUncommitted => committed,
            Isolation::ReadCommitted => last_stable(committed),
        };
        if request.from >= upper || (request.max_bytes == 0 && !request.min_one_batch) {
            return Ok(found);
        }
        let read = ReadRequest {
            from: request.from,
            upper,
            max_bytes: request.max_bytes,
            min_one_batch: request.min_one_batch,
        };
        let log = self.log.load_full();
        let outcome = self.shared.reads.run(move || log.read(read)).await;
        match outcome {
            Err(_busy) => Err(ReadRefused::Busy),
            Ok(Ok(outcome)) => {
                found.records = outcome.bytes;
                Ok(found)
            }
            Ok(Err(error)) => Err(self.read_refused(request.from, &error, sole)),
        }
    }

    /// Where a read can go on that a read from `from` found damaged, or gave nothing of: at the next batch
    /// that is whole, or the log's end, as [`Log::behind_damage`] finds them. Only for a leader that is its partition's sole replica;
    /// else the damage is another replica's to mend, and nothing may be passed over.
    pub async fn behind_damage(&self, from: Offset) -> Result<Offset, ReadRefused> {
        if self.core.lock().state.leader()?.replicas().len() != 1 {
            return Err(ReadRefused::Corrupt);
        }
        let log = self.log.load_full();
        match self.shared.reads.run(move || log.behind_damage(from)).await {
            Err(_busy) => Err(ReadRefused::Busy),
            Ok(Ok(next)) => Ok(next),
            Ok(Err(error)) => Err(self.read_refused(from, &error, true)),
        }
    }

    /// Where the log parts from a history whose last epoch is `asked` and that ends at `from`.
    fn diverges(&self, asked: LeaderEpoch, from: Offset) -> Option<EpochEnd> {
        let (epoch, end_offset) = self.log.load().end_offset_for_epoch(asked)?;
        (epoch < asked || end_offset < from).then_some(EpochEnd { epoch, end_offset })
    }

    /// Sorts a failed read. Damaged bytes take the replica offline where another can rebuild it; a
    /// sole replica stays, for what is whole.
    pub(super) fn read_refused(&self, from: Offset, error: &StorageError, sole: bool) -> ReadRefused {
        match error {
            StorageError::OffsetOutOfRange {
                log_start, log_end, ..
            } => ReadRefused::OutOfRange {
                from,
                log_start: *log_start,
                end: *log_end,
            },
            StorageError::Corrupt { .. } => {
                tracing::error!(topic = %self.topic, partition = %self.tp.partition, %error, "the log is damaged");
                if !sole {
                    self.storage_failed();
                }
                ReadRefused::Corrupt
            }
            other => {
                tracing::error!(topic = %self.topic, partition = %self.tp.partition, error = %other, "read failed");
                self.storage_failed_if_dead();
                ReadRefused::Storage
            }
        }
    }

    /// The first offset that is kept, and the epoch of its record.
    pub fn earliest(&self, asked: Option<LeaderEpoch>) -> Result<(Offset, Option<LeaderEpoch>), ReadRefused> {
        self.core.lock().state.check_append(asked)?;
        let start = self.log.load().log_start_offset();
        Ok((start, self.log.load().epoch_at(start)))
    }

    /// The end of what consumers may see, and the leader's epoch. Refused until a new leader has
    /// reached the start of its epoch.
    pub fn latest(
        &self,
        asked: Option<LeaderEpoch>,
        isolation: Isolation,
    ) -> Result<(Offset, LeaderEpoch), ReadRefused> {
        let core = self.core.lock();
        let end = core.state.settled_high_watermark(asked)?;
        let epoch = core.state.check_append(asked)?;
        let end = match isolation {
            Isolation::ReadUncommitted => end,
            Isolation::ReadCommitted => last_stable(end),
        };
        Ok((end, epoch))
    }

    /// The first record with a timestamp of at least `timestamp` (ms since 1970) that consumers may
    /// see.
    pub async fn offset_for_timestamp(
        &self,
        timestamp: i64,
        asked: Option<LeaderEpoch>,
    ) -> Result<Option<TimestampedOffset>, ReadRefused> {
        self.search(asked, move |log| log.offset_for_timestamp(timestamp))
            .await
    }

    /// The record with the largest timestamp (KIP-734), where consumers may see it.
    pub async fn max_timestamp(
        &self,
        asked: Option<LeaderEpoch>,
    ) -> Result<Option<TimestampedOffset>, ReadRefused> {
        self.search(asked, Log::max_timestamp).await
    }

    async fn search(
        &self,
        asked: Option<LeaderEpoch>,
        search: impl FnOnce(&Log) -> Result<Option<TimestampedOffset>, StorageError> + Send + 'static,
    ) -> Result<Option<TimestampedOffset>, ReadRefused> {
        let end = self.core.lock().state.settled_high_watermark(asked)?;
        let log = self.log.load_full();
        match self.shared.reads.run(move || search(&log)).await {
            Err(_busy) => Err(ReadRefused::Busy),
            Ok(Ok(found)) => Ok(found.filter(|found| found.offset < end)),
            Ok(Err(error)) => Err(self.read_refused(end, &error, true)),
        }
    }

    /// Where `epoch` ends in the leader's log (OffsetForLeaderEpoch); `None`: no such epoch is known.
    pub fn end_offset_for_epoch(
        &self,
        epoch: LeaderEpoch,
        asked: Option<LeaderEpoch>,
    ) -> Result<Option<EpochEnd>, RoleError> {
        let current = self.core.lock().state.check_append(asked)?;
        if epoch > current {
            return Ok(None);
        }
        let end = self.log.load().end_offset_for_epoch(epoch);
        Ok(end.map(|(epoch, end_offset)| EpochEnd { epoch, end_offset }))
    }

    /// DeleteRecords: everything below `up_to` (`None`: below the high watermark) goes. Returns the
    /// log's first offset afterwards; followers learn it with the next data.
    pub async fn delete_records(&self, up_to: Option<Offset>) -> Result<Offset, ReadRefused> {
        let high_watermark = self.core.lock().state.settled_high_watermark(None)?;
        let log_start = self.log.load().log_start_offset();
        let target = up_to.unwrap_or(high_watermark);
        if target > high_watermark {
            return Err(ReadRefused::OutOfRange {
                from: target,
                log_start,
                end: high_watermark,
            });
        }
        let partition = self.this();
        let deleted = self
            .strand
            .run(move || {
                partition.core.lock().state.check_append(None)?;
                if target > partition.log.load().log_start_offset()
                    && let Err(error) = partition.log.load().advance_log_start(target)
                {
                    return Err(partition.read_refused(target, &error, true));
                }
                Ok(partition.log.load().log_start_offset())
            })
            .await;
        let log_start = deleted.map_err(|_| ReadRefused::Busy)??;
        self.listeners.tell(self.tp, false);
        Ok(log_start)
    }
}
