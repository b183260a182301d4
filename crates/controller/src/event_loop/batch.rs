//! Packs decisions into entries: many small decisions share one entry, a large one spans several
//! between a begin and an end record, and none is torn apart.

use metadata::records::record;
use prost::Message;
use protocol::grpc::v1::metadata_record::Record;
use protocol::grpc::v1::{BeginTransactionRecord, EndTransactionRecord, MetadataRecord};

/// Bytes of records in one entry, below the metadata log's bound of 1 MiB with room for the frame.
pub(crate) const ENTRY_BYTES: usize = 768 << 10;
/// What a record costs besides its own encoding: field tag and length.
const RECORD_OVERHEAD: usize = 6;

/// The records of one decision, with whatever waits for them.
#[derive(Debug)]
pub(crate) struct Group<T> {
    /// To become visible together.
    pub(crate) records: Vec<MetadataRecord>,
    /// Waits for the entry that completes the decision.
    pub(crate) waiting: T,
}

/// One entry to be proposed.
#[derive(Debug)]
pub(crate) struct Packed<T> {
    /// The entry's records.
    pub(crate) records: Vec<MetadataRecord>,
    /// What waits for this entry.
    pub(crate) waiting: Vec<T>,
}

/// Packs the groups, in order, into entries of at most `limit` bytes (a single larger record has an
/// entry of its own).
pub(crate) fn pack<T>(groups: Vec<Group<T>>, limit: usize) -> Vec<Packed<T>> {
    let mut entries = Vec::new();
    let mut open = Packed {
        records: Vec::new(),
        waiting: Vec::new(),
    };
    let mut open_bytes = 0;
    for group in groups {
        let bytes: usize = group.records.iter().map(size).sum();
        if open_bytes + bytes > limit && !open.waiting.is_empty() {
            close(&mut open, &mut entries);
            open_bytes = 0;
        }
        if bytes > limit && group.records.len() > 1 {
            entries.extend(transaction(group, limit));
        } else {
            open_bytes += bytes;
            open.records.extend(group.records);
            open.waiting.push(group.waiting);
        }
    }
    if !open.waiting.is_empty() {
        close(&mut open, &mut entries);
    }
    entries
}

fn close<T>(open: &mut Packed<T>, entries: &mut Vec<Packed<T>>) {
    entries.push(Packed {
        records: std::mem::take(&mut open.records),
        waiting: std::mem::take(&mut open.waiting),
    });
}

/// A decision that fits no single entry, framed so that no image ever shows a part of it.
fn transaction<T>(group: Group<T>, limit: usize) -> Vec<Packed<T>> {
    let begin = record(Record::BeginTransaction(BeginTransactionRecord {
        reason: format!("{} records", group.records.len()),
    }));
    let mut entries: Vec<Packed<T>> = Vec::new();
    let mut open = vec![begin];
    let mut bytes = 0;
    for next in group.records {
        let cost = size(&next);
        if bytes + cost > limit && bytes > 0 {
            entries.push(Packed {
                records: std::mem::take(&mut open),
                waiting: Vec::new(),
            });
            bytes = 0;
        }
        bytes += cost;
        open.push(next);
    }
    open.push(record(Record::EndTransaction(EndTransactionRecord {})));
    entries.push(Packed {
        records: open,
        waiting: vec![group.waiting],
    });
    entries
}

fn size(record: &MetadataRecord) -> usize {
    record.encoded_len() + RECORD_OVERHEAD
}

#[cfg(test)]
mod tests {
    use metadata::{ClusterImage, records};
    use proptest::prelude::*;
    use protocol::grpc::v1::FeatureRecord;
    use protocol::{ClaimId, LeaderEpoch, Offset};

    use super::*;

    fn feature(name: String) -> MetadataRecord {
        record(Record::Feature(FeatureRecord { name, level: 1 }))
    }

    proptest! {
        #[test]
        fn entries_are_bounded_and_lose_nothing(
            groups in proptest::collection::vec(proptest::collection::vec(1usize..40, 0..12), 0..12)
        ) {
            const LIMIT: usize = 150;
            let groups: Vec<Group<usize>> = groups
                .into_iter()
                .enumerate()
                .map(|(i, sizes)| Group {
                    records: sizes
                        .into_iter()
                        .enumerate()
                        .map(|(j, size)| feature(format!("{i:03}.{j:03}.{}", "x".repeat(size))))
                        .collect(),
                    waiting: i,
                })
                .collect();
            let expected: Vec<MetadataRecord> =
                groups.iter().flat_map(|group| group.records.clone()).collect();
            let count = groups.len();
            let entries = pack(groups, LIMIT);
            let settled: Vec<usize> = entries.iter().flat_map(|entry| entry.waiting.clone()).collect();
            prop_assert_eq!(settled, (0..count).collect::<Vec<_>>());
            let claim = ClaimId::random();
            let mut image = ClusterImage::default()
                .apply(Offset(0), LeaderEpoch(1), Some(&records::claim_entry(claim)))
                .expect("claims");
            let whole = image.speculate(&expected).expect("fits");
            for (i, packed) in entries.into_iter().enumerate() {
                prop_assert!(packed.records.iter().map(size).sum::<usize>() <= LIMIT + 60);
                let entry = records::entry(claim, packed.records);
                image = image.apply(Offset(i as i64 + 1), LeaderEpoch(1), Some(&entry)).expect("fits");
            }
            prop_assert_eq!(image.features, whole.features);
        }
    }
}
