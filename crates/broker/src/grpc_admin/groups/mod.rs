//! Groups over gRPC: listed from all brokers, everything else done by the group's coordinator, which any
//! broker finds.

mod assignment;
mod consumer;
mod describe;
mod reset;

use std::time::Duration;

use kafka_protocol::messages::{GroupId as WireGroupId, ListGroupsRequest as KafkaListGroups};
use kafka_protocol::protocol::StrBytes;
use protocol::grpc::v1::admin_client::AdminClient;
use protocol::grpc::v1::{
    AdminDeleteGroupsRequest, AdminDeleteGroupsResponse, AdminGroupResult, DescribeGroupRequest,
    DescribeGroupResponse, GroupSummary, KafkaError, ListGroupsRequest, ListGroupsResponse,
    ResetGroupOffsetsRequest, ResetGroupOffsetsResponse,
};
use protocol::{BrokerId, ErrorCode};
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Response, Status};

use super::{AdminService, peer, refused};
use crate::coordinator::group::{Caller, GroupReply, GroupRequest};

/// How long a coordinator is looked for, and waited for while it loads.
const PATIENCE: Duration = Duration::from_secs(10);
/// Before it is asked again.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers that may carry an error of the whole call.
pub(super) trait GroupAnswer: Sized {
    fn error(&self) -> Option<&KafkaError>;
    fn failed(error: KafkaError) -> Self;
}

macro_rules! group_answers {
    ($($answer:ty),*) => {$(
        impl GroupAnswer for $answer {
            fn error(&self) -> Option<&KafkaError> {
                self.error.as_ref()
            }

            fn failed(error: KafkaError) -> Self {
                Self { error: Some(error), ..Self::default() }
            }
        }
    )*};
}

group_answers!(DescribeGroupResponse, ResetGroupOffsetsResponse, AdminGroupResult);

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

/// Where a group is coordinated.
enum Coordinator {
    /// By this broker.
    Here,
    /// By another one, whose administration this is.
    There(AdminClient<Channel>),
}

/// The attempts to find a coordinator that answers.
struct Search {
    passed_on: bool,
    deadline: Instant,
}

impl Search {
    fn new(passed_on: bool) -> Self {
        Self {
            passed_on,
            deadline: Instant::now() + PATIENCE,
        }
    }

    /// Whether this is the answer; else it is a moment later.
    async fn ends_with(&self, answer: &impl GroupAnswer) -> bool {
        let ends = self.passed_on || Instant::now() >= self.deadline || !asks_again(answer.error());
        if !ends {
            tokio::time::sleep(PAUSE).await;
        }
        ends
    }
}

fn unavailable(status: &Status) -> KafkaError {
    refused(ErrorCode::CoordinatorNotAvailable, status.message())
}

fn from_peer<R: GroupAnswer>(reply: Result<Response<R>, Status>) -> R {
    reply.map_or_else(|status| R::failed(unavailable(&status)), Response::into_inner)
}

/// Whether another attempt may find the coordinator.
fn asks_again(error: Option<&KafkaError>) -> bool {
    let code = error.map_or(0, |error| error.code);
    [
        ErrorCode::CoordinatorLoadInProgress,
        ErrorCode::CoordinatorNotAvailable,
        ErrorCode::NotCoordinator,
    ]
    .iter()
    .any(|again| i32::from(again.code()) == code)
}

impl AdminService {
    /// This service as a caller of coordinators; every request is asked in its latest version.
    async fn ask_group(&self, api_version: i16, request: GroupRequest) -> GroupReply {
        let caller = Caller {
            client_id: StrBytes::from_static_str("ottla-admin"),
            client_host: StrBytes::from_static_str("/127.0.0.1"),
            api_version,
        };
        self.broker.groups.call(caller, request).await
    }

    /// Where the coordinator of `group` is; the error is for the answer.
    async fn coordinator(&self, group: &str, passed_on: bool) -> Result<Coordinator, KafkaError> {
        let located = self.broker.groups.locate(group).await;
        let id = located.map_err(|(code, why)| refused(code, why))?;
        if id == self.broker.config.node_id {
            Ok(Coordinator::Here)
        } else if passed_on {
            Err(refused(
                ErrorCode::NotCoordinator,
                "this broker does not coordinate the group",
            ))
        } else {
            let peer = self.peer(id).await.map_err(|status| unavailable(&status))?;
            Ok(Coordinator::There(peer))
        }
    }

