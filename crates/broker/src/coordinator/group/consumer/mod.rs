//! One group of the KIP-848 protocol: the coordinator assigns, members follow one heartbeat at a time.
//!
//! ```text
//!              a member joins                     the target is computed,
//!   Empty ─────────────────────▶ Assigning ───────────────────────────────▶ Reconciling
//!     ▲                            ▲    ▲      in the next heartbeat            │    │
//!     │                            │    └───────────────────────────────────────┘    │ every member has
//!     │ the last member leaves     │          members, subscriptions or              │ what the target
//!     └──── from any state         │          topics change                          ▼ gives it
//!                                  └──────────────────────────────────────────── Stable
//! ```
//!
//! (From Assigning straight to Stable where the target gives everyone what it has: so does a group's first
//! heartbeat, in one go.)
//!
//! Every change of members, of subscriptions or of the topics makes the **group epoch** one higher. The
//! **target assignment** of that epoch says who is to have what, and every member goes there on its own: it
//! first gives up what is no longer its own, says so, and only then gets what others have given up
//! ([`reconcile`]). No partition has two owners, and nobody waits who has nothing to wait for.
//!
//! Everything is written down as it happens, so that a coordinator that takes over goes on where this one
//! was. Only timers are not: sessions begin anew.
//!
//! Members of the classic protocol can be in such a group ([`classic_members`]): a group changes its protocol
//! while it runs ([`migrate`]).

mod classic_members;
mod describe;
mod heartbeat;
mod leave;
mod ledger;
mod migrate;
mod offsets;
mod patterns;
mod reconcile;
mod refusal;
mod seat;
mod target;
mod validate;

#[cfg(test)]
use std::fmt::Debug;

pub use self::ledger::{ConsumerRecords, MemberRecords};
pub(super) use self::{
    classic_members::ClassicLeave,
    heartbeat::{Beat, check_room},
    leave::Leaving,
    migrate::Inheritance,
    patterns::fresh,
    refusal::Refusal,
    validate::refuse,
};

use self::{ledger::Ledger, patterns::CompiledPatterns};
use super::{
    effects::Effects,
    ids::{GroupId, MemberId},
    records::{Change, ConsumerChange, MemberState},
    timers::TimerKey,
};

/// What a group is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It has no members; its offsets are kept.
    Empty,
    /// Something changed, and the target assignment does not know it yet.
    Assigning,
    /// Members are on their way to the target.
    Reconciling,
    /// Every member has what the target gives it.
    Stable,
}

impl State {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Assigning => "Assigning",
            Self::Reconciling => "Reconciling",
            Self::Stable => "Stable",
        }
    }
}

/// A group, its members and their assignments.
#[derive(Clone, Debug)]
pub(super) struct ConsumerGroup {
    id: GroupId,
    ledger: Ledger,
    /// Which version of the topics the group's epoch knows; `None` after a load.
    topics_seen: Option<u64>,
    /// The expressions that were compiled already, so that none is compiled more than once.
    compiled: CompiledPatterns,
    /// Which version of the topics the patterns were looked up in, and when.
    patterns_seen: Option<(u64, u64)>,
}

impl ConsumerGroup {
    /// A group of which nothing is known but its name.
    pub(super) fn new(id: GroupId) -> Self {
        Self {
            id,
            ledger: Ledger::default(),
            topics_seen: None,
            compiled: CompiledPatterns::default(),
            patterns_seen: None,
        }
    }

    /// What the log says of this group.
    pub(super) fn records(&self) -> &ConsumerRecords {
        self.ledger.records()
    }

    /// The records, and what is looked up in them: nothing of it is in memory alone.
    #[cfg(test)]
    pub(super) fn ledger(&self) -> &(impl Debug + PartialEq + use<>) {
        &self.ledger
    }

    /// Whether the log says nothing of it (its offsets aside).
    pub(super) fn is_vacant(&self) -> bool {
        self.ledger.is_blank()
    }

    /// Whether it may be deleted.
    pub(super) fn is_empty(&self) -> bool {
        self.ledger.len() == 0
    }

    pub(super) fn members(&self) -> usize {
        self.ledger.len()
    }

    /// Whether someone of this id is in it.
    pub(super) fn has_member(&self, id: &str) -> bool {
        self.ledger.subscription(id).is_some()
    }

