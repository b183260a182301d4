//! Behind damage: where the next whole batch begins, for a reader that has no other replica to ask.
//!
//! A damaged header does not tell how long its batch is, and the sparse index leads only to some of the
//! batches behind it. So the bytes are searched for what is a batch by its checksum. Base offsets lie
//! outside of it: a batch counts only if what is behind it does not contradict them, as a read has it too.

use std::{fs::File, io, os::unix::fs::FileExt};

use protocol::{
    Offset,
    batch::{BatchHeader, HEADER_LEN, MAGIC},
};

use super::{Log, read::Hint};
use crate::{
    error::StorageError,
    format::FileKind,
    scan::{ScanError, Scanner},
    segment::Segment,
};

/// Bytes read at once: little, because many a search is over soon.
const CHUNK: u64 = 16 * 1024;
/// Where a batch's magic byte stands.
const MAGIC_AT: usize = 16;
/// For each byte that is searched so many may be verified, beside each of the segment's once.
const VERIFIED_PER_BYTE: u64 = 16;

/// What would be a batch that a reader may go on with.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    /// It does not end before this offset.
    from: Offset,
    /// No batch of the segment begins before this offset.
    base: Offset,
    /// Every batch of the segment ends before this offset.
    end: Offset,
}

impl Wanted {
    fn is(self, header: &BatchHeader) -> bool {
        header.last_offset() >= self.from && self.may_be(header)
    }

    /// Whether the offsets are the segment's.
    fn may_be(self, header: &BatchHeader) -> bool {
        header.base_offset >= self.base && header.last_offset() < self.end
    }
}

/// What lies behind a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behind {
    /// A later batch, or the segment's end.
    Agrees,
    /// What looks like an earlier batch: one of the two has another offset than it was given.
    Contradicts,
    /// No batch.
    Damaged,
}

/// How much is verified at most: a value may be full of what looks like headers of large batches. It admits
/// any one batch that the segment may hold; where it is used up by such a value, the next batches are found.
#[derive(Clone, Copy, Debug)]
struct Budget {
    /// Bytes of the segment.
    left: u64,
    /// Positions that were looked at.
    searched: u64,
    /// Bytes whose checksum was asked for.
    verified: u64,
}

impl Budget {
    fn new(left: u64) -> Self {
        Self {
            left,
            searched: 0,
            verified: 0,
        }
    }

    /// Whether so many bytes more may be verified; they count as such then.
    fn allows(&mut self, size: u64) -> bool {
        let most = self.left + self.searched * VERIFIED_PER_BYTE;
        let allowed = self.verified + size <= most;
        if allowed {
            self.verified += size;
        }
        allowed
    }
}

/// A segment's bytes.
struct Bytes<'a> {
    file: &'a File,
    size: u64,
}

impl Log {
    /// Where reading can go on behind the damage that [`Log::read`] met at `from`: where the next batch that
    /// is whole begins, or the log's end where there is none; never before `from`, which may lie inside that
    /// batch. The next read from there finds it.
    ///
    /// That may be `from` itself, where only the index was in the way. A caller that comes back all the same
    /// asks for what is behind `from.next()`, and so on: then it does not come back for ever.
    pub fn behind_damage(&self, from: Offset) -> Result<Offset, StorageError> {
        self.unless_crossed(|generation| self.search_behind(from, generation))
    }

