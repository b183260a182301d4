//! A replica that leads: who is in sync, and how far everybody is.

use std::collections::BTreeMap;
use std::time::Duration;

use metadata::PartitionRegistration;
use protocol::{BrokerEpoch, BrokerId, LeaderEpoch, Offset, PartitionEpoch};

use super::{
    Assignment,
    facts::{EpochLookup, Facts},
    isr::{IsrState, Proposal},
    progress::FollowerProgress,
};
use crate::{
    AlterIsr, AlteredPartition, FetchVerdict, FollowerFetch, IsrError, Now,
    error::{FetchRefused, RoleError},
};

/// One leadership: from the registration that gave it until a record with a higher leader epoch.
#[derive(Clone, Debug)]
pub struct LeaderState {
    me: BrokerId,
    my_epoch: BrokerEpoch,
    epoch: LeaderEpoch,
    start: Offset,
    partition_epoch: PartitionEpoch,
    replicas: Vec<BrokerId>,
    isr: IsrState,
    followers: BTreeMap<BrokerId, FollowerProgress>,
    min_isr: usize,
    lag_max: Duration,
    last_tick: Now,
}

impl LeaderState {
    pub(super) fn new(
        me: BrokerId,
        lag_max: Duration,
        assignment: &Assignment<'_>,
        facts: &Facts<'_>,
    ) -> Self {
        let registration = assignment.registration;
        let mut leader = Self {
            me,
            my_epoch: assignment.my_epoch,
            epoch: registration.leader_epoch,
            start: facts.log.end,
            partition_epoch: registration.partition_epoch,
            replicas: Vec::new(),
            isr: IsrState::committed_set(&registration.isr),
            followers: BTreeMap::new(),
            min_isr: assignment.min_isr,
            lag_max,
            last_tick: facts.now,
        };
        leader.set_replicas(registration, facts);
        leader
    }

    /// A newer record, or newer settings, of the same leadership.
    pub(super) fn update(&mut self, assignment: &Assignment<'_>, facts: &Facts<'_>) {
        self.my_epoch = assignment.my_epoch;
        self.min_isr = assignment.min_isr;
        let registration = assignment.registration;
        if registration.partition_epoch > self.partition_epoch {
            self.partition_epoch = registration.partition_epoch;
            self.isr = IsrState::committed_set(&registration.isr);
            self.set_replicas(registration, facts);
            self.excuse_members(facts.now);
        }
    }

    fn set_replicas(&mut self, registration: &PartitionRegistration, facts: &Facts<'_>) {
        self.replicas.clone_from(&registration.replicas);
        let me = self.me;
        self.followers
            .retain(|id, _| *id != me && registration.replicas.contains(id));
        for &id in registration.replicas.iter().filter(|&&id| id != me) {
            let in_sync = registration.isr.contains(&id);
            self.followers
                .entry(id)
                .or_insert_with(|| FollowerProgress::unheard(in_sync, facts.log.end, facts.now));
        }
    }

    /// Members have their full time from the moment they are members.
    fn excuse_members(&mut self, now: Now) {
        for (id, progress) in &mut self.followers {
            if self.isr.committed().contains(id) && !progress.keeps_up(now, self.lag_max) {
                progress.excuse(now);
            }
        }
    }

    /// The largest offset that is durable at everybody who counts; `None` where the high watermark
    /// must stand still: below `min.insync.replicas` (KIP-966), or before each member of the maximal
    /// ISR has acknowledged something in this leader epoch under its current broker epoch (KIP-320).
    pub(super) fn committable(&self, facts: &Facts<'_>) -> Option<Offset> {
        if self.is_under_min_isr() {
            return None;
        }
        let mut committable = facts.log.durable;
        if cfg!(feature = "unsafe-no-isr-check") {
            return Some(committable);
        }
        for id in self.isr.maximal().filter(|&id| id != self.me) {
            let progress = self.followers.get(&id)?;
            if progress.broker_epoch() < facts.brokers.epoch(id) {
                return None;
            }
            committable = committable.min(progress.durable()?);
        }
        Some(committable)
    }

