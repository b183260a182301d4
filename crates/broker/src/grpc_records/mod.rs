//! Records for programs without a Kafka client (`proto/ottla/v1/records.proto`), on the client port of every
//! broker.
//!
//! A call is taken by whichever broker it comes to. That broker makes batches of records and records of
//! batches; appends, reads and commits happen at the leader or coordinator, which [`Relay`] reaches. The
//! states of a call (a stream's offsets, a producer's sequence numbers) are with the broker that took it, so
//! a call outlives every leader, and ends with its own broker.

mod batches;
mod deadline;
mod fetch;
mod partitioner;
mod produce_many;
mod producers;
mod status;
mod write;

use std::sync::Arc;
use std::time::Instant as Began;

use prost::{Message, UnknownEnumValue};
use protocol::ErrorCode;
use protocol::batch::Compression;
use protocol::grpc::v1::records_server::{Records, RecordsServer};
use protocol::grpc::v1::{
    Acks as WireAcks, CommitRequest, CommitResponse, CommittedRequest, CommittedResponse,
    Compression as WireCompression, FetchRequest, FetchResponse, IsolationLevel, ProduceManyResponse,
    ProduceRequest, ProduceResponse,
};
use replication::Acks;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::context::BrokerContext;
use crate::grpc_admin::AdminService;
use crate::metric_names;
use crate::relay::{self, Relay};
use fetch::ReadAhead;
use partitioner::Partitioner;
use producers::Producers;
use write::Writing;

/// The largest message from a client, in bytes: what gRPC programs expect.
const REQUEST_BYTES: usize = 4 << 20;
/// Records of one message at most: it takes no thread for long. Far more are refused before they are decoded, by the
/// memory that they would take (`protocol::grpc::codec`).
const REQUEST_RECORDS: usize = 100_000;
/// Headers of all of them at most.
const REQUEST_HEADERS: usize = 200_000;
/// What a message takes in memory beside its bytes, at least.
const MESSAGE_OVERHEAD: usize = 256;
/// What a record, or a header, takes beside its bytes.
const ITEM_OVERHEAD: usize = 128;
/// Bytes of records that wait for their acknowledgement at a time, over all calls.
const UNACKNOWLEDGED_BYTES: usize = 128 << 20;

/// The service.
#[derive(Clone, Debug)]
pub(crate) struct RecordsService {
    broker: BrokerContext,
    relay: Relay,
    /// Knows where partitions begin and end.
    admin: AdminService,
    producers: Producers,
    partitioner: Arc<Partitioner>,
    /// Permits are bytes.
    unacknowledged: Arc<Semaphore>,
    /// What streams may read ahead of their clients.
    ahead: ReadAhead,
    /// False until the broker was ready for the first time: before, it does not know what there is.
    open: watch::Receiver<bool>,
    /// Cancelled when the client ports close.
    stop: CancellationToken,
}

