//! The codec of every gRPC service: prost's, but that a request which would take too much memory is refused
//! before any of it is decoded.

use std::marker::PhantomData;

use bytes::Buf;
use prost::Message;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder};
use tonic_prost::{ProstDecoder, ProstEncoder};

use super::footprint::{Bounded, footprint};

/// Bytes of memory that the elements of a request to `Records` may take, beside its own bytes: twelve times the
/// largest message, of 4 MiB. The most records and headers that a request to produce may have take less.
pub const RECORDS_MEMORY: usize = 48 << 20;
/// The same for `Admin`: room for the offsets of 100,000 partitions, or as many names of topics.
pub const ADMIN_MEMORY: usize = 8 << 20;

/// Encodes `T`, decodes `U`.
#[derive(Debug)]
pub struct BoundedCodec<T, U> {
    types: PhantomData<(T, U)>,
}

impl<T, U> Default for BoundedCodec<T, U> {
    fn default() -> Self {
        Self { types: PhantomData }
    }
}

impl<T, U> Codec for BoundedCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Bounded + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = BoundedDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::default()
    }

    fn decoder(&mut self) -> Self::Decoder {
        BoundedDecoder {
            decoder: ProstDecoder::default(),
        }
    }
}

/// Decodes `U`, unless it is too much.
#[derive(Debug)]
pub struct BoundedDecoder<U> {
    decoder: ProstDecoder<U>,
}

impl<U: Message + Default + Bounded> Decoder for BoundedDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        if let Some(bound) = U::BOUND {
            // It was gathered in one piece.
            let bytes = message.chunk();
            debug_assert_eq!(bytes.len(), message.remaining());
            let taken = footprint(bytes, U::PARTS);
            if taken > bound {
                return Err(Status::resource_exhausted(format!(
                    "a request of too many small things: its {} bytes would take {} MiB of memory, and {} is the most",
                    bytes.len(),
                    taken >> 20,
                    bound >> 20,
                )));
            }
        }
        self.decoder.decode(message)
    }

    fn buffer_settings(&self) -> BufferSettings {
        self.decoder.buffer_settings()
    }
}
