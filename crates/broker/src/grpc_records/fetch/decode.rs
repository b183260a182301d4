//! Batches as they lie in the log, as records for gRPC clients.

use std::io::{BufReader, Read};

use bytes::Bytes;
use prost::Message;
use protocol::batch::{self, BatchHeader, Compression, TimestampType};
use protocol::grpc::v1::{FetchedRecord, RecordHeader};
use protocol::records::{Deltas, OpenBounds, RecordView, RecordWalk, WalkError, open};
use protocol::{LeaderEpoch, Offset};

/// What a message carries beside its records, and what a record, or a header, takes beside its bytes.
const FRAMING: usize = 32;
/// The largest record that is handed out, in bytes of memory: it is whole there, however it was compressed.
const RECORD_BYTES: usize = 64 << 20;
/// What a header takes of them, beside its bytes.
const HEADER_BYTES: usize = 64;

/// Records of one batch that go into one message.
#[derive(Debug, PartialEq)]
pub(super) struct Part {
    pub(super) records: Vec<FetchedRecord>,
    /// The offset after the last of them; after the batch where nothing of it is left.
    pub(super) next: Offset,
    /// The epoch in which the batch was written.
    pub(super) epoch: LeaderEpoch,
    /// What the records take at most, in bytes of a message.
    pub(super) bytes: usize,
    /// Whether this was the last of the batch.
    pub(super) ends_batch: bool,
}

