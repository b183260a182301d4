//! SyncGroup (key 14), versions 0–5: the leader of a generation hands in the
//! assignments, every member waits for its own.

use kafka_protocol::messages::{ApiKey, SyncGroupRequest, SyncGroupResponse};
use protocol::ErrorCode;

use crate::{
    coordinator::group::{GroupReply, GroupRequest},
    kafka::{Request, api::Api, group_call},
};

pub(crate) const API: Api = Api::new(ApiKey::SyncGroup, 0, 5);

/// From which version on a member says which protocol it takes its generation to have (KIP-559).
const NAMES_PROTOCOL: i16 = 5;

pub(crate) async fn handle(request: Request, message: SyncGroupRequest) -> SyncGroupResponse {
    if !names_protocol(request.version, &message) {
        let error = ErrorCode::InconsistentGroupProtocol;
        return SyncGroupResponse::default().with_error_code(error.code());
    }
    match group_call::call(&request, GroupRequest::Sync(message)).await {
        GroupReply::Sync(response) => response,
        other => SyncGroupResponse::default().with_error_code(group_call::mismatch(&other)),
    }
}

/// Whether the type and the name of the protocol are there, where the version wants both.
fn names_protocol(version: i16, message: &SyncGroupRequest) -> bool {
    version < NAMES_PROTOCOL || message.protocol_type.is_some() && message.protocol_name.is_some()
}

#[cfg(test)]
mod tests {
    use kafka_protocol::protocol::StrBytes;

    use super::*;

    #[test]
    fn from_version_5_on_the_protocol_is_named() {
        let text = |text: Option<&'static str>| text.map(StrBytes::from_static_str);
        let named = |version, kind, name| {
            let message = SyncGroupRequest::default()
                .with_protocol_type(text(kind))
                .with_protocol_name(text(name));
            names_protocol(version, &message)
        };
        assert!(named(4, None, None));
        assert!(named(5, Some("consumer"), Some("range")));
        assert!(!named(5, None, Some("range")));
        assert!(!named(5, Some("consumer"), None));
        assert!(!named(5, None, None));
    }
}
