//! What one replica of a partition knows and decides. Pure: events and [`Facts`] in, [`Effects`] out;
//! no clock, file, socket, task or randomness. The shell ([`crate::Partition`]) and the simulation
//! drive exactly this.

mod facts;
mod isr;
mod leader;
mod progress;
#[cfg(test)]
mod tests;

use std::time::Duration;

use metadata::PartitionRegistration;
use protocol::{BrokerEpoch, BrokerId, LeaderEpoch, Offset, PartitionEpoch};

pub use facts::{Brokers, EpochLookup, Facts, LogView};
pub use isr::{IsrState, Proposal};
pub use leader::LeaderState;
pub use progress::FollowerProgress;

use crate::{
    AlterIsr, AlteredPartition, FetchVerdict, FollowerFetch, IsrError,
    error::{FetchRefused, ReadRefused, RoleError},
};

/// A partition's record and what of this broker and of the topic's settings belongs to it.
#[derive(Clone, Copy, Debug)]
pub struct Assignment<'a> {
    /// The record.
    pub registration: &'a PartitionRegistration,
    /// The epoch of this broker's own registration.
    pub my_epoch: BrokerEpoch,
    /// Whether the image that holds the record also holds this process's registration. Before that, a
    /// record that names this broker as the leader means an earlier process: no process resumes an
    /// epoch that it did not start.
    pub may_lead: bool,
    /// The topic's `min.insync.replicas`.
    pub min_isr: usize,
}

/// What a record made of the replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    /// It leads, from `start` on. The log notes the epoch's start before anything is appended.
    BecameLeader {
        /// The new epoch.
        epoch: LeaderEpoch,
        /// The log end at which the leadership begins.
        start: Offset,
    },
    /// It follows; `None`: nobody leads.
    BecameFollower {
        /// The leader's broker.
        leader: Option<BrokerId>,
        /// The leader's epoch.
        epoch: LeaderEpoch,
    },
    /// The same role in the same epoch, with another ISR, other replicas or other settings.
    Updated,
    /// The record is older than what is known: ignored.
    Stale,
    /// The replica's storage has failed; it stays out until it is created anew.
    Failed,
}

/// What the shell has to do after an event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// The high watermark has advanced to here.
    pub high_watermark: Option<Offset>,
    /// The controller is to be asked for this change of the ISR; its outcome comes back by
    /// [`PartitionState::on_alter_isr_result`].
    pub propose_isr: Option<AlterIsr>,
    /// The confirmed ISR has just become too small for `acks=all`: whoever waits for the high
    /// watermark would wait for as long as that lasts.
    pub fell_under_min_isr: bool,
}

/// A replica that follows, or would if there was a leader.
#[derive(Clone, Debug)]
pub struct FollowerState {
    leader: Option<BrokerId>,
    epoch: LeaderEpoch,
    partition_epoch: PartitionEpoch,
    in_sync: bool,
    leader_high_watermark: Offset,
}

impl FollowerState {
    /// Whom it follows.
    pub fn leader(&self) -> Option<BrokerId> {
        self.leader
    }

    /// Whether the latest record has the replica in the ISR.
    pub fn in_sync(&self) -> bool {
        self.in_sync
    }
}

/// What the replica is.
#[derive(Clone, Debug)]
pub enum Role {
    /// No record has been seen yet.
    Unassigned,
    /// It leads.
    Leader(LeaderState),
    /// It led until this broker gave up its leaderships, and leads again if the metadata still says
    /// so once the broker is back.
    Resigned(LeaderState),
    /// It follows.
    Follower(FollowerState),
    /// Its storage has failed.
    Failed,
}

/// One replica of one partition.
#[derive(Clone, Debug)]
pub struct PartitionState {
    me: BrokerId,
    lag_max: Duration,
    role: Role,
    high_watermark: Offset,
}

pub(crate) fn check_epoch(asked: Option<LeaderEpoch>, current: LeaderEpoch) -> Result<(), RoleError> {
    match asked {
        Some(asked) if asked < current => Err(RoleError::Fenced { asked, current }),
        Some(asked) if asked > current => Err(RoleError::UnknownEpoch { asked, current }),
        _ => Ok(()),
    }
}

impl PartitionState {
    /// A replica on broker `me` whose log holds what `log` says, with what is remembered of its high
    /// watermark. Followers leave the ISR after `lag_max` (`replica.lag.time.max.ms`).
    pub fn new(me: BrokerId, lag_max: Duration, log: LogView, remembered: Option<Offset>) -> Self {
        Self {
            me,
            lag_max,
            role: Role::Unassigned,
            high_watermark: remembered.unwrap_or(log.start).max(log.start).min(log.end),
        }
    }

