//! The in-sync set as a leader knows it: committed at the controller, or with one change under way.
//!
//! ```text
//!              propose                     accepted / newer record
//! Committed ───────────▶ PendingExpand ──────────────────────────▶ Committed
//!           ───────────▶ PendingShrink ──────────────────────────▶
//!                             │ refused, and no earlier attempt can still take effect
//!                             └────────────────────────────────▶ Committed (as it was)
//! ```
//!
//! While a change is under way the high watermark obeys the *maximal* set: whichever way the
//! controller decides, every member of the resulting ISR has what was acknowledged (KIP-497).

use std::time::Duration;

use protocol::{BrokerId, ErrorCode};

use crate::{AlterIsr, IsrError, Now};

/// How long after its outcome became unknown a proposal may still take effect. Far above the lifetime
/// of a request in a controller's queue; until then a refusal of a later attempt proves nothing.
const UNKNOWN_OUTCOME_HORIZON: Duration = Duration::from_secs(30);

/// A proposal's next attempt waits this long after a failed one.
const RETRY_AFTER: Duration = Duration::from_millis(400);

/// A change that the controller has been asked for and has not been seen to decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// What was asked; every attempt asks the same.
    pub change: AlterIsr,
    /// Whether an attempt waits for its outcome.
    in_flight: bool,
    /// When the next attempt may start.
    retry_at: Now,
    /// When the outcome of an attempt became unknown, the latest such moment.
    unknown_since: Option<Now>,
}

/// The in-sync set. Members are in ascending order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IsrState {
    /// As the controller last confirmed it.
    Committed {
        /// The members.
        isr: Vec<BrokerId>,
    },
    /// One follower is being added.
    PendingExpand {
        /// The confirmed members.
        isr: Vec<BrokerId>,
        /// Who joins.
        joining: BrokerId,
        /// What was asked.
        proposal: Proposal,
    },
    /// Followers are being taken out.
    PendingShrink {
        /// The confirmed members, the leaving ones among them.
        isr: Vec<BrokerId>,
        /// Who leaves.
        leaving: Vec<BrokerId>,
        /// What was asked.
        proposal: Proposal,
    },
}

impl Proposal {
    /// A proposal whose first attempt is on its way.
    pub(super) fn new(change: AlterIsr, now: Now) -> Self {
        Self {
            change,
            in_flight: true,
            retry_at: now,
            unknown_since: None,
        }
    }
}

impl IsrState {
    /// A confirmed set.
    pub fn committed_set(members: &[BrokerId]) -> Self {
        let mut isr = members.to_vec();
        isr.sort_unstable();
        isr.dedup();
        Self::Committed { isr }
    }

    /// The members that the controller last confirmed: what `min.insync.replicas` is compared with.
    pub fn committed(&self) -> &[BrokerId] {
        match self {
            Self::Committed { isr } | Self::PendingExpand { isr, .. } | Self::PendingShrink { isr, .. } => {
                isr
            }
        }
    }

    /// Everybody who is in the set before or after the change under way.
    pub fn maximal(&self) -> impl Iterator<Item = BrokerId> + '_ {
        let joining = match self {
            Self::PendingExpand { joining, .. } => Some(*joining),
            Self::Committed { .. } | Self::PendingShrink { .. } => None,
        };
        self.committed().iter().copied().chain(joining)
    }

    /// Whether a change is under way.
    pub fn is_pending(&self) -> bool {
        !matches!(self, Self::Committed { .. })
    }

    fn proposal_mut(&mut self) -> Option<&mut Proposal> {
        match self {
            Self::Committed { .. } => None,
            Self::PendingExpand { proposal, .. } | Self::PendingShrink { proposal, .. } => Some(proposal),
        }
    }

    /// The proposal to send again, if one waits for that and its time has come.
    pub(super) fn retry(&mut self, now: Now) -> Option<AlterIsr> {
        let proposal = self.proposal_mut()?;
        if proposal.in_flight || now < proposal.retry_at {
            return None;
        }
        proposal.in_flight = true;
        Some(proposal.change.clone())
    }

    /// Whether `change` is the one under way.
    pub(super) fn awaits(&self, change: &AlterIsr) -> bool {
        match self {
            Self::Committed { .. } => false,
            Self::PendingExpand { proposal, .. } | Self::PendingShrink { proposal, .. } => {
                proposal.change == *change
            }
        }
    }

    /// The change under way was not made, or not as far as is known: decides between trying again,
    /// waiting for the metadata to tell, and giving up.
    pub(super) fn failed(&mut self, error: IsrError, now: Now) {
        let Some(proposal) = self.proposal_mut() else {
            return;
        };
        proposal.in_flight = false;
        proposal.retry_at = now.after(RETRY_AFTER);
        match error {
            IsrError::Unknown => proposal.unknown_since = Some(now),
            // The record has moved on without us, perhaps by our own earlier attempt. Only the record
            // itself, which is on its way, tells who is in the ISR: until then the maximal set holds.
            IsrError::Refused(
                ErrorCode::InvalidUpdateVersion
                | ErrorCode::FencedLeaderEpoch
                | ErrorCode::NewLeaderElected
                | ErrorCode::UnknownTopicId
                | ErrorCode::UnknownTopicOrPartition,
            ) => {}
            // Nobody who decides was reached.
            IsrError::Refused(ErrorCode::NotController) => {}
            IsrError::Refused(_) => {
                let settled = proposal
                    .unknown_since
                    .is_none_or(|since| now.since(since) >= UNKNOWN_OUTCOME_HORIZON);
                if settled {
                    let isr = std::mem::take(match self {
                        Self::Committed { isr }
                        | Self::PendingExpand { isr, .. }
                        | Self::PendingShrink { isr, .. } => isr,
                    });
                    *self = Self::Committed { isr };
                }
            }
        }
    }
}
