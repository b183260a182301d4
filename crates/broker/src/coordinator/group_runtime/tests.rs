//! What a broker answers about groups whose shards it does not serve, not yet or not at all.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use kafka_protocol::messages::{HeartbeatRequest, ListGroupsRequest, SyncGroupRequest};
use kafka_protocol::protocol::StrBytes;
use metadata::{BrokerRegistration, ClusterImage, PartitionRegistration, records};
use protocol::{
    BrokerEpoch, BrokerId, CONSUMER_OFFSETS, DirectoryId, ErrorCode, IncarnationId, LeaderEpoch,
    PartitionEpoch, PartitionIndex, TopicId, TopicPartition,
};
use tokio::sync::mpsc;
use tokio::time::Instant;
use uuid::Uuid;

use super::offsets_topic::OffsetsTopic;
use super::service::{GroupCoordinator, ShardHandle};
use crate::config::GroupSettings;
use crate::controller_client::{ControllerClient, ControllerLocator};
use crate::coordinator::group::{Caller, GroupReply, GroupRequest};
use crate::identity::NodeIdentity;
use crate::session::ImageStore;

const ME: BrokerId = BrokerId(1);
const OTHER: BrokerId = BrokerId(2);

/// An image of two live brokers, with the offsets topic where there are leaders of its partitions.
fn image(leaders: &[BrokerId]) -> Arc<ClusterImage> {
    let topic = TopicId(Uuid::from_u128(7));
    let name = CONSUMER_OFFSETS.parse().expect("a topic's name");
    let created = (!leaders.is_empty()).then(|| records::topic_record(topic, &name));
    let partitions = leaders.iter().zip(0..).map(|(&leader, index)| {
        let partition = PartitionRegistration {
            replicas: vec![ME, OTHER],
            directories: vec![DirectoryId::ZERO; 2],
            isr: vec![ME, OTHER],
            elr: Vec::new(),
            leader: Some(leader),
            leader_epoch: LeaderEpoch(1),
            partition_epoch: PartitionEpoch(1),
            adding: Vec::new(),
            removing: Vec::new(),
        };
        records::partition_record(TopicPartition::new(topic, PartitionIndex(index)), &partition)
    });
    let records: Vec<_> = created.into_iter().chain(partitions).collect();
    let mut image = ClusterImage::default().speculate(&records).expect("fits");
    for id in [ME, OTHER] {
        let broker = BrokerRegistration {
            id,
            epoch: BrokerEpoch(1),
            incarnation: IncarnationId(Uuid::from_u128(1)),
            endpoints: Vec::new(),
            internal_address: "localhost:1".to_owned(),
            rack: None,
            log_dirs: Vec::new(),
            fenced: false,
            in_controlled_shutdown: false,
            version: String::new(),
        };
        image.brokers.insert(id, Arc::new(broker));
    }
    Arc::new(image)
}

/// The coordinator of a broker that has no shards, and finds no controller. `leaders` are those of the offsets
/// topic's partitions; without any there is no such topic.
pub(crate) fn without_controllers(leaders: &[BrokerId]) -> GroupCoordinator {
    let images = ImageStore::new();
    images.publish(image(leaders));
    let me = NodeIdentity::new(ME, DirectoryId::random(), IncarnationId::random(), None);
    let locator = ControllerLocator::new(Arc::new(me), Vec::new());
    let settings = GroupSettings {
        topic_replication_factor: 1,
        ..GroupSettings::default()
    };
    GroupCoordinator {
        me: ME,
        images: images.clone(),
        shards: Arc::default(),
        topic: OffsetsTopic::new(
            images.clone(),
            ControllerClient::new(locator, images),
            Arc::new(settings),
            Instant::now(),
        ),
    }
}

/// Has a shard begin that loads its partition.
fn begin_loading(groups: &GroupCoordinator, index: i32) {
    let (queue, _) = mpsc::channel(1);
    let serving = Arc::new(AtomicBool::new(false));
    let handle = ShardHandle { queue, serving };
    groups.shards.write().insert(PartitionIndex(index), handle);
}

fn caller() -> Caller {
    Caller {
        client_id: StrBytes::new(),
        client_host: StrBytes::new(),
        api_version: 4,
    }
}

async fn list(groups: &GroupCoordinator) -> Vec<ErrorCode> {
    let asked = GroupRequest::List(ListGroupsRequest::default());
    let replies = groups.call_all(&caller(), &asked).await;
    let refusal = |reply| match reply {
        GroupReply::List(Err(error)) => error,
        other => panic!("{other:?}"),
    };
    replies.into_iter().map(refusal).collect()
}

#[tokio::test]
async fn a_list_without_groups_that_are_still_to_come_says_so() {
    let loading = ErrorCode::CoordinatorLoadInProgress;
    let groups = without_controllers(&[]);
    assert_eq!(list(&groups).await, []);
    let groups = without_controllers(&[ME, OTHER, ME]);
    // The metadata has made this broker the leader of two partitions, and no task has begun.
    assert_eq!(list(&groups).await, [loading]);
    // One has.
    begin_loading(&groups, 0);
    assert_eq!(list(&groups).await, [loading; 2]);
    begin_loading(&groups, 2);
    assert_eq!(list(&groups).await, [loading; 2]);
    assert_eq!(list(&without_controllers(&[OTHER, OTHER, OTHER])).await, []);
}

/// What one member of the only partition's group is told, request by request.
async fn told(groups: &GroupCoordinator) -> [i16; 3] {
    let ask = async |request: GroupRequest| match groups.call(caller(), request).await {
        GroupReply::Heartbeat(reply) => reply.error_code,
        GroupReply::Sync(reply) => reply.error_code,
        GroupReply::Describe(reply) => reply.error_code,
        other => panic!("{other:?}"),
    };
    [
        ask(GroupRequest::Describe(StrBytes::from_static_str("g").into())).await,
        ask(GroupRequest::Sync(SyncGroupRequest::default())).await,
        ask(GroupRequest::Heartbeat(HeartbeatRequest::default())).await,
    ]
}

#[tokio::test]
async fn while_groups_are_loaded_requests_are_refused_in_the_terms_of_each() {
    let codes = |codes: [ErrorCode; 3]| codes.map(ErrorCode::code);
    let loading = codes([
        ErrorCode::CoordinatorLoadInProgress,
        ErrorCode::RebalanceInProgress,
        ErrorCode::None,
    ]);
    let groups = without_controllers(&[ME]);
    assert_eq!(told(&groups).await, loading);
    begin_loading(&groups, 0);
    assert_eq!(told(&groups).await, loading);
    let elsewhere = without_controllers(&[OTHER]);
    assert_eq!(told(&elsewhere).await, codes([ErrorCode::NotCoordinator; 3]));
}
