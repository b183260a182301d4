//! What brokers ask of the active controller. Each request is decided in the event loop and answered
//! when its decision is committed.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use metadata::ClusterImage;
use protocol::grpc::v1::controller_server::Controller;
use protocol::grpc::v1::{
    AllocateProducerIdsReply, AllocateProducerIdsRequest, AlterConfigsReply, AlterConfigsRequest,
    AlterPartitionsReply, AlterPartitionsRequest, AssignDirectoriesReply, AssignDirectoriesRequest,
    ControllerReplyHeader, CreatePartitionsReply, CreatePartitionsRequest, CreateTopicsReply,
    CreateTopicsRequest, DeleteTopicsReply, DeleteTopicsRequest, DescribeQuorumReply, DescribeQuorumRequest,
    ElectLeadersReply, ElectLeadersRequest, KafkaError, QuorumMember, UnregisterBrokerReply,
    UnregisterBrokerRequest,
};
use protocol::{BrokerId, DirectoryId, ErrorCode, Offset, TopicId};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tonic::{Request, Response, Status};

use crate::decisions::{self, Outcome, View};
use crate::event_loop::{
    ActiveController, ActiveView, Applied, Call, CallError, CallResult, Event, LoopWatches,
};
use crate::raft::RaftNode;

/// The longest that a request waits for its commit: a quorum that is silent for longer will not answer
/// this request any more.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest that a reply is held back until every live broker shows the result.
const VISIBLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Serves `ottla.v1.Controller`.
#[derive(Clone)]
pub(crate) struct ControllerService {
    node: RaftNode,
    events: mpsc::Sender<Event>,
    active: watch::Receiver<ActiveView>,
    applied: watch::Receiver<Applied>,
    images: watch::Receiver<Arc<ClusterImage>>,
}

/// A decision's result, or the error that the whole request is refused with.
type Decided<R> = Result<Outcome<R>, KafkaError>;

impl ControllerService {
    pub(crate) fn new(node: RaftNode, events: mpsc::Sender<Event>, watches: &LoopWatches) -> Self {
        Self {
            images: node.images(),
            node,
            events,
            active: watches.active.clone(),
            applied: watches.applied.clone(),
        }
    }

    /// Has the loop decide and waits for the commit. The header says whether there is a result.
    async fn decide<R: Send + 'static>(
        &self,
        decision: impl FnOnce(View<'_>) -> Decided<R> + Send + 'static,
    ) -> Result<(ControllerReplyHeader, Option<R>), Status> {
        let (call, result) = Call::new(|view: View<'_>| match decision(view) {
            Ok(outcome) => Outcome {
                records: outcome.records,
                reply: Ok(outcome.reply),
            },
            Err(error) => Outcome::unchanged(Err(error)),
        });
        let answered = async {
            if self.events.send(Event::Operation(call)).await.is_err() {
                return Err(CallError::Stopping);
            }
            result.await.unwrap_or(Err(CallError::Stopping))
        };
        let result: CallResult<Result<R, KafkaError>> = timeout(COMMIT_TIMEOUT, answered)
            .await
            .unwrap_or(Err(CallError::OutcomeUnknown));
        match result {
            Ok((Ok(reply), offset)) => Ok((header(decisions::success(), offset), Some(reply))),
            Ok((Err(error), offset)) => Ok((header(error, offset), None)),
            Err(error @ CallError::NotController) => Ok((self.not_active(&error), None)),
            // A stopping loop answers what it still has; what it had not taken was not decided.
            Err(error @ CallError::Stopping) => Ok((self.not_active(&error), None)),
            Err(error @ CallError::OutcomeUnknown) => Err(Status::unknown(error.to_string())),
            Err(error @ CallError::Contradiction(_)) => {
                let error = kafka_error(ErrorCode::UnknownServerError, error.to_string());
                Ok((header(error, Offset(-1)), None))
            }
        }
    }

    fn not_active(&self, error: &CallError) -> ControllerReplyHeader {
        let view = self.active.borrow();
        ControllerReplyHeader {
            error: Some(kafka_error(ErrorCode::NotController, error.to_string())),
            active: view
                .active
                .as_ref()
                .filter(|_| !view.is_self)
                .map(ActiveController::to_wire),
            committed_offset: -1,
        }
    }

    /// Waits until every live broker shows what was committed at `offset`. A broker that does not keep up
    /// delays the reply until the request's time is up, and no longer: the result holds all the same.
    async fn visible(&self, header: &ControllerReplyHeader, timeout_ms: u32) {
        let mut applied = self.applied.clone();
        let offset = Offset(header.committed_offset);
        let limit = Duration::from_millis(timeout_ms.into()).min(VISIBLE_TIMEOUT);
        // An error means that the loop is gone, or that the time is up.
        let _ = timeout(limit, applied.wait_for(|applied| applied.everywhere(offset))).await;
    }
}