    /// Takes a follower's fetch. The verdict is made before anything is counted: only a log that is a
    /// prefix of this one acknowledges.
    pub(super) fn fetch(
        &mut self,
        from: BrokerId,
        broker_epoch: BrokerEpoch,
        fetch: &FollowerFetch,
        epochs: &dyn EpochLookup,
        facts: &Facts<'_>,
    ) -> Result<FetchVerdict, FetchRefused> {
        self.check_epoch(Some(fetch.leader_epoch))?;
        let Some(progress) = self.followers.get_mut(&from) else {
            return Err(FetchRefused::NotReplica(from));
        };
        let current = progress.broker_epoch().max(facts.brokers.epoch(from));
        if let Some(current) = current.filter(|&current| broker_epoch < current) {
            return Err(FetchRefused::StaleBrokerEpoch {
                asked: broker_epoch,
                current,
            });
        }
        let position = fetch.position;
        let out_of_range = FetchRefused::OutOfRange {
            log_end: position.log_end,
            log_start: facts.log.start,
        };
        if position.log_end < facts.log.start {
            return Err(out_of_range);
        }
        match position.last_epoch {
            None if position.log_end > facts.log.end => return Err(out_of_range),
            None => {}
            Some(asked) => match epochs.end_offset_for_epoch(asked) {
                None => {
                    return Ok(FetchVerdict::Diverged {
                        epoch: None,
                        end_offset: facts.log.start,
                    });
                }
                Some((epoch, end_offset)) if epoch != asked || end_offset < position.log_end => {
                    return Ok(FetchVerdict::Diverged {
                        epoch: Some(epoch),
                        end_offset,
                    });
                }
                Some(_) => {}
            },
        }
        progress.acknowledged(
            broker_epoch,
            position.durable.min(position.log_end),
            position.log_end,
            facts.log.end,
            facts.now,
        );
        Ok(FetchVerdict::Continue {
            next: position.log_end,
        })
    }

    /// Proposes to take `from` into the ISR where it may join: live, and durable up to the high
    /// watermark and to the start of this epoch (KIP-320, KIP-841, KIP-903).
    pub(super) fn propose_expand(
        &mut self,
        from: BrokerId,
        high_watermark: Offset,
        facts: &Facts<'_>,
    ) -> Option<AlterIsr> {
        if self.isr.is_pending() || self.isr.committed().contains(&from) {
            return None;
        }
        let progress = self.followers.get_mut(&from)?;
        let durable = progress.durable()?;
        let joins = durable >= high_watermark
            && durable >= self.start
            && facts.brokers.is_eligible(from)
            && progress.broker_epoch() == facts.brokers.epoch(from);
        if !joins {
            return None;
        }
        progress.excuse(facts.now);
        let isr = self.isr.committed().to_vec();
        let wanted = isr.iter().copied().chain([from]).collect();
        let change = self.change(wanted, facts);
        self.isr = IsrState::PendingExpand {
            isr,
            joining: from,
            proposal: Proposal::new(change.clone(), facts.now),
        };
        Some(change)
    }

