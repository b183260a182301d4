//! Compresses a batch anew, moving the bytes of its records as they are.

use std::io::{self, Read, Write};

use super::snappy;
use crate::batch::{self, Compression, DELETE_HORIZON_BIT, HEADER_LEN, LENGTH_OVERHEAD};
use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};

/// Zstandard's own default level, which Kafka's `compression.zstd.level` has too.
const ZSTD_LEVEL: i32 = 3;

/// Where the attributes' low byte stands in a batch.
const ATTRIBUTES_LOW_AT: usize = 22;

/// Why a batch could not be compressed anew.
#[derive(Debug)]
pub enum RecompressError {
    /// The result would be larger than the limit.
    TooLarge,
    /// The records could not be opened.
    Open(io::Error),
}

/// A batch with the header of `original` (but for compression, length and checksum) around what
/// `opened` yields, compressed with `target`, of at most `limit` bytes. It has no
/// [delete horizon](batch::BatchHeader::delete_horizon): compaction, which alone gives it one, says so
/// afterwards, and what a client claims goes here, as in Kafka.
pub fn recompress(
    original: &[u8],
    mut opened: impl Read,
    target: Compression,
    limit: usize,
) -> Result<Vec<u8>, RecompressError> {
    let mut out = LimitedVec {
        bytes: original[..HEADER_LEN].to_vec(),
        limit,
        full: false,
    };
    let copied = match target {
        Compression::None => io::copy(&mut opened, &mut out).map(drop),
        Compression::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(&mut out, flate2::Compression::default());
            io::copy(&mut opened, &mut encoder).and_then(|_| encoder.finish().map(drop))
        }
        Compression::Snappy => snappy::Writer::new(&mut out).and_then(|mut encoder| {
            io::copy(&mut opened, &mut encoder).and_then(|_| encoder.finish().map(drop))
        }),
        Compression::Lz4 => {
            // What Kafka's own clients write, and the only block size that some of them read.
            let info = FrameInfo::new()
                .block_size(BlockSize::Max64KB)
                .block_mode(BlockMode::Independent);
            let mut encoder = FrameEncoder::with_frame_info(info, &mut out);
            io::copy(&mut opened, &mut encoder)
                .and_then(|_| encoder.finish().map(drop).map_err(io::Error::from))
        }
        Compression::Zstd => {
            zstd::stream::write::Encoder::new(&mut out, ZSTD_LEVEL).and_then(|mut encoder| {
                io::copy(&mut opened, &mut encoder).and_then(|_| encoder.finish().map(drop))
            })
        }
    };
    if let Err(error) = copied {
        return Err(if out.full {
            RecompressError::TooLarge
        } else {
            RecompressError::Open(error)
        });
    }
    let mut bytes = out.bytes;
    let length = i32::try_from(bytes.len() - LENGTH_OVERHEAD).map_err(|_| RecompressError::TooLarge)?;
    bytes[LENGTH_OVERHEAD - 4..LENGTH_OVERHEAD].copy_from_slice(&length.to_be_bytes());
    bytes[ATTRIBUTES_LOW_AT] = bytes[ATTRIBUTES_LOW_AT] & !(0x07 | DELETE_HORIZON_BIT as u8) | code(target);
    batch::renew_crc(&mut bytes);
    Ok(bytes)
}

/// Grows up to a limit and refuses what is beyond.
struct LimitedVec {
    bytes: Vec<u8>,
    limit: usize,
    /// Whether something was refused.
    full: bool,
}

impl Write for LimitedVec {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.limit.saturating_sub(self.bytes.len()) {
            self.full = true;
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const fn code(compression: Compression) -> u8 {
    match compression {
        Compression::None => 0,
        Compression::Gzip => 1,
        Compression::Snappy => 2,
        Compression::Lz4 => 3,
        Compression::Zstd => 4,
    }
}