    fn search_behind(&self, from: Offset, generation: u64) -> Result<Offset, StorageError> {
        let log_end = self.log_end_offset();
        let segments = self.segments.load();
        let Some(at) = Self::segment_index(&segments, from) else {
            return Err(self.out_of_range(from));
        };
        for (i, segment) in segments.iter().enumerate().skip(at) {
            let (file, size) = (segment.file()?, segment.size());
            let bytes = Bytes { file: &file, size };
            let wanted = Wanted {
                from,
                base: segment.base(),
                end: segments
                    .get(i + 1)
                    .map_or(log_end, |next| next.base().min(log_end)),
            };
            let begin = if i == at {
                match segment.with_indexes(|indexes| indexes.position_for(from)) {
                    // Indexes are made of the batches where they are missing; the damage is in the way.
                    Err(StorageError::Corrupt { .. }) => 0,
                    begin => begin?,
                }
            } else {
                0
            };
            let unreadable = |error| StorageError::io("read", &segment.path(FileKind::Log))(error);
            if let Some((base, position)) = bytes.first(begin, wanted).map_err(unreadable)? {
                let next = base.max(from);
                self.note_position(generation, segment, next, position);
                return Ok(next);
            }
        }
        Ok(log_end)
    }

    /// Leads the next read past the damage.
    fn note_position(&self, generation: u64, segment: &Segment, offset: Offset, position: u64) {
        let hint = Hint {
            generation,
            segment: segment.id(),
            offset,
            position,
        };
        self.read_hints.lock().note(offset, hint);
    }
}

