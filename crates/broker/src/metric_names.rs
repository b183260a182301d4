//! Names of everything this crate measures. What partitions, logs and controllers measure is named in
//! their own crates.

use kafka_protocol::messages::ApiKey;
use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// Requests answered, by `request`: Kafka's, and those of the gRPC service for records.
pub const REQUESTS: &str = "ottla_requests_total";
/// From a Kafka request's frame to its answer, by `request`; long polls included.
pub const REQUEST_SECONDS: &str = "ottla_request_seconds";
/// Bytes of Kafka frames read from clients.
pub const BYTES_IN: &str = "ottla_network_bytes_in_total";
/// Bytes of Kafka frames written to clients.
pub const BYTES_OUT: &str = "ottla_network_bytes_out_total";
/// Bytes of record batches accepted from producers.
pub const TOPIC_BYTES_IN: &str = "ottla_bytes_in_total";
/// Bytes of record batches sent to consumers.
pub const TOPIC_BYTES_OUT: &str = "ottla_bytes_out_total";
/// Records accepted from producers.
pub const RECORDS_IN: &str = "ottla_messages_in_total";
/// Kafka connections open on the client ports.
pub const CONNECTIONS: &str = "ottla_connections";
/// Whether this broker is registered, caught up and unfenced: 1 or 0.
pub const BROKER_READY: &str = "ottla_broker_ready";
/// Offset of the metadata log that this broker has applied.
pub const METADATA_APPLIED_OFFSET: &str = "ottla_metadata_applied_offset";
/// How long a group coordinator took to read its partition of `__consumer_offsets`.
pub const GROUP_LOAD_SECONDS: &str = "ottla_group_load_seconds";
/// Groups that this broker coordinates, by `state`.
pub const GROUPS: &str = "ottla_groups";
/// Members of the groups that this broker coordinates.
pub const GROUP_MEMBERS: &str = "ottla_group_members";
/// How often groups have begun to share their partitions anew, by `protocol`: generations of classic groups,
/// target assignments of those of KIP-848 (`consumer`).
pub const GROUP_REBALANCES: &str = "ottla_group_rebalances_total";
/// Offsets that groups have committed.
pub const GROUP_COMMITS: &str = "ottla_group_offset_commits_total";
/// Records between a group's committed offset and its partition's end, by `group`, `topic` and `partition`.
/// These series come and go with groups and their offsets, so no recorder has them.
pub const GROUP_LAG: &str = "ottla_group_lag";
/// What it means, for its `# HELP` line.
pub const GROUP_LAG_HELP: &str = "Records between a group's committed offset and its partition's end";
/// How long ago the first record was written that a group has not committed, as above.
pub const GROUP_LAG_SECONDS: &str = "ottla_group_lag_seconds";
/// What it means, for its `# HELP` line.
pub const GROUP_LAG_SECONDS_HELP: &str =
    "How long ago the first record was written that a group has not committed";
/// Records that group coordinators have written.
pub const GROUP_RECORDS: &str = "ottla_group_records_total";

/// Describes them to the recorder, for `# HELP` lines.
pub fn describe() {
    describe_counter!(REQUESTS, "Requests answered: Kafka's, and gRPC's for records");
    describe_histogram!(
        REQUEST_SECONDS,
        Unit::Seconds,
        "Time from a Kafka request to its answer"
    );
    describe_counter!(BYTES_IN, Unit::Bytes, "Bytes of Kafka frames read from clients");
    describe_counter!(BYTES_OUT, Unit::Bytes, "Bytes of Kafka frames written to clients");
    describe_counter!(
        TOPIC_BYTES_IN,
        Unit::Bytes,
        "Bytes of record batches accepted from producers"
    );
    describe_counter!(
        TOPIC_BYTES_OUT,
        Unit::Bytes,
        "Bytes of record batches sent to consumers"
    );
    describe_counter!(RECORDS_IN, "Records accepted from producers");
    describe_gauge!(CONNECTIONS, "Kafka connections open on the client ports");
    describe_gauge!(
        BROKER_READY,
        "1 where this broker is registered, caught up and unfenced"
    );
    describe_gauge!(
        METADATA_APPLIED_OFFSET,
        "Offset of the metadata log that this broker has applied"
    );
    describe_histogram!(
        GROUP_LOAD_SECONDS,
        Unit::Seconds,
        "Time that a group coordinator took to read its partition of __consumer_offsets"
    );
    describe_gauge!(GROUPS, "Groups that this broker coordinates");
    describe_gauge!(
        GROUP_MEMBERS,
        "Members of the groups that this broker coordinates"
    );
    describe_counter!(
        GROUP_REBALANCES,
        "Generations of classic groups, and target assignments of consumer groups"
    );
    describe_counter!(GROUP_COMMITS, "Offsets that groups have committed");
    describe_counter!(GROUP_RECORDS, "Records that group coordinators have written");
}

/// The `request` label of an API: its name in Kafka's protocol guide.
pub fn api_label(key: ApiKey) -> &'static str {
    match key {
        ApiKey::Produce => "Produce",
        ApiKey::Fetch => "Fetch",
        ApiKey::ListOffsets => "ListOffsets",
        ApiKey::Metadata => "Metadata",
        ApiKey::FindCoordinator => "FindCoordinator",
        ApiKey::OffsetCommit => "OffsetCommit",
        ApiKey::OffsetFetch => "OffsetFetch",
        ApiKey::JoinGroup => "JoinGroup",
        ApiKey::Heartbeat => "Heartbeat",
        ApiKey::LeaveGroup => "LeaveGroup",
        ApiKey::SyncGroup => "SyncGroup",
        ApiKey::DescribeGroups => "DescribeGroups",
        ApiKey::ListGroups => "ListGroups",
        ApiKey::DeleteGroups => "DeleteGroups",
        ApiKey::OffsetDelete => "OffsetDelete",
        ApiKey::ApiVersions => "ApiVersions",
        ApiKey::CreateTopics => "CreateTopics",
        ApiKey::DeleteTopics => "DeleteTopics",
        ApiKey::DeleteRecords => "DeleteRecords",
        ApiKey::InitProducerId => "InitProducerId",
        ApiKey::OffsetForLeaderEpoch => "OffsetForLeaderEpoch",
        ApiKey::DescribeConfigs => "DescribeConfigs",
        ApiKey::AlterConfigs => "AlterConfigs",
        ApiKey::AlterReplicaLogDirs => "AlterReplicaLogDirs",
        ApiKey::DescribeLogDirs => "DescribeLogDirs",
        ApiKey::CreatePartitions => "CreatePartitions",
        ApiKey::ElectLeaders => "ElectLeaders",
        ApiKey::IncrementalAlterConfigs => "IncrementalAlterConfigs",
        ApiKey::DescribeCluster => "DescribeCluster",
        ApiKey::ConsumerGroupHeartbeat => "ConsumerGroupHeartbeat",
        ApiKey::ConsumerGroupDescribe => "ConsumerGroupDescribe",
        ApiKey::DescribeTopicPartitions => "DescribeTopicPartitions",
        // Labels are bounded: an API without a line here is counted, not named.
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::api::APIS;

    #[test]
    fn every_api_that_is_served_has_its_own_label() {
        for api in APIS {
            assert_eq!(api_label(api.key), format!("{:?}", api.key));
        }
    }
}
