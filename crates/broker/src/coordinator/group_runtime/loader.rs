//! Reads a partition of `__consumer_offsets` into a shard.

use std::sync::Arc;

use protocol::batch::{BatchError, BatchHeader, Batches, HEADER_LEN};
use protocol::records::{Deltas, OpenBounds, RecordWalk, WalkError, open};
use protocol::{LeaderEpoch, Offset};
use replication::{FetchRead, Isolation, Partition, ReadRefused};
use tokio::sync::Notify;

use super::clock::Clock;
use crate::coordinator::group::{GroupConfig, GroupShard};

/// Bytes read at a time; a larger batch is read whole.
const READ_BYTES: usize = 4 << 20;

/// Why a shard was not loaded.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError {
    /// This broker does not lead the partition in the epoch any more.
    #[error("this broker does not lead the partition any more")]
    Lost,
    /// The log cannot be read now.
    #[error("the log cannot be read: {0}")]
    Read(#[from] ReadRefused),
    /// Replaying ended in a panic.
    #[error("replaying failed: {0}")]
    Panicked(#[from] tokio::task::JoinError),
}

/// A shard, and what it was made of.
pub(super) struct Loaded {
    pub(super) shard: GroupShard,
    /// The offset after the last record; everything below is committed.
    pub(super) end: Offset,
    /// Records that were replayed.
    pub(super) records: u64,
    /// Records and batches that could not be, and were reported and skipped.
    pub(super) skipped: u64,
}

/// Loads everything that the log has now, once all of it is committed: what an earlier leader appended
/// and did not see committed is either committed by this one or gone.
pub(super) async fn load(
    partition: &Arc<Partition>,
    epoch: LeaderEpoch,
    moved: &Notify,
    config: GroupConfig,
    clock: Clock,
) -> Result<Loaded, LoadError> {
    let end = settled_end(partition, epoch, moved).await?;
    let mut loaded = Loaded {
        shard: GroupShard::new(config),
        end,
        records: 0,
        skipped: 0,
    };
    let mut from = partition.offsets().log_start;
    while from < end {
        let read = FetchRead {
            from,
            max_bytes: READ_BYTES,
            min_one_batch: true,
            isolation: Isolation::ReadUncommitted,
            current_leader_epoch: Some(epoch),
            last_fetched_epoch: None,
            from_follower_ok: false,
        };
        let batches = match partition.read(read).await {
            Ok(read) => read.records,
            Err(ReadRefused::Role(_)) => return Err(LoadError::Lost),
            // The log start has moved on, as DeleteRecords or a cleaner moves it.
            Err(ReadRefused::OutOfRange { log_start, .. }) if log_start > from => {
                from = log_start;
                continue;
            }
            Err(refused) => return Err(refused.into()),
        };
        if batches.is_empty() {
            break;
        }
        let partition = Arc::clone(partition);
        let replayed = tokio::task::spawn_blocking(move || {
            let mut loaded = loaded;
            let next = loaded.replay(&partition, batches);
            (loaded, next)
        });
        let next;
        (loaded, next) = replayed.await?;
        // Nothing whole was there; reading the same again would not end.
        let Some(next) = next.filter(|&next| next > from) else {
            break;
        };
        from = next;
    }
    loaded.shard.loaded(clock.now());
    Ok(loaded)
}

/// The log's end, once the high watermark has reached it.
async fn settled_end(partition: &Partition, epoch: LeaderEpoch, moved: &Notify) -> Result<Offset, LoadError> {
    let mut end = None;
    loop {
        let woken = moved.notified();
        let leading = partition.leading().map_err(|_| LoadError::Lost)?;
        if leading.leader_epoch != epoch {
            return Err(LoadError::Lost);
        }
        let end = *end.get_or_insert(leading.log_end);
        if leading.high_watermark >= end {
            return Ok(end);
        }
        woken.await;
    }
}

impl Loaded {
    /// Replays batches; returns the offset after the last whole one.
    fn replay(&mut self, partition: &Partition, batches: bytes::Bytes) -> Option<Offset> {
        let mut next = None;
        for batch in Batches::new(batches) {
            let (header, batch) = match batch {
                Ok(found) => found,
                Err(error) => {
                    self.skipped += 1;
                    tracing::error!(
                        partition = %partition.tp().partition, after = ?next, %error,
                        "what follows in __consumer_offsets cannot be read and is skipped"
                    );
                    break;
                }
            };
            next = Some(header.next_offset());
            // Markers of transactions say nothing about groups.
            if !header.is_control() {
                self.replay_batch(partition, &header, &batch);
            }
        }
        next
    }

    fn replay_batch(&mut self, partition: &Partition, header: &BatchHeader, batch: &[u8]) {
        if let Err(error) = self.replay_records(partition, header, batch) {
            self.skipped += 1;
            tracing::error!(
                partition = %partition.tp().partition, batch = %header.base_offset, %error,
                "the rest of a batch of __consumer_offsets is skipped"
            );
        }
    }

    fn replay_records(
        &mut self,
        partition: &Partition,
        header: &BatchHeader,
        batch: &[u8],
    ) -> Result<(), BatchUnreadable> {
        let stored = batch.get(HEADER_LEN..).unwrap_or_default();
        let opened = open(header.compression()?, stored, OpenBounds::STORED).map_err(WalkError::from)?;
        let mut walk = RecordWalk::keeping(opened, header, Deltas::Ascending);
        while let Some(record) = walk.next_record()? {
            let bytes = walk.record();
            let key = record.key.map(|key| key.of(bytes)).unwrap_or_default();
            let value = record.value.map(|value| value.of(bytes));
            match self.shard.replay(key, value) {
                Ok(()) => self.records += 1,
                Err(error) => {
                    self.skipped += 1;
                    tracing::error!(
                        partition = %partition.tp().partition,
                        offset = header.base_offset.0 + i64::from(record.offset_delta), %error,
                        "a record of __consumer_offsets is skipped"
                    );
                }
            }
        }
        Ok(())
    }
}

/// Why the records of a batch, or what is left of them, cannot be read.
#[derive(Debug, thiserror::Error)]
enum BatchUnreadable {
    #[error(transparent)]
    Batch(#[from] BatchError),
    #[error(transparent)]
    Records(#[from] WalkError),
}
