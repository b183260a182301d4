//! The leaders' way to the controller: proposals for in-sync sets, gathered into as few requests as
//! there are round trips.
//!
//! One request is under way at a time; what is proposed meanwhile travels in the next. A single change
//! therefore waits for nobody, and a broker that lost a follower of a thousand partitions sends one
//! request, not a thousand.

use std::collections::HashMap;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use protocol::grpc::v1::{
    AlterPartition, AlterPartitionsReply, AlterPartitionsRequest, AlteredPartition as AlteredWire, IsrMember,
};
use protocol::{
    BrokerEpoch, BrokerId, ErrorCode, LeaderEpoch, PartitionEpoch, PartitionIndex, TopicId, TopicPartition,
};
use replication::{AlterIsr, AlteredPartition, IsrChannel, IsrError};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tracing::debug;

use crate::controller_client::{ControllerClient, ControllerError};

/// How long one request may take. What has no answer by then is proposed again, unchanged.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Partitions in one request, which keeps it well below a message's size.
const PARTITIONS_MAX: usize = 4096;

type Outcome = Result<AlteredPartition, IsrError>;

struct Proposal {
    partition: TopicPartition,
    change: AlterIsr,
    answer: oneshot::Sender<Outcome>,
}

/// The channel over `AlterPartitions` of the active controller.
#[derive(Debug)]
pub struct ControllerIsrChannel {
    // A partition has at most one proposal under way: the queue is no longer than the broker's
    // partitions are many.
    proposals: mpsc::UnboundedSender<Proposal>,
}

impl ControllerIsrChannel {
    /// Starts the task that sends; it ends with the channel.
    pub fn start(
        broker_id: BrokerId,
        broker_epoch: watch::Receiver<Option<BrokerEpoch>>,
        controller: ControllerClient,
    ) -> Self {
        let (proposals, receiver) = mpsc::unbounded_channel();
        let sender = Sender {
            broker_id,
            broker_epoch,
            controller,
        };
        tokio::spawn(sender.run(receiver));
        Self { proposals }
    }
}

impl IsrChannel for ControllerIsrChannel {
    fn propose(&self, partition: TopicPartition, change: AlterIsr) -> BoxFuture<'static, Outcome> {
        let (answer, outcome) = oneshot::channel();
        // A task that has ended answers by dropping the sender.
        let _ = self.proposals.send(Proposal {
            partition,
            change,
            answer,
        });
        outcome
            .map(|outcome| outcome.unwrap_or(Err(IsrError::Unknown)))
            .boxed()
    }
}

struct Sender {
    broker_id: BrokerId,
    broker_epoch: watch::Receiver<Option<BrokerEpoch>>,
    controller: ControllerClient,
}

impl Sender {
    async fn run(self, mut proposals: mpsc::UnboundedReceiver<Proposal>) {
        let mut batch = Vec::new();
        while proposals.recv_many(&mut batch, PARTITIONS_MAX).await > 0 {
            self.send(std::mem::take(&mut batch)).await;
        }
    }

    async fn send(&self, proposals: Vec<Proposal>) {
        let epoch = *self.broker_epoch.borrow();
        let outcomes = match epoch {
            // Not registered: nothing was sent, so nothing has changed.
            None => Outcomes::All(IsrError::Refused(ErrorCode::StaleBrokerEpoch)),
            Some(epoch) => {
                let request = AlterPartitionsRequest {
                    broker_id: self.broker_id.get(),
                    broker_epoch: epoch.get(),
                    partitions: proposals.iter().map(to_wire).collect(),
                };
                let reply = self
                    .controller
                    .alter_partitions(request, Instant::now() + TIMEOUT)
                    .await;
                if let Err(error) = &reply {
                    debug!(%error, partitions = proposals.len(), "ISR changes brought no answer");
                }
                Outcomes::of(reply)
            }
        };
        let mut outcomes = outcomes;
        for proposal in proposals {
            let outcome = outcomes.take(proposal.partition);
            // A partition that left meanwhile does not ask any more.
            let _ = proposal.answer.send(outcome);
        }
    }
}

/// What became of each proposal of a request.
enum Outcomes {
    All(IsrError),
    Each(HashMap<TopicPartition, Outcome>),
}

impl Outcomes {
    fn of(reply: Result<AlterPartitionsReply, ControllerError>) -> Self {
        match reply {
            Ok(reply) => Self::Each(reply.partitions.into_iter().filter_map(from_wire).collect()),
            Err(ControllerError::Refused { code, .. }) => Self::All(IsrError::Refused(code)),
            Err(
                ControllerError::Unreachable(_)
                | ControllerError::OutcomeUnknown(_)
                | ControllerError::NotSeenYet
                | ControllerError::Malformed(_),
            ) => Self::All(IsrError::Unknown),
        }
    }

    fn take(&mut self, partition: TopicPartition) -> Outcome {
        match self {
            Self::All(error) => Err(*error),
            Self::Each(outcomes) => outcomes.remove(&partition).unwrap_or(Err(IsrError::Unknown)),
        }
    }
}

fn to_wire(proposal: &Proposal) -> AlterPartition {
    let member = |&(broker, epoch): &(BrokerId, BrokerEpoch)| IsrMember {
        broker_id: broker.get(),
        broker_epoch: epoch.get(),
    };
    AlterPartition {
        topic_id: proposal.partition.topic_id.to_vec().into(),
        partition: proposal.partition.partition.get(),
        leader_epoch: proposal.change.leader_epoch.get(),
        partition_epoch: proposal.change.partition_epoch.get(),
        new_isr: proposal.change.new_isr.iter().map(member).collect(),
    }
}

fn from_wire(altered: AlteredWire) -> Option<(TopicPartition, Outcome)> {
    let topic_id = TopicId::from_slice(&altered.topic_id)?;
    let partition = TopicPartition::new(topic_id, PartitionIndex(altered.partition));
    let code = altered.error.map_or(0, |error| error.code);
    let code = i16::try_from(code)
        .ok()
        .and_then(ErrorCode::from_code)
        .unwrap_or(ErrorCode::UnknownServerError);
    let outcome = if code.is_none() {
        Ok(AlteredPartition {
            leader: (altered.leader >= 0).then_some(BrokerId(altered.leader)),
            leader_epoch: LeaderEpoch(altered.leader_epoch),
            partition_epoch: PartitionEpoch(altered.partition_epoch),
            isr: altered.isr.into_iter().map(BrokerId).collect(),
        })
    } else {
        Err(IsrError::Refused(code))
    };
    Some((partition, outcome))
}
