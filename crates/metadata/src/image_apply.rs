//! The one function that changes a cluster image.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use protocol::{
    BrokerEpoch, BrokerId, ClaimId, ClusterId, LeaderEpoch, Offset, PartitionEpoch, ProducerId, TopicName,
    TopicPartition,
    grpc::v1::{
        BrokerChangeRecord, ConfigRecord, FeatureRecord, MetadataEntry, MetadataRecord,
        PartitionChangeRecord, PartitionRecord, ProducerIdsRecord, RegisterBrokerRecord, RemoveTopicRecord,
        TopicRecord, UnregisterBrokerRecord, metadata_record::Record,
    },
};

use crate::{
    BrokerRegistration, ClusterImage, ConfigResource, PartitionRegistration, Topic,
    records::{self, METADATA_FORMAT_VERSION},
};

/// An entry that this version cannot fold into an image. The node must stop: going on would let its
/// image differ from the others'.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// Written by a newer version.
    #[error(
        "metadata entry at offset {offset} has format version {found}; this binary reads up to {supported}"
    )]
    FormatVersion {
        /// Where.
        offset: Offset,
        /// The entry's version.
        found: u32,
        /// The newest version that is understood.
        supported: u32,
    },
    /// A record that does not fit the image, or has a field that is no id.
    #[error("metadata entry at offset {offset} is damaged: {what}")]
    Damaged {
        /// Where.
        offset: Offset,
        /// What is wrong, with the value.
        what: String,
    },
}

/// What does not fit, with the value; [`ApplyError::Damaged`] adds where.
type Fold = Result<(), String>;

impl ClusterImage {
    /// Folds the entry at `offset`, written in controller epoch `epoch`, into the image. `None` stands
    /// for Raft's own entries, which only move the offset.
    ///
    /// Deterministic and total: the same image and entry give the same result on every node. An entry
    /// decided under another claim than the image's moves the offset and has no other effect.
    pub fn apply(
        &self,
        offset: Offset,
        epoch: LeaderEpoch,
        entry: Option<&MetadataEntry>,
    ) -> Result<Self, ApplyError> {
        let damaged = |what| ApplyError::Damaged { offset, what };
        if let Some(last) = self.offset.filter(|&last| offset <= last) {
            return Err(damaged(format!("the image already holds offset {last}")));
        }
        let mut next = self.clone();
        next.offset = Some(offset);
        next.epoch = epoch;
        let Some(entry) = entry else {
            return Ok(next);
        };
        check_version(offset, entry)?;
        let claim = ClaimId::from_slice(&entry.claim_id)
            .ok_or_else(|| damaged(format!("claim id has {} bytes, not 16", entry.claim_id.len())))?;
        if entry.makes_claim {
            if claim.is_zero() {
                return Err(damaged("a claim is made with the id of all zeroes".to_owned()));
            }
            next.claim = claim;
            // The controller that began this transaction can no longer end it.
            next.pending = None;
        } else if claim != self.claim {
            return Ok(next);
        }
        next.fold_all(&entry.records).map_err(damaged)?;
        Ok(next)
    }

    /// The image as it will be once `records`, decided under its own claim, are applied; offset and
    /// epoch stay. For the active controller, which decides on what is in flight and puts many
    /// decisions into one entry. Records that come back as an error must not be proposed.
    pub fn speculate(&self, records: &[MetadataRecord]) -> Result<Self, ApplyError> {
        let mut next = self.clone();
        next.fold_all(records).map_err(|what| ApplyError::Damaged {
            offset: self.offset.map_or(Offset::ZERO, Offset::next),
            what,
        })?;
        Ok(next)
    }

    pub(crate) fn fold_all(&mut self, records: &[MetadataRecord]) -> Fold {
        records.iter().try_for_each(|record| self.fold_or_buffer(record))
    }

    /// Inside a transaction records wait in `pending`, so that an image only ever shows whole ones.
    fn fold_or_buffer(&mut self, record: &MetadataRecord) -> Fold {
        let Some(kind) = &record.record else {
            return Err("a record of a kind that this version does not know".to_owned());
        };
        match (kind, self.pending.take()) {
            (Record::BeginTransaction(_), None) => self.pending = Some(Vec::new()),
            (Record::BeginTransaction(_), Some(_)) => {
                return Err("a transaction begins inside another".to_owned());
            }
            (Record::EndTransaction(_), Some(pending)) => {
                pending.iter().try_for_each(|record| self.fold(record))?;
            }
            (Record::AbortTransaction(_), Some(_)) => {}
            (Record::EndTransaction(_) | Record::AbortTransaction(_), None) => {
                return Err("a transaction ends that never began".to_owned());
            }
            (_, Some(mut pending)) => {
                pending.push(record.clone());
                self.pending = Some(pending);
            }
            (_, None) => self.fold(record)?,
        }
        Ok(())
    }

