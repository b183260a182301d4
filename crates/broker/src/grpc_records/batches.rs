//! Records of gRPC clients as the batches that a Kafka client would have sent.

use bytes::Bytes;
use protocol::batch::{BatchBuilder, Compression, HEADER_LEN, put_record};
use protocol::grpc::v1::NewRecord;
use protocol::records::recompress;
use protocol::{ErrorCode, ProducerId};

use crate::context::BrokerContext;
use crate::partitions::append::Refusal;

/// However much a topic takes, batches of more than one record are no larger than this before compression.
const BATCH_BYTES: usize = 1 << 20;
/// Bytes that are compressed in well under a millisecond.
const BRIEF: usize = 16 << 10;

/// A record on its way to its partition.
#[derive(Debug)]
pub(super) struct Placed {
    /// Where it stands in its request.
    pub(super) position: usize,
    pub(super) record: NewRecord,
    /// Milliseconds since 1970.
    pub(super) timestamp: i64,
}

/// The producer id and the sequence number with which a batch may be sent twice.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sequence {
    pub(super) producer: ProducerId,
    pub(super) next: i32,
}

impl Sequence {
    /// After `count` records; wraps as Kafka's producers wrap it.
    pub(super) fn after(self, count: usize) -> Self {
        Self {
            next: ((i64::from(self.next) + count as i64) % (1 << 31)) as i32,
            ..self
        }
    }
}

/// How large a batch of more than one record may be before compression, where one of `largest` bytes is taken:
/// what does not compress grows a little.
pub(super) fn limit(largest: usize, compressed: bool) -> usize {
    let kept_back = if compressed { largest / 64 + 256 } else { 0 };
    largest.saturating_sub(kept_back)
}

/// One batch of as many of `records` (at least one), from the first on, as `limit` bytes take, or of the
/// first alone; and how many they are.
pub(super) fn build(records: &[Placed], sequence: Option<Sequence>, limit: usize) -> (Bytes, usize) {
    let room = limit.min(BATCH_BYTES).saturating_sub(HEADER_LEN);
    let base_timestamp = records.first().map_or(-1, |first| first.timestamp);
    let (mut framed, mut max_timestamp, mut count) = (Vec::new(), base_timestamp, 0);
    for placed in records {
        let fits = framed.len();
        let record = &placed.record;
        let headers: Vec<_> = record
            .headers
            .iter()
            .map(|header| (header.key.as_bytes(), header.value.as_deref()))
            .collect();
        put_record(
            &mut framed,
            placed.timestamp.wrapping_sub(base_timestamp),
            count as i64,
            (record.key.as_deref(), record.value.as_deref()),
            headers,
        );
        if count > 0 && framed.len() > room {
            framed.truncate(fits);
            break;
        }
        max_timestamp = max_timestamp.max(placed.timestamp);
        count += 1;
    }
    let builder = BatchBuilder {
        base_timestamp,
        max_timestamp,
        producer_id: sequence.map_or(-1, |sequence| sequence.producer.get()),
        producer_epoch: sequence.map_or(-1, |_| 0),
        base_sequence: sequence.map_or(-1, |sequence| sequence.next),
        ..BatchBuilder::default()
    };
    (builder.build(&framed, count as i32).into(), count)
}

/// The batch as it is sent.
pub(super) async fn compress(
    broker: &BrokerContext,
    batch: Bytes,
    codec: Compression,
) -> Result<Bytes, Refusal> {
    if codec == Compression::None {
        return Ok(batch);
    }
    let brief = batch.len() <= BRIEF;
    let work = move || recompress(&batch, &batch[HEADER_LEN..], codec, usize::MAX);
    let compressed = if brief {
        work()
    } else {
        broker.validator.beside(work).await
    };
    // Nothing of this can fail: the records are in memory, and there is no limit.
    compressed.map(Bytes::from).map_err(|error| {
        let why = format!("the batch could not be compressed: {error:?}");
        Refusal::new(ErrorCode::UnknownServerError, why)
    })
}

#[cfg(test)]
mod tests {
    use protocol::batch::{BatchHeader, verify_crc};
    use protocol::grpc::v1::RecordHeader;
    use protocol::records::{Deltas, RecordWalk, Span};

