//! How a controller becomes the active one and ceases to be it: Raft's role, the claim, and what others are
//! told of both.

use metadata::records;
use protocol::{ClaimId, LeaderEpoch};
use tokio::time::Instant;

use super::active::Active;
use super::view::{ActiveController, ActiveView, known_active};
use super::{CLAIM_PAUSE, EventLoop};
use crate::metric;
use crate::raft::{LogPosition, Proposal, ProposalError, Role};

/// Where the loop stands.
pub(super) enum Leadership {
    Standby,
    Claiming {
        epoch: LeaderEpoch,
        claim: ClaimId,
        proposal: Proposal,
    },
    Active {
        since: Instant,
        active: Box<Active>,
    },
}

impl EventLoop {
    /// Begins and ends leadership as Raft says.
    pub(super) async fn follow_role(&mut self) {
        let role = self.node.role();
        let holds = role.leading
            && match &self.leadership {
                Leadership::Standby => true,
                Leadership::Claiming { epoch, .. } => *epoch == role.epoch,
                Leadership::Active { since, active } => {
                    let quorum = role.quorum_answers || since.elapsed() < self.settings.quorum_timeout;
                    active.epoch == role.epoch && quorum
                }
            };
        if !holds {
            self.step_down();
        }
        let may_claim = matches!(self.leadership, Leadership::Standby) && self.claim_at <= Instant::now();
        if role.leading && role.failed.is_none() && may_claim {
            let claim = ClaimId::random();
            let proposal = self.node.propose(role.epoch, &records::claim_entry(claim)).await;
            tracing::info!(epoch = %role.epoch, %claim, "elected; claiming the metadata log");
            metric::election();
            self.leadership = Leadership::Claiming {
                epoch: role.epoch,
                claim,
                proposal,
            };
        }
        self.publish_view(&role);
    }

    /// Decides no more, and says so to whoever waits for a decision.
    pub(super) fn step_down(&mut self) {
        match std::mem::replace(&mut self.leadership, Leadership::Standby) {
            Leadership::Standby => {}
            Leadership::Claiming { epoch, .. } => tracing::info!(%epoch, "the claim is dropped"),
            Leadership::Active { active, .. } => {
                tracing::info!(epoch = %active.epoch, "no longer the active controller");
                let role = self.node.role();
                let hint = known_active(&role).map(|active| active.to_wire());
                active.depose(hint.as_ref());
            }
        }
        self.rebalance_at = None;
    }

    /// The claim is settled: where it holds, this controller is active.
    pub(super) fn claimed(&mut self, result: Result<LogPosition, ProposalError>) {
        let Leadership::Claiming { epoch, claim, .. } =
            std::mem::replace(&mut self.leadership, Leadership::Standby)
        else {
            return;
        };
        let image = self.images.borrow_and_update().clone();
        let now = self.now();
        match result {
            Ok(_) if image.claim == claim => {
                tracing::info!(%epoch, offset = ?image.offset, "active controller");
                let active = Active::new(
                    epoch,
                    claim,
                    self.settings.defaults.clone(),
                    &self.settings.identity.cluster_id,
                    self.settings.session_timeout.as_millis() as u64,
                    &image,
                    now,
                );
                self.rebalance_at = self
                    .settings
                    .rebalance_interval
                    .map(|interval| Instant::now() + interval);
                self.leadership = Leadership::Active {
                    since: Instant::now(),
                    active: Box::new(active),
                };
            }
            // A later look at the role claims again, or waits for another leader.
            Ok(_) | Err(_) => {
                tracing::warn!(%epoch, ?result, "the claim did not take hold");
                self.claim_at = Instant::now() + CLAIM_PAUSE;
            }
        }
    }

    /// Tells others who decides.
    pub(super) fn publish_view(&self, role: &Role) {
        let active = match &self.leadership {
            Leadership::Active { active, .. } => role
                .leader
                .as_ref()
                .filter(|_| active.epoch == role.epoch)
                .map(|(id, address)| ActiveController {
                    node_id: *id,
                    address: address.clone(),
                    epoch: role.epoch,
                }),
            Leadership::Standby | Leadership::Claiming { .. } => known_active(role),
        };
        let view = ActiveView {
            is_self: matches!(self.leadership, Leadership::Active { .. }),
            active,
            epoch: role.epoch,
            failed: role.failed.clone(),
        };
        self.view.send_if_modified(|published| {
            let changed = *published != view;
            if changed {
                *published = view;
            }
            changed
        });
    }
}

/// Resolves when the claim is settled; never where there is none.
pub(super) async fn claimed(leadership: &mut Leadership) -> Result<LogPosition, ProposalError> {
    match leadership {
        Leadership::Claiming { proposal, .. } => proposal.await,
        Leadership::Standby | Leadership::Active { .. } => std::future::pending().await,
    }
}
