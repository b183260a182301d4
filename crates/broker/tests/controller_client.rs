//! The controller client: finding, following, waiting, and what it must not repeat.

mod fake_controller;

use std::time::Duration;

use broker::controller_client::{ControllerClient, ControllerError};
use broker::producer_ids::ProducerIds;
use broker::session::ImageStore;
use fake_controller::{CreateTopicsScript, FakeController, SOON, broker};
use metadata::ClusterImage;
use protocol::grpc::v1::{ControllerReplyHeader, CreateTopicsReply, CreateTopicsRequest, KafkaError};
use protocol::{BrokerEpoch, BrokerId, ErrorCode, Offset};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;

fn reply(code: ErrorCode, committed_offset: i64) -> CreateTopicsReply {
    CreateTopicsReply {
        header: Some(ControllerReplyHeader {
            error: Some(KafkaError {
                code: i32::from(code.code()),
                message: code.name().to_owned(),
            }),
            active: None,
            committed_offset,
        }),
        topics: Vec::new(),
    }
}

fn image_at(offset: i64) -> std::sync::Arc<ClusterImage> {
    let mut image = ClusterImage::default();
    image.offset = Some(Offset(offset));
    std::sync::Arc::new(image)
}

#[tokio::test]
async fn it_follows_the_active_controller_and_waits_for_its_own_image() {
    let old = FakeController::start(101).await;
    let new = FakeController::start(102).await;
    let (_, locator) = broker(1, &[&old, &new]);
    old.say_active(Some(old.active_in(1)));
    let mut moved = reply(ErrorCode::NotController, 0);
    if let Some(header) = &mut moved.header {
        header.active = Some(new.active_in(2));
    }
    old.script_create_topics(CreateTopicsScript::Reply(moved));
    new.script_create_topics(CreateTopicsScript::Reply(reply(ErrorCode::None, 9)));
    let images = ImageStore::new();
    let client = ControllerClient::new(locator, images.clone());

    let call = tokio::spawn({
        let client = client.clone();
        async move {
            client
                .create_topics(CreateTopicsRequest::default(), Instant::now() + SOON)
                .await
        }
    });
    images.publish(image_at(9));
    assert!(call.await.unwrap().is_ok());
    assert_eq!((old.create_topics_calls(), new.create_topics_calls()), (1, 1));
    assert_eq!(client.known_active().unwrap().id, BrokerId(102));
}

#[tokio::test]
async fn an_unknown_outcome_is_not_repeated() {
    let controller = FakeController::start(101).await;
    controller.say_active(Some(controller.active_in(1)));
    controller.script_create_topics(CreateTopicsScript::BreakConnection);
    let (_, locator) = broker(1, &[&controller]);
    let client = ControllerClient::new(locator, ImageStore::new());
    let error = client
        .create_topics(CreateTopicsRequest::default(), Instant::now() + SOON)
        .await
        .unwrap_err();
    assert!(matches!(error, ControllerError::OutcomeUnknown(_)), "{error}");
    assert_eq!(error.code(), ErrorCode::RequestTimedOut);
    assert_eq!(controller.create_topics_calls(), 1);
}

#[tokio::test]
async fn a_controller_that_cannot_be_reached_is_tried_again() {
    // A port that refuses: bound once, then free.
    let refused = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let controller = FakeController::start(101).await;
    let mut dead = controller.active_in(1);
    dead.address = refused.to_string();
    controller.say_active(Some(controller.active_in(2)));
    controller.script_create_topics(CreateTopicsScript::Reply(reply(ErrorCode::PolicyViolation, 0)));
    let (_, locator) = broker(1, &[&controller]);
    locator.learn(&dead);
    let client = ControllerClient::new(locator, ImageStore::new());
    let error = client
        .create_topics(CreateTopicsRequest::default(), Instant::now() + SOON)
        .await
        .unwrap_err();
    assert_eq!(error.code(), ErrorCode::PolicyViolation, "{error}");
}

#[tokio::test]
async fn without_a_controller_the_deadline_ends_the_call() {
    let controller = FakeController::start(101).await;
    let (_, locator) = broker(1, &[&controller]);
    let client = ControllerClient::new(locator, ImageStore::new());
    let deadline = Instant::now() + Duration::from_millis(200);
    let error = client
        .create_topics(CreateTopicsRequest::default(), deadline)
        .await
        .unwrap_err();
    assert!(matches!(error, ControllerError::Unreachable(_)), "{error}");
    assert_eq!(error.code(), ErrorCode::RequestTimedOut);
}

#[tokio::test]
async fn a_result_that_this_broker_does_not_show_in_time_is_said_so() {
    let controller = FakeController::start(101).await;
    controller.say_active(Some(controller.active_in(1)));
    let (_, locator) = broker(1, &[&controller]);
    let client = ControllerClient::new(locator, ImageStore::new());
    // On a busy machine the controller's answer itself may need longer than the shortest of these.
    for seconds in [1, 5, 25] {
        controller.script_create_topics(CreateTopicsScript::Reply(reply(ErrorCode::None, 9)));
        let deadline = Instant::now() + Duration::from_secs(seconds);
        let answer = client.create_topics(CreateTopicsRequest::default(), deadline);
        let error = answer.await.unwrap_err();
        if error == ControllerError::NotSeenYet {
            return;
        }
        assert!(Instant::now() >= deadline, "{error}");
    }
    panic!("no answer of the controller in time");
}

#[tokio::test]
async fn producer_ids_are_unique_over_blocks() {
    let controller = FakeController::start(101).await;
    controller.say_active(Some(controller.active_in(1)));
    let (_, locator) = broker(1, &[&controller]);
    let (epoch, receiver) = watch::channel(None);
    let ids = ProducerIds::start(
        BrokerId(1),
        receiver,
        ControllerClient::new(locator, ImageStore::new()),
    );
    assert_eq!(
        ids.next().await,
        Err(ErrorCode::CoordinatorLoadInProgress),
        "no epoch, no block"
    );
    epoch.send_replace(Some(BrokerEpoch(1)));
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..23 {
        assert!(seen.insert(ids.next().await.unwrap()));
    }
}
