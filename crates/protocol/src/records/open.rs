//! Opens compressed batches as streams, within bounds.

use std::io::{self, BufReader, Cursor, Read};

use crate::batch::Compression;

use super::snappy;

/// How many bytes a compressed batch may open to.
///
/// A bound on the ratio alone would refuse honest batches of repetitive records (Zstandard takes a
/// megabyte of one byte to some hundred), so it holds from a floor on; a bound on the bytes alone
/// would let every batch cost that much. Nothing is kept of what is opened: the bounds are on CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenBounds {
    /// Bytes that every batch may open to.
    pub floor: u64,
    /// Above the floor: bytes opened for each compressed byte.
    pub ratio: u64,
    /// Bytes that no batch may open to more than.
    pub ceiling: u64,
}

impl Default for OpenBounds {
    fn default() -> Self {
        Self {
            floor: 16 << 20,
            ratio: 256,
            ceiling: 256 << 20,
        }
    }
}

impl OpenBounds {
    /// For batches that lie in the log: they were accepted once, and may have been compressed
    /// better since.
    pub const STORED: Self = Self {
        floor: 256 << 20,
        ratio: 0,
        ceiling: 256 << 20,
    };

    /// Bytes that `compressed` bytes may open to.
    pub(super) fn limit(self, compressed: usize) -> u64 {
        (compressed as u64)
            .saturating_mul(self.ratio)
            .clamp(self.floor, self.ceiling.max(self.floor))
    }
}

/// Inside an [`io::Error`]: the bound was reached.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("more than {limit} bytes decompressed")]
pub(super) struct TooMuchOutput {
    pub(super) limit: u64,
}

/// What lets a stream yield so many bytes and no more.
struct Bounded<R> {
    inner: R,
    left: u64,
    limit: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(out)?;
        match self.left.checked_sub(read as u64) {
            Some(left) => {
                self.left = left;
                Ok(read)
            }
            None => Err(io::Error::other(TooMuchOutput { limit: self.limit })),
        }
    }
}

/// Bytes decompressed at a time.
const CHUNK: usize = 32 << 10;

/// What `records` were before `compression`, as a bounded stream.
///
/// Records that are not compressed are yielded as they are, whatever the bounds. A stream of bytes that it
/// owns may be kept, and go on elsewhere.
pub fn open<'a>(
    compression: Compression,
    records: impl AsRef<[u8]> + Send + 'a,
    bounds: OpenBounds,
) -> io::Result<BufReader<Box<dyn Read + Send + 'a>>> {
    let limit = bounds.limit(records.as_ref().len());
    let stored = Cursor::new(records);
    let bounded: Box<dyn Read + Send + 'a> = match compression {
        Compression::None => Box::new(stored),
        Compression::Gzip => bound(flate2::bufread::MultiGzDecoder::new(stored), limit),
        Compression::Snappy => bound(snappy::Reader::new(stored.into_inner()), limit),
        Compression::Lz4 => bound(lz4_flex::frame::FrameDecoder::new(stored), limit),
        Compression::Zstd => bound(zstd::stream::read::Decoder::with_buffer(stored)?, limit),
    };
    Ok(BufReader::with_capacity(CHUNK, bounded))
}

fn bound<'a>(inner: impl Read + Send + 'a, limit: u64) -> Box<dyn Read + Send + 'a> {
    Box::new(Bounded {
        inner,
        left: limit,
        limit,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_grow_with_what_is_compressed() {
        let bounds = OpenBounds::default();
        assert_eq!(bounds.limit(0), 16 << 20);
        assert_eq!(bounds.limit(100_000), 25_600_000);
        assert_eq!(bounds.limit(usize::MAX), 256 << 20);
    }
}
