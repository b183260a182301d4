//! What a log finds on its disk: which batches count after a crash, and which bytes are cut.
//!
//! Recovery keeps every whole valid batch whose offsets follow and whose epoch does not decrease.
//! Below the recovery point everything was synced: damage there is an error, never a cut. Above it, a
//! torn tail is what a crash leaves and is cut, and so is what lies behind a gap: a power loss may take the
//! end of one segment and leave the next. Where no checkpoint tells the recovery point, other damage than that
//! may be cut from the last segment only.

use std::sync::Arc;

use protocol::{
    LeaderEpoch, Offset,
    batch::{BatchError, BatchHeader, HEADER_LEN, LENGTH_OVERHEAD, MAGIC, verify_crc},
};

use crate::{
    disk,
    epochs::EpochCache,
    error::{Damage, StorageError},
    format::{FileKind, MAX_RELATIVE},
    index::SegmentIndexes,
    producers::ProducerState,
    scan::{ScanError, Scanner},
    segment::Segment,
};

/// What the recovery of a log found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Bytes cut from the end of the log.
    pub bytes_cut: u64,
    /// Bytes walked through, checksums verified.
    pub scanned_bytes: u64,
    /// A byte that was durable may be gone: the replica leaves the ISR while another member lives.
    pub lost: bool,
}

/// A walk over a log's segments that rebuilds what is derived from the batches.
#[derive(Debug)]
pub(crate) struct Recovery {
    /// Everything below was synced; `None`: not known.
    pub(crate) synced_below: Option<Offset>,
    /// Batches from here on are replayed into the producers.
    pub(crate) replay_from: Offset,
    pub(crate) producers: ProducerState,
    pub(crate) epochs: EpochCache,
    /// Where snapshots of them were written; not synced.
    pub(crate) snapshots: Vec<Offset>,
    /// A checkpoint named the log. What the log told itself may be from long ago: above it, but for the last segment, only
    /// what a crash leaves is cut.
    pub(crate) is_checkpointed: bool,
    /// Whether segments were removed. Their names may come back until the directory is synced, even of segments that were
    /// empty: nothing must be appended before, or they would begin in the middle of it.
    pub(crate) removed: bool,
    pub(crate) index_interval: u32,
    pub(crate) report: RecoveryReport,
}

/// What is known of the last segment after a walk.
#[derive(Debug)]
pub(crate) struct Tail {
    /// The offset after the last batch.
    pub(crate) end: Offset,
    /// Timestamp of the active segment's first batch, where it has one.
    pub(crate) first_timestamp: Option<i64>,
}

/// How a walk over one segment ended.
enum SegmentEnd {
    Whole,
    Damaged(Damage),
}

/// One segment as it was walked.
struct Walk {
    end: SegmentEnd,
    /// Bytes of valid batches.
    valid: u64,
    next: Offset,
    indexes: SegmentIndexes,
    first_timestamp: Option<i64>,
}

impl Recovery {
    /// Walks the segments from `begin` on and cuts what a crash has torn: `segments` then holds what is
    /// left, the last of them with its indexes in memory, the others with theirs in files.
    pub(crate) fn run(
        &mut self,
        segments: &mut Vec<Arc<Segment>>,
        begin: usize,
    ) -> Result<Tail, StorageError> {
        let mut tail = Tail {
            end: segments.first().map_or(Offset::ZERO, |segment| segment.base()),
            first_timestamp: None,
        };
        let mut latest = None;
        let mut at = begin;
        while at < segments.len() {
            let segment = Arc::clone(&segments[at]);
            let is_last = at + 1 == segments.len();
            if at > begin && segment.base() > self.replay_from {
                self.write_snapshot(&segment)?;
            }
            let mut walk = self.walk(&segment, &mut latest)?;
            if let Some(next) = segments.get(at + 1)
                && matches!(walk.end, SegmentEnd::Whole)
                && let Some(damage) = self.misfit(&walk, next)
            {
                walk.end = SegmentEnd::Damaged(damage);
            }
            tail = Tail {
                end: walk.next,
                first_timestamp: walk.first_timestamp,
            };
            let cut = matches!(walk.end, SegmentEnd::Damaged(_));
            if let SegmentEnd::Damaged(damage) = walk.end {
                self.cut(segments, at, walk.valid, walk.next, damage)?;
            }
            segment.set_indexes(walk.indexes);
            if !is_last && !cut {
                segment.write_indexes()?;
                segment.drop_indexes();
            }
            at += 1;
        }
        if self.synced_below.is_some_and(|synced| tail.end < synced) {
            self.report.lost = true;
        }
        Ok(tail)
    }

    /// Writes what is known of producers where a segment begins: what was written when it was rolled may be
    /// lost, and once the segments below it are deleted nothing else tells.
    fn write_snapshot(&mut self, segment: &Segment) -> Result<(), StorageError> {
        let bytes = self.producers.snapshot_bytes();
        disk::replace(&segment.path(FileKind::ProducerSnapshot), &bytes)?;
        self.snapshots.push(segment.base());
        Ok(())
    }

    /// Why the next segment cannot follow this one, if so. A segment begins where the log ended when it was
    /// rolled, and a compacted one ends where those did that it was made from.
    ///
    /// One that begins earlier was cut off once, and its removal was lost. Where one begins later, batches in
    /// between may have been written and not synced; below the recovery point that is what a crash left of a
    /// retention, and nobody's loss.
    fn misfit(&self, walk: &Walk, next: &Segment) -> Option<Damage> {
        if next.base() < walk.next {
            return Some(Damage::OffsetWentBack {
                expected: walk.next,
                found: next.base(),
            });
        }
        let unsynced = self.synced_below.is_some_and(|synced| walk.next >= synced);
        (next.base() > walk.next && unsynced).then_some(Damage::Missing {
            end: walk.next,
            next: next.base(),
        })
    }

