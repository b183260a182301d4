//! The session client against a controller whose every word the test says.

mod fake_controller;

use std::sync::Arc;
use std::time::Duration;

use broker::session::{
    self, ImageConsumer, ImageStore, Introduction, SessionHandle, SessionParts, SessionRefused,
    SessionStatus, SessionTimings,
};
use fake_controller::{FakeController, SOON, SessionPeer, broker};
use futures::future::BoxFuture;
use metadata::ClusterImage;
use parking_lot::Mutex;
use protocol::grpc::v1::controller_message::Message;
use protocol::grpc::v1::{
    BrokerState, CommittedEntries, CommittedEntry, InternalHello, KafkaError, NotActive, Registered,
};
use protocol::{BrokerEpoch, DirectoryId, ErrorCode, Offset, TopicPartition};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

/// What the replicas were told.
#[derive(Debug, PartialEq)]
enum Told {
    Apply {
        older: Option<Offset>,
        newer: Option<Offset>,
        epoch: BrokerEpoch,
    },
    Resign,
}

struct Recorder {
    told: Mutex<mpsc::UnboundedSender<Told>>,
    offline: watch::Sender<Vec<DirectoryId>>,
    failures: watch::Sender<u64>,
}

impl ImageConsumer for Recorder {
    fn apply_image<'a>(
        &'a self,
        older: &'a ClusterImage,
        newer: Arc<ClusterImage>,
        epoch: BrokerEpoch,
    ) -> BoxFuture<'a, ()> {
        let _ = self.told.lock().send(Told::Apply {
            older: older.offset,
            newer: newer.offset,
            epoch,
        });
        Box::pin(std::future::ready(()))
    }

    fn resign_all(&self) {
        let _ = self.told.lock().send(Told::Resign);
    }

    fn failed_replicas(&self) -> Vec<TopicPartition> {
        Vec::new()
    }

    fn offline_directories(&self) -> Vec<DirectoryId> {
        self.offline.borrow().clone()
    }

    fn failures(&self) -> watch::Receiver<u64> {
        self.failures.subscribe()
    }
}

struct Broker {
    session: SessionHandle,
    epoch: watch::Receiver<Option<BrokerEpoch>>,
    images: ImageStore,
    told: mpsc::UnboundedReceiver<Told>,
    recorder: Arc<Recorder>,
    _stop: DropGuard,
}

impl Broker {
    fn start(controllers: &[&FakeController]) -> Self {
        Self::with_timeout(controllers, Duration::from_secs(30))
    }

    fn with_timeout(controllers: &[&FakeController], timeout: Duration) -> Self {
        let (identity, locator) = broker(1, controllers);
        let images = ImageStore::new();
        let (sender, told) = mpsc::unbounded_channel();
        let stop = CancellationToken::new();
        let introduction = Introduction {
            listeners: Vec::new(),
            internal_address: String::from("127.0.0.1:1"),
            rack: None,
            log_dirs: Vec::new(),
            unusable_log_dirs: 1,
            may_have_lost_data: true,
            static_flush_messages: None,
            damaged: Vec::new(),
        };
        let timings = SessionTimings {
            heartbeat: Duration::from_millis(50),
            timeout,
        };
        let (broker_epoch, epoch) = watch::channel(None);
        let recorder = Arc::new(Recorder {
            told: Mutex::new(sender),
            offline: watch::Sender::default(),
            failures: watch::Sender::default(),
        });
        let consumer = Arc::clone(&recorder);
        let session = session::start(
            SessionParts {
                identity,
                introduction,
                timings,
                locator,
                images: images.clone(),
                consumer,
                broker_epoch,
            },
            stop.clone(),
        );
        Self {
            session,
            epoch,
            images,
            told,
            recorder,
            _stop: stop.drop_guard(),
        }
    }

    async fn told(&mut self) -> Told {
        timeout(SOON, self.told.recv())
            .await
            .expect("told in time")
            .expect("the recorder lives")
    }

    async fn status(&self, wanted: impl Fn(&SessionStatus) -> bool) {
        let mut status: watch::Receiver<SessionStatus> = self.session.status();
        timeout(SOON, status.wait_for(wanted))
            .await
            .expect("a status in time")
            .expect("the session lives");
    }
}

fn registered(epoch: i64, catch_up_to: i64) -> Message {
    Message::Registered(Registered {
        broker_epoch: epoch,
        catch_up_to,
        controller: Some(InternalHello {
            cluster_id: String::from("test"),
            ..InternalHello::default()
        }),
    })
}

fn entries(offsets: impl IntoIterator<Item = i64>) -> Message {
    let entry = |offset| CommittedEntry {
        offset,
        epoch: 1,
        entry: None,
    };
    Message::Entries(CommittedEntries {
        entries: offsets.into_iter().map(entry).collect(),
    })
}

