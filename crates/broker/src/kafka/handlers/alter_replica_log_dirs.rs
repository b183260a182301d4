//! AlterReplicaLogDirs (key 34), versions 1–2: moves replicas of the broker that is asked to others of its
//! log directories. The answer comes when the moves have begun; DescribeLogDirs shows how far they are. For a
//! replica that is not here the wish is remembered and the answer is `REPLICA_NOT_AVAILABLE`, as in Kafka.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use kafka_protocol::{
    messages::{
        AlterReplicaLogDirsRequest, AlterReplicaLogDirsResponse, ApiKey, TopicName as WireTopicName,
        alter_replica_log_dirs_response::{AlterReplicaLogDirPartitionResult, AlterReplicaLogDirTopicResult},
    },
    protocol::StrBytes,
};
use protocol::{ErrorCode, PartitionIndex, TopicName};
use tokio::time::Instant;

use crate::kafka::{Request, api::Api};

pub(crate) const API: Api = Api::new(ApiKey::AlterReplicaLogDirs, 1, 2);

/// How long moves that are called back are waited for, in all. The request says nothing of it; clients wait
/// for 30 seconds by default (`request.timeout.ms`).
const TIMEOUT: Duration = Duration::from_secs(15);

pub(crate) async fn handle(
    request: Request,
    message: AlterReplicaLogDirsRequest,
) -> AlterReplicaLogDirsResponse {
    // Where a partition is named more than once the last directory is meant, as in Kafka.
    let mut wishes: BTreeMap<(String, i32), String> = BTreeMap::new();
    for directory in message.dirs {
        for topic in directory.topics {
            for partition in topic.partitions {
                wishes.insert((topic.name.to_string(), partition), directory.path.to_string());
            }
        }
    }
    let until = Instant::now() + TIMEOUT;
    let mut results: BTreeMap<String, Vec<AlterReplicaLogDirPartitionResult>> = BTreeMap::new();
    for ((topic, partition), path) in wishes {
        let code = match TopicName::new(&topic) {
            Ok(name) => {
                let replicas = &request.broker.replicas;
                replicas
                    .alter_log_dir(&name, PartitionIndex(partition), Path::new(&path), until)
                    .await
            }
            // No partition has such a name, so nothing is worth remembering.
            Err(_) => ErrorCode::UnknownTopicOrPartition,
        };
        results.entry(topic).or_default().push(
            AlterReplicaLogDirPartitionResult::default()
                .with_partition_index(partition)
                .with_error_code(code.code()),
        );
    }
    let results = results.into_iter().map(|(topic, partitions)| {
        AlterReplicaLogDirTopicResult::default()
            .with_topic_name(WireTopicName(StrBytes::from_string(topic)))
            .with_partitions(partitions)
    });
    AlterReplicaLogDirsResponse::default().with_results(results.collect())
}
