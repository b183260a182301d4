//! A broker: the real partition and stream state machines around a simulated disk, with the thin shell
//! of `replication` and of the broker's session restated for virtual time.

use std::collections::{BTreeMap, BTreeSet};

use metadata::ClusterImage;
use metadata::configs::min_insync_replicas;
use protocol::grpc::v1::{
    AlterPartition, AlterPartitionsRequest, AlteredPartition as WireAltered, InternalHello, IsrMember,
    Register,
};
use protocol::{
    BrokerEpoch, BrokerId, DirectoryId, ErrorCode, IncarnationId, LeaderEpoch, Offset, PartitionEpoch,
    TopicPartition,
};
use replication::streams::stream_state::FollowerStream;
use replication::{
    AlterIsr, AlteredPartition, Assignment, Effects, EpochLookup, Facts, IsrError, Now, PartitionState, Role,
    Transition,
};

use crate::context::Context;
use crate::disk::{Directory, Disk, Epochs};
use crate::message::{Conn, Ended, Entry, Message, Node, Out};
use crate::moving::Asking;
use crate::producing::{Acks, Waiting};
use crate::serving::Serving;
use crate::settings::Mutation;

/// `broker.session.timeout.ms`.
pub(crate) const SESSION_TIMEOUT: u64 = 3_000;
const HEARTBEAT: u64 = 500;
/// A controller that is silent for so long is given up.
const CONTROLLER_SILENCE: u64 = 1_500;

pub(crate) struct Broker {
    pub(crate) id: Node,
    pub(crate) disk: Disk,
    pub(crate) process: Option<Process>,
    /// [`Mutation::AcksUnsynced`].
    pub(crate) pretends: bool,
    /// [`Mutation::AppendsWhileAsking`].
    pub(crate) careless: bool,
    /// The disk was wiped, and no controller has said that it knows.
    pub(crate) wiped: bool,
    /// A wiped disk has not got everything back yet: until then no other one is lost.
    pub(crate) hurt: bool,
}

pub(crate) struct Session {
    conn: Conn,
    controller: Node,
    open: bool,
    heard: u64,
}

/// A stream to a leader.
pub(crate) struct Following {
    pub(crate) stream: FollowerStream,
    pub(crate) conn: Option<Conn>,
    pub(crate) opened_as: Option<BrokerEpoch>,
    pub(crate) retry_at: u64,
}

pub(crate) struct Replica {
    pub(crate) state: PartitionState,
    pub(crate) waiting: Vec<Waiting>,
    /// The partition epoch and settings that were applied last.
    applied: Option<PartitionEpoch>,
}

pub(crate) struct Process {
    pub(crate) run: u64,
    pub(crate) incarnation: IncarnationId,
    /// The metadata as it was streamed, and as it was applied.
    pub(crate) seen: ClusterImage,
    pub(crate) image: ClusterImage,
    /// How far the metadata was compared with the log: the checker's own.
    pub(crate) compared: Option<Offset>,
    pub(crate) my_epoch: Option<BrokerEpoch>,
    applied_as: Option<BrokerEpoch>,
    highest: LeaderEpoch,
    session: Option<Session>,
    last_beat: u64,
    contact: Option<u64>,
    last_tick: u64,
    pub(crate) replicas: BTreeMap<TopicPartition, Replica>,
    pub(crate) following: BTreeMap<Node, Following>,
    pub(crate) followed: BTreeMap<TopicPartition, (Node, LeaderEpoch)>,
    pub(crate) serving: BTreeMap<Conn, Serving>,
    asked: BTreeMap<Conn, (TopicPartition, AlterIsr)>,
    pub(crate) moved: BTreeSet<TopicPartition>,
    /// Directories that have failed since the start.
    offline: Vec<DirectoryId>,
    /// Replicas that could not be opened: their directory cannot be used.
    unopened: BTreeSet<TopicPartition>,
    /// Directories that the controller is to note.
    pub(crate) asking: BTreeMap<TopicPartition, Asking>,
}

impl Broker {
    pub(crate) fn start(&mut self, context: &mut Context) {
        let run = context.fresh();
        for log in self.disk.logs.values_mut() {
            log.recover();
        }
        self.process = Some(Process {
            run,
            incarnation: IncarnationId(uuid::Uuid::from_u128(u128::from(run))),
            seen: ClusterImage::default(),
            image: ClusterImage::default(),
            compared: None,
            my_epoch: None,
            applied_as: None,
            highest: LeaderEpoch(0),
            session: None,
            last_beat: 0,
            contact: None,
            last_tick: context.now,
            replicas: BTreeMap::new(),
            following: BTreeMap::new(),
            followed: BTreeMap::new(),
            serving: BTreeMap::new(),
            asked: BTreeMap::new(),
            moved: BTreeSet::new(),
            offline: Vec::new(),
            unopened: BTreeSet::new(),
            asking: BTreeMap::new(),
        });
    }