    /// Takes a record of the partition, or newer settings with the same record.
    pub fn apply_registration(
        &mut self,
        assignment: &Assignment<'_>,
        facts: &Facts<'_>,
    ) -> (Transition, Effects) {
        let record = assignment.registration;
        if matches!(self.role, Role::Failed) {
            return (Transition::Failed, Effects::default());
        }
        if self
            .known_epochs()
            .is_some_and(|(leader_epoch, partition_epoch)| {
                record.leader_epoch < leader_epoch || record.partition_epoch < partition_epoch
            })
        {
            return (Transition::Stale, Effects::default());
        }
        let was_under = self.is_under_min_isr();
        let transition = if record.leader == Some(self.me) && assignment.may_lead {
            self.lead(assignment, facts)
        } else {
            self.follow(record)
        };
        let mut effects = Effects::default();
        self.advance(facts, &mut effects);
        effects.fell_under_min_isr = !was_under && self.is_under_min_isr();
        (transition, effects)
    }

    fn lead(&mut self, assignment: &Assignment<'_>, facts: &Facts<'_>) -> Transition {
        let epoch = assignment.registration.leader_epoch;
        match std::mem::replace(&mut self.role, Role::Unassigned) {
            Role::Leader(mut leader) if leader.epoch() == epoch => {
                leader.update(assignment, facts);
                self.role = Role::Leader(leader);
                Transition::Updated
            }
            // The same process, the same history, nothing appended in between: the same leadership.
            Role::Resigned(mut leader) if leader.epoch() == epoch => {
                leader.update(assignment, facts);
                let start = leader.start();
                self.role = Role::Leader(leader);
                Transition::BecameLeader { epoch, start }
            }
            _ => {
                let leader = LeaderState::new(self.me, self.lag_max, assignment, facts);
                let start = leader.start();
                self.role = Role::Leader(leader);
                Transition::BecameLeader { epoch, start }
            }
        }
    }

    fn follow(&mut self, record: &PartitionRegistration) -> Transition {
        // An earlier process of this broker leads nobody.
        let leader = record.leader.filter(|&leader| leader != self.me);
        let in_sync = record.isr.contains(&self.me);
        if let Role::Follower(follower) = &mut self.role
            && follower.epoch == record.leader_epoch
            && follower.leader == leader
        {
            follower.partition_epoch = record.partition_epoch;
            follower.in_sync = in_sync;
            return Transition::Updated;
        }
        self.role = Role::Follower(FollowerState {
            leader,
            epoch: record.leader_epoch,
            partition_epoch: record.partition_epoch,
            in_sync,
            leader_high_watermark: self.high_watermark,
        });
        Transition::BecameFollower {
            leader,
            epoch: record.leader_epoch,
        }
    }

    /// The log has grown, or more of it has become durable.
    pub fn on_log_progress(&mut self, facts: &Facts<'_>) -> Effects {
        let mut effects = Effects::default();
        self.advance(facts, &mut effects);
        effects
    }

    /// A follower's fetch arrived.
    pub fn on_follower_fetch(
        &mut self,
        from: BrokerId,
        broker_epoch: BrokerEpoch,
        fetch: &FollowerFetch,
        epochs: &dyn EpochLookup,
        facts: &Facts<'_>,
    ) -> Result<(FetchVerdict, Effects), FetchRefused> {
        let high_watermark = self.high_watermark;
        let leader = self.leader_mut()?;
        let verdict = leader.fetch(from, broker_epoch, fetch, epochs, facts)?;
        let mut effects = Effects::default();
        if matches!(verdict, FetchVerdict::Continue { .. }) {
            // Before the high watermark moves: a member that joins obeys the one it has reached.
            effects.propose_isr = leader.propose_expand(from, high_watermark, facts);
            self.advance(facts, &mut effects);
        }
        Ok((verdict, effects))
    }

    /// The controller answered a proposal, or did not.
    pub fn on_alter_isr_result(
        &mut self,
        change: &AlterIsr,
        outcome: Result<AlteredPartition, IsrError>,
        facts: &Facts<'_>,
    ) -> Effects {
        let mut effects = Effects::default();
        let was_under = self.is_under_min_isr();
        if let Role::Leader(leader) | Role::Resigned(leader) = &mut self.role {
            leader.altered(change, outcome, facts);
        }
        self.advance(facts, &mut effects);
        effects.fell_under_min_isr = !was_under && self.is_under_min_isr();
        effects
    }

