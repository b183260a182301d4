//! Refuses what no record could hold, before it changes anything.
//!
//! Strings of Kafka's group records have lengths of 16 bits, those of requests do not; and a record has
//! to fit a batch: one request could otherwise make a group that cannot be written down, and every
//! generation of it would end where its leader assigns.

use kafka_protocol::messages::JoinGroupRequest;
use protocol::ErrorCode;

use super::{
    config::GroupConfig,
    ids::{MemberId, fits},
    request::{Caller, GroupRequest},
};

/// Protocols that one member may support. Clients have a handful; what a group compares grows with the square.
const PROTOCOLS_MAX: usize = 256;

/// What a group's record with one member takes at most besides its strings and what that member says:
/// versions, lengths and numbers.
const FRAMING: usize = 64;

/// Why a request is refused before any group is looked at, if it is.
pub(super) fn refuse(request: &GroupRequest, caller: &Caller, config: &GroupConfig) -> Option<ErrorCode> {
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
    if !fits(instance_id) {
        return Some(ErrorCode::InvalidRequest);
    }
    // No coordinator gave such an id to anyone: its owner joins anew without one.
    if !fits(&body.member_id) {
        return Some(ErrorCode::UnknownMemberId);
    }
    // What Kafka's coordinator makes of a record that the log refuses for its size.
    let fits_record = record_size_alone(body, caller) <= config.max_records_bytes;
    (!fits_record).then_some(ErrorCode::UnknownServerError)
}

/// The size of the group's record, had it no member but this one, and nothing assigned to it yet.
fn record_size_alone(body: &JoinGroupRequest, caller: &Caller) -> usize {
    let says = body.protocols.iter().map(|it| it.name.len() + it.metadata.len());
    let instance_id = body.group_instance_id.as_deref().unwrap_or_default();
    // The member's id stands there twice: it is the leader.
    let longest_fresh_id = caller.client_id.len().max(instance_id.len()) + MemberId::SUFFIX;
    FRAMING
        + body.group_id.len()
        + body.protocol_type.len()
        + says.max().unwrap_or(0)
        + 2 * body.member_id.len().max(longest_fresh_id)
        + instance_id.len()
        + caller.client_id.len()
        + caller.client_host.len()
}

/// Commits, fetches of offsets and most of administration know the group without a name, which early
/// consumers used.
fn needs_group_id(request: &GroupRequest) -> bool {
    match request {
        GroupRequest::Join { .. }
        | GroupRequest::Sync(_)
        | GroupRequest::Heartbeat(_)
        | GroupRequest::Leave(_)
        | GroupRequest::DeleteOffsets(_)
        | GroupRequest::DescribeConsumer(_) => true,
        // Refused with a sentence of its own.
        GroupRequest::ConsumerHeartbeat { .. } => false,
        GroupRequest::CommitOffsets(_)
        | GroupRequest::FetchOffsets { .. }
        | GroupRequest::Describe(_)
        | GroupRequest::List(_)
        | GroupRequest::Delete(_) => false,
    }
}
