//! Does what a client asked this broker for where it can be done: at a partition's leader, at a group's
//! coordinator. Of Kafka's requests that is OffsetFetch alone; for gRPC, whatever programs write, read and
//! commit. It is done by this broker itself, or by another one, asked over its internal port
//! (`proto/ottla/v1/relay.proto`), which answers by itself or refuses: calls cannot go round.
//!
//! One attempt each, but for groups: whoever appends or reads knows what a second attempt may do.

mod coordinator;
mod groups;
mod here;
mod offsets;
mod peers;
mod service;
mod wire;

use std::time::Duration;

use bytes::Bytes;
use protocol::grpc::v1::{RelayAppendRequest, RelayReadRequest};
use protocol::{BrokerId, ErrorCode, LeaderEpoch, Offset, TopicPartition};
use replication::{Acks, FetchedRecords};
use tokio::time::{Instant, timeout_at};
use tonic::Status;

use crate::{
    context::BrokerContext,
    partitions::{append::Refusal, read::Limits},
};

pub(crate) use peers::Peers;
pub(crate) use service::RelayService;
pub(crate) use wire::{acks, code_of, isolation, kafka_error};

/// A little more than the other broker is given, so that its own "timed out" arrives.
const MARGIN: Duration = Duration::from_millis(500);
/// However long a read waits, its answer takes no longer than this beyond it.
const READ_PATIENCE: Duration = Duration::from_secs(10);

/// The way to leaders and coordinators. A clone is a handle to the same connections.
#[derive(Clone, Debug)]
pub(crate) struct Relay {
    broker: BrokerContext,
}

/// A batch that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Appended {
    pub(crate) base_offset: Offset,
    /// The leader's timestamp (ms since 1970), where the topic takes it.
    pub(crate) log_append_time: Option<i64>,
}

/// One partition to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PartitionRead {
    pub(crate) tp: TopicPartition,
    pub(crate) from: Offset,
    /// The epoch of the last record that the reader has: a log that has diverged from it says so.
    pub(crate) last_epoch: Option<LeaderEpoch>,
}

impl Relay {
    pub(crate) fn new(broker: BrokerContext) -> Self {
        Self { broker }
    }

    /// Has `leader` append one batch, until `deadline`. NETWORK_EXCEPTION and REQUEST_TIMED_OUT: it may have
    /// been written.
    pub(crate) async fn append(
        &self,
        leader: BrokerId,
        tp: TopicPartition,
        batch: Bytes,
        acks: Acks,
        deadline: Instant,
    ) -> Result<Appended, Refusal> {
        if leader == self.broker.config.node_id {
            return here::append(&self.broker, tp, batch, acks, deadline).await;
        }
        let mut peer = self
            .broker
            .peers
            .client(leader)
            .map_err(|why| unreached(leader, &why))?;
        let left = deadline.saturating_duration_since(Instant::now());
        let request = RelayAppendRequest {
            hello: Some(self.broker.peers.hello(leader)),
            topic_id: Bytes::copy_from_slice(tp.topic_id.0.as_bytes()),
            partition: tp.partition.get(),
            batch,
            acks: wire::acks_to_wire(acks).into(),
            timeout_ms: left.as_millis() as u32,
        };
        match timeout_at(deadline + MARGIN, peer.append(request)).await {
            Ok(Ok(reply)) => wire::appended(reply.into_inner()),
            Ok(Err(status)) => Err(unreached(leader, &status)),
            Err(_) => Err(Refusal::new(
                ErrorCode::RequestTimedOut,
                format!("broker {leader} did not answer in time"),
            )),
        }
    }

    /// Has `leader` read; as many results, in the same order.
    pub(crate) async fn read(
        &self,
        leader: BrokerId,
        reads: &[PartitionRead],
        limits: Limits,
    ) -> Vec<Result<FetchedRecords, ErrorCode>> {
        if leader == self.broker.config.node_id {
            return here::read(&self.broker, reads, limits).await;
        }
        let failed = |error: ErrorCode| vec![Err(error); reads.len()];
        let Ok(mut peer) = self.broker.peers.client(leader) else {
            return failed(ErrorCode::NetworkException);
        };
        let now = Instant::now();
        let wait = limits
            .wait_until
            .map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
        let request = RelayReadRequest {
            hello: Some(self.broker.peers.hello(leader)),
            partitions: reads.iter().map(wire::read_to_wire).collect(),
            isolation: wire::isolation_to_wire(limits.isolation).into(),
            max_bytes: limits.max_bytes as u32,
            wait_ms: wait.as_millis() as u32,
        };
        let reply = match timeout_at(now + wait + READ_PATIENCE, peer.read(request)).await {
            Ok(Ok(reply)) => reply.into_inner().partitions,
            Ok(Err(status)) => {
                tracing::debug!(%leader, %status, "read at another broker failed");
                return failed(ErrorCode::NetworkException);
            }
            Err(_) => return failed(ErrorCode::RequestTimedOut),
        };
        if reply.len() != reads.len() {
            tracing::warn!(%leader, "another broker answered for other partitions than it was asked for");
            return failed(ErrorCode::UnknownServerError);
        }
        reply.into_iter().map(wire::records).collect()
    }
}

fn unreached(broker: BrokerId, status: &Status) -> Refusal {
    Refusal::new(
        ErrorCode::NetworkException,
        format!("broker {broker}: {}", status.message()),
    )
}
