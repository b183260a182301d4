//! What a read takes from a buffer of batches: pure, and suspicious of every byte.
//!
//! Checksums do not cover a batch's base offset, and a sparse index may lead astray. So a batch counts
//! only if it follows the one before it and ends before the log does, and a batch that is passed over is
//! verified too where a gap comes after it: its last offset may be the damage.

use std::ops::Range;

use protocol::{
    Offset,
    batch::{BatchError, BatchHeader, verify_crc},
};

use super::ReadRequest;
use crate::error::Damage;

/// What is known when a buffer is looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window<'a> {
    pub(super) request: &'a ReadRequest,
    /// Batches end before this offset.
    pub(super) upper: Offset,
    /// No batch that begins before this offset ends at or after it.
    pub(super) log_end: Offset,
    /// Bytes of the segment from the buffer's beginning on.
    pub(super) left: u64,
    /// The buffer is known to begin with a batch, not after the wanted offset.
    pub(super) trusted: bool,
}

/// What to do with a buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Selection {
    /// Return these bytes.
    Batches {
        range: Range<usize>,
        first: Offset,
        next: Offset,
    },
    /// Return nothing.
    Nothing,
    /// Read again `skip` bytes further on, `needed` bytes at least.
    Further { skip: usize, needed: usize },
    /// An untrusted buffer does not fit: read again from the segment's beginning.
    Lost,
    /// The batch at `at` is not what was written.
    Damaged { at: usize, damage: Damage },
}

/// The batches chosen so far.
#[derive(Clone, Copy)]
struct Taken {
    begin: usize,
    /// Where the last of them begins.
    last: usize,
    first: Offset,
    next: Offset,
}

impl Window<'_> {
    /// Chooses the batches to return. What lies before damage is returned; the next read meets the
    /// damage first.
    pub(super) fn select(&self, buffer: &[u8]) -> Selection {
        let mut taken = None;
        let mut at = 0;
        let stopped = self.walk(buffer, &mut taken, &mut at);
        match (taken, stopped) {
            (
                Some(Taken {
                    begin, first, next, ..
                }),
                _,
            ) => Selection::Batches {
                range: begin..at,
                first,
                next,
            },
            (None, Selection::Damaged { .. }) if !self.trusted => Selection::Lost,
            (None, stopped) => stopped,
        }
    }

    /// Walks to where the buffer, the request or the sound batches end, and tells which.
    fn walk(&self, buffer: &[u8], taken: &mut Option<Taken>, at: &mut usize) -> Selection {
        let mut passed: Option<(Range<usize>, Offset)> = None;
        let mut last_but_one = None;
        while *at < buffer.len() {
            let damaged = |at, damage: Damage| Selection::Damaged { at, damage };
            let header = match BatchHeader::parse(&buffer[*at..]) {
                Ok(header) => header,
                Err(BatchError::Truncated { needed, .. }) if (*at + needed) as u64 <= self.left => {
                    return self.cut_off(buffer, *at, needed, passed);
                }
                Err(error) => return damaged(*at, error.into()),
            };
            let expected = taken
                .map(|taken| taken.next)
                .or_else(|| passed.as_ref().map(|(_, next)| *next));
            if let Err(damage) = self.check_order(&header, expected) {
                if let (Damage::OffsetWentBack { .. }, Some(last)) = (&damage, *taken) {
                    // One of the two has another offset than it was given: neither is returned.
                    *at = last.last;
                    *taken = last_but_one;
                }
                return damaged(*at, damage);
            }
            let range = *at..*at + header.size;
            if header.last_offset() < self.request.from {
                *at = range.end;
                passed = Some((range, header.next_offset()));
                continue;
            }
            if header.last_offset() >= self.upper || !self.fits(&range, *taken) {
                return Selection::Nothing;
            }
            if let Err(error) = verify_crc(&buffer[range.clone()]) {
                return damaged(*at, error.into());
            }
            // What was passed over may have held the wanted offset, were its header what was written.
            let before = passed.take().filter(|_| header.base_offset > self.request.from);
            if let Some(stopped) = passed_damage(buffer, before) {
                return stopped;
            }
            last_but_one = *taken;
            *taken = Some(Taken {
                last: *at,
                begin: taken.map_or(*at, |taken| taken.begin),
                first: taken.map_or(header.base_offset, |taken| taken.first),
                next: header.next_offset(),
            });
            *at = range.end;
        }
        passed_damage(buffer, passed).unwrap_or(Selection::Further { skip: *at, needed: 0 })
    }

    fn check_order(&self, header: &BatchHeader, expected: Option<Offset>) -> Result<(), Damage> {
        let found = header.base_offset;
        if let Some(expected) = expected
            && found < expected
        {
            return Err(Damage::OffsetWentBack { expected, found });
        }
        if expected.is_none() && !self.trusted && found > self.request.from {
            // The index should have led to a batch at or before the wanted one.
            return Err(Damage::OffsetWentBack {
                expected: found,
                found: self.request.from,
            });
        }
        if found < self.log_end && header.last_offset() >= self.log_end {
            return Err(Damage::BeyondEnd {
                log_end: self.log_end,
                offset: header.last_offset(),
            });
        }
        Ok(())
    }

    fn fits(&self, range: &Range<usize>, taken: Option<Taken>) -> bool {
        match taken {
            Some(taken) => range.end - taken.begin <= self.request.max_bytes,
            None => range.len() <= self.request.max_bytes || self.request.min_one_batch,
        }
    }

    /// A batch is cut off by the buffer's end, but not by the segment's.
    fn cut_off(
        &self,
        buffer: &[u8],
        at: usize,
        needed: usize,
        passed: Option<(Range<usize>, Offset)>,
    ) -> Selection {
        if let Ok(header) = BatchHeader::parse_header(&buffer[at..]) {
            if let Err(damage) = self.check_order(&header, passed.as_ref().map(|(_, next)| *next)) {
                return Selection::Damaged { at, damage };
            }
            let wanted = header.last_offset() >= self.request.from;
            if wanted && (header.last_offset() >= self.upper || !self.fits(&(at..at + needed), None)) {
                return Selection::Nothing;
            }
        }
        passed_damage(buffer, passed).unwrap_or(Selection::Further { skip: at, needed })
    }
}