    fn walk(&mut self, segment: &Segment, latest: &mut Option<LeaderEpoch>) -> Result<Walk, StorageError> {
        let file = segment.file()?;
        let mut scanner = Scanner::new(&file, 0, segment.size());
        let mut walk = Walk {
            end: SegmentEnd::Whole,
            valid: 0,
            next: segment.base(),
            indexes: SegmentIndexes::new(segment.base(), self.index_interval),
            first_timestamp: None,
        };
        loop {
            let synced = self.synced_below.is_some_and(|synced| walk.next < synced);
            let step = if synced {
                scanner.next_header()
            } else {
                scanner.next_verified()
            };
            let (header, position) = match step {
                Ok(Some(found)) => found,
                Ok(None) => break,
                Err(ScanError::Damage(damage)) => {
                    walk.end = SegmentEnd::Damaged(damage.into());
                    break;
                }
                Err(error) => return Err(segment.scan_error(error, scanner.position())),
            };
            if let Err(damage) = follows(segment.base(), walk.next, *latest, &header) {
                walk.end = SegmentEnd::Damaged(damage);
                break;
            }
            if !synced {
                self.report.scanned_bytes += header.size as u64;
            }
            if position == 0 {
                walk.first_timestamp = Some(header.max_timestamp).filter(|&t| t >= 0);
            }
            walk.indexes.add(&header, position);
            walk.valid = position + header.size as u64;
            walk.next = header.next_offset();
            *latest = Some(header.leader_epoch);
            self.epochs
                .assign_if_newer(header.leader_epoch, header.base_offset);
            if header.base_offset >= self.replay_from {
                self.producers.update(&header);
            }
        }
        Ok(walk)
    }

    /// Cuts segment `at` to its valid bytes and removes the segments after it, if that is allowed.
    fn cut(
        &mut self,
        segments: &mut Vec<Arc<Segment>>,
        at: usize,
        valid: u64,
        next: Offset,
        damage: Damage,
    ) -> Result<(), StorageError> {
        let segment = Arc::clone(&segments[at]);
        let first_cut = at + usize::from(valid == segment.size());
        let end_is_torn = || is_torn(&segment, valid, next, &damage);
        let is_last = first_cut + 1 >= segments.len();
        let allowed = match self.synced_below {
            Some(synced) if self.is_checkpointed => next >= synced,
            Some(synced) => next >= synced && (is_last || end_is_torn()?),
            None => is_last,
        };
        if !allowed {
            return Err(segment.corrupt(valid, damage));
        }
        let later = segments.split_off(at + 1);
        let torn = later.iter().all(|segment| segment.size() == 0) && end_is_torn()?;
        let cut = segment.size() - valid + later.iter().map(|segment| segment.size()).sum::<u64>();
        tracing::warn!(segment = %segment.path(FileKind::Log).display(), position = valid, bytes = cut, torn, %damage,
            "the end of the log is not valid and is cut");
        self.removed |= !later.is_empty();
        for segment in later.iter().rev() {
            segment.close();
            for kind in FileKind::ALL {
                let path = segment.path(kind);
                disk::remove(&path)?;
            }
        }
        let path = segment.path(FileKind::Log);
        disk::set_len(&*segment.hold_for_write()?, &path, valid)?;
        segment.set_size(valid);
        self.report.bytes_cut += cut;
        self.report.lost |= !torn;
        Ok(())
    }
}

/// Whether the bytes from `valid` on were never whole: the first part of a batch that was being written,
/// with nothing whole behind it, or zeroes, which some file systems show where a length became durable
/// before the bytes. Anything else was whole once, and may have been durable.
fn is_torn(segment: &Segment, valid: u64, next: Offset, damage: &Damage) -> Result<bool, StorageError> {
    let file = segment.file()?;
    let mut tail = vec![0; (segment.size() - valid) as usize];
    std::os::unix::fs::FileExt::read_exact_at(&*file, &mut tail, valid)
        .map_err(StorageError::io("read", &segment.path(FileKind::Log)))?;
    let is_truncated = matches!(damage, Damage::Batch(BatchError::Truncated { .. }));
    Ok(tail.iter().all(|&byte| byte == 0) || (is_truncated && !holds_a_batch(&tail, next)))
}

/// Whether `header` may come after a log that ends at `next` with epoch `latest`.
fn follows(
    base: Offset,
    next: Offset,
    latest: Option<LeaderEpoch>,
    header: &BatchHeader,
) -> Result<(), Damage> {
    if header.base_offset < next {
        return Err(Damage::OffsetWentBack {
            expected: next,
            found: header.base_offset,
        });
    }
    if let Some(latest) = latest
        && header.leader_epoch < latest
    {
        return Err(Damage::EpochWentBack {
            latest,
            found: header.leader_epoch,
        });
    }
    let offset = header.last_offset();
    if offset
        .distance_from(base)
        .is_none_or(|distance| distance > MAX_RELATIVE)
    {
        return Err(Damage::TooFar { base, offset });
    }
    Ok(())
}

/// Whether a whole valid batch at or after offset `next` lies anywhere in `bytes`.
fn holds_a_batch(bytes: &[u8], next: Offset) -> bool {
    let magic_at = LENGTH_OVERHEAD + 4;
    (1..bytes.len().saturating_sub(HEADER_LEN - 1)).any(|at| {
        bytes[at + magic_at] == MAGIC as u8
            && BatchHeader::parse(&bytes[at..]).is_ok_and(|header| {
                let near = header
                    .base_offset
                    .distance_from(next)
                    .is_some_and(|d| d <= MAX_RELATIVE);
                near && verify_crc(&bytes[at..at + header.size]).is_ok()
            })
    })
}
