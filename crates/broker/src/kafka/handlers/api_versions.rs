//! ApiVersions (key 18), versions 0–4: what this broker serves.
//!
//! Works before anything else on a connection. A version above 4 is answered in version 0 with
//! `UNSUPPORTED_VERSION` and the one range that tells the client which to use; the answer's header is
//! always version 0 (KIP-511). No feature is advertised: none is implemented.

use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, ApiVersionsResponse, api_versions_response::ApiVersion,
};
use protocol::ErrorCode;

use crate::kafka::{
    Answer, Request,
    api::{APIS, Api},
    request::{EncodeError, encode},
};

pub(crate) const API: Api = Api::new(ApiKey::ApiVersions, 0, 4);

pub(crate) async fn handle(request: Request, message: ApiVersionsRequest) -> ApiVersionsResponse {
    let response = ApiVersionsResponse::default();
    if request.version >= 3
        && !(is_software_name(&message.client_software_name)
            && is_software_name(&message.client_software_version))
    {
        return response.with_error_code(ErrorCode::InvalidRequest.code());
    }
    response.with_api_keys(APIS.iter().copied().map(advertised).collect())
}

/// The answer to a version that is not known.
pub(crate) fn unsupported(correlation_id: i32) -> Result<Answer, EncodeError> {
    let response = ApiVersionsResponse::default()
        .with_error_code(ErrorCode::UnsupportedVersion.code())
        .with_api_keys(vec![advertised(API)]);
    encode(correlation_id, 0, 0, &response)
}

fn advertised(api: Api) -> ApiVersion {
    ApiVersion::default()
        .with_api_key(api.key as i16)
        .with_min_version(api.advertised_from)
        .with_max_version(api.to)
}

/// KIP-511: begins and ends with a letter or digit, with `-` and `.` between.
fn is_software_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    let ends = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    ends(bytes.first())
        && ends(bytes.last())
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn software_names_follow_kip_511() {
        for good in ["a", "apache-kafka-java", "2.15.0", "librdkafka"] {
            assert!(is_software_name(good), "{good}");
        }
        for bad in ["", "-a", "a-", "a b", "a_b", "ä"] {
            assert!(!is_software_name(bad), "{bad}");
        }
    }

    #[test]
    fn an_unknown_version_is_answered_in_version_0() {
        let bytes = unsupported(5).expect("encodes").chunks.concat();
        // length, correlation id, error 35, one key: 18, 0–4.
        assert_eq!(
            bytes,
            [0, 0, 0, 16, 0, 0, 0, 5, 0, 35, 0, 0, 0, 1, 0, 18, 0, 0, 0, 4]
        );
    }
}
