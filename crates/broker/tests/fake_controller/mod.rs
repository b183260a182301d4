//! A controller whose every answer a test gives: the Node, BrokerSession and Controller services on a
//! loopback port.

// Each test binary uses its own part of this.
#![allow(dead_code)]

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use broker::config::{ControllerVoter, HostPort};
use broker::controller_client::ControllerLocator;
use broker::identity::NodeIdentity;
use parking_lot::Mutex;
use protocol::grpc::v1::broker_session_server::{BrokerSession, BrokerSessionServer};
use protocol::grpc::v1::controller_server::{Controller, ControllerServer};
use protocol::grpc::v1::node_server::{Node, NodeServer};
use protocol::grpc::v1::*;
use protocol::{BrokerId, ClusterId, DirectoryId, IncarnationId};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Request, Response, Status, Streaming};

/// The longest that anything in these tests may take.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// The controller's end of one session.
pub(crate) struct SessionPeer {
    pub(crate) register: Register,
    incoming: Streaming<BrokerMessage>,
    outgoing: mpsc::Sender<Result<ControllerMessage, Status>>,
}

impl SessionPeer {
    pub(crate) async fn send(&self, epoch: i32, message: controller_message::Message) {
        let message = ControllerMessage {
            controller_epoch: epoch,
            message: Some(message),
        };
        self.outgoing.send(Ok(message)).await.expect("the broker listens");
    }

    /// The next heartbeat for which `accept` is true; the others are passed over.
    pub(crate) async fn heartbeat(&mut self, accept: impl Fn(&Heartbeat) -> bool) -> Heartbeat {
        timeout(SOON, async {
            loop {
                let message = self.incoming.message().await.expect("stream").expect("open");
                match message.message {
                    Some(broker_message::Message::Heartbeat(heartbeat)) if accept(&heartbeat) => {
                        return heartbeat;
                    }
                    _ => {}
                }
            }
        })
        .await
        .expect("a heartbeat in time")
    }

    /// Waits until the broker has left this session.
    pub(crate) async fn left(mut self) {
        timeout(SOON, async {
            while let Ok(Some(_)) = self.incoming.message().await {}
        })
        .await
        .expect("the broker leaves in time");
    }
}

/// What a test makes of one CreateTopics call.
pub(crate) enum CreateTopicsScript {
    Reply(CreateTopicsReply),
    BreakConnection,
}

#[derive(Default)]
struct State {
    active: Option<ControllerAddress>,
    create_topics: VecDeque<CreateTopicsScript>,
    create_topics_calls: usize,
    next_producer_id: i64,
    alter_partitions: Vec<AlterPartitionsRequest>,
}

#[derive(Clone)]
struct Services {
    id: i32,
    state: Arc<Mutex<State>>,
    sessions: mpsc::UnboundedSender<SessionPeer>,
}

pub(crate) struct FakeController {
    pub(crate) id: i32,
    pub(crate) port: u16,
    state: Arc<Mutex<State>>,
    sessions: mpsc::UnboundedReceiver<SessionPeer>,
    _stop: DropGuard,
}

impl FakeController {
    pub(crate) async fn start(id: i32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let port = listener.local_addr().expect("address").port();
        let state = Arc::new(Mutex::new(State::default()));
        let (sender, sessions) = mpsc::unbounded_channel();
        let services = Services {
            id,
            state: Arc::clone(&state),
            sessions: sender,
        };
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(NodeServer::new(services.clone()))
                .add_service(BrokerSessionServer::new(services.clone()))
                .add_service(ControllerServer::new(services))
                .serve_with_incoming_shutdown(TcpListenerStream::new(listener), stopped),
        );
        Self {
            id,
            port,
            state,
            sessions,
            _stop: stop.drop_guard(),
        }
    }

    /// Where this controller is, as active in `epoch`.
    pub(crate) fn active_in(&self, epoch: i32) -> ControllerAddress {
        ControllerAddress {
            node_id: self.id,
            address: format!("127.0.0.1:{}", self.port),
            epoch,
        }
    }

    /// What this controller says to probes from now on.
    pub(crate) fn say_active(&self, active: Option<ControllerAddress>) {
        self.state.lock().active = active;
    }

    pub(crate) fn voter(&self) -> ControllerVoter {
        ControllerVoter {
            id: BrokerId(self.id),
            address: HostPort::new("127.0.0.1", self.port),
        }
    }

    pub(crate) async fn next_session(&mut self) -> SessionPeer {
        timeout(SOON, self.sessions.recv())
            .await
            .expect("a session in time")
            .expect("the services live")
    }

    pub(crate) fn script_create_topics(&self, script: CreateTopicsScript) {
        self.state.lock().create_topics.push_back(script);
    }

    pub(crate) fn create_topics_calls(&self) -> usize {
        self.state.lock().create_topics_calls
    }

    pub(crate) fn altered(&self) -> Vec<AlterPartitionsRequest> {
        self.state.lock().alter_partitions.clone()
    }
}

