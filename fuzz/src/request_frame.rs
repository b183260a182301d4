//! A request frame as it comes from a client, without its length prefix.

use bytes::Bytes;
use kafka_protocol::{
    messages::{self, ApiKey},
    protocol::Decodable,
};
use protocol::guard;

/// The guard takes any bytes, and what it accepts decodes.
///
/// # Panics
/// When that is not so.
pub fn run(frame: &[u8]) {
    let Ok((header, body_at)) = guard::parse_header(frame) else {
        return;
    };
    let body = &frame[body_at..];
    if guard::check_body(header.api_key, header.api_version, body).is_ok() {
        decode(header.api_key, header.api_version, Bytes::copy_from_slice(body));
    }
}

macro_rules! decoders {
    ($($key:ident => $request:ident,)*) => {
        fn decode(key: ApiKey, version: i16, mut body: Bytes) {
            match key {
                $(ApiKey::$key => {
                    messages::$request::decode(&mut body, version).expect("the guard accepted it");
                })*
                other => panic!("the guard knows {other:?}, this target does not"),
            }
        }
    };
}

decoders! {
    Produce => ProduceRequest,
    Fetch => FetchRequest,
    ListOffsets => ListOffsetsRequest,
    Metadata => MetadataRequest,
    OffsetCommit => OffsetCommitRequest,
    OffsetFetch => OffsetFetchRequest,
    FindCoordinator => FindCoordinatorRequest,
    JoinGroup => JoinGroupRequest,
    Heartbeat => HeartbeatRequest,
    LeaveGroup => LeaveGroupRequest,
    SyncGroup => SyncGroupRequest,
    DescribeGroups => DescribeGroupsRequest,
    ListGroups => ListGroupsRequest,
    ApiVersions => ApiVersionsRequest,
    CreateTopics => CreateTopicsRequest,
    DeleteTopics => DeleteTopicsRequest,
    DeleteRecords => DeleteRecordsRequest,
    InitProducerId => InitProducerIdRequest,
    OffsetForLeaderEpoch => OffsetForLeaderEpochRequest,
    DescribeConfigs => DescribeConfigsRequest,
    AlterConfigs => AlterConfigsRequest,
    AlterReplicaLogDirs => AlterReplicaLogDirsRequest,
    DescribeLogDirs => DescribeLogDirsRequest,
    CreatePartitions => CreatePartitionsRequest,
    DeleteGroups => DeleteGroupsRequest,
    ElectLeaders => ElectLeadersRequest,
    IncrementalAlterConfigs => IncrementalAlterConfigsRequest,
    OffsetDelete => OffsetDeleteRequest,
    DescribeCluster => DescribeClusterRequest,
    ConsumerGroupHeartbeat => ConsumerGroupHeartbeatRequest,
    ConsumerGroupDescribe => ConsumerGroupDescribeRequest,
    DescribeTopicPartitions => DescribeTopicPartitionsRequest,
}
