//! From the wished in-sync set of one partition to the record that brings it about: who leads, who
//! stays eligible (KIP-966), whether anything changes at all.

use metadata::{
    PartitionRegistration,
    configs::{min_insync_replicas, unclean_leader_election},
    records,
};
use protocol::{
    BrokerId, DirectoryId, TopicName, TopicPartition,
    grpc::v1::{MetadataRecord, PartitionChangeRecord, metadata_record::Record},
};

use super::View;

/// How far an election may go when the leader cannot stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Election {
    /// From ISR, then ELR; beyond them only where the topic allows it.
    AsConfigured,
    /// Beyond ISR and ELR too: an operator said so.
    Unclean,
    /// To the preferred leader where it is in the ISR, else the leader stays.
    Preferred,
}

/// A change of one partition in the making.
pub(super) struct PartitionChange<'a> {
    view: View<'a>,
    topic: &'a TopicName,
    tp: TopicPartition,
    old: &'a PartitionRegistration,
    isr: Vec<BrokerId>,
    elr: Vec<BrokerId>,
    /// Replicas that may lack acknowledged records: in no case in the ELR.
    lost: Vec<BrokerId>,
    directories: Option<Vec<DirectoryId>>,
    election: Election,
}

impl<'a> PartitionChange<'a> {
    /// A change of the partition that is in the view's image; `None` where it is not.
    pub(super) fn of(view: View<'a>, tp: TopicPartition) -> Option<Self> {
        let topic = view.image.topics.get(&tp.topic_id)?;
        let old = topic.partitions.get(&tp.partition)?;
        Some(Self {
            view,
            topic: &topic.name,
            tp,
            old,
            isr: old.isr.clone(),
            elr: old.elr.clone(),
            lost: Vec::new(),
            directories: None,
            election: Election::AsConfigured,
        })
    }

    /// The record as it is.
    pub(super) fn old(&self) -> &'a PartitionRegistration {
        self.old
    }

    /// The topic's name.
    pub(super) fn topic(&self) -> &'a TopicName {
        self.topic
    }

    /// Wishes for exactly this in-sync set.
    pub(super) fn with_isr(mut self, isr: Vec<BrokerId>) -> Self {
        self.isr = isr;
        self
    }

    /// Takes a broker out of the in-sync set; it may stay eligible.
    pub(super) fn without(mut self, broker: BrokerId) -> Self {
        self.isr.retain(|&id| id != broker);
        self
    }

    /// Takes a broker out of ISR and ELR: it may lack acknowledged records.
    pub(super) fn without_lost(mut self, broker: BrokerId) -> Self {
        self.lost.push(broker);
        self.without(broker)
    }

    /// Moves replicas to these directories.
    pub(super) fn with_directories(mut self, directories: Vec<DirectoryId>) -> Self {
        self.directories = Some(directories);
        self
    }

    /// Says how far an election may go.
    pub(super) fn electing(mut self, election: Election) -> Self {
        self.election = election;
        self
    }

    /// The record, where anything changes. `eligible` says who may lead: the view's registrations, or
    /// what they will be once the other records of the same outcome are applied.
    pub(super) fn record(mut self, eligible: impl Fn(BrokerId) -> bool) -> Option<MetadataRecord> {
        let (leader, unclean) = self.elect(|id| eligible(id) && self.is_directory_online(id));
        if let Some(leader) = leader {
            if unclean {
                // What others have beyond this leader's log is given up: none of them is in sync with
                // it, and none may replace it as if it were.
                self.isr = vec![leader];
                self.lost.clone_from(&self.old.replicas);
            } else if !self.isr.contains(&leader) {
                self.isr.push(leader);
            }
        }
        self.elr = self.eligible_leader_replicas();
        self.difference(leader, unclean)
    }

    /// Whether the broker can use what lies in the directory of its replica (KIP-858).
    fn is_directory_online(&self, id: BrokerId) -> bool {
        let directories = self.directories.as_ref().unwrap_or(&self.old.directories);
        let position = self.old.replicas.iter().position(|&replica| replica == id);
        let directory = position.and_then(|position| directories.get(position));
        self.view
            .image
            .brokers
            .get(&id)
            .is_some_and(|broker| directory.is_none_or(|&directory| broker.has_online(directory)))
    }

    /// Who leads, and whether records may be lost by it.
    fn elect(&self, eligible: impl Fn(BrokerId) -> bool) -> (Option<BrokerId>, bool) {
        let in_sync = |id: BrokerId| self.isr.contains(&id) && eligible(id);
        if self.election == Election::Preferred
            && let Some(preferred) = self.old.preferred_leader().filter(|&id| in_sync(id))
        {
            return (Some(preferred), false);
        }
        if let Some(leader) = self.old.leader.filter(|&id| in_sync(id)) {
            return (Some(leader), false);
        }
        let first = |may: &dyn Fn(BrokerId) -> bool| self.old.replicas.iter().copied().find(|&id| may(id));
        let clean = first(&in_sync)
            .or_else(|| first(&|id| self.elr.contains(&id) && !self.lost.contains(&id) && eligible(id)));
        if clean.is_some() {
            return (clean, false);
        }
        let beyond = self.election == Election::Unclean
            || unclean_leader_election(self.view.image, self.topic, self.view.defaults);
        if beyond {
            (first(&eligible), true)
        } else {
            (None, false)
        }
    }

    /// KIP-966: with fewer than `min.insync.replicas` in sync the high watermark stands still, so
    /// whoever was in sync (or eligible) then still has every acknowledged record. With enough in sync
    /// it moves on, and nobody outside the ISR is known to keep up.
    fn eligible_leader_replicas(&self) -> Vec<BrokerId> {
        let enough = min_insync_replicas(self.view.image, self.topic, self.old.replicas.len());
        if self.isr.len() >= enough {
            return Vec::new();
        }
        let had_everything = |id: &BrokerId| self.old.isr.contains(id) || self.old.elr.contains(id);
        let replicas = self.old.replicas.iter().copied();
        replicas
            .filter(|id| had_everything(id) && !self.isr.contains(id) && !self.lost.contains(id))
            .collect()
    }

    fn difference(self, leader: Option<BrokerId>, unclean: bool) -> Option<MetadataRecord> {
        let old = self.old;
        let mut change = PartitionChangeRecord {
            topic_id: self.tp.topic_id.to_vec().into(),
            partition: self.tp.partition.get(),
            unclean,
            ..PartitionChangeRecord::default()
        };
        let mut changed = false;
        if leader != old.leader {
            change.leader = Some(records::leader_to_record(leader));
            change.bump_leader_epoch = true;
            changed = true;
        }
        if self.isr != old.isr {
            change.isr = Some(records::broker_ids(&self.isr));
            changed = true;
        }
        if self.elr != old.elr {
            change.elr = Some(records::broker_ids(&self.elr));
            changed = true;
        }
        if let Some(directories) = self.directories.filter(|new| *new != old.directories) {
            change.directories = directories.iter().map(|id| id.to_vec().into()).collect();
            changed = true;
        }
        changed.then(|| records::record(Record::PartitionChange(change)))
    }
}

/// Every partition that has a replica on the broker.
pub(super) fn partitions_of(view: View<'_>, broker: BrokerId) -> impl Iterator<Item = TopicPartition> {
    view.image
        .partitions_by_broker
        .get(&broker)
        .into_iter()
        .flatten()
        .copied()
}