/// The bytes of the log do not say what a batch should, or more than can be handed out.
#[derive(Debug, thiserror::Error)]
pub(super) enum Undecodable {
    /// Its header.
    #[error(transparent)]
    Batch(#[from] batch::BatchError),
    /// Its records.
    #[error(transparent)]
    Records(#[from] WalkError),
    /// One record that is sound.
    #[error("a record takes more than {RECORD_BYTES} bytes with its headers")]
    TooLarge,
}

impl Undecodable {
    /// Whether the records are sound, and only too much.
    pub(super) fn is_too_large(&self) -> bool {
        matches!(
            self,
            Self::TooLarge | Self::Records(WalkError::RecordTooLarge { .. })
        )
    }
}

/// A batch that is handed out part by part. It is opened once, and walked once, however many parts it has; of
/// what it opens to, no more than a record is held.
pub(super) struct OpenBatch {
    header: BatchHeader,
    /// `None` where there is nothing (left) to walk.
    walk: Option<RecordWalk<BufReader<Box<dyn Read + Send>>>>,
    /// What comes before is not wanted.
    from: Offset,
    /// The next record, which did not fit any more, and the bytes that it takes.
    waiting: Option<(FetchedRecord, usize)>,
    /// Why it does not go on.
    failed: Option<Undecodable>,
}

impl OpenBatch {
    /// The records of `batch` from offset `from` on.
    pub(super) fn new(batch: &Bytes, from: Offset) -> Result<Self, Undecodable> {
        let header = BatchHeader::parse(batch)?;
        // Clients never see control records; a batch that compaction has emptied has nothing to open.
        let walk = if header.is_control() || header.record_count == 0 {
            None
        } else {
            let stored = batch.slice(batch::HEADER_LEN..header.size);
            let opened = open(header.compression()?, stored, OpenBounds::STORED).map_err(WalkError::from)?;
            let walk = RecordWalk::keeping(opened, &header, Deltas::Ascending);
            Some(walk.with_records_of(RECORD_BYTES as u64))
        };
        Ok(Self {
            header,
            walk,
            from,
            waiting: None,
            failed: None,
        })
    }

    /// The next records, as many as fit into `room` bytes; the first one anyway where it would be `alone`.
    pub(super) fn part(&mut self, room: usize, alone: bool) -> Result<Part, Undecodable> {
        let mut part = Part {
            records: Vec::new(),
            next: self.from,
            epoch: self.header.leader_epoch,
            bytes: 0,
            ends_batch: false,
        };
        loop {
            match self.next_record() {
                Ok(Some((record, bytes))) => {
                    let goes_anyway = alone && part.records.is_empty();
                    if !goes_anyway && part.bytes + bytes > room {
                        part.next = Offset(record.offset);
                        self.waiting = Some((record, bytes));
                        return Ok(part);
                    }
                    self.from = Offset(record.offset + 1);
                    part.next = self.from;
                    part.bytes += bytes;
                    part.records.push(record);
                }
                Ok(None) => {
                    part.next = self.header.next_offset().max(self.from);
                    part.ends_batch = true;
                    return Ok(part);
                }
                Err(error) if part.records.is_empty() => return Err(error),
                Err(error) => {
                    // What comes before it is sound.
                    self.failed = Some(error);
                    return Ok(part);
                }
            }
        }
    }

    /// The next wanted record, and the bytes that it takes of a message.
    fn next_record(&mut self) -> Result<Option<(FetchedRecord, usize)>, Undecodable> {
        if let Some(waiting) = self.waiting.take() {
            return Ok(Some(waiting));
        }
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let Some(walk) = &mut self.walk else {
            return Ok(None);
        };
        while let Some(view) = walk.next_record()? {
            let offset = Offset(self.header.base_offset.get() + i64::from(view.offset_delta));
            if offset < self.from {
                continue;
            }
            let bytes = walk.record();
            if bytes.len() + view.header_count() * HEADER_BYTES > RECORD_BYTES {
                return Err(Undecodable::TooLarge);
            }
            let record = fetched(&self.header, offset, &view, bytes);
            // The strings count as they are sent: what is no UTF-8 has grown.
            let taken = record.encoded_len() + FRAMING * (1 + record.headers.len());
            return Ok(Some((record, taken)));
        }
        // Whatever the codec holds is not needed any more.
        self.walk = None;
        Ok(None)
    }
}

/// The record that `view` saw in `bytes`.
fn fetched(header: &BatchHeader, offset: Offset, view: &RecordView, bytes: &[u8]) -> FetchedRecord {
    let headers = view.headers(bytes).into_iter();
    FetchedRecord {
        offset: offset.get(),
        timestamp_ms: match header.timestamp_type() {
            TimestampType::CreateTime => view.timestamp,
            TimestampType::LogAppendTime => header.max_timestamp,
        },
        key: view.key.map(|key| Bytes::copy_from_slice(key.of(bytes))),
        value: view.value.map(|value| Bytes::copy_from_slice(value.of(bytes))),
        headers: headers
            .map(|(key, value)| RecordHeader {
                key: String::from_utf8_lossy(key).into_owned(),
                value: value.map(Bytes::copy_from_slice),
            })
            .collect(),
    }
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
    use protocol::batch::{BatchBuilder, HEADER_LEN, put_record, set_log_append_time};
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

    /// The first part.
    fn part_of(batch: &Bytes, from: Offset, room: usize) -> Result<Part, Undecodable> {
        OpenBatch::new(batch, from)?.part(room, true)
    }

    /// A compressed batch of these records.
    fn zstd(records: &[(i64, &[u8], usize)]) -> Bytes {
        let mut framed = Vec::new();
        for &(delta, value, headers) in records {
            let none = std::iter::repeat_n((&b""[..], None), headers);
            let none: Vec<_> = none.collect();
            put_record(&mut framed, 0, delta, (None, Some(value)), none);
        }
        let plain = BatchBuilder::default().build(&framed, records.len() as i32);
        recompress(&plain, &plain[HEADER_LEN..], Compression::Zstd, usize::MAX)
            .expect("no limit")
            .into()
    }

    #[test]
    fn a_record_that_would_fill_the_memory_is_refused_where_it_stands() {
        let large = vec![0; RECORD_BYTES];
        for bomb in [(1, &large[..], 0), (1, &b""[..], RECORD_BYTES / HEADER_BYTES)] {
            let batch = zstd(&[(0, b"v", 0), bomb]);
            assert!(batch.len() < 1 << 20, "it is small at rest");
            let mut opened = OpenBatch::new(&batch, Offset(0)).expect("a header");
            let before = opened.part(usize::MAX, true).expect("the first");
            assert_eq!(
                (before.records.len(), before.next, before.ends_batch),
                (1, Offset(1), false)
            );
            let refused = opened.part(usize::MAX, true).expect_err("too large");
            assert!(refused.is_too_large(), "{refused:?}");
        }
    }

    #[test]
    fn what_does_not_fit_waits_for_the_next_message() {
        let batch = batch(Compression::Lz4);
        let mut opened = OpenBatch::new(&batch, Offset(50)).expect("sound");
        let nothing = opened.part(10, false).expect("sound");
        assert_eq!(
            (nothing.records.len(), nothing.next, nothing.ends_batch),
            (0, Offset(50), false)
        );
        let all = opened.part(usize::MAX, true).expect("sound");
        assert_eq!((all.records.len(), all.ends_batch), (10, true));
    }

    #[test]
    fn parts_follow_each_other_without_a_gap() {
        for codec in [Compression::None, Compression::Lz4, Compression::Zstd] {
            let batch = batch(codec);
            for bytes in [0, 1, 250, 500, usize::MAX] {
                let (mut offsets, mut from) = (Vec::new(), Offset(53));
                let mut opened = OpenBatch::new(&batch, from).expect("sound");
                loop {
                    let part = opened.part(bytes, true).expect("sound");
                    assert!(!part.records.is_empty(), "it goes on");
                    assert!(part.bytes <= bytes || part.records.len() == 1);
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
        let moved = part_of(&control, Offset(5), 100).expect("sound");
        assert_eq!(
            (moved.records.len(), moved.next, moved.ends_batch),
            (0, Offset(6), true)
        );
        let emptied = Bytes::copy_from_slice(&batch::emptied(&batch(Compression::None)));
        let moved = part_of(&emptied, Offset(50), 100).expect("sound");
        assert_eq!((moved.records.len(), moved.next), (0, Offset(60)));
    }

    #[test]
    fn the_brokers_time_counts_where_the_topic_takes_it() {
        let mut bytes = batch(Compression::None).to_vec();
        set_log_append_time(&mut bytes, 4321);
        let part = part_of(&bytes.into(), Offset(59), 100).expect("sound");
        assert_eq!((part.records[0].timestamp_ms, part.records.len()), (4321, 1));
    }

    proptest! {
        #[test]
        fn damaged_bytes_never_panic(at in 0_usize..1000, byte: u8, bytes in 0_usize..2000) {
            let mut damaged = batch(Compression::None).to_vec();
            let at = at % damaged.len();
            damaged[at] = byte;
            let _ = part_of(&damaged.into(), Offset(50), bytes);
        }
    }
}
