//! JoinGroup (key 11), versions 0–9: a member comes, or comes back for a rebalance. Parks until the
//! group's members are complete; the connection's later requests wait behind it, as in Kafka.

use kafka_protocol::messages::{ApiKey, JoinGroupRequest, JoinGroupResponse};
use uuid::Uuid;

use crate::{
    coordinator::group::{GroupReply, GroupRequest},
    kafka::{Request, api::Api, group_call},
};

pub(crate) const API: Api = Api::new(ApiKey::JoinGroup, 0, 9);

pub(crate) async fn handle(request: Request, message: JoinGroupRequest) -> JoinGroupResponse {
    let join = GroupRequest::Join {
        body: message,
        fresh_member_id: Uuid::new_v4(),
    };
    match group_call::call(&request, join).await {
        GroupReply::Join(response) => response,
        other => JoinGroupResponse::default().with_error_code(group_call::mismatch(&other)),
    }
}
