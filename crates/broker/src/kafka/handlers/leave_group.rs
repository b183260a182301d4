//! LeaveGroup (key 13), versions 0–5: members go (one up to version 2, several from 3 on), and
//! the others share what they had.

use kafka_protocol::messages::{ApiKey, LeaveGroupRequest, LeaveGroupResponse};

use crate::{
    coordinator::group::{GroupReply, GroupRequest},
    kafka::{Request, api::Api, group_call},
};

pub(crate) const API: Api = Api::new(ApiKey::LeaveGroup, 0, 5);

pub(crate) async fn handle(request: Request, message: LeaveGroupRequest) -> LeaveGroupResponse {
    match group_call::call(&request, GroupRequest::Leave(message)).await {
        GroupReply::Leave(response) => response,
        other => LeaveGroupResponse::default().with_error_code(group_call::mismatch(&other)),
    }
}
