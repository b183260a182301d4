//! The cluster image: an immutable value with structural sharing. A clone is cheap, a reader never
//! waits, and only [`ClusterImage::apply`] makes a new one.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use protocol::{
    BrokerEpoch, BrokerId, ClaimId, ClusterId, DirectoryId, IncarnationId, LeaderEpoch, Offset,
    PartitionEpoch, PartitionIndex, ProducerId, TopicId, TopicName, TopicPartition,
};

/// One address that a broker advertises to clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The listener's name, as in `listeners`.
    pub listener: String,
    /// Host name or address, as advertised.
    pub host: String,
    /// TCP port, as advertised.
    pub port: u16,
    /// `PLAINTEXT`, `SSL`, `SASL_PLAINTEXT` or `SASL_SSL`.
    pub security_protocol: String,
}

/// The current incarnation of a registered broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerRegistration {
    /// The broker's `node.id`.
    pub id: BrokerId,
    /// Given at this registration; the offset of the entry that registered it.
    pub epoch: BrokerEpoch,
    /// Identity of the registered process.
    pub incarnation: IncarnationId,
    /// What clients connect to.
    pub endpoints: Vec<Endpoint>,
    /// `host:port` of the internal gRPC port.
    pub internal_address: String,
    /// `broker.rack`.
    pub rack: Option<String>,
    /// Online log directories.
    pub log_dirs: Vec<DirectoryId>,
    /// A fenced broker leads nothing, is in no ISR that changes, and is not shown to clients.
    pub fenced: bool,
    /// The broker moves its leaderships away and will leave.
    pub in_controlled_shutdown: bool,
    /// The binary's version.
    pub version: String,
}

impl BrokerRegistration {
    /// Whether the broker may lead partitions and join in-sync sets (KIP-841).
    pub fn is_eligible(&self) -> bool {
        !self.fenced && !self.in_controlled_shutdown
    }

    /// Whether what lies in the directory can be used. So can a replica whose directory nobody has told.
    pub fn has_online(&self, directory: DirectoryId) -> bool {
        directory.is_zero() || self.log_dirs.contains(&directory)
    }
}

/// A topic and its partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// The topic's identity.
    pub id: TopicId,
    /// The topic's name.
    pub name: TopicName,
    /// Partitions by index, without gaps.
    pub partitions: OrdMap<PartitionIndex, Arc<PartitionRegistration>>,
}

/// The directory of a topic's replica on its broker.
pub type TopicDirectory = DirectoryId;

/// Who holds a partition and who leads it.
///
/// Invariants: `isr` and `elr` are disjoint subsets of `replicas`; `leader`, where there is one, is in
/// `isr`; `directories` is as long as `replicas`; no list names a broker twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionRegistration {
    /// In order of preference: the first is the preferred leader.
    pub replicas: Vec<BrokerId>,
    /// Log directory of each replica, in the order of `replicas`; zero where not assigned.
    pub directories: Vec<TopicDirectory>,
    /// In-sync replicas.
    pub isr: Vec<BrokerId>,
    /// Eligible leader replicas outside the ISR (KIP-966).
    pub elr: Vec<BrokerId>,
    /// The leader, where there is one.
    pub leader: Option<BrokerId>,
    /// Counts leaders.
    pub leader_epoch: LeaderEpoch,
    /// Counts changes of this record.
    pub partition_epoch: PartitionEpoch,
    /// Replicas being added by a reassignment.
    pub adding: Vec<BrokerId>,
    /// Replicas being removed by a reassignment.
    pub removing: Vec<BrokerId>,
}

impl PartitionRegistration {
    /// The preferred leader: the first replica.
    pub fn preferred_leader(&self) -> Option<BrokerId> {
        self.replicas.first().copied()
    }

    /// The log directory of the broker's replica, zero where none is assigned; `None` where the broker
    /// holds no replica.
    pub fn directory_of(&self, broker: BrokerId) -> Option<TopicDirectory> {
        let position = self.replicas.iter().position(|&id| id == broker)?;
        self.directories.get(position).copied()
    }