impl RecordsService {
    pub(crate) fn new(
        broker: BrokerContext,
        relay: Relay,
        admin: AdminService,
        open: watch::Receiver<bool>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            producers: Producers::new(broker.producer_ids.clone()),
            broker,
            relay,
            admin,
            partitioner: Arc::default(),
            unacknowledged: Arc::new(Semaphore::new(UNACKNOWLEDGED_BYTES)),
            ahead: ReadAhead::new(),
            open,
            stop,
        }
    }

    /// As it is mounted.
    pub(crate) fn server(self) -> RecordsServer<Self> {
        RecordsServer::new(self).max_decoding_message_size(REQUEST_BYTES)
    }

    /// Waits until there is room for so many bytes more.
    async fn room(&self, bytes: usize, deadline: Instant) -> Result<OwnedSemaphorePermit, Status> {
        let permits = bytes.clamp(1, UNACKNOWLEDGED_BYTES) as u32;
        let room = Arc::clone(&self.unacknowledged).acquire_many_owned(permits);
        match timeout_at(deadline, room).await {
            Ok(Ok(room)) => Ok(room),
            // The semaphore is never closed.
            Ok(Err(_)) | Err(_) => Err(Status::resource_exhausted(
                "this broker has as many unacknowledged records as it holds",
            )),
        }
    }

    async fn produce_once(&self, request: Request<ProduceRequest>) -> Result<ProduceResponse, Status> {
        let of_client = deadline::of_client(request.metadata());
        let request = request.into_inner();
        let weight = check(&request)?;
        let deadline = deadline::of_attempt(request.timeout_ms, of_client);
        let _room = self.room(weight, deadline).await?;
        let mut producer = None;
        let records = self.write(writing(request, deadline)?, &mut producer).await?;
        if let Some(producer) = producer {
            self.producers.give_back(producer);
        }
        let mut errors = records.iter().filter_map(|record| record.error.as_ref());
        if let Some(first) = errors.next() {
            let failed = 1 + errors.count();
            if failed == records.len() {
                return Err(status::of(first));
            }
            return Ok(ProduceResponse {
                failed: failed as u32,
                records,
            });
        }
        Ok(ProduceResponse { records, failed: 0 })
    }

    async fn commit_once(&self, request: Request<CommitRequest>) -> Result<CommitResponse, Status> {
        let deadline = deadline::of_attempt(None, deadline::of_client(request.metadata()));
        let commit = self.relay.commit(request.into_inner(), deadline);
        let response = within(deadline, commit).await?;
        let mut results = response.offsets.iter().map(|result| result.error.as_ref());
        match results.next().flatten() {
            Some(first) if results.all(|error| error.is_some()) => Err(status::of(first)),
            _ => Ok(response),
        }
    }

    async fn look_up_committed(
        &self,
        request: Request<CommittedRequest>,
    ) -> Result<CommittedResponse, Status> {
        let deadline = deadline::of_attempt(None, deadline::of_client(request.metadata()));
        within(deadline, self.relay.committed(request.into_inner(), deadline)).await
    }

    /// Counts a call among the requests of the Kafka port; of a stream that is sent, the time to its
    /// beginning.
    async fn measured<T>(
        &self,
        name: &'static str,
        call: impl Future<Output = Result<T, Status>>,
    ) -> Result<Response<T>, Status> {
        if !*self.open.borrow() {
            return Err(Status::unavailable("the broker does not serve yet"));
        }
        let began = Began::now();
        let outcome = call.await;
        metrics::counter!(metric_names::REQUESTS, "request" => name).increment(1);
        metrics::histogram!(metric_names::REQUEST_SECONDS, "request" => name)
            .record(began.elapsed().as_secs_f64());
        outcome.map(Response::new)
    }
}

/// What comes of a coordinator's call until `deadline`.
async fn within<T>(
    deadline: Instant,
    call: impl Future<Output = Result<T, protocol::grpc::v1::KafkaError>>,
) -> Result<T, Status> {
    match timeout_at(deadline, call).await {
        Ok(outcome) => outcome.map_err(|error| status::of(&error)),
        Err(_) => {
            let why = "the group's coordinator did not answer in time";
            Err(status::refused(ErrorCode::RequestTimedOut, why))
        }
    }
}

/// Refuses what would take too long to look at; says about how many bytes the rest takes in memory.
fn check(request: &ProduceRequest) -> Result<usize, Status> {
    let records = request.records.len();
    let headers: usize = request.records.iter().map(|record| record.headers.len()).sum();
    if records > REQUEST_RECORDS || headers > REQUEST_HEADERS {
        let why = format!("a request has at most {REQUEST_RECORDS} records and {REQUEST_HEADERS} headers");
        return Err(status::refused(ErrorCode::RecordListTooLarge, why));
    }
    Ok(MESSAGE_OVERHEAD + request.encoded_len() + ITEM_OVERHEAD * (records + headers))
}

fn writing(request: ProduceRequest, deadline: Instant) -> Result<Writing, Status> {
    Ok(Writing {
        acks: acks(request.acks)?,
        compression: compression(request.compression)?,
        topic: request.topic,
        records: request.records,
        deadline,
    })
}

fn acks(value: i32) -> Result<Acks, Status> {
    known(WireAcks::try_from(value), "acks").map(relay::acks)
}

