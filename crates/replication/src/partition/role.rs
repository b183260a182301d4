//! Changes of role: by a record of the metadata, by giving up, by a failed disk, by deletion.

use std::sync::Arc;

use metadata::PartitionRegistration;
use protocol::BrokerEpoch;
use storage::{Log, LogConfig};

use super::{After, Partition};
use crate::{
    Assignment, Effects, PartitionState, Role, RoleError, Transition,
    disk::{DiskBusy, StrandHold},
};

/// What a replica is told to be.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    pub(crate) registration: Arc<PartitionRegistration>,
    pub(crate) my_epoch: BrokerEpoch,
    pub(crate) may_lead: bool,
    pub(crate) min_isr: usize,
    pub(crate) log_config: LogConfig,
}

impl Partition {
    /// Takes a record and settings, behind everything that is queued for the log.
    pub(crate) async fn apply(&self, standing: Standing) -> Result<(), DiskBusy> {
        let partition = self.this();
        self.strand.run(move || partition.take_standing(&standing)).await
    }

    /// On the strand.
    fn take_standing(&self, standing: &Standing) {
        if *self.log.load().config() != standing.log_config {
            self.log.load().set_config(standing.log_config.clone());
        }
        let assignment = Assignment {
            registration: &standing.registration,
            my_epoch: standing.my_epoch,
            may_lead: standing.may_lead,
            min_isr: standing.min_isr,
        };
        let mut after = After::default();
        let (transition, regrouped) = {
            let mut core = self.core.lock();
            core.refresh(&self.log.load(), &mut after);
            let was_in_sync = core.state.is_in_sync_follower();
            let mut transition = Transition::Stale;
            core.event(self, &mut after, |state, facts| {
                let (became, effects) = state.apply_registration(&assignment, facts);
                transition = became;
                effects
            });
            if let Transition::BecameFollower { .. } = transition {
                core.abandon_producers(RoleError::NotLeader, &mut after);
            }
            if let Transition::BecameLeader { .. } | Transition::BecameFollower { .. } = transition {
                after.moved = true;
                after.high_watermark_moved = true;
                after.flush = core.durable < core.end;
            }
            (transition, was_in_sync != core.state.is_in_sync_follower())
        };
        let tp = self.tp;
        match transition {
            Transition::BecameLeader { epoch, start } => {
                tracing::info!(topic = %self.topic, partition = %tp.partition, %epoch, %start, "leading");
                self.log.load().assign_epoch_start(epoch, start);
                self.tell_followers();
            }
            Transition::BecameFollower { leader, epoch } => {
                tracing::info!(topic = %self.topic, partition = %tp.partition, ?leader, %epoch, "following");
                self.forget_empty_epochs();
                self.tell_followers();
            }
            Transition::Updated if regrouped => self.tell_followers(),
            Transition::Updated | Transition::Stale | Transition::Failed => {}
        }
        self.carry_out(after);
    }

    /// An epoch that this replica led without appending anything is no history: batches of earlier
    /// epochs may still come from a leader that never heard of it.
    fn forget_empty_epochs(&self) {
        if let Err(error) = self.log.load().truncate_to(self.log.load().log_end_offset()) {
            tracing::error!(topic = %self.topic, partition = %self.tp.partition, %error, "cannot prepare to follow");
            self.storage_failed_if_dead();
        }
    }

    /// The fetching side learns whom to follow now.
    fn tell_followers(&self) {
        if let Some(followers) = self.shared.followers() {
            followers.update(self.tp, self.following());
        }
    }

    /// Stops leading at once: what is under way in the log will not be acknowledged.
    pub(crate) fn resign(&self) {
        let mut after = After::default();
        {
            let mut core = self.core.lock();
            if !core.state.resign() {
                return;
            }
            core.abandon_producers(RoleError::NotLeader, &mut after);
            after.high_watermark_moved = true;
        }
        self.carry_out(after);
    }

    /// Whether the replica led until this broker gave up.
    pub(crate) fn has_resigned(&self) -> bool {
        matches!(self.core.lock().state.role(), Role::Resigned(_))
    }

    /// Lets what is queued for the log be done, and nothing begin until the guard is dropped.
    pub(crate) async fn hold(&self) -> Result<StrandHold, DiskBusy> {
        self.strand.hold().await
    }

    /// Takes over a log with the same contents in another directory. The caller holds the replica.
    pub(crate) fn take_log(&self, log: Arc<Log>) {
        let mut after = After::default();
        {
            let mut core = self.core.lock();
            debug_assert_eq!(core.end, log.log_end_offset(), "the logs hold the same");
            self.log.store(log);
            core.refresh(&self.log.load(), &mut after);
            core.durable_moved(&self.log.load(), &mut after);
            core.event(self, &mut after, PartitionState::on_log_progress);
        }
        self.carry_out(after);
    }

    /// Whether the replica has not been given a role yet.
    pub(crate) fn is_unassigned(&self) -> bool {
        matches!(self.core.lock().state.role(), Role::Unassigned)
    }

    /// The replica's storage cannot be relied on: it answers nothing any more, here or to others,
    /// until it is created anew.
    pub(crate) fn storage_failed(&self) {
        let mut after = After::default();
        {
            let mut core = self.core.lock();
            if matches!(core.state.role(), Role::Failed) {
                return;
            }
            core.state.fail();
            core.abandon_producers(RoleError::Failed, &mut after);
            after.high_watermark_moved = true;
        }
        tracing::error!(topic = %self.topic, partition = %self.tp.partition, "replica is offline");
        if let Some(followers) = self.shared.followers() {
            followers.update(self.tp, None);
        }
        self.carry_out(after);
        self.shared.failures.send_modify(|count| *count += 1);
    }

    /// After an error: a log that has failed for good takes the replica with it.
    pub(super) fn storage_failed_if_dead(&self) {
        if self.log.load().has_failed() {
            self.storage_failed();
        }
    }

    /// The replica is about to be deleted: nobody gets anything from it, and nothing that is still
    /// queued for its log is done. Resolves when the log is not used any more.
    pub(crate) async fn retire(&self) -> Result<(), DiskBusy> {
        let mut after = After::default();
        {
            let mut core = self.core.lock();
            core.event(self, &mut after, |state, _| {
                state.retire();
                Effects::default()
            });
            core.abandon_producers(RoleError::NotLeader, &mut after);
            after.high_watermark_moved = true;
        }
        if let Some(followers) = self.shared.followers() {
            followers.update(self.tp, None);
        }
        self.carry_out(after);
        self.strand.run(|| ()).await
    }

    /// Whether the replica's storage has failed.
    pub fn is_failed(&self) -> bool {
        matches!(self.core.lock().state.role(), Role::Failed)
    }
}