    /// Says which of the record's invariants does not hold, with the record.
    pub fn check(&self) -> Result<(), String> {
        let inside = |ids: &[BrokerId]| ids.iter().all(|id| self.replicas.contains(id));
        let broken =
            if has_duplicates(&self.replicas) || has_duplicates(&self.isr) || has_duplicates(&self.elr) {
                "a broker is named twice"
            } else if !inside(&self.isr) {
                "ISR outside replicas"
            } else if !inside(&self.elr) {
                "ELR outside replicas"
            } else if self.elr.iter().any(|id| self.isr.contains(id)) {
                "ELR and ISR overlap"
            } else if self.leader.is_some_and(|id| !self.isr.contains(&id)) {
                "leader outside ISR"
            } else if self.directories.len() != self.replicas.len() {
                "directories and replicas differ in number"
            } else {
                return Ok(());
            };
        Err(format!("{broken}: {self:?}"))
    }

    /// Panics, in tests and debug builds, where [`Self::check`] fails.
    pub fn assert_invariants(&self) {
        debug_assert_eq!(self.check(), Ok(()));
    }
}

fn has_duplicates(ids: &[BrokerId]) -> bool {
    // Replica lists are a handful long: comparing beats building a set.
    ids.iter()
        .enumerate()
        .any(|(i, id)| ids.get(..i).is_some_and(|before| before.contains(id)))
}

/// What a configuration key is set for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConfigResource {
    /// One topic.
    Topic(TopicName),
    /// One broker.
    Broker(BrokerId),
    /// Every broker: the cluster-wide default.
    ClusterDefault,
    /// One consumer group, by its `group.id`. It need not exist (yet).
    Group(String),
}

/// Everything that is known at one offset of the metadata log.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClusterImage {
    /// The offset of the last entry in this image; `None` before the first.
    pub offset: Option<Offset>,
    /// The controller epoch (Raft term) of that entry.
    pub epoch: LeaderEpoch,
    /// The claim under which entries currently have an effect.
    pub claim: ClaimId,
    /// The cluster's identity, once it is recorded.
    pub cluster_id: Option<ClusterId>,
    /// Registered brokers, fenced ones included.
    pub brokers: OrdMap<BrokerId, Arc<BrokerRegistration>>,
    /// Topics by identity.
    pub topics: OrdMap<TopicId, Arc<Topic>>,
    /// Identities by name.
    pub topic_ids: OrdMap<TopicName, TopicId>,
    /// Partitions that name a broker as a replica, by broker: what a change of that broker touches.
    pub partitions_by_broker: OrdMap<BrokerId, OrdSet<TopicPartition>>,
    /// Configuration set at runtime, by resource.
    pub configs: OrdMap<ConfigResource, OrdMap<String, String>>,
    /// First producer id that no broker has been given.
    pub next_producer_id: ProducerId,
    /// Finalized feature levels.
    pub features: OrdMap<String, i16>,
    /// Records of a metadata transaction that has begun and not ended; none of them shows yet.
    pub(crate) pending: Option<Vec<protocol::grpc::v1::MetadataRecord>>,
}

impl ClusterImage {
    /// The topic of this name.
    pub fn topic(&self, name: &str) -> Option<&Arc<Topic>> {
        self.topics.get(self.topic_ids.get(name)?)
    }

    /// The partition's record.
    pub fn partition(&self, tp: TopicPartition) -> Option<&Arc<PartitionRegistration>> {
        self.topics.get(&tp.topic_id)?.partitions.get(&tp.partition)
    }

    /// Brokers that clients may be told of: registered and not fenced.
    pub fn live_brokers(&self) -> impl Iterator<Item = &Arc<BrokerRegistration>> {
        self.brokers.values().filter(|broker| !broker.fenced)
    }

    /// Whether nothing can be had from the broker's replica of the partition: the broker is fenced or
    /// unknown, or the replica's log directory is offline (KIP-858).
    pub fn is_replica_offline(&self, partition: &PartitionRegistration, broker: BrokerId) -> bool {
        self.brokers
            .get(&broker)
            .is_none_or(|known| known.fenced || !is_directory_online(known, partition))
    }

    /// A key set at runtime for exactly this resource, without any default.
    pub fn config(&self, resource: &ConfigResource, key: &str) -> Option<&str> {
        self.configs.get(resource)?.get(key).map(String::as_str)
    }
}

/// Whether the directory that holds the broker's replica is online.
fn is_directory_online(broker: &BrokerRegistration, partition: &PartitionRegistration) -> bool {
    let directory = partition.directory_of(broker.id).unwrap_or(DirectoryId::ZERO);
    broker.has_online(directory)
}
