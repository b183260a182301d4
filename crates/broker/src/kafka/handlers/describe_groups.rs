//! DescribeGroups (key 15), versions 0–6: state, protocol and members of groups, each by itself.

use std::collections::HashSet;

use kafka_protocol::messages::{
    ApiKey, DescribeGroupsRequest, DescribeGroupsResponse, describe_groups_response::DescribedGroup,
};

use crate::{
    coordinator::group::{GroupReply, GroupRequest},
    kafka::{Request, api::Api, authorized_operations, group_call},
};

pub(crate) const API: Api = Api::new(ApiKey::DescribeGroups, 0, 6);

pub(crate) async fn handle(request: Request, message: DescribeGroupsRequest) -> DescribeGroupsResponse {
    let requested = message.include_authorized_operations;
    // A group that is named twice is described once.
    let mut named = HashSet::new();
    let groups = message
        .groups
        .into_iter()
        .filter(|group| named.insert(group.clone()));
    let described = groups.map(|group| async {
        let id = group.clone();
        let group = match group_call::call(&request, GroupRequest::Describe(group)).await {
            GroupReply::Describe(group) => group,
            other => DescribedGroup::default()
                .with_group_id(id)
                .with_error_code(group_call::mismatch(&other)),
        };
        let operations = authorized_operations::of_group(requested, group.error_code);
        group.with_authorized_operations(operations)
    });
    let groups = group_call::each(described).await;
    DescribeGroupsResponse::default().with_groups(groups)
}
