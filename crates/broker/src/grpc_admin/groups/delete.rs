//! Deletes a group that has no members, with what it committed.

use kafka_protocol::messages::GroupId as WireGroupId;
use kafka_protocol::protocol::StrBytes;
use protocol::ErrorCode;
use protocol::grpc::v1::admin_client::AdminClient;
use protocol::grpc::v1::{AdminDeleteGroupsRequest, AdminGroupResult};
use tonic::Status;
use tonic::transport::Channel;

use super::call::{Effect, GroupCall, lost_its_group, may_have_been_done};
use super::kafka_error;
use crate::coordinator::group::{GroupReply, GroupRequest};
use crate::grpc_admin::{AdminService, peer};

/// Deletes this group.
pub(super) struct Delete(pub(super) String);

impl GroupCall for Delete {
    type Answer = AdminGroupResult;
    const DONE_BEFORE: Option<ErrorCode> = Some(ErrorCode::GroupIdNotFound);

    fn group(&self) -> &str {
        &self.0
    }

    fn effect(&self) -> Effect {
        Effect::Repeatable
    }

    async fn here(&self, service: &AdminService) -> AdminGroupResult {
        let group = self.group();
        let id = WireGroupId(StrBytes::from_string(group.to_owned()));
        let code = match service.ask_group(2, GroupRequest::Delete(id)).await {
            GroupReply::Delete(result) => result.error_code,
            _ => ErrorCode::UnknownServerError.code(),
        };
        AdminGroupResult {
            group_id: group.to_owned(),
            error: match lost_its_group(code) {
                Some(why) => Some(may_have_been_done(group, why)),
                None => kafka_error(code, group),
            },
        }
    }

    async fn there(&self, mut coordinator: AdminClient<Channel>) -> Result<AdminGroupResult, Status> {
        let request = AdminDeleteGroupsRequest {
            group_ids: vec![self.0.clone()],
        };
        let reply = coordinator.admin_delete_groups(peer::passed_on(request)).await?;
        let deleted = reply.into_inner().groups.into_iter().next();
        deleted.ok_or_else(|| Status::internal("it says nothing of the group"))
    }
}