impl Bytes<'_> {
    /// The first wanted batch, as its base offset and position, of a walk from `begin`, where the index says
    /// that a batch begins.
    fn first(&self, begin: u64, wanted: Wanted) -> io::Result<Option<(Offset, u64)>> {
        // As a read has it: an index that leads astray is not followed.
        let fits = |(header, _): (BatchHeader, u64)| header.base_offset <= wanted.from;
        let begin = if self.whole_at(begin)?.is_some_and(fits) {
            begin
        } else {
            0
        };
        let mut scanner = self.scanner(begin);
        let mut budget = Budget::new(self.size - begin.min(self.size));
        loop {
            let position = scanner.position();
            // Only a checksum proves where a batch ends.
            match scanner.next_verified() {
                Ok(None) => return Ok(None),
                Ok(Some((header, _))) => {
                    let end = scanner.position();
                    if wanted.is(&header) && self.behind(&header, end)? != Behind::Contradicts {
                        return Ok(Some((header.base_offset, position)));
                    }
                }
                Err(ScanError::Damage(_)) => match self.search(position + 1, wanted, &mut budget)? {
                    Some(found) => scanner = self.scanner(found),
                    None => return Ok(None),
                },
                Err(ScanError::Io(error)) => return Err(error),
            }
        }
    }

    /// Where the first batch begins that may be one, at any position from `begin` on.
    fn search(&self, begin: u64, wanted: Wanted, budget: &mut Budget) -> io::Result<Option<u64>> {
        let mut at = begin;
        let mut chunk = vec![0; CHUNK as usize];
        while at + HEADER_LEN as u64 <= self.size {
            chunk.truncate(CHUNK.min(self.size - at) as usize);
            self.file.read_exact_at(&mut chunk, at)?;
            let headers = chunk.len() - HEADER_LEN + 1;
            for i in 0..headers {
                budget.searched += 1;
                if chunk[i + MAGIC_AT] as i8 != MAGIC {
                    continue;
                }
                let position = at + i as u64;
                if let Ok(header) = BatchHeader::parse_header(&chunk[i..])
                    && header.size as u64 <= self.size - position
                    && wanted.may_be(&header)
                    // Inside a damaged batch may lie what looks like one: a value that somebody sent.
                    && self.behind(&header, position + header.size as u64)? == Behind::Agrees
                    && budget.allows(header.size as u64)
                    && self.whole_at(position)?.is_some()
                {
                    return Ok(Some(position));
                }
            }
            at += headers as u64;
        }
        Ok(None)
    }

    /// The header of the batch at `position`, and where it ends, if it is whole.
    fn whole_at(&self, position: u64) -> io::Result<Option<(BatchHeader, u64)>> {
        let mut scanner = self.scanner(position).reading(HEADER_LEN as u64);
        match scanner.next_verified() {
            Ok(found) => Ok(found.map(|(header, _)| (header, scanner.position()))),
            Err(ScanError::Damage(_)) => Ok(None),
            Err(ScanError::Io(error)) => Err(error),
        }
    }

    /// What `end`, where the batch with `header` ends, says about it.
    fn behind(&self, header: &BatchHeader, end: u64) -> io::Result<Behind> {
        match self.scanner(end).reading(HEADER_LEN as u64).next_header() {
            Ok(Some((next, _))) if next.base_offset < header.next_offset() => Ok(Behind::Contradicts),
            Ok(_) => Ok(Behind::Agrees),
            Err(ScanError::Damage(_)) => Ok(Behind::Damaged),
            Err(ScanError::Io(error)) => Err(error),
        }
    }

    fn scanner(&self, position: u64) -> Scanner<'_> {
        Scanner::new(self.file, position, self.size).reading(CHUNK)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use protocol::batch::{BatchBuilder, Batches};

    use super::*;
    use crate::{
        LogConfig,
        test_support::{TestLog, lead, small, try_read},
    };

    /// Batches of one segment, every other of which the index knows.
    fn one_segment() -> TestLog {
        TestLog::new(LogConfig {
            segment_bytes: 1 << 20,
            ..small()
        })
    }

    /// Ten batches of one record each; the size of one.
    fn ten_batches(log: &Log) -> usize {
        for i in 0..10_u8 {
            let value = [b'0' + i; 30];
            let batch = BatchBuilder::default().build_records(&[(Some(b"k"), Some(&value))]);
            lead(log, batch.into(), 1);
        }
        log.flush().expect("flush");
        let bytes = fs::read(FileKind::Log.path(&log.dir(), Offset(0))).expect("read");
        assert_eq!(bytes.len() % 10, 0);
        bytes.len() / 10
    }

    fn overwrite(log: &Log, at: usize, with: u8) {
        let path = FileKind::Log.path(&log.dir(), Offset(0));
        let mut bytes = fs::read(&path).expect("read");
        assert_ne!(bytes[at], with);
        bytes[at] = with;
        fs::write(&path, bytes).expect("write");
    }

    /// The offsets that a reader gets who goes on behind every damage.
    fn readable(log: &Log) -> Vec<i64> {
        let (mut from, mut all) = (log.log_start_offset(), Vec::new());
        let mut again = false;
        while from < log.log_end_offset() {
            match try_read(log, from.0, i64::MAX, 1 << 20) {
                Ok(read) if read.first.is_some() => {
                    let headers = Batches::new(read.bytes).map(|batch| batch.expect("whole").0);
                    all.extend(headers.map(|header| header.base_offset.0));
                    from = read.next_offset;
                    again = false;
                }
                // A base offset beyond the end is not told from a batch that is just being appended.
                Ok(_) | Err(StorageError::Corrupt { .. }) => {
                    let asked = if again { from.next() } else { from };
                    let next = log.behind_damage(asked).expect("searched");
                    assert!(next >= asked, "no progress at {from}");
                    again = next == from;
                    from = next;
                }
                Err(error) => panic!("{error}"),
            }
        }
        all
    }

    fn all_but(gone: &[i64]) -> Vec<i64> {
        (0..10).filter(|offset| !gone.contains(offset)).collect()
    }

    #[test]
    fn only_what_is_damaged_is_passed_over() {
        // In a record; the length, too small and too large; the magic; a base offset far beyond the end.
        for (at, with) in [(70, 0xff), (11, 1), (8, 0x7f), (16, 9), (0, 0x7f)] {
            for batch in [0, 4, 9] {
                let log = one_segment();
                let size = ten_batches(&log);
                overwrite(&log, batch * size + at, with);
                assert_eq!(
                    readable(&log),
                    all_but(&[batch as i64]),
                    "byte {at} of batch {batch}"
                );
            }
        }
    }

    /// Base offsets lie outside the checksum: which of two is wrong cannot be told.
    #[test]
    fn two_batches_that_contradict_each_other_are_passed_over() {
        let log = one_segment();
        let size = ten_batches(&log);
        overwrite(&log, 4 * size + 7, 1);
        assert_eq!(readable(&log), all_but(&[3, 4]));
    }

    #[test]
    fn damage_in_several_places_and_up_to_the_end_of_a_segment() {
        let log = one_segment();
        let size = ten_batches(&log);
        for (batch, at) in [(2, 16), (3, 16), (5, 70), (9, 8)] {
            overwrite(&log, batch * size + at, 0x7f);
        }
        log.roll(0).expect("roll");
        let batch = BatchBuilder::default().build_records(&[(Some(b"k"), Some(b"later"))]);
        lead(&log, batch.into(), 1);
        let mut expected = all_but(&[2, 3, 5, 9]);
        expected.push(10);
        assert_eq!(readable(&log), expected);
    }

    /// Its indexes cannot be made anew.
    #[test]
    fn damage_in_a_segment_without_indexes() {
        let log = one_segment();
        let size = ten_batches(&log);
        log.roll(0).expect("roll");
        for kind in [FileKind::OffsetIndex, FileKind::TimeIndex] {
            fs::remove_file(kind.path(&log.dir(), Offset(0))).expect("remove");
        }
        for batch in [2, 6] {
            overwrite(&log, batch * size + 16, 0x7f);
        }
        // Not even the first batch is found without an index.
        assert_eq!(readable(&log), all_but(&[2, 6]));
    }

    #[test]
    fn a_batch_inside_a_damaged_record_is_none() {
        let log = one_segment();
        let inner = BatchBuilder {
            base_offset: Offset(1),
            ..BatchBuilder::default()
        };
        let inner = inner.build_records(&[(Some(b"k"), Some(b"forged"))]);
        let outer = BatchBuilder::default().build_records(&[(Some(b"k"), Some(&inner))]);
        lead(&log, outer.into(), 1);
        let batch = BatchBuilder::default().build_records(&[(Some(b"k"), Some(b"v"))]);
        lead(&log, batch.into(), 1);
        log.flush().expect("flush");
        overwrite(&log, 8, 0x7f);
        let next = log.behind_damage(Offset(0)).expect("searched");
        assert_eq!(next, Offset(1));
        let read = try_read(&log, 1, i64::MAX, 1 << 20).expect("whole");
        assert!(!read.bytes.windows(6).any(|window| window == b"forged"));
    }

    #[test]
    fn a_base_offset_that_leads_past_sound_batches_is_not_followed() {
        for damaged in [0, 4, 8] {
            let log = one_segment();
            let size = ten_batches(&log);
            overwrite(&log, damaged * size + 7, 9);
            assert_eq!(readable(&log), all_but(&[damaged as i64]));
        }
        // The last of a segment: the next one tells.
        let log = one_segment();
        let size = ten_batches(&log);
        log.roll(0).expect("roll");
        for _ in 0..10 {
            let batch = BatchBuilder::default().build_records(&[(Some(b"k"), Some(b"later"))]);
            lead(&log, batch.into(), 1);
        }
        overwrite(&log, 9 * size + 7, 12);
        assert_eq!(log.behind_damage(Offset(9)).expect("searched"), Offset(10));
    }

    #[test]
    fn batches_of_several_records_that_contradict_each_other_are_passed_over() {
        let log = one_segment();
        for i in 0..5_u8 {
            let value = [b'0' + i; 30];
            let record: (Option<&[u8]>, Option<&[u8]>) = (Some(b"k"), Some(&value));
            lead(
                &log,
                BatchBuilder::default().build_records(&[record; 5]).into(),
                1,
            );
        }
        log.flush().expect("flush");
        let size = fs::read(FileKind::Log.path(&log.dir(), Offset(0)))
            .expect("read")
            .len()
            / 5;
        overwrite(&log, 3 * size + 7, 3);
        assert_eq!(readable(&log), [0, 5, 20]);
        for asked in 10..20 {
            assert_eq!(log.behind_damage(Offset(asked)).expect("searched"), Offset(20));
        }
    }

    /// Nor may it lead back to where the reader was, or before the log's start.
    #[test]
    fn an_offset_inside_a_sound_batch_stays_what_it_is() {
        let log = one_segment();
        let record: (Option<&[u8]>, Option<&[u8]>) = (Some(b"k"), Some(b"v"));
        for _ in 0..2 {
            lead(
                &log,
                BatchBuilder::default().build_records(&[record; 5]).into(),
                1,
            );
        }
        for asked in 0..10 {
            assert_eq!(log.behind_damage(Offset(asked)).expect("searched"), Offset(asked));
            let read = try_read(&log, asked, i64::MAX, 1 << 20).expect("whole");
            assert_eq!(read.first, Some(Offset(asked / 5 * 5)));
        }
    }

    #[test]
    fn a_length_that_leads_into_a_value_is_not_followed() {
        let log = one_segment();
        let inner = BatchBuilder {
            base_offset: Offset(1),
            ..BatchBuilder::default()
        };
        let inner = inner.build_records(&[(Some(b"k"), Some(b"forged"))]);
        let outer = BatchBuilder::default().build_records(&[(Some(b"k"), Some(&inner))]);
        let at = outer.windows(inner.len()).position(|window| window == inner);
        let at = at.expect("uncompressed");
        lead(&log, outer.into(), 1);
        for _ in 0..2 {
            let batch = BatchBuilder::default().build_records(&[(Some(b"k"), Some(b"v"))]);
            lead(&log, batch.into(), 1);
        }
        log.flush().expect("flush");
        // A batch's length counts from behind itself.
        overwrite(&log, 11, (at - 12) as u8);
        for asked in 0..2 {
            assert_eq!(log.behind_damage(Offset(asked)).expect("searched"), Offset(1));
            let read = try_read(&log, 1, i64::MAX, 1 << 20).expect("whole");
            assert!(!read.bytes.windows(6).any(|window| window == b"forged"));
        }
    }

    #[test]
    fn a_value_full_of_headers_costs_little() {
        const FAKES: usize = 3000;
        let header = |base: u8, size: usize| {
            let mut header = BatchBuilder::default().build_records(&[(Some(b"k"), Some(b"fake"))]);
            header.truncate(HEADER_LEN);
            header[7] = base;
            header[8..12].copy_from_slice(&(size as u32 - 12).to_be_bytes());
            header
        };
        let log = one_segment();
        // Each claims all that follows, up to one more that agrees.
        let fakes = (0..FAKES).flat_map(|i| header(0, (FAKES - i) * HEADER_LEN));
        let value: Vec<u8> = fakes.chain(header(1, HEADER_LEN)).collect();
        let batch = BatchBuilder::default().build_records(&[(Some(b"k"), Some(&value))]);
        lead(&log, batch.into(), 1);
        for _ in 0..9 {
            let batch = BatchBuilder::default().build_records(&[(Some(b"k"), Some(b"v"))]);
            lead(&log, batch.into(), 1);
        }
        log.flush().expect("flush");
        overwrite(&log, 8, 0x7f);
        let next = log.behind_damage(Offset(0)).expect("searched");
        assert!(next <= Offset(3), "{next}");

        let file = File::open(FileKind::Log.path(&log.dir(), Offset(0))).expect("open");
        let size = file.metadata().expect("metadata").len();
        let wanted = Wanted {
            from: Offset(0),
            base: Offset(0),
            end: Offset(10),
        };
        let mut budget = Budget::new(size);
        let bytes = Bytes { file: &file, size };
        assert!(bytes.search(1, wanted, &mut budget).expect("searched").is_some());
        assert!(budget.verified <= (1 + VERIFIED_PER_BYTE) * size, "{budget:?}");
        assert!(budget.verified > size, "it was put to the test: {budget:?}");
    }
}