    /// Runs one event of a replica and carries out what follows from it.
    pub(crate) fn event(
        &mut self,
        tp: TopicPartition,
        context: &mut Context,
        event: impl FnOnce(&mut PartitionState, &dyn EpochLookup, &Facts<'_>) -> Effects,
    ) {
        let (Some(process), Some(log)) = (&mut self.process, self.disk.logs.get(&tp)) else {
            return;
        };
        let Some(replica) = process.replicas.get_mut(&tp) else {
            return;
        };
        let facts = Facts {
            log: log.view(context.is(Mutation::AcksUnsynced)),
            brokers: &process.image,
            now: Now(context.now),
        };
        let epochs = Epochs {
            log,
            blind: context.is(Mutation::SkipsTruncation),
        };
        let effects = event(&mut replica.state, &epochs, &facts);
        if let Some(to) = effects.high_watermark {
            process.moved.insert(tp);
            replica.release(self.id, tp, Acks::All, to, context);
        }
        if effects.fell_under_min_isr {
            replica.reject(self.id, |waiting| waiting.acks == Acks::All, context);
        }
        if let Some(change) = effects.propose_isr {
            process.propose(self.id, tp, change, context);
        }
    }

    /// Begins a flush where something is not durable and none is under way.
    pub(crate) fn flush(&mut self, tp: TopicPartition, context: &mut Context) {
        if let Some(log) = self.disk.logs.get_mut(&tp)
            && !self.disk.directories[log.home].failed
            && !log.flushing
            && log.durable < log.records.len()
        {
            log.flushing = true;
            context
                .out
                .push((self.id, Out::Flush(tp, log.generation, log.records.len())));
        }
    }

    /// A flush has ended; one that began before a truncation proves nothing.
    pub(crate) fn flushed(&mut self, tp: TopicPartition, generation: u64, end: usize, context: &mut Context) {
        let Some(log) = self
            .disk
            .logs
            .get_mut(&tp)
            .filter(|log| log.generation == generation)
        else {
            return;
        };
        log.flushing = false;
        log.durable = log.durable.max(end);
        if let Some(process) = &mut self.process {
            process.moved.insert(tp);
        }
        self.event(tp, context, |state, _, facts| state.on_log_progress(facts));
        self.release_durable(tp, context);
        self.flush(tp, context);
        self.pump(context);
    }

    /// A directory cannot be used any more, until a start finds it again: its replicas are offline, and the
    /// controller is told.
    pub(crate) fn fail_directory(&mut self, at: usize, context: &mut Context) {
        let directory = &mut self.disk.directories[at];
        directory.failed = true;
        let id = directory.id;
        for log in self.disk.logs.values_mut().filter(|log| log.home == at) {
            log.void_flushes();
        }
        let Some(process) = &mut self.process else { return };
        process.offline.push(id);
        for (tp, replica) in &mut process.replicas {
            if self.disk.logs.get(tp).is_some_and(|log| log.home == at) {
                replica.state.fail();
                replica.reject(self.id, |_| true, context);
                process.moved.insert(*tp);
            }
        }
        process.beat(self.id, context);
        self.pump(context);
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self, context: &mut Context) {
        let now = context.now;
        let Some(process) = &mut self.process else { return };
        if process.contact.is_some_and(|at| now >= at + SESSION_TIMEOUT) {
            process.resign(self.id, context);
            process.end_session(self.id, context);
        }
        if process
            .session
            .as_ref()
            .is_some_and(|session| now >= session.heard + CONTROLLER_SILENCE)
        {
            process.end_session(self.id, context);
        }
        if process.session.is_none() {
            process.open_session(self.id, &self.disk, context);
        }
        if now >= process.last_beat + HEARTBEAT {
            process.beat(self.id, context);
        }
        process.ask(self.id, &self.disk, context);
        if now >= process.last_tick + 500 {
            process.last_tick = now;
            for tp in process.replicas.keys().copied().collect::<Vec<_>>() {
                self.event(tp, context, |state, _, facts| state.on_tick(facts));
                self.flush(tp, context);
            }
        }
        self.pump(context);
    }

    /// A message of the session, or an answer about the ISR; false where it is neither.
    pub(crate) fn hear(&mut self, conn: Conn, message: &Message, context: &mut Context) -> bool {
        let now = context.now;
        let Some(process) = &mut self.process else {
            return true;
        };
        if let Some((tp, change)) = process.asked.get(&conn).cloned() {
            let outcome = match message {
                Message::Altered(Ok(altered)) => altered.first().map_or(Err(IsrError::Unknown), answer),
                Message::Altered(Err(code)) => Err(IsrError::Refused(*code)),
                _ => Err(IsrError::Unknown),
            };
            process.asked.remove(&conn);
            self.event(tp, context, |state, _, facts| {
                state.on_alter_isr_result(&change, outcome, facts)
            });
            self.pump(context);
            return true;
        }
        if self.hear_assigned(conn, message, context) {
            return true;
        }
        let Some(process) = &mut self.process else {
            return true;
        };
        let Some(session) = process.session.as_mut().filter(|session| session.conn == conn) else {
            return false;
        };
        session.heard = now;
        match message {
            Message::Registered(epoch, term) => {
                if *term < process.highest {
                    process.end_session(self.id, context);
                    return true;
                }
                session.open = true;
                process.highest = *term;
                process.my_epoch = Some(*epoch);
                self.wiped = false;
                self.apply(context);
            }
            Message::Entries(entries) => {
                process.follow_log(entries);
                self.apply(context);
                if let Some(process) = &mut self.process {
                    process.beat(self.id, context);
                }
            }
            Message::State { fenced } => {
                if !fenced {
                    process.contact = Some(now);
                }
            }
            Message::Ended(ended) => {
                if *ended == Ended::Fenced {
                    process.resign(self.id, context);
                }
                process.session = None;
            }
            _ => process.session = None,
        }
        self.pump(context);
        true
    }

    /// Brings the replicas in line with the newest image that holds this process's registration.
    pub(crate) fn apply(&mut self, context: &mut Context) {
        let me = BrokerId(self.id);
        let Some(process) = &mut self.process else { return };
        let Some(my_epoch) = process.my_epoch else { return };
        if process.seen.brokers.get(&me).map(|known| known.epoch) != Some(my_epoch) {
            return;
        }
        process.image = process.seen.clone();
        let anew = process.applied_as != Some(my_epoch);
        process.applied_as = Some(my_epoch);
        let image = process.image.clone();
        let wanted: BTreeSet<_> = image
            .partitions_by_broker
            .get(&me)
            .into_iter()
            .flatten()
            .copied()
            .collect();
        process.replicas.retain(|tp, _| wanted.contains(tp));
        process.asking.retain(|tp, _| wanted.contains(tp));
        process.unopened.retain(|tp| wanted.contains(tp));
        self.disk.logs.retain(|tp, _| wanted.contains(tp));
        self.disk.futures.retain(|tp, _| wanted.contains(tp));
        for tp in wanted {
            let (Some(record), Some(topic)) = (image.partition(tp), image.topics.get(&tp.topic_id)) else {
                continue;
            };
            let Some(process) = &mut self.process else { return };
            let known = process.replicas.get(&tp).map(|replica| replica.state.role());
            if process.holds(tp) || matches!(known, Some(Role::Failed)) {
                continue;
            }
            let counts = record.leader.is_none_or(|leader| leader == me)
                || record.isr.iter().chain(&record.elr).any(|&id| id == me);
            let Some(log) = self.disk.log(tp, record.directory_of(me), !counts) else {
                process.unopened.insert(tp);
                continue;
            };
            process.unopened.remove(&tp);
            let view = log.view(false);
            if !self.may_take_role(tp, record) {
                continue;
            }
            let Some(process) = &mut self.process else { return };
            let replica = process.replicas.entry(tp).or_insert_with(|| Replica {
                state: PartitionState::new(me, context.plan.lag_max, view, None),
                waiting: Vec::new(),
                applied: None,
            });
            let resigned = matches!(replica.state.role(), Role::Resigned(_));
            if !anew && !resigned && replica.applied == Some(record.partition_epoch) {
                continue;
            }
            replica.applied = Some(record.partition_epoch);
            let min_isr = min_insync_replicas(&image, &topic.name, record.replicas.len());
            let mut became = Transition::Stale;
            self.event(tp, context, |state, _, facts| {
                let assignment = Assignment {
                    registration: record,
                    my_epoch,
                    may_lead: true,
                    min_isr,
                };
                let (transition, effects) = state.apply_registration(&assignment, facts);
                became = transition;
                effects
            });
            self.became(tp, became, context);
        }
    }

    fn became(&mut self, tp: TopicPartition, became: Transition, context: &mut Context) {
        let (Some(process), Some(log)) = (&mut self.process, self.disk.logs.get_mut(&tp)) else {
            return;
        };
        match became {
            Transition::BecameLeader { epoch, start } => {
                context.checker.leads(tp, epoch, self.id, process.run);
                log.epochs.assign(epoch, start);
                process.moved.insert(tp);
            }
            Transition::BecameFollower { .. } => {
                if let Some(replica) = process.replicas.get_mut(&tp) {
                    replica.reject(self.id, |_| true, context);
                }
                let end = log.end();
                log.epochs.truncate_from_end(end);
                process.moved.insert(tp);
            }
            Transition::Updated | Transition::Stale | Transition::Failed => {}
        }
        self.flush(tp, context);
    }
}

/// What the controller's answer means to a leader.
fn answer(altered: &WireAltered) -> Result<AlteredPartition, IsrError> {
    let code = altered.error.as_ref().map_or(-1, |error| error.code);
    if code != 0 {
        let code = i16::try_from(code).ok().and_then(ErrorCode::from_code);
        return Err(code.map_or(IsrError::Unknown, IsrError::Refused));
    }
    Ok(AlteredPartition {
        leader: (altered.leader >= 0).then_some(BrokerId(altered.leader)),
        leader_epoch: LeaderEpoch(altered.leader_epoch),
        partition_epoch: PartitionEpoch(altered.partition_epoch),
        isr: altered.isr.iter().copied().map(BrokerId).collect(),
    })
}

impl Process {
    fn resign(&mut self, me: Node, context: &mut Context) {
        self.contact = None;
        for (tp, replica) in &mut self.replicas {
            if replica.state.resign() {
                replica.reject(me, |_| true, context);
                self.moved.insert(*tp);
            }
        }
    }

