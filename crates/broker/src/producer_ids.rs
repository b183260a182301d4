//! Producer ids for idempotent producers, from blocks that the controller gives out (KIP-98, KIP-730).
//!
//! One task owns the current block and asks for the next before it is used up. A block that is not used
//! up is lost with the process: ids are unique, not dense.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use protocol::grpc::v1::AllocateProducerIdsRequest;
use protocol::{BrokerEpoch, BrokerId, ErrorCode, ProducerId};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::warn;

use crate::controller_client::ControllerClient;

/// How long one request for a block may take.
const BLOCK_TIMEOUT: Duration = Duration::from_secs(10);
/// The next block is asked for when fewer than this many ids are left.
const PREFETCH_BELOW: i64 = 100;
/// Callers that may wait for an id at a time; more are told to try again.
const MAX_WAITING: usize = 1024;

type Answer = oneshot::Sender<Result<ProducerId, ErrorCode>>;

/// Hands out producer ids. A clone is a handle to the same blocks.
#[derive(Clone, Debug)]
pub struct ProducerIds {
    requests: mpsc::Sender<Answer>,
}

impl ProducerIds {
    /// Starts the task that owns the blocks; it ends with the last handle.
    pub fn start(
        broker_id: BrokerId,
        broker_epoch: watch::Receiver<Option<BrokerEpoch>>,
        controller: ControllerClient,
    ) -> Self {
        let (requests, receiver) = mpsc::channel(MAX_WAITING);
        let blocks = Arc::new(Blocks {
            broker_id,
            broker_epoch,
            controller,
        });
        tokio::spawn(serve(blocks, receiver));
        Self { requests }
    }

    /// A producer id that nobody else has been given. `COORDINATOR_LOAD_IN_PROGRESS`, which every client
    /// retries, where the controller gave no block.
    pub async fn next(&self) -> Result<ProducerId, ErrorCode> {
        let (answer, id) = oneshot::channel();
        self.requests
            .try_send(answer)
            .map_err(|_| ErrorCode::CoordinatorLoadInProgress)?;
        id.await.unwrap_or(Err(ErrorCode::CoordinatorNotAvailable))
    }
}

struct Blocks {
    broker_id: BrokerId,
    broker_epoch: watch::Receiver<Option<BrokerEpoch>>,
    controller: ControllerClient,
}

impl Blocks {
    async fn fetch(&self) -> Result<Range<i64>, ErrorCode> {
        let broker_epoch = self
            .broker_epoch
            .borrow()
            .ok_or(ErrorCode::CoordinatorLoadInProgress)?;
        let request = AllocateProducerIdsRequest {
            broker_id: self.broker_id.get(),
            broker_epoch: broker_epoch.get(),
        };
        let reply = self
            .controller
            .allocate_producer_ids(request, Instant::now() + BLOCK_TIMEOUT)
            .await
            .map_err(|error| {
                warn!(%error, "the controller gave no block of producer ids");
                ErrorCode::CoordinatorLoadInProgress
            })?;
        match reply.first.checked_add(i64::from(reply.count)) {
            Some(end) if reply.first >= 0 && reply.count > 0 => Ok(reply.first..end),
            _ => {
                warn!(
                    first = reply.first,
                    count = reply.count,
                    "not a block of producer ids"
                );
                Err(ErrorCode::UnknownServerError)
            }
        }
    }
}

async fn serve(blocks: Arc<Blocks>, mut requests: mpsc::Receiver<Answer>) {
    let mut current = 0..0;
    let mut following: Option<JoinHandle<Result<Range<i64>, ErrorCode>>> = None;
    while let Some(answer) = requests.recv().await {
        if current.is_empty() {
            let prefetched = match following.take() {
                Some(prefetched) => prefetched.await.ok().and_then(Result::ok),
                None => None,
            };
            let block = match prefetched {
                Some(block) => Ok(block),
                None => blocks.fetch().await,
            };
            match block {
                Ok(block) => current = block,
                Err(code) => {
                    refuse(answer, &mut requests, code);
                    continue;
                }
            }
        }
        let id = current
            .next()
            .expect("a block that was just found not to be empty");
        // A caller that went away wastes the id: nobody else may get it.
        let _ = answer.send(Ok(ProducerId(id)));
        if current.end - current.start < PREFETCH_BELOW && following.is_none() {
            let blocks = Arc::clone(&blocks);
            following = Some(tokio::spawn(async move { blocks.fetch().await }));
        }
    }
}

/// Answers everybody who waits now: the controller is not asked once for each of them in vain.
fn refuse(first: Answer, requests: &mut mpsc::Receiver<Answer>, code: ErrorCode) {
    let mut next = Some(first);
    while let Some(answer) = next {
        let _ = answer.send(Err(code));
        next = requests.try_recv().ok();
    }
}
