//! What is left of one batch: Kafka's `MemoryRecords.filterTo` under the rules of its `Cleaner`.

use std::io::{self, BufRead, Read};

use protocol::{
    Offset,
    batch::{BatchError, BatchHeader, HEADER_LEN, Thinned, TimestampType, emptied, thin},
    records::{
        Deltas, OpenBounds, RecompressError, RecordView, RecordWalk, WalkError, open,
        put_with_timestamp_delta, recompress,
    },
};

use super::{offset_map::OffsetMap, transactions::Marker};

/// Bytes that a rewritten batch may take.
const BATCH_MAX: usize = i32::MAX as usize;

/// Why a batch cannot be cleaned. The log is left as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// What is inside it are not the records that its header declares.
    #[error(transparent)]
    Records(#[from] WalkError),
    /// Its header names no codec.
    #[error(transparent)]
    Header(#[from] BatchError),
    /// Compressed anew, it would take 2 GiB.
    #[error("the batch grows beyond 2 GiB when it is compressed anew")]
    TooLarge,
}

/// What holds for all batches of a cleaning.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Filter<'a> {
    /// The newest offsets of the keys.
    pub(crate) map: &'a OffsetMap,
    /// The time, ms since 1970.
    pub(crate) now_ms: i64,
    /// `delete.retention.ms`.
    pub(crate) delete_retention_ms: i64,
}

/// What is known of a batch before its records are looked at.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Standing {
    /// Its records are gone: aborted, or of a marker that has outlived its transaction.
    pub(crate) discard_records: bool,
    /// It stays, without records if need be.
    pub(crate) keep_empty: bool,
    /// It is the marker of a transaction of which nothing else is left: its delete horizon begins.
    pub(crate) lone_marker: bool,
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is gone.
    Dropped,
    /// Its bytes are as they were.
    Untouched,
    /// It has fewer records, none, or a new delete horizon.
    Rewritten,
}

/// A batch, filtered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Filtered {
    pub(crate) fate: Fate,
    pub(crate) records_read: u64,
    pub(crate) records_kept: u64,
    /// Records that are not kept because they have no key.
    pub(crate) without_key: u64,
}

/// What a first look at the records tells.
#[derive(Clone, Copy, Debug)]
struct Survey {
    read: u64,
    kept: u64,
    without_key: u64,
    tombstones: bool,
    max_timestamp: i64,
}

impl Filter<'_> {
    /// Appends to `out` what is left of `batch`.
    pub(crate) fn apply(
        &self,
        batch: &[u8],
        header: &BatchHeader,
        standing: Standing,
        out: &mut Vec<u8>,
    ) -> Result<Filtered, FilterError> {
        let survey = self.survey(batch, header, standing)?;
        let filtered = |fate| Filtered {
            fate,
            records_read: survey.read,
            records_kept: survey.kept,
            without_key: survey.without_key,
        };
        if survey.kept == 0 {
            if !standing.keep_empty {
                return Ok(filtered(Fate::Dropped));
            }
            if survey.read > 0 || header.record_count > 0 {
                out.extend_from_slice(&emptied(batch));
                return Ok(filtered(Fate::Rewritten));
            }
            out.extend_from_slice(batch);
            return Ok(filtered(Fate::Untouched));
        }
        let old_horizon = header.delete_horizon();
        let new_horizon = ((survey.tombstones || standing.lone_marker) && old_horizon.is_none())
            .then(|| self.now_ms.saturating_add(self.delete_retention_ms));
        if survey.kept == survey.read && new_horizon.is_none() {
            out.extend_from_slice(batch);
            return Ok(filtered(Fate::Untouched));
        }
        let thinned = Thinned {
            record_count: survey.kept as i32,
            base_timestamp: new_horizon.unwrap_or(header.base_timestamp),
            delete_horizon: new_horizon.or(old_horizon).is_some(),
            max_timestamp: match header.timestamp_type() {
                TimestampType::CreateTime => survey.max_timestamp,
                TimestampType::LogAppendTime => header.max_timestamp,
            },
        };
        let kept = Kept {
            filter: self,
            header,
            walk: walk(batch, header)?,
            new_base: new_horizon,
            pending: Vec::new(),
            at: 0,
        };
        let mut rewritten =
            recompress(batch, kept, header.compression()?, BATCH_MAX).map_err(|error| match error {
                RecompressError::TooLarge => FilterError::TooLarge,
                RecompressError::Open(error) => FilterError::Records(walk_error(error)),
            })?;
        thin(&mut rewritten, &thinned);
        out.extend_from_slice(&rewritten);
        Ok(filtered(Fate::Rewritten))
    }

    fn survey(&self, batch: &[u8], header: &BatchHeader, standing: Standing) -> Result<Survey, FilterError> {
        let mut survey = Survey {
            read: 0,
            kept: 0,
            without_key: 0,
            tombstones: false,
            max_timestamp: -1,
        };
        if standing.discard_records {
            survey.read = header.record_count.max(0) as u64;
            return Ok(survey);
        }
        // A horizon must not begin before what the tombstone deletes is gone: beyond the map nothing is.
        let has_deleted = header.next_offset() <= self.map.end() && !header.is_control();
        let mut walk = walk(batch, header)?;
        while let Some(record) = walk.next_record()? {
            survey.read += 1;
            if self.keeps(header, &record, walk.record()) {
                survey.kept += 1;
                survey.tombstones |= record.value.is_none() && has_deleted;
                survey.max_timestamp = survey.max_timestamp.max(record.timestamp);
            } else if record.key.is_none() {
                survey.without_key += 1;
            }
        }
        Ok(survey)
    }

    fn keeps(&self, header: &BatchHeader, record: &RecordView, bytes: &[u8]) -> bool {
        if header.is_control() {
            return true;
        }
        let offset = Offset(header.base_offset.0 + i64::from(record.offset_delta));
        if offset >= self.map.end() {
            return true;
        }
        // A record without a key is from before the topic was compacted, and goes.
        let Some(key) = record.key else { return false };
        let is_newest = self.map.get(key.of(bytes)).is_none_or(|newest| offset >= newest);
        let expired = record.value.is_none()
            && header
                .delete_horizon()
                .is_some_and(|horizon| horizon <= self.now_ms);
        is_newest && !expired
    }
}

