//! Keeps a session open with whoever is the active controller.

use std::sync::Arc;
use std::time::Duration;

use protocol::grpc::v1::broker_message::Message as FromBroker;
use protocol::grpc::v1::broker_session_client::BrokerSessionClient;
use protocol::grpc::v1::{
    BrokerMessage, BrokerState, ControllerMessage, DamagedPartition, Heartbeat, Register,
};
use protocol::{BrokerEpoch, Offset, TopicPartition};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Streaming};
use tracing::{info, warn};

use super::applier::{ReadyImage, apply_images};
use super::conversation::{Conversation, Memory, SessionEnd, SessionRefused, Step};
use super::lease::watch_lease;
use super::standing::Standing;
use super::{ImageConsumer, ImageStore, Introduction, SessionStatus, SessionTimings};
use crate::controller_client::{ActiveController, ControllerLocator, LocateError};
use crate::identity::NodeIdentity;

/// The largest message from a controller: a snapshot's entries stay well below.
const MAX_MESSAGE_BYTES: usize = 16 << 20;
/// Messages to the controller that may wait; a controller that reads none of them is not heard of
/// either, and the session ends for its silence.
const OUTBOUND: usize = 16;
/// The first pause between two attempts; it doubles up to [`RETRY_PAUSE_MAX`].
const RETRY_PAUSE: Duration = Duration::from_millis(20);
const RETRY_PAUSE_MAX: Duration = Duration::from_millis(100);
/// How often a person is told that the quorum cannot be reached.
const COMPLAIN_EVERY: Duration = Duration::from_secs(5);
/// How long a broker that wants to leave looks for a controller.
const LEAVE_WITHOUT_SESSION: Duration = Duration::from_secs(1);

/// The session of a running broker.
#[derive(Debug)]
pub struct SessionHandle {
    status: watch::Receiver<SessionStatus>,
    want_shutdown: watch::Sender<bool>,
    client: JoinHandle<Result<(), SessionRefused>>,
}

impl SessionHandle {
    /// How the broker stands, now and later.
    pub fn status(&self) -> watch::Receiver<SessionStatus> {
        self.status.clone()
    }

    /// Tells the controller that this broker wants to leave, and waits until every leadership has moved
    /// away or `bound` is over. Says whether they have. Without a session there is nobody to move them:
    /// it waits only as long as one may take to be found.
    pub async fn leave(&self, bound: Duration) -> bool {
        self.want_shutdown.send_replace(true);
        let mut status = self.status.clone();
        let moved = async {
            loop {
                let SessionStatus {
                    registered,
                    may_shut_down,
                    ..
                } = *status.borrow_and_update();
                if may_shut_down {
                    return true;
                }
                let patience = if registered { bound } else { LEAVE_WITHOUT_SESSION };
                match timeout(patience, status.changed()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) | Err(_) => return false,
                }
            }
        };
        timeout(bound, moved).await.unwrap_or(false)
    }

    /// Waits for the session's end: `Ok` after it was told to stop, else why this broker must stop.
    pub async fn ended(&mut self) -> Result<(), SessionRefused> {
        match (&mut self.client).await {
            Ok(result) => result,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Ok(()),
        }
    }
}

/// What a session is opened with.
pub struct SessionParts {
    /// Who this node is.
    pub identity: Arc<NodeIdentity>,
    /// What the controller is told of it.
    pub introduction: Introduction,
    /// How the session is kept.
    pub timings: SessionTimings,
    /// Where the controllers are.
    pub locator: ControllerLocator,
    /// Where images are published once they are applied.
    pub images: ImageStore,
    /// Who applies them.
    pub consumer: Arc<dyn ImageConsumer>,
    /// Where the epoch of each registration is published.
    pub broker_epoch: watch::Sender<Option<BrokerEpoch>>,
}

impl std::fmt::Debug for SessionParts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionParts")
            .field("introduction", &self.introduction)
            .field("timings", &self.timings)
            .finish_non_exhaustive()
    }
}

