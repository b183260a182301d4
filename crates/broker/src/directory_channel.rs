//! The replicas' way to the controller for the log directories that they lie in (KIP-858).

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use protocol::grpc::v1::{AssignDirectoriesReply, AssignDirectoriesRequest, DirectoryAssignment};
use protocol::{BrokerEpoch, BrokerId, DirectoryId, ErrorCode, TopicPartition};
use replication::{AssignError, DirectoryChannel};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::controller_client::{ControllerClient, ControllerError};

/// How long one request may take. What has no answer by then is asked again.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The channel over `AssignDirectories` of the active controller.
#[derive(Debug)]
pub(crate) struct ControllerDirectoryChannel {
    broker_id: BrokerId,
    broker_epoch: watch::Receiver<Option<BrokerEpoch>>,
    controller: ControllerClient,
}

impl ControllerDirectoryChannel {
    /// For the replicas of this broker.
    pub(crate) fn new(
        broker_id: BrokerId,
        broker_epoch: watch::Receiver<Option<BrokerEpoch>>,
        controller: ControllerClient,
    ) -> Self {
        Self {
            broker_id,
            broker_epoch,
            controller,
        }
    }
}

impl DirectoryChannel for ControllerDirectoryChannel {
    fn assign(
        &self,
        partition: TopicPartition,
        directory: DirectoryId,
    ) -> BoxFuture<'static, Result<(), AssignError>> {
        let (epoch, controller) = (*self.broker_epoch.borrow(), self.controller.clone());
        let broker_id = self.broker_id.get();
        async move {
            // Not registered: the next registration gives another epoch.
            let epoch = epoch.ok_or(AssignError::Unknown)?;
            let request = AssignDirectoriesRequest {
                broker_id,
                broker_epoch: epoch.get(),
                assignments: vec![DirectoryAssignment {
                    topic_id: partition.topic_id.to_vec().into(),
                    partition: partition.partition.get(),
                    directory: directory.to_vec().into(),
                }],
            };
            verdict(
                controller
                    .assign_directories(request, Instant::now() + TIMEOUT)
                    .await,
            )
        }
        .boxed()
    }
}

/// What became of a request with one assignment.
fn verdict(reply: Result<AssignDirectoriesReply, ControllerError>) -> Result<(), AssignError> {
    let code = match reply {
        Ok(reply) => {
            let result = reply.results.into_iter().next().ok_or(AssignError::Unknown)?;
            i16::try_from(result.code)
                .ok()
                .and_then(ErrorCode::from_code)
                .unwrap_or(ErrorCode::UnknownServerError)
        }
        // The broker registers anew: its next epoch may be asked with.
        Err(ControllerError::Refused {
            code: ErrorCode::StaleBrokerEpoch | ErrorCode::BrokerIdNotRegistered,
            ..
        }) => return Err(AssignError::Unknown),
        Err(ControllerError::Refused { code, .. }) => code,
        Err(
            ControllerError::Unreachable(_)
            | ControllerError::OutcomeUnknown(_)
            | ControllerError::NotSeenYet
            | ControllerError::Malformed(_),
        ) => return Err(AssignError::Unknown),
    };
    if code.is_none() {
        Ok(())
    } else {
        Err(AssignError::Refused(code))
    }
}

#[cfg(test)]
mod tests {
    use protocol::grpc::v1::KafkaError;

    use super::*;

    fn reply(codes: &[i32]) -> AssignDirectoriesReply {
        let error = |&code: &i32| KafkaError {
            code,
            message: String::new(),
        };
        AssignDirectoriesReply {
            header: None,
            results: codes.iter().map(error).collect(),
        }
    }

    #[test]
    fn what_may_have_happened_is_asked_again_and_what_was_refused_is_not() {
        assert_eq!(verdict(Ok(reply(&[0]))), Ok(()));
        assert_eq!(verdict(Ok(reply(&[]))), Err(AssignError::Unknown));
        let refused = Err(AssignError::Refused(ErrorCode::UnknownTopicOrPartition));
        assert_eq!(verdict(Ok(reply(&[3]))), refused);
        let stale = ControllerError::Refused {
            code: ErrorCode::StaleBrokerEpoch,
            message: String::new(),
        };
        assert_eq!(verdict(Err(stale)), Err(AssignError::Unknown));
        assert_eq!(
            verdict(Err(ControllerError::NotSeenYet)),
            Err(AssignError::Unknown)
        );
    }
}