/// A broker's identity, and a locator over these controllers.
pub(crate) fn broker(id: i32, controllers: &[&FakeController]) -> (Arc<NodeIdentity>, ControllerLocator) {
    let identity = Arc::new(NodeIdentity::new(
        BrokerId(id),
        DirectoryId::random(),
        IncarnationId::random(),
        Some(ClusterId::new("test").expect("valid")),
    ));
    let voters = controllers.iter().map(|controller| controller.voter()).collect();
    (Arc::clone(&identity), ControllerLocator::new(identity, voters))
}

#[tonic::async_trait]
impl Node for Services {
    async fn probe(&self, _: Request<ProbeRequest>) -> Result<Response<ProbeReply>, Status> {
        Ok(Response::new(ProbeReply {
            hello: None,
            active_controller: self.state.lock().active.clone(),
        }))
    }
}

#[tonic::async_trait]
impl BrokerSession for Services {
    type SessionStream = ReceiverStream<Result<ControllerMessage, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<BrokerMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let mut incoming = request.into_inner();
        let (outgoing, messages) = mpsc::channel(64);
        let sessions = self.sessions.clone();
        tokio::spawn(async move {
            if let Ok(Some(BrokerMessage {
                message: Some(broker_message::Message::Register(register)),
            })) = incoming.message().await
            {
                let _ = sessions.send(SessionPeer {
                    register,
                    incoming,
                    outgoing,
                });
            }
        });
        Ok(Response::new(ReceiverStream::new(messages)))
    }
}

fn committed(offset: i64) -> ControllerReplyHeader {
    ControllerReplyHeader {
        committed_offset: offset,
        ..ControllerReplyHeader::default()
    }
}

#[tonic::async_trait]
impl Controller for Services {
    async fn create_topics(
        &self,
        _: Request<CreateTopicsRequest>,
    ) -> Result<Response<CreateTopicsReply>, Status> {
        let script = {
            let mut state = self.state.lock();
            state.create_topics_calls += 1;
            state.create_topics.pop_front()
        };
        match script {
            Some(CreateTopicsScript::Reply(reply)) => Ok(Response::new(reply)),
            Some(CreateTopicsScript::BreakConnection) => Err(Status::unavailable("connection broken")),
            None => Err(Status::internal("no script")),
        }
    }

    async fn delete_topics(
        &self,
        _: Request<DeleteTopicsRequest>,
    ) -> Result<Response<DeleteTopicsReply>, Status> {
        Err(Status::unimplemented("not in these tests"))
    }

    async fn create_partitions(
        &self,
        _: Request<CreatePartitionsRequest>,
    ) -> Result<Response<CreatePartitionsReply>, Status> {
        Err(Status::unimplemented("not in these tests"))
    }

    async fn alter_configs(
        &self,
        _: Request<AlterConfigsRequest>,
    ) -> Result<Response<AlterConfigsReply>, Status> {
        Err(Status::unimplemented("not in these tests"))
    }

    async fn elect_leaders(
        &self,
        _: Request<ElectLeadersRequest>,
    ) -> Result<Response<ElectLeadersReply>, Status> {
        Err(Status::unimplemented("not in these tests"))
    }

    async fn alter_partitions(
        &self,
        request: Request<AlterPartitionsRequest>,
    ) -> Result<Response<AlterPartitionsReply>, Status> {
        let request = request.into_inner();
        self.state.lock().alter_partitions.push(request.clone());
        let partitions = request.partitions.into_iter().map(|change| AlteredPartition {
            topic_id: change.topic_id,
            partition: change.partition,
            // Odd partitions are refused, as stale.
            error: (change.partition % 2 == 1).then(|| KafkaError {
                code: 95,
                message: String::from("stale"),
            }),
            leader: 1,
            leader_epoch: change.leader_epoch,
            partition_epoch: change.partition_epoch + 1,
            isr: change.new_isr.iter().map(|member| member.broker_id).collect(),
        });
        Ok(Response::new(AlterPartitionsReply {
            header: Some(committed(0)),
            partitions: partitions.collect(),
        }))
    }

    async fn assign_directories(
        &self,
        _: Request<AssignDirectoriesRequest>,
    ) -> Result<Response<AssignDirectoriesReply>, Status> {
        Err(Status::unimplemented("not in these tests"))
    }

    async fn allocate_producer_ids(
        &self,
        _: Request<AllocateProducerIdsRequest>,
    ) -> Result<Response<AllocateProducerIdsReply>, Status> {
        let mut state = self.state.lock();
        let first = state.next_producer_id;
        state.next_producer_id += 5;
        Ok(Response::new(AllocateProducerIdsReply {
            header: Some(committed(0)),
            first,
            count: 5,
        }))
    }

    async fn unregister_broker(
        &self,
        _: Request<UnregisterBrokerRequest>,
    ) -> Result<Response<UnregisterBrokerReply>, Status> {
        Err(Status::unimplemented("not in these tests"))
    }

    async fn describe_quorum(
        &self,
        _: Request<DescribeQuorumRequest>,
    ) -> Result<Response<DescribeQuorumReply>, Status> {
        Err(Status::unimplemented("not in these tests"))
    }
}
