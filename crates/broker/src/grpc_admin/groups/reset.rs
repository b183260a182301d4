//! Sets what a group has committed, or says what it would set.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::{GroupId as WireGroupId, OffsetCommitRequest, TopicName as WireTopicName};
use kafka_protocol::protocol::StrBytes;
use protocol::ErrorCode;
use protocol::grpc::v1::admin_client::AdminClient;
use protocol::grpc::v1::offset_query::At;
use protocol::grpc::v1::reset_group_offsets_request::To;
use protocol::grpc::v1::{
    EarliestOffset, KafkaError, LatestOffset, OffsetAnswer, OffsetQuery, ResetGroupOffsetsRequest,
    ResetGroupOffsetsResponse, ResetOffset,
};
use tonic::transport::Channel;
use tonic::{Response, Status};

use super::call::{Effect, GroupAnswer as _, GroupCall, lost_its_group, may_have_been_done};
use super::describe::CommittedOffsets;
use super::kafka_error;
use crate::coordinator::group::{GroupReply, GroupRequest};
use crate::grpc_admin::{AdminService, peer, refused};

/// Sets what a group has committed, or says what it would set.
pub(super) struct Reset(pub(super) ResetGroupOffsetsRequest);

impl GroupCall for Reset {
    type Answer = ResetGroupOffsetsResponse;

    fn group(&self) -> &str {
        &self.0.group_id
    }

    fn effect(&self) -> Effect {
        match (self.0.execute, self.0.to) {
            (false, _) | (_, None) => Effect::None,
            // From where the first attempt has shifted it to.
            (true, Some(To::ShiftBy(_))) => Effect::Once,
            (true, Some(_)) => Effect::Repeatable,
        }
    }

    async fn here(&self, service: &AdminService) -> ResetGroupOffsetsResponse {
        service.reset_offsets_here(&self.0).await
    }

    async fn there(
        &self,
        mut coordinator: AdminClient<Channel>,
    ) -> Result<ResetGroupOffsetsResponse, Status> {
        let request = peer::passed_on(self.0.clone());
        let reply = coordinator.reset_group_offsets(request).await;
        reply.map(Response::into_inner)
    }
}

/// The codes that a commit was answered, by topic and partition.
type Codes = BTreeMap<(String, i32), i16>;

/// Where a partition begins and ends, and what lies at the time that was asked for.
struct Bounds {
    earliest: OffsetAnswer,
    latest: OffsetAnswer,
    at_time: Option<OffsetAnswer>,
}

impl AdminService {
    async fn reset_offsets_here(&self, request: &ResetGroupOffsetsRequest) -> ResetGroupOffsetsResponse {
        let failed = |error| ResetGroupOffsetsResponse::failed(error);
        let group = request.group_id.as_str();
        let Some(to) = request.to else {
            return failed(refused(
                ErrorCode::InvalidRequest,
                "say where to: earliest, latest, an offset, a time, a duration or a shift",
            ));
        };
        if let Err(code) = self.check_resettable(group, request.topics.is_empty()).await {
            return failed(kafka_error(code, group).unwrap_or_default());
        }
        let committed = match self.committed_offsets(group).await {
            Ok(committed) => committed,
            Err(code) => return failed(kafka_error(code, group).unwrap_or_default()),
        };
        let partitions = self.selected(request, &committed);
        let bounds = self.bounds(&partitions, to).await;
        let mut offsets: Vec<ResetOffset> = partitions
            .into_iter()
            .zip(bounds)
            .map(|((topic, partition), bounds)| {
                let before = committed
                    .get(&(topic.clone(), partition))
                    .map(|found| found.offset);
                let target = target(to, before, &bounds);
                ResetOffset {
                    topic,
                    partition,
                    before,
                    after: target.as_ref().ok().copied(),
                    error: target.err(),
                }
            })
            .collect();
        if request.execute
            && let Err(error) = self.commit(group, &mut offsets).await
        {
            return failed(error);
        }
        ResetGroupOffsetsResponse { error: None, offsets }
    }

    /// A group that has members would not notice, and commit over it. One that is not there can be given
    /// offsets of topics that are named.
    async fn check_resettable(&self, group: &str, must_exist: bool) -> Result<(), i16> {
        let unknown = ErrorCode::GroupIdNotFound.code();
        match self.describe_by_protocol(group).await {
            Ok(described) if described.members.is_empty() => Ok(()),
            Ok(_) => Err(ErrorCode::NonEmptyGroup.code()),
            Err(code) if code == unknown && !must_exist => Ok(()),
            Err(code) => Err(code),
        }
    }

