//! In-sync sets on their way to the controller.

mod fake_controller;

use broker::controller_client::ControllerClient;
use broker::isr_channel::ControllerIsrChannel;
use broker::session::ImageStore;
use fake_controller::{FakeController, SOON, broker};
use futures::future::join_all;
use protocol::{
    BrokerEpoch, BrokerId, ErrorCode, LeaderEpoch, PartitionEpoch, PartitionIndex, TopicId, TopicPartition,
};
use replication::{AlterIsr, IsrChannel, IsrError};
use tokio::sync::watch;
use tokio::time::timeout;

fn change(partition_epoch: i32) -> AlterIsr {
    AlterIsr {
        new_isr: vec![(BrokerId(1), BrokerEpoch(7)), (BrokerId(2), BrokerEpoch(8))],
        leader_epoch: LeaderEpoch(3),
        partition_epoch: PartitionEpoch(partition_epoch),
    }
}

#[tokio::test]
async fn proposals_travel_together_and_are_answered_one_by_one() {
    let controller = FakeController::start(101).await;
    controller.say_active(Some(controller.active_in(1)));
    let (_, locator) = broker(1, &[&controller]);
    let (_epoch, receiver) = watch::channel(Some(BrokerEpoch(7)));
    let client = ControllerClient::new(locator, ImageStore::new());
    let channel = ControllerIsrChannel::start(BrokerId(1), receiver, client);
    let topic = TopicId::random();
    let proposals = (0..100).map(|index| {
        let partition = TopicPartition::new(topic, PartitionIndex(index));
        channel.propose(partition, change(index))
    });
    let outcomes = timeout(SOON, join_all(proposals)).await.expect("answers in time");
    for (index, outcome) in (0..).zip(outcomes) {
        if index % 2 == 1 {
            assert_eq!(
                outcome.unwrap_err(),
                IsrError::Refused(ErrorCode::InvalidUpdateVersion)
            );
        } else {
            let altered = outcome.unwrap();
            assert_eq!(altered.partition_epoch, PartitionEpoch(index + 1));
            assert_eq!(altered.isr, [BrokerId(1), BrokerId(2)]);
        }
    }
    let requests = controller.altered();
    assert!(requests.len() <= 2, "{} requests", requests.len());
    assert_eq!(requests[0].broker_epoch, 7);
}

#[tokio::test]
async fn a_broker_that_is_not_registered_asks_nothing() {
    let controller = FakeController::start(101).await;
    let (_, locator) = broker(1, &[&controller]);
    let (_epoch, receiver) = watch::channel(None);
    let client = ControllerClient::new(locator, ImageStore::new());
    let channel = ControllerIsrChannel::start(BrokerId(1), receiver, client);
    let partition = TopicPartition::new(TopicId::random(), PartitionIndex(0));
    assert_eq!(
        channel.propose(partition, change(0)).await.unwrap_err(),
        IsrError::Refused(ErrorCode::StaleBrokerEpoch)
    );
    assert!(controller.altered().is_empty());
}
