//! The active controller between two commits: the speculative image, what was decided on it and not
//! proposed yet, and who has a session.
//!
//! Only decisions and bookkeeping: no clock, no I/O. [`super::EventLoop`] feeds it and carries out what
//! it asks for.

mod sessions;

use std::collections::{BTreeMap, BTreeSet};

use metadata::records::record;
use metadata::{ClusterImage, configs::NodeDefaults};
use protocol::grpc::v1::metadata_record::Record;
use protocol::grpc::v1::{ClusterRecord, ControllerAddress, MetadataRecord};
use protocol::{BrokerId, ClaimId, ClusterId, DirectoryId, IncarnationId, LeaderEpoch, Offset};

use super::batch::Group;
use super::operation::{Decided, Operation, Settled};
use super::sessions::{Applied, OpenSession, SessionEnd};
use super::waiting::{Link, Waiting};
use crate::decisions::{self, BrokerError, Now, Outcome, SessionAction, SessionId, SessionTracker, View};

/// Leaderships that one round of rebalancing hands back at most.
const REBALANCE_MAX: usize = 1000;

/// What the event loop must do.
#[derive(Debug)]
pub(super) enum Effect {
    /// Ask the broker's internal port who answers; report it with [`Active::probed`].
    Probe {
        broker: BrokerId,
        address: String,
        incarnation: IncarnationId,
        session: SessionId,
    },
    /// Another process with the broker's id has a session: find out whether it is still there, then
    /// call [`Active::register`] again.
    ProbeRival {
        address: String,
        incarnation: IncarnationId,
        open: OpenSession,
    },
}

/// The state of one claim.
pub(super) struct Active {
    /// The Raft term.
    pub(super) epoch: LeaderEpoch,
    /// Every entry carries it.
    pub(super) claim: ClaimId,
    defaults: NodeDefaults,
    speculative: ClusterImage,
    tracker: SessionTracker,
    links: BTreeMap<BrokerId, Link>,
    decided: Vec<Group<Waiting>>,
    effects: Vec<Effect>,
    /// Log directories whose failure is in this process's log already.
    offline_dirs_told: BTreeSet<(BrokerId, DirectoryId)>,
}

impl Active {
    /// Begins with the image that shows the claim.
    pub(super) fn new(
        epoch: LeaderEpoch,
        claim: ClaimId,
        defaults: NodeDefaults,
        cluster_id: &ClusterId,
        session_timeout_ms: u64,
        image: &ClusterImage,
        now: Now,
    ) -> Self {
        let mut active = Self {
            epoch,
            claim,
            defaults,
            speculative: image.clone(),
            tracker: SessionTracker::new(session_timeout_ms, image, now),
            links: BTreeMap::new(),
            decided: Vec::new(),
            effects: Vec::new(),
            offline_dirs_told: BTreeSet::new(),
        };
        if image.cluster_id.is_none() {
            let cluster = record(Record::Cluster(ClusterRecord {
                cluster_id: cluster_id.as_str().to_owned(),
            }));
            active.take(vec![cluster], Waiting::Nobody);
        }
        let Outcome { records, .. } = decisions::publish_agreed_defaults(active.view());
        active.take(records, Waiting::Nobody);
        active
    }

    /// What was decided since the last call, in order.
    pub(super) fn take_decided(&mut self) -> Vec<Group<Waiting>> {
        std::mem::take(&mut self.decided)
    }

    /// What there is to do since the last call.
    pub(super) fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// When [`Active::tick`] has something to do next.
    pub(super) fn next_deadline(&self) -> Option<Now> {
        self.tracker.next_deadline()
    }

    /// A request.
    pub(super) fn operate(&mut self, operation: Box<dyn Operation>) {
        let Decided { records, answer } = operation.decide(self.view());
        self.take(records, Waiting::Answer(answer));
    }

    /// The time moved on.
    pub(super) fn tick(&mut self, now: Now) {
        let actions = self.tracker.tick(now);
        self.act(actions);
    }