fn state(fenced: bool, caught_up: bool) -> Message {
    Message::State(BrokerState {
        fenced,
        caught_up,
        may_shut_down: false,
        committed_offset: 0,
    })
}

async fn bring_up(session: &mut SessionPeer, epoch: i64, catch_up_to: i64) {
    session.send(1, registered(epoch, catch_up_to)).await;
    session.send(1, entries(0..=catch_up_to)).await;
    session
        .heartbeat(|heartbeat| heartbeat.applied_offset == catch_up_to)
        .await;
    session.send(1, state(false, true)).await;
}

#[tokio::test]
async fn a_broker_registers_catches_up_and_is_unfenced() {
    let mut controller = FakeController::start(101).await;
    controller.say_active(Some(controller.active_in(1)));
    let mut broker = Broker::start(&[&controller]);
    let mut session = controller.next_session().await;
    assert_eq!(session.register.metadata_offset, -1);
    assert!(session.register.may_have_lost_data);

    session.send(1, registered(7, 3)).await;
    let first = session.heartbeat(|_| true).await;
    assert_eq!((first.broker_epoch, first.applied_offset), (7, -1));
    // Nothing of an earlier run is shown: offsets 0 to 2 are from before the registration.
    session.send(1, entries(0..3)).await;
    session.send(1, entries(3..5)).await;
    session.heartbeat(|heartbeat| heartbeat.applied_offset == 4).await;
    assert_eq!(
        broker.told().await,
        Told::Apply {
            older: None,
            newer: Some(Offset(4)),
            epoch: BrokerEpoch(7)
        }
    );
    assert!(!broker.session.status().borrow().is_ready());
    session.send(1, state(false, true)).await;
    broker.status(|status| status.is_ready()).await;
    assert_eq!(*broker.epoch.borrow(), Some(BrokerEpoch(7)));
    assert_eq!(broker.images.current().offset, Some(Offset(4)));
}

#[tokio::test]
async fn a_failed_directory_is_told_at_once() {
    let mut controller = FakeController::start(101).await;
    controller.say_active(Some(controller.active_in(1)));
    let broker = Broker::start(&[&controller]);
    let mut session = controller.next_session().await;
    assert_eq!(session.register.unusable_log_dirs, 1);
    bring_up(&mut session, 7, 3).await;
    let directory = DirectoryId::random();
    broker.recorder.offline.send_replace(vec![directory]);
    broker.recorder.failures.send_modify(|count| *count += 1);
    let told = session
        .heartbeat(|heartbeat| !heartbeat.offline_log_dirs.is_empty())
        .await;
    assert_eq!(told.offline_log_dirs, [directory.to_vec()]);
}

