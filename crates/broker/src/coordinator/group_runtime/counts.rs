//! What group coordinators count: rebalances, commits and records.

use crate::coordinator::group::{GroupKind, GroupReply, Outcome};
use crate::metric_names;

/// Counts what was appended.
pub(super) fn appended(outcome: &Outcome) {
    metrics::counter!(metric_names::GROUP_RECORDS).increment(outcome.records.len() as u64);
    if outcome.targets > 0 {
        rebalanced(GroupKind::Consumer, outcome.targets);
    }
}

/// Counts what a reply says has happened.
pub(super) fn answered(reply: &GroupReply) {
    match reply {
        // The leader of a new generation is the one who is told of all members.
        GroupReply::Join(joined) if !joined.members.is_empty() && !joined.skip_assignment => {
            rebalanced(GroupKind::Classic, 1);
        }
        GroupReply::CommitOffsets(committed) => {
            let partitions = committed.topics.iter().flat_map(|topic| &topic.partitions);
            let kept = partitions.filter(|partition| partition.error_code == 0).count();
            metrics::counter!(metric_names::GROUP_COMMITS).increment(kept as u64);
        }
        _ => {}
    }
}

fn rebalanced(protocol: GroupKind, times: u64) {
    metrics::counter!(metric_names::GROUP_REBALANCES, "protocol" => protocol.name()).increment(times);
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::{
        JoinGroupResponse, OffsetCommitResponse,
        join_group_response::JoinGroupResponseMember,
        offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic},
    };
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[test]
    fn rebalances_are_counted_by_protocol() {
        let recorder = PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, || {
            appended(&Outcome {
                targets: 2,
                ..Outcome::default()
            });
            appended(&Outcome::default());
            let leader = JoinGroupResponse::default().with_members(vec![JoinGroupResponseMember::default()]);
            answered(&GroupReply::Join(leader));
            answered(&GroupReply::Join(JoinGroupResponse::default()));
            let partitions = [0, 0, 16]
                .map(|error_code| OffsetCommitResponsePartition::default().with_error_code(error_code));
            let topic = OffsetCommitResponseTopic::default().with_partitions(partitions.to_vec());
            let committed = OffsetCommitResponse::default().with_topics(vec![topic]);
            answered(&GroupReply::CommitOffsets(committed));
        });
        let page = recorder.handle().render();
        let has = |line: &str| assert!(page.lines().any(|other| other == line), "{line} in\n{page}");
        has("ottla_group_rebalances_total{protocol=\"consumer\"} 2");
        has("ottla_group_rebalances_total{protocol=\"classic\"} 1");
        has("ottla_group_offset_commits_total 2");
    }
}