/// Whether a batch that was passed over is damaged.
fn passed_damage(buffer: &[u8], passed: Option<(Range<usize>, Offset)>) -> Option<Selection> {
    let (range, _) = passed?;
    let error = verify_crc(&buffer[range.clone()]).err()?;
    Some(Selection::Damaged {
        at: range.start,
        damage: error.into(),
    })
}

#[cfg(test)]
mod tests {
    use protocol::{LeaderEpoch, batch::BatchBuilder};

    use super::*;

    fn batch(base: i64, records: usize) -> Vec<u8> {
        let builder = BatchBuilder {
            base_offset: Offset(base),
            leader_epoch: LeaderEpoch(1),
            ..BatchBuilder::default()
        };
        builder.build_records(&vec![(None, Some(&b"value"[..])); records])
    }

    fn select(buffer: &[u8], from: i64, upper: i64, max_bytes: usize) -> Selection {
        let request = ReadRequest {
            from: Offset(from),
            upper: Offset(upper),
            max_bytes,
            min_one_batch: false,
        };
        let window = Window {
            request: &request,
            upper: Offset(upper),
            log_end: Offset(6),
            left: buffer.len() as u64,
            trusted: true,
        };
        window.select(buffer)
    }

    #[test]
    fn whole_batches_within_the_bounds() {
        let buffer = [batch(0, 2), batch(2, 2), batch(4, 2)].concat();
        let one = buffer.len() / 3;
        let batches = |range, first, next| Selection::Batches {
            range,
            first: Offset(first),
            next: Offset(next),
        };
        assert_eq!(select(&buffer, 0, 6, 9999), batches(0..3 * one, 0, 6));
        assert_eq!(select(&buffer, 3, 6, 9999), batches(one..3 * one, 2, 6));
        assert_eq!(select(&buffer, 3, 5, 9999), batches(one..2 * one, 2, 4));
        assert_eq!(select(&buffer, 0, 6, 2 * one), batches(0..2 * one, 0, 4));
        assert_eq!(select(&buffer, 0, 6, one - 1), Selection::Nothing);
        assert_eq!(
            select(&buffer[..one], 2, 6, 9999),
            Selection::Further { skip: one, needed: 0 }
        );
    }

    #[test]
    fn a_header_that_lies_about_its_offsets_is_damage() {
        // A last offset that became smaller would skip what the reader wants.
        let mut buffer = [batch(0, 2), batch(2, 2)].concat();
        buffer[26] = 0;
        assert!(matches!(
            select(&buffer, 1, 6, 9999),
            Selection::Damaged { at: 0, .. }
        ));
        // One that became larger would make the reader wait for good.
        let mut buffer = batch(4, 2);
        buffer[25] = 1;
        assert!(matches!(
            select(&buffer, 4, 6, 9999),
            Selection::Damaged { at: 0, .. }
        ));
        // A base offset, which no checksum covers, that became larger.
        let mut buffer = [batch(0, 2), batch(2, 2), batch(4, 2)].concat();
        let one = buffer.len() / 3;
        buffer[one + 7] = 4;
        assert!(matches!(select(&buffer, 2, 6, 9999), Selection::Damaged { at, .. } if at == one));
        assert!(matches!(
            select(&buffer, 0, 6, 9999),
            Selection::Batches { next: Offset(2), .. }
        ));
    }
}
