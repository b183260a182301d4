//! What stands between a client's bytes and the `kafka-protocol` decoder.
//!
//! The decoder trusts its input: it reserves memory for as many array elements as a frame *claims*
//! to have, and its header decoder panics on a short frame. The guard walks a request first, by a
//! schema of every (API, version) that the broker may serve, and checks each length, count and
//! tagged field against the bytes that are there, without a single allocation. For what it accepts:
//!
//! * decoding succeeds, and consumes what the guard walked over;
//! * every count is that of elements which are really there, and there are at most
//!   [`MAX_ELEMENTS`] of those that cost more memory decoded than on the wire.
//!
//! The guard does not decide which versions are advertised: that is the broker's. It refuses what
//! it has no schema for.
//!
//! Schemas follow Kafka's message definitions (`clients/src/main/resources/common/message`) for
//! the versions that `kafka-protocol` knows; the tests hold them against its decoder byte by byte.

mod error;
mod header;
mod schema;
mod tables;
#[cfg(test)]
mod tests;
mod walk;

pub use error::GuardError;
pub use header::{RequestHeader, parse_header};
use kafka_protocol::messages::ApiKey;
pub use walk::MAX_ELEMENTS;

/// Checks that `body` holds one whole request of `api` in `version`, so that it can be decoded.
/// Bytes after it are ignored, as Kafka ignores them.
pub fn check_body(api: ApiKey, version: i16, body: &[u8]) -> Result<(), GuardError> {
    match tables::find(api) {
        Some(schema) if schema.has(version) => walk::check(schema, version, body).map(|_| ()),
        _ => Err(GuardError::UnsupportedVersion {
            api_key: api as i16,
            version,
        }),
    }
}

/// The versions of `api` that [`check_body`] has a schema for, both ends included; `None` where it
/// knows none.
pub fn versions(api: ApiKey) -> Option<(i16, i16)> {
    tables::find(api).map(|schema| (schema.min, schema.max))
}
