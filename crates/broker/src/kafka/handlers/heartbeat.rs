//! Heartbeat (key 12), versions 0–4: a member lives, and learns of a rebalance.

use kafka_protocol::messages::{ApiKey, HeartbeatRequest, HeartbeatResponse};

use crate::{
    coordinator::group::{GroupReply, GroupRequest},
    kafka::{Request, api::Api, group_call},
};

pub(crate) const API: Api = Api::new(ApiKey::Heartbeat, 0, 4);

pub(crate) async fn handle(request: Request, message: HeartbeatRequest) -> HeartbeatResponse {
    match group_call::call(&request, GroupRequest::Heartbeat(message)).await {
        GroupReply::Heartbeat(response) => response,
        other => HeartbeatResponse::default().with_error_code(group_call::mismatch(&other)),
    }
}
