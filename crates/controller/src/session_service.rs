//! The stream of one broker's session: registration and heartbeats in, the committed metadata log and
//! the broker's standing out.

use std::sync::Arc;
use std::time::Duration;

use metadata::{ClusterImage, snapshot_entries};
use protocol::grpc::v1::broker_message::Message as FromBroker;
use protocol::grpc::v1::broker_session_server::BrokerSession;
use protocol::grpc::v1::controller_message::Message as ToBroker;
use protocol::grpc::v1::{
    BrokerMessage, CommittedEntries, ControllerMessage, KafkaError, NotActive, Register, Registered,
    SnapshotChunk,
};
use protocol::{BrokerId, ErrorCode, LeaderEpoch, Offset};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::decisions::SessionId;
use crate::event_loop::{
    ActiveController, ActiveView, Event, OpenSession, OpenedSession, SessionEnd, SessionEvent,
    SessionRefusal, Signal,
};
use crate::identity::NodeIdentity;
use crate::raft::CommittedLog;

/// Messages that are ahead of the network.
const OUTBOUND: usize = 16;
/// How long a broker that opened a stream may take to introduce itself.
const INTRODUCTION: Duration = Duration::from_secs(5);

/// Serves `ottla.v1.BrokerSession`.
#[derive(Clone)]
pub(crate) struct SessionService {
    identity: Arc<NodeIdentity>,
    events: mpsc::Sender<Event>,
    active: watch::Receiver<ActiveView>,
    images: watch::Receiver<Arc<ClusterImage>>,
    log: CommittedLog,
}

/// The stream's receiver has gone, or the log cannot be read.
struct Gone;

type Outbound = mpsc::Sender<Result<ControllerMessage, Status>>;

impl SessionService {
    pub(crate) fn new(
        identity: Arc<NodeIdentity>,
        events: mpsc::Sender<Event>,
        active: watch::Receiver<ActiveView>,
        images: watch::Receiver<Arc<ClusterImage>>,
        log: CommittedLog,
    ) -> Self {
        Self {
            identity,
            events,
            active,
            images,
            log,
        }
    }

    /// One session, from its first message to its end.
    async fn converse(self, mut inbound: Streaming<BrokerMessage>, outbound: Outbound) {
        let register = match self.introduction(&mut inbound).await {
            Ok(register) => register,
            Err(status) => {
                let _ = outbound.send(Err(status)).await;
                return;
            }
        };
        let next = Offset(register.metadata_offset).next();
        if let Some(refusal) = self.diverges(&register).await {
            let _ = outbound.send(Ok(self.refusal(refusal))).await;
            return;
        }
        let opened = match self.open(register).await {
            Ok(opened) => opened,
            Err(refusal) => {
                let _ = outbound.send(Ok(self.refusal(refusal))).await;
                return;
            }
        };
        let (broker, session) = (opened.broker, opened.session);
        tokio::select! {
            () = listen(&self.events, &mut inbound, broker, session) => {}
            _ = self.tell(opened, next, &outbound) => {}
        }
        let disconnected = Event::Session(broker, session, SessionEvent::Disconnected);
        // Without a loop there is nobody left to care.
        let _ = self.events.send(disconnected).await;
    }

    async fn introduction(&self, inbound: &mut Streaming<BrokerMessage>) -> Result<Register, Status> {
        let first = timeout(INTRODUCTION, inbound.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no registration came"))??;
        let Some(FromBroker::Register(register)) = first.and_then(|first| first.message) else {
            return Err(Status::invalid_argument("a session begins with a registration"));
        };
        self.identity.check_other(register.hello.as_ref())?;
        Ok(register)
    }

    /// A broker whose last entry is another one than the quorum committed there has followed another
    /// quorum, or this one has lost entries. Where the log begins later nothing can be compared, and the
    /// snapshot that the broker gets replaces what it has.
    async fn diverges(&self, register: &Register) -> Option<SessionRefusal> {
        let offset = Offset(register.metadata_offset);
        let applied = self.images.borrow().offset;
        if !self.active.borrow().is_self || Some(offset) > applied {
            return None;
        }
        match self.log.epoch_at(offset).await {
            Ok(Some(epoch)) if epoch.get() != register.metadata_epoch => {
                Some(SessionRefusal::Refused(KafkaError {
                    code: ErrorCode::UnknownServerError.code().into(),
                    message: format!(
                        "the broker has applied metadata offset {offset} of controller epoch {}, the quorum has \
                         committed one of epoch {epoch} there: the quorum has lost entries, or is another one",
                        register.metadata_epoch
                    ),
                }))
            }
            Ok(_) => None,
            Err(error) => {
                tracing::error!(%error, %offset, "the metadata log cannot be read");
                Some(SessionRefusal::NotActive)
            }
        }
    }

    async fn open(&self, register: Register) -> Result<OpenedSession, SessionRefusal> {
        let (reply, opened) = oneshot::channel();
        let open = Event::Open(OpenSession {
            register: Box::new(register),
            reply,
        });
        if self.events.send(open).await.is_err() {
            return Err(SessionRefusal::NotActive);
        }
        opened.await.unwrap_or(Err(SessionRefusal::NotActive))
    }

    fn refusal(&self, refusal: SessionRefusal) -> ControllerMessage {
        let view = self.active.borrow();
        let message = match refusal {
            SessionRefusal::NotActive => ToBroker::NotActive(NotActive {
                active_controller: view
                    .active
                    .as_ref()
                    .filter(|active| active.node_id != self.identity.node_id)
                    .map(ActiveController::to_wire),
            }),
            SessionRefusal::Refused(error) => {
                tracing::warn!(reason = %error.message, "a broker is refused");
                ToBroker::Refused(error)
            }
        };
        message_of(view.epoch, message)
    }

    /// Tells the broker what there is to tell, until the session ends.
    async fn tell(&self, opened: OpenedSession, next: Offset, outbound: &Outbound) -> Result<(), Gone> {
        let epoch = opened.controller_epoch;
        let mut teller = Teller {
            log: &self.log,
            images: self.images.clone(),
            epoch,
            next,
            outbound,
        };
        teller
            .say(ToBroker::Registered(Registered {
                broker_epoch: opened.broker_epoch.get(),
                catch_up_to: opened.catch_up_to.get(),
                controller: Some(self.identity.hello(Some(opened.broker))),
            }))
            .await?;
        let mut signal = opened.signal;
        signal.mark_changed();
        teller.images.mark_changed();
        loop {
            tokio::select! {
                biased;
                changed = signal.changed() => {
                    let Signal { state, end, .. } = signal.borrow_and_update().clone();
                    if let (Err(_), None) = (changed, &end) {
                        // The loop is gone without a word.
                        return Ok(());
                    }
                    match end {
                        None => teller.say(ToBroker::State(state)).await?,
                        Some(SessionEnd::Fenced) => {
                            teller.say(ToBroker::State(state)).await?;
                            return Ok(());
                        }
                        Some(SessionEnd::Replaced) => return Ok(()),
                        Some(SessionEnd::NotActive(active_controller)) => {
                            return teller.say(ToBroker::NotActive(NotActive { active_controller })).await;
                        }
                    }
                }
                changed = teller.images.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    teller.follow().await?;
                }
            }
        }
    }
}

