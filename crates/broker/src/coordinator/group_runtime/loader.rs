//! Reads a partition of `__consumer_offsets` into a shard.

use std::sync::Arc;
use std::time::Duration;

use protocol::batch::{BatchError, BatchHeader, Batches, HEADER_LEN};
use protocol::records::{Deltas, OpenBounds, RecordWalk, WalkError, open};
use protocol::{LeaderEpoch, Offset};
use replication::{FetchRead, Isolation, Partition, ReadRefused};
use tokio::sync::Notify;

use super::clock::Clock;
use crate::coordinator::group::{GroupConfig, GroupShard, TopicsView};

/// Bytes read at a time; a larger batch is read whole.
const READ_BYTES: usize = 4 << 20;
/// How long to wait until what is in the log is committed, before it is told that it is not.
const SETTLE_MAX: Duration = Duration::from_secs(30);
/// How often in a row a batch is read that could not be read: a log remembers few positions, and others read
/// as well. Then it is passed over.
const TRIES: u32 = 16;
/// How long to wait before a batch is read again.
const AGAIN_AFTER: Duration = Duration::from_millis(10);

/// Why a shard was not loaded.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError {
    /// This broker does not lead the partition in the epoch any more.
    #[error("this broker does not lead the partition any more")]
    Lost,
    /// The log cannot be read now.
    #[error("the log cannot be read: {0}")]
    Read(#[from] ReadRefused),
    /// What earlier leaders have written is not committed.
    #[error("the log ends at {end}, and is committed up to {high_watermark}")]
    Unsettled {
        /// The log's end when the load began.
        end: Offset,
        /// The high watermark.
        high_watermark: Offset,
    },
    /// Batches that were read, with their checksums verified, cannot be told apart.
    #[error("batches after offset {after} cannot be told apart: {error}")]
    Batches {
        /// The offset before which all is known.
        after: Offset,
        /// What is wrong.
        error: BatchError,
    },
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
///
/// What is damaged is reported with its offset and skipped, and nothing else is: a shard is either whole but
/// for that, or an error. Where another replica may have what is damaged here, nothing is skipped.
pub(super) async fn load(
    partition: &Arc<Partition>,
    epoch: LeaderEpoch,
    moved: &Notify,
    config: GroupConfig,
    topics: Arc<TopicsView>,
    clock: Clock,
) -> Result<Loaded, LoadError> {
    let settled = settled_end(partition, epoch, moved);
    let end = match tokio::time::timeout(SETTLE_MAX, settled).await {
        Ok(settled) => settled?,
        Err(_) => return Err(unsettled(partition)),
    };
    let mut loaded = Loaded {
        shard: GroupShard::new(config),
        end,
        records: 0,
        skipped: 0,
    };
    let mut from = partition.offsets().log_start;
    let mut tries = Tries::default();
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
            Ok(read) if !read.records.is_empty() => read.records,
            // Damaged; or nothing before the end, where batches are.
            Ok(_) | Err(ReadRefused::Corrupt) => {
                let next = behind_damage(partition, tries.asked(from)).await?;
                tries.found(from, next);
                if next > from {
                    loaded.skipped += 1;
                    tracing::error!(
                        partition = %partition.tp().partition, %from, up_to = %next,
                        "damaged batches of __consumer_offsets are skipped"
                    );
                    from = next;
                    tokio::task::yield_now().await;
                } else {
                    tokio::time::sleep(AGAIN_AFTER).await;
                }
                continue;
            }
            Err(ReadRefused::Role(_)) => return Err(LoadError::Lost),
            // The log start has moved on, as DeleteRecords or a cleaner moves it.
            Err(ReadRefused::OutOfRange { log_start, .. }) if log_start > from => {
                from = log_start;
                tokio::task::yield_now().await;
                continue;
            }
            Err(refused) => return Err(refused.into()),
        };
        tries = Tries::default();
        let partition = Arc::clone(partition);
        let replayed = tokio::task::spawn_blocking(move || {
            let mut loaded = loaded;
            let next = loaded.replay(&partition, from, batches);
            (loaded, next)
        });
        let next;
        (loaded, next) = replayed.await?;
        from = next?;
    }
    loaded.shard.topics_changed(topics);
    loaded.shard.loaded(clock.now());
    Ok(loaded)
}

/// How often in a row what was found could not be read. Whatever is found, a load comes to an end: it tries
/// no more than so often before it moves on.
#[derive(Debug, Default)]
struct Tries(u32);

impl Tries {
    /// From where on to look for a whole batch, where `from` could not be read.
    fn asked(&self, from: Offset) -> Offset {
        if self.0 < TRIES { from } else { from.next() }
    }

    /// It was found at `next`, which is not before what was asked for.
    fn found(&mut self, from: Offset, next: Offset) {
        // The offset after one that was given up may be of the same batch.
        if next > self.asked(from) {
            self.0 = 0;
        } else {
            self.0 = self.0.saturating_add(1);
        }
    }
}

async fn behind_damage(partition: &Partition, from: Offset) -> Result<Offset, LoadError> {
    match partition.behind_damage(from).await {
        Ok(next) => Ok(next),
        Err(ReadRefused::Role(_)) => Err(LoadError::Lost),
        Err(refused) => Err(refused.into()),
    }
}

fn unsettled(partition: &Partition) -> LoadError {
    match partition.leading() {
        Ok(leading) => LoadError::Unsettled {
            end: leading.log_end,
            high_watermark: leading.high_watermark,
        },
        Err(_) => LoadError::Lost,
    }
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
    /// Replays batches that were read from `from` on; returns the offset after the last.
    fn replay(
        &mut self,
        partition: &Partition,
        from: Offset,
        batches: bytes::Bytes,
    ) -> Result<Offset, LoadError> {
        let mut next = from;
        for batch in Batches::new(batches) {
            let (header, batch) = batch.map_err(|error| LoadError::Batches { after: next, error })?;
            next = header.next_offset();
            // Markers of transactions say nothing about groups.
            if !header.is_control() {
                self.replay_batch(partition, &header, &batch);
            }
        }
        Ok(next)
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

#[cfg(test)]
pub(super) mod tests;