    /// The partitions that the request means.
    fn selected(
        &self,
        request: &ResetGroupOffsetsRequest,
        committed: &CommittedOffsets,
    ) -> Vec<(String, i32)> {
        if request.topics.is_empty() {
            return committed.keys().cloned().collect();
        }
        let image = self.broker.images.current();
        let mut selected = std::collections::BTreeSet::new();
        for topic in &request.topics {
            if topic.partitions.is_empty() {
                let known = image.topic(&topic.topic);
                let count = known.map_or(0, |known| known.partitions.len()) as i32;
                // A topic that is not there is answered for, by its first partition.
                selected.extend((0..count.max(1)).map(|partition| (topic.topic.clone(), partition)));
            } else {
                let named = topic.partitions.iter();
                selected.extend(named.map(|&partition| (topic.topic.clone(), partition)));
            }
        }
        selected.into_iter().collect()
    }

    async fn bounds(&self, partitions: &[(String, i32)], to: To) -> Vec<Bounds> {
        let time = match to {
            To::TimestampMs(time) => Some(time),
            To::DurationMs(duration) => Some(now_ms().saturating_sub(duration)),
            _ => None,
        };
        let queries = |at: At| -> Vec<OffsetQuery> {
            partitions
                .iter()
                .map(|(topic, partition)| OffsetQuery {
                    topic: topic.clone(),
                    partition: *partition,
                    at: Some(at),
                })
                .collect()
        };
        let (earliest, latest, at_time) = tokio::join!(
            self.find_offsets(queries(At::Earliest(EarliestOffset {})), false),
            self.find_offsets(queries(At::Latest(LatestOffset {})), false),
            async {
                match time {
                    Some(time) => self.find_offsets(queries(At::TimestampMs(time)), false).await,
                    None => Vec::new(),
                }
            }
        );
        let mut at_time = at_time.into_iter();
        earliest
            .into_iter()
            .zip(latest)
            .map(|(earliest, latest)| Bounds {
                earliest,
                latest,
                at_time: at_time.next(),
            })
            .collect()
    }

    /// Commits what was found. An error is of all of it.
    async fn commit(&self, group: &str, offsets: &mut [ResetOffset]) -> Result<(), KafkaError> {
        let mut topics: BTreeMap<String, Vec<OffsetCommitRequestPartition>> = BTreeMap::new();
        for offset in offsets.iter() {
            if let Some(after) = offset.after {
                let partition = OffsetCommitRequestPartition::default()
                    .with_partition_index(offset.partition)
                    .with_committed_offset(after)
                    .with_committed_leader_epoch(-1)
                    .with_committed_metadata(Some(StrBytes::new()));
                topics.entry(offset.topic.clone()).or_default().push(partition);
            }
        }
        if topics.is_empty() {
            return Ok(());
        }
        let topics = topics.into_iter().map(|(topic, partitions)| {
            OffsetCommitRequestTopic::default()
                .with_name(WireTopicName(StrBytes::from_string(topic)))
                .with_partitions(partitions)
        });
        // As a consumer without a group's membership: only accepted where the group has no members.
        let commit = OffsetCommitRequest::default()
            .with_group_id(WireGroupId(StrBytes::from_string(group.to_owned())))
            .with_generation_id_or_member_epoch(-1)
            .with_topics(topics.collect());
        let mut codes = Codes::new();
        let request = GroupRequest::CommitOffsets(commit);
        if let GroupReply::CommitOffsets(reply) = self.ask_group(9, request).await {
            for topic in reply.topics {
                for partition in topic.partitions {
                    let place = (topic.name.to_string(), partition.partition_index);
                    codes.insert(place, partition.error_code);
                }
            }
        }
        committed_as(group, offsets, &codes)
    }
}

/// Says of each offset that was to be committed what came of it. An error is of all of them.
fn committed_as(group: &str, offsets: &mut [ResetOffset], codes: &Codes) -> Result<(), KafkaError> {
    if let Some(why) = codes.values().copied().find_map(lost_its_group) {
        return Err(may_have_been_done(group, why));
    }
    let stranger = ErrorCode::UnknownMemberId.code();
    if codes.values().any(|&code| code == stranger) {
        // A member came since it was found to be empty.
        let error = kafka_error(ErrorCode::NonEmptyGroup.code(), group);
        return Err(error.unwrap_or_default());
    }
    for offset in offsets.iter_mut().filter(|offset| offset.after.is_some()) {
        let code = codes
            .get(&(offset.topic.clone(), offset.partition))
            .copied()
            .unwrap_or(ErrorCode::UnknownServerError.code());
        if let Some(error) = kafka_error(code, group) {
            offset.after = None;
            offset.error = Some(error);
        }
    }
    Ok(())
}