/// Turns heartbeats into events until the broker's half of the stream ends.
async fn listen(
    events: &mpsc::Sender<Event>,
    inbound: &mut Streaming<BrokerMessage>,
    broker: BrokerId,
    session: SessionId,
) {
    loop {
        match inbound.message().await {
            Ok(Some(BrokerMessage {
                message: Some(FromBroker::Heartbeat(heartbeat)),
            })) => {
                let event = Event::Session(broker, session, SessionEvent::Heartbeat(heartbeat));
                if events.send(event).await.is_err() {
                    return;
                }
            }
            Ok(Some(_)) => {
                tracing::warn!(%broker, "a broker registers twice in one session; the session ends");
                return;
            }
            Ok(None) => return,
            Err(status) => {
                tracing::debug!(%broker, %status, "a session's stream broke");
                return;
            }
        }
    }
}

/// The speaking half of a session.
struct Teller<'a> {
    log: &'a CommittedLog,
    images: watch::Receiver<Arc<ClusterImage>>,
    epoch: LeaderEpoch,
    /// The offset that the broker needs next.
    next: Offset,
    outbound: &'a Outbound,
}

impl Teller<'_> {
    async fn say(&self, message: ToBroker) -> Result<(), Gone> {
        let message = message_of(self.epoch, message);
        self.outbound.send(Ok(message)).await.map_err(|_| Gone)
    }

    /// Sends what is committed and the broker has not seen: entries, or a snapshot where they are gone.
    async fn follow(&mut self) -> Result<(), Gone> {
        loop {
            let image = self.images.borrow_and_update().clone();
            let Some(applied) = image.offset.filter(|&applied| applied >= self.next) else {
                return Ok(());
            };
            match self.log.read(self.next, applied).await {
                Ok(Some(entries)) => {
                    let Some(last) = entries.last() else {
                        return Ok(());
                    };
                    self.next = Offset(last.offset).next();
                    self.say(ToBroker::Entries(CommittedEntries { entries })).await?;
                }
                Ok(None) => {
                    self.snapshot(&image).await?;
                    self.next = applied.next();
                }
                Err(error) => {
                    tracing::error!(%error, from = %self.next, "the metadata log cannot be read");
                    let status = Status::unavailable("the metadata log cannot be read");
                    let _ = self.outbound.send(Err(status)).await;
                    return Err(Gone);
                }
            }
        }
    }

    async fn snapshot(&self, image: &ClusterImage) -> Result<(), Gone> {
        let (header, entries) = snapshot_entries(image);
        let mut entries = entries.peekable();
        let mut header = Some(header);
        loop {
            let entry = entries.next();
            let last = entries.peek().is_none();
            let chunk = SnapshotChunk {
                header: header.take(),
                entry,
                last,
            };
            self.say(ToBroker::Snapshot(chunk)).await?;
            if last {
                return Ok(());
            }
        }
    }
}

fn message_of(epoch: LeaderEpoch, message: ToBroker) -> ControllerMessage {
    ControllerMessage {
        controller_epoch: epoch.get(),
        message: Some(message),
    }
}

#[tonic::async_trait]
impl BrokerSession for SessionService {
    type SessionStream = ReceiverStream<Result<ControllerMessage, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<BrokerMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (outbound, stream) = mpsc::channel(OUTBOUND);
        // Ends with the stream, or when the loop ends the session.
        tokio::spawn(self.clone().converse(request.into_inner(), outbound));
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}