type Walk<'a> = RecordWalk<io::BufReader<Box<dyn Read + Send + 'a>>>;

/// A walk over a stored batch's records that keeps their bytes.
pub(crate) fn walk<'a>(batch: &'a [u8], header: &BatchHeader) -> Result<Walk<'a>, FilterError> {
    let opened = open(header.compression()?, &batch[HEADER_LEN..], OpenBounds::STORED)
        .map_err(|error| FilterError::Records(error.into()))?;
    Ok(RecordWalk::keeping(opened, header, Deltas::Ascending))
}

/// How the transaction ended that a control batch belongs to; `None` for a batch without records.
pub(crate) fn marker_of(batch: &[u8], header: &BatchHeader) -> Result<Option<Marker>, FilterError> {
    let mut walk = walk(batch, header)?;
    let record = walk.next_record()?;
    Ok(record.map(|record| Marker::of_key(record.key.map(|key| key.of(walk.record())))))
}

/// A walk's error comes back through the codec as it went in.
fn walk_error(error: io::Error) -> WalkError {
    match error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<WalkError>())
    {
        Some(&walk) => walk,
        None => error.into(),
    }
}

/// The records that are kept, as a stream: memory holds one of them at a time.
struct Kept<'a, R> {
    filter: &'a Filter<'a>,
    header: &'a BatchHeader,
    walk: RecordWalk<R>,
    /// The base timestamp that replaces the batch's.
    new_base: Option<i64>,
    pending: Vec<u8>,
    at: usize,
}

impl<R: BufRead> Kept<'_, R> {
    /// Puts the next record that is kept into `pending`; nothing where there is none.
    fn advance(&mut self) -> Result<(), WalkError> {
        self.pending.clear();
        self.at = 0;
        while let Some(record) = self.walk.next_record()? {
            let bytes = self.walk.record();
            if !self.filter.keeps(self.header, &record, bytes) {
                continue;
            }
            match self.new_base {
                None => self.pending.extend_from_slice(bytes),
                Some(base) => {
                    let delta = record.timestamp.wrapping_sub(base);
                    put_with_timestamp_delta(&mut self.pending, bytes, delta)
                        .expect("a record that was walked is one");
                }
            }
            break;
        }
        Ok(())
    }
}

impl<R: BufRead> Read for Kept<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.at == self.pending.len() {
            self.advance().map_err(io::Error::other)?;
        }
        let read = (&self.pending[self.at..]).read(out)?;
        self.at += read;
        Ok(read)
    }
}
