//! Behind damage: where the next whole batch begins, for a reader that has no other replica to ask.
//!
//! A damaged header does not tell how long its batch is, and the sparse index leads only to some of the
//! batches behind it. So the bytes are searched for what is a batch by its checksum.

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

/// Bytes searched at once.
const CHUNK: u64 = 256 * 1024;
/// Where a batch's magic byte stands.
const MAGIC_AT: usize = 16;

/// What would be a batch that a reader may go on with.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    /// It does not end before this offset.
    from: Offset,
    /// It ends before the log does.
    log_end: Offset,
}

impl Wanted {
    fn is(self, header: &BatchHeader) -> bool {
        header.last_offset() >= self.from && header.last_offset() < self.log_end
    }
}

/// A segment's bytes.
struct Bytes<'a> {
    file: &'a File,
    size: u64,
}

impl Log {
    /// Where reading can go on behind the damage that [`Log::read`] met at `from`: the base offset of the
    /// next batch that is whole, or the log's end where there is none. The next read from there finds it.
    ///
    /// That may be the batch at `from` itself, where only the index was in the way. A caller that comes back
    /// all the same (the batch contradicts its neighbour, and one of them is wrong) asks for what is behind
    /// `from.next()`.
    pub fn behind_damage(&self, from: Offset) -> Result<Offset, StorageError> {
        self.unless_crossed(|generation| self.search_behind(from, generation))
    }

    fn search_behind(&self, from: Offset, generation: u64) -> Result<Offset, StorageError> {
        let log_end = self.log_end_offset();
        let wanted = Wanted { from, log_end };
        let segments = self.segments.load();
        let Some(at) = Self::segment_index(&segments, from) else {
            return Err(self.out_of_range(from));
        };
        for (i, segment) in segments[at..].iter().enumerate() {
            let (file, size) = (segment.file()?, segment.size());
            let bytes = Bytes { file: &file, size };
            let unreadable = |error| StorageError::io("read", &segment.path(FileKind::Log))(error);
            let found = if i == 0 {
                let begin = match segment.with_indexes(|indexes| indexes.position_for(from)) {
                    // Indexes are made of the batches where they are missing; the damage is in the way.
                    Err(StorageError::Corrupt { .. }) => 0,
                    begin => begin?,
                };
                bytes.behind_damage(begin, wanted)
            } else {
                bytes.at_or_behind(0, 0, wanted)
            };
            if let Some((base, position)) = found.map_err(unreadable)? {
                self.note_position(generation, segment, base, position);
                return Ok(base);
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
    /// The wanted batch behind the damage that a walk from `begin`, where a batch begins, comes to.
    fn behind_damage(&self, begin: u64, wanted: Wanted) -> io::Result<Option<(Offset, u64)>> {
        let mut scanner = Scanner::new(self.file, begin, self.size);
        loop {
            let position = scanner.position();
            match scanner.next_header() {
                Ok(Some((header, _))) if header.last_offset() < wanted.from => {}
                Ok(Some((header, _))) => {
                    if wanted.is(&header) && self.whole_at(position)?.is_some() {
                        return Ok(Some((header.base_offset, position)));
                    }
                    // Its header tells where the next one begins.
                    return self.at_or_behind(scanner.position(), position, wanted);
                }
                Ok(None) => return Ok(None),
                Err(ScanError::Io(error)) => return Err(error),
                Err(ScanError::Damage(_)) => return self.search(position, wanted),
            }
        }
    }

    /// The wanted batch at `next`, or else the first one behind `begin`.
    fn at_or_behind(&self, next: u64, begin: u64, wanted: Wanted) -> io::Result<Option<(Offset, u64)>> {
        match self.whole_at(next)? {
            Some((header, _)) if wanted.is(&header) => Ok(Some((header.base_offset, next))),
            _ => self.search(begin, wanted),
        }
    }

    /// The first wanted batch at any position behind `begin`.
    fn search(&self, begin: u64, wanted: Wanted) -> io::Result<Option<(Offset, u64)>> {
        let mut at = begin + 1;
        while at + HEADER_LEN as u64 <= self.size {
            let mut chunk = vec![0; CHUNK.min(self.size - at) as usize];
            self.file.read_exact_at(&mut chunk, at)?;
            let headers = chunk.len() - HEADER_LEN + 1;
            for i in (0..headers).filter(|i| chunk[i + MAGIC_AT] as i8 == MAGIC) {
                let candidate = BatchHeader::parse_header(&chunk[i..]);
                let position = at + i as u64;
                if let Ok(header) = candidate
                    && wanted.is(&header)
                    && let Some((_, end)) = self.whole_at(position)?
                    // Inside a damaged batch may lie what looks like one: a value that somebody sent.
                    && self.is_boundary(end)?
                {
                    return Ok(Some((header.base_offset, position)));
                }
            }
            at += headers as u64;
        }
        Ok(None)
    }

    /// The header of the batch at `position`, and where it ends, if it is whole.
    fn whole_at(&self, position: u64) -> io::Result<Option<(BatchHeader, u64)>> {
        let mut scanner = Scanner::new(self.file, position, self.size);
        match scanner.next_verified() {
            Ok(found) => Ok(found.map(|(header, _)| (header, scanner.position()))),
            Err(ScanError::Damage(_)) => Ok(None),
            Err(ScanError::Io(error)) => Err(error),
        }
    }

    /// Whether a batch ends at `position`, as far as what follows tells.
    fn is_boundary(&self, position: u64) -> io::Result<bool> {
        match Scanner::new(self.file, position, self.size).next_header() {
            Ok(_) => Ok(true),
            Err(ScanError::Damage(_)) => Ok(false),
            Err(ScanError::Io(error)) => Err(error),
        }
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
}
