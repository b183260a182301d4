//! Controllers on loopback in one process, and a broker that is only a session.

#![allow(dead_code, reason = "each test binary uses its own part of this")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use controller::{ActiveView, Controller, ControllerConfig, ControllerHandle, RaftSettings};
use metadata::configs::NodeDefaults;
use metadata::{ClusterImage, SnapshotReader};
use protocol::grpc::v1::broker_message::Message as FromBroker;
use protocol::grpc::v1::broker_session_client::BrokerSessionClient;
use protocol::grpc::v1::controller_client::ControllerClient;
use protocol::grpc::v1::controller_message::Message as ToBroker;
use protocol::grpc::v1::node_server::{Node, NodeServer};
use protocol::grpc::v1::{
    BrokerMessage, BrokerState, ControllerMessage, Heartbeat, InternalHello, Listener, ProbeReply,
    ProbeRequest, Register,
};
use protocol::{
    BrokerEpoch, BrokerId, ClusterId, DirectoryId, INTERNAL_PROTOCOL_VERSION, IncarnationId, LeaderEpoch,
    Offset,
};
use storage::meta_properties;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};

/// A condition that has not come true by then never will.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Nobody is taken for silent while a test runs, however busy the machine is.
pub(crate) const SESSION_TIMEOUT: Duration = Duration::from_secs(60);
const ASK_AGAIN: Duration = Duration::from_millis(10);

pub(crate) fn cluster_id() -> ClusterId {
    ClusterId::new("test-cluster").unwrap()
}

/// Elections so short that a test may wait for some. A busy machine may bring about one that nobody wanted.
pub(crate) fn raft_settings() -> RaftSettings {
    RaftSettings {
        heartbeat: Duration::from_millis(60),
        election_min: Duration::from_millis(500),
        election_max: Duration::from_secs(1),
        ..RaftSettings::default()
    }
}

/// One controller's place: its directory and address outlive its process.
pub(crate) struct Seat {
    pub(crate) id: BrokerId,
    pub(crate) dir: TempDir,
    pub(crate) address: SocketAddr,
    listener: Option<TcpListener>,
    running: Option<Running>,
}

struct Running {
    handle: ControllerHandle,
    stop: CancellationToken,
    server: JoinHandle<()>,
}

/// Some controllers.
pub(crate) struct Quorum {
    pub(crate) seats: Vec<Seat>,
    raft: RaftSettings,
    session_timeout: Duration,
}

impl Quorum {
    /// Formats and starts `count` controllers, 101 and up.
    pub(crate) async fn start(count: usize) -> Self {
        Self::start_with(count, raft_settings(), SESSION_TIMEOUT).await
    }

    pub(crate) async fn start_with(count: usize, raft: RaftSettings, session_timeout: Duration) -> Self {
        let mut seats = Vec::new();
        for i in 0..count {
            let id = BrokerId(101 + i as i32);
            let dir = tempfile::tempdir().unwrap();
            meta_properties::format(dir.path(), Some(&cluster_id()), id, DirectoryId::random()).unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            seats.push(Seat {
                id,
                dir,
                address,
                listener: Some(listener),
                running: None,
            });
        }
        let mut quorum = Self {
            seats,
            raft,
            session_timeout,
        };
        for i in 0..count {
            quorum.start_seat(i).await;
        }
        quorum
    }

    fn voters(&self) -> Vec<(BrokerId, String)> {
        self.seats
            .iter()
            .map(|seat| (seat.id, seat.address.to_string()))
            .collect()
    }

    /// Starts, or starts again, one controller.
    pub(crate) async fn start_seat(&mut self, i: usize) {
        let voters = self.voters();
        let (raft, session_timeout) = (self.raft.clone(), self.session_timeout);
        let seat = &mut self.seats[i];
        let listener = match seat.listener.take() {
            Some(listener) => listener,
            None => TcpListener::bind(seat.address).await.unwrap(),
        };
        let stop = CancellationToken::new();
        let config = ControllerConfig {
            node_id: seat.id,
            cluster_id: Some(cluster_id()),
            incarnation: IncarnationId::random(),
            log_dir: seat.dir.path().to_owned(),
            voters,
            session_timeout,
            rebalance_interval: None,
            defaults: NodeDefaults::default(),
            raft,
        };
        let handle = Controller::start(config, stop.clone()).await.unwrap();
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let router = Server::builder().add_routes(handle.routes());
        let server = tokio::spawn({
            let stop = stop.clone();
            async move {
                router
                    .serve_with_incoming_shutdown(incoming, stop.cancelled())
                    .await
                    .unwrap();
            }
        });
        seat.running = Some(Running { handle, stop, server });
    }