    /// Time has passed.
    pub fn on_tick(&mut self, facts: &Facts<'_>) -> Effects {
        let mut effects = Effects::default();
        if let Role::Leader(leader) = &mut self.role {
            effects.propose_isr = leader.tick(facts);
        }
        self.advance(facts, &mut effects);
        effects
    }

    /// A follower heard its leader's high watermark.
    pub fn on_leader_high_watermark(&mut self, high_watermark: Offset, facts: &Facts<'_>) -> Effects {
        if let Role::Follower(follower) = &mut self.role {
            follower.leader_high_watermark = follower.leader_high_watermark.max(high_watermark);
        }
        self.on_log_progress(facts)
    }

    /// The follower's log was cut, or begun anew elsewhere: the high watermark stays inside it.
    pub fn on_truncated(&mut self, log: LogView) {
        if let Role::Follower(follower) = &mut self.role {
            // What the leader said is heard again; of what was kept, nothing above the cut counts.
            follower.leader_high_watermark = follower.leader_high_watermark.min(log.end).max(log.start);
        }
        self.high_watermark = self.high_watermark.min(log.end).max(log.start);
    }

    /// Records below `start` are gone (retention, DeleteRecords, the leader's log start).
    pub fn on_log_start(&mut self, start: Offset) -> bool {
        let moved = start > self.high_watermark;
        self.high_watermark = self.high_watermark.max(start);
        moved
    }

    /// Stops leading until a record says so again: this broker may have been fenced.
    pub fn resign(&mut self) -> bool {
        match std::mem::replace(&mut self.role, Role::Unassigned) {
            Role::Leader(leader) => {
                self.role = Role::Resigned(leader);
                true
            }
            other => {
                self.role = other;
                false
            }
        }
    }

    /// The replica's storage has failed: it answers nothing any more.
    pub fn fail(&mut self) {
        self.role = Role::Failed;
    }

    /// The replica is being deleted: it has no role any more.
    pub fn retire(&mut self) {
        self.role = Role::Unassigned;
    }

    fn advance(&mut self, facts: &Facts<'_>, effects: &mut Effects) {
        let reachable = match &self.role {
            Role::Leader(leader) => leader.committable(facts),
            Role::Follower(follower) => Some(follower.leader_high_watermark.min(facts.log.end)),
            Role::Unassigned | Role::Resigned(_) | Role::Failed => None,
        };
        if let Some(to) = reachable.filter(|&to| to > self.high_watermark) {
            self.high_watermark = to;
            effects.high_watermark = Some(to);
        }
        self.assert_invariants(facts.log);
    }

    /// Whether a client may append in this epoch; answers with the epoch.
    pub fn check_append(&self, asked: Option<LeaderEpoch>) -> Result<LeaderEpoch, RoleError> {
        let leader = self.leader()?;
        leader.check_epoch(asked)?;
        Ok(leader.epoch())
    }

    /// Whether the confirmed ISR is too small for `acks=all`; false where this replica does not lead.
    pub fn is_under_min_isr(&self) -> bool {
        match &self.role {
            Role::Leader(leader) => leader.is_under_min_isr(),
            Role::Unassigned | Role::Resigned(_) | Role::Follower(_) | Role::Failed => false,
        }
    }

    /// The offset below which a client's read from `from` may see records.
    ///
    /// A new leader serves what it knows to be committed, also before it has reached the start of its
    /// epoch: those records stay. What it may not name yet is the end of them:
    /// [`PartitionState::settled_high_watermark`].
    ///
    /// A follower never says that an offset is out of range above its high watermark: it may only not
    /// know yet, and the error would reset the consumer (KIP-392).
    pub fn check_read(
        &self,
        from: Offset,
        asked: Option<LeaderEpoch>,
        follower_ok: bool,
        log: LogView,
    ) -> Result<Offset, ReadRefused> {
        let high_watermark = self.high_watermark;
        let out_of_range = |end| {
            Err(ReadRefused::OutOfRange {
                from,
                log_start: log.start,
                end,
            })
        };
        match &self.role {
            Role::Leader(leader) => {
                leader.check_epoch(asked)?;
                if from < log.start || from > log.end {
                    return out_of_range(log.end);
                }
                Ok(high_watermark)
            }
            Role::Follower(follower) => {
                check_epoch(asked, follower.epoch)?;
                if !follower_ok {
                    return Err(RoleError::NotLeader.into());
                }
                if from < log.start {
                    return out_of_range(high_watermark);
                }
                if from > high_watermark {
                    return Err(ReadRefused::NotAvailable);
                }
                Ok(high_watermark)
            }
            Role::Unassigned | Role::Resigned(_) => Err(RoleError::NotLeader.into()),
            Role::Failed => Err(RoleError::Failed.into()),
        }
    }

