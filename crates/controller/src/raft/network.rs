//! Raft's calls to other controllers, over the internal gRPC port.
//!
//! Every call carries a hello and is bounded by the library's soft limit. Heartbeats and snapshots use
//! connections of their own, so that a large transfer never delays a sign of life.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::OptionalSend;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{RPCOption, RPCTypes, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use protocol::BrokerId;
use protocol::grpc::v1::raft_client::RaftClient;
use protocol::grpc::v1::{
    InternalHello, RaftAppendRequest, RaftReply, RaftSnapshotChunk, RaftTransferRequest, RaftVoteRequest,
};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use super::snapshot::SnapshotFile;
use super::types::{Snapshot, TypeConfig, Vote, Voter};
use super::wire;
use crate::identity::NodeIdentity;

/// Bytes of a snapshot that travel in one message.
const SNAPSHOT_CHUNK: usize = 512 << 10;
/// Snapshot messages that are read ahead of the network.
const SNAPSHOT_AHEAD: usize = 4;
/// The largest message between controllers: entries of one replication round.
pub(crate) const MAX_MESSAGE: usize = 64 << 20;
/// How long a connection may take to be made; the calls have shorter limits of their own.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

type RpcError = RPCError<TypeConfig>;

/// Makes the clients of other controllers.
#[derive(Debug)]
pub(crate) struct Network {
    identity: Arc<NodeIdentity>,
}

impl Network {
    /// Calls go out in this controller's name.
    pub(crate) fn new(identity: Arc<NodeIdentity>) -> Self {
        Self { identity }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &Voter) -> Peer {
        Peer {
            own: self.identity.node_id.get() as u64,
            target,
            hello: self.identity.hello(Some(BrokerId(target as i32))),
            channel: connect(&node.address),
        }
    }
}

/// A connection that is made on first use and again after it broke; an address that is none fails
/// every call with its sentence.
fn connect(address: &str) -> Result<Channel, String> {
    Endpoint::from_shared(format!("http://{address}"))
        .map(|endpoint| {
            endpoint
                .connect_timeout(CONNECT_TIMEOUT)
                .tcp_nodelay(true)
                .initial_stream_window_size(8 << 20)
                .initial_connection_window_size(16 << 20)
                .http2_keep_alive_interval(Duration::from_secs(2))
                .keep_alive_timeout(Duration::from_secs(2))
                .keep_alive_while_idle(true)
                .connect_lazy()
        })
        .map_err(|error| format!("controller address {address}: {error}"))
}

/// One controller, as another reaches it.
#[derive(Debug)]
pub(crate) struct Peer {
    own: u64,
    target: u64,
    hello: InternalHello,
    channel: Result<Channel, String>,
}

impl Peer {
    fn client(&self) -> Result<RaftClient<Channel>, RpcError> {
        match &self.channel {
            Ok(channel) => Ok(RaftClient::new(channel.clone())
                .max_decoding_message_size(MAX_MESSAGE)
                .max_encoding_message_size(MAX_MESSAGE)),
            Err(sentence) => Err(Unreachable::from_string(sentence).into()),
        }
    }

    /// Waits for a reply within the call's limit.
    async fn bounded<T: DeserializeOwned>(
        &self,
        action: RPCTypes,
        option: &RPCOption,
        call: impl Future<Output = Result<tonic::Response<RaftReply>, Status>>,
    ) -> Result<T, RpcError> {
        // Raft itself waits no longer than this.
        let limit = option.hard_ttl();
        match tokio::time::timeout(limit, call).await {
            Err(_) => Err(Timeout {
                action,
                id: self.own,
                target: self.target,
                timeout: limit,
            }
            .into()),
            Ok(Err(status)) => Err(self.failure(&status)),
            Ok(Ok(reply)) => wire::from_payload(&reply.into_inner().payload)
                .map_err(|error| NetworkError::new(&error).into()),
        }
    }