    use super::*;

    fn placed(position: usize, record: NewRecord, timestamp: i64) -> Placed {
        Placed {
            position,
            record,
            timestamp,
        }
    }

    fn of_bytes(bytes: usize) -> NewRecord {
        NewRecord {
            value: Some(vec![7; bytes].into()),
            ..NewRecord::default()
        }
    }

    #[test]
    fn records_keep_nulls_repeated_headers_and_times() {
        let header = |value: Option<&'static [u8]>| RecordHeader {
            key: "h".to_owned(),
            value: value.map(Bytes::from_static),
        };
        let first = NewRecord {
            key: Some(Bytes::from_static(b"k")),
            headers: vec![header(Some(b"1")), header(None), header(Some(b""))],
            ..NewRecord::default()
        };
        let records = [
            placed(0, first, 500),
            placed(1, of_bytes(0), 20),
            placed(2, of_bytes(3), 900),
        ];
        let sequence = Sequence {
            producer: ProducerId(7),
            next: 11,
        };
        let (batch, count) = build(&records, Some(sequence), 1 << 20);
        assert_eq!(count, 3);
        verify_crc(&batch).expect("sealed");
        let header = BatchHeader::parse(&batch).expect("whole");
        assert_eq!((header.base_timestamp, header.max_timestamp), (500, 900));
        assert_eq!(
            (header.producer_id, header.base_sequence),
            (Some(ProducerId(7)), 11)
        );
        let mut walk = RecordWalk::keeping(&batch[HEADER_LEN..], &header, Deltas::Contiguous);
        let first = walk.next_record().expect("sound").expect("first");
        assert_eq!(first.key.map(|key| key.of(walk.record())), Some(&b"k"[..]));
        assert_eq!((first.value, first.timestamp), (None, 500));
        let headers = first.headers(walk.record());
        assert_eq!(
            headers,
            [(&b"h"[..], Some(&b"1"[..])), (b"h", None), (b"h", Some(b""))]
        );
        let second = walk.next_record().expect("sound").expect("second");
        assert_eq!(second.value.map(Span::len), Some(0));
        assert_eq!((second.key, second.timestamp), (None, 20));
        walk.next_record().expect("sound").expect("third");
        assert_eq!(walk.next_record(), Ok(None));
    }

    #[test]
    fn a_batch_takes_what_fits_and_one_record_at_least() {
        let records: Vec<Placed> = (0..10).map(|at| placed(at, of_bytes(1000), 0)).collect();
        let (batch, count) = build(&records, None, 5000);
        assert_eq!(count, 4);
        assert!(batch.len() <= 5000);
        let (_, count) = build(&records[count..], None, 10);
        assert_eq!(count, 1, "larger than the limit: for the leader to refuse");
        let (_, count) = build(&records, None, usize::MAX);
        assert_eq!(count, 10);
    }

    #[test]
    fn what_does_not_compress_fits_all_the_same() {
        // Without a pattern: a multiplicative generator's bytes.
        let mut state = 1_u64;
        let mut noise = |bytes: usize| {
            let next = |_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 56) as u8
            };
            NewRecord {
                value: Some((0..bytes).map(next).collect::<Vec<u8>>().into()),
                ..NewRecord::default()
            }
        };
        let records: Vec<Placed> = (0..3000).map(|at| placed(at, noise(100), 0)).collect();
        for largest in [2000, 10_000, 200_000] {
            let (batch, count) = build(&records, None, limit(largest, true));
            assert!(count > 1);
            for codec in [
                Compression::Gzip,
                Compression::Snappy,
                Compression::Lz4,
                Compression::Zstd,
            ] {
                let sent = recompress(&batch, &batch[HEADER_LEN..], codec, usize::MAX).expect("no limit");
                assert!(sent.len() <= largest, "{codec:?} {largest}");
            }
        }
        assert_eq!(limit(1000, false), 1000);
    }

    #[test]
    fn sequences_wrap_to_zero() {
        let last = Sequence {
            producer: ProducerId(1),
            next: i32::MAX,
        };
        assert_eq!(last.after(1).next, 0);
        assert_eq!(last.after(3).next, 2);
    }
}
