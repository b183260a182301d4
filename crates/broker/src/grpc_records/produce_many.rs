//! A stream of requests to produce: while one round is being written, the next gathers.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;

use prost::Message;
use protocol::grpc::v1::{
    ProduceManyResponse, ProduceProgress, ProduceRequest, ProducedPartition, ProducedRecord,
};
use tokio::time::Instant;
use tonic::{Request, Status, Streaming};

use super::producers::Producer;
use super::{RecordsService, check, deadline, status, writing};

/// Bytes of messages that gather before the stream is left to wait.
const ROUND_BYTES: usize = 4 << 20;

/// Messages that go together: of one topic, in one manner.
#[derive(Debug)]
struct Round {
    request: ProduceRequest,
    messages: u64,
    bytes: usize,
}

/// A round that was written, and the producer for the next.
type Written = (u64, String, Result<Vec<ProducedRecord>, Status>, Option<Producer>);

/// What has been written so far.
#[derive(Debug, Default)]
struct Summary {
    progress: ProduceProgress,
    partitions: BTreeMap<String, BTreeMap<i32, ProducedPartition>>,
}

impl RecordsService {
    /// Writes what comes until the client is done, or something cannot be written.
    pub(super) async fn produce_stream(
        &self,
        request: Request<Streaming<ProduceRequest>>,
    ) -> Result<ProduceManyResponse, Status> {
        let of_client = deadline::of_client(request.metadata());
        let mut messages = request.into_inner();
        let mut gathered: VecDeque<Round> = VecDeque::new();
        let mut in_flight: Option<Pin<Box<dyn Future<Output = Written> + Send + '_>>> = None;
        let mut producer = None;
        let mut summary = Summary::default();
        let mut more = true;
        loop {
            if in_flight.is_none() {
                match gathered.pop_front() {
                    Some(round) => {
                        let round = self.write_round(round, producer.take(), of_client);
                        in_flight = Some(Box::pin(round));
                    }
                    None if !more => break,
                    None => {}
                }
            }
            let waiting: usize = gathered.iter().map(|round| round.bytes).sum();
            let written = async {
                match &mut in_flight {
                    Some(round) => round.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                (count, topic, outcome, lent) = written => {
                    in_flight = None;
                    producer = lent;
                    summary.take(count, &topic, outcome)?;
                }
                message = messages.message(), if more && waiting < ROUND_BYTES => match message? {
                    Some(request) => {
                        check(&request).map_err(|refused| summary.ends(&refused))?;
                        gather(&mut gathered, request);
                    }
                    None => more = false,
                },
                () = self.stop.cancelled() => {
                    return Err(summary.ends(&Status::unavailable("the broker is shutting down")));
                }
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
        let outcome = async {
            let _room = self.room(round.bytes, deadline).await?;
            self.write(writing(round.request, deadline)?, &mut producer).await
        };
        let outcome = outcome.await;
        (round.messages, topic, outcome, producer)
    }
}

/// Adds a message to the last round, where it goes together with it, else begins another.
fn gather(rounds: &mut VecDeque<Round>, mut request: ProduceRequest) {
    let bytes = request.encoded_len();
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
        }
        None => rounds.push_back(Round {
            request,
            messages: 1,
            bytes,
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
