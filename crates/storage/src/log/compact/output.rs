//! The segment that a cleaning writes: batches, then indexes, under names that do not count yet.

use std::{fs::File, io::IoSlice, path::PathBuf, time::Duration};

use protocol::{Offset, batch::BatchHeader};

use super::swap::{INDEXES, suffixed};
use crate::{
    compaction::FilterError,
    disk,
    error::StorageError,
    format::{AbortedEntry, CLEANED_SUFFIX, FileKind, MAX_RELATIVE},
    index::SegmentIndexes,
    log::Log,
};

/// The new segment while it is written.
pub(super) struct Output<'a> {
    log: &'a Log,
    base: Offset,
    path: PathBuf,
    file: File,
    /// Batches that are not written yet.
    pub(super) buffer: Vec<u8>,
    buffer_max: usize,
    /// Bytes written.
    position: u64,
    indexes: SegmentIndexes,
}

impl<'a> Output<'a> {
    pub(super) fn create(log: &'a Log, base: Offset, buffer_max: u64) -> Result<Self, StorageError> {
        let dir = log.files.dir();
        for kind in INDEXES {
            disk::remove(&suffixed(&dir, kind, base, CLEANED_SUFFIX))?;
        }
        let path = suffixed(&dir, FileKind::Log, base, CLEANED_SUFFIX);
        Ok(Self {
            log,
            base,
            file: disk::create(&path)?,
            path,
            buffer: Vec::new(),
            buffer_max: buffer_max as usize,
            position: 0,
            indexes: SegmentIndexes::new(base, log.config.load().index_interval_bytes),
        })
    }

    /// Takes in the batch that lies at `begin` of the buffer.
    pub(super) fn take_in(&mut self, begin: usize) -> Result<BatchHeader, FilterError> {
        let header = BatchHeader::parse(&self.buffer[begin..])?;
        let position = self.position + begin as u64;
        if position + header.size as u64 > MAX_RELATIVE {
            return Err(FilterError::TooLarge);
        }
        self.indexes.add(&header, position);
        Ok(header)
    }

    pub(super) fn write_if_full(&mut self) -> Result<(), StorageError> {
        if self.buffer.len() >= self.buffer_max {
            self.write()?;
        }
        Ok(())
    }

    fn write(&mut self) -> Result<(), StorageError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        disk::write_at(
            &self.file,
            &self.path,
            &mut [IoSlice::new(&self.buffer)],
            self.position,
        )?;
        self.position += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Writes the rest and the indexes, and syncs it all; the segment's size. `modified_ms` is when the
    /// batches were written first, by which retention goes where they have no timestamps.
    pub(super) fn finish(
        mut self,
        modified_ms: i64,
        aborted: Option<&[AbortedEntry]>,
    ) -> Result<u64, StorageError> {
        self.write()?;
        disk::sync_data(&self.file, &self.path)?;
        let modified = u64::try_from(modified_ms).unwrap_or(0);
        self.file
            .set_modified(std::time::UNIX_EPOCH + Duration::from_millis(modified))
            .map_err(StorageError::io("stat", &self.path))?;
        let dir = self.log.files.dir();
        let cleaned = |kind| suffixed(&dir, kind, self.base, CLEANED_SUFFIX);
        self.indexes.seal();
        self.indexes
            .write(&cleaned(FileKind::OffsetIndex), &cleaned(FileKind::TimeIndex))?;
        if let Some(aborted) = aborted {
            let bytes: Vec<u8> = aborted.iter().flat_map(|entry| entry.to_bytes()).collect();
            disk::replace(&cleaned(FileKind::TransactionIndex), &bytes)?;
        }
        for kind in INDEXES {
            disk::sync_if_present(&cleaned(kind))?;
        }
        Ok(self.position)
    }
}
