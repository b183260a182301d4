//! What a partition says of itself: to metrics, to the console, to handlers that need one number.

use protocol::{BrokerId, LeaderEpoch, Offset, TopicName, TopicPartition};

use super::Partition;
use crate::Role;

/// The offsets of a replica, as of one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionOffsets {
    /// The first offset that is kept.
    pub log_start: Offset,
    /// Everything below is committed, as far as the replica knows.
    pub high_watermark: Offset,
    /// What `read_committed` consumers see up to.
    pub last_stable: Offset,
    /// The offset that the next record gets.
    pub log_end: Offset,
    /// Everything below is durable here.
    pub durable: Offset,
}

/// What a replica is, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaRole {
    /// It leads.
    Leader,
    /// It follows the leader on this broker.
    Follower(BrokerId),
    /// Nobody leads, as far as it knows.
    Leaderless,
    /// Its storage has failed.
    Offline,
}

/// A replica's state for metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionStatus {
    /// The partition.
    pub tp: TopicPartition,
    /// The topic's name.
    pub topic: TopicName,
    /// What the replica is.
    pub role: ReplicaRole,
    /// The leader epoch it knows.
    pub leader_epoch: Option<LeaderEpoch>,
    /// All replicas and the confirmed ISR, known to the leader only.
    pub replicas: Vec<BrokerId>,
    /// The confirmed ISR; empty where the replica does not lead.
    pub isr: Vec<BrokerId>,
    /// Leader only: some replica is not in sync.
    pub under_replicated: bool,
    /// Leader only: fewer in sync than `min.insync.replicas`.
    pub under_min_isr: bool,
    /// Leader only: exactly as many in sync as `min.insync.replicas`.
    pub at_min_isr: bool,
    /// Its offsets.
    pub offsets: PartitionOffsets,
    /// Bytes of batches in the log.
    pub size_bytes: u64,
}

impl Partition {
    /// The replica's offsets.
    pub fn offsets(&self) -> PartitionOffsets {
        let core = self.core.lock();
        let view = core.view(&self.log.load());
        let high_watermark = core.state.high_watermark().max(view.start);
        PartitionOffsets {
            log_start: view.start,
            high_watermark,
            last_stable: super::read::last_stable(high_watermark),
            log_end: view.end,
            durable: view.durable,
        }
    }

    /// The leader epoch that the replica knows of.
    pub fn leader_epoch(&self) -> Option<LeaderEpoch> {
        self.core.lock().state.leader_epoch()
    }

    /// Whether the replica leads.
    pub fn is_leader(&self) -> bool {
        self.core.lock().state.leader().is_ok()
    }

    /// The replica's state.
    pub fn status(&self) -> PartitionStatus {
        let offsets = self.offsets();
        let core = self.core.lock();
        let mut status = PartitionStatus {
            tp: self.tp,
            topic: self.topic.clone(),
            role: match core.state.role() {
                Role::Leader(_) => ReplicaRole::Leader,
                Role::Follower(follower) => follower
                    .leader()
                    .map_or(ReplicaRole::Leaderless, ReplicaRole::Follower),
                Role::Unassigned | Role::Resigned(_) => ReplicaRole::Leaderless,
                Role::Failed => ReplicaRole::Offline,
            },
            leader_epoch: core.state.leader_epoch(),
            replicas: Vec::new(),
            isr: Vec::new(),
            under_replicated: false,
            under_min_isr: false,
            at_min_isr: false,
            offsets,
            size_bytes: self.log.load().size_bytes(),
        };
        if let Ok(leader) = core.state.leader() {
            status.replicas = leader.replicas().to_vec();
            status.isr = leader.isr().committed().to_vec();
            status.under_replicated = status.isr.len() < status.replicas.len();
            status.under_min_isr = leader.is_under_min_isr();
            status.at_min_isr = status.isr.len() == leader.effective_min_isr();
        }
        status
    }
}