#[tokio::test]
async fn a_session_goes_on_with_the_next_controller_and_keeps_its_image() {
    let mut old = FakeController::start(101).await;
    let mut new = FakeController::start(102).await;
    old.say_active(Some(old.active_in(1)));
    let mut broker = Broker::start(&[&old, &new]);
    let mut session = old.next_session().await;
    bring_up(&mut session, 7, 2).await;
    broker.status(|status| status.is_ready()).await;
    broker.told().await;

    old.say_active(Some(new.active_in(2)));
    let hint = NotActive {
        active_controller: Some(new.active_in(2)),
    };
    session.send(2, Message::NotActive(hint)).await;
    let mut session = new.next_session().await;
    assert_eq!(session.register.metadata_offset, 2);
    assert!(!session.register.may_have_lost_data, "told once is told");
    session.send(2, registered(7, 2)).await;
    session.heartbeat(|heartbeat| heartbeat.applied_offset == 2).await;
    session.send(2, entries(1..4)).await;
    session.heartbeat(|heartbeat| heartbeat.applied_offset == 3).await;
    broker
        .images
        .wait_for_offset(Offset(3), tokio::time::Instant::now() + SOON)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_fenced_broker_resigns_and_registers_anew() {
    let mut controller = FakeController::start(101).await;
    controller.say_active(Some(controller.active_in(1)));
    let mut broker = Broker::start(&[&controller]);
    let mut session = controller.next_session().await;
    bring_up(&mut session, 7, 0).await;
    broker.status(|status| status.is_ready()).await;
    broker.told().await;

    session.send(1, state(true, true)).await;
    assert_eq!(broker.told().await, Told::Resign);
    session.left().await;
    let mut session = controller.next_session().await;
    assert_eq!(session.register.metadata_offset, 0);
    session.send(1, registered(9, 1)).await;
    session.send(1, entries([1])).await;
    // Every partition is looked at again: the older image is the empty one.
    assert_eq!(
        broker.told().await,
        Told::Apply {
            older: None,
            newer: Some(Offset(1)),
            epoch: BrokerEpoch(9)
        }
    );
    session.heartbeat(|heartbeat| heartbeat.applied_offset == 1).await;
    session.send(1, state(false, true)).await;
    broker.status(|status| status.is_ready()).await;
}

#[tokio::test]
async fn a_broker_without_contact_resigns_by_itself() {
    let mut controller = FakeController::start(101).await;
    controller.say_active(Some(controller.active_in(1)));
    // Long enough that it is not over before the broker is up, however busy the machine is.
    let mut broker = Broker::with_timeout(&[&controller], Duration::from_secs(2));
    let mut session = controller.next_session().await;
    bring_up(&mut session, 7, 0).await;
    broker.status(|status| status.is_ready()).await;
    broker.told().await;
    controller.say_active(None);
    drop(session);
    assert_eq!(broker.told().await, Told::Resign);
    assert!(!broker.session.status().borrow().is_ready());

    // A controller that never fenced it confirms the registration: every partition is looked at again.
    controller.say_active(Some(controller.active_in(2)));
    let mut session = controller.next_session().await;
    session.send(2, registered(7, 0)).await;
    assert_eq!(
        broker.told().await,
        Told::Apply {
            older: None,
            newer: Some(Offset(0)),
            epoch: BrokerEpoch(7)
        }
    );
    session.heartbeat(|heartbeat| heartbeat.applied_offset == 0).await;
    session.send(2, state(false, true)).await;
    broker.status(|status| status.is_ready()).await;
}

#[tokio::test]
async fn leaving_waits_for_the_controllers_word() {
    let mut controller = FakeController::start(101).await;
    controller.say_active(Some(controller.active_in(1)));
    let broker = Broker::start(&[&controller]);
    let mut session = controller.next_session().await;
    bring_up(&mut session, 7, 0).await;
    broker.status(|status| status.is_ready()).await;
    let (left, ()) = tokio::join!(broker.session.leave(SOON), async {
        session.heartbeat(|heartbeat| heartbeat.want_shutdown).await;
        let state = BrokerState {
            fenced: true,
            caught_up: true,
            may_shut_down: true,
            committed_offset: 0,
        };
        session.send(1, Message::State(state)).await;
    });
    assert!(left);
}

fn refused(code: ErrorCode, message: &str) -> Message {
    Message::Refused(KafkaError {
        code: i32::from(code.code()),
        message: message.to_owned(),
    })
}

#[tokio::test]
async fn a_refused_broker_stops_with_the_reason() {
    let mut controller = FakeController::start(101).await;
    controller.say_active(Some(controller.active_in(1)));
    let mut broker = Broker::start(&[&controller]);
    let session = controller.next_session().await;
    session
        .send(1, refused(ErrorCode::InconsistentClusterId, "another cluster"))
        .await;
    let ended = timeout(SOON, broker.session.ended()).await.expect("in time");
    assert_eq!(
        ended,
        Err(SessionRefused::ByController(String::from("another cluster")))
    );
}

#[tokio::test]
async fn a_taken_id_is_waited_for_and_then_given_up() {
    let mut controller = FakeController::start(101).await;
    controller.say_active(Some(controller.active_in(1)));
    let mut broker = Broker::with_timeout(&[&controller], Duration::from_millis(300));
    let taken = refused(ErrorCode::DuplicateBrokerRegistration, "node id 1 is taken");
    let mut sessions = 0;
    let ended = timeout(SOON, async {
        loop {
            tokio::select! {
                ended = broker.session.ended() => return ended,
                session = controller.next_session() => {
                    sessions += 1;
                    session.send(1, taken.clone()).await;
                }
            }
        }
    })
    .await
    .expect("in time");
    assert!(sessions > 1, "tried again at first");
    assert_eq!(
        ended,
        Err(SessionRefused::ByController(String::from("node id 1 is taken")))
    );
}

#[tokio::test]
async fn another_clusters_quorum_is_refused() {
    let mut controller = FakeController::start(101).await;
    controller.say_active(Some(controller.active_in(1)));
    let mut broker = Broker::start(&[&controller]);
    let session = controller.next_session().await;
    session
        .send(
            1,
            Message::Registered(Registered {
                broker_epoch: 1,
                catch_up_to: 0,
                controller: Some(InternalHello {
                    cluster_id: String::from("foreign"),
                    ..InternalHello::default()
                }),
            }),
        )
        .await;
    let ended = timeout(SOON, broker.session.ended()).await.expect("in time");
    assert!(
        matches!(ended, Err(SessionRefused::OtherCluster { .. })),
        "{ended:?}"
    );
}
