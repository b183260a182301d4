//! Three controllers: somebody leads, nothing committed is lost when it goes, and who comes back late
//! catches up from the log or from a snapshot.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

mod support;

use controller::RaftSettings;
use protocol::BrokerId;
use protocol::grpc::v1::controller_message::Message as ToBroker;
use protocol::grpc::v1::node_client::NodeClient;
use protocol::grpc::v1::{DescribeQuorumRequest, ProbeRequest, UnregisterBrokerRequest};
use protocol::{DirectoryId, IncarnationId};
use support::{FakeBroker, Quorum, SESSION_TIMEOUT, channel, hello, raft_settings};

#[tokio::test(flavor = "multi_thread")]
async fn the_next_leader_has_what_was_committed_and_the_old_one_catches_up() {
    let mut quorum = Quorum::start(3).await;
    let mut broker = FakeBroker::new(1).await;
    let first = quorum.join(&mut broker).await;
    let epoch = broker.epoch();

    quorum.stop_seat(first).await;
    broker.hang_up();
    let second = quorum.active().await;
    assert_ne!(first, second);
    let image = quorum
        .image(second, |image| image.brokers.contains_key(&BrokerId(1)))
        .await;
    assert_eq!(image.brokers[&BrokerId(1)].epoch, epoch);
    quorum.join(&mut broker).await;
    assert_eq!(broker.epoch(), epoch, "an election is no reason to register anew");

    let mut another = FakeBroker::new(2).await;
    quorum.join(&mut another).await;
    quorum.start_seat(first).await;
    quorum
        .image(first, |image| image.brokers.contains_key(&BrokerId(2)))
        .await;
    quorum.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_active_says_who_is() {
    let quorum = Quorum::start(3).await;
    let mut broker = FakeBroker::new(1).await;
    let (active, known, first, unregistered, probed) = quorum
        .undisturbed(async || {
            let active = quorum.active().await;
            let other = (active + 1) % 3;
            let view = quorum.view(other, |view| {
                let known = view.active.as_ref();
                known.is_some_and(|known| known.node_id == quorum.seats[active].id)
            });
            let known = view.await.active;
            let first = broker.open(quorum.seats[other].address).await;
            let request = UnregisterBrokerRequest { broker_id: 1 };
            let unregistered = quorum.client(other).unregister_broker(request).await;
            let probe = ProbeRequest {
                hello: Some(hello(BrokerId(1), IncarnationId::random(), DirectoryId::random())),
            };
            let probed = NodeClient::new(channel(quorum.seats[other].address))
                .probe(probe)
                .await;
            (active, known, first, unregistered, probed)
        })
        .await;
    let (id, address) = (quorum.seats[active].id, quorum.seats[active].address);
    assert_eq!(known.unwrap().address, address.to_string());
    let ToBroker::NotActive(not_active) = first.as_ref().unwrap() else {
        panic!("{first:?}");
    };
    assert_eq!(not_active.active_controller.as_ref().unwrap().node_id, id.get());
    let header = unregistered.unwrap().into_inner().header.unwrap();
    assert_eq!(header.error.unwrap().code, 41);
    assert_eq!(header.active.unwrap().node_id, id.get());
    let probed = probed.unwrap().into_inner();
    assert_eq!(probed.active_controller.unwrap().node_id, id.get());
    quorum.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_minority_decides_nothing() {
    let mut quorum = Quorum::start(3).await;
    let active = quorum.active().await;
    quorum.stop_seat((active + 1) % 3).await;
    quorum.stop_seat((active + 2) % 3).await;
    quorum.view(active, |view| !view.is_self).await;
    let mut broker = FakeBroker::new(1).await;
    let answer = broker.open(quorum.seats[active].address).await.unwrap();
    assert!(matches!(answer, ToBroker::NotActive(_)), "{answer:?}");
    quorum.start_seat((active + 1) % 3).await;
    quorum.join(&mut broker).await;
    quorum.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_lags_behind_the_log_gets_a_snapshot() {
    let settings = RaftSettings {
        snapshot_every: 20,
        keep_entries: 2,
        ..raft_settings()
    };
    let mut quorum = Quorum::start_with(3, settings, SESSION_TIMEOUT).await;
    let active = quorum.active().await;
    let late = (active + 1) % 3;
    quorum.stop_seat(late).await;

    // Each registration and each unfencing is an entry. At some time the leader's log begins so late that
    // a broker which has nothing of it gets a snapshot.
    let mut last = BrokerId(0);
    for id in 1..200 {
        let mut broker = FakeBroker::new(id).await;
        quorum.join(&mut broker).await;
        last = broker.id;
        if broker.snapshots_seen > 0 {
            assert!(broker.image.brokers.len() >= last.get() as usize);
            break;
        }
    }
    assert!(last < BrokerId(199), "the log was never purged");
    quorum.start_seat(late).await;
    let caught_up = quorum
        .image(late, |image| image.brokers.contains_key(&last))
        .await;
    assert_eq!(caught_up.brokers.len(), last.get() as usize);
    let checkpoints = std::fs::read_dir(quorum.seats[late].dir.path().join("__cluster_metadata-0"))
        .unwrap()
        .filter(|entry| {
            entry
                .as_ref()
                .unwrap()
                .path()
                .extension()
                .is_some_and(|extension| extension == "checkpoint")
        })
        .count();
    assert!(checkpoints > 0, "the log it missed was gone: a snapshot came");

    // And everything is there after all of them restart.
    for i in 0..3 {
        quorum.stop_seat(i).await;
    }
    for i in 0..3 {
        quorum.start_seat(i).await;
    }
    let active = quorum.active().await;
    let image = quorum
        .image(active, |image| image.brokers.contains_key(&last))
        .await;
    assert_eq!(image.brokers.len(), last.get() as usize);
    quorum.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_quorum_describes_itself() {
    let quorum = Quorum::start(3).await;
    let mut broker = FakeBroker::new(1).await;
    let (active, reply) = quorum
        .undisturbed(async || {
            let active = quorum.join(&mut broker).await;
            let mut client = quorum.client(active);
            (active, client.describe_quorum(DescribeQuorumRequest {}).await)
        })
        .await;
    let reply = reply.unwrap().into_inner();
    assert_eq!(reply.leader_id, quorum.seats[active].id.get());
    assert_eq!(reply.voters.len(), 3);
    assert!(reply.log_end_offset > 0);
    assert_eq!(reply.observers.len(), 1);
    assert_eq!(reply.observers[0].node_id, 1);
    quorum.stop().await;
}
