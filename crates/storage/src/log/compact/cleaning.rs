//! One cleaning under way: the map of the dirty part's keys, and the segments written anew by it.

use std::{
    collections::HashMap,
    ops::ControlFlow,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use protocol::{
    LeaderEpoch, Offset, ProducerEpoch, ProducerId,
    batch::{BatchHeader, HEADER_LEN, emptied},
};

use super::{CompactError, Compacted, CompactionResources, output::Output, unread};
use crate::{
    compaction::{
        Dirtiness,
        filter::{Fate, Filter, FilterError, Standing, marker_of, walk},
        offset_map::OffsetMap,
        plan::{self, SegmentFacts},
        transactions::Transactions,
    },
    durable_file::read_if_present,
    error::{Damage, StorageError},
    format::{AbortedEntry, FileKind},
    index::SegmentIndexes,
    log::Log,
    scan::{ScannedBatch, Scanner},
    segment::Segment,
};

/// How long a throttled cleaner sleeps at most before it looks whether it is to end.
const NAP: Duration = Duration::from_millis(100);
/// By producer: the epoch, and the last offset of its data.
type LastOf = HashMap<ProducerId, (ProducerEpoch, Option<Offset>)>;

/// The last batch of each producer, which must not be forgotten.
struct LastBatches {
    /// As of the log's end.
    at_end: LastOf,
    /// As of where the cleaning ends at the latest, where that may be another batch. What lies behind is
    /// not all committed: a truncation may take it, and then a producer's last batch is this one.
    below: LastOf,
}

/// A segment that is not written any more.
struct Sealed {
    segment: Arc<Segment>,
    /// Where the next one begins.
    end: Offset,
}

/// One cleaning under way.
struct Cleaning<'a> {
    log: &'a Log,
    resources: &'a CompactionResources<'a>,
    generation: u64,
    last_batches: LastBatches,
    done: Compacted,
}

/// What the batches tell of those behind them, while segments are written anew.
struct Passed {
    transactions: Transactions,
    /// Of the last batch.
    epoch: Option<LeaderEpoch>,
}

/// Compacts what `dirtiness` of `log` calls cleanable, unless the log was cut since.
pub(super) fn run(
    log: &Log,
    dirtiness: &Dirtiness,
    now_ms: i64,
    resources: &CompactionResources<'_>,
) -> Result<Compacted, CompactError> {
    let all = log.segments.load_full();
    if log.generation() != dirtiness.generation {
        return Err(CompactError::Interrupted);
    }
    // An aborted transaction may end where nothing is cleaned yet: its records count no less as such.
    let mut aborted = Vec::new();
    for segment in all.iter() {
        aborted.extend(aborted_in(segment)?);
    }
    let mut segments: Vec<_> = all
        .windows(2)
        .map(|pair| Sealed {
            segment: Arc::clone(&pair[0]),
            end: pair[1].base(),
        })
        .take_while(|sealed| sealed.end <= dirtiness.first_uncleanable)
        .collect();
    // From here on only the cleaning itself holds back what it replaces.
    drop(all);
    let mut cleaning = Cleaning {
        log,
        resources,
        generation: dirtiness.generation,
        last_batches: LastBatches::of(log, dirtiness.first_uncleanable)?,
        done: Compacted::default(),
    };
    let map = cleaning.build_map(&segments, &aborted, dirtiness)?;
    segments.retain(|sealed| sealed.segment.base() < map.end());
    cleaning.clean(segments, &aborted, &map, now_ms)?;
    cleaning.done.cleaned_to = map.end();
    Ok(cleaning.done)
}

impl LastBatches {
    /// Of a log that is cleaned up to `limit` at most.
    fn of(log: &Log, limit: Offset) -> Result<Self, StorageError> {
        let at_end = log.writer.lock().producers.last_batches();
        let behind = |&(_, last): &(ProducerEpoch, Option<Offset>)| last.is_none_or(|last| last >= limit);
        let mut below = LastOf::new();
        if at_end.values().any(behind) {
            below = log.producers_as_of(limit)?.last_batches();
            // Who is forgotten at the end stays forgotten.
            below.retain(|id, _| at_end.contains_key(id));
        }
        Ok(Self { at_end, below })
    }

    /// Whether a producer's state is known from this batch.
    fn include(&self, header: &BatchHeader) -> bool {
        let is_last = |last: &LastOf| {
            let of_producer = header.producer_id.and_then(|id| last.get(&id));
            of_producer.is_some_and(|&(epoch, last_data)| match last_data {
                Some(last) => header.last_offset() == last,
                None => header.is_control() && header.producer_epoch == epoch,
            })
        };
        is_last(&self.at_end) || is_last(&self.below)
    }
}