    fn failure(&self, status: &Status) -> RpcError {
        match status.code() {
            Code::FailedPrecondition => {
                tracing::warn!(
                    controller = self.target,
                    reason = status.message(),
                    "refused by a controller"
                );
                Unreachable::new(status).into()
            }
            // Refused connections, and controllers that are starting or stopping: back off.
            Code::Unavailable => Unreachable::new(status).into(),
            _ => NetworkError::new(status).into(),
        }
    }

    async fn send_snapshot(
        &self,
        vote: Vote,
        snapshot: Snapshot,
        option: &RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, RpcError> {
        let mut client = self.client()?;
        let meta = wire::to_payload(&(vote, &snapshot.meta)).map_err(|error| NetworkError::new(&error))?;
        let (chunks, stream) = mpsc::channel(SNAPSHOT_AHEAD);
        let first = RaftSnapshotChunk {
            hello: Some(self.hello.clone()),
            meta,
            data: Bytes::new(),
        };
        // Ends by itself when the call is over: then nobody takes the chunks.
        tokio::spawn(read_chunks(snapshot.snapshot, first, chunks));
        let call = client.install_snapshot(ReceiverStream::new(stream));
        self.bounded(RPCTypes::InstallSnapshot, option, call).await
    }

    /// What a vote is asked for with, and one that is only tried.
    fn vote_request(&self, rpc: &VoteRequest<TypeConfig>) -> Result<RaftVoteRequest, RpcError> {
        Ok(RaftVoteRequest {
            hello: Some(self.hello.clone()),
            payload: wire::to_payload(rpc).map_err(|error| NetworkError::new(&error))?,
        })
    }
}

/// Feeds a snapshot file into a channel, piece by piece.
async fn read_chunks(file: SnapshotFile, first: RaftSnapshotChunk, chunks: mpsc::Sender<RaftSnapshotChunk>) {
    if chunks.send(first).await.is_err() {
        return;
    }
    let mut at = 0;
    while at < file.length() {
        let piece = {
            let file = file.clone();
            tokio::task::spawn_blocking(move || file.read_at(at, SNAPSHOT_CHUNK)).await
        };
        let Ok(Ok(data)) = piece else {
            // The receiver finds the snapshot cut off and refuses it.
            tracing::error!(?file, at, "a snapshot could not be read while it was sent");
            return;
        };
        at += data.len() as u64;
        let chunk = RaftSnapshotChunk {
            data: data.into(),
            ..RaftSnapshotChunk::default()
        };
        if chunks.send(chunk).await.is_err() {
            return;
        }
    }
}

impl RaftNetworkV2<TypeConfig> for Peer {
    type SnapshotData = SnapshotFile;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RpcError> {
        let mut client = self.client()?;
        let request = RaftAppendRequest {
            hello: Some(self.hello.clone()),
            payload: wire::append_to_payload(&rpc).map_err(|error| NetworkError::new(&error))?,
        };
        let call = client.append_entries(request);
        self.bounded(RPCTypes::AppendEntries, &option, call).await
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        let mut client = self.client()?;
        let call = client.vote(self.vote_request(&rpc)?);
        self.bounded(RPCTypes::Vote, &option, call).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        let mut client = self.client()?;
        let call = client.pre_vote(self.vote_request(&rpc)?);
        self.bounded(RPCTypes::Vote, &option, call).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        tokio::select! {
            closed = cancel => Err(closed.into()),
            sent = self.send_snapshot(vote, snapshot, &option) => Ok(sent?),
        }
    }

    async fn transfer_leader(
        &mut self,
        rpc: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RpcError> {
        let mut client = self.client()?;
        let request = RaftTransferRequest {
            hello: Some(self.hello.clone()),
            payload: wire::to_payload(&rpc).map_err(|error| NetworkError::new(&error))?,
        };
        let call = client.transfer_leader(request);
        self.bounded(RPCTypes::TransferLeader, &option, call).await
    }
}
