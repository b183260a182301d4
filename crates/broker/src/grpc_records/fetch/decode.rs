//! Batches as they lie in the log, as records for gRPC clients.

use bytes::Bytes;
use protocol::batch::{self, BatchHeader, Compression, TimestampType};
use protocol::grpc::v1::{FetchedRecord, RecordHeader};
use protocol::records::{Deltas, OpenBounds, RecordWalk, WalkError, open};
use protocol::{LeaderEpoch, Offset};

/// What a message carries beside its records, and what a record takes beside its key, value and headers.
const FRAMING: usize = 32;

/// Records of one batch that go into one message.
#[derive(Debug, PartialEq)]
pub(super) struct Part {
    pub(super) records: Vec<FetchedRecord>,
    /// The offset after the last of them; after the batch where nothing of it is left.
    pub(super) next: Offset,
    /// The epoch in which the batch was written.
    pub(super) epoch: LeaderEpoch,
    /// What the records take, roughly, in bytes.
    pub(super) bytes: usize,
    /// Whether this was the last of the batch.
    pub(super) ends_batch: bool,
}

/// The bytes of the log do not say what a batch should.
#[derive(Debug, thiserror::Error)]
pub(super) enum Undecodable {
    /// Its header.
    #[error(transparent)]
    Batch(#[from] batch::BatchError),
    /// Its records.
    #[error(transparent)]
    Records(#[from] WalkError),
}

/// The records of `batch` from offset `from` on, of which about `bytes` are taken, at least one.
///
/// A batch that opens to more is opened again for each part of it: what is held of it stays bounded,
/// whatever it was compressed from.
pub(super) fn part(batch: &Bytes, from: Offset, bytes: usize) -> Result<Part, Undecodable> {
    let header = BatchHeader::parse(batch)?;
    let whole = |records, bytes| Part {
        records,
        next: header.next_offset().max(from),
        epoch: header.leader_epoch,
        bytes,
        ends_batch: true,
    };
    // Clients never see control records; a batch that compaction has emptied has nothing to open.
    if header.is_control() || header.record_count == 0 {
        return Ok(whole(Vec::new(), 0));
    }
    let stored = &batch[batch::HEADER_LEN..header.size];
    let codec = header.compression()?;
    let opened = open(codec, stored, OpenBounds::STORED).map_err(WalkError::from)?;
    let mut walk = RecordWalk::keeping(opened, &header, Deltas::Ascending);
    let (mut records, mut taken) = (Vec::new(), 0);
    while let Some(view) = walk.next_record()? {
        let offset = Offset(header.base_offset.get() + i64::from(view.offset_delta));
        if offset < from {
            continue;
        }
        if !records.is_empty() && taken >= bytes {
            return Ok(Part {
                records,
                next: offset,
                epoch: header.leader_epoch,
                bytes: taken,
                ends_batch: false,
            });
        }
        let record = walk.record();
        taken += record.len() + FRAMING;
        let headers = view.headers(record);
        // A header takes as much as its strings, and as its place in the list.
        taken += headers.len() * FRAMING;
        records.push(FetchedRecord {
            offset: offset.get(),
            timestamp_ms: match header.timestamp_type() {
                TimestampType::CreateTime => view.timestamp,
                TimestampType::LogAppendTime => header.max_timestamp,
            },
            key: view.key.map(|key| Bytes::copy_from_slice(key.of(record))),
            value: view.value.map(|value| Bytes::copy_from_slice(value.of(record))),
            headers: headers
                .into_iter()
                .map(|(key, value)| RecordHeader {
                    key: String::from_utf8_lossy(key).into_owned(),
                    value: value.map(Bytes::copy_from_slice),
                })
                .collect(),
        });
    }
    Ok(whole(records, taken))
}

/// Whether decoding a part of the batch takes no more than a moment.
pub(super) fn is_brief(batch: &Bytes) -> bool {
    /// Bytes that are walked and copied in well under a millisecond.
    const BRIEF: usize = 64 << 10;
    batch.len() <= BRIEF
        && BatchHeader::parse(batch)
            .and_then(|header| header.compression())
            .is_ok_and(|codec| codec == Compression::None)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use protocol::batch::{BatchBuilder, HEADER_LEN, set_log_append_time};
    use protocol::records::recompress;

    use super::*;

    /// Ten records of 100 bytes at offsets 50 to 59.
    fn batch(codec: Compression) -> Bytes {
        let builder = BatchBuilder {
            base_offset: Offset(50),
            leader_epoch: LeaderEpoch(3),
            base_timestamp: 1000,
            max_timestamp: 1000,
            ..BatchBuilder::default()
        };
        let value = [7; 100];
        let plain = builder.build_records(&[(None, Some(&value[..])); 10]);
        recompress(&plain, &plain[HEADER_LEN..], codec, usize::MAX)
            .expect("no limit")
            .into()
    }

    #[test]
    fn parts_follow_each_other_without_a_gap() {
        for codec in [Compression::None, Compression::Lz4, Compression::Zstd] {
            let batch = batch(codec);
            for bytes in [0, 1, 250, 500, usize::MAX] {
                let (mut offsets, mut from) = (Vec::new(), Offset(53));
                loop {
                    let part = part(&batch, from, bytes).expect("sound");
                    assert!(!part.records.is_empty(), "it goes on");
                    assert_eq!(part.epoch, LeaderEpoch(3));
                    offsets.extend(part.records.iter().map(|record| record.offset));
                    from = part.next;
                    if part.ends_batch {
                        break;
                    }
                }
                assert_eq!(offsets, (53..60).collect::<Vec<i64>>());
                assert_eq!(from, Offset(60));
            }
        }
    }

    #[test]
    fn control_and_emptied_batches_only_move_on() {
        let control = BatchBuilder {
            base_offset: Offset(5),
            attributes: 0x20,
            ..BatchBuilder::default()
        };
        let control = control.build_records(&[(Some(&[0; 4]), Some(&[0; 6]))]).into();
        let moved = part(&control, Offset(5), 100).expect("sound");
        assert_eq!(
            (moved.records.len(), moved.next, moved.ends_batch),
            (0, Offset(6), true)
        );
        let emptied = Bytes::copy_from_slice(&batch::emptied(&batch(Compression::None)));
        let moved = part(&emptied, Offset(50), 100).expect("sound");
        assert_eq!((moved.records.len(), moved.next), (0, Offset(60)));
    }

    #[test]
    fn the_brokers_time_counts_where_the_topic_takes_it() {
        let mut bytes = batch(Compression::None).to_vec();
        set_log_append_time(&mut bytes, 4321);
        let part = part(&bytes.into(), Offset(59), 100).expect("sound");
        assert_eq!((part.records[0].timestamp_ms, part.records.len()), (4321, 1));
    }

    proptest! {
        #[test]
        fn damaged_bytes_never_panic(at in 0_usize..1000, byte: u8, bytes in 0_usize..2000) {
            let mut damaged = batch(Compression::None).to_vec();
            let at = at % damaged.len();
            damaged[at] = byte;
            let _ = part(&damaged.into(), Offset(50), bytes);
        }
    }
}
