//! Log directories of brokers: which of them is emptiest, which replicas go with one that fails, and where
//! replicas lie that their broker has put elsewhere (KIP-858).

use std::collections::BTreeMap;

use metadata::{BrokerRegistration, PartitionRegistration, records};
use protocol::{
    BrokerEpoch, BrokerId, DirectoryId, PartitionIndex, TopicId, TopicPartition,
    grpc::v1::{
        AssignDirectoriesRequest, BrokerChangeRecord, DirectoryAssignment, DirectoryIds, KafkaError,
        MetadataRecord, metadata_record::Record,
    },
};

use super::{
    AssignDirectoryError, BrokerError, Outcome, View,
    brokers::fail_replicas,
    kafka_error,
    partition_change::{PartitionChange, partitions_of},
    success,
};

/// How many replicas the metadata has in each online directory of one broker.
#[derive(Clone, Debug, Default)]
pub(super) struct Filling(Vec<(DirectoryId, usize)>);

impl Filling {
    /// The directories in the order of `log.dirs`, each with what `filled` counts for it.
    pub(super) fn new(directories: &[DirectoryId], filled: &BTreeMap<DirectoryId, usize>) -> Self {
        let count = |&id| (id, filled.get(&id).copied().unwrap_or(0));
        Self(directories.iter().map(count).collect())
    }

    /// Those of a broker that registers, as the view's partitions fill them.
    pub(super) fn of(view: View<'_>, registration: &BrokerRegistration) -> Self {
        let mut filled = BTreeMap::new();
        for tp in partitions_of(view, registration.id) {
            let directory = view
                .image
                .partition(tp)
                .and_then(|partition| partition.directory_of(registration.id));
            *filled.entry(directory.unwrap_or(DirectoryId::ZERO)).or_default() += 1;
        }
        Self::new(&registration.log_dirs, &filled)
    }

    /// The directory with the fewest replicas, the first of several, counting one more there; the id of
    /// all zeroes where there is none.
    pub(super) fn take_emptiest(&mut self) -> DirectoryId {
        let emptiest = self.0.iter_mut().min_by_key(|(_, replicas)| *replicas);
        emptiest.map_or(DirectoryId::ZERO, |(id, replicas)| {
            *replicas += 1;
            *id
        })
    }
}

/// Log directories of a live broker went offline: they leave its registration, and their replicas leave
/// ISR and leadership as those of [`fail_replicas`] do. Directories that are offline already, or never were
/// registered, change nothing.
pub fn fail_directories(
    view: View<'_>,
    broker: BrokerId,
    epoch: BrokerEpoch,
    offline: &[DirectoryId],
) -> Result<Outcome<()>, BrokerError> {
    let registration = view.incarnation(broker, epoch)?;
    let (gone, online): (Vec<DirectoryId>, Vec<DirectoryId>) = registration
        .log_dirs
        .iter()
        .copied()
        .partition(|id| offline.contains(id));
    let failed: Vec<_> = partitions_of(view, broker)
        .filter(|&tp| {
            let directory = view
                .image
                .partition(tp)
                .and_then(|partition| partition.directory_of(broker));
            directory.is_some_and(|directory| offline.contains(&directory))
        })
        .collect();
    let mut outcome = fail_replicas(view, broker, epoch, &failed)?;
    if !gone.is_empty() {
        let change = records::record(Record::BrokerChange(BrokerChangeRecord {
            broker_id: broker.get(),
            broker_epoch: epoch.get(),
            log_dirs: Some(DirectoryIds {
                ids: online.iter().map(|id| id.to_vec().into()).collect(),
            }),
            ..BrokerChangeRecord::default()
        }));
        outcome.records.insert(0, change);
    }
    Ok(outcome)
}

/// Notes in which directories a broker's replicas lie. Each is decided by itself, in the order of the
/// request; one that is noted already is a success without a record. The whole request is refused only
/// where the sender is not the registered incarnation.
pub fn assign_directories(
    view: View<'_>,
    request: &AssignDirectoriesRequest,
) -> Result<Outcome<Vec<KafkaError>>, BrokerError> {
    let broker = BrokerId(request.broker_id);
    let registration = view.incarnation(broker, BrokerEpoch(request.broker_epoch))?;
    let mut made = Vec::new();
    let results = request
        .assignments
        .iter()
        .map(|wish| match assign(view, registration, wish) {
            Ok(record) => {
                made.extend(record);
                success()
            }
            Err(error) => kafka_error(&error),
        })
        .collect();
    Ok(Outcome {
        records: made,
        reply: results,
    })
}

fn assign(
    view: View<'_>,
    broker: &BrokerRegistration,
    wish: &DirectoryAssignment,
) -> Result<Option<MetadataRecord>, AssignDirectoryError> {
    let directory = DirectoryId::from_slice(&wish.directory)
        .filter(|id| !id.is_zero())
        .ok_or(AssignDirectoryError::Malformed)?;
    let topic_id = TopicId::from_slice(&wish.topic_id).ok_or(AssignDirectoryError::Malformed)?;
    let tp = TopicPartition::new(topic_id, PartitionIndex(wish.partition));
    let change = PartitionChange::of(view, tp).ok_or(AssignDirectoryError::UnknownPartition)?;
    let partition = change.old();
    if !partition.replicas.contains(&broker.id) {
        return Err(AssignDirectoryError::NotReplica { broker: broker.id });
    }
    if !broker.log_dirs.contains(&directory) {
        return Err(AssignDirectoryError::NotOnline { directory });
    }
    let directories = moved_to(partition, broker.id, directory);
    Ok(change
        .with_directories(directories)
        .record(|id| view.is_eligible(id)))
}

/// The partition's directories with another one for the broker's replica.
pub(super) fn moved_to(
    partition: &PartitionRegistration,
    broker: BrokerId,
    directory: DirectoryId,
) -> Vec<DirectoryId> {
    let replicas = partition.replicas.iter().zip(&partition.directories);
    replicas
        .map(|(&replica, &known)| if replica == broker { directory } else { known })
        .collect()
}
