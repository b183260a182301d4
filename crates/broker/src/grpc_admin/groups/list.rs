//! The groups of the whole cluster, asked of all of its brokers.

use std::collections::BTreeMap;
use std::time::Duration;

use kafka_protocol::messages::ListGroupsRequest as KafkaListGroups;
use kafka_protocol::protocol::StrBytes;
use metadata::ClusterImage;
use protocol::grpc::v1::{GroupSummary, ListGroupsRequest, ListGroupsResponse};
use protocol::{BrokerId, CONSUMER_OFFSETS, ErrorCode, LeaderEpoch, PartitionIndex};
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
/// The longest pause: each is twice the one before.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The partitions of the offsets topic that a broker leads, and since when.
type Led = Vec<(PartitionIndex, LeaderEpoch)>;

/// What the brokers have answered.
#[derive(Default)]
struct Answers {
    /// With what the broker led when it was asked.
    by_broker: BTreeMap<BrokerId, (Led, ListGroupsResponse)>,
}

impl Answers {
    /// Those of `live` that must be asked: they have not answered for all that they lead. Forgets the others
    /// that are not live: a broker that has died has no groups any more, once others have them.
    fn missing(&mut self, live: BTreeMap<BrokerId, Led>) -> Vec<(BrokerId, Led)> {
        self.by_broker.retain(|id, (led, answer)| {
            live.get(id).is_some_and(|now| now == led) && answer.unavailable.is_empty()
        });
        let asked = live.into_iter();
        asked.filter(|(id, _)| !self.by_broker.contains_key(id)).collect()
    }

    fn insert(&mut self, id: BrokerId, led: Led, answer: ListGroupsResponse) {
        self.by_broker.insert(id, (led, answer));
    }

    /// Why it is not all.
    fn unavailable(&self) -> impl Iterator<Item = &String> {
        self.by_broker
            .values()
            .flat_map(|(_, answer)| &answer.unavailable)
    }