    /// Time passes: a waiting proposal is sent again, or members that lag are proposed to leave.
    pub(super) fn tick(&mut self, facts: &Facts<'_>) -> Option<AlterIsr> {
        let asleep = facts.now.since(self.last_tick);
        self.last_tick = facts.now;
        if asleep >= self.lag_max {
            // This process stood still; its followers' silence is no evidence against them.
            for progress in self.followers.values_mut() {
                if progress.keeps_up(facts.now, self.lag_max.saturating_add(asleep)) {
                    progress.excuse(facts.now);
                }
            }
        }
        if self.isr.is_pending() {
            return self.isr.retry(facts.now);
        }
        let leaving: Vec<BrokerId> = self
            .isr
            .committed()
            .iter()
            .copied()
            .filter(|id| *id != self.me)
            .filter(|id| {
                self.followers
                    .get(id)
                    .is_none_or(|progress| !progress.keeps_up(facts.now, self.lag_max))
            })
            .collect();
        if leaving.is_empty() {
            return None;
        }
        let isr = self.isr.committed().to_vec();
        let wanted = isr.iter().copied().filter(|id| !leaving.contains(id)).collect();
        let change = self.change(wanted, facts);
        self.isr = IsrState::PendingShrink {
            isr,
            leaving,
            proposal: Proposal::new(change.clone(), facts.now),
        };
        Some(change)
    }

    fn change(&self, mut members: Vec<BrokerId>, facts: &Facts<'_>) -> AlterIsr {
        members.sort_unstable();
        let epoch_of = |id: BrokerId| {
            if id == self.me {
                return self.my_epoch;
            }
            // A member that has not fetched in this leader epoch is known by its registration alone;
            // one that has none was unregistered, and an epoch below all others has it refused.
            self.followers
                .get(&id)
                .and_then(FollowerProgress::broker_epoch)
                .or_else(|| facts.brokers.epoch(id))
                .unwrap_or(BrokerEpoch(-1))
        };
        AlterIsr {
            new_isr: members.into_iter().map(|id| (id, epoch_of(id))).collect(),
            leader_epoch: self.epoch,
            partition_epoch: self.partition_epoch,
        }
    }

    /// The outcome of an attempt at `change`. A record of another leadership is left to the metadata.
    pub(super) fn altered(
        &mut self,
        change: &AlterIsr,
        outcome: Result<AlteredPartition, IsrError>,
        facts: &Facts<'_>,
    ) {
        match outcome {
            Ok(record) => {
                let ours = record.leader_epoch == self.epoch
                    && record.leader == Some(self.me)
                    && record.isr.contains(&self.me);
                // An accepted change that changed nothing keeps its epoch.
                let news = record.partition_epoch > self.partition_epoch
                    || (record.partition_epoch == self.partition_epoch && self.isr.awaits(change));
                if ours && news {
                    self.partition_epoch = record.partition_epoch;
                    self.isr = IsrState::committed_set(&record.isr);
                    self.excuse_members(facts.now);
                }
            }
            Err(error) => {
                if self.isr.awaits(change) {
                    self.isr.failed(error, facts.now);
                }
            }
        }
    }

    pub(super) fn check_epoch(&self, asked: Option<LeaderEpoch>) -> Result<(), RoleError> {
        super::check_epoch(asked, self.epoch)
    }

    /// The epoch of this leadership.
    pub fn epoch(&self) -> LeaderEpoch {
        self.epoch
    }

    /// The log end at which this leadership began: nothing that depends on the high watermark is
    /// answered before it has come here.
    pub fn start(&self) -> Offset {
        self.start
    }

    /// The partition's record as it is known.
    pub fn partition_epoch(&self) -> PartitionEpoch {
        self.partition_epoch
    }

    /// The in-sync set.
    pub fn isr(&self) -> &IsrState {
        &self.isr
    }

    /// All replicas, the leader among them, in order of preference.
    pub fn replicas(&self) -> &[BrokerId] {
        &self.replicas
    }

    /// What is known of a follower.
    pub fn follower(&self, id: BrokerId) -> Option<&FollowerProgress> {
        self.followers.get(&id)
    }

    /// `min.insync.replicas`, but never more than there are replicas.
    pub fn effective_min_isr(&self) -> usize {
        self.min_isr.min(self.replicas.len()).max(1)
    }

    /// Whether the confirmed ISR is smaller than it must be for `acks=all`.
    pub fn is_under_min_isr(&self) -> bool {
        self.isr.committed().len() < self.effective_min_isr()
    }
}