    pub(super) async fn list_all_groups(
        &self,
        request: ListGroupsRequest,
        passed_on: bool,
    ) -> ListGroupsResponse {
        if passed_on {
            return self.list_groups_here(request.states).await;
        }
        let image = self.broker.images.current();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let brokers: Vec<BrokerId> = image.live_brokers().map(|broker| broker.id).collect();
            let asked = brokers
                .into_iter()
                .map(|id| self.list_groups_of(id, request.clone()));
            let mut all = ListGroupsResponse::default();
            for some in futures::future::join_all(asked).await {
                all.groups.extend(some.groups);
                all.unavailable.extend(some.unavailable);
            }
            if all.unavailable.is_empty() || Instant::now() >= deadline {
                all.groups.sort_by(|a, b| a.group_id.cmp(&b.group_id));
                return all;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn list_groups_of(&self, id: BrokerId, request: ListGroupsRequest) -> ListGroupsResponse {
        if id == self.broker.config.node_id {
            return self.list_groups_here(request.states).await;
        }
        let reply = match self.peer(id).await {
            Ok(mut peer) => peer.list_groups(peer::passed_on(request)).await,
            Err(status) => Err(status),
        };
        reply.map_or_else(
            |status| ListGroupsResponse {
                unavailable: vec![format!("broker {id}: {}", status.message())],
                ..ListGroupsResponse::default()
            },
            Response::into_inner,
        )
    }

    async fn list_groups_here(&self, states: Vec<String>) -> ListGroupsResponse {
        let me = self.broker.config.node_id;
        let list = KafkaListGroups::default()
            .with_states_filter(states.into_iter().map(StrBytes::from_string).collect());
        let caller = Caller {
            client_id: StrBytes::from_static_str("ottla-admin"),
            client_host: StrBytes::from_static_str("/127.0.0.1"),
            api_version: 5,
        };
        let mut here = ListGroupsResponse::default();
        for reply in self
            .broker
            .groups
            .call_all(&caller, &GroupRequest::List(list))
            .await
        {
            match reply {
                GroupReply::List(Ok(groups)) => {
                    here.groups.extend(groups.into_iter().map(|group| GroupSummary {
                        group_id: group.group_id.to_string(),
                        state: group.group_state.to_string(),
                        protocol_type: group.protocol_type.to_string(),
                        coordinator: me.get(),
                        group_type: group.group_type.to_string(),
                    }));
                }
                // Its groups are another broker's by now.
                GroupReply::List(Err(ErrorCode::NotCoordinator)) => {}
                GroupReply::List(Err(error)) => here.unavailable.push(format!("broker {me}: {error}")),
                other => here
                    .unavailable
                    .push(format!("broker {me}: unexpected {other:?}")),
            }
        }
        here.unavailable.dedup();
        here
    }

    pub(super) async fn describe_one_group(
        &self,
        request: DescribeGroupRequest,
        passed_on: bool,
    ) -> DescribeGroupResponse {
        let search = Search::new(passed_on);
        loop {
            let answer = match self.coordinator(&request.group_id, passed_on).await {
                Ok(Coordinator::Here) => self.describe_group_here(&request.group_id).await,
                Ok(Coordinator::There(mut peer)) => {
                    from_peer(peer.describe_group(peer::passed_on(request.clone())).await)
                }
                Err(error) => DescribeGroupResponse::failed(error),
            };
            if search.ends_with(&answer).await {
                return answer;
            }
        }
    }

    pub(super) async fn reset_offsets_of_group(
        &self,
        request: ResetGroupOffsetsRequest,
        passed_on: bool,
    ) -> ResetGroupOffsetsResponse {
        let search = Search::new(passed_on);
        loop {
            let answer = match self.coordinator(&request.group_id, passed_on).await {
                Ok(Coordinator::Here) => self.reset_offsets_here(&request).await,
                Ok(Coordinator::There(mut peer)) => {
                    from_peer(peer.reset_group_offsets(peer::passed_on(request.clone())).await)
                }
                Err(error) => ResetGroupOffsetsResponse::failed(error),
            };
            if search.ends_with(&answer).await {
                return answer;
            }
        }
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
        let search = Search::new(passed_on);
        loop {
            let answer = match self.coordinator(&group, passed_on).await {
                Ok(Coordinator::Here) => self.delete_group_here(&group).await,
                Ok(Coordinator::There(mut peer)) => {
                    let request = AdminDeleteGroupsRequest {
                        group_ids: vec![group.clone()],
                    };
                    match peer.admin_delete_groups(peer::passed_on(request)).await {
                        Ok(reply) => reply.into_inner().groups.into_iter().next().unwrap_or_else(|| {
                            AdminGroupResult::failed(refused(ErrorCode::UnknownServerError, "no answer"))
                        }),
                        Err(status) => AdminGroupResult::failed(unavailable(&status)),
                    }
                }
                Err(error) => AdminGroupResult::failed(error),
            };
            if search.ends_with(&answer).await {
                return AdminGroupResult {
                    group_id: group,
                    ..answer
                };
            }
        }
    }

    async fn delete_group_here(&self, group: &str) -> AdminGroupResult {
        let id = WireGroupId(StrBytes::from_string(group.to_owned()));
        let code = match self.ask_group(2, GroupRequest::Delete(id)).await {
            GroupReply::Delete(result) => result.error_code,
            _ => ErrorCode::UnknownServerError.code(),
        };
        AdminGroupResult {
            group_id: group.to_owned(),
            error: kafka_error(code, group),
        }
    }
}