    pub(super) fn state(&self) -> State {
        if self.is_empty() {
            State::Empty
        } else if self.ledger.epoch() != self.ledger.target_epoch() {
            State::Assigning
        } else if self.ledger.members().any(|(id, _)| !self.is_at_target(id)) {
            State::Reconciling
        } else {
            State::Stable
        }
    }

    /// Whether a member has what the target gives it.
    fn is_at_target(&self, id: &MemberId) -> bool {
        let current = self.ledger.current(id.as_str());
        current.state == MemberState::Stable && current.epoch == self.ledger.target_epoch()
    }

    /// Takes over what a record says.
    pub(super) fn apply(&mut self, change: ConsumerChange) {
        self.ledger.apply(change);
    }

    /// Applies a change and has it appended.
    fn write(&mut self, change: ConsumerChange, fx: &mut Effects<'_>) {
        let change = self.change(change);
        fx.record(&change);
        if let Change::Consumer(_, change) = change {
            self.apply(change);
        }
    }

    /// A change of this group.
    fn change(&self, change: ConsumerChange) -> Change {
        Change::Consumer(self.id.clone(), change)
    }

    /// Whether a change fits a record.
    fn fits(&self, change: &ConsumerChange, fx: &Effects<'_>) -> bool {
        self.change(change.clone()).encode().size() <= fx.config.max_records_bytes
    }

    /// The tombstones that leave nothing of this group.
    pub(super) fn deletion(&self) -> Vec<Change> {
        let records = self.records();
        let mut changes = Vec::new();
        for (id, member) in &records.members {
            if member.current.is_some() {
                changes.push(ConsumerChange::Current(id.clone(), None));
            }
            if member.target.is_some() {
                changes.push(ConsumerChange::Target(id.clone(), None));
            }
        }
        if records.target_epoch.is_some() {
            changes.push(ConsumerChange::TargetEpoch(None));
        }
        for (id, member) in &records.members {
            if member.subscription.is_some() {
                changes.push(ConsumerChange::Member(id.clone(), None));
            }
        }
        for pattern in records.patterns.keys() {
            changes.push(ConsumerChange::Pattern(pattern.clone(), None));
        }
        if records.partition_metadata.is_some() {
            changes.push(ConsumerChange::PartitionMetadata(None));
        }
        if records.group.is_some() {
            changes.push(ConsumerChange::Group(None));
        }
        changes.into_iter().map(|change| self.change(change)).collect()
    }

    /// Ends the load: the members are expected to be heard of again.
    pub(super) fn loaded(&self, fx: &mut Effects<'_>) {
        for (id, subscription) in self.ledger.members() {
            self.start_session(id, fx);
            if self.is_revoking(id) && subscription.classic.is_none() {
                self.expect_revocation(id, subscription.rebalance_timeout_ms, fx);
            }
        }
    }

    /// Gives a member (anew) its time to be heard of.
    fn start_session(&self, id: &MemberId, fx: &mut Effects<'_>) {
        let classic = self
            .ledger
            .subscription(id.as_str())
            .and_then(|subscription| subscription.classic.as_ref());
        let timeout_ms = match classic {
            Some(classic) => classic.session_timeout_ms,
            None => fx.config.consumer_session_timeout_of(&self.id),
        };
        fx.start_session(&self.id, id, milliseconds(timeout_ms));
    }

    /// Gives a member its time to give partitions up.
    fn expect_revocation(&self, id: &MemberId, timeout_ms: i32, fx: &mut Effects<'_>) {
        let key = TimerKey::Revocation(self.id.clone(), id.clone());
        fx.schedule(key, milliseconds(timeout_ms));
    }

    /// Takes all timers of a member back.
    fn cancel_timers(&self, id: &MemberId, fx: &mut Effects<'_>) {
        fx.end_session(&self.id, id);
        fx.cancel(&TimerKey::Revocation(self.id.clone(), id.clone()));
        fx.cancel(&TimerKey::MemberJoin(self.id.clone(), id.clone()));
        fx.cancel(&TimerKey::MemberSync(self.id.clone(), id.clone()));
    }
}

/// A timeout from the wire, the log or the settings; a negative one is none at all.
fn milliseconds(timeout_ms: i32) -> u64 {
    u64::try_from(timeout_ms).unwrap_or(0)
}
