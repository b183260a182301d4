//! Walks the batches of a segment file in order, headers only or whole with their checksums.

use std::{fs::File, io, os::unix::fs::FileExt};

use protocol::batch::{BatchError, BatchHeader, HEADER_LEN, verify_crc};

/// Bytes read at once: large enough for the disk, small enough for a thousand recoveries.
const CHUNK: u64 = 256 * 1024;

/// Why a walk ended before the end of the file.
#[derive(Debug)]
pub(crate) enum ScanError {
    /// The file could not be read.
    Io(io::Error),
    /// What lies at [`Scanner::position`] is no batch.
    Damage(BatchError),
}

/// A whole batch of a segment file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScannedBatch<'a> {
    pub(crate) header: BatchHeader,
    /// Where it begins in the file.
    pub(crate) position: u64,
    pub(crate) bytes: &'a [u8],
}

/// A walk over the bytes from a position to an end.
#[derive(Debug)]
pub(crate) struct Scanner<'a> {
    file: &'a File,
    position: u64,
    end: u64,
    chunk: u64,
    buffer: Vec<u8>,
    buffer_at: u64,
}

impl<'a> Scanner<'a> {
    /// Walks `file` from `position`, where a batch begins, to `end`.
    pub(crate) fn new(file: &'a File, position: u64, end: u64) -> Self {
        Self {
            file,
            position,
            end,
            chunk: CHUNK,
            buffer: Vec::new(),
            buffer_at: position,
        }
    }

    /// Reads so many bytes at once, or as many as the next batch has.
    pub(crate) fn reading(mut self, bytes: u64) -> Self {
        self.chunk = bytes;
        self
    }

    /// Where the next batch begins; after an error, where the damage begins.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// The next batch's header and position, its bytes unread where they can be skipped.
    pub(crate) fn next_header(&mut self) -> Result<Option<(BatchHeader, u64)>, ScanError> {
        let Some(header) = self.header()? else {
            return Ok(None);
        };
        let position = self.position;
        self.position += header.size as u64;
        Ok(Some((header, position)))
    }

    /// The next batch's header and position, its checksum verified.
    pub(crate) fn next_verified(&mut self) -> Result<Option<(BatchHeader, u64)>, ScanError> {
        let Some(header) = self.header()? else {
            return Ok(None);
        };
        let bytes = self.bytes(header.size)?;
        verify_crc(bytes).map_err(ScanError::Damage)?;
        let position = self.position;
        self.position += header.size as u64;
        Ok(Some((header, position)))
    }

    /// The next batch, its checksum verified.
    pub(crate) fn next_batch(&mut self) -> Result<Option<ScannedBatch<'_>>, ScanError> {
        let Some((header, position)) = self.next_verified()? else {
            return Ok(None);
        };
        let from = (position - self.buffer_at) as usize;
        Ok(Some(ScannedBatch {
            header,
            position,
            bytes: &self.buffer[from..from + header.size],
        }))
    }

    fn header(&mut self) -> Result<Option<BatchHeader>, ScanError> {
        let left = self.end.saturating_sub(self.position);
        if left == 0 {
            return Ok(None);
        }
        let bytes = self.bytes(left.min(HEADER_LEN as u64) as usize)?;
        let header = BatchHeader::parse_header(bytes).map_err(ScanError::Damage)?;
        if header.size as u64 > left {
            return Err(ScanError::Damage(BatchError::Truncated {
                needed: header.size,
                available: left as usize,
            }));
        }
        Ok(Some(header))
    }

    /// `len` bytes from the position on; they lie before the end.
    fn bytes(&mut self, len: usize) -> Result<&[u8], ScanError> {
        let skip = self.position - self.buffer_at;
        if skip + len as u64 > self.buffer.len() as u64 {
            let wanted = self.chunk.max(len as u64).min(self.end - self.position);
            self.buffer.resize(wanted as usize, 0);
            self.buffer_at = self.position;
            self.file
                .read_exact_at(&mut self.buffer, self.position)
                .map_err(ScanError::Io)?;
        }
        let from = (self.position - self.buffer_at) as usize;
        Ok(&self.buffer[from..from + len])
    }
}