    fn fold(&mut self, record: &MetadataRecord) -> Fold {
        match record.record.as_ref() {
            Some(Record::RegisterBroker(record)) => self.register_broker(record),
            Some(Record::BrokerChange(record)) => self.change_broker(record),
            Some(Record::UnregisterBroker(record)) => self.unregister_broker(record),
            Some(Record::Topic(record)) => self.create_topic(record),
            Some(Record::Partition(record)) => self.create_partition(record),
            Some(Record::PartitionChange(record)) => self.change_partition(record),
            Some(Record::RemoveTopic(record)) => self.remove_topic(record),
            Some(Record::Config(record)) => self.set_config(record),
            Some(Record::ProducerIds(record)) => self.give_producer_ids(record),
            Some(Record::Feature(record)) => self.finalize_feature(record),
            Some(Record::Cluster(record)) => self.name_cluster(&record.cluster_id),
            Some(Record::BeginTransaction(_) | Record::EndTransaction(_) | Record::AbortTransaction(_))
            | None => Err("a transaction marker stands inside a transaction".to_owned()),
        }
    }

    fn register_broker(&mut self, record: &RegisterBrokerRecord) -> Fold {
        let broker = records::broker_from_record(record)?;
        if let Some(old) = self
            .brokers
            .get(&broker.id)
            .filter(|old| old.epoch >= broker.epoch)
        {
            return Err(format!(
                "broker {} registers with epoch {}, it already had {}",
                broker.id, broker.epoch, old.epoch
            ));
        }
        self.brokers.insert(broker.id, Arc::new(broker));
        Ok(())
    }

    /// The registration of exactly this incarnation, to be changed.
    fn broker_mut(&mut self, id: i32, epoch: i64) -> Result<&mut BrokerRegistration, String> {
        let id = records::broker_id(id)?;
        let broker = self
            .brokers
            .get_mut(&id)
            .ok_or_else(|| format!("broker {id} is not registered"))?;
        if broker.epoch != BrokerEpoch(epoch) {
            return Err(format!("broker {id} has epoch {}, not {epoch}", broker.epoch));
        }
        Ok(Arc::make_mut(broker))
    }

    fn change_broker(&mut self, record: &BrokerChangeRecord) -> Fold {
        let broker = self.broker_mut(record.broker_id, record.broker_epoch)?;
        if let Some(fenced) = record.fenced {
            broker.fenced = fenced;
        }
        if let Some(leaving) = record.in_controlled_shutdown {
            broker.in_controlled_shutdown = leaving;
        }
        if let Some(online) = &record.log_dirs {
            broker.log_dirs = records::directories(&online.ids)?;
        }
        Ok(())
    }

    fn unregister_broker(&mut self, record: &UnregisterBrokerRecord) -> Fold {
        let id = self.broker_mut(record.broker_id, record.broker_epoch)?.id;
        self.brokers.remove(&id);
        Ok(())
    }

    fn create_topic(&mut self, record: &TopicRecord) -> Fold {
        let id = records::topic_id(&record.topic_id)?;
        let name = TopicName::new(&record.name).map_err(|error| error.to_string())?;
        if self.topics.contains_key(&id) || self.topic_ids.contains_key(&name) {
            return Err(format!("topic {name} ({id}) exists"));
        }
        self.topic_ids.insert(name.clone(), id);
        let partitions = OrdMap::new();
        self.topics.insert(id, Arc::new(Topic { id, name, partitions }));
        Ok(())
    }

    fn create_partition(&mut self, record: &PartitionRecord) -> Fold {
        let tp = records::topic_partition(&record.topic_id, record.partition)?;
        let partition = records::partition_from_record(record)?;
        partition.check().map_err(|what| format!("{tp}: {what}"))?;
        let topic = self
            .topics
            .get_mut(&tp.topic_id)
            .ok_or_else(|| format!("topic {} does not exist", tp.topic_id))?;
        if usize::try_from(record.partition) != Ok(topic.partitions.len()) {
            return Err(format!("{tp} is not the topic's next partition"));
        }
        index_replicas(&mut self.partitions_by_broker, tp, &partition.replicas);
        Arc::make_mut(topic)
            .partitions
            .insert(tp.partition, Arc::new(partition));
        Ok(())
    }

    fn change_partition(&mut self, record: &PartitionChangeRecord) -> Fold {
        let tp = records::topic_partition(&record.topic_id, record.partition)?;
        let slot = self
            .topics
            .get_mut(&tp.topic_id)
            .and_then(|topic| Arc::make_mut(topic).partitions.get_mut(&tp.partition))
            .ok_or_else(|| format!("partition {tp} does not exist"))?;
        let old = Arc::clone(slot);
        let new = changed_partition(&old, record).map_err(|what| format!("{tp}: {what}"))?;
        if new.replicas != old.replicas {
            unindex_replicas(&mut self.partitions_by_broker, tp, &old.replicas);
            index_replicas(&mut self.partitions_by_broker, tp, &new.replicas);
        }
        *slot = Arc::new(new);
        Ok(())
    }

