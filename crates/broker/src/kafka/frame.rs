//! Cuts the byte stream of a connection into request frames.

use bytes::{Buf, Bytes, BytesMut};
use tokio_util::codec::Decoder;

/// A frame is read into memory as it arrives: a length prefix alone reserves no more than this, or than
/// the connection's last frame had.
const READ_AHEAD: usize = 64 * 1024;

/// The most of a last frame's size that is reserved: a producer's next request is about as large, and is
/// read in few pieces into memory that need not grow.
const READ_AHEAD_PROVED: usize = 2 << 20;

/// The smallest request: API key, version and correlation id.
const SMALLEST: i32 = 8;

/// Why a connection's bytes cannot be cut into frames. The connection is closed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    /// The length prefix is negative, too small for a header, or above `socket.request.max.bytes`.
    #[error("request length {length} is not between {SMALLEST} and socket.request.max.bytes={limit}")]
    Length {
        /// As the client sent it.
        length: i32,
        /// The limit in bytes.
        limit: usize,
    },
    /// The connection broke.
    #[error("connection broke: {0}")]
    Io(#[from] std::io::Error),
}

/// Frames of a four-byte length followed by that many bytes.
#[derive(Debug)]
pub(crate) struct FrameDecoder {
    limit: usize,
    /// Reserved without looking at what has arrived.
    read_ahead: usize,
}

impl FrameDecoder {
    /// Refuses frames above `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            read_ahead: READ_AHEAD,
        }
    }
}

impl Decoder for FrameDecoder {
    type Item = Bytes;
    type Error = FrameError;

    fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Bytes>, FrameError> {
        let Some(prefix) = buffer.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = i32::from_be_bytes(*prefix);
        let size = usize::try_from(length).unwrap_or(usize::MAX);
        if length < SMALLEST || size > self.limit {
            return Err(FrameError::Length {
                length,
                limit: self.limit,
            });
        }
        let missing = (size + 4).saturating_sub(buffer.len());
        if missing > 0 {
            // At least doubling keeps the cost of growing linear in what really arrived.
            buffer.reserve(missing.min(buffer.len().max(self.read_ahead)));
            return Ok(None);
        }
        buffer.advance(4);
        let frame = buffer.split_to(size).freeze();
        self.read_ahead = size.clamp(READ_AHEAD, READ_AHEAD_PROVED);
        // What follows a large frame moves out of the memory that they share, or a connection that once
        // sent much would keep it for as long as it is open. At most a quarter of the frame is copied.
        if size > READ_AHEAD && buffer.len() < size / 4 {
            *buffer = BytesMut::from(&buffer[..]);
        }
        Ok(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(bytes: &[u8]) -> Result<Option<Bytes>, FrameError> {
        FrameDecoder::new(100).decode(&mut BytesMut::from(bytes))
    }

    #[test]
    fn frames_are_cut_at_their_length() {
        let mut buffer = BytesMut::from(&b"\0\0\0\x08abcdefgh\0\0"[..]);
        let mut decoder = FrameDecoder::new(100);
        assert_eq!(
            decoder.decode(&mut buffer).expect("whole").as_deref(),
            Some(&b"abcdefgh"[..])
        );
        assert!(decoder.decode(&mut buffer).expect("partial").is_none());
    }

    #[test]
    fn hostile_lengths_are_refused_before_any_allocation() {
        for prefix in [-1, i32::MIN, 0, 7, 101, i32::MAX] {
            assert!(
                matches!(decode(&prefix.to_be_bytes()), Err(FrameError::Length { .. })),
                "{prefix}"
            );
        }
    }

    #[test]
    fn a_large_frame_leaves_nothing_behind() {
        let mut buffer = BytesMut::from(&(1_000_000_i32).to_be_bytes()[..]);
        buffer.resize(4 + 1_000_000, 0);
        buffer.extend_from_slice(b"\0\0");
        let mut decoder = FrameDecoder::new(2_000_000);
        let frame = decoder.decode(&mut buffer).expect("whole").expect("whole");
        assert_eq!(frame.len(), 1_000_000);
        assert_eq!(&buffer[..], b"\0\0");
        assert!(buffer.capacity() < 1000, "{}", buffer.capacity());
        assert!(frame.try_into_mut().is_ok(), "nobody else holds its memory");
    }

    #[test]
    fn a_promise_of_much_reserves_little() {
        let mut buffer = BytesMut::from(&(90 * 1024 * 1024_i32).to_be_bytes()[..]);
        assert!(
            FrameDecoder::new(100 * 1024 * 1024)
                .decode(&mut buffer)
                .expect("partial")
                .is_none()
        );
        assert!(buffer.capacity() <= 2 * READ_AHEAD);
    }

    #[test]
    fn the_size_of_the_last_frame_is_reserved_at_once_within_bounds() {
        let mut decoder = FrameDecoder::new(100 << 20);
        for (size, most) in [(1 << 20, 1 << 20), (10 << 20, READ_AHEAD_PROVED), (8, READ_AHEAD)] {
            let mut buffer = BytesMut::from(&i32::to_be_bytes(size)[..]);
            buffer.resize(4 + size as usize, 0);
            assert!(decoder.decode(&mut buffer).expect("whole").is_some());
            let mut next = BytesMut::from(&(50_i32 << 20).to_be_bytes()[..]);
            assert!(decoder.decode(&mut next).expect("partial").is_none());
            assert!(
                (most..=2 * most).contains(&next.capacity()),
                "{size}: {}",
                next.capacity()
            );
        }
    }
}
