//! A stream of requests to produce: while one round is being written, the next gathers.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::time::Duration;

use protocol::grpc::v1::{
    ProduceManyResponse, ProduceProgress, ProduceRequest, ProducedPartition, ProducedRecord,
};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep_until};
use tonic::{Request, Status, Streaming};

use super::producers::Producer;
use super::{RecordsService, check, deadline, status, writing};

/// Bytes of messages that gather before the stream is left to wait.
const ROUND_BYTES: usize = 4 << 20;
/// For how long a broker that shuts down waits to hear what became of a round.
const LAST_ROUND: Duration = Duration::from_secs(2);

/// Messages that go together: of one topic, in one manner.
#[derive(Debug)]
struct Round {
    request: ProduceRequest,
    messages: u64,
    /// What its messages take in memory, roughly.
    bytes: usize,
    /// For so many bytes.
    room: OwnedSemaphorePermit,
}

/// A message for which there is room, or not in time.
type Entered = (ProduceRequest, usize, Result<OwnedSemaphorePermit, Status>);

/// A round that was written, and the producer for the next.
type Written = (u64, String, Result<Vec<ProducedRecord>, Status>, Option<Producer>);

/// What has been written so far.
#[derive(Debug, Default)]
struct Summary {
    progress: ProduceProgress,
    partitions: BTreeMap<String, BTreeMap<i32, ProducedPartition>>,
}

impl RecordsService {
    /// Writes what comes until the client is done, or something cannot be written. However it ends, what
    /// became of the round in flight is told.
    pub(super) async fn produce_stream(
        &self,
        request: Request<Streaming<ProduceRequest>>,
    ) -> Result<ProduceManyResponse, Status> {
        let of_client = deadline::of_client(request.metadata());
        let mut messages = request.into_inner();
        let mut gathered: VecDeque<Round> = VecDeque::new();
        let mut in_flight: Option<Pin<Box<dyn Future<Output = Written> + Send + '_>>> = None;
        let mut entering: Option<Pin<Box<dyn Future<Output = Entered> + Send + '_>>> = None;
        let mut producer = None;
        let mut summary = Summary::default();
        let mut more = true;
        // What has gathered and is in no round yet.
        let mut waiting = 0;
        let mut ending: Option<Status> = None;
        let mut patience: Option<Instant> = None;
        loop {
            if let Some(status) = &ending {
                // What has not begun is not written: the client knows from the count where to go on.
                gathered.clear();
                entering = None;
                let is_over = patience.is_some_and(|end| end <= Instant::now());
                if in_flight.is_none() || is_over {
                    return Err(summary.ends(status));
                }
            }
            if in_flight.is_none() {
                match gathered.pop_front() {
                    Some(round) => {
                        waiting -= round.bytes;
                        let round = self.write_round(round, producer.take(), of_client);
                        in_flight = Some(Box::pin(round));
                    }
                    None if !more && entering.is_none() => break,
                    None => {}
                }
            }
            let takes = more && entering.is_none() && ending.is_none() && waiting < ROUND_BYTES;
            let written = async {
                match &mut in_flight {
                    Some(round) => round.await,
                    None => std::future::pending().await,
                }
            };
            let entered = async {
                match &mut entering {
                    Some(message) => message.await,
                    None => std::future::pending().await,
                }
            };
            let over = async {
                match patience {
                    Some(end) => sleep_until(end).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                (count, topic, outcome, lent) = written => {
                    in_flight = None;
                    producer = lent;
                    summary.take(count, &topic, outcome)?;
                }
                (request, bytes, room) = entered => {
                    entering = None;
                    match room {
                        Ok(room) => {
                            waiting += bytes;
                            gather(&mut gathered, request, bytes, room);
                        }
                        Err(status) => ending = Some(status),
                    }
                }
                message = messages.message(), if takes => {
                    match message.and_then(|message| message.map(weighed).transpose()) {
                        Ok(Some((request, bytes))) => {
                            let deadline = deadline::of_attempt(request.timeout_ms, of_client);
                            entering = Some(Box::pin(async move {
                                let room = self.room(bytes, deadline).await;
                                (request, bytes, room)
                            }));
                        }
                        Ok(None) => more = false,
                        Err(status) => ending = Some(status),
                    }
                }
                () = self.stop.cancelled(), if ending.is_none() => {
                    ending = Some(Status::unavailable("the broker is shutting down"));
                    patience = Some(Instant::now() + LAST_ROUND);
                }
                () = over => {}
            }
        }
        if let Some(producer) = producer {
            self.producers.give_back(producer);
        }
        Ok(ProduceManyResponse {
            records: summary.progress.records,
            partitions: summary
                .partitions
                .into_values()
                .flat_map(BTreeMap::into_values)
                .collect(),
        })
    }

    async fn write_round(
        &self,
        round: Round,
        mut producer: Option<Producer>,
        of_client: Option<Instant>,
    ) -> Written {
        let deadline = deadline::of_attempt(round.request.timeout_ms, of_client);
        let topic = round.request.topic.clone();
        let outcome = async { self.write(writing(round.request, deadline)?, &mut producer).await };
        let outcome = outcome.await;
        drop(round.room);
        (round.messages, topic, outcome, producer)
    }
}

/// A message with what it takes in memory, unless it is too much to look at.
fn weighed(request: ProduceRequest) -> Result<(ProduceRequest, usize), Status> {
    let bytes = check(&request)?;
    Ok((request, bytes))
}

/// Adds a message to the last round, where it goes together with it, else begins another.
fn gather(
    rounds: &mut VecDeque<Round>,
    mut request: ProduceRequest,
    bytes: usize,
    room: OwnedSemaphorePermit,
) {
    let same = |round: &&mut Round| {
        let last = &round.request;
        (&last.topic, last.acks, last.compression, last.timeout_ms)
            == (
                &request.topic,
                request.acks,
                request.compression,
                request.timeout_ms,
            )
            && round.bytes + bytes <= ROUND_BYTES
            && last.records.len() + request.records.len() <= super::REQUEST_RECORDS
    };
    match rounds.back_mut().filter(same) {
        Some(round) => {
            round.request.records.append(&mut request.records);
            round.messages += 1;
            round.bytes += bytes;
            round.room.merge(room);
        }
        None => rounds.push_back(Round {
            request,
            messages: 1,
            bytes,
            room,
        }),
    }
}

impl Summary {
    /// Takes in what became of a round; fails with what the stream ends with.
    fn take(
        &mut self,
        messages: u64,
        topic: &str,
        outcome: Result<Vec<ProducedRecord>, Status>,
    ) -> Result<(), Status> {
        let records = outcome.map_err(|refused| self.ends(&refused))?;
        let of_topic = self.partitions.entry(topic.to_owned()).or_default();
        let mut failure = None;
        for record in records {
            if let Some(error) = record.error {
                failure.get_or_insert(error);
                continue;
            }
            self.progress.records += 1;
            let partition = of_topic
                .entry(record.partition)
                .or_insert_with(|| ProducedPartition {
                    topic: topic.to_owned(),
                    partition: record.partition,
                    records: 0,
                    first_offset: record.offset,
                    last_offset: record.offset,
                });
            partition.records += 1;
            partition.last_offset = partition.last_offset.max(record.offset);
        }
        match failure {
            Some(error) => Err(self.ends(&status::of(&error))),
            None => {
                self.progress.messages += messages;
                Ok(())
            }
        }
    }

    /// The status of a stream that ends because of `refused`.
    fn ends(&self, refused: &Status) -> Status {
        status::and(refused, "ProduceProgress", &self.progress)
    }
}
