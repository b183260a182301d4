//! ConsumerGroupHeartbeat (key 68), versions 0–1: all that a member of the KIP-848 protocol ever says to its
//! coordinator: that it comes, lives, what it subscribes to and owns, and that it goes. The answer has
//! what it is to own.

use kafka_protocol::messages::{ApiKey, ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};
use uuid::Uuid;

use crate::{
    coordinator::group::{GroupReply, GroupRequest},
    kafka::{Request, api::Api, group_call},
};

pub(crate) const API: Api = Api::new(ApiKey::ConsumerGroupHeartbeat, 0, 1);

pub(crate) async fn handle(
    request: Request,
    message: ConsumerGroupHeartbeatRequest,
) -> ConsumerGroupHeartbeatResponse {
    let beat = GroupRequest::ConsumerHeartbeat {
        body: message,
        fresh_member_id: Uuid::new_v4(),
    };
    match group_call::call(&request, beat).await {
        GroupReply::ConsumerHeartbeat(response) => response,
        other => ConsumerGroupHeartbeatResponse::default().with_error_code(group_call::mismatch(&other)),
    }
}