    fn end_session(&mut self, me: Node, context: &mut Context) {
        if let Some(session) = self.session.take() {
            context.out.push((me, Out::Close(session.conn)));
        }
    }

    fn open_session(&mut self, me: Node, disk: &Disk, context: &mut Context) {
        let Some(controller) = context.random.pick(&crate::controller::VOTERS) else {
            return;
        };
        let conn = Conn(context.fresh());
        self.session = Some(Session {
            conn,
            controller,
            open: false,
            heard: context.now,
        });
        let (failed, usable): (Vec<&Directory>, Vec<&Directory>) =
            disk.directories.iter().partition(|directory| directory.failed);
        let register = Register {
            hello: Some(InternalHello {
                node_id: me,
                incarnation_id: self.incarnation.to_vec().into(),
                ..InternalHello::default()
            }),
            internal_address: format!("broker-{me}:19092"),
            log_dirs: usable
                .iter()
                .map(|directory| directory.id.to_vec().into())
                .collect(),
            unusable_log_dirs: failed.len() as u32,
            metadata_offset: self.seen.offset.map_or(-1, Offset::get),
            highest_controller_epoch: self.highest.get(),
            ..Register::default()
        };
        context.send(me, conn, controller, Message::Register(Box::new(register)));
    }

    /// The controller that the session is open with.
    pub(crate) fn controller(&self) -> Option<Node> {
        let session = self.session.as_ref().filter(|session| session.open)?;
        Some(session.controller)
    }