fn header(error: KafkaError, offset: Offset) -> ControllerReplyHeader {
    ControllerReplyHeader {
        error: Some(error),
        active: None,
        committed_offset: offset.get(),
    }
}

fn kafka_error(code: ErrorCode, message: String) -> KafkaError {
    KafkaError {
        code: code.code().into(),
        message,
    }
}

fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(-1, |since| since.as_millis() as i64)
}

#[tonic::async_trait]
impl Controller for ControllerService {
    async fn create_topics(
        &self,
        request: Request<CreateTopicsRequest>,
    ) -> Result<Response<CreateTopicsReply>, Status> {
        let request = request.into_inner();
        let (timeout_ms, visible) = (request.timeout_ms, !request.validate_only);
        let seed = rand::random();
        let (header, topics) = self
            .decide(move |view| {
                Ok(decisions::create_topics(
                    view,
                    &request,
                    seed,
                    &mut TopicId::random,
                ))
            })
            .await?;
        if visible && topics.is_some() {
            self.visible(&header, timeout_ms).await;
        }
        Ok(Response::new(CreateTopicsReply {
            header: Some(header),
            topics: topics.unwrap_or_default(),
        }))
    }

    async fn delete_topics(
        &self,
        request: Request<DeleteTopicsRequest>,
    ) -> Result<Response<DeleteTopicsReply>, Status> {
        let request = request.into_inner();
        let timeout_ms = request.timeout_ms;
        let (header, topics) = self
            .decide(move |view| Ok(decisions::delete_topics(view, &request)))
            .await?;
        if topics.is_some() {
            self.visible(&header, timeout_ms).await;
        }
        Ok(Response::new(DeleteTopicsReply {
            header: Some(header),
            topics: topics.unwrap_or_default(),
        }))
    }

    async fn create_partitions(
        &self,
        request: Request<CreatePartitionsRequest>,
    ) -> Result<Response<CreatePartitionsReply>, Status> {
        let request = request.into_inner();
        let (timeout_ms, visible) = (request.timeout_ms, !request.validate_only);
        let seed = rand::random();
        let (header, topics) = self
            .decide(move |view| Ok(decisions::create_partitions(view, &request, seed)))
            .await?;
        if visible && topics.is_some() {
            self.visible(&header, timeout_ms).await;
        }
        Ok(Response::new(CreatePartitionsReply {
            header: Some(header),
            topics: topics.unwrap_or_default(),
        }))
    }

    async fn alter_configs(
        &self,
        request: Request<AlterConfigsRequest>,
    ) -> Result<Response<AlterConfigsReply>, Status> {
        let request = request.into_inner();
        let (header, resources) = self
            .decide(move |view| Ok(decisions::alter_configs(view, &request)))
            .await?;
        Ok(Response::new(AlterConfigsReply {
            header: Some(header),
            resources: resources.unwrap_or_default(),
        }))
    }

    async fn elect_leaders(
        &self,
        request: Request<ElectLeadersRequest>,
    ) -> Result<Response<ElectLeadersReply>, Status> {
        let request = request.into_inner();
        let (header, partitions) = self
            .decide(move |view| Ok(decisions::elect_leaders(view, &request)))
            .await?;
        Ok(Response::new(ElectLeadersReply {
            header: Some(header),
            partitions: partitions.unwrap_or_default(),
        }))
    }