fn isolation(value: i32) -> Result<replication::Isolation, Status> {
    known(IsolationLevel::try_from(value), "isolation").map(relay::isolation)
}

fn compression(value: i32) -> Result<Compression, Status> {
    Ok(match known(WireCompression::try_from(value), "compression")? {
        WireCompression::None => Compression::None,
        WireCompression::Gzip => Compression::Gzip,
        WireCompression::Snappy => Compression::Snappy,
        WireCompression::Lz4 => Compression::Lz4,
        WireCompression::Zstd => Compression::Zstd,
    })
}

/// A newer client may know values that this broker does not.
fn known<E>(value: Result<E, UnknownEnumValue>, what: &str) -> Result<E, Status> {
    value.map_err(|unknown| {
        let why = format!("{what} {} is not known", unknown.0);
        status::refused(ErrorCode::InvalidRequest, why)
    })
}

#[tonic::async_trait]
impl Records for RecordsService {
    type FetchStream = ReceiverStream<Result<FetchResponse, Status>>;

    async fn produce(&self, request: Request<ProduceRequest>) -> Result<Response<ProduceResponse>, Status> {
        self.measured("Records.Produce", self.produce_once(request)).await
    }

    async fn produce_many(
        &self,
        request: Request<Streaming<ProduceRequest>>,
    ) -> Result<Response<ProduceManyResponse>, Status> {
        self.measured("Records.ProduceMany", self.produce_stream(request))
            .await
    }

    async fn fetch(&self, request: Request<FetchRequest>) -> Result<Response<Self::FetchStream>, Status> {
        self.measured("Records.Fetch", self.begin_fetch(request)).await
    }

    async fn commit(&self, request: Request<CommitRequest>) -> Result<Response<CommitResponse>, Status> {
        self.measured("Records.Commit", self.commit_once(request)).await
    }

    async fn committed(
        &self,
        request: Request<CommittedRequest>,
    ) -> Result<Response<CommittedResponse>, Status> {
        self.measured("Records.Committed", self.look_up_committed(request))
            .await
    }
}

#[cfg(test)]
mod tests {
    use protocol::grpc::codec::RECORDS_MEMORY;
    use protocol::grpc::footprint::{Bounded, footprint};
    use protocol::grpc::v1::{NewRecord, RecordHeader};

    use super::*;

    /// So many records, with so many headers each.
    fn request(records: usize, headers: usize) -> ProduceRequest {
        let record = NewRecord {
            headers: vec![RecordHeader::default(); headers],
            ..NewRecord::default()
        };
        ProduceRequest {
            records: vec![record; records],
            ..ProduceRequest::default()
        }
    }

    #[test]
    fn what_is_small_on_the_wire_is_not_in_memory() {
        assert_eq!(
            check(&ProduceRequest::default()).expect("empty"),
            MESSAGE_OVERHEAD
        );
        let weight = check(&request(10, 100)).expect("few");
        assert!(weight > 1000 * size_of::<RecordHeader>() + 10 * size_of::<NewRecord>());
        assert!(check(&request(1, REQUEST_HEADERS)).is_ok());
        assert!(check(&request(1, REQUEST_HEADERS + 1)).is_err());
        assert!(check(&request(REQUEST_RECORDS + 1, 0)).is_err());
    }

    /// What is refused before it is decoded is told less exactly.
    #[test]
    fn nothing_that_is_allowed_is_too_much_to_decode() {
        let fits = |request: &ProduceRequest| {
            check(request).expect("it is allowed");
            footprint(&request.encode_to_vec(), ProduceRequest::PARTS) <= RECORDS_MEMORY
        };
        for headers in 0..=8 {
            let records = (REQUEST_HEADERS / headers.max(1)).min(REQUEST_RECORDS);
            assert!(
                fits(&request(records, headers)),
                "{records} records, {headers} headers each"
            );
        }
        // Vectors that have just grown.
        let mut worst = request(REQUEST_RECORDS, 1);
        for record in worst
            .records
            .iter_mut()
            .take((REQUEST_HEADERS - REQUEST_RECORDS) / 32)
        {
            record.headers.resize(33, RecordHeader::default());
        }
        assert!(fits(&worst));
    }
}
