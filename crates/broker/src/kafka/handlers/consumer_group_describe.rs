//! ConsumerGroupDescribe (key 69), versions 0–1: epochs, assignor and members of groups of the KIP-848
//! protocol, with what each has and what it is to have. A group of the classic protocol is none here.

use kafka_protocol::messages::{
    ApiKey, ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse,
    consumer_group_describe_response::DescribedGroup,
};

use crate::{
    coordinator::group::{GroupReply, GroupRequest},
    kafka::{Request, api::Api, authorized_operations, group_call},
};

pub(crate) const API: Api = Api::new(ApiKey::ConsumerGroupDescribe, 0, 1);

pub(crate) async fn handle(
    request: Request,
    message: ConsumerGroupDescribeRequest,
) -> ConsumerGroupDescribeResponse {
    let requested = message.include_authorized_operations;
    let described = message.group_ids.into_iter().map(|group| async {
        let id = group.clone();
        let group = match group_call::call(&request, GroupRequest::DescribeConsumer(group)).await {
            GroupReply::DescribeConsumer(group) => group,
            other => DescribedGroup::default()
                .with_group_id(id)
                .with_error_code(group_call::mismatch(&other)),
        };
        let operations = authorized_operations::of_group(requested, group.error_code);
        group.with_authorized_operations(operations)
    });
    let groups = group_call::each(described).await;
    ConsumerGroupDescribeResponse::default().with_groups(groups)
}