/// The offset to commit: always one that is there, or the end.
fn target(to: To, before: Option<i64>, bounds: &Bounds) -> Result<i64, KafkaError> {
    let known = |answer: &OffsetAnswer| match (&answer.error, answer.offset) {
        (Some(error), _) if error.code != 0 => Err(error.clone()),
        (_, offset) => Ok(offset),
    };
    let nothing = || {
        refused(
            ErrorCode::OffsetNotAvailable,
            "the partition's leader does not know its bounds",
        )
    };
    let earliest = known(&bounds.earliest)?.ok_or_else(nothing)?;
    let latest = known(&bounds.latest)?.ok_or_else(nothing)?;
    let wanted = match to {
        To::Earliest(_) => earliest,
        To::Latest(_) => latest,
        To::Offset(offset) => offset,
        To::ShiftBy(by) => before
            .ok_or_else(|| {
                refused(
                    ErrorCode::InvalidRequest,
                    "nothing is committed for the partition, so there is nothing to shift",
                )
            })?
            .saturating_add(by),
        To::TimestampMs(_) | To::DurationMs(_) => match &bounds.at_time {
            Some(answer) => known(answer)?.unwrap_or(latest),
            None => latest,
        },
    };
    Ok(wanted.clamp(earliest, latest.max(earliest)))
}

fn now_ms() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(offset: Option<i64>) -> OffsetAnswer {
        OffsetAnswer {
            offset,
            ..OffsetAnswer::default()
        }
    }

    fn bounds(at_time: Option<OffsetAnswer>) -> Bounds {
        Bounds {
            earliest: answer(Some(10)),
            latest: answer(Some(20)),
            at_time,
        }
    }

    #[test]
    fn targets_stay_within_the_log() {
        for (to, before, expected) in [
            (To::Earliest(EarliestOffset {}), None, 10),
            (To::Latest(LatestOffset {}), None, 20),
            (To::Offset(15), None, 15),
            (To::Offset(3), None, 10),
            (To::Offset(99), None, 20),
            (To::ShiftBy(-3), Some(15), 12),
            (To::ShiftBy(i64::MIN), Some(15), 10),
            (To::ShiftBy(100), Some(15), 20),
        ] {
            assert_eq!(target(to, before, &bounds(None)), Ok(expected), "{to:?}");
        }
        assert!(target(To::ShiftBy(1), None, &bounds(None)).is_err());
    }

    #[test]
    fn a_time_after_the_last_record_is_the_end() {
        assert_eq!(
            target(To::TimestampMs(1), None, &bounds(Some(answer(Some(17))))),
            Ok(17)
        );
        assert_eq!(
            target(To::DurationMs(1), None, &bounds(Some(answer(None)))),
            Ok(20)
        );
    }

    fn found(partition: i32, after: Option<i64>) -> ResetOffset {
        ResetOffset {
            topic: "t".to_owned(),
            partition,
            after,
            ..ResetOffset::default()
        }
    }

    fn codes(codes: &[(i32, ErrorCode)]) -> Codes {
        let codes = codes.iter();
        codes
            .map(|&(partition, code)| (("t".to_owned(), partition), code.code()))
            .collect()
    }

    #[test]
    fn each_partition_says_what_came_of_it() {
        let mut offsets = [
            found(0, Some(5)),
            found(1, Some(6)),
            found(2, None),
            found(3, Some(7)),
        ];
        let codes = codes(&[(0, ErrorCode::None), (1, ErrorCode::UnknownTopicOrPartition)]);
        assert_eq!(committed_as("g", &mut offsets, &codes), Ok(()));
        let told = offsets.map(|offset| (offset.after, offset.error.map_or(0, |error| error.code)));
        let unknown = ErrorCode::UnknownServerError.code().into();
        assert_eq!(told, [(Some(5), 0), (None, 3), (None, 0), (None, unknown)]);
    }

    #[test]
    fn what_a_coordinator_did_not_confirm_may_have_been_done() {
        for (code, told) in [
            (ErrorCode::NotCoordinator, ErrorCode::RequestTimedOut),
            (ErrorCode::CoordinatorNotAvailable, ErrorCode::RequestTimedOut),
            (ErrorCode::UnknownMemberId, ErrorCode::NonEmptyGroup),
        ] {
            let mut offsets = [found(0, Some(5)), found(1, Some(6))];
            let codes = codes(&[(0, ErrorCode::UnknownTopicOrPartition), (1, code)]);
            let error = committed_as("g", &mut offsets, &codes).expect_err("all of it");
            assert_eq!(error.code, i32::from(told.code()), "{code:?}");
            assert!(!error.message.is_empty());
        }
    }

    #[test]
    fn a_shift_is_done_once() {
        let effect = |to, execute| {
            Reset(ResetGroupOffsetsRequest {
                to,
                execute,
                ..ResetGroupOffsetsRequest::default()
            })
            .effect()
        };
        assert_eq!(effect(Some(To::ShiftBy(-1)), true), Effect::Once);
        assert_eq!(effect(Some(To::DurationMs(1)), true), Effect::Repeatable);
        assert_eq!(effect(Some(To::ShiftBy(-1)), false), Effect::None);
        assert_eq!(effect(None, true), Effect::None);
    }

    #[test]
    fn a_partition_whose_leader_is_unknown_is_refused() {
        let mut bounds = bounds(None);
        bounds.latest.error = Some(refused(ErrorCode::LeaderNotAvailable, "gone"));
        let error = target(To::Latest(LatestOffset {}), None, &bounds).expect_err("no leader");
        assert_eq!(error.message, "gone");
    }
}