    async fn alter_partitions(
        &self,
        request: Request<AlterPartitionsRequest>,
    ) -> Result<Response<AlterPartitionsReply>, Status> {
        let request = request.into_inner();
        let (header, partitions) = self
            .decide(move |view| {
                decisions::alter_partitions(view, &request).map_err(|error| decisions::kafka_error(&error))
            })
            .await?;
        Ok(Response::new(AlterPartitionsReply {
            header: Some(header),
            partitions: partitions.unwrap_or_default(),
        }))
    }

    async fn assign_directories(
        &self,
        request: Request<AssignDirectoriesRequest>,
    ) -> Result<Response<AssignDirectoriesReply>, Status> {
        let request = request.into_inner();
        let (header, results) = self
            .decide(move |view| {
                decisions::assign_directories(view, &request).map_err(|error| decisions::kafka_error(&error))
            })
            .await?;
        Ok(Response::new(AssignDirectoriesReply {
            header: Some(header),
            results: results.unwrap_or_default(),
        }))
    }

    async fn allocate_producer_ids(
        &self,
        request: Request<AllocateProducerIdsRequest>,
    ) -> Result<Response<AllocateProducerIdsReply>, Status> {
        let request = request.into_inner();
        let (header, block) = self
            .decide(move |view| {
                decisions::allocate_producer_ids(view, &request)
                    .map_err(|error| decisions::kafka_error(&error))
            })
            .await?;
        Ok(Response::new(AllocateProducerIdsReply {
            header: Some(header),
            first: block.map_or(-1, |block| block.first.get()),
            count: block.map_or(0, |block| block.count),
        }))
    }

    async fn unregister_broker(
        &self,
        request: Request<UnregisterBrokerRequest>,
    ) -> Result<Response<UnregisterBrokerReply>, Status> {
        let broker = BrokerId(request.into_inner().broker_id);
        let (header, _) = self
            .decide(move |view| {
                decisions::unregister(view, broker).map_err(|error| decisions::kafka_error(&error))
            })
            .await?;
        Ok(Response::new(UnregisterBrokerReply { header: Some(header) }))
    }

    async fn describe_quorum(
        &self,
        _request: Request<DescribeQuorumRequest>,
    ) -> Result<Response<DescribeQuorumReply>, Status> {
        if !self.active.borrow().is_self {
            return Ok(Response::new(DescribeQuorumReply {
                header: Some(self.not_active(&CallError::NotController)),
                ..DescribeQuorumReply::default()
            }));
        }
        let quorum = self.node.quorum();
        let now_ms = now_ms();
        let (voters, others): (Vec<_>, Vec<_>) = quorum.members.into_iter().partition(|member| member.voter);
        let member = |member: crate::raft::ReplicaView| QuorumMember {
            node_id: member.node_id.get(),
            directory_id: member.directory_id.to_vec().into(),
            address: member.address,
            log_end_offset: member.log_end.get(),
            last_seen_ms: member.last_seen.map_or(-1, |ago| {
                now_ms - i64::try_from(ago.as_millis()).unwrap_or(now_ms)
            }),
        };
        let image = self.images.borrow().clone();
        let applied = self.applied.borrow().clone();
        let brokers = image.brokers.values().map(|broker| QuorumMember {
            node_id: broker.id.get(),
            directory_id: broker
                .log_dirs
                .first()
                .copied()
                .unwrap_or(DirectoryId::ZERO)
                .to_vec()
                .into(),
            address: broker.internal_address.clone(),
            log_end_offset: applied
                .brokers
                .get(&broker.id)
                .map_or(-1, |applied| applied.next().get()),
            last_seen_ms: -1,
        });
        Ok(Response::new(DescribeQuorumReply {
            header: Some(header(decisions::success(), quorum.committed)),
            leader_id: quorum.leader.map_or(-1, BrokerId::get),
            leader_epoch: quorum.epoch.get(),
            log_end_offset: quorum.log_end.get(),
            committed_offset: quorum.committed.get(),
            voters: voters.into_iter().map(member).collect(),
            observers: others.into_iter().map(member).chain(brokers).collect(),
        }))
    }
}
