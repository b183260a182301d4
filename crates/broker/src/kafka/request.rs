//! One request on its way to a handler, and the answer on its way back.

use std::{net::IpAddr, sync::Arc};

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::{
    messages::ApiKey,
    protocol::{Encodable, HeaderVersion, StrBytes},
};

use crate::context::BrokerContext;

/// What a handler knows besides the decoded request.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// The broker.
    pub(crate) broker: BrokerContext,
    /// The listener that the connection came in on; addresses in answers are this listener's.
    pub(crate) listener: Arc<str>,
    /// The API.
    pub(crate) key: ApiKey,
    /// The API version that the client chose.
    pub(crate) version: i16,
    /// Echoed in the answer.
    pub(crate) correlation_id: i32,
    /// The client's name for itself; empty where it has none.
    pub(crate) client_id: StrBytes,
    /// The client's address.
    pub(crate) client_address: IpAddr,
}

/// A whole answer as it goes to the socket, length prefix included. Record batches are chunks of
/// their own: they are written from where they were read.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// Pieces, in order.
    pub(crate) chunks: Vec<Bytes>,
    /// Close the connection once the answer is written.
    pub(crate) close: bool,
}

/// An answer could not be written in the version that the client asked for: a bug in the handler.
#[derive(Debug, thiserror::Error)]
#[error("answer cannot be encoded in version {version}: {reason}")]
pub(crate) struct EncodeError {
    /// The version that was asked for.
    pub(crate) version: i16,
    /// What the codec said.
    pub(crate) reason: String,
}

impl Request {
    /// The answer `message`, in the request's version.
    pub(crate) fn answer<M: Encodable + HeaderVersion>(&self, message: &M) -> Result<Answer, EncodeError> {
        encode(
            self.correlation_id,
            self.version,
            M::header_version(self.version),
            message,
        )
    }
}

/// Frames `message`: length, correlation id, the header's (empty) tagged fields where it has them, body.
pub(crate) fn encode<M: Encodable>(
    correlation_id: i32,
    version: i16,
    header_version: i16,
    message: &M,
) -> Result<Answer, EncodeError> {
    let mut bytes = BytesMut::with_capacity(256);
    bytes.put_i32(0);
    bytes.put_i32(correlation_id);
    if header_version >= 1 {
        bytes.put_u8(0);
    }
    message.encode(&mut bytes, version).map_err(|error| EncodeError {
        version,
        reason: error.to_string(),
    })?;
    let length = i32::try_from(bytes.len() - 4).map_err(|_| EncodeError {
        version,
        reason: format!("{} bytes are too many", bytes.len()),
    })?;
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    Ok(Answer {
        chunks: vec![bytes.freeze()],
        close: false,
    })
}
