//! The internal port's side: answers other brokers, as the leader or coordinator that they take it for.

use std::sync::Arc;
use std::time::Duration;

use protocol::grpc::v1::relay_server::{Relay, RelayServer};
use protocol::grpc::v1::{
    InternalHello, RelayAppendReply, RelayAppendRequest, RelayCommitReply, RelayCommitRequest,
    RelayCommittedReply, RelayCommittedRequest, RelayFetchOffsetsReply, RelayFetchOffsetsRequest,
    RelayReadReply, RelayReadRequest,
};
use protocol::{LeaderEpoch, Offset, PartitionIndex, TopicId, TopicPartition};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::{PartitionRead, groups, here, offsets, wire};
use crate::{
    context::BrokerContext,
    identity::NodeIdentity,
    partitions::{append::Refusal, read::Limits},
};

/// The largest request: one batch of a client's request, which is smaller.
const REQUEST_BYTES: usize = 8 << 20;
/// However patient the asking broker, nothing waits longer here.
const LONGEST: Duration = Duration::from_secs(300);

/// The Relay service of a broker.
#[derive(Debug)]
pub(crate) struct RelayService {
    identity: Arc<NodeIdentity>,
    broker: BrokerContext,
}

impl RelayService {
    pub(crate) fn server(identity: Arc<NodeIdentity>, broker: BrokerContext) -> RelayServer<Self> {
        RelayServer::new(Self { identity, broker }).max_decoding_message_size(REQUEST_BYTES)
    }

    /// Refuses a stranger.
    fn greet(&self, hello: Option<&InternalHello>) -> Result<(), Status> {
        let hello = hello.ok_or_else(|| Status::invalid_argument("the request has no greeting"))?;
        Ok(self.identity.check(hello)?)
    }
}

fn after(ms: u32) -> Instant {
    Instant::now() + Duration::from_millis(ms.into()).min(LONGEST)
}

fn topic_partition(topic_id: &[u8], partition: i32) -> Result<TopicPartition, Status> {
    let id = TopicId::from_slice(topic_id).ok_or_else(|| Status::invalid_argument("not a topic id"))?;
    Ok(TopicPartition::new(id, PartitionIndex(partition)))
}

#[tonic::async_trait]
impl Relay for RelayService {
    async fn append(
        &self,
        request: Request<RelayAppendRequest>,
    ) -> Result<Response<RelayAppendReply>, Status> {
        let request = request.into_inner();
        self.greet(request.hello.as_ref())?;
        let acks = wire::acks(request.acks());
        let tp = topic_partition(&request.topic_id, request.partition)?;
        let deadline = after(request.timeout_ms);
        let outcome = here::append(&self.broker, tp, request.batch, acks, deadline).await;
        Ok(Response::new(match outcome {
            Ok(appended) => RelayAppendReply {
                base_offset: appended.base_offset.get(),
                log_append_time_ms: appended.log_append_time,
                ..RelayAppendReply::default()
            },
            Err(refusal) => refused(refusal),
        }))
    }

    async fn read(&self, request: Request<RelayReadRequest>) -> Result<Response<RelayReadReply>, Status> {
        let request = request.into_inner();
        self.greet(request.hello.as_ref())?;
        let limits = Limits {
            isolation: wire::isolation(request.isolation()),
            min_bytes: 1,
            max_bytes: request.max_bytes as usize,
            wait_until: Some(after(request.wait_ms)),
        };
        let reads = request
            .partitions
            .iter()
            .map(|read| {
                Ok(PartitionRead {
                    tp: topic_partition(&read.topic_id, read.partition)?,
                    from: Offset(read.from),
                    last_epoch: LeaderEpoch::from_wire(read.last_epoch),
                })
            })
            .collect::<Result<Vec<_>, Status>>()?;
        let found = here::read(&self.broker, &reads, limits).await;
        let partitions = found.into_iter().map(wire::records_to_wire).collect();
        Ok(Response::new(RelayReadReply { partitions }))
    }

    async fn commit(
        &self,
        request: Request<RelayCommitRequest>,
    ) -> Result<Response<RelayCommitReply>, Status> {
        let request = request.into_inner();
        self.greet(request.hello.as_ref())?;
        let commit = request.request.unwrap_or_default();
        Ok(Response::new(match groups::commit(&self.broker, &commit).await {
            Ok(response) => RelayCommitReply {
                error: None,
                response: Some(response),
            },
            Err(error) => RelayCommitReply {
                error: Some(error),
                response: None,
            },
        }))
    }

    async fn committed(
        &self,
        request: Request<RelayCommittedRequest>,
    ) -> Result<Response<RelayCommittedReply>, Status> {
        let request = request.into_inner();
        self.greet(request.hello.as_ref())?;
        let asked = request.request.unwrap_or_default();
        Ok(Response::new(
            match groups::committed(&self.broker, &asked).await {
                Ok(response) => RelayCommittedReply {
                    error: None,
                    response: Some(response),
                },
                Err(error) => RelayCommittedReply {
                    error: Some(error),
                    response: None,
                },
            },
        ))
    }

    async fn fetch_offsets(
        &self,
        request: Request<RelayFetchOffsetsRequest>,
    ) -> Result<Response<RelayFetchOffsetsReply>, Status> {
        let request = request.into_inner();
        self.greet(request.hello.as_ref())?;
        Ok(Response::new(offsets::answer(&self.broker, request).await?))
    }
}

fn refused(refusal: Refusal) -> RelayAppendReply {
    RelayAppendReply {
        error: Some(wire::kafka_error(refusal.error, refusal.message)),
        faults: refusal.faults.into_iter().map(wire::fault_to_wire).collect(),
        ..RelayAppendReply::default()
    }
}
