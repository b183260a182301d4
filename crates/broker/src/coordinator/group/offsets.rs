//! The offsets that one group committed, and the requests about them.

use std::{collections::BTreeMap, sync::Arc};

use kafka_protocol::{
    messages::{
        OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest, OffsetDeleteResponse,
        offset_commit_request::OffsetCommitRequestPartition,
        offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic},
        offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic},
        offset_fetch_request::OffsetFetchRequestGroup,
        offset_fetch_response::{
            OffsetFetchResponseGroup, OffsetFetchResponsePartitions, OffsetFetchResponseTopics,
        },
    },
    protocol::StrBytes,
};
use protocol::{ErrorCode, LeaderEpoch, Offset, PartitionIndex};

use super::{
    config::GroupConfig,
    ids::{GroupId, LONGEST_STRING, fits, wire},
    records::{Change, OffsetKey, OffsetValue},
    request::{GroupReply, Now},
};

/// Committed offsets by topic and partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct GroupOffsets(BTreeMap<Arc<str>, BTreeMap<PartitionIndex, OffsetValue>>);

impl GroupOffsets {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, PartitionIndex, &OffsetValue)> {
        self.0.iter().flat_map(|(topic, partitions)| {
            partitions
                .iter()
                .map(move |(partition, value)| (topic, *partition, value))
        })
    }

    fn get(&self, topic: &str, partition: PartitionIndex) -> Option<&OffsetValue> {
        self.0.get(topic)?.get(&partition)
    }

    /// Sets one offset, or forgets it: the only function that changes offsets, for requests and for
    /// the log that is replayed.
    pub(super) fn apply(&mut self, key: &OffsetKey, value: Option<OffsetValue>) {
        match value {
            Some(value) => {
                let partitions = match self.0.get_mut(&key.topic) {
                    Some(partitions) => partitions,
                    None => self.0.entry(key.topic.clone()).or_default(),
                };
                partitions.insert(key.partition, value);
            }
            None => {
                if let Some(partitions) = self.0.get_mut(&key.topic) {
                    partitions.remove(&key.partition);
                    if partitions.is_empty() {
                        self.0.remove(&key.topic);
                    }
                }
            }
        }
    }

    /// Tombstones for the offsets that `which` names.
    pub(super) fn tombstones(
        &self,
        group: &GroupId,
        mut which: impl FnMut(&str, PartitionIndex, &OffsetValue) -> bool,
    ) -> Vec<Change> {
        self.iter()
            .filter(|(topic, partition, value)| which(topic, *partition, value))
            .map(|(topic, partition, _)| {
                let key = OffsetKey {
                    group: group.clone(),
                    topic: topic.clone(),
                    partition,
                };
                Change::Offset(key, None)
            })
            .collect()
    }

    /// Answers one group of an OffsetFetch: a partition without an offset has offset −1, no error.
    pub(super) fn fetch(&self, request: &OffsetFetchRequestGroup) -> GroupReply {
        let topics = match &request.topics {
            Some(topics) => topics
                .iter()
                .map(|topic| {
                    let partitions = topic
                        .partition_indexes
                        .iter()
                        .map(|&index| fetched(index, self.get(&topic.name, PartitionIndex(index))));
                    OffsetFetchResponseTopics::default()
                        .with_name(topic.name.clone())
                        .with_topic_id(topic.topic_id)
                        .with_partitions(partitions.collect())
                })
                .collect(),
            None => self
                .0
                .iter()
                .map(|(topic, partitions)| {
                    let partitions = partitions
                        .iter()
                        .map(|(index, value)| fetched(index.0, Some(value)));
                    OffsetFetchResponseTopics::default()
                        .with_name(wire(topic).into())
                        .with_partitions(partitions.collect())
                })
                .collect(),
        };
        GroupReply::FetchOffsets(
            OffsetFetchResponseGroup::default()
                .with_group_id(request.group_id.clone())
                .with_topics(topics),
        )
    }

    /// Answers an OffsetDelete that the group allows. Topics that it is subscribed to keep their
    /// offsets.
    pub(super) fn delete(
        &self,
        group: &GroupId,
        request: &OffsetDeleteRequest,
        is_subscribed: impl Fn(&str) -> bool,
    ) -> (Vec<Change>, GroupReply) {
        let mut changes = Vec::new();
        let topics = request.topics.iter().map(|topic| {
            let error = if is_subscribed(&topic.name) {
                ErrorCode::GroupSubscribedToTopic
            } else {
                ErrorCode::None
            };
            let partitions = topic.partitions.iter().map(|partition| {
                let index = partition.partition_index;
                let there = self.get(&topic.name, PartitionIndex(index)).is_some();
                if there && error == ErrorCode::None {
                    let key = OffsetKey {
                        group: group.clone(),
                        topic: Arc::from(topic.name.as_str()),
                        partition: PartitionIndex(index),
                    };
                    changes.push(Change::Offset(key, None));
                }
                OffsetDeleteResponsePartition::default()
                    .with_partition_index(index)
                    .with_error_code(error.code())
            });
            OffsetDeleteResponseTopic::default()
                .with_name(topic.name.clone())
                .with_partitions(partitions.collect())
        });
        let reply = OffsetDeleteResponse::default().with_topics(topics.collect());
        (changes, GroupReply::DeleteOffsets(reply))
    }
}

