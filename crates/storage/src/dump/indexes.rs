//! `.index` and `.timeindex`: their entries, each compared with the log it points into.

use std::{collections::BTreeMap, fs, io::Write, path::Path};

use protocol::Offset;

use super::{DumpError, DumpOptions, DumpSummary};
use crate::{
    error::StorageError,
    format::{OffsetEntry, TimeEntry},
    scan::{ScanError, Scanner},
};

/// What the log beside an index holds: by last offset, each batch's position and max timestamp.
struct Batches(BTreeMap<i64, (u64, i64)>);

impl Batches {
    /// The batches of the segment's log, up to the first damage.
    fn beside(index: &Path, base: Offset) -> Result<Self, DumpError> {
        let path = super::log_beside(index, base);
        if !path.try_exists().map_err(StorageError::io("find", &path))? {
            return Err(DumpError::NoLogBeside {
                index: index.to_owned(),
                log: path,
            });
        }
        let (file, size) = super::open(&path)?;
        let mut scanner = Scanner::new(&file, 0, size);
        let mut batches = BTreeMap::new();
        loop {
            match scanner.next_header() {
                Ok(Some((header, position))) => {
                    batches.insert(header.last_offset().0, (position, header.max_timestamp));
                }
                Ok(None) | Err(ScanError::Damage(_)) => return Ok(Self(batches)),
                Err(ScanError::Io(error)) => return Err(StorageError::io("read", &path)(error).into()),
            }
        }
    }

    fn has(&self, offset: i64, fits: impl Fn(u64, i64) -> bool) -> bool {
        self.0
            .get(&offset)
            .is_some_and(|&(position, time)| fits(position, time))
    }
}

pub(super) fn dump_offsets(
    path: &Path,
    base: Offset,
    options: &DumpOptions,
    out: &mut dyn Write,
) -> Result<DumpSummary, DumpError> {
    let bytes = read(path)?;
    let batches = Batches::beside(path, base)?;
    let summary = dump(path, &bytes, options, out, OffsetEntry::LEN, |bytes| {
        let entry = OffsetEntry::from_bytes(bytes)?;
        let offset = base.0.saturating_add(i64::from(entry.relative));
        let fits = batches.has(offset, |position, _| position == u64::from(entry.position));
        Some((format!("offset: {offset} position: {}", entry.position), fits))
    })?;
    if bytes.is_empty() {
        // Kafka's tool says so of offset indexes alone.
        writeln!(out, "{} is empty.", path.display())?;
    }
    Ok(summary)
}

pub(super) fn dump_times(
    path: &Path,
    base: Offset,
    options: &DumpOptions,
    out: &mut dyn Write,
) -> Result<DumpSummary, DumpError> {
    let bytes = read(path)?;
    let batches = Batches::beside(path, base)?;
    dump(path, &bytes, options, out, TimeEntry::LEN, |bytes| {
        let entry = TimeEntry::from_bytes(bytes)?;
        let offset = base.0.saturating_add(i64::from(entry.relative));
        let fits = batches.has(offset, |_, timestamp| timestamp == entry.timestamp);
        Some((format!("timestamp: {} offset: {offset}", entry.timestamp), fits))
    })
}

fn read(path: &Path) -> Result<Vec<u8>, StorageError> {
    fs::read(path).map_err(StorageError::io("read", path))
}

/// Prints entries of `len` bytes; `describe` gives each one's line and whether it fits the log.
fn dump(
    path: &Path,
    bytes: &[u8],
    options: &DumpOptions,
    out: &mut dyn Write,
    len: usize,
    describe: impl Fn(&[u8]) -> Option<(String, bool)>,
) -> Result<DumpSummary, DumpError> {
    super::print_title(path, out)?;
    let mut summary = DumpSummary::default();
    for entry in bytes.chunks(len) {
        match describe(entry) {
            Some((line, fits)) => {
                summary.entries += 1;
                summary.invalid += u64::from(!fits);
                if !fits {
                    writeln!(out, "{line} (no batch of the log is there)")?;
                } else if !options.verify_only {
                    writeln!(out, "{line}")?;
                }
            }
            None => {
                summary.invalid_bytes = entry.len() as u64;
                writeln!(
                    out,
                    "Found {} invalid bytes at the end of {}",
                    entry.len(),
                    path.display()
                )?;
            }
        }
    }
    Ok(summary)
}
