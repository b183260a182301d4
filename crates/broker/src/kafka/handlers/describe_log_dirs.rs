//! DescribeLogDirs (key 35), versions 1–4: the log directories of the broker that is asked, with the logs
//! in each, and from version 4 on with the size of its file system. A directory that is offline has an
//! error in place of logs. Null topics mean every log; naming partitions leaves out the others.

use std::collections::{BTreeMap, HashSet};

use kafka_protocol::{
    messages::{
        ApiKey, DescribeLogDirsRequest, DescribeLogDirsResponse, TopicName as WireTopicName,
        describe_log_dirs_response::{DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic},
    },
    protocol::StrBytes,
};
use protocol::ErrorCode;
use replication::{LogDirectory, LogInDirectory};

use crate::kafka::{Request, api::Api};

pub(crate) const API: Api = Api::new(ApiKey::DescribeLogDirs, 1, 4);

/// What Kafka says of a size that it does not know.
const UNKNOWN_BYTES: i64 = -1;

/// Partitions by topic name; `None`: all.
type Wanted = Option<HashSet<(String, i32)>>;

pub(crate) async fn handle(request: Request, message: DescribeLogDirsRequest) -> DescribeLogDirsResponse {
    let wanted: Wanted = message.topics.map(|topics| {
        let named = topics.into_iter().flat_map(|topic| {
            let name = topic.topic.to_string();
            topic
                .partitions
                .into_iter()
                .map(move |partition| (name.clone(), partition))
        });
        named.collect()
    });
    match request.broker.replicas.log_directories().await {
        Ok(directories) => {
            let results = directories
                .into_iter()
                .map(|directory| describe(directory, &wanted, request.version));
            DescribeLogDirsResponse::default().with_results(results.collect())
        }
        Err(error) if request.version >= 3 => {
            DescribeLogDirsResponse::default().with_error_code(error.code())
        }
        // No field for an error of the whole: as Kafka answers where it refuses.
        Err(_) => DescribeLogDirsResponse::default(),
    }
}

fn describe(directory: LogDirectory, wanted: &Wanted, version: i16) -> DescribeLogDirsResult {
    let result = DescribeLogDirsResult::default()
        .with_log_dir(StrBytes::from_string(directory.path.display().to_string()))
        .with_total_bytes(UNKNOWN_BYTES)
        .with_usable_bytes(UNKNOWN_BYTES);
    let space = match directory.space {
        Ok(space) => space,
        Err(reason) => {
            tracing::debug!(dir = %directory.path.display(), reason, "described as offline");
            return result.with_error_code(ErrorCode::KafkaStorageError.code());
        }
    };
    let result = result.with_topics(topics(directory.logs, wanted));
    if version >= 4 {
        result
            .with_total_bytes(wire_bytes(space.total_bytes))
            .with_usable_bytes(wire_bytes(space.usable_bytes))
    } else {
        result
    }
}

fn topics(logs: Vec<LogInDirectory>, wanted: &Wanted) -> Vec<DescribeLogDirsTopic> {
    let mut by_topic: BTreeMap<String, Vec<DescribeLogDirsPartition>> = BTreeMap::new();
    for log in logs {
        let (topic, partition) = (log.topic.to_string(), log.partition.partition.get());
        let key = (topic, partition);
        if wanted.as_ref().is_some_and(|wanted| !wanted.contains(&key)) {
            continue;
        }
        by_topic.entry(key.0).or_default().push(
            DescribeLogDirsPartition::default()
                .with_partition_index(partition)
                .with_partition_size(wire_bytes(log.size_bytes))
                .with_offset_lag(log.offset_lag)
                .with_is_future_key(log.is_future),
        );
    }
    let topic = |(name, mut partitions): (String, Vec<DescribeLogDirsPartition>)| {
        partitions.sort_by_key(|partition| partition.partition_index);
        DescribeLogDirsTopic::default()
            .with_name(WireTopicName(StrBytes::from_string(name)))
            .with_partitions(partitions)
    };
    by_topic.into_iter().map(topic).collect()
}

fn wire_bytes(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
