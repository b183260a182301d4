//! Judges the records that a client produced for one partition.

use std::io::BufRead;

use bytes::Bytes;
use metadata::configs::TopicCompression;
use protocol::{
    batch::{self, BatchError, BatchHeader, Compression, TimestampType},
    records::{Deltas, OpenBounds, RecompressError, RecordWalk, WalkError, open, recompress},
};

use super::{
    error::{MAX_FAULTS, RecordError, RecordFault, RecordFaultKind},
    rules::{RecordRules, Validated},
};

/// Bytes of records, opened, that are looked at in well under a millisecond.
const BRIEF: usize = 128 << 10;

const MAGIC_AT: usize = 16;
const MAX_TIMESTAMP_AT: std::ops::Range<usize> = 35..43;

/// Decides whether `batches`, the records of one partition in a produce request (version 3 or
/// newer, so exactly one batch), may be appended under `rules`, and makes them what is appended.
///
/// The checks and their order are those of Kafka's `ProduceRequest`, `UnifiedLog` and
/// `LogValidator`, with three that Kafka lacks: record offsets must be 0, 1, 2, … in uncompressed
/// batches too, what a compressed batch opens to is [bounded](OpenBounds), and a batch never claims
/// the broker's clock.
pub fn validate(batches: Bytes, rules: &RecordRules) -> Result<Validated, RecordError> {
    validate_within(batches, rules, OpenBounds::default())
}

/// [`validate`] where that takes a moment. `None` where it may take longer: the batch is larger than
/// [`BRIEF`], opens to more than that, or is to be compressed anew.
pub(super) fn validate_briefly(
    batches: &Bytes,
    rules: &RecordRules,
) -> Option<Result<Validated, RecordError>> {
    if batches.len() > BRIEF {
        return None;
    }
    let source = BatchHeader::parse(batches).and_then(|header| header.compression());
    if let (TopicCompression::Fixed(target), Ok(source)) = (rules.compression, source)
        && target != source
    {
        return None;
    }
    let bounds = OpenBounds {
        floor: BRIEF as u64,
        ratio: 0,
        ceiling: BRIEF as u64,
    };
    match validate_within(batches.clone(), rules, bounds) {
        Err(RecordError::OpensTooLarge { .. }) => None,
        judged => Some(judged),
    }
}

fn validate_within(
    batches: Bytes,
    rules: &RecordRules,
    bounds: OpenBounds,
) -> Result<Validated, RecordError> {
    let header = the_only_batch(&batches, rules.max_message_bytes)?;
    batch::verify_crc(&batches)?;
    check_header(&header, rules)?;
    let source = header.compression()?;
    if source == Compression::Zstd && !rules.zstd {
        return Err(RecordError::Unsupported(source));
    }
    let seen = if rules.header_only && !rules.compacted {
        trust_header(&header, rules)?
    } else if source == Compression::None {
        walk(&batches[batch::HEADER_LEN..], &header, rules)?
    } else {
        let opened =
            open(source, &batches[batch::HEADER_LEN..], bounds).map_err(|error| of_walk(error.into(), 0))?;
        walk(opened, &header, rules)?
    };
    let batches = match rules.compression {
        TopicCompression::Fixed(target) if target != source => {
            compress_anew(&batches, source, target, rules.max_message_bytes)?
        }
        _ => batches,
    };
    let batches = if rules.timestamp_type == TimestampType::CreateTime && seen.max != header.max_timestamp {
        with_max_timestamp(batches, seen.max)
    } else {
        batches
    };
    Ok(Validated {
        batches,
        record_count: header.record_count,
        max_timestamp: seen.max,
        offset_of_max_timestamp: seen.offset_of_max,
        source_compression: source,
    })
}

/// The header of the batch that `batches` consists of.
fn the_only_batch(batches: &[u8], max_message_bytes: usize) -> Result<BatchHeader, RecordError> {
    if batches.is_empty() {
        return Err(RecordError::NoBatch);
    }
    // Older formats may be shorter than a v2 header: their magic is to be named, not their length.
    if let Some(&magic) = batches.get(MAGIC_AT)
        && magic as i8 != batch::MAGIC
    {
        return Err(BatchError::Magic(magic as i8).into());
    }
    let header = BatchHeader::parse(batches)?;
    if header.size < batches.len() {
        BatchHeader::parse(&batches[header.size..])?;
        return Err(RecordError::SeveralBatches);
    }
    if header.base_offset.0 != 0 {
        return Err(RecordError::BaseOffset(header.base_offset.0));
    }
    if header.size > max_message_bytes {
        return Err(RecordError::TooLarge {
            size: header.size,
            limit: max_message_bytes,
        });
    }
    Ok(header)
}