/// Opens the session and keeps it open until `stop`, or until the broker is refused for good.
pub fn start(parts: SessionParts, stop: CancellationToken) -> SessionHandle {
    let SessionParts {
        identity,
        introduction,
        timings,
        locator,
        images,
        consumer,
        broker_epoch,
    } = parts;
    let standing = Arc::new(Standing::new(consumer));
    let want_shutdown = watch::Sender::new(false);
    let status = standing.status.subscribe();
    tokio::spawn(apply_images(Arc::clone(&standing), images.clone(), stop.clone()));
    tokio::spawn(watch_lease(Arc::clone(&standing), timings.timeout, stop.clone()));
    let client = Client {
        identity,
        introduction,
        timings,
        locator,
        images,
        standing,
        broker_epoch,
        want_shutdown: want_shutdown.subscribe(),
        memory: Memory::default(),
        stop,
    };
    SessionHandle {
        status,
        want_shutdown,
        client: tokio::spawn(client.run()),
    }
}

struct Client {
    identity: Arc<NodeIdentity>,
    introduction: Introduction,
    timings: SessionTimings,
    locator: ControllerLocator,
    images: ImageStore,
    standing: Arc<Standing>,
    broker_epoch: watch::Sender<Option<BrokerEpoch>>,
    want_shutdown: watch::Receiver<bool>,
    memory: Memory,
    stop: CancellationToken,
}

/// How an attempt at a session ended.
enum Attempt {
    Stopped,
    /// `after_registration`: the controller was reached; the next attempt need not wait long.
    Ended {
        end: SessionEnd,
        after_registration: bool,
    },
    NotFound(LocateError),
}

