//! DeleteGroups (key 42), versions 0–2: forgets groups without members, each by itself.

use kafka_protocol::messages::{
    ApiKey, DeleteGroupsRequest, DeleteGroupsResponse, delete_groups_response::DeletableGroupResult,
};

use crate::{
    coordinator::group::{GroupReply, GroupRequest},
    kafka::{Request, api::Api, group_call},
};

pub(crate) const API: Api = Api::new(ApiKey::DeleteGroups, 0, 2);

pub(crate) async fn handle(request: Request, message: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let mut names = message.groups_names;
    names.sort_unstable();
    // A group that is named twice is deleted once.
    names.dedup();
    let deleted = names.into_iter().map(|group| async {
        let id = group.clone();
        match group_call::call(&request, GroupRequest::Delete(group)).await {
            GroupReply::Delete(result) => result,
            other => DeletableGroupResult::default()
                .with_group_id(id)
                .with_error_code(group_call::mismatch(&other)),
        }
    });
    let results = group_call::each(deleted).await;
    DeleteGroupsResponse::default().with_results(results)
}
