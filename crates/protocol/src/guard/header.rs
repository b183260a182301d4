//! Request headers: version 1, and version 2 with tagged fields (KIP-482).

use kafka_protocol::messages::ApiKey;

use super::{GuardError, walk::Walker};

/// What stands before the body of every request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHeader {
    /// The API that is called.
    pub api_key: ApiKey,
    /// In which version. Not checked: [`check_body`](super::check_body) refuses what it does not
    /// know, and an unknown version of `ApiVersions` wants an answer.
    pub api_version: i16,
    /// What the response must carry.
    pub correlation_id: i32,
    /// The client's name for itself. What is not UTF-8 in it is replaced, as Kafka does.
    pub client_id: Option<String>,
}

/// Reads the header at the front of a request frame (without its length prefix): the header and
/// the bytes it takes, which is where the body begins.
pub fn parse_header(frame: &[u8]) -> Result<(RequestHeader, usize), GuardError> {
    let mut walker = Walker::new(frame);
    let key = i16::from_be_bytes(walker.array()?);
    let api_version = i16::from_be_bytes(walker.array()?);
    let correlation_id = i32::from_be_bytes(walker.array()?);
    let api_key = ApiKey::try_from(key).map_err(|()| GuardError::UnknownApi(key))?;
    // The client id keeps its i16 length in both versions, so that a broker can read it before it
    // knows the version.
    let client_id = walker
        .short_bytes()?
        .map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    if api_key.request_header_version(api_version) >= 2 {
        walker.unknown_tags()?;
    }
    let header = RequestHeader {
        api_key,
        api_version,
        correlation_id,
        client_id,
    };
    Ok((header, walker.at()))
}
