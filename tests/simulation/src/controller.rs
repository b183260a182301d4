//! The controllers: real decisions and sessions, around a metadata log that is a list. Raft itself is
//! modelled by what it promises: entries of one term in order, the tail of a deposed leader's kept or
//! lost, and deposed leaders that do not know it yet.

use std::collections::{BTreeMap, VecDeque};

use controller::decisions::{
    self, Now, Outcome, ProbeResult, SessionAction, SessionId, SessionTracker, View,
};
use metadata::{ClusterImage, configs::NodeDefaults, records};
use protocol::grpc::v1::{
    AlterPartitionsRequest, AlteredPartition, AssignDirectoriesRequest, MetadataEntry, MetadataRecord,
    Register,
};
use protocol::{
    BrokerEpoch, BrokerId, ClaimId, DirectoryId, ErrorCode, IncarnationId, LeaderEpoch, Offset,
    TopicPartition,
};

use crate::broker::SESSION_TIMEOUT;
use crate::context::Context;
use crate::message::{Conn, Ended, Entry, Message, Node, Out};

/// The quorum.
pub(crate) const VOTERS: [Node; 3] = [101, 102, 103];

/// Who waits for an entry.
pub(crate) enum Waiting {
    Nobody,
    Session(Conn, BrokerId, BrokerEpoch, Box<Register>),
    Altered(Conn, Node, Vec<AlteredPartition>),
    Assigned(Conn, Node, i32),
}

struct Link {
    conn: Conn,
    session: SessionId,
    epoch: BrokerEpoch,
    /// The first entry that was not streamed yet.
    next: usize,
}

/// A controller that believes to be the active one.
pub(crate) struct Active {
    pub(crate) node: Node,
    pub(crate) term: LeaderEpoch,
    pub(crate) claim: ClaimId,
    pub(crate) committed: ClusterImage,
    /// How far `committed` was compared with the log: the checker's own.
    pub(crate) compared: Option<Offset>,
    speculative: ClusterImage,
    tracker: SessionTracker,
    links: BTreeMap<BrokerId, Link>,
    /// Proposed and not committed, in order; `None` in place of an entry: nothing to commit, only to wait.
    pub(crate) in_flight: VecDeque<(Option<MetadataEntry>, Waiting)>,
    defaults: NodeDefaults,
}

impl Active {
    pub(crate) fn new(node: Node, term: LeaderEpoch, claim: ClaimId, image: &ClusterImage, now: u64) -> Self {
        Self {
            node,
            term,
            claim,
            committed: image.clone(),
            compared: None,
            speculative: image.clone(),
            tracker: SessionTracker::new(SESSION_TIMEOUT, image, Now(now)),
            links: BTreeMap::new(),
            in_flight: VecDeque::new(),
            defaults: NodeDefaults::default(),
        }
    }