    fn beat(&mut self, me: Node, context: &mut Context) {
        if let Some(session) = self.session.as_ref().filter(|session| session.open) {
            self.last_beat = context.now;
            let applied = self.image.offset.unwrap_or(Offset(-1));
            let failed = self.replicas.iter();
            let failed = failed.filter(|(_, replica)| matches!(replica.state.role(), Role::Failed));
            let failed = failed.map(|(tp, _)| tp).chain(&self.unopened).copied().collect();
            let beat = Message::Heartbeat(applied, self.offline.clone(), failed);
            context.send(me, session.conn, session.controller, beat);
        }
    }

    fn follow_log(&mut self, entries: &[Entry]) {
        for entry in entries {
            if self.seen.offset.is_none_or(|last| entry.offset > last) {
                self.seen = self
                    .seen
                    .apply(entry.offset, entry.term, Some(&entry.body))
                    .expect("what one node can apply, all can");
            }
        }
    }

    fn propose(&mut self, me: Node, tp: TopicPartition, change: AlterIsr, context: &mut Context) {
        let conn = Conn(context.fresh());
        let request = AlterPartitionsRequest {
            broker_id: me,
            broker_epoch: self.my_epoch.map_or(-1, BrokerEpoch::get),
            partitions: vec![AlterPartition {
                topic_id: tp.topic_id.to_vec().into(),
                partition: tp.partition.get(),
                leader_epoch: change.leader_epoch.get(),
                partition_epoch: change.partition_epoch.get(),
                new_isr: change
                    .new_isr
                    .iter()
                    .map(|(id, epoch)| IsrMember {
                        broker_id: id.get(),
                        broker_epoch: epoch.get(),
                    })
                    .collect(),
            }],
        };
        self.asked.insert(conn, (tp, change));
        if let Some(session) = &self.session {
            context.send(me, conn, session.controller, Message::Alter(request));
        }
        context.out.push((me, Out::GiveUp(conn)));
    }
}
