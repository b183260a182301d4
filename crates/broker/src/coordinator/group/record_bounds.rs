//! Refuses what no record could hold, before it changes anything.
//!
//! Strings of Kafka's group records have lengths of 16 bits, those of requests do not: one request
//! could otherwise make a group that cannot be written down.

use protocol::ErrorCode;

use super::{ids::fits, request::GroupRequest};

/// Protocols that one member may support. Clients have a handful; what a group compares grows with the square.
const PROTOCOLS_MAX: usize = 256;

/// Why a request is refused before any group is looked at, if it is.
pub(super) fn refuse(request: &GroupRequest) -> Option<ErrorCode> {
    let group_id = request.group_id().unwrap_or_default();
    if !fits(group_id) || group_id.is_empty() && needs_group_id(request) {
        return Some(ErrorCode::InvalidGroupId);
    }
    let GroupRequest::Join { body, .. } = request else {
        return None;
    };
    let protocols = body.protocols.iter().map(|protocol| protocol.name.as_str());
    if body.protocols.len() > PROTOCOLS_MAX || !fits(&body.protocol_type) || !protocols.into_iter().all(fits)
    {
        return Some(ErrorCode::InconsistentGroupProtocol);
    }
    let instance_id = body.group_instance_id.as_deref().unwrap_or_default();
    (!fits(instance_id)).then_some(ErrorCode::InvalidRequest)
}

/// Offsets and administration know the group without a name, which early consumers used.
fn needs_group_id(request: &GroupRequest) -> bool {
    match request {
        GroupRequest::Join { .. }
        | GroupRequest::Sync(_)
        | GroupRequest::Heartbeat(_)
        | GroupRequest::Leave(_) => true,
        GroupRequest::CommitOffsets(_)
        | GroupRequest::FetchOffsets { .. }
        | GroupRequest::DeleteOffsets(_)
        | GroupRequest::Describe(_)
        | GroupRequest::List(_)
        | GroupRequest::Delete(_) => false,
    }
}
