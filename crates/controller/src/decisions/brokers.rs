//! Registration, fencing, controlled shutdown and failed replicas.

use std::collections::BTreeMap;

use metadata::{
    BrokerRegistration, ClusterImage, PartitionRegistration,
    configs::{NodeDefaults, flush_messages},
    records,
};
use protocol::{
    BrokerEpoch, BrokerId, DirectoryId, IncarnationId, PartitionIndex, TopicId, TopicPartition,
    grpc::v1::{
        BrokerChangeRecord, DamagedPartition, MetadataRecord, Register, RegisterBrokerRecord,
        UnregisterBrokerRecord, metadata_record::Record,
    },
};

use super::{
    BrokerError, Outcome, RegisterError, View,
    directories::{Filling, moved_to},
    partition_change::{PartitionChange, partitions_of},
};

/// A broker's registration, new or confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registered {
    /// Who.
    pub broker: BrokerId,
    /// The epoch that the incarnation carries from now on.
    pub epoch: BrokerEpoch,
    /// Whether the process was not known before; a known one only opened a new session.
    pub new_incarnation: bool,
}

/// Registers the sender of `request`.
///
/// A new incarnation gets an epoch (`next_epoch`, the offset its entry will have, or more) and starts
/// fenced. The same records fence the old incarnation: every partition it led gets another leader or
/// none, with a new leader epoch, at replication factor 1 too. A replica whose directory is gone leaves
/// ISR and ELR, even if nobody is left, and begins anew in another directory; so does one whose
/// acknowledged records were in a page cache that is gone; a damaged one does where another member lives
/// that can replace it. While some directory of the broker cannot be used, one that is missing may come
/// back: its replicas stay where they are and lead nothing until then (KIP-858).
///
/// An incarnation that is registered already keeps its epoch and its leaderships.
/// `connected_elsewhere` says that another incarnation of this id has a live session: two processes
/// with one id, of which the newcomer is refused.
pub fn register(
    view: View<'_>,
    request: &Register,
    next_epoch: BrokerEpoch,
    connected_elsewhere: bool,
) -> Result<Outcome<Registered>, RegisterError> {
    let mut registration = registration(request, next_epoch)?;
    let id = registration.id;
    let known = view.image.brokers.get(&id);
    if let Some(known) = known {
        if known.incarnation == registration.incarnation {
            return Ok(Outcome::unchanged(Registered {
                broker: id,
                epoch: known.epoch,
                new_incarnation: false,
            }));
        }
        registration.epoch = registration.epoch.max(BrokerEpoch(known.epoch.get() + 1));
    }
    if connected_elsewhere {
        return Err(RegisterError::Duplicate { broker: id });
    }
    let damaged = topic_partitions(&request.damaged).map_err(RegisterError::Malformed)?;
    let flush_defaults = NodeDefaults::of_broker(id, static_flush(request));
    let may_return = request.unusable_log_dirs > 0;
    let mut filling = Filling::of(view, &registration);
    let mut made = vec![records::register_broker_record(&registration)];
    for tp in partitions_of(view, id) {
        let Some(change) = PartitionChange::of(view, tp) else {
            continue;
        };
        let partition = change.old();
        let directory = partition.directory_of(id).unwrap_or(DirectoryId::ZERO);
        let unassigned = directory.is_zero() && !registration.log_dirs.is_empty();
        let directory_gone = !may_return && !registration.has_online(directory);
        let directories = if unassigned || directory_gone {
            moved_to(partition, id, filling.take_emptiest())
        } else {
            partition.directories.clone()
        };
        let cache_gone =
            request.may_have_lost_data && flush_messages(view.image, change.topic(), &flush_defaults) != 1;
        let replaceable = damaged.contains(&tp) && has_other_member(view, partition, id);
        let change = if directory_gone || cache_gone || replaceable {
            change.without_lost(id)
        } else {
            change.without(id)
        };
        made.extend(
            change
                .with_directories(directories)
                .record(|other| other != id && view.is_eligible(other)),
        );
    }
    Ok(Outcome {
        records: made,
        reply: Registered {
            broker: id,
            epoch: registration.epoch,
            new_incarnation: true,
        },
    })
}

fn registration(request: &Register, epoch: BrokerEpoch) -> Result<BrokerRegistration, RegisterError> {
    let malformed = |what: &str| RegisterError::Malformed(what.to_owned());
    let hello = request
        .hello
        .as_ref()
        .ok_or_else(|| malformed("it has no hello"))?;
    IncarnationId::from_slice(&hello.incarnation_id)
        .filter(|id| !id.is_zero())
        .ok_or_else(|| malformed("it has no incarnation id"))?;
    if request.internal_address.is_empty() {
        return Err(malformed("it has no internal address"));
    }
    records::broker_from_record(&RegisterBrokerRecord {
        broker_id: hello.node_id,
        incarnation_id: hello.incarnation_id.clone(),
        broker_epoch: epoch.get(),
        listeners: request.listeners.clone(),
        internal_address: request.internal_address.clone(),
        rack: request.rack.clone(),
        log_dirs: request.log_dirs.clone(),
        version: request.version.clone(),
    })
    .map_err(RegisterError::Malformed)
}

/// What the broker's own configuration says of flushing, which nobody else knows.
fn static_flush(request: &Register) -> BTreeMap<String, String> {
    let set = (request.static_flush_messages != 0).then(|| request.static_flush_messages.to_string());
    set.map(|value| ("log.flush.interval.messages".to_owned(), value))
        .into_iter()
        .collect()
}

