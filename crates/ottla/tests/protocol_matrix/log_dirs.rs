//! DescribeLogDirs and AlterReplicaLogDirs.

use kafka_protocol::messages::{
    AlterReplicaLogDirsRequest, DescribeLogDirsRequest,
    alter_replica_log_dirs_request::{AlterReplicaLogDir, AlterReplicaLogDirTopic},
    describe_log_dirs_request::DescribableLogDirTopic,
    describe_log_dirs_response::DescribeLogDirsResult,
};
use protocol::ErrorCode;

use crate::{
    ground::{produce, topic},
    support::{Client, DevNode, batch, text, topic_name},
};

/// The node's only directory, as far as the topic goes; `None`: everything.
fn describe(client: &mut Client, version: i16, topic: Option<(&str, i32)>) -> DescribeLogDirsResult {
    let topics = topic.map(|(name, partition)| {
        vec![
            DescribableLogDirTopic::default()
                .with_topic(topic_name(name))
                .with_partitions(vec![partition]),
        ]
    });
    let mut answer = client.call(version, &DescribeLogDirsRequest::default().with_topics(topics));
    assert_eq!((answer.error_code, answer.results.len()), (0, 1));
    answer.results.remove(0)
}

pub(crate) fn describe_log_dirs(node: &DevNode, version: i16) {
    let topic = topic(node, &format!("log-dirs-{version}"));
    let mut client = node.client();
    let batch = batch(&[b"a value"]);
    let size = batch.len() as i64;
    produce(&mut client, &topic, batch);

    let found = describe(&mut client, version, Some((&topic.name, 0)));
    assert_eq!(found.error_code, 0);
    assert!(found.log_dir.starts_with('/'), "{}", found.log_dir);
    assert_eq!(found.topics.len(), 1);
    let partition = &found.topics[0].partitions[0];
    assert_eq!(
        (
            partition.partition_index,
            partition.partition_size,
            partition.offset_lag
        ),
        (0, size, 0)
    );
    assert!(!partition.is_future_key);
    if version >= 4 {
        assert!(found.usable_bytes > 0 && found.total_bytes >= found.usable_bytes);
    } else {
        assert_eq!((found.total_bytes, found.usable_bytes), (-1, -1));
    }
    let all = describe(&mut client, version, None);
    assert!(
        all.topics
            .iter()
            .any(|found| found.name == topic_name(&topic.name))
    );
    for unknown in [("no-such-topic", 0), (topic.name.as_str(), 1)] {
        assert!(describe(&mut client, version, Some(unknown)).topics.is_empty());
    }
}

pub(crate) fn alter_replica_log_dirs(node: &DevNode, version: i16) {
    let topic = topic(node, &format!("moved-{version}"));
    let mut client = node.client();
    let here = describe(&mut client, 4, None).log_dir;
    let mut alter = |path: &str, topic: &str, partition| {
        let wish = AlterReplicaLogDirTopic::default()
            .with_name(topic_name(topic))
            .with_partitions(vec![partition]);
        let directory = AlterReplicaLogDir::default()
            .with_path(text(path))
            .with_topics(vec![wish]);
        let request = AlterReplicaLogDirsRequest::default().with_dirs(vec![directory]);
        let mut answer = client.call(version, &request);
        assert_eq!(answer.results.len(), 1);
        let result = answer.results.remove(0);
        assert_eq!(result.topic_name, topic_name(topic));
        assert_eq!(result.partitions[0].partition_index, partition);
        ErrorCode::from_code(result.partitions[0].error_code).unwrap()
    };
    assert_eq!(alter(&here, &topic.name, 0), ErrorCode::None, "it is there");
    assert_eq!(alter("/no/such/dir", &topic.name, 0), ErrorCode::LogDirNotFound);
    let unknown = ErrorCode::UnknownTopicOrPartition;
    assert_eq!(alter(&here, &topic.name, 9), unknown);
    assert_eq!(alter(&here, "no-such-topic", 0), unknown);
    let too_long = "x".repeat(230);
    assert_eq!(alter(&here, &too_long, 0), ErrorCode::InvalidTopicException);
}
