//! Elections on request, and the rebalance towards preferred leaders.

use metadata::ClusterImage;
use protocol::{
    PartitionIndex, TopicId, TopicPartition,
    grpc::v1::{ElectLeadersRequest, MetadataRecord, PartitionRef, PartitionResult},
};

use super::{
    ElectionError, Outcome, View, kafka_error,
    partition_change::{Election, PartitionChange},
    success,
};

/// Elects preferred leaders, or (`unclean`) any live replica for partitions without a leader: an
/// operator's last resort, which may lose data.
///
/// Where no partition is named all are meant, and only those that needed an election are answered.
pub fn elect_leaders(view: View<'_>, request: &ElectLeadersRequest) -> Outcome<Vec<PartitionResult>> {
    let election = if request.unclean {
        Election::Unclean
    } else {
        Election::Preferred
    };
    let mut made = Vec::new();
    let mut results = Vec::new();
    if request.partitions.is_empty() {
        for tp in all_partitions(view.image) {
            let result = elect(view, tp, election);
            if result != Err(ElectionError::NotNeeded) {
                answer(&mut made, &mut results, reference(view.image, tp), result);
            }
        }
    } else {
        let mut seen = std::collections::BTreeSet::new();
        for named in &request.partitions {
            let found = resolve(view.image, named);
            let result = match found {
                // The second time the election is over.
                Some(tp) if !seen.insert(tp) => Err(ElectionError::NotNeeded),
                Some(tp) => elect(view, tp, election),
                None => Err(ElectionError::UnknownPartition),
            };
            answer(&mut made, &mut results, named.clone(), result);
        }
    }
    Outcome {
        records: made,
        reply: results,
    }
}

/// Hands at most `max` partitions back to their preferred leaders; the reply says how many.
pub fn rebalance_leaders(view: View<'_>, max: usize) -> Outcome<usize> {
    let made: Vec<_> = all_partitions(view.image)
        .filter_map(|tp| elect(view, tp, Election::Preferred).ok())
        .take(max)
        .collect();
    Outcome {
        reply: made.len(),
        records: made,
    }
}

fn elect(view: View<'_>, tp: TopicPartition, election: Election) -> Result<MetadataRecord, ElectionError> {
    let change = PartitionChange::of(view, tp).ok_or(ElectionError::UnknownPartition)?;
    let partition = change.old();
    match election {
        Election::Preferred => {
            if partition.leader.is_some() && partition.leader == partition.preferred_leader() {
                return Err(ElectionError::NotNeeded);
            }
            let available = partition
                .preferred_leader()
                .is_some_and(|id| partition.isr.contains(&id) && view.is_eligible(id));
            if !available {
                return Err(ElectionError::PreferredNotAvailable);
            }
        }
        Election::Unclean | Election::AsConfigured => {
            if partition.leader.is_some() {
                return Err(ElectionError::NotNeeded);
            }
        }
    }
    change
        .electing(election)
        .record(|id| view.is_eligible(id))
        .ok_or(ElectionError::NoneAvailable)
}

fn answer(
    made: &mut Vec<MetadataRecord>,
    results: &mut Vec<PartitionResult>,
    partition: PartitionRef,
    result: Result<MetadataRecord, ElectionError>,
) {
    let error = match result {
        Ok(record) => {
            made.push(record);
            success()
        }
        Err(error) => kafka_error(&error),
    };
    results.push(PartitionResult {
        partition: Some(partition),
        error: Some(error),
    });
}

pub(super) fn all_partitions(image: &ClusterImage) -> impl Iterator<Item = TopicPartition> {
    image.topics.iter().flat_map(|(&id, topic)| {
        topic
            .partitions
            .keys()
            .map(move |&partition| TopicPartition::new(id, partition))
    })
}

fn reference(image: &ClusterImage, tp: TopicPartition) -> PartitionRef {
    PartitionRef {
        name: image
            .topics
            .get(&tp.topic_id)
            .map(|topic| topic.name.to_string())
            .unwrap_or_default(),
        topic_id: tp.topic_id.to_vec().into(),
        partition: tp.partition.get(),
    }
}

fn resolve(image: &ClusterImage, named: &PartitionRef) -> Option<TopicPartition> {
    let topic_id = if named.name.is_empty() {
        TopicId::from_slice(&named.topic_id)?
    } else {
        *image.topic_ids.get(named.name.as_str())?
    };
    let tp = TopicPartition::new(topic_id, PartitionIndex(named.partition));
    image.partition(tp).map(|_| tp)
}
