//! ListGroups (key 16), versions 0–5: the groups that this broker coordinates, by state (from version 4)
//! and type (from 5). A client that wants all of them asks every broker.

use kafka_protocol::messages::{ApiKey, ListGroupsRequest, ListGroupsResponse};
use protocol::ErrorCode;

use crate::{
    coordinator::group::{GroupReply, GroupRequest},
    kafka::{Request, api::Api, group_call},
};

pub(crate) const API: Api = Api::new(ApiKey::ListGroups, 0, 5);

pub(crate) async fn handle(request: Request, message: ListGroupsRequest) -> ListGroupsResponse {
    let caller = group_call::caller(&request);
    let asked = GroupRequest::List(message);
    let mut groups = Vec::new();
    for reply in request.broker.groups.call_all(&caller, &asked).await {
        match reply {
            GroupReply::List(Ok(some)) => groups.extend(some),
            // Its groups are another broker's by now.
            GroupReply::List(Err(ErrorCode::NotCoordinator)) => {}
            GroupReply::List(Err(error)) => {
                return ListGroupsResponse::default().with_error_code(error.code());
            }
            other => return ListGroupsResponse::default().with_error_code(group_call::mismatch(&other)),
        }
    }
    ListGroupsResponse::default().with_groups(groups)
}
