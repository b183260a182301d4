//! Groups over gRPC: listed from all brokers, everything else done by the group's coordinator, which any
//! broker finds.

mod assignment;
mod call;
mod consumer;
mod delete;
mod describe;
mod list;
mod reset;

use std::time::Duration;

use kafka_protocol::protocol::StrBytes;
use protocol::ErrorCode;
use protocol::grpc::v1::{
    AdminDeleteGroupsRequest, AdminDeleteGroupsResponse, AdminGroupResult, DescribeGroupRequest,
    DescribeGroupResponse, KafkaError, ResetGroupOffsetsRequest, ResetGroupOffsetsResponse,
};

use self::delete::Delete;
use self::describe::Describe;
use self::reset::Reset;
use super::{AdminService, refused};
use crate::coordinator::group::{Caller, GroupReply, GroupRequest};

/// Before brokers are asked again.
const PAUSE: Duration = Duration::from_millis(100);

/// A code from Kafka's wire, with a sentence for people.
fn kafka_error(code: i16, group: &str) -> Option<KafkaError> {
    if code == 0 {
        return None;
    }
    let known = ErrorCode::from_code(code).unwrap_or(ErrorCode::UnknownServerError);
    let sentence = match known {
        ErrorCode::GroupIdNotFound => format!("there is no group {group}"),
        ErrorCode::NonEmptyGroup => {
            format!(
                "group {group} has members: stop its consumers, wait for the session timeout, and try again"
            )
        }
        ErrorCode::InvalidGroupId => format!("{group:?} cannot be the name of a group"),
        ErrorCode::CoordinatorLoadInProgress => {
            format!("the coordinator of group {group} is still reading its log: try again in a moment")
        }
        ErrorCode::CoordinatorNotAvailable | ErrorCode::NotCoordinator => {
            format!("group {group} has no coordinator at the moment: try again")
        }
        _ => String::new(),
    };
    Some(refused(known, sentence))
}

/// This service as a caller of coordinators; every request is asked in its latest version.
fn caller(api_version: i16) -> Caller {
    Caller {
        client_id: StrBytes::from_static_str("ottla-admin"),
        client_host: StrBytes::from_static_str("/127.0.0.1"),
        api_version,
    }
}

impl AdminService {
    async fn ask_group(&self, api_version: i16, request: GroupRequest) -> GroupReply {
        self.broker.groups.call(caller(api_version), request).await
    }

    pub(super) async fn describe_one_group(
        &self,
        request: DescribeGroupRequest,
        passed_on: bool,
    ) -> DescribeGroupResponse {
        self.at_coordinator(Describe(request), passed_on).await
    }

    pub(super) async fn reset_offsets_of_group(
        &self,
        request: ResetGroupOffsetsRequest,
        passed_on: bool,
    ) -> ResetGroupOffsetsResponse {
        self.at_coordinator(Reset(request), passed_on).await
    }

    pub(super) async fn delete_groups(
        &self,
        request: AdminDeleteGroupsRequest,
        passed_on: bool,
    ) -> AdminDeleteGroupsResponse {
        let deleted = request
            .group_ids
            .into_iter()
            .map(|group| self.delete_group(group, passed_on));
        AdminDeleteGroupsResponse {
            groups: futures::future::join_all(deleted).await,
        }
    }

    async fn delete_group(&self, group: String, passed_on: bool) -> AdminGroupResult {
        let deleted = self.at_coordinator(Delete(group.clone()), passed_on).await;
        AdminGroupResult {
            group_id: group,
            ..deleted
        }
    }
}