    /// Decides on the speculative image and proposes what was decided.
    pub(crate) fn decide<R>(
        &mut self,
        context: &mut Context,
        decision: impl FnOnce(View<'_>) -> Outcome<R>,
        waiting: impl FnOnce(R) -> Waiting,
    ) {
        let Outcome { records, reply } = decision(View {
            image: &self.speculative,
            defaults: &self.defaults,
        });
        self.take(records, waiting(reply), context);
    }

    fn take(&mut self, made: Vec<MetadataRecord>, waiting: Waiting, context: &mut Context) {
        if made.is_empty() && matches!(waiting, Waiting::Nobody) {
            return;
        }
        self.speculative = self
            .speculative
            .speculate(&made)
            .expect("decisions fit their image");
        let entry = (!made.is_empty()).then(|| records::entry(self.claim, made));
        self.in_flight.push_back((entry, waiting));
        context.out.push((self.node, Out::Propose));
    }

    fn act(&mut self, actions: Vec<SessionAction>, context: &mut Context) {
        for action in actions {
            match action {
                SessionAction::Probe {
                    broker,
                    incarnation,
                    session,
                    ..
                } => context
                    .out
                    .push((self.node, Out::Probe(session, broker.get(), incarnation))),
                SessionAction::Fence(broker) => {
                    self.decide(
                        context,
                        |view| decisions::fence(view, broker),
                        |()| Waiting::Nobody,
                    );
                    self.end(broker, Ended::Fenced, context);
                }
                SessionAction::Unfence(broker, epoch) => {
                    let view = View {
                        image: &self.speculative,
                        defaults: &self.defaults,
                    };
                    if let Ok(outcome) = decisions::unfence(view, broker, epoch) {
                        self.take(outcome.records, Waiting::Nobody, context);
                    }
                }
            }
        }
    }

    fn end(&mut self, broker: BrokerId, why: Ended, context: &mut Context) {
        if let Some(link) = self.links.remove(&broker) {
            context.send(self.node, link.conn, broker.get(), Message::Ended(why));
        }
    }

    /// Every session ends: another controller is active.
    pub(crate) fn depose(mut self, context: &mut Context) {
        for broker in self.links.keys().copied().collect::<Vec<_>>() {
            self.end(broker, Ended::NotActive, context);
        }
    }

    pub(crate) fn tick(&mut self, context: &mut Context) {
        let actions = self.tracker.tick(Now(context.now));
        self.act(actions, context);
        if context.random.chance(1) {
            self.decide(
                context,
                |view| decisions::rebalance_leaders(view, 100),
                |_| Waiting::Nobody,
            );
        }
    }

    pub(crate) fn probed(
        &mut self,
        broker: Node,
        session: SessionId,
        found: ProbeResult,
        context: &mut Context,
    ) {
        let action = self
            .tracker
            .probe_result(BrokerId(broker), session, found, Now(context.now));
        self.act(action.into_iter().collect(), context);
    }

    pub(crate) fn hear(&mut self, from: Node, conn: Conn, message: Message, context: &mut Context) {
        let broker = BrokerId(from);
        match message {
            Message::Register(request) => self.register(broker, conn, request, context),
            Message::Heartbeat(applied, offline, failed) => {
                let Some((session, epoch)) = self
                    .links
                    .get(&broker)
                    .filter(|l| l.conn == conn)
                    .map(|l| (l.session, l.epoch))
                else {
                    return;
                };
                let fenced = self
                    .speculative
                    .brokers
                    .get(&broker)
                    .is_none_or(|known| known.fenced);
                match self
                    .tracker
                    .heartbeat(broker, session, applied, fenced, Now(context.now))
                {
                    Ok(actions) => self.act(actions, context),
                    Err(_) => return self.end(broker, Ended::Fenced, context),
                }
                self.fail((broker, epoch), &offline, &failed, context);
                let fenced = self
                    .committed
                    .brokers
                    .get(&broker)
                    .is_none_or(|known| known.fenced);
                context.send(self.node, conn, from, Message::State { fenced });
            }
            Message::Alter(request) => self.alter(from, conn, &request, context),
            Message::Assign(request) => self.assign(from, conn, &request, context),
            Message::Reset => {
                let Some(link) = self.links.get(&broker).filter(|link| link.conn == conn) else {
                    return;
                };
                let session = link.session;
                self.links.remove(&broker);
                let actions = self.tracker.disconnected(broker, session, Now(context.now));
                self.act(actions, context);
            }
            _ => {}
        }
    }

    fn register(&mut self, broker: BrokerId, conn: Conn, request: Box<Register>, context: &mut Context) {
        let refused = request.highest_controller_epoch > self.term.get()
            || request.metadata_offset > self.committed.offset.map_or(-1, Offset::get);
        let incarnation = incarnation_of(&request);
        let rival = self
            .tracker
            .connected_incarnation(broker)
            .is_some_and(|rival| Some(rival) != incarnation);
        let next = self.committed.offset.map_or(0, |at| at.0 + 1);
        let view = View {
            image: &self.speculative,
            defaults: &self.defaults,
        };
        let decided = decisions::register(view, &request, BrokerEpoch(next), rival);
        match decided {
            Ok(Outcome { records, reply }) if !refused => {
                self.take(
                    records,
                    Waiting::Session(conn, broker, reply.epoch, request),
                    context,
                );
            }
            _ => context.send(self.node, conn, broker.get(), Message::Ended(Ended::NotActive)),
        }
    }

    /// Directories and replicas of a live broker have failed.
    fn fail(
        &mut self,
        (broker, epoch): (BrokerId, BrokerEpoch),
        offline: &[DirectoryId],
        failed: &[TopicPartition],
        context: &mut Context,
    ) {
        if !offline.is_empty() {
            let decided = decisions::fail_directories(self.view(), broker, epoch, offline);
            if let Ok(outcome) = decided {
                self.take(outcome.records, Waiting::Nobody, context);
            }
        }
        if !failed.is_empty() {
            let decided = decisions::fail_replicas(self.view(), broker, epoch, failed);
            if let Ok(outcome) = decided {
                self.take(outcome.records, Waiting::Nobody, context);
            }
        }
    }

    fn view(&self) -> View<'_> {
        View {
            image: &self.speculative,
            defaults: &self.defaults,
        }
    }

