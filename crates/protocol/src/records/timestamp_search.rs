//! Finds a record by its timestamp within a batch from the log, for ListOffsets.

use std::{io::BufRead, ops::ControlFlow};

use super::{
    open::{OpenBounds, open},
    walk::{Deltas, Malformed, RecordWalk, WalkError},
};
use crate::{
    Offset,
    batch::{self, BatchError, BatchHeader, Compression, TimestampType},
};

/// Why a batch of the log could not be searched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SearchError {
    /// The header cannot be read.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// Nor the records.
    #[error("record {index} of the batch: {what}")]
    Malformed {
        /// How many records came before.
        index: i32,
        /// What is wrong.
        what: Malformed,
    },
    /// The batch decompresses to more than is ever accepted.
    #[error("the batch decompresses to more than {limit} bytes")]
    OpensTooLarge {
        /// Bytes that were allowed.
        limit: u64,
    },
}

/// The first record of `batch` (one whole batch, as it rests in the log) at `from` or later whose
/// timestamp is at least `timestamp` (ms since 1970): its timestamp and offset. `None` where the
/// batch has none.
///
/// With the batch's own max timestamp this finds the first record that has it, as ListOffsets'
/// "max timestamp" asks.
pub fn first_at_or_after(
    batch: &[u8],
    timestamp: i64,
    from: Offset,
) -> Result<Option<(i64, Offset)>, SearchError> {
    let header = BatchHeader::parse(batch)?;
    if header.max_timestamp < timestamp || header.last_offset() < from {
        return Ok(None);
    }
    visit(batch, &header, |at, offset| {
        if at >= timestamp && offset >= from {
            ControlFlow::Break((at, offset))
        } else {
            ControlFlow::Continue(())
        }
    })
}

/// The largest timestamp (ms since 1970) of the records of `batch`, as for [`first_at_or_after`], that have
/// the offset `from` or a later one. `None` where there is no such record.
pub fn largest_timestamp(batch: &[u8], from: Offset) -> Result<Option<i64>, SearchError> {
    let header = BatchHeader::parse(batch)?;
    let mut largest = None;
    visit::<()>(batch, &header, |at, offset| {
        if offset >= from {
            largest = largest.max(Some(at));
        }
        ControlFlow::Continue(())
    })?;
    Ok(largest)
}

/// Calls `each` with the timestamp and the offset of every record, until it breaks.
fn visit<T>(
    batch: &[u8],
    header: &BatchHeader,
    each: impl FnMut(i64, Offset) -> ControlFlow<T>,
) -> Result<Option<T>, SearchError> {
    let records = &batch[batch::HEADER_LEN..header.size];
    match header.compression()? {
        Compression::None => visit_opened(records, header, each),
        codec => {
            let opened =
                open(codec, records, OpenBounds::STORED).map_err(|error| of_walk(error.into(), 0))?;
            visit_opened(opened, header, each)
        }
    }
}

fn visit_opened<T>(
    records: impl BufRead,
    header: &BatchHeader,
    mut each: impl FnMut(i64, Offset) -> ControlFlow<T>,
) -> Result<Option<T>, SearchError> {
    let mut walk = RecordWalk::new(records, header, Deltas::Ascending);
    loop {
        match walk.next_record() {
            Ok(Some(record)) => {
                let offset = Offset(header.base_offset.0 + i64::from(record.offset_delta));
                let at = match header.timestamp_type() {
                    TimestampType::CreateTime => record.timestamp,
                    TimestampType::LogAppendTime => header.max_timestamp,
                };
                if let ControlFlow::Break(found) = each(at, offset) {
                    return Ok(Some(found));
                }
            }
            Ok(None) => return Ok(None),
            Err(error) => return Err(of_walk(error, walk.index())),
        }
    }
}

fn of_walk(error: WalkError, index: i32) -> SearchError {
    match error {
        WalkError::Malformed(what) => SearchError::Malformed { index, what },
        WalkError::TooMuchOutput { limit } | WalkError::RecordTooLarge { limit } => {
            SearchError::OpensTooLarge { limit }
        }
    }
}
