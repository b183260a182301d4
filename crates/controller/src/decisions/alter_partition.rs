//! In-sync sets, changed by partition leaders as compare-and-set (KIP-497, KIP-841, KIP-903).

use metadata::PartitionRegistration;
use protocol::{
    BrokerEpoch, BrokerId, LeaderEpoch, PartitionEpoch, PartitionIndex, TopicId, TopicPartition,
    grpc::v1::{
        AlterPartition, AlterPartitionsRequest, AlteredPartition, IsrMember, MetadataRecord,
        metadata_record::Record,
    },
};

use super::{
    AlterPartitionError, BrokerError, Outcome, View, kafka_error, partition_change::PartitionChange, success,
};

/// Decides on every partition of the request by itself. An unchanged in-sync set is a success without
/// a record. The whole request is refused only where the sender is not the registered incarnation.
pub fn alter_partitions(
    view: View<'_>,
    request: &AlterPartitionsRequest,
) -> Result<Outcome<Vec<AlteredPartition>>, BrokerError> {
    let sender = BrokerId(request.broker_id);
    view.incarnation(sender, BrokerEpoch(request.broker_epoch))?;
    let mut made = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    let results = request.partitions.iter().map(|wish| {
        let decided = if seen.insert((wish.topic_id.clone(), wish.partition)) {
            alter(view, sender, wish)
        } else {
            Err(AlterPartitionError::Invalid("the partition is named twice"))
        };
        match decided {
            Ok((partition, record)) => {
                made.extend(record);
                altered(wish, &partition)
            }
            Err(error) => AlteredPartition {
                topic_id: wish.topic_id.clone(),
                partition: wish.partition,
                error: Some(kafka_error(&error)),
                leader: -1,
                leader_epoch: -1,
                partition_epoch: -1,
                isr: Vec::new(),
            },
        }
    });
    let results = results.collect();
    Ok(Outcome {
        records: made,
        reply: results,
    })
}

/// The partition as it will be, and the record that makes it so.
fn alter(
    view: View<'_>,
    sender: BrokerId,
    wish: &AlterPartition,
) -> Result<(PartitionRegistration, Option<MetadataRecord>), AlterPartitionError> {
    let topic_id = TopicId::from_slice(&wish.topic_id)
        .filter(|id| view.image.topics.contains_key(id))
        .ok_or(AlterPartitionError::UnknownTopic)?;
    let tp = TopicPartition::new(topic_id, PartitionIndex(wish.partition));
    let change = PartitionChange::of(view, tp).ok_or(AlterPartitionError::UnknownPartition)?;
    let old = change.old();
    check_epochs(old, sender, wish)?;
    let isr = new_isr(view, old, sender, &wish.new_isr)?;
    let Some(record) = change.with_isr(isr).record(|id| view.is_eligible(id)) else {
        return Ok((old.clone(), None));
    };
    Ok((after(old, &record), Some(record)))
}

fn check_epochs(
    old: &PartitionRegistration,
    sender: BrokerId,
    wish: &AlterPartition,
) -> Result<(), AlterPartitionError> {
    let leader_epoch = LeaderEpoch(wish.leader_epoch);
    let partition_epoch = PartitionEpoch(wish.partition_epoch);
    if leader_epoch > old.leader_epoch || partition_epoch > old.partition_epoch {
        return Err(AlterPartitionError::ControllerBehind);
    }
    if leader_epoch < old.leader_epoch {
        return Err(AlterPartitionError::FencedLeaderEpoch {
            presented: leader_epoch,
            current: old.leader_epoch,
        });
    }
    if old.leader != Some(sender) {
        return Err(AlterPartitionError::Invalid(
            "the sender does not lead the partition",
        ));
    }
    if partition_epoch < old.partition_epoch {
        return Err(AlterPartitionError::OldPartitionEpoch {
            presented: partition_epoch,
            current: old.partition_epoch,
        });
    }
    Ok(())
}

/// The wished set in the order of the replicas, which makes equal sets equal lists.
fn new_isr(
    view: View<'_>,
    old: &PartitionRegistration,
    sender: BrokerId,
    members: &[IsrMember],
) -> Result<Vec<BrokerId>, AlterPartitionError> {
    let named: std::collections::BTreeSet<_> = members.iter().map(|m| BrokerId(m.broker_id)).collect();
    if named.len() != members.len() {
        return Err(AlterPartitionError::Invalid("a member is named twice"));
    }
    if !named.contains(&sender) {
        return Err(AlterPartitionError::Invalid(
            "the leader is not in the in-sync set",
        ));
    }
    if named.iter().any(|id| !old.replicas.contains(id)) {
        return Err(AlterPartitionError::Invalid("a member is not a replica"));
    }
    for member in members {
        let broker = BrokerId(member.broker_id);
        let ineligible = |why| AlterPartitionError::Ineligible { broker, why };
        let registration = view
            .image
            .brokers
            .get(&broker)
            .ok_or_else(|| ineligible("it is not registered"))?;
        if registration.epoch != BrokerEpoch(member.broker_epoch) {
            return Err(ineligible("it registered again since it caught up"));
        }
        if registration.fenced {
            return Err(ineligible("it is fenced"));
        }
        if registration.in_controlled_shutdown {
            return Err(ineligible("it is shutting down"));
        }
    }
    if named.len() == old.isr.len() && old.isr.iter().all(|id| named.contains(id)) {
        // The order of an unchanged set is nobody's wish.
        return Ok(old.isr.clone());
    }
    Ok(old
        .replicas
        .iter()
        .copied()
        .filter(|id| named.contains(id))
        .collect())
}

/// The partition after a record that only concerns its in-sync set.
fn after(old: &PartitionRegistration, record: &MetadataRecord) -> PartitionRegistration {
    let mut new = old.clone();
    if let Some(Record::PartitionChange(change)) = &record.record {
        if let Some(isr) = &change.isr {
            new.isr = isr.ids.iter().copied().map(BrokerId).collect();
        }
        new.partition_epoch = new.partition_epoch.next();
    }
    new
}

fn altered(wish: &AlterPartition, partition: &PartitionRegistration) -> AlteredPartition {
    AlteredPartition {
        topic_id: wish.topic_id.clone(),
        partition: wish.partition,
        error: Some(success()),
        leader: metadata::records::leader_to_record(partition.leader),
        leader_epoch: partition.leader_epoch.get(),
        partition_epoch: partition.partition_epoch.get(),
        isr: partition.isr.iter().map(|id| id.get()).collect(),
    }
}