    fn assign(&mut self, from: Node, conn: Conn, request: &AssignDirectoriesRequest, context: &mut Context) {
        match decisions::assign_directories(self.view(), request) {
            Ok(Outcome { records, reply }) => {
                let code = reply.first().map_or(-1, |error| error.code);
                self.take(records, Waiting::Assigned(conn, from, code), context);
            }
            Err(_) => context.send(self.node, conn, from, Message::Assigned(None)),
        }
    }

    fn alter(&mut self, from: Node, conn: Conn, request: &AlterPartitionsRequest, context: &mut Context) {
        let view = View {
            image: &self.speculative,
            defaults: &self.defaults,
        };
        match decisions::alter_partitions(view, request) {
            Ok(Outcome { records, reply }) => {
                self.take(records, Waiting::Altered(conn, from, reply), context);
            }
            Err(_) => {
                let stale = Message::Altered(Err(ErrorCode::StaleBrokerEpoch));
                context.send(self.node, conn, from, stale);
            }
        }
    }

    /// What was in flight first is committed (or rests on what was): its waiter is answered.
    pub(crate) fn settle(&mut self, waiting: Waiting, log: &[Entry], context: &mut Context) {
        match waiting {
            Waiting::Nobody => {}
            Waiting::Altered(conn, to, reply) => {
                context.send(self.node, conn, to, Message::Altered(Ok(reply)));
            }
            Waiting::Assigned(conn, to, code) => {
                context.send(self.node, conn, to, Message::Assigned(Some(code)));
            }
            Waiting::Session(conn, broker, epoch, request) => {
                let current = self
                    .speculative
                    .brokers
                    .get(&broker)
                    .is_some_and(|known| known.epoch == epoch);
                if !current {
                    context.send(self.node, conn, broker.get(), Message::Ended(Ended::NotActive));
                    return;
                }
                let session = self.tracker.connected(
                    broker,
                    epoch,
                    incarnation_of(&request).unwrap_or_default(),
                    request.internal_address.clone(),
                    Offset(log.len() as i64 - 1),
                    Now(context.now),
                );
                let next = (request.metadata_offset + 1) as usize;
                let link = Link {
                    conn,
                    session,
                    epoch,
                    next,
                };
                self.links.insert(broker, link);
                context.send(
                    self.node,
                    conn,
                    broker.get(),
                    Message::Registered(epoch, self.term),
                );
            }
        }
        self.stream(log, context);
    }

    /// Only committed entries are streamed.
    pub(crate) fn stream(&mut self, log: &[Entry], context: &mut Context) {
        for (broker, link) in &mut self.links {
            if link.next < log.len() {
                let entries = log[link.next..].to_vec();
                link.next = log.len();
                context.send(self.node, link.conn, broker.get(), Message::Entries(entries));
            }
        }
    }
}

fn incarnation_of(request: &Register) -> Option<IncarnationId> {
    IncarnationId::from_slice(&request.hello.as_ref()?.incarnation_id)
}
