//! Writes what a shard decided: the records of a round become one batch of the partition's log.

use bytes::Bytes;
use protocol::batch::{BatchBuilder, KeyValue};
use protocol::{ErrorCode, LeaderEpoch, Offset};
use replication::{Acks, AppendRefused, Partition, ProduceAppend};

use crate::coordinator::group::records::CoordinatorRecord;

/// The largest batch, uncompressed: what no topic's `max.message.bytes` is below by default, with room for
/// the header. A group's deletion or an expiry may have more records than that; each of them stands for
/// itself, so they are spread over several batches.
const BATCH_BYTES: usize = 1_000_000;

/// What a record's framing takes at most besides key and value.
const FRAMING: usize = 32;

/// Appends `records` (at least one) stamped with `timestamp_ms` (since 1970), as the leader of `epoch` and
/// for acks=all: as one batch where they fit. Returns the offset after the last of them once all are in
/// the leader's log: they are committed when the high watermark has reached that.
pub(super) async fn append(
    partition: &Partition,
    epoch: LeaderEpoch,
    timestamp_ms: i64,
    records: &[CoordinatorRecord],
) -> Result<Offset, AppendRefused> {
    let mut rest = records;
    loop {
        let (batch, after) = rest.split_at(fitting(rest));
        let end = append_batch(partition, epoch, timestamp_ms, batch).await?;
        if after.is_empty() {
            return Ok(end);
        }
        rest = after;
    }
}

/// How many of the records go into the next batch: one at least, which the shard has checked to fit.
fn fitting(records: &[CoordinatorRecord]) -> usize {
    let mut bytes = 0;
    let fit = records.iter().take_while(|record| {
        bytes += record.size() + FRAMING;
        bytes <= BATCH_BYTES
    });
    fit.count().max(1)
}

async fn append_batch(
    partition: &Partition,
    epoch: LeaderEpoch,
    timestamp_ms: i64,
    records: &[CoordinatorRecord],
) -> Result<Offset, AppendRefused> {
    let mut ticket = partition.append(ProduceAppend {
        batches: batch(timestamp_ms, records),
        acks: Acks::All,
        leader_epoch: Some(epoch),
        log_append_time: None,
    });
    let appended = ticket.appended().await?;
    Ok(Offset(appended.base_offset.0 + records.len() as i64))
}

fn batch(timestamp_ms: i64, records: &[CoordinatorRecord]) -> Bytes {
    let pairs: Vec<KeyValue<'_>> = records
        .iter()
        .map(|record| (Some(&record.key[..]), record.value.as_deref()))
        .collect();
    let builder = BatchBuilder {
        base_timestamp: timestamp_ms,
        max_timestamp: timestamp_ms,
        ..BatchBuilder::default()
    };
    builder.build_records(&pairs).into()
}

/// What a member is told whose request could not be written, as Kafka translates it.
pub(super) fn code_of(refused: AppendRefused) -> ErrorCode {
    match refused.code() {
        ErrorCode::NotLeaderOrFollower | ErrorCode::KafkaStorageError | ErrorCode::FencedLeaderEpoch => {
            ErrorCode::NotCoordinator
        }
        _ => ErrorCode::CoordinatorNotAvailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_holds_what_fits_and_one_record_at_least() {
        let record = |bytes: usize| CoordinatorRecord {
            key: Bytes::from_static(b"k"),
            value: Some(vec![0; bytes].into()),
        };
        let small = vec![record(100); 20_000];
        let first = fitting(&small);
        assert!(first * (101 + FRAMING) <= BATCH_BYTES && (first + 1) * (101 + FRAMING) > BATCH_BYTES);
        assert_eq!(fitting(&small[..3]), 3);
        assert_eq!(fitting(&[record(2_000_000), record(1)]), 1);
    }
}
