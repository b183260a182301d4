//! Snappy as Kafka's clients write it: in the framing of xerial's snappy-java, or as one raw block.
//!
//! ```text
//! 0x82 "SNAPPY" 0x00 | version i32 | lowest compatible version i32
//!   | per block: length i32, raw Snappy block
//! ```

use std::io::{self, Read, Write};

const MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
const HEADER_LEN: usize = 16;
const VERSION: i32 = 1;
/// Bytes in a block that we write; the size that snappy-java uses.
const BLOCK: usize = 32 << 10;
/// A Snappy element of three bytes copies at most 64: more cannot come out of a block.
const MAX_RATIO: usize = 22;

fn damaged(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Reads either form, block by block.
pub(super) struct Reader<B> {
    bytes: B,
    /// Where the blocks begin that are still to be opened.
    rest: usize,
    framed: bool,
    block: Vec<u8>,
    /// Bytes of `block` that have been read.
    at: usize,
}

impl<B: AsRef<[u8]>> Reader<B> {
    pub(super) fn new(bytes: B) -> Self {
        let head = bytes.as_ref();
        let framed = head.len() >= HEADER_LEN && head.starts_with(&MAGIC);
        Self {
            bytes,
            rest: if framed { HEADER_LEN } else { 0 },
            framed,
            block: Vec::new(),
            at: 0,
        }
    }

    /// Opens the next block. What a block says it opens to is believed only as far as its
    /// compressed bytes can reach.
    fn open_block(&mut self) -> io::Result<()> {
        let bytes = self.bytes.as_ref();
        let blocks = &bytes[self.rest..];
        let compressed = if self.framed {
            let (length, rest) = blocks
                .split_first_chunk()
                .ok_or_else(|| damaged("cut off before a block's length"))?;
            let length =
                usize::try_from(i32::from_be_bytes(*length)).map_err(|_| damaged("negative block length"))?;
            let (block, rest) = rest
                .split_at_checked(length)
                .ok_or_else(|| damaged("cut off within a block"))?;
            self.rest = bytes.len() - rest.len();
            block
        } else {
            self.rest = bytes.len();
            blocks
        };
        let length = snap::raw::decompress_len(compressed).map_err(io::Error::from)?;
        if length > compressed.len().saturating_mul(MAX_RATIO) {
            return Err(damaged("block claims more than Snappy can hold"));
        }
        self.block.resize(length, 0);
        self.at = 0;
        let written = snap::raw::Decoder::new()
            .decompress(compressed, &mut self.block)
            .map_err(io::Error::from)?;
        self.block.truncate(written);
        Ok(())
    }
}

impl<B: AsRef<[u8]>> Read for Reader<B> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.at == self.block.len() {
            if self.rest == self.bytes.as_ref().len() {
                return Ok(0);
            }
            self.open_block()?;
        }
        let read = (&self.block[self.at..]).read(out)?;
        self.at += read;
        Ok(read)
    }
}

/// Writes the framed form, which every client reads.
pub(super) struct Writer<W: Write> {
    inner: W,
    encoder: snap::raw::Encoder,
    pending: Vec<u8>,
    block: Vec<u8>,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(mut inner: W) -> io::Result<Self> {
        inner.write_all(&MAGIC)?;
        inner.write_all(&VERSION.to_be_bytes())?;
        inner.write_all(&VERSION.to_be_bytes())?;
        Ok(Self {
            inner,
            encoder: snap::raw::Encoder::new(),
            pending: Vec::with_capacity(BLOCK),
            block: vec![0; snap::raw::max_compress_len(BLOCK)],
        })
    }

    fn write_block(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let length = self
            .encoder
            .compress(&self.pending, &mut self.block)
            .map_err(io::Error::from)?;
        self.inner.write_all(&(length as i32).to_be_bytes())?;
        self.inner.write_all(&self.block[..length])?;
        self.pending.clear();
        Ok(())
    }

    /// Writes what is pending and gives the sink back.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.write_block()?;
        Ok(self.inner)
    }
}

impl<W: Write> Write for Writer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(BLOCK - self.pending.len());
        self.pending.extend_from_slice(&bytes[..taken]);
        if self.pending.len() == BLOCK {
            self.write_block()?;
        }
        Ok(taken)
    }

    /// Blocks end where they are full, not where somebody flushes.
    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes that snappy-java's `SnappyOutputStream` writes for "abc": a golden sample of the
    /// framing.
    #[test]
    fn xerial_framing_is_read_and_written_as_snappy_java_does() {
        let golden = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01\0\0\0\x05\x03\x08abc";
        let mut out = Vec::new();
        Reader::new(golden).read_to_end(&mut out).expect("opens");
        assert_eq!(out, b"abc");
        let mut writer = Writer::new(Vec::new()).expect("to memory");
        writer.write_all(b"abc").expect("to memory");
        assert_eq!(writer.finish().expect("to memory"), golden);
    }
}