impl Cleaning<'_> {
    /// Accounts for bytes read or written, and waits as long as the throttle demands.
    fn pace(&self, bytes: u64) -> Result<(), CompactError> {
        let mut pause = self.resources.throttle.take(bytes, Instant::now());
        loop {
            let log = self.log;
            let interrupted = self.resources.stopping.load(Ordering::Acquire)
                || log.is_closed()
                || log.has_failed()
                || log.generation() != self.generation;
            if interrupted {
                return Err(CompactError::Interrupted);
            }
            if pause.is_zero() {
                return Ok(());
            }
            let nap = pause.min(NAP);
            std::thread::sleep(nap);
            pause -= nap;
        }
    }

    /// Calls `each` with every batch of a segment from `position` on, in order, until it breaks.
    fn batches(
        &self,
        Sealed { segment, end }: &Sealed,
        position: u64,
        mut each: impl FnMut(&BatchHeader, &[u8]) -> Result<ControlFlow<()>, CompactError>,
    ) -> Result<(), CompactError> {
        let file = segment.file()?;
        let mut scanner = Scanner::new(&file, position, segment.size()).reading(self.resources.io_buffer);
        let mut next = segment.base();
        loop {
            let ScannedBatch {
                header,
                position,
                bytes: batch,
            } = match scanner.next_batch() {
                Ok(Some(found)) => found,
                Ok(None) => return Ok(()),
                Err(error) => return Err(segment.scan_error(error, scanner.position()).into()),
            };
            // Neighbours are what proves the base offset: it lies outside the checksum.
            if header.base_offset < next {
                let damage = Damage::OffsetWentBack {
                    expected: next,
                    found: header.base_offset,
                };
                return Err(segment.corrupt(position, damage).into());
            }
            next = header.next_offset();
            if next > *end {
                let damage = Damage::BeyondEnd {
                    log_end: *end,
                    offset: header.last_offset(),
                };
                return Err(segment.corrupt(position, damage).into());
            }
            self.pace(batch.len() as u64)?;
            if each(&header, batch)?.is_break() {
                return Ok(());
            }
        }
    }

    /// The newest offset of each key from the first dirty offset on, as far as the map holds them.
    fn build_map(
        &mut self,
        segments: &[Sealed],
        aborted: &[AbortedEntry],
        dirtiness: &Dirtiness,
    ) -> Result<OffsetMap, CompactError> {
        let (from, to) = (dirtiness.first_dirty, dirtiness.first_uncleanable);
        let expected = to.distance_from(from).unwrap_or(0);
        let resources = self.resources;
        let mut map = OffsetMap::new(resources.map_bytes, resources.load_factor, expected, from);
        // One whose marker was met by an earlier cleaning would never be over.
        let unsettled: Vec<_> = aborted
            .iter()
            .copied()
            .filter(|entry| entry.last_offset >= from)
            .collect();
        let mut transactions = Transactions::new(&unsettled);
        let begin = segments
            .partition_point(|sealed| sealed.segment.base() <= from)
            .saturating_sub(1);
        let (mut full, mut read) = (false, 0);
        for sealed in &segments[begin..] {
            let segment = &sealed.segment;
            let position = segment.with_indexes(|indexes| indexes.position_for(from))?;
            self.batches(sealed, position, |header, batch| {
                if header.next_offset() <= from {
                    return Ok(ControlFlow::Continue(()));
                }
                read += batch.len() as u64;
                let failed = |source| unreadable(segment, header, source);
                if header.is_control() {
                    transactions.on_marker(header, marker_of(batch, header).map_err(failed)?);
                } else if !transactions.on_data(header) {
                    let mut records = walk(batch, header).map_err(failed)?;
                    while let Some(record) = records.next_record().map_err(|error| failed(error.into()))? {
                        let offset = Offset(header.base_offset.0 + i64::from(record.offset_delta));
                        if offset < from {
                            continue;
                        }
                        if map.is_full() {
                            full = true;
                            return Ok(ControlFlow::Break(()));
                        }
                        if let Some(key) = record.key {
                            map.put(key.of(records.record()), offset);
                        }
                        map.covers_up_to(offset.next());
                    }
                }
                map.covers_up_to(header.next_offset());
                Ok(ControlFlow::Continue(()))
            })?;
            if full {
                break;
            }
        }
        if !full {
            map.covers_up_to(to);
        }
        self.done.bytes_read += read;
        self.done.keys = map.len() as u64;
        Ok(map)
    }

    /// Writes `segments` anew, group by group, from the oldest on: a tombstone is never gone while a
    /// record that it deletes is there.
    fn clean(
        &mut self,
        mut segments: Vec<Sealed>,
        aborted: &[AbortedEntry],
        map: &OffsetMap,
        now_ms: i64,
    ) -> Result<(), CompactError> {
        let config = self.log.config();
        let mut passed = Passed {
            transactions: Transactions::new(aborted),
            epoch: None,
        };
        let mut facts = Vec::with_capacity(segments.len());
        for Sealed { segment, .. } in &segments {
            facts.push(SegmentFacts {
                index_size: segment.with_indexes(SegmentIndexes::file_size)?,
                ..unread(segment)
            });
        }
        let filter = Filter {
            map,
            now_ms,
            delete_retention_ms: config.delete_retention_ms(),
        };
        let end = segments.last().map_or(Offset::ZERO, |last| last.end);
        for group in plan::group(&facts, end, &config) {
            // Who lets go of a replaced segment frees its disk space.
            let old: Vec<_> = segments.drain(..group.len()).collect();
            self.done.segments_read += old.len() as u64;
            self.done.segments_left += 1;
            let swapped = self
                .write_anew(&old, &filter, &mut passed)
                .and_then(|size| match size {
                    Some(size) => {
                        let old: Vec<_> = old.iter().map(|sealed| Arc::clone(&sealed.segment)).collect();
                        let swapped = self.log.swap_in(&old, size, self.generation)?;
                        if swapped {
                            Ok(true)
                        } else {
                            Err(CompactError::Interrupted)
                        }
                    }
                    None => Ok(false),
                });
            if !matches!(swapped, Ok(true)) && !self.log.has_failed() {
                self.log.remove_cleaned(old[0].segment.base());
            }
            swapped?;
        }
        Ok(())
    }

    /// Writes what is left of a group to `.cleaned` files, and syncs them; the size of the new segment,
    /// or `None` where it would be the old one.
    fn write_anew(
        &mut self,
        old: &[Sealed],
        filter: &Filter<'_>,
        passed: &mut Passed,
    ) -> Result<Option<u64>, CompactError> {
        let mut output = Output::create(self.log, old[0].segment.base(), self.resources.io_buffer)?;
        let mut changed = old.len() > 1;
        // The batch read last, emptied, where it was dropped.
        let mut dropped_last: Option<[u8; HEADER_LEN]> = None;
        let mut done = self.done;
        for sealed in old {
            let segment = &sealed.segment;
            self.batches(sealed, 0, |header, batch| {
                let failed = |source| unreadable(segment, header, source);
                let standing = self.standing(header, batch, filter, passed).map_err(failed)?;
                let begin = output.buffer.len();
                let filtered = filter
                    .apply(batch, header, standing, &mut output.buffer)
                    .map_err(failed)?;
                done.bytes_read += batch.len() as u64;
                done.records_read += filtered.records_read;
                done.records_kept += filtered.records_kept;
                done.records_without_key += filtered.without_key;
                changed |= filtered.fate != Fate::Untouched;
                if filtered.fate == Fate::Dropped {
                    dropped_last = Some(emptied(batch));
                    return Ok(ControlFlow::Continue(()));
                }
                dropped_last = None;
                let written = (output.buffer.len() - begin) as u64;
                output.take_in(begin).map_err(failed)?;
                output.write_if_full()?;
                self.pace(written)?;
                Ok(ControlFlow::Continue(()))
            })?;
        }
        if let Some(empty) = dropped_last {
            let begin = output.buffer.len();
            output.buffer.extend_from_slice(&empty);
            let header = output
                .take_in(begin)
                .expect("an empty batch parses, and where it replaces one there is room");
            debug_assert_eq!(header.record_count, 0);
        }
        self.done = done;
        let kept = passed.transactions.take_kept();
        if !changed {
            return Ok(None);
        }
        let last = &old[old.len() - 1].segment;
        let has_aborted = old
            .iter()
            .any(|sealed| sealed.segment.path(FileKind::TransactionIndex).exists());
        let size = output.finish(
            last.modified_ms()?,
            (has_aborted || !kept.is_empty()).then_some(&kept[..]),
        )?;
        self.done.bytes_written += size;
        Ok(Some(size))
    }

    /// What holds for a batch as a whole.
    fn standing(
        &self,
        header: &BatchHeader,
        batch: &[u8],
        filter: &Filter<'_>,
        passed: &mut Passed,
    ) -> Result<Standing, FilterError> {
        // Where an epoch begins is known from its first batch: to a follower that has nothing else, and to
        // a recovery that walks the batches.
        let begins_epoch = passed.epoch.replace(header.leader_epoch) != Some(header.leader_epoch);
        let keep_empty = begins_epoch || self.last_batches.include(header);
        if header.is_control() {
            let lone_marker = passed.transactions.on_marker(header, marker_of(batch, header)?);
            let over = header
                .delete_horizon()
                .is_some_and(|horizon| horizon <= filter.now_ms);
            return Ok(Standing {
                discard_records: lone_marker && over,
                keep_empty,
                lone_marker,
            });
        }
        Ok(Standing {
            discard_records: passed.transactions.on_data(header),
            keep_empty,
            lone_marker: false,
        })
    }
}

fn unreadable(segment: &Segment, header: &BatchHeader, source: FilterError) -> CompactError {
    CompactError::Records {
        path: segment.path(FileKind::Log),
        offset: header.base_offset,
        source,
    }
}

/// What the segment's transaction index says; nothing where there is none.
fn aborted_in(segment: &Segment) -> Result<Vec<AbortedEntry>, StorageError> {
    let path = segment.path(FileKind::TransactionIndex);
    let bytes = read_if_present(&path).map_err(StorageError::io("read", &path))?;
    let entries = bytes.as_deref().unwrap_or_default().chunks(AbortedEntry::LEN);
    entries
        .enumerate()
        .map(|(i, bytes)| {
            AbortedEntry::from_bytes(bytes).ok_or_else(|| StorageError::Corrupt {
                path: path.clone(),
                position: (i * AbortedEntry::LEN) as u64,
                damage: Damage::NoIndexEntry,
            })
        })
        .collect()
}
