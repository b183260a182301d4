//! Metadata records as they are written, and the image's types as records and back. The only place
//! that knows the sentinels of the log's format (−1 for no leader, empty for no rack).

use protocol::{
    BrokerEpoch, BrokerId, ClaimId, DirectoryId, IncarnationId, LeaderEpoch, PartitionEpoch, PartitionIndex,
    TopicId, TopicName, TopicPartition,
    grpc::v1::{
        BrokerChangeRecord, BrokerIds, ConfigRecord, ConfigResourceType, Listener, MetadataEntry,
        MetadataRecord, PartitionRecord, RegisterBrokerRecord, TopicRecord, metadata_record::Record,
    },
};

use crate::{BrokerRegistration, ConfigResource, Endpoint, PartitionRegistration};

/// The version of [`MetadataEntry`] that this binary writes, and the newest it reads.
pub const METADATA_FORMAT_VERSION: u32 = 1;

/// An entry of `records`, decided under `claim`.
pub fn entry(claim: ClaimId, records: Vec<MetadataRecord>) -> MetadataEntry {
    MetadataEntry {
        format_version: METADATA_FORMAT_VERSION,
        claim_id: claim.to_vec().into(),
        makes_claim: false,
        records,
    }
}

/// The no-op by which a new active controller makes `claim` the current one. Entries of every earlier
/// claim that are committed after it have no effect, and a transaction that was open is dropped.
pub fn claim_entry(claim: ClaimId) -> MetadataEntry {
    MetadataEntry {
        makes_claim: true,
        ..entry(claim, Vec::new())
    }
}

/// One record of an entry.
pub fn record(record: Record) -> MetadataRecord {
    MetadataRecord { record: Some(record) }
}

/// Brokers as they stand in a record.
pub fn broker_ids(ids: &[BrokerId]) -> BrokerIds {
    BrokerIds { ids: raw_ids(ids) }
}

/// A leader as it stands in a record: −1 where there is none.
pub fn leader_to_record(leader: Option<BrokerId>) -> i32 {
    leader.map_or(-1, BrokerId::get)
}

/// A resource as it stands in a [`ConfigRecord`].
pub fn resource_to_record(resource: &ConfigResource) -> (ConfigResourceType, String) {
    match resource {
        ConfigResource::Topic(name) => (ConfigResourceType::Topic, name.to_string()),
        ConfigResource::Broker(id) => (ConfigResourceType::Broker, id.to_string()),
        ConfigResource::ClusterDefault => (ConfigResourceType::Broker, String::new()),
        ConfigResource::Group(id) => (ConfigResourceType::Group, id.clone()),
    }
}

/// Reads a resource from its record form. The error is a sentence that names the value.
pub fn resource_from_record(resource_type: i32, name: &str) -> Result<ConfigResource, String> {
    match ConfigResourceType::try_from(resource_type) {
        Ok(ConfigResourceType::Topic) => TopicName::new(name)
            .map(ConfigResource::Topic)
            .map_err(|error| error.to_string()),
        Ok(ConfigResourceType::Broker) if name.is_empty() => Ok(ConfigResource::ClusterDefault),
        Ok(ConfigResourceType::Broker) => match name.parse::<i32>() {
            Ok(id) if id >= 0 => Ok(ConfigResource::Broker(BrokerId(id))),
            _ => Err(format!("{name:?} is not a broker id")),
        },
        Ok(ConfigResourceType::Group) if name.is_empty() => Err("a group's id is empty".to_owned()),
        Ok(ConfigResourceType::Group) => Ok(ConfigResource::Group(name.to_owned())),
        Ok(ConfigResourceType::Unspecified) | Err(_) => {
            Err(format!("config resource type {resource_type} is not known"))
        }
    }
}

/// A key of a resource set (`Some`) or removed (`None`).
pub fn config_record(resource: &ConfigResource, key: &str, value: Option<&str>) -> MetadataRecord {
    let (resource_type, resource_name) = resource_to_record(resource);
    record(Record::Config(ConfigRecord {
        resource_type: resource_type.into(),
        resource_name,
        key: key.to_owned(),
        value: value.map(str::to_owned),
    }))
}

/// The record that creates a topic; its partitions follow, each in a record of its own.
pub fn topic_record(id: TopicId, name: &TopicName) -> MetadataRecord {
    record(Record::Topic(TopicRecord {
        topic_id: id.to_vec().into(),
        name: name.to_string(),
    }))
}

/// The record that creates a partition as it is here, epochs included.
pub fn partition_record(tp: TopicPartition, partition: &PartitionRegistration) -> MetadataRecord {
    record(Record::Partition(PartitionRecord {
        topic_id: tp.topic_id.to_vec().into(),
        partition: tp.partition.get(),
        replicas: raw_ids(&partition.replicas),
        isr: raw_ids(&partition.isr),
        elr: raw_ids(&partition.elr),
        leader: leader_to_record(partition.leader),
        leader_epoch: partition.leader_epoch.get(),
        partition_epoch: partition.partition_epoch.get(),
        directories: partition
            .directories
            .iter()
            .map(|id| id.to_vec().into())
            .collect(),
        adding_replicas: raw_ids(&partition.adding),
        removing_replicas: raw_ids(&partition.removing),
    }))
}