    fn remove_topic(&mut self, record: &RemoveTopicRecord) -> Fold {
        let id = records::topic_id(&record.topic_id)?;
        let topic = self
            .topics
            .remove(&id)
            .ok_or_else(|| format!("topic {id} does not exist"))?;
        for (&index, partition) in &topic.partitions {
            let tp = TopicPartition::new(id, index);
            unindex_replicas(&mut self.partitions_by_broker, tp, &partition.replicas);
        }
        self.topic_ids.remove(&topic.name);
        self.configs.remove(&ConfigResource::Topic(topic.name.clone()));
        Ok(())
    }

    fn set_config(&mut self, record: &ConfigRecord) -> Fold {
        let resource = records::resource_from_record(record.resource_type, &record.resource_name)?;
        match &record.value {
            Some(value) => {
                let keys = self.configs.entry(resource).or_default();
                keys.insert(record.key.clone(), value.clone());
            }
            None => {
                if let Some(keys) = self.configs.get_mut(&resource) {
                    keys.remove(&record.key);
                    if keys.is_empty() {
                        self.configs.remove(&resource);
                    }
                }
            }
        }
        Ok(())
    }

    fn give_producer_ids(&mut self, record: &ProducerIdsRecord) -> Fold {
        let next = ProducerId(record.next_producer_id);
        if next < self.next_producer_id {
            return Err(format!(
                "next producer id {next} is below {}",
                self.next_producer_id
            ));
        }
        self.next_producer_id = next;
        Ok(())
    }

    fn finalize_feature(&mut self, record: &FeatureRecord) -> Fold {
        let level = i16::try_from(record.level)
            .map_err(|_| format!("feature {:?} cannot have level {}", record.name, record.level))?;
        if level == 0 {
            self.features.remove(&record.name);
        } else {
            self.features.insert(record.name.clone(), level);
        }
        Ok(())
    }

    fn name_cluster(&mut self, id: &str) -> Fold {
        let id = ClusterId::new(id).map_err(|error| error.to_string())?;
        match &self.cluster_id {
            Some(known) if *known != id => Err(format!("cluster {known} is renamed {id}")),
            _ => {
                self.cluster_id = Some(id);
                Ok(())
            }
        }
    }
}

/// Refuses an entry that this version cannot read. Zero is what a message without a version decodes to.
pub(crate) fn check_version(offset: Offset, entry: &MetadataEntry) -> Result<(), ApplyError> {
    match entry.format_version {
        1..=METADATA_FORMAT_VERSION => Ok(()),
        0 => Err(ApplyError::Damaged {
            offset,
            what: "the entry has no format version".to_owned(),
        }),
        found => Err(ApplyError::FormatVersion {
            offset,
            found,
            supported: METADATA_FORMAT_VERSION,
        }),
    }
}

/// The partition after one change: partition epoch + 1, leader epoch + 1 exactly where it says so.
fn changed_partition(
    old: &PartitionRegistration,
    change: &PartitionChangeRecord,
) -> Result<PartitionRegistration, String> {
    let ids = |ids: &Option<protocol::grpc::v1::BrokerIds>, old: &Vec<BrokerId>| match ids {
        Some(ids) => records::brokers(&ids.ids),
        None => Ok(old.clone()),
    };
    let epoch_end = || "its epochs are used up".to_owned();
    let new = PartitionRegistration {
        replicas: ids(&change.replicas, &old.replicas)?,
        directories: if change.directories.is_empty() {
            old.directories.clone()
        } else {
            records::directories(&change.directories)?
        },
        isr: ids(&change.isr, &old.isr)?,
        elr: ids(&change.elr, &old.elr)?,
        leader: match change.leader {
            Some(id) => records::leader(id)?,
            None => old.leader,
        },
        leader_epoch: if change.bump_leader_epoch {
            LeaderEpoch(old.leader_epoch.get().checked_add(1).ok_or_else(epoch_end)?)
        } else {
            old.leader_epoch
        },
        partition_epoch: PartitionEpoch(old.partition_epoch.get().checked_add(1).ok_or_else(epoch_end)?),
        adding: ids(&change.adding_replicas, &old.adding)?,
        removing: ids(&change.removing_replicas, &old.removing)?,
    };
    if new.leader != old.leader && !change.bump_leader_epoch {
        return Err("its leader changes without a new leader epoch".to_owned());
    }
    new.check()?;
    Ok(new)
}

/// Brokers to the partitions that name them as replicas; a broker without any is not in it.
type PartitionsByBroker = OrdMap<BrokerId, OrdSet<TopicPartition>>;

fn index_replicas(index: &mut PartitionsByBroker, tp: TopicPartition, replicas: &[BrokerId]) {
    for &id in replicas {
        index.entry(id).or_default().insert(tp);
    }
}

fn unindex_replicas(index: &mut PartitionsByBroker, tp: TopicPartition, replicas: &[BrokerId]) {
    for id in replicas {
        if let Some(partitions) = index.get_mut(id) {
            partitions.remove(&tp);
            if partitions.is_empty() {
                index.remove(id);
            }
        }
    }
}
