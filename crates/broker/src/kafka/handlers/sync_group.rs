//! SyncGroup (key 14), versions 0–5: the leader of a generation hands in the
//! assignments, every member waits for its own.

use kafka_protocol::messages::{ApiKey, SyncGroupRequest, SyncGroupResponse};

use crate::{
    coordinator::group::{GroupReply, GroupRequest},
    kafka::{Request, api::Api, group_call},
};

pub(crate) const API: Api = Api::new(ApiKey::SyncGroup, 0, 5);

pub(crate) async fn handle(request: Request, message: SyncGroupRequest) -> SyncGroupResponse {
    match group_call::call(&request, GroupRequest::Sync(message)).await {
        GroupReply::Sync(response) => response,
        other => SyncGroupResponse::default().with_error_code(group_call::mismatch(&other)),
    }
}
