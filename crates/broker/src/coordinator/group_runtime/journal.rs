//! Writes what a shard decided: the records of a round become one batch of the partition's log, or several
//! where that would be too large. What belongs together is not cut in two.

use std::ops::Range;

use bytes::Bytes;
use protocol::batch::{BatchBuilder, KeyValue};
use protocol::{ErrorCode, LeaderEpoch, Offset};
use replication::{Acks, AppendRefused, Partition, ProduceAppend};

use crate::coordinator::group::{CoordinatorRecord, Outcome};

/// The largest batch, uncompressed: what no topic's `max.message.bytes` is below by default, with room for
/// the header. A single event may have more records than that, and is spread over several batches then: each
/// record of a commit, of a group's deletion or of an expiry stands for itself, and a heartbeat of the KIP-848
/// protocol goes on from wherever the last one came to. What changes a group's protocol comes first in its
/// event and is refused where it is too large for a batch.
const BATCH_BYTES: usize = 1_000_000;

/// Appends the records of `outcome` (at least one) stamped with `timestamp_ms` (since 1970), as the leader of
/// `epoch` and for acks=all: as one batch where they fit. Returns the offset after the last of them once all
/// are in the leader's log: they are committed when the high watermark has reached that.
pub(super) async fn append(
    partition: &Partition,
    epoch: LeaderEpoch,
    timestamp_ms: i64,
    outcome: &Outcome,
) -> Result<Offset, AppendRefused> {
    let (before, last) = batches(outcome);
    for batch in before {
        append_batch(partition, epoch, timestamp_ms, &outcome.records[batch]).await?;
    }
    append_batch(partition, epoch, timestamp_ms, &outcome.records[last]).await
}

/// Which records go into which batch, that of the last one apart. Each batch has one record at least, which
/// the shard has checked to fit; an event that does not fit what is left of a batch begins the next.
fn batches(outcome: &Outcome) -> (Vec<Range<usize>>, Range<usize>) {
    let records = &outcome.records;
    let mut full = Vec::new();
    let (mut begin, mut bytes) = (0, 0);
    let mut make_room = |at: usize, more: usize, bytes: &mut usize| {
        if *bytes + more > BATCH_BYTES && begin < at {
            full.push(begin..at);
            (begin, *bytes) = (at, 0);
        }
    };
    let mut from = 0;
    for until in outcome.events.iter().copied().chain([records.len()]) {
        let sizes = records[from..until].iter().map(CoordinatorRecord::framed_size);
        make_room(from, sizes.clone().sum(), &mut bytes);
        for (at, size) in (from..).zip(sizes) {
            make_room(at, size, &mut bytes);
            bytes += size;
        }
        from = until;
    }
    (full, begin..records.len())
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

    /// What events leave behind whose records have values of these sizes.
    fn outcome(events: &[&[usize]]) -> Outcome {
        let record = |bytes: &usize| CoordinatorRecord {
            key: Bytes::from_static(b"k"),
            value: Some(vec![0; *bytes].into()),
        };
        let mut round = Outcome::default();
        for sizes in events {
            round.append(Outcome {
                records: sizes.iter().map(record).collect(),
                ..Outcome::default()
            });
        }
        round
    }

    /// Where batches end.
    fn ends(events: &[&[usize]]) -> Vec<usize> {
        let outcome = outcome(events);
        let (mut all, last) = batches(&outcome);
        all.push(last);
        let mut end = 0;
        for batch in &all {
            assert!(batch.start == end && batch.end > batch.start, "{all:?}");
            end = batch.end;
        }
        all.into_iter().map(|batch| batch.end).collect()
    }

    #[test]
    fn a_batch_holds_what_fits_and_one_record_at_least() {
        let small = vec![100; 20_000];
        let first = ends(&[&small])[0];
        let size = outcome(&[&[100]]).records[0].framed_size();
        assert!(first * size <= BATCH_BYTES && (first + 1) * size > BATCH_BYTES);
        assert_eq!(ends(&[&small[..3]]), [3]);
        assert_eq!(ends(&[&[2_000_000, 1]]), [1, 2]);
        assert_eq!(ends(&[&[1], &[2_000_000], &[1]]), [1, 2, 3]);
    }

    #[test]
    fn what_follows_from_one_event_is_not_cut_in_two_where_it_fits_a_batch() {
        // As much as fits, whatever it is of.
        assert_eq!(ends(&[&[100], &[200, 300], &[], &[400]]), [4]);
        // The second event would begin in the first one's batch.
        assert_eq!(ends(&[&[600_000], &[300_000, 300_000, 300_000]]), [1, 4]);
        assert_eq!(ends(&[&[600_000], &[], &[300_000, 300_000], &[300_000]]), [1, 4]);
        // One that is larger than any batch begins one, so that its first records stay together; what
        // comes after it may share its last.
        assert_eq!(
            ends(&[&[600_000], &[300_000, 300_000, 600_000], &[100, 100]]),
            [1, 3, 6]
        );
    }
}