impl Client {
    async fn run(mut self) -> Result<(), SessionRefused> {
        let mut pause = RETRY_PAUSE;
        let mut complain_at = Instant::now() + COMPLAIN_EVERY;
        let mut taken_since = None;
        loop {
            let stop = self.stop.clone();
            let attempt = tokio::select! {
                () = stop.cancelled() => Attempt::Stopped,
                attempt = self.attempt() => attempt,
            };
            self.standing
                .status
                .send_modify(|status| status.registered = false);
            let why = match attempt {
                Attempt::Stopped => return Ok(()),
                Attempt::NotFound(LocateError::Refused { voter, reason }) => {
                    return Err(SessionRefused::ByController(format!("{voter}: {reason}")));
                }
                Attempt::NotFound(error @ LocateError::NoneActive { .. }) => error.to_string(),
                Attempt::Ended {
                    end,
                    after_registration,
                } => {
                    if after_registration {
                        taken_since = None;
                        pause = RETRY_PAUSE;
                        complain_at = Instant::now() + COMPLAIN_EVERY;
                    }
                    match end {
                        SessionEnd::Refused(refused) => return Err(refused),
                        SessionEnd::Fenced => {
                            warn!("the controller fenced this broker: it resigns and registers anew");
                            self.standing.resign();
                            String::from("fenced")
                        }
                        SessionEnd::NotActive(_) => String::from("the controller is not the active one"),
                        SessionEnd::OlderController { found, highest } => {
                            format!("a controller of epoch {found} is older than epoch {highest}")
                        }
                        SessionEnd::Broken(why) => why,
                        SessionEnd::Taken(why) => {
                            // This broker's own last run is given up within the session timeout; who
                            // still holds the id after twice that is somebody else.
                            let since = *taken_since.get_or_insert_with(Instant::now);
                            if since.elapsed() > self.timings.timeout * 2 {
                                return Err(SessionRefused::ByController(why));
                            }
                            why
                        }
                    }
                }
            };
            if Instant::now() >= complain_at {
                complain_at = Instant::now() + COMPLAIN_EVERY;
                warn!(reason = %why, "no session with the controllers; trying on");
            }
            tokio::select! {
                () = self.stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(RETRY_PAUSE_MAX);
        }
    }

    /// Finds the active controller and holds one session with it.
    async fn attempt(&mut self) -> Attempt {
        let active = match self.locator.find().await {
            Ok(active) => active,
            Err(error) => return Attempt::NotFound(error),
        };
        let (outbound, inbound) = match self.open(&active).await {
            Ok(stream) => stream,
            Err(end) => {
                self.locator.forget(&active);
                return Attempt::Ended {
                    end,
                    after_registration: false,
                };
            }
        };
        let (end, after_registration) = self.converse(&active, outbound, inbound).await;
        if !matches!(end, SessionEnd::Fenced) {
            self.locator.forget(&active);
        }
        if let SessionEnd::NotActive(Some(hint)) = &end {
            self.locator.learn(hint);
        }
        Attempt::Ended {
            end,
            after_registration,
        }
    }

    async fn open(
        &self,
        active: &ActiveController,
    ) -> Result<(mpsc::Sender<BrokerMessage>, Streaming<ControllerMessage>), SessionEnd> {
        let channel = self
            .locator
            .channel(&active.address)
            .map_err(|error| SessionEnd::Broken(format!("{}: {error}", active.address)))?;
        let (outbound, messages) = mpsc::channel(OUTBOUND);
        let register = BrokerMessage {
            message: Some(FromBroker::Register(self.register(active))),
        };
        outbound.try_send(register).expect("an empty channel has room");
        let mut rpc = BrokerSessionClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
        match timeout(self.timings.timeout, rpc.session(ReceiverStream::new(messages))).await {
            Ok(Ok(response)) => Ok((outbound, response.into_inner())),
            Ok(Err(status)) => Err(end_of(&status)),
            Err(_) => Err(SessionEnd::Broken(format!(
                "controller {} did not open a session in time",
                active.id
            ))),
        }
    }

    fn register(&self, active: &ActiveController) -> Register {
        let introduction = &self.introduction;
        Register {
            hello: Some(self.identity.hello(Some(active.id))),
            listeners: introduction.listeners.clone(),
            internal_address: introduction.internal_address.clone(),
            rack: introduction.rack.clone().unwrap_or_default(),
            log_dirs: introduction
                .log_dirs
                .iter()
                .map(|dir| dir.to_vec().into())
                .collect(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            metadata_offset: self.memory.image.offset.map_or(-1, Offset::get),
            metadata_epoch: self
                .memory
                .image
                .offset
                .map_or(-1, |_| self.memory.image.epoch.get()),
            highest_controller_epoch: self.memory.highest_epoch.get(),
            may_have_lost_data: introduction.may_have_lost_data,
            damaged: introduction.damaged.iter().map(to_wire).collect(),
            unusable_log_dirs: u32::try_from(introduction.unusable_log_dirs).unwrap_or(u32::MAX),
            static_flush_messages: introduction.static_flush_messages.unwrap_or(0),
        }
    }

    /// One session: messages in, heartbeats out, until it ends. Says whether registration was reached.
    async fn converse(
        &mut self,
        active: &ActiveController,
        outbound: mpsc::Sender<BrokerMessage>,
        mut inbound: Streaming<ControllerMessage>,
    ) -> (SessionEnd, bool) {
        let mut conversation = Conversation::new(&mut self.memory);
        let mut applied = self.images.subscribe();
        let mut failures = self.standing.consumer.failures();
        let mut resignations = self.standing.resignations.subscribe();
        let mut heartbeat = interval(self.timings.heartbeat);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Every heartbeat is answered, so silence means that the controller, or the way to it, is gone.
        let silence = (self.timings.timeout / 2).max(self.timings.heartbeat * 2);
        let mut heard = Instant::now();
        loop {
            let heartbeat_due = tokio::select! {
                _ = resignations.changed() => {
                    let end = SessionEnd::Broken(String::from("the lease has expired"));
                    return (end, conversation.epoch().is_some());
                }
                () = sleep_until(heard + silence) => {
                    let end = SessionEnd::Broken(format!("controller {} fell silent", active.id));
                    return (end, conversation.epoch().is_some());
                }
                message = inbound.message() => {
                    heard = Instant::now();
                    let step = match message {
                        Ok(Some(message)) => conversation.on_message(message),
                        Ok(None) => Err(SessionEnd::Broken(format!(
                            "controller {} closed the session", active.id
                        ))),
                        Err(status) => Err(end_of(&status)),
                    };
                    match step {
                        Err(end) => return (end, conversation.epoch().is_some()),
                        Ok(Step::Nothing) => false,
                        Ok(Step::Registered { epoch, cluster_id }) => {
                            if let Some(quorum) = cluster_id
                                && !self.identity.join_cluster(quorum.clone())
                                && let Some(own) = self.identity.cluster_id()
                            {
                                let refused = SessionRefused::OtherCluster { quorum, own: own.clone() };
                                return (SessionEnd::Refused(refused), false);
                            }
                            info!(controller = %active.id, broker_epoch = %epoch, "registered");
                            // Told once is told: the registration that carried it is committed.
                            self.introduction.may_have_lost_data = false;
                            self.introduction.damaged.clear();
                            self.broker_epoch.send_replace(Some(epoch));
                            self.standing.status.send_modify(|status| status.registered = true);
                            offer_image(&self.standing, &conversation);
                            true
                        }
                        Ok(Step::Image) => {
                            offer_image(&self.standing, &conversation);
                            false
                        }
                        Ok(Step::State(state)) => {
                            note_state(&self.standing, &state);
                            false
                        }
                    }
                }
                changed = applied.changed() => changed.is_ok(),
                changed = self.want_shutdown.changed() => changed.is_ok(),
                Ok(()) = failures.changed() => true,
                _ = heartbeat.tick() => true,
            };
            if heartbeat_due && let Some(epoch) = conversation.epoch() {
                heartbeat.reset();
                let applied_offset = applied.borrow_and_update().offset.map_or(-1, Offset::get);
                let message = BrokerMessage {
                    message: Some(FromBroker::Heartbeat(Heartbeat {
                        broker_epoch: epoch.get(),
                        applied_offset,
                        want_shutdown: *self.want_shutdown.borrow_and_update(),
                        offline_log_dirs: self
                            .standing
                            .consumer
                            .offline_directories()
                            .iter()
                            .map(|dir| dir.to_vec().into())
                            .collect(),
                        failed: self
                            .standing
                            .consumer
                            .failed_replicas()
                            .iter()
                            .map(to_wire)
                            .collect(),
                    })),
                };
                // Full: the controller does not read. Its silence ends the session.
                let _ = outbound.try_send(message);
            }
        }
    }
}

/// Hands the image on where it already contains this session's registration.
fn offer_image(standing: &Standing, conversation: &Conversation<'_>) {
    if let Some((epoch, image)) = conversation.ready_image() {
        standing.ready.send_replace(Some(ReadyImage {
            image: Arc::new(image.clone()),
            epoch,
        }));
    }
}

fn note_state(standing: &Standing, state: &BrokerState) {
    standing.status.send_modify(|status| {
        status.caught_up = state.caught_up;
        status.unfenced = !state.fenced;
        status.may_shut_down = state.may_shut_down;
    });
    if !state.fenced {
        standing.contact.send_replace(Some(Instant::now()));
    }
}

fn end_of(status: &tonic::Status) -> SessionEnd {
    if status.code() == Code::FailedPrecondition {
        SessionEnd::Refused(SessionRefused::ByController(status.message().to_owned()))
    } else {
        SessionEnd::Broken(status.to_string())
    }
}

fn to_wire(partition: &TopicPartition) -> DamagedPartition {
    DamagedPartition {
        topic_id: partition.topic_id.to_vec().into(),
        partition: partition.partition.get(),
    }
}
