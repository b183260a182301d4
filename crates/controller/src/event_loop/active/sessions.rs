//! The sessions of brokers, as the active controller keeps them: they begin with a registration that is
//! committed, go on with heartbeats, and end with the stream, a fence or another session.

use metadata::ClusterImage;
use protocol::grpc::v1::{BrokerState, DamagedPartition, Heartbeat, KafkaError};
use protocol::{
    BrokerEpoch, BrokerId, DirectoryId, ErrorCode, IncarnationId, Offset, PartitionIndex, TopicId,
    TopicPartition,
};
use tokio::sync::watch;

use super::{Active, Effect};
use crate::decisions::{self, Now, Outcome, ProbeResult, Registered, SessionId};
use crate::event_loop::sessions::{OpenSession, OpenedSession, SessionEnd, SessionRefusal, Signal};
use crate::event_loop::waiting::{Link, PendingSession, Waiting};

impl Active {
    /// A broker asks for a session. `committed` is the committed image, `next_offset` at most the offset
    /// that the next entry will have; `rival_is_gone` where a probe has shown that.
    pub(in crate::event_loop) fn register(
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
    pub(in crate::event_loop) fn refuse_rival(open: OpenSession) {
        let broker = BrokerId(open.register.hello.as_ref().map_or(-1, |hello| hello.node_id));
        let error = decisions::RegisterError::Duplicate { broker };
        let _ = open
            .reply
            .send(Err(SessionRefusal::Refused(decisions::kafka_error(&error))));
    }

    /// A registration is committed: the session begins.
    pub(in crate::event_loop) fn begin_session(
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
    pub(in crate::event_loop) fn heartbeat(
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
    pub(in crate::event_loop) fn disconnected(&mut self, broker: BrokerId, session: SessionId, now: Now) {
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
    pub(in crate::event_loop) fn probed(
        &mut self,
        broker: BrokerId,
        session: SessionId,
        result: ProbeResult,
        now: Now,
    ) {
        if let Some(action) = self.tracker.probe_result(broker, session, result, now) {
            tracing::info!(%broker, ?result, "a broker's process is gone");
            self.act([action]);
        }
    }

    /// Forgets a broker that was unregistered.
    pub(in crate::event_loop) fn end_unregistered(&mut self) {
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

    /// What a broker is told of itself.
    pub(super) fn state_of(&self, broker: BrokerId, link: &Link, committed: &ClusterImage) -> BrokerState {
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
