//! The groups of the whole cluster, asked of all of its brokers.

use std::time::Duration;

use kafka_protocol::messages::ListGroupsRequest as KafkaListGroups;
use kafka_protocol::protocol::StrBytes;
use metadata::ClusterImage;
use protocol::grpc::v1::{GroupSummary, ListGroupsRequest, ListGroupsResponse};
use protocol::{BrokerId, CONSUMER_OFFSETS, ErrorCode};
use tokio::time::Instant;
use tonic::{Response, Status};

use super::{PAUSE, caller};
use crate::coordinator::group::{GROUP_STATES, GroupKind, GroupReply, GroupRequest};
use crate::coordinator::group_runtime::placement;
use crate::grpc_admin::{AdminService, peer};

/// How long brokers are asked that do not answer, or that are still reading their groups.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long one broker has for its answer.
const ANSWER: Duration = Duration::from_secs(5);

impl AdminService {
    /// What passes the filters; an error where one of them names what is not there.
    pub(in super::super) async fn list_all_groups(
        &self,
        request: ListGroupsRequest,
        passed_on: bool,
    ) -> Result<ListGroupsResponse, Status> {
        check(&request)?;
        if passed_on {
            return Ok(self.list_groups_here(request).await);
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            // Anew each time: a broker that has died has no groups any more, once others have them.
            let image = self.broker.images.current();
            let asked = image
                .live_brokers()
                .map(|broker| self.list_groups_of(broker.id, request.clone()));
            let mut all = ListGroupsResponse::default();
            for some in futures::future::join_all(asked).await {
                all.groups.extend(some.groups);
                all.unavailable.extend(some.unavailable);
            }
            all.unavailable.extend(without_coordinator(&image));
            if all.unavailable.is_empty() || Instant::now() >= deadline {
                all.groups.sort_by(|a, b| a.group_id.cmp(&b.group_id));
                return Ok(all);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn list_groups_of(&self, id: BrokerId, request: ListGroupsRequest) -> ListGroupsResponse {
        if id == self.broker.config.node_id {
            return self.list_groups_here(request).await;
        }
        let reply = match self.peer(id, ANSWER).await {
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

    async fn list_groups_here(&self, request: ListGroupsRequest) -> ListGroupsResponse {
        let me = self.broker.config.node_id;
        let filter = |names: Vec<String>| names.into_iter().map(StrBytes::from_string).collect();
        let list = KafkaListGroups::default()
            .with_states_filter(filter(request.states))
            .with_types_filter(filter(request.types));
        let asked = GroupRequest::List(list);
        let mut here = ListGroupsResponse::default();
        for reply in self.broker.groups.call_all(&caller(5), &asked).await {
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
}

/// Groups that no broker has now.
fn without_coordinator(image: &ClusterImage) -> Option<String> {
    let partitions = &placement::offsets_topic(image)?.partitions;
    let without = partitions.values().filter(|partition| partition.leader.is_none());
    match without.count() {
        0 => None,
        count => Some(format!(
            "{count} of {} partitions of {CONSUMER_OFFSETS} have no leader, and their groups no coordinator",
            partitions.len()
        )),
    }
}

/// Refuses filters that nothing can pass: a name with a slip in it would be answered with no groups at all.
fn check(request: &ListGroupsRequest) -> Result<(), Status> {
    check_names("state", &request.states, &GROUP_STATES)?;
    let types = [GroupKind::Classic.name(), GroupKind::Consumer.name()];
    check_names("type", &request.types, &types)
}

/// Whether all are `known`, in any case of letters, as the filters themselves take them.
fn check_names(what: &str, names: &[String], known: &[&str]) -> Result<(), Status> {
    let is_known = |name: &str| known.iter().any(|known| known.eq_ignore_ascii_case(name.trim()));
    let Some(name) = names.iter().find(|name| !is_known(name)) else {
        return Ok(());
    };
    let known = known.join(", ");
    let sentence = format!("{name:?} is no {what} of a group; there are {known}");
    Err(Status::invalid_argument(sentence))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_nothing_passes_is_refused() {
        let listed = |states: &[&str], types: &[&str]| {
            let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
            let request = ListGroupsRequest {
                states: names(states),
                types: names(types),
            };
            check(&request).map_err(|status| status.message().to_owned())
        };
        assert_eq!(listed(&[], &[]), Ok(()));
        assert_eq!(listed(&GROUP_STATES, &["classic", "consumer"]), Ok(()));
        assert_eq!(listed(&["stable", " EMPTY "], &["Classic"]), Ok(()));
        let refused = listed(&["Stable", "stabel"], &[]).expect_err("a slip");
        assert!(
            refused.contains("\"stabel\" is no state") && refused.contains("Stable"),
            "{refused}"
        );
        let refused = listed(&[], &["share"]).expect_err("not here");
        assert!(refused.contains("\"share\" is no type") && refused.contains("classic, consumer"));
    }
}