fn fetched(index: i32, value: Option<&OffsetValue>) -> OffsetFetchResponsePartitions {
    let partition = OffsetFetchResponsePartitions::default().with_partition_index(index);
    match value {
        Some(value) => partition
            .with_committed_offset(value.offset.0)
            .with_committed_leader_epoch(LeaderEpoch::to_wire(value.leader_epoch))
            .with_metadata(Some(wire(&value.metadata))),
        None => partition
            .with_committed_offset(-1)
            .with_committed_leader_epoch(-1)
            .with_metadata(Some(StrBytes::new())),
    }
}

/// Answers an OffsetCommit that the group allows: each partition on its own.
pub(super) fn commit(
    group: &GroupId,
    config: &GroupConfig,
    now: Now,
    request: &OffsetCommitRequest,
) -> (Vec<Change>, GroupReply) {
    // −1 means what the group's offsets have; versions above 4 have no such field.
    let expire_timestamp_ms =
        (request.retention_time_ms != -1).then(|| now.wall_ms.saturating_add(request.retention_time_ms));
    let mut changes = Vec::new();
    let topics = request.topics.iter().map(|topic| {
        let name: Arc<str> = Arc::from(topic.name.as_str());
        let partitions = topic.partitions.iter().map(|partition| {
            let error = if !fits(&name) {
                ErrorCode::InvalidTopicException
            } else if metadata_too_large(config, partition) {
                ErrorCode::OffsetMetadataTooLarge
            } else {
                let key = OffsetKey {
                    group: group.clone(),
                    topic: name.clone(),
                    partition: PartitionIndex(partition.partition_index),
                };
                let metadata = partition.committed_metadata.as_deref().unwrap_or_default();
                let value = OffsetValue {
                    offset: Offset(partition.committed_offset),
                    // What has an expiry has no epoch in the log, so it has none here either.
                    leader_epoch: LeaderEpoch::from_wire(partition.committed_leader_epoch)
                        .filter(|_| expire_timestamp_ms.is_none()),
                    metadata: metadata.into(),
                    commit_timestamp_ms: now.wall_ms,
                    expire_timestamp_ms,
                };
                changes.push(Change::Offset(key, Some(value)));
                ErrorCode::None
            };
            OffsetCommitResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(error.code())
        });
        OffsetCommitResponseTopic::default()
            .with_name(topic.name.clone())
            .with_topic_id(topic.topic_id)
            .with_partitions(partitions.collect())
    });
    let reply = OffsetCommitResponse::default().with_topics(topics.collect());
    (changes, GroupReply::CommitOffsets(reply))
}

fn metadata_too_large(config: &GroupConfig, partition: &OffsetCommitRequestPartition) -> bool {
    let metadata = partition.committed_metadata.as_deref().unwrap_or_default();
    // Counted only where it can matter: no string has more UTF-16 units than bytes.
    metadata.len() > LONGEST_STRING
        || metadata.len() > config.offset_metadata_max_bytes
            && metadata.encode_utf16().count() > config.offset_metadata_max_bytes
}