fn check_header(header: &BatchHeader, rules: &RecordRules) -> Result<(), RecordError> {
    // The last offset delta is not negative: parsing saw to that.
    if i64::from(header.record_count) != i64::from(header.last_offset_delta) + 1 {
        return Err(RecordError::Count {
            count: header.record_count,
            last_offset_delta: header.last_offset_delta,
        });
    }
    if header.is_control() {
        return Err(RecordError::Control);
    }
    if header.producer_id.is_some() && header.base_sequence < 0 {
        return Err(RecordError::Sequence(header.base_sequence));
    }
    if header.is_transactional() && !rules.transactional {
        return Err(RecordError::Transactional);
    }
    if header.timestamp_type() == TimestampType::LogAppendTime {
        return Err(RecordError::TimestampType);
    }
    Ok(())
}

/// The timestamps of a batch's records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Timestamps {
    max: i64,
    offset_of_max: Option<i32>,
}

/// What there is to know without looking at records.
fn trust_header(header: &BatchHeader, rules: &RecordRules) -> Result<Timestamps, RecordError> {
    for timestamp in [header.base_timestamp, header.max_timestamp] {
        if !rules.allows_timestamp(timestamp) {
            return Err(RecordError::HeaderTimestamp(timestamp));
        }
    }
    Ok(Timestamps {
        max: header.max_timestamp,
        offset_of_max: None,
    })
}

/// Looks at every record. What is wrong with single records is gathered; what makes the batch
/// unreadable ends it.
fn walk(records: impl BufRead, header: &BatchHeader, rules: &RecordRules) -> Result<Timestamps, RecordError> {
    let mut walk = RecordWalk::new(records, header, Deltas::Contiguous);
    let mut faults = Vec::new();
    let mut seen = Timestamps {
        max: -1,
        offset_of_max: None,
    };
    loop {
        let record = match walk.next_record() {
            Ok(Some(record)) => record,
            Ok(None) => break,
            Err(error) => return Err(of_walk(error, walk.index())),
        };
        let fault = if rules.compacted && record.key.is_none() {
            Some(RecordFaultKind::NoKey)
        } else if !rules.allows_timestamp(record.timestamp) {
            let (earliest, latest) = rules.timestamps();
            Some(RecordFaultKind::Timestamp {
                timestamp: record.timestamp,
                earliest,
                latest,
            })
        } else {
            None
        };
        if let Some(kind) = fault
            && faults.len() < MAX_FAULTS
        {
            faults.push(RecordFault {
                index: record.offset_delta,
                kind,
            });
        }
        if record.timestamp > seen.max {
            seen = Timestamps {
                max: record.timestamp,
                offset_of_max: Some(record.offset_delta),
            };
        }
    }
    if faults.is_empty() {
        Ok(seen)
    } else {
        Err(RecordError::Records { faults })
    }
}

fn of_walk(error: WalkError, index: i32) -> RecordError {
    match error {
        WalkError::Malformed(what) => RecordError::Malformed { index, what },
        WalkError::TooMuchOutput { limit } | WalkError::RecordTooLarge { limit } => {
            RecordError::OpensTooLarge { limit }
        }
    }
}

/// Opens a second time rather than keep what the walk opened: memory stays bounded by what the
/// topic accepts, however well the batch was compressed.
fn compress_anew(
    batches: &[u8],
    source: Compression,
    target: Compression,
    limit: usize,
) -> Result<Bytes, RecordError> {
    open(source, &batches[batch::HEADER_LEN..], OpenBounds::default())
        .map_err(RecompressError::Open)
        .and_then(|opened| recompress(batches, opened, target, limit))
        .map(Bytes::from)
        .map_err(|error| match error {
            RecompressError::TooLarge => RecordError::TooLarge { size: 0, limit },
            RecompressError::Open(error) => of_walk(error.into(), 0),
        })
}

/// The batch with the max timestamp that its records really have, as Kafka corrects it.
fn with_max_timestamp(batch: Bytes, max_timestamp: i64) -> Bytes {
    let mut batch = Vec::from(batch);
    batch[MAX_TIMESTAMP_AT].copy_from_slice(&max_timestamp.to_be_bytes());
    batch::renew_crc(&mut batch);
    batch.into()
}