    /// Ends one controller: its port refuses, its connections break.
    pub(crate) async fn stop_seat(&mut self, i: usize) {
        if let Some(running) = self.seats[i].running.take() {
            running.stop.cancel();
            running.server.abort();
            let _ = running.server.await;
            running.handle.stopped().await;
        }
    }

    pub(crate) fn handle(&self, i: usize) -> &ControllerHandle {
        &self.seats[i].running.as_ref().expect("running").handle
    }

    fn running(&self) -> impl Iterator<Item = (usize, &Running)> {
        let seats = self.seats.iter().enumerate();
        seats.filter_map(|(i, seat)| Some((i, seat.running.as_ref()?)))
    }

    /// Waits until one of the controllers is active, and says which.
    pub(crate) async fn active(&self) -> usize {
        let deadline = Instant::now() + PATIENCE;
        loop {
            for (i, running) in self.running() {
                if running.handle.active().borrow().is_self {
                    return i;
                }
            }
            let mut views: Vec<_> = self
                .running()
                .map(|(_, running)| running.handle.active())
                .collect();
            let changes = views.iter_mut().map(|view| Box::pin(view.changed()));
            let (changed, ..) = timeout_at(deadline, futures::future::select_all(changes))
                .await
                .expect("a controller becomes active");
            changed.expect("the controllers run");
        }
    }

    /// Lets the broker register with whoever is active and waits until it is unfenced; says who is active. It asks
    /// again where there is an election meanwhile, or another process with its id that has only just died.
    pub(crate) async fn join(&self, broker: &mut FakeBroker) -> usize {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let active = self.active().await;
            let joined = timeout_at(deadline, broker.try_join(self.seats[active].address)).await;
            match joined.expect("the broker is unfenced in time") {
                Ok(()) => return active,
                Err(why) => assert!(Instant::now() < deadline, "it may not join: {why}"),
            }
            sleep(ASK_AGAIN).await;
        }
    }

    /// Asks, and asks again where controllers were elected meanwhile: what was answered is of one time.
    pub(crate) async fn undisturbed<T>(&self, mut ask: impl AsyncFnMut() -> T) -> T {
        let views = || {
            let views = self.running().map(|(_, running)| running.handle.active());
            views.map(|view| view.borrow().clone()).collect::<Vec<_>>()
        };
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.active().await;
            let before = views();
            let answer = ask().await;
            if views() == before {
                return answer;
            }
            assert!(Instant::now() < deadline, "no controller stays active");
        }
    }

    /// Waits until controller `i` shows an image that `wanted` accepts.
    pub(crate) async fn image(
        &self,
        i: usize,
        wanted: impl FnMut(&Arc<ClusterImage>) -> bool,
    ) -> Arc<ClusterImage> {
        let mut images = self.handle(i).images();
        let image = timeout(PATIENCE, images.wait_for(wanted))
            .await
            .expect("the image appears in time")
            .expect("the controller runs");
        image.clone()
    }

    pub(crate) async fn view(&self, i: usize, wanted: impl FnMut(&ActiveView) -> bool) -> ActiveView {
        let mut views = self.handle(i).active();
        let view = timeout(PATIENCE, views.wait_for(wanted))
            .await
            .expect("the view appears in time")
            .expect("the controller runs");
        view.clone()
    }

    pub(crate) fn client(&self, i: usize) -> ControllerClient<Channel> {
        ControllerClient::new(channel(self.seats[i].address))
    }

    pub(crate) async fn stop(mut self) {
        for i in 0..self.seats.len() {
            self.stop_seat(i).await;
        }
    }
}

pub(crate) fn channel(address: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{address}"))
        .unwrap()
        .connect_lazy()
}

/// A broker that registers, follows the log and sends heartbeats, and does nothing else.
pub(crate) struct FakeBroker {
    pub(crate) id: BrokerId,
    pub(crate) incarnation: IncarnationId,
    pub(crate) directory: DirectoryId,
    pub(crate) internal_address: SocketAddr,
    node: JoinHandle<()>,
    stop_node: CancellationToken,
    pub(crate) image: ClusterImage,
    pub(crate) snapshots_seen: usize,
    highest_epoch: LeaderEpoch,
    /// Just before the last one was sent.
    pub(crate) last_heartbeat: Instant,
    session: Option<Session>,
}

