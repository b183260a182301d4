//! The receiving end of Raft between controllers. Every message is checked for cluster, node and
//! protocol version before Raft sees it.

use std::sync::Arc;

use openraft::errors::Fatal;
use openraft::raft::{TransferLeaderRequest, VoteRequest};
use protocol::grpc::v1::raft_server;
use protocol::grpc::v1::{
    RaftAppendRequest, RaftReply, RaftSnapshotChunk, RaftTransferRequest, RaftVoteRequest,
};
use serde::Serialize;
use tonic::{Request, Response, Status, Streaming};

use super::snapshot::SnapshotDirectory;
use super::types::{Raft, Snapshot, SnapshotMeta, TypeConfig, Vote};
use super::wire;
use crate::identity::NodeIdentity;

/// Serves `ottla.v1.Raft`.
#[derive(Clone)]
pub(crate) struct RaftService {
    identity: Arc<NodeIdentity>,
    raft: Raft,
    snapshots: SnapshotDirectory,
}

impl RaftService {
    /// Serves `raft`; snapshots that arrive are collected in `snapshots`.
    pub(crate) fn new(identity: Arc<NodeIdentity>, raft: Raft, snapshots: SnapshotDirectory) -> Self {
        Self {
            identity,
            raft,
            snapshots,
        }
    }

    fn vote_request(&self, request: RaftVoteRequest) -> Result<VoteRequest<TypeConfig>, Status> {
        self.identity.check_other(request.hello.as_ref())?;
        let request: VoteRequest<TypeConfig> = wire::from_payload(&request.payload)?;
        wire::check_term(&request.vote)?;
        Ok(request)
    }
}

fn reply(message: &impl Serialize) -> Result<Response<RaftReply>, Status> {
    let payload = wire::to_payload(message).map_err(|error| Status::internal(error.to_string()))?;
    Ok(Response::new(RaftReply { payload }))
}

fn unavailable(error: &impl std::fmt::Display) -> Status {
    Status::unavailable(error.to_string())
}

fn stopped(error: &Fatal<TypeConfig>) -> Status {
    unavailable(error)
}

#[tonic::async_trait]
impl raft_server::Raft for RaftService {
    async fn append_entries(
        &self,
        request: Request<RaftAppendRequest>,
    ) -> Result<Response<RaftReply>, Status> {
        let request = request.into_inner();
        self.identity.check_other(request.hello.as_ref())?;
        let request = wire::append_from_payload(&request.payload)?;
        let answer = self.raft.append_entries(request).await;
        reply(&answer.map_err(|error| unavailable(&error))?)
    }

    async fn vote(&self, request: Request<RaftVoteRequest>) -> Result<Response<RaftReply>, Status> {
        let request = self.vote_request(request.into_inner())?;
        let answer = self.raft.vote(request).await;
        reply(&answer.map_err(|error| unavailable(&error))?)
    }

    async fn pre_vote(&self, request: Request<RaftVoteRequest>) -> Result<Response<RaftReply>, Status> {
        let request = self.vote_request(request.into_inner())?;
        let answer = self.raft.pre_vote(request).await;
        reply(&answer.map_err(|error| unavailable(&error))?)
    }

    async fn transfer_leader(
        &self,
        request: Request<RaftTransferRequest>,
    ) -> Result<Response<RaftReply>, Status> {
        let request = request.into_inner();
        self.identity.check_other(request.hello.as_ref())?;
        let request: TransferLeaderRequest<TypeConfig> = wire::from_payload(&request.payload)?;
        wire::check_term(request.from_leader())?;
        let answer = self.raft.handle_transfer_leader(request).await;
        reply(&answer.map_err(|error| stopped(&error))?)
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<RaftSnapshotChunk>>,
    ) -> Result<Response<RaftReply>, Status> {
        let mut stream = request.into_inner();
        let first = stream
            .message()
            .await?
            .ok_or_else(|| Status::invalid_argument("a snapshot without a first message"))?;
        self.identity.check_other(first.hello.as_ref())?;
        let (vote, meta): (Vote, SnapshotMeta) = wire::from_payload(&first.meta)?;
        wire::check_term(&vote)?;
        let snapshots = self.snapshots.clone();
        let mut incoming = blocking(move || snapshots.incoming()).await?;
        let mut piece = first.data;
        loop {
            if !piece.is_empty() {
                incoming = blocking(move || incoming.write(&piece).map(|()| incoming)).await?;
            }
            match stream.message().await? {
                Some(chunk) => piece = chunk.data,
                None => break,
            }
        }
        let file = blocking(move || incoming.finish()).await?;
        tracing::info!(last_log_id = ?meta.last_log_id, bytes = file.length(), "a snapshot arrived");
        let snapshot = Snapshot { meta, snapshot: file };
        let answer = self.raft.install_full_snapshot(vote, snapshot).await;
        reply(&answer.map_err(|error| stopped(&error))?)
    }
}

/// Runs disk work on a blocking thread.
async fn blocking<T: Send + 'static, E: std::fmt::Display + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, Status> {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(unavailable(&error)),
        Err(error) => Err(Status::internal(error.to_string())),
    }
}
