//! Offsets of partitions (first, last, by time), asked of whoever leads them.

use std::collections::BTreeMap;
use std::time::Duration;

use metadata::ClusterImage;
use protocol::grpc::v1::offset_query::At;
use protocol::grpc::v1::{AdminListOffsetsRequest, OffsetAnswer, OffsetQuery};
use protocol::{BrokerId, ErrorCode, Offset, PartitionIndex, TopicPartition};
use replication::{Isolation, ReadRefused};
use tokio::time::{Instant, timeout_at};
use tonic::Status;

use super::{AdminService, peer, refused};

/// How long leaders are looked for and asked: nothing here takes longer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a leader has for its answer. Less than the above: while one that hangs is asked, another may be
/// elected.
const ATTEMPT: Duration = Duration::from_secs(3);
/// Before a leader that has just changed is looked for again.
const PAUSE: Duration = Duration::from_millis(100);

impl AdminService {
    /// Answers each query, by its partition's leader. With `passed_on`, only what this broker leads.
    pub(crate) async fn find_offsets(&self, queries: Vec<OffsetQuery>, passed_on: bool) -> Vec<OffsetAnswer> {
        let deadline = Instant::now() + PATIENCE;
        let mut answers = vec![None; queries.len()];
        loop {
            self.ask_leaders(&queries, &mut answers, passed_on, deadline)
                .await;
            let unsettled = |answer: &Option<OffsetAnswer>| answer.as_ref().is_none_or(asks_again);
            if passed_on || Instant::now() >= deadline || !answers.iter().any(unsettled) {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        answers
            .into_iter()
            .zip(&queries)
            .map(|(answer, query)| {
                answer.unwrap_or_else(|| failed(query, ErrorCode::LeaderNotAvailable, "nobody answered"))
            })
            .collect()
    }

    /// One attempt at everything that is not settled yet.
    async fn ask_leaders(
        &self,
        queries: &[OffsetQuery],
        answers: &mut [Option<OffsetAnswer>],
        passed_on: bool,
        deadline: Instant,
    ) {
        let until = deadline.min(Instant::now() + ATTEMPT);
        let image = self.broker.images.current();
        let me = self.broker.config.node_id;
        let mut elsewhere: BTreeMap<BrokerId, Vec<usize>> = BTreeMap::new();
        for (at, query) in queries.iter().enumerate() {
            if answers[at].as_ref().is_some_and(|answer| !asks_again(answer)) {
                continue;
            }
            answers[at] = Some(match leader(&image, query) {
                Ok((tp, leader)) if leader == me => self.find_here(tp, query).await,
                Ok(_) if passed_on => failed(
                    query,
                    ErrorCode::NotLeaderOrFollower,
                    "this broker does not lead it",
                ),
                Ok((_, leader)) => {
                    elsewhere.entry(leader).or_default().push(at);
                    continue;
                }
                Err((code, why)) => failed(query, code, why),
            });
        }
        let asked = elsewhere.into_iter().map(|(leader, positions)| async move {
            let queries: Vec<OffsetQuery> = positions.iter().map(|&at| queries[at].clone()).collect();
            let replies = self.ask_peer(leader, queries, until).await;
            positions.into_iter().zip(replies)
        });
        for replies in futures::future::join_all(asked).await {
            for (at, reply) in replies {
                answers[at] = Some(reply);
            }
        }
    }

    async fn ask_peer(
        &self,
        leader: BrokerId,
        queries: Vec<OffsetQuery>,
        until: Instant,
    ) -> Vec<OffsetAnswer> {
        let request = AdminListOffsetsRequest {
            queries: queries.clone(),
        };
        let call = async {
            let mut peer = self.peer(leader, ATTEMPT).await?;
            peer.admin_list_offsets(peer::passed_on(request)).await
        };
        let reply = timeout_at(until, call).await;
        let silent = |_| {
            let why = format!("broker {leader}, which leads the partition, does not answer");
            Err(Status::deadline_exceeded(why))
        };
        match reply.unwrap_or_else(silent) {
            Ok(reply) if reply.get_ref().answers.len() == queries.len() => reply.into_inner().answers,
            Ok(_) => all_failed(&queries, "it answered something else"),
            Err(status) => all_failed(&queries, status.message()),
        }
    }

    async fn find_here(&self, tp: TopicPartition, query: &OffsetQuery) -> OffsetAnswer {
        match self.position(tp, query).await {
            Ok(offset) => OffsetAnswer {
                topic: query.topic.clone(),
                partition: query.partition,
                offset,
                error: None,
            },
            Err(code) => failed(query, code, "the leader cannot say now"),
        }
    }

    async fn position(&self, tp: TopicPartition, query: &OffsetQuery) -> Result<Option<i64>, ErrorCode> {
        let replica = self.broker.replicas.partition(tp)?;
        let offset = match query.at {
            Some(At::Earliest(_)) => replica.earliest(None).map(|(offset, _)| Some(offset)),
            Some(At::Latest(_)) | None => replica
                .latest(None, Isolation::ReadUncommitted)
                .map(|(offset, _)| Some(offset)),
            Some(At::TimestampMs(time)) => replica
                .offset_for_timestamp(time, None)
                .await
                .map(|found| found.map(|found| found.offset)),
        };
        Ok(offset.map_err(ReadRefused::code)?.map(Offset::get))
    }
}

/// The partition and who leads it.
fn leader(
    image: &ClusterImage,
    query: &OffsetQuery,
) -> Result<(TopicPartition, BrokerId), (ErrorCode, &'static str)> {
    let topic = image
        .topic(&query.topic)
        .ok_or((ErrorCode::UnknownTopicOrPartition, "there is no such topic"))?;
    let index = PartitionIndex(query.partition);
    let partition = topic.partitions.get(&index).ok_or((
        ErrorCode::UnknownTopicOrPartition,
        "the topic has no such partition",
    ))?;
    let leader = partition
        .leader
        .ok_or((ErrorCode::LeaderNotAvailable, "nobody leads the partition"))?;
    Ok((TopicPartition::new(topic.id, index), leader))
}

/// Whether another attempt may bring another answer.
fn asks_again(answer: &OffsetAnswer) -> bool {
    let code = answer.error.as_ref().map_or(0, |error| error.code);
    [
        ErrorCode::LeaderNotAvailable,
        ErrorCode::NotLeaderOrFollower,
        ErrorCode::OffsetNotAvailable,
    ]
    .iter()
    .any(|again| i32::from(again.code()) == code)
}

fn failed(query: &OffsetQuery, code: ErrorCode, why: &str) -> OffsetAnswer {
    OffsetAnswer {
        topic: query.topic.clone(),
        partition: query.partition,
        offset: None,
        error: Some(refused(code, why)),
    }
}

fn all_failed(queries: &[OffsetQuery], why: &str) -> Vec<OffsetAnswer> {
    queries
        .iter()
        .map(|query| failed(query, ErrorCode::LeaderNotAvailable, why))
        .collect()
}
