//! Fetch: from a request to a stream whose offsets are known.

mod ahead;
mod decode;
mod reader;

use std::collections::BTreeSet;
use std::time::Duration;

use metadata::Topic;
use protocol::grpc::v1::offset_query::At;
use protocol::grpc::v1::{
    EarliestOffset, FetchRequest, FetchResponse, KafkaError, LatestOffset, OffsetAnswer, OffsetQuery,
    fetch_partition, fetch_request,
};
use protocol::{ErrorCode, Offset, PartitionIndex};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status};

use super::{RecordsService, deadline, isolation, status};
use crate::relay::code_of;
pub(super) use ahead::ReadAhead;
use reader::{Reader, Reading};

/// Before leaders are asked again that could not say.
const PAUSE: Duration = Duration::from_millis(100);
/// Bytes that are held for a stream where the client does not say.
const DEFAULT_BYTES: u32 = 1 << 20;
/// However many it asks for.
const MOST_BYTES: u32 = 8 << 20;

/// Where a stream begins in one partition.
#[derive(Clone, Copy)]
enum Start {
    At(Offset),
    Find(At),
}

impl RecordsService {
    /// Answers once every partition's first offset is known; what comes out is the stream.
    pub(super) async fn begin_fetch(
        &self,
        request: Request<FetchRequest>,
    ) -> Result<ReceiverStream<Result<FetchResponse, Status>>, Status> {
        let of_client = deadline::of_client(request.metadata());
        let request = request.into_inner();
        let image = self.broker.images.current();
        let topic = image.topic(&request.topic).ok_or_else(|| {
            let why = format!("there is no topic {:?}", request.topic);
            status::refused(ErrorCode::UnknownTopicOrPartition, why)
        })?;
        let starts = starts(&request, topic)?;
        let deadline = deadline::of_attempt(None, of_client);
        let offsets = self.resolve(&request.topic, starts, deadline).await?;
        let max_bytes = request.max_bytes.unwrap_or(DEFAULT_BYTES).clamp(1, MOST_BYTES);
        let reading = Reading {
            topic: topic.id,
            name: topic.name.clone(),
            new_partitions: request.partitions.is_empty() && !request.stop_at_end,
            stop_at_end: request.stop_at_end,
            isolation: isolation(request.isolation)?,
            max_bytes: max_bytes as usize,
            ahead: self.ahead.clone(),
            deadline: of_client,
        };
        // One message waits to be sent while the next is made.
        let (out, stream) = mpsc::channel(1);
        let reader = Reader::new(self.broker.clone(), self.relay.clone(), reading, offsets, out);
        tokio::spawn(reader.run(self.stop.clone()));
        Ok(ReceiverStream::new(stream))
    }

    /// The offsets that the starts mean, as the partitions' leaders know them.
    async fn resolve(
        &self,
        topic: &str,
        starts: Vec<(PartitionIndex, Start)>,
        deadline: Instant,
    ) -> Result<Vec<(PartitionIndex, Offset)>, Status> {
        let query = |partition: PartitionIndex, at| OffsetQuery {
            topic: topic.to_owned(),
            partition: partition.get(),
            at: Some(at),
        };
        let (mut known, mut asked, mut queries) = (Vec::with_capacity(starts.len()), Vec::new(), Vec::new());
        for (partition, start) in starts {
            match start {
                Start::At(offset) => known.push((partition, offset)),
                Start::Find(at) => {
                    asked.push(partition);
                    queries.push(query(partition, at));
                }
            }
        }
        let answers = self.find(queries, deadline).await?;
        let mut at_end = Vec::new();
        for (partition, answer) in asked.into_iter().zip(answers) {
            match answer.offset {
                Some(offset) => known.push((partition, Offset(offset))),
                // No record is that late: what is written from now on is.
                None => at_end.push(partition),
            }
        }
        let latest = |partition: &PartitionIndex| query(*partition, At::Latest(LatestOffset {}));
        let ends = self.find(at_end.iter().map(latest).collect(), deadline).await?;
        for (partition, end) in at_end.into_iter().zip(ends) {
            let offset = end.offset.unwrap_or_default();
            known.push((partition, Offset(offset)));
        }
        Ok(known)
    }

    /// Asks the leaders until all have answered, or `deadline`.
    async fn find(&self, queries: Vec<OffsetQuery>, deadline: Instant) -> Result<Vec<OffsetAnswer>, Status> {
        if queries.is_empty() {
            return Ok(Vec::new());
        }
        loop {
            let answers = timeout_at(deadline, self.admin.find_offsets(queries.clone(), false));
            let Ok(answers) = answers.await else {
                let why = "the partitions' leaders did not say in time where they begin and end";
                return Err(status::refused(ErrorCode::RequestTimedOut, why));
            };
            let failed = |answer: &OffsetAnswer| answer.error.clone().filter(|error| error.code != 0);
            let Some(error) = answers.iter().find_map(failed) else {
                return Ok(answers);
            };
            if !is_for_now(&error) || Instant::now() >= deadline {
                return Err(status::of(&error));
            }
            sleep(PAUSE).await;
        }
    }
}

/// Whether the leader may know it in a moment. That a topic is not there is for good.
fn is_for_now(error: &KafkaError) -> bool {
    let code = code_of(error);
    code.is_retriable() && code != ErrorCode::UnknownTopicOrPartition
}

/// Which partitions are read, and from where; refused where the request contradicts itself or the topic.
fn starts(request: &FetchRequest, topic: &Topic) -> Result<Vec<(PartitionIndex, Start)>, Status> {
    use fetch_partition::Start as OfPartition;
    use fetch_request::Start as OfRequest;

    let otherwise = match request.start {
        Some(OfRequest::Earliest(_)) => Start::Find(At::Earliest(EarliestOffset {})),
        Some(OfRequest::Latest(_)) | None => Start::Find(At::Latest(LatestOffset {})),
        Some(OfRequest::Offset(offset)) => at(offset)?,
        Some(OfRequest::TimestampMs(time)) => Start::Find(At::TimestampMs(time)),
    };
    if request.partitions.is_empty() {
        let all = topic.partitions.keys().map(|&partition| (partition, otherwise));
        return Ok(all.collect());
    }
    let mut seen = BTreeSet::new();
    let starts = request.partitions.iter().map(|wanted| {
        let partition = PartitionIndex(wanted.partition);
        if !topic.partitions.contains_key(&partition) {
            let why = format!("topic {} has no partition {partition}", topic.name);
            return Err(status::refused(ErrorCode::UnknownTopicOrPartition, why));
        }
        if !seen.insert(partition) {
            let why = format!("partition {partition} is asked for twice");
            return Err(status::refused(ErrorCode::InvalidRequest, why));
        }
        let start = match wanted.start {
            None => otherwise,
            Some(OfPartition::Earliest(_)) => Start::Find(At::Earliest(EarliestOffset {})),
            Some(OfPartition::Latest(_)) => Start::Find(At::Latest(LatestOffset {})),
            Some(OfPartition::Offset(offset)) => at(offset)?,
            Some(OfPartition::TimestampMs(time)) => Start::Find(At::TimestampMs(time)),
        };
        Ok((partition, start))
    });
    starts.collect()
}

fn at(offset: i64) -> Result<Start, Status> {
    if offset >= 0 {
        return Ok(Start::At(Offset(offset)));
    }
    let why = format!("{offset} is no offset");
    Err(status::refused(ErrorCode::InvalidRequest, why))
}