struct Session {
    outbound: mpsc::Sender<BrokerMessage>,
    inbound: Streaming<ControllerMessage>,
    broker_epoch: Option<BrokerEpoch>,
    state: BrokerState,
    want_shutdown: bool,
}

struct FakeNode(InternalHello);

#[tonic::async_trait]
impl Node for FakeNode {
    async fn probe(&self, _: Request<ProbeRequest>) -> Result<Response<ProbeReply>, Status> {
        Ok(Response::new(ProbeReply {
            hello: Some(self.0.clone()),
            active_controller: None,
        }))
    }
}

impl FakeBroker {
    pub(crate) async fn new(id: i32) -> Self {
        Self::with_directory(id, DirectoryId::random()).await
    }

    pub(crate) async fn with_directory(id: i32, directory: DirectoryId) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let internal_address = listener.local_addr().unwrap();
        let incarnation = IncarnationId::random();
        let stop_node = CancellationToken::new();
        let hello = hello(BrokerId(id), incarnation, directory);
        let node = tokio::spawn({
            let stop = stop_node.clone();
            async move {
                Server::builder()
                    .add_service(NodeServer::new(FakeNode(hello)))
                    .serve_with_incoming_shutdown(TcpIncoming::from(listener), stop.cancelled())
                    .await
                    .unwrap();
            }
        });
        Self {
            id: BrokerId(id),
            incarnation,
            directory,
            internal_address,
            node,
            stop_node,
            image: ClusterImage::default(),
            snapshots_seen: 0,
            highest_epoch: LeaderEpoch(-1),
            last_heartbeat: Instant::now(),
            session: None,
        }
    }

    pub(crate) fn epoch(&self) -> BrokerEpoch {
        self.session
            .as_ref()
            .and_then(|session| session.broker_epoch)
            .expect("registered")
    }

    pub(crate) fn state(&self) -> BrokerState {
        self.session
            .as_ref()
            .map(|session| session.state)
            .unwrap_or_default()
    }

    fn register_message(&self) -> Register {
        Register {
            hello: Some(hello(self.id, self.incarnation, self.directory)),
            listeners: vec![Listener {
                name: "PLAINTEXT".to_owned(),
                host: "127.0.0.1".to_owned(),
                port: 9092,
                security_protocol: "PLAINTEXT".to_owned(),
            }],
            internal_address: self.internal_address.to_string(),
            rack: String::new(),
            log_dirs: vec![self.directory.to_vec().into()],
            version: "test".to_owned(),
            metadata_offset: self.image.offset.map_or(-1, Offset::get),
            metadata_epoch: self.image.offset.map_or(-1, |_| self.image.epoch.get()),
            highest_controller_epoch: self.highest_epoch.get(),
            may_have_lost_data: false,
            damaged: Vec::new(),
            ..Register::default()
        }
    }

    /// Opens a session and returns the first message of the controller.
    pub(crate) async fn open(&mut self, controller: SocketAddr) -> Result<ToBroker, Status> {
        let (outbound, messages) = mpsc::channel(16);
        let register = FromBroker::Register(self.register_message());
        outbound
            .send(BrokerMessage {
                message: Some(register),
            })
            .await
            .unwrap();
        let mut client = BrokerSessionClient::new(channel(controller)).max_decoding_message_size(16 << 20);
        let inbound = client.session(ReceiverStream::new(messages)).await?.into_inner();
        self.session = Some(Session {
            outbound,
            inbound,
            broker_epoch: None,
            state: BrokerState::default(),
            want_shutdown: false,
        });
        self.next_message().await
    }

    /// Registers and waits until this broker is unfenced; says why where the controller does not let it.
    async fn try_join(&mut self, controller: SocketAddr) -> Result<(), String> {
        let first = self.open(controller).await;
        let first = first.map_err(|status| status.to_string())?;
        if !matches!(first, ToBroker::Registered(_)) {
            return Err(format!("{first:?}"));
        }
        while self.state().fenced || !self.state().caught_up {
            let next = self.next_message().await;
            next.map_err(|status| status.to_string())?;
        }
        Ok(())
    }

    /// Lives on until the condition holds.
    pub(crate) async fn until(&mut self, mut condition: impl FnMut(&Self) -> bool) {
        let all = async {
            while !condition(self) {
                self.next_message().await.unwrap();
            }
        };
        timeout(PATIENCE, all)
            .await
            .expect("the broker gets there in time");
    }

    /// Lives on for as long as nothing comes true: to be raced with something else.
    pub(crate) async fn live(&mut self) {
        while self.next_message().await.is_ok() {}
    }

    /// Asks to leave.
    pub(crate) fn want_shutdown(&mut self) {
        if let Some(session) = &mut self.session {
            session.want_shutdown = true;
        }
    }

    /// Takes the next message, answers with heartbeats while it waits.
    pub(crate) async fn next_message(&mut self) -> Result<ToBroker, Status> {
        let session = self.session.as_mut().expect("a session is open");
        let message = loop {
            if let Some(epoch) = session.broker_epoch {
                let heartbeat = FromBroker::Heartbeat(Heartbeat {
                    broker_epoch: epoch.get(),
                    applied_offset: self.image.offset.map_or(-1, Offset::get),
                    want_shutdown: session.want_shutdown,
                    ..Heartbeat::default()
                });
                self.last_heartbeat = Instant::now();
                let _ = session.outbound.try_send(BrokerMessage {
                    message: Some(heartbeat),
                });
            }
            if let Ok(message) = timeout(Duration::from_millis(100), session.inbound.message()).await {
                break message?.ok_or_else(|| Status::aborted("the session ended"))?;
            }
        };
        self.highest_epoch = self.highest_epoch.max(LeaderEpoch(message.controller_epoch));
        let message = message.message.expect("a message says something");
        let mut snapshot: Option<SnapshotReader> = None;
        match &message {
            ToBroker::Registered(registered) => {
                session.broker_epoch = Some(BrokerEpoch(registered.broker_epoch));
            }
            ToBroker::State(state) => session.state = *state,
            ToBroker::Entries(entries) => {
                for entry in &entries.entries {
                    let expected = self.image.offset.map_or(0, |offset| offset.get() + 1);
                    assert_eq!(entry.offset, expected, "entries come without gaps");
                    self.image = self
                        .image
                        .apply(
                            Offset(entry.offset),
                            LeaderEpoch(entry.epoch),
                            entry.entry.as_ref(),
                        )
                        .unwrap();
                }
            }
            ToBroker::Snapshot(first) => {
                let mut chunk = first.clone();
                loop {
                    if let Some(header) = &chunk.header {
                        snapshot = Some(SnapshotReader::new(header).unwrap());
                    }
                    let reader = snapshot.as_mut().expect("a header comes first");
                    if let Some(entry) = &chunk.entry {
                        reader.entry(entry).unwrap();
                    }
                    if chunk.last {
                        break;
                    }
                    let next = session.inbound.message().await?;
                    let next = next.ok_or_else(|| Status::aborted("the session ended"))?;
                    let Some(ToBroker::Snapshot(next)) = next.message else {
                        panic!("a snapshot is not interrupted: {next:?}");
                    };
                    chunk = next;
                }
                self.snapshots_seen += 1;
                self.image = snapshot.take().expect("complete").finish();
            }
            ToBroker::NotActive(_) | ToBroker::Refused(_) => {}
        }
        Ok(message)
    }

    /// The process dies: connections break and the port refuses.
    pub(crate) async fn die(mut self) {
        self.stop_node.cancel();
        let _ = (&mut self.node).await;
        self.session = None;
    }

    /// The session breaks, the process lives on.
    pub(crate) fn hang_up(&mut self) {
        self.session = None;
    }
}

impl Drop for FakeBroker {
    fn drop(&mut self) {
        self.stop_node.cancel();
    }
}

pub(crate) fn hello(id: BrokerId, incarnation: IncarnationId, directory: DirectoryId) -> InternalHello {
    InternalHello {
        cluster_id: cluster_id().as_str().to_owned(),
        node_id: id.get(),
        directory_id: directory.to_vec().into(),
        incarnation_id: incarnation.to_vec().into(),
        protocol_version: INTERNAL_PROTOCOL_VERSION,
        expected_node_id: -1,
    }
}

/// Watches until a value is accepted.
pub(crate) async fn wait_for<T: Clone + Send + Sync>(
    watched: &mut watch::Receiver<T>,
    wanted: impl FnMut(&T) -> bool,
) -> T {
    let value = timeout(PATIENCE, watched.wait_for(wanted))
        .await
        .expect("it comes in time")
        .expect("its sender lives");
    value.clone()
}