    /// Hands leaderships back to preferred leaders.
    pub(super) fn rebalance(&mut self) {
        let outcome = decisions::rebalance_leaders(self.view(), REBALANCE_MAX);
        if outcome.reply > 0 {
            tracing::info!(partitions = outcome.reply, "preferred leaders take over");
        }
        self.take(outcome.records, Waiting::Nobody);
    }

    /// The committed image moved on. Where nothing is in flight the speculation begins anew from it.
    pub(super) fn committed(&mut self, image: &ClusterImage, nothing_in_flight: bool) {
        if nothing_in_flight && self.decided.is_empty() {
            debug_assert!(
                self.speculative.brokers == image.brokers
                    && self.speculative.topics == image.topics
                    && self.speculative.configs == image.configs
                    && self.speculative.next_producer_id == image.next_producer_id,
                "what was speculated is not what was committed"
            );
            self.speculative = image.clone();
        }
        for (&broker, link) in &self.links {
            let state = self.state_of(broker, link, image);
            link.signal.send_if_modified(|signal| {
                // The offset alone is no news: the entries themselves carry it.
                let news = (
                    signal.state.fenced,
                    signal.state.caught_up,
                    signal.state.may_shut_down,
                ) != (state.fenced, state.caught_up, state.may_shut_down);
                if news {
                    signal.state = state;
                }
                news
            });
        }
    }

    /// What each live broker has applied of the metadata log.
    pub(super) fn applied(&self, committed: &ClusterImage) -> Applied {
        let brokers = committed.live_brokers().map(|broker| {
            let applied = self.tracker.applied(broker.id);
            (broker.id, applied.unwrap_or(Offset(-1)))
        });
        Applied {
            brokers: brokers.collect(),
        }
    }

    /// Another controller decides from now on: every session ends, what was not proposed is answered.
    pub(super) fn depose(self, active: Option<&ControllerAddress>) {
        for link in self.links.values() {
            link.end(SessionEnd::NotActive(active.cloned()));
        }
        for group in self.decided {
            group.waiting.fail(Settled::NotController);
        }
    }

    fn view(&self) -> View<'_> {
        View {
            image: &self.speculative,
            defaults: &self.defaults,
        }
    }

    fn act(&mut self, actions: impl IntoIterator<Item = SessionAction>) {
        for action in actions {
            match action {
                SessionAction::Probe {
                    broker,
                    address,
                    incarnation,
                    session,
                } => self.effects.push(Effect::Probe {
                    broker,
                    address,
                    incarnation,
                    session,
                }),
                SessionAction::Fence(broker) => self.fence(broker),
                SessionAction::Unfence(broker, epoch) => {
                    self.decide(|view| decisions::unfence(view, broker, epoch));
                }
            }
        }
    }

    fn fence(&mut self, broker: BrokerId) {
        let Outcome { records, .. } = decisions::fence(self.view(), broker);
        if !records.is_empty() {
            tracing::info!(%broker, changes = records.len(), "fencing a broker");
        }
        self.take(records, Waiting::Nobody);
        if let Some(link) = self.links.remove(&broker) {
            link.end(SessionEnd::Fenced);
        }
    }

    fn decide(&mut self, decision: impl FnOnce(View<'_>) -> Result<Outcome<()>, BrokerError>) {
        match decision(self.view()) {
            Ok(Outcome { records, .. }) => self.take(records, Waiting::Nobody),
            // The broker registered again since; its new session tells what there is to tell.
            Err(error) => tracing::debug!(%error, "a decision about a broker came too late"),
        }
    }

    /// Folds what was decided into the speculation and keeps it for the next proposal.
    fn take(&mut self, records: Vec<MetadataRecord>, waiting: Waiting) {
        if records.is_empty() && matches!(waiting, Waiting::Nobody) {
            return;
        }
        match self.speculative.speculate(&records) {
            Ok(image) => {
                self.speculative = image;
                self.decided.push(Group { records, waiting });
            }
            Err(error) => {
                tracing::error!(%error, "a decision contradicts the metadata; it is not proposed");
                waiting.fail(Settled::Contradiction(error.to_string()));
            }
        }
    }
}