    /// The high watermark, where this replica leads in the asked epoch and has reached the start of
    /// its leadership: what may be told as "the end" of the partition.
    pub fn settled_high_watermark(&self, asked: Option<LeaderEpoch>) -> Result<Offset, ReadRefused> {
        let leader = self.leader()?;
        leader.check_epoch(asked)?;
        if self.high_watermark < leader.start() {
            return Err(ReadRefused::NotAvailable);
        }
        Ok(self.high_watermark)
    }

    /// Everything below is committed, as far as this replica knows. Never decreases while it leads.
    pub fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// What the replica is.
    pub fn role(&self) -> &Role {
        &self.role
    }

    /// The leader's state, where this replica leads.
    pub fn leader(&self) -> Result<&LeaderState, RoleError> {
        match &self.role {
            Role::Leader(leader) => Ok(leader),
            Role::Failed => Err(RoleError::Failed),
            Role::Unassigned | Role::Resigned(_) | Role::Follower(_) => Err(RoleError::NotLeader),
        }
    }

    fn leader_mut(&mut self) -> Result<&mut LeaderState, RoleError> {
        match &mut self.role {
            Role::Leader(leader) => Ok(leader),
            Role::Failed => Err(RoleError::Failed),
            Role::Unassigned | Role::Resigned(_) | Role::Follower(_) => Err(RoleError::NotLeader),
        }
    }

    /// The leader that this replica follows and its epoch.
    pub fn following(&self) -> Option<(BrokerId, LeaderEpoch)> {
        match &self.role {
            Role::Follower(follower) => Some((follower.leader?, follower.epoch)),
            Role::Unassigned | Role::Leader(_) | Role::Resigned(_) | Role::Failed => None,
        }
    }

    /// Whether the replica follows and the latest record has it in the ISR.
    pub fn is_in_sync_follower(&self) -> bool {
        matches!(&self.role, Role::Follower(follower) if follower.in_sync)
    }

    /// Whether the replica follows a leader of this epoch: what else arrives from one is void.
    pub fn check_follows(&self, epoch: LeaderEpoch) -> Result<(), RoleError> {
        match &self.role {
            Role::Follower(follower) if follower.leader.is_some() => check_epoch(Some(epoch), follower.epoch),
            Role::Failed => Err(RoleError::Failed),
            Role::Unassigned | Role::Leader(_) | Role::Resigned(_) | Role::Follower(_) => {
                Err(RoleError::NotLeader)
            }
        }
    }

    /// The leader epoch that the replica knows of.
    pub fn leader_epoch(&self) -> Option<LeaderEpoch> {
        self.known_epochs().map(|(leader_epoch, _)| leader_epoch)
    }

    fn known_epochs(&self) -> Option<(LeaderEpoch, PartitionEpoch)> {
        match &self.role {
            Role::Unassigned | Role::Failed => None,
            Role::Leader(leader) | Role::Resigned(leader) => Some((leader.epoch(), leader.partition_epoch())),
            Role::Follower(follower) => Some((follower.epoch, follower.partition_epoch)),
        }
    }

    /// Panics, in tests and debug builds, where an invariant does not hold:
    /// `log start ≤ high watermark ≤ log end`; a leader is in its own ISR, is a replica, and began
    /// inside its log.
    pub fn assert_invariants(&self, log: LogView) {
        debug_assert!(log.start <= log.end && log.durable <= log.end, "{log:?}");
        debug_assert!(
            self.high_watermark <= log.end,
            "high watermark {} above {log:?}",
            self.high_watermark
        );
        if let Role::Leader(leader) = &self.role {
            debug_assert!(
                leader.start() <= log.end,
                "epoch start {} above {log:?}",
                leader.start()
            );
            debug_assert!(
                leader.isr().committed().contains(&self.me) && leader.replicas().contains(&self.me),
                "leader {} outside its ISR: {leader:?}",
                self.me
            );
        }
    }
}