/// The records that register a broker in the state it has here.
pub(crate) fn broker_records(broker: &BrokerRegistration) -> Vec<MetadataRecord> {
    let mut records = vec![register_broker_record(broker)];
    if !broker.fenced || broker.in_controlled_shutdown {
        records.push(record(Record::BrokerChange(BrokerChangeRecord {
            broker_id: broker.id.get(),
            broker_epoch: broker.epoch.get(),
            fenced: Some(broker.fenced),
            in_controlled_shutdown: Some(broker.in_controlled_shutdown),
            // The registration's record has those that are online.
            log_dirs: None,
        })));
    }
    records
}

/// The record that registers an incarnation; it starts fenced, whatever `broker.fenced` says.
pub fn register_broker_record(broker: &BrokerRegistration) -> MetadataRecord {
    let listeners = broker.endpoints.iter().map(|endpoint| Listener {
        name: endpoint.listener.clone(),
        host: endpoint.host.clone(),
        port: endpoint.port.into(),
        security_protocol: endpoint.security_protocol.clone(),
    });
    record(Record::RegisterBroker(RegisterBrokerRecord {
        broker_id: broker.id.get(),
        incarnation_id: broker.incarnation.to_vec().into(),
        broker_epoch: broker.epoch.get(),
        listeners: listeners.collect(),
        internal_address: broker.internal_address.clone(),
        rack: broker.rack.clone().unwrap_or_default(),
        log_dirs: broker.log_dirs.iter().map(|id| id.to_vec().into()).collect(),
        version: broker.version.clone(),
    }))
}

/// Reads a registration. The error is a sentence that names the value.
pub fn broker_from_record(record: &RegisterBrokerRecord) -> Result<BrokerRegistration, String> {
    Ok(BrokerRegistration {
        id: broker_id(record.broker_id)?,
        epoch: BrokerEpoch(record.broker_epoch),
        incarnation: IncarnationId::from_slice(&record.incarnation_id)
            .ok_or_else(|| "incarnation id is not 16 bytes".to_owned())?,
        endpoints: record.listeners.iter().map(endpoint).collect::<Result<_, _>>()?,
        internal_address: record.internal_address.clone(),
        rack: Some(record.rack.clone()).filter(|rack| !rack.is_empty()),
        log_dirs: directories(&record.log_dirs)?,
        fenced: true,
        in_controlled_shutdown: false,
        version: record.version.clone(),
    })
}

pub(crate) fn partition_from_record(record: &PartitionRecord) -> Result<PartitionRegistration, String> {
    if record.leader_epoch < 0 || record.partition_epoch < 0 {
        return Err(format!(
            "epochs {} and {} are not both positive",
            record.leader_epoch, record.partition_epoch
        ));
    }
    Ok(PartitionRegistration {
        replicas: brokers(&record.replicas)?,
        directories: directories(&record.directories)?,
        isr: brokers(&record.isr)?,
        elr: brokers(&record.elr)?,
        leader: leader(record.leader)?,
        leader_epoch: LeaderEpoch(record.leader_epoch),
        partition_epoch: PartitionEpoch(record.partition_epoch),
        adding: brokers(&record.adding_replicas)?,
        removing: brokers(&record.removing_replicas)?,
    })
}

fn endpoint(listener: &Listener) -> Result<Endpoint, String> {
    Ok(Endpoint {
        listener: listener.name.clone(),
        host: listener.host.clone(),
        port: u16::try_from(listener.port).map_err(|_| format!("{} is not a port", listener.port))?,
        security_protocol: listener.security_protocol.clone(),
    })
}

pub(crate) fn broker_id(id: i32) -> Result<BrokerId, String> {
    if id < 0 {
        Err(format!("{id} is not a broker id"))
    } else {
        Ok(BrokerId(id))
    }
}

pub(crate) fn brokers(ids: &[i32]) -> Result<Vec<BrokerId>, String> {
    ids.iter().copied().map(broker_id).collect()
}

pub(crate) fn leader(id: i32) -> Result<Option<BrokerId>, String> {
    if id == -1 {
        Ok(None)
    } else {
        broker_id(id).map(Some)
    }
}

pub(crate) fn directories<B: AsRef<[u8]>>(ids: &[B]) -> Result<Vec<DirectoryId>, String> {
    ids.iter()
        .map(|id| {
            DirectoryId::from_slice(id.as_ref()).ok_or_else(|| "directory id is not 16 bytes".to_owned())
        })
        .collect()
}

pub(crate) fn topic_id(bytes: &[u8]) -> Result<TopicId, String> {
    TopicId::from_slice(bytes).ok_or_else(|| format!("topic id has {} bytes, not 16", bytes.len()))
}

pub(crate) fn topic_partition(topic: &[u8], partition: i32) -> Result<TopicPartition, String> {
    if partition < 0 {
        return Err(format!("{partition} is not a partition"));
    }
    Ok(TopicPartition::new(topic_id(topic)?, PartitionIndex(partition)))
}

fn raw_ids(ids: &[BrokerId]) -> Vec<i32> {
    ids.iter().map(|id| id.get()).collect()
}