/// Whether a registered broker other than this one has every acknowledged record of the partition,
/// be it fenced at the moment or not.
fn has_other_member(view: View<'_>, partition: &PartitionRegistration, broker: BrokerId) -> bool {
    partition
        .isr
        .iter()
        .chain(&partition.elr)
        .any(|id| *id != broker && view.image.brokers.contains_key(id))
}

fn topic_partitions(partitions: &[DamagedPartition]) -> Result<Vec<TopicPartition>, String> {
    partitions
        .iter()
        .map(|named| {
            let topic_id = TopicId::from_slice(&named.topic_id)
                .ok_or_else(|| format!("topic id has {} bytes, not 16", named.topic_id.len()))?;
            Ok(TopicPartition::new(topic_id, PartitionIndex(named.partition)))
        })
        .collect()
}

/// Fences a broker: it leads nothing and is in no in-sync set until it is unfenced. Nothing happens to
/// one that is fenced or unknown.
pub fn fence(view: View<'_>, broker: BrokerId) -> Outcome<()> {
    let Some(registration) = view.image.brokers.get(&broker).filter(|broker| !broker.fenced) else {
        return Outcome::unchanged(());
    };
    let mut made = vec![change_record(registration, Some(true), None)];
    made.extend(leave_in_sync_sets(view, broker));
    Outcome {
        records: made,
        reply: (),
    }
}

/// Lets a broker that has caught up take part again: it becomes the leader of what nobody else could
/// lead. One that is shutting down stays fenced.
pub fn unfence(view: View<'_>, broker: BrokerId, epoch: BrokerEpoch) -> Result<Outcome<()>, BrokerError> {
    let registration = view.incarnation(broker, epoch)?;
    if !registration.fenced || registration.in_controlled_shutdown {
        return Ok(Outcome::unchanged(()));
    }
    let mut made = vec![change_record(registration, Some(false), None)];
    // Only this broker can change what there is to elect: whoever else could lead, would.
    made.extend(partitions_of(view, broker).filter_map(|tp| {
        let change = PartitionChange::of(view, tp)?;
        if change.old().leader.is_some() {
            return None;
        }
        change.record(|id| id == broker)
    }));
    Ok(Outcome {
        records: made,
        reply: (),
    })
}

/// Moves every leadership of the broker away and takes it out of every in-sync set (KIP-841), so that
/// it can end without anybody noticing.
pub fn begin_controlled_shutdown(
    view: View<'_>,
    broker: BrokerId,
    epoch: BrokerEpoch,
) -> Result<Outcome<()>, BrokerError> {
    let registration = view.incarnation(broker, epoch)?;
    if registration.in_controlled_shutdown {
        return Ok(Outcome::unchanged(()));
    }
    let mut made = vec![change_record(registration, None, Some(true))];
    made.extend(leave_in_sync_sets(view, broker));
    Ok(Outcome {
        records: made,
        reply: (),
    })
}

/// Whether a broker in controlled shutdown may end: it leads nothing in this image, which must be
/// the committed one.
pub fn may_shut_down(image: &ClusterImage, broker: BrokerId) -> bool {
    let leaving = image
        .brokers
        .get(&broker)
        .is_none_or(|broker| broker.in_controlled_shutdown);
    let mut replicas = image.partitions_by_broker.get(&broker).into_iter().flatten();
    leaving
        && replicas.all(|&tp| {
            image
                .partition(tp)
                .is_none_or(|partition| partition.leader != Some(broker))
        })
}

/// Forgets a broker. Its replicas stay where they are, without it.
pub fn unregister(view: View<'_>, broker: BrokerId) -> Result<Outcome<()>, BrokerError> {
    let registration = view
        .image
        .brokers
        .get(&broker)
        .ok_or(BrokerError::NotRegistered { broker })?;
    let mut made: Vec<_> = leave_in_sync_sets(view, broker).collect();
    made.push(records::record(Record::UnregisterBroker(
        UnregisterBrokerRecord {
            broker_id: broker.get(),
            broker_epoch: registration.epoch.get(),
        },
    )));
    Ok(Outcome {
        records: made,
        reply: (),
    })
}

/// Takes replicas that failed on a live broker (a disk error) out of ISR and leadership. One that
/// nobody can replace stays eligible: its data may be readable after a repair. A failed replica is not
/// elected by this decision.
pub fn fail_replicas(
    view: View<'_>,
    broker: BrokerId,
    epoch: BrokerEpoch,
    failed: &[TopicPartition],
) -> Result<Outcome<()>, BrokerError> {
    view.incarnation(broker, epoch)?;
    let made = failed.iter().filter_map(|&tp| {
        let change = PartitionChange::of(view, tp)?;
        let partition = change.old();
        let change = if has_other_member(view, partition, broker) {
            change.without_lost(broker)
        } else if partition.isr.contains(&broker) {
            change.without(broker)
        } else {
            return None;
        };
        change.record(|id| id != broker && view.is_eligible(id))
    });
    Ok(Outcome {
        records: made.collect(),
        reply: (),
    })
}

fn leave_in_sync_sets(view: View<'_>, broker: BrokerId) -> impl Iterator<Item = MetadataRecord> {
    partitions_of(view, broker).filter_map(move |tp| {
        let change = PartitionChange::of(view, tp)?;
        if !change.old().isr.contains(&broker) {
            return None;
        }
        change
            .without(broker)
            .record(|id| id != broker && view.is_eligible(id))
    })
}

fn change_record(
    broker: &BrokerRegistration,
    fenced: Option<bool>,
    in_controlled_shutdown: Option<bool>,
) -> MetadataRecord {
    records::record(Record::BrokerChange(BrokerChangeRecord {
        broker_id: broker.id.get(),
        broker_epoch: broker.epoch.get(),
        fenced,
        in_controlled_shutdown,
        log_dirs: None,
    }))
}
