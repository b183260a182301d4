//! One controller alone: it elects itself, registers brokers, fences what dies, and forgets nothing.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

mod support;

use std::time::Duration;

use controller::{Controller, ControllerConfig, RaftSettings, StartError};
use metadata::configs::NodeDefaults;
use protocol::grpc::v1::controller_message::Message as ToBroker;
use protocol::{BrokerId, ClusterId, DirectoryId, IncarnationId};
use storage::meta_properties;
use support::{FakeBroker, Quorum, SESSION_TIMEOUT, cluster_id, raft_settings};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Where a test waits for it to pass.
const SHORT_TIMEOUT: Duration = Duration::from_secs(3);

fn config(dir: &std::path::Path) -> ControllerConfig {
    ControllerConfig {
        node_id: BrokerId(101),
        cluster_id: Some(cluster_id()),
        incarnation: IncarnationId::random(),
        log_dir: dir.to_owned(),
        voters: vec![(BrokerId(101), "127.0.0.1:1".to_owned())],
        session_timeout: SESSION_TIMEOUT,
        rebalance_interval: None,
        defaults: NodeDefaults::default(),
        raft: RaftSettings::default(),
    }
}

async fn start_error(config: ControllerConfig) -> StartError {
    match Controller::start(config, CancellationToken::new()).await {
        Err(error) => error,
        Ok(_) => panic!("the controller must not start"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_does_not_fit_is_refused_with_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let error = start_error(config(dir.path())).await;
    assert!(error.to_string().contains("run `ottla format"), "{error}");

    let other = ClusterId::new("another").unwrap();
    meta_properties::format(dir.path(), Some(&other), BrokerId(101), DirectoryId::random()).unwrap();
    let error = start_error(config(dir.path())).await;
    assert!(error.to_string().contains("another"), "{error}");

    let dir = tempfile::tempdir().unwrap();
    meta_properties::format(
        dir.path(),
        Some(&cluster_id()),
        BrokerId(102),
        DirectoryId::random(),
    )
    .unwrap();
    let error = start_error(config(dir.path())).await;
    assert!(error.to_string().contains("102"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_registers_and_is_unfenced_once_it_has_caught_up() {
    let quorum = Quorum::start(1).await;
    let mut broker = FakeBroker::new(1).await;
    let active = quorum.join(&mut broker).await;
    let image = quorum
        .image(active, |image| {
            image.brokers.get(&BrokerId(1)).is_some_and(|b| !b.fenced)
        })
        .await;
    assert_eq!(image.cluster_id, Some(cluster_id()));
    assert_eq!(image.brokers[&BrokerId(1)].epoch, broker.epoch());
    assert_eq!(image.brokers[&BrokerId(1)].incarnation, broker.incarnation);
    broker.until(|broker| broker.image == *image).await;
    quorum.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_process_is_fenced_at_once_and_a_hung_up_one_comes_back_unfenced() {
    let quorum = Quorum::start(1).await;
    let mut broker = FakeBroker::new(1).await;
    let active = quorum.join(&mut broker).await;
    let epoch = broker.epoch();
    broker.hang_up();
    quorum.join(&mut broker).await;
    assert_eq!(broker.epoch(), epoch, "the same process keeps its epoch");

    let started = Instant::now();
    broker.die().await;
    quorum
        .image(active, |image| image.brokers[&BrokerId(1)].fenced)
        .await;
    let took = started.elapsed();
    assert!(took < SESSION_TIMEOUT / 2, "fenced after {took:?}");
    quorum.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_process_is_fenced_after_the_session_timeout() {
    let quorum = Quorum::start_with(1, raft_settings(), SHORT_TIMEOUT).await;
    let mut broker = FakeBroker::new(1).await;
    let active = quorum.join(&mut broker).await;
    // The stream stays open, but nothing is sent any more.
    quorum
        .image(active, |image| image.brokers[&BrokerId(1)].fenced)
        .await;
    let took = broker.last_heartbeat.elapsed();
    assert!(
        took + Duration::from_millis(500) > SHORT_TIMEOUT,
        "fenced after {took:?}"
    );
    // It was told, and may register again without a restart.
    broker.until(|broker| broker.state().fenced).await;
    quorum.join(&mut broker).await;
    quorum.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_with_the_same_id_is_refused_while_the_first_lives() {
    let quorum = Quorum::start(1).await;
    let mut first = FakeBroker::new(1).await;
    let active = quorum.join(&mut first).await;
    let mut second = FakeBroker::new(1).await;
    let answer = tokio::select! {
        answer = second.open(quorum.seats[active].address) => answer.unwrap(),
        () = first.live() => panic!("the first session ended"),
    };
    assert!(
        matches!(&answer, ToBroker::Refused(error) if error.code == 101),
        "{answer:?}"
    );

    first.die().await;
    quorum.join(&mut second).await;
    let image = quorum
        .image(active, |image| !image.brokers[&BrokerId(1)].fenced)
        .await;
    assert_eq!(image.brokers[&BrokerId(1)].incarnation, second.incarnation);
    quorum.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_leaves_is_let_go() {
    let quorum = Quorum::start(1).await;
    let mut broker = FakeBroker::new(1).await;
    let active = quorum.join(&mut broker).await;
    broker.want_shutdown();
    broker.until(|broker| broker.state().may_shut_down).await;
    broker.hang_up();
    quorum
        .image(active, |image| image.brokers[&BrokerId(1)].fenced)
        .await;
    quorum.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_followed_another_log_is_refused() {
    let quorum = Quorum::start(1).await;
    let active = quorum.active().await;
    let controller = quorum.seats[active].address;
    let mut broker = FakeBroker::new(1).await;
    broker.image = broker
        .image
        .apply(protocol::Offset(1_000_000), protocol::LeaderEpoch(1), None)
        .unwrap();
    let answer = broker.open(controller).await.unwrap();
    assert!(
        matches!(&answer, ToBroker::Refused(error) if error.message.contains("1000000")),
        "{answer:?}"
    );
    broker.image = metadata::ClusterImage::default()
        .apply(protocol::Offset(1), protocol::LeaderEpoch(99), None)
        .unwrap();
    let answer = broker.open(controller).await.unwrap();
    assert!(
        matches!(&answer, ToBroker::Refused(error) if error.message.contains("epoch 99")),
        "{answer:?}"
    );
    quorum.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_there_after_a_restart() {
    let mut quorum = Quorum::start(1).await;
    let mut broker = FakeBroker::new(1).await;
    quorum.join(&mut broker).await;
    let before = broker.epoch();
    quorum.stop_seat(0).await;
    broker.hang_up();
    quorum.start_seat(0).await;
    let image = quorum
        .image(0, |image| image.brokers.contains_key(&BrokerId(1)))
        .await;
    assert_eq!(image.brokers[&BrokerId(1)].epoch, before);
    quorum.join(&mut broker).await;
    assert_eq!(
        broker.epoch(),
        before,
        "a new controller does not make a new broker epoch"
    );
    quorum.stop().await;
}
