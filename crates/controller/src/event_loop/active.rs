//! The active controller between two commits: the speculative image, what was decided on it and not
//! proposed yet, and who has a session.
//!
//! Only decisions and bookkeeping: no clock, no I/O. [`super::EventLoop`] feeds it and carries out what
//! it asks for.

use std::collections::{BTreeMap, BTreeSet};

use metadata::records::record;
use metadata::{ClusterImage, configs::NodeDefaults};
use protocol::grpc::v1::metadata_record::Record;
use protocol::grpc::v1::{
    BrokerState, ClusterRecord, ControllerAddress, DamagedPartition, Heartbeat, KafkaError, MetadataRecord,
};
use protocol::{
    BrokerEpoch, BrokerId, ClaimId, ClusterId, DirectoryId, ErrorCode, IncarnationId, LeaderEpoch, Offset,
    PartitionIndex, TopicId, TopicPartition,
};
use tokio::sync::watch;

use super::batch::Group;
use super::operation::{Decided, Operation, Settled};
use super::sessions::{Applied, OpenSession, OpenedSession, SessionEnd, SessionRefusal, Signal};
use super::waiting::{Link, PendingSession, Waiting};
use crate::decisions::{
    self, BrokerError, Now, Outcome, ProbeResult, Registered, SessionAction, SessionId, SessionTracker, View,
};

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

    /// A broker asks for a session. `committed` is the committed image, `next_offset` at most the offset
    /// that the next entry will have; `rival_is_gone` where a probe has shown that.
    pub(super) fn register(
        &mut self,
        open: OpenSession,
        committed: &ClusterImage,
        next_offset: Offset,
        rival_is_gone: bool,
    ) {
        let register = &open.register;
        let refuse = |open: OpenSession, code: ErrorCode, message: String| {
            let _ = open.reply.send(Err(SessionRefusal::Refused(KafkaError {
                code: code.code().into(),
                message,
            })));
        };
        if register.highest_controller_epoch > self.epoch.get() {
            // The broker has obeyed a later controller: this one is deposed and does not know it yet.
            let _ = open.reply.send(Err(SessionRefusal::NotActive));
            return;
        }
        if register.metadata_offset > committed.offset.map_or(-1, Offset::get) {
            let message = format!(
                "the broker has applied metadata up to offset {}, the quorum has committed {}: the quorum \
                 has lost entries, or is another one",
                register.metadata_offset,
                committed.offset.map_or(-1, Offset::get)
            );
            refuse(open, ErrorCode::UnknownServerError, message);
            return;
        }
        let hello = register.hello.clone().unwrap_or_default();
        let broker = BrokerId(hello.node_id);
        let incarnation = IncarnationId::from_slice(&hello.incarnation_id).unwrap_or_default();
        let rival = self
            .tracker
            .connected_incarnation(broker)
            .filter(|&rival| rival != incarnation);
        if let (Some(rival), false) = (rival, rival_is_gone)
            && let Some(known) = self.speculative.brokers.get(&broker)
        {
            self.effects.push(Effect::ProbeRival {
                address: known.internal_address.clone(),
                incarnation: rival,
                open,
            });
            return;
        }
        let next_epoch = BrokerEpoch(next_offset.get());
        match decisions::register(self.view(), register, next_epoch, false) {
            Err(error) => {
                let refusal = decisions::kafka_error(&error);
                let _ = open.reply.send(Err(SessionRefusal::Refused(refusal)));
            }
            Ok(Outcome { records, reply }) => {
                let pending = PendingSession {
                    registered: reply,
                    incarnation,
                    internal_address: open.register.internal_address,
                    reply: open.reply,
                };
                self.take(records, Waiting::Session(Box::new(pending)));
            }
        }
    }

    /// Refuses a broker because another process with its id is alive.
    pub(super) fn refuse_rival(open: OpenSession) {
        let broker = BrokerId(open.register.hello.as_ref().map_or(-1, |hello| hello.node_id));
        let error = decisions::RegisterError::Duplicate { broker };
        let _ = open
            .reply
            .send(Err(SessionRefusal::Refused(decisions::kafka_error(&error))));
    }

    /// A registration is committed: the session begins.
    pub(super) fn begin_session(
        &mut self,
        pending: PendingSession,
        committed_at: Offset,
        committed: &ClusterImage,
        now: Now,
    ) {
        let Registered { broker, epoch, .. } = pending.registered;
        let current = self
            .speculative
            .brokers
            .get(&broker)
            .is_some_and(|known| known.epoch == epoch);
        if !current {
            // Another incarnation registered meanwhile.
            pending.refuse(SessionRefusal::NotActive);
            return;
        }
        let session = self.tracker.connected(
            broker,
            epoch,
            pending.incarnation,
            pending.internal_address.clone(),
            committed_at,
            now,
        );
        let signal = watch::Sender::new(Signal::default());
        let opened = OpenedSession {
            broker,
            session,
            broker_epoch: epoch,
            catch_up_to: committed_at,
            controller_epoch: self.epoch,
            signal: signal.subscribe(),
        };
        let link = Link {
            session,
            broker_epoch: epoch,
            catch_up_to: committed_at,
            signal,
            wants_shutdown: false,
        };
        let state = self.state_of(broker, &link, committed);
        link.signal.send_modify(|signal| signal.state = state);
        if let Some(replaced) = self.links.insert(broker, link) {
            replaced.end(SessionEnd::Replaced);
        }
        if pending.reply.send(Ok(opened)).is_err() {
            // The stream ended before its session began.
            self.disconnected(broker, session, now);
        }
    }

    /// A heartbeat. `committed` is the committed image.
    pub(super) fn heartbeat(
        &mut self,
        broker: BrokerId,
        session: SessionId,
        heartbeat: &Heartbeat,
        committed: &ClusterImage,
        now: Now,
    ) {
        let Some(link) = self.links.get_mut(&broker).filter(|link| link.session == session) else {
            return;
        };
        let epoch = link.broker_epoch;
        link.wants_shutdown |= heartbeat.want_shutdown;
        let leaving = link.wants_shutdown;
        let fenced = self
            .speculative
            .brokers
            .get(&broker)
            .is_none_or(|known| known.fenced);
        let applied = Offset(heartbeat.applied_offset);
        match self.tracker.heartbeat(broker, session, applied, fenced, now) {
            Ok(actions) => self.act(actions),
            Err(_over) => {
                if let Some(link) = self.links.remove(&broker) {
                    link.end(SessionEnd::Fenced);
                }
                return;
            }
        }
        if leaving {
            self.decide(|view| decisions::begin_controlled_shutdown(view, broker, epoch));
        }
        self.note_failures(broker, epoch, heartbeat);
        if let Some(link) = self.links.get(&broker) {
            let state = self.state_of(broker, link, committed);
            link.signal.send_modify(|signal| {
                signal.answered += 1;
                signal.state = state;
            });
        }
    }

    fn note_failures(&mut self, broker: BrokerId, epoch: BrokerEpoch, heartbeat: &Heartbeat) {
        let failed: Vec<TopicPartition> = heartbeat.failed.iter().filter_map(topic_partition).collect();
        if !failed.is_empty() {
            self.decide(|view| decisions::fail_replicas(view, broker, epoch, &failed));
        }
        let offline: Vec<DirectoryId> = heartbeat
            .offline_log_dirs
            .iter()
            .filter_map(|id| DirectoryId::from_slice(id))
            .collect();
        if !offline.is_empty() {
            for &directory in &offline {
                if self.offline_dirs_told.insert((broker, directory)) {
                    tracing::warn!(%broker, %directory, "a log directory went offline");
                }
            }
            self.decide(|view| decisions::fail_directories(view, broker, epoch, &offline));
        }
    }

    /// A session's stream ended.
    pub(super) fn disconnected(&mut self, broker: BrokerId, session: SessionId, now: Now) {
        let current = self.links.get(&broker).filter(|link| link.session == session);
        let Some(said_goodbye) = current.map(|link| link.signal.borrow().state.may_shut_down) else {
            return;
        };
        self.links.remove(&broker);
        if said_goodbye {
            // It asked to leave, was told that it may, and left.
            self.tracker.forget(broker);
            self.fence(broker);
        } else {
            let actions = self.tracker.disconnected(broker, session, now);
            self.act(actions);
        }
    }

    /// What the probe of a broken session, or of one that was not opened, found.
    pub(super) fn probed(&mut self, broker: BrokerId, session: SessionId, result: ProbeResult, now: Now) {
        if let Some(action) = self.tracker.probe_result(broker, session, result, now) {
            tracing::info!(%broker, ?result, "a broker's process is gone");
            self.act([action]);
        }
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

    /// Forgets a broker that was unregistered.
    pub(super) fn end_unregistered(&mut self) {
        let gone: Vec<BrokerId> = self
            .links
            .keys()
            .copied()
            .filter(|id| !self.speculative.brokers.contains_key(id))
            .collect();
        for broker in gone {
            self.tracker.forget(broker);
            if let Some(link) = self.links.remove(&broker) {
                link.end(SessionEnd::Fenced);
            }
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

    fn state_of(&self, broker: BrokerId, link: &Link, committed: &ClusterImage) -> BrokerState {
        let registered = committed
            .brokers
            .get(&broker)
            .filter(|known| known.epoch == link.broker_epoch);
        let applied = self.tracker.applied(broker);
        BrokerState {
            fenced: registered.is_none_or(|known| known.fenced),
            caught_up: applied.is_some_and(|applied| applied >= link.catch_up_to),
            may_shut_down: link.wants_shutdown
                && registered.is_some_and(|known| known.in_controlled_shutdown)
                && decisions::may_shut_down(committed, broker),
            committed_offset: committed.offset.map_or(-1, Offset::get),
        }
    }
}

fn topic_partition(named: &DamagedPartition) -> Option<TopicPartition> {
    let topic_id = TopicId::from_slice(&named.topic_id)?;
    Some(TopicPartition::new(topic_id, PartitionIndex(named.partition)))
}