    fn into_response(self, without_coordinator: Option<String>) -> ListGroupsResponse {
        let mut all = ListGroupsResponse::default();
        for (_, some) in self.by_broker.into_values() {
            all.groups.extend(some.groups);
            all.unavailable.extend(some.unavailable);
        }
        all.unavailable.extend(without_coordinator);
        all.groups.sort_by(|a, b| a.group_id.cmp(&b.group_id));
        all
    }
}

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
        let mut answers = Answers::default();
        let mut pause = PAUSE;
        loop {
            let image = self.broker.images.current();
            let asked = answers.missing(led(&image)).into_iter().map(|(id, led)| {
                let answer = self.list_groups_of(id, request.clone());
                async move { (id, led, answer.await) }
            });
            for (id, led, answer) in futures::future::join_all(asked).await {
                answers.insert(id, led, answer);
            }
            let without = without_coordinator(&image);
            let complete = without.is_none() && answers.unavailable().next().is_none();
            if complete || Instant::now() >= deadline {
                return Ok(answers.into_response(without));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
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

/// What the live brokers lead of the offsets topic.
fn led(image: &ClusterImage) -> BTreeMap<BrokerId, Led> {
    let mut led: BTreeMap<BrokerId, Led> = image
        .live_brokers()
        .map(|broker| (broker.id, Led::new()))
        .collect();
    let topic = placement::offsets_topic(image).into_iter();
    for (&index, partition) in topic.flat_map(|topic| &topic.partitions) {
        let leads = partition.leader.and_then(|leader| led.get_mut(&leader));
        if let Some(leads) = leads {
            leads.push((index, partition.leader_epoch));
        }
    }
    led
}

/// Groups that no broker has now.
fn without_coordinator(image: &ClusterImage) -> Option<String> {
    let partitions = &placement::offsets_topic(image)?.partitions;
    // A fenced leader is none.
    let is_live = |id: BrokerId| image.brokers.get(&id).is_some_and(|broker| !broker.fenced);
    let without = partitions
        .values()
        .filter(|partition| !partition.leader.is_some_and(is_live));
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
    use std::sync::Arc;

    use metadata::{BrokerRegistration, PartitionRegistration, records};
    use protocol::{BrokerEpoch, DirectoryId, IncarnationId, PartitionEpoch, TopicId, TopicPartition};
    use uuid::Uuid;

    use super::*;

    /// Brokers 1 and 2, and the leaders of the offsets topic's partitions.
    fn image(leaders: &[Option<i32>], fenced: &[i32]) -> ClusterImage {
        let topic = TopicId(Uuid::from_u128(7));
        let name = CONSUMER_OFFSETS.parse().expect("a topic's name");
        let partitions = leaders.iter().zip(0..).map(|(&leader, index)| {
            let partition = PartitionRegistration {
                replicas: vec![BrokerId(1), BrokerId(2)],
                directories: vec![DirectoryId::ZERO; 2],
                isr: vec![BrokerId(1), BrokerId(2)],
                elr: Vec::new(),
                leader: leader.map(BrokerId),
                leader_epoch: LeaderEpoch(1),
                partition_epoch: PartitionEpoch(1),
                adding: Vec::new(),
                removing: Vec::new(),
            };
            records::partition_record(TopicPartition::new(topic, PartitionIndex(index)), &partition)
        });
        let created = std::iter::once(records::topic_record(topic, &name));
        let records: Vec<_> = created.chain(partitions).collect();
        let mut image = ClusterImage::default().speculate(&records).expect("fits");
        for id in [1, 2] {
            let broker = BrokerRegistration {
                id: BrokerId(id),
                epoch: BrokerEpoch(1),
                incarnation: IncarnationId(Uuid::from_u128(1)),
                endpoints: Vec::new(),
                internal_address: "localhost:1".to_owned(),
                rack: None,
                log_dirs: Vec::new(),
                fenced: fenced.contains(&id),
                in_controlled_shutdown: false,
                version: String::new(),
            };
            image.brokers.insert(BrokerId(id), Arc::new(broker));
        }
        image
    }

    #[test]
    fn only_those_are_asked_again_whose_answer_is_not_whole() {
        let mut answers = Answers::default();
        let mut ask = |image: &ClusterImage, failing: &[i32]| -> Vec<i32> {
            let missing = answers.missing(led(image));
            let asked = missing.iter().map(|(id, _)| id.get()).collect();
            for (id, led) in missing {
                let mut answer = ListGroupsResponse::default();
                if failing.contains(&id.get()) {
                    answer.unavailable.push("it loads".to_owned());
                }
                answers.insert(id, led, answer);
            }
            asked
        };
        let leaderless = image(&[Some(1), Some(2), None], &[]);
        assert_eq!(ask(&leaderless, &[2]), [1, 2]);
        assert_eq!(ask(&leaderless, &[2]), [2]);
        assert_eq!(ask(&leaderless, &[]), [2]);
        assert!(ask(&leaderless, &[]).is_empty());
        // Who gets groups has not answered for them.
        assert_eq!(ask(&image(&[Some(1), Some(2), Some(1)], &[]), &[]), [1]);
        assert_eq!(ask(&image(&[Some(1), Some(1), Some(1)], &[2]), &[1]), [1]);
        let response = answers.into_response(Some("none".to_owned()));
        assert_eq!(response.unavailable, ["it loads", "none"]);
    }

    #[test]
    fn a_fenced_leader_coordinates_nothing() {
        assert_eq!(without_coordinator(&image(&[Some(1), Some(2)], &[])), None);
        for image in [image(&[Some(1), None], &[]), image(&[Some(1), Some(2)], &[2])] {
            let told = without_coordinator(&image).expect("one has none");
            assert!(told.starts_with("1 of 2 partitions"), "{told}");
        }
    }

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
