//! Every (API, version) that the broker advertises gets a valid request from the codec crate's client
//! side; the answer is decoded in that version and looked at. An API without a case here fails.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

mod admin;
mod cluster;
mod configs;
mod consumer_groups;
mod ground;
mod group_administration;
mod group_lag;
mod group_offsets;
mod group_resets;
mod group_survival;
mod groups;
mod log_dirs;
mod offsets;
mod records;
#[path = "../support/mod.rs"]
mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};

use kafka_protocol::messages::{ApiKey, ApiVersionsRequest};
use support::{DevNode, text};

/// What must be advertised, no more and no less.
const ADVERTISED: [(ApiKey, i16, i16); 32] = [
    (ApiKey::Produce, 0, 13),
    (ApiKey::Fetch, 4, 17),
    (ApiKey::ListOffsets, 1, 10),
    (ApiKey::Metadata, 0, 13),
    (ApiKey::OffsetCommit, 2, 9),
    (ApiKey::OffsetFetch, 1, 9),
    (ApiKey::FindCoordinator, 0, 6),
    (ApiKey::JoinGroup, 0, 9),
    (ApiKey::Heartbeat, 0, 4),
    (ApiKey::LeaveGroup, 0, 5),
    (ApiKey::SyncGroup, 0, 5),
    (ApiKey::DescribeGroups, 0, 6),
    (ApiKey::ListGroups, 0, 5),
    (ApiKey::ApiVersions, 0, 4),
    (ApiKey::CreateTopics, 2, 7),
    (ApiKey::DeleteTopics, 1, 6),
    (ApiKey::DeleteRecords, 0, 2),
    (ApiKey::InitProducerId, 0, 5),
    (ApiKey::OffsetForLeaderEpoch, 2, 4),
    (ApiKey::DescribeConfigs, 1, 4),
    (ApiKey::AlterConfigs, 0, 2),
    (ApiKey::AlterReplicaLogDirs, 1, 2),
    (ApiKey::DescribeLogDirs, 1, 4),
    (ApiKey::CreatePartitions, 0, 3),
    (ApiKey::DeleteGroups, 0, 2),
    (ApiKey::ElectLeaders, 0, 2),
    (ApiKey::IncrementalAlterConfigs, 0, 1),
    (ApiKey::OffsetDelete, 0, 0),
    (ApiKey::DescribeCluster, 0, 2),
    (ApiKey::ConsumerGroupHeartbeat, 0, 1),
    (ApiKey::ConsumerGroupDescribe, 0, 1),
    (ApiKey::DescribeTopicPartitions, 0, 0),
];

/// Sends one API's requests in one version and looks at the answers.
type Case = fn(&DevNode, i16);

fn case_of(key: ApiKey) -> Option<Case> {
    Some(match key {
        ApiKey::Produce => records::produce,
        ApiKey::Fetch => records::fetch,
        ApiKey::ListOffsets => offsets::list_offsets,
        ApiKey::OffsetForLeaderEpoch => offsets::offset_for_leader_epoch,
        ApiKey::DeleteRecords => offsets::delete_records,
        ApiKey::Metadata => cluster::metadata,
        ApiKey::FindCoordinator => groups::find_coordinator,
        ApiKey::ApiVersions => cluster::api_versions,
        ApiKey::InitProducerId => cluster::init_producer_id,
        ApiKey::DescribeCluster => cluster::describe_cluster,
        ApiKey::DescribeTopicPartitions => cluster::describe_topic_partitions,
        ApiKey::CreateTopics => admin::create_topics,
        ApiKey::DeleteTopics => admin::delete_topics,
        ApiKey::CreatePartitions => admin::create_partitions,
        ApiKey::ElectLeaders => admin::elect_leaders,
        ApiKey::DescribeConfigs => configs::describe_configs,
        ApiKey::AlterConfigs => configs::alter_configs,
        ApiKey::IncrementalAlterConfigs => configs::incremental_alter_configs,
        ApiKey::AlterReplicaLogDirs => log_dirs::alter_replica_log_dirs,
        ApiKey::DescribeLogDirs => log_dirs::describe_log_dirs,
        ApiKey::JoinGroup => groups::join_group,
        ApiKey::SyncGroup => groups::sync_group,
        ApiKey::Heartbeat => groups::heartbeat,
        ApiKey::LeaveGroup => groups::leave_group,
        ApiKey::DescribeGroups => groups::describe_groups,
        ApiKey::ListGroups => groups::list_groups,
        ApiKey::DeleteGroups => groups::delete_groups,
        ApiKey::ConsumerGroupHeartbeat => consumer_groups::heartbeat,
        ApiKey::ConsumerGroupDescribe => consumer_groups::describe,
        ApiKey::OffsetCommit => group_offsets::offset_commit,
        ApiKey::OffsetFetch => group_offsets::offset_fetch,
        ApiKey::OffsetDelete => group_offsets::offset_delete,
        _ => return None,
    })
}

#[test]
fn every_advertised_version_is_answered() {
    let node = DevNode::shared();
    let request = ApiVersionsRequest::default()
        .with_client_software_name(text("test"))
        .with_client_software_version(text("1.0"));
    let advertised: Vec<(ApiKey, i16, i16)> = node
        .client()
        .call(4, &request)
        .api_keys
        .iter()
        .map(|api| {
            (
                ApiKey::try_from(api.api_key).unwrap(),
                api.min_version,
                api.max_version,
            )
        })
        .collect();
    assert_eq!(advertised, ADVERTISED);

    let mut failures = Vec::new();
    for (key, from, to) in advertised {
        let case = case_of(key).unwrap_or_else(|| panic!("{key:?} is advertised and has no case"));
        for version in from..=to {
            // One line for each failure: a handler's bugs come in versions.
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| case(&node, version))) {
                let why = panic
                    .downcast_ref::<String>()
                    .map(String::as_str)
                    .or_else(|| panic.downcast_ref::<&str>().copied())
                    .unwrap_or("it panicked");
                failures.push(format!("{key:?} {version}: {why}"));
            }
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}
