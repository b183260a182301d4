//! Finds a group's coordinator and asks it: this broker, or another one over its internal port.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::BoxFuture;
use protocol::grpc::v1::relay_client::RelayClient;
use protocol::grpc::v1::{InternalHello, KafkaError};
use protocol::{BrokerId, ErrorCode};
use tokio::time::{Instant, sleep, timeout_at};
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::Relay;
use super::wire::{code_of, kafka_error};

/// Before a coordinator is looked for again.
const PAUSE: Duration = Duration::from_millis(50);
/// Brokers to which a call is sent whose connection breaks over it: it may be the call that ends them.
const MOST_BROKEN: usize = 2;

/// Where a group is coordinated.
pub(super) enum Coordinator {
    Here,
    There(InternalHello, Box<RelayClient<Channel>>),
}

/// What a coordinator answers; the status is of a call that did not reach it.
pub(super) type Answering<'a, T> = BoxFuture<'a, Result<Result<T, KafkaError>, Status>>;

impl Relay {
    /// Has `ask` ask the group's coordinator, wherever it is: again and again, until `deadline`, while
    /// `asks_again` says of the answer that another attempt may find the coordinator.
    pub(super) async fn at_coordinator<'a, T>(
        &self,
        group: &str,
        deadline: Instant,
        ask: impl Fn(Coordinator) -> Answering<'a, T>,
        asks_again: impl Fn(&Result<T, KafkaError>) -> bool,
    ) -> Result<T, KafkaError> {
        let mut broken = BTreeSet::new();
        loop {
            let answer = match self.coordinator(group).await {
                Ok((id, coordinator)) => match timeout_at(deadline, ask(coordinator)).await {
                    Ok(Ok(answer)) => answer,
                    Ok(Err(status)) if lasts(&status) => return Err(unavailable(&status)),
                    Ok(Err(status)) => {
                        broken.insert(id);
                        Err(unavailable(&status))
                    }
                    Err(_) => Err(timed_out()),
                },
                Err(error) => Err(error),
            };
            if !asks_again(&answer) || broken.len() >= MOST_BROKEN || Instant::now() + PAUSE >= deadline {
                return answer;
            }
            sleep(PAUSE).await;
        }
    }

    /// The group's coordinator, by its id and the way to it.
    async fn coordinator(&self, group: &str) -> Result<(BrokerId, Coordinator), KafkaError> {
        let located = self.broker.groups.locate(group).await;
        let id = located.map_err(|(code, why)| kafka_error(code, why))?;
        if id == self.broker.config.node_id {
            return Ok((id, Coordinator::Here));
        }
        let peers = &self.broker.peers;
        let peer = peers.client(id).map_err(|status| unavailable(&status))?;
        Ok((id, Coordinator::There(peers.hello(id), Box::new(peer))))
    }
}

/// Whether the same call would fail in the same way once more: the other broker does not know it, or the
/// request or its answer is too large.
pub(super) fn lasts(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::OutOfRange | Code::ResourceExhausted | Code::Unimplemented | Code::InvalidArgument
    )
}

/// Whether another attempt may find the coordinator. No call of these does harm when it is made twice.
pub(super) fn may_find_it(error: &KafkaError) -> bool {
    matches!(
        code_of(error),
        ErrorCode::CoordinatorLoadInProgress | ErrorCode::CoordinatorNotAvailable | ErrorCode::NotCoordinator
    )
}

fn unavailable(status: &Status) -> KafkaError {
    kafka_error(ErrorCode::CoordinatorNotAvailable, status.message())
}

fn timed_out() -> KafkaError {
    kafka_error(
        ErrorCode::RequestTimedOut,
        "the coordinator did not answer in time",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_that_would_fail_again_are_not_repeated() {
        for code in [
            Code::OutOfRange,
            Code::ResourceExhausted,
            Code::Unimplemented,
            Code::InvalidArgument,
        ] {
            assert!(lasts(&Status::new(code, "")), "{code}");
        }
        for code in [
            Code::Unavailable,
            Code::Cancelled,
            Code::Unknown,
            Code::DeadlineExceeded,
        ] {
            assert!(!lasts(&Status::new(code, "")), "{code}");
        }
    }
}
