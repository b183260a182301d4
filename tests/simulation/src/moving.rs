//! Replicas on their way to the other directory of their broker: what `replication::manager::moves` and
//! `storage::LogManager` do, restated. The copying is no more than a moment; what can go wrong is at its end.
//!
//! A replica that is held is neither appended to nor cut, and takes no other role, from before the controller is
//! asked to note the new directory until its answer is known. Then the copy takes the place of the log.

use metadata::PartitionRegistration;
use protocol::grpc::v1::{AssignDirectoriesRequest, DirectoryAssignment};
use protocol::{BrokerEpoch, BrokerId, DirectoryId, TopicPartition};
use replication::Role;

use crate::broker::{Broker, Process};
use crate::context::Context;
use crate::disk::{Disk, Log};
use crate::message::{Conn, Message, Node, Out};

/// Why the controller is to note another directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// The copy takes the place of the log then.
    Move,
    /// The copy's directory has failed meanwhile: the log stays the replica.
    Back,
    /// The log lies elsewhere than the metadata has it.
    Tell,
}

/// What the controller is asked, again and again until it has answered.
#[derive(Debug)]
pub(crate) struct Asking {
    to: usize,
    purpose: Purpose,
    /// The request that is under way.
    conn: Option<Conn>,
}

impl Disk {
    /// The log of a partition that the metadata has in the directory `assigned`, made where there is none: the rules
    /// of `LogManager::create`. `None` where it may lie in a directory that cannot be used: nothing is built anew
    /// while the log may come back. `expendable`: nobody counts on it, so a copy that was left alone goes.
    pub(crate) fn log(
        &mut self,
        tp: TopicPartition,
        assigned: Option<DirectoryId>,
        expendable: bool,
    ) -> Option<&mut Log> {
        let at = self
            .directories
            .iter()
            .position(|directory| Some(directory.id) == assigned)
            .filter(|&at| !self.directories[at].failed)?;
        let usable = |log: &Log| !self.directories[log.home].failed;
        if !self.logs.get(&tp).is_some_and(usable) {
            let copy = self.futures.remove(&tp).filter(|_| !expendable);
            let copy = copy.filter(|copy| copy.home == at);
            // What comes back in the other directory is stray: the metadata does not name it.
            let log = copy.unwrap_or_else(|| Log {
                home: at,
                ..Log::default()
            });
            self.logs.insert(tp, log);
        }
        self.logs.get_mut(&tp)
    }

    /// What the metadata means that has the replica in this directory.
    pub(crate) fn meant(&self, tp: TopicPartition, assigned: Option<DirectoryId>) -> Option<&Log> {
        let lies_there = |log: &&Log| Some(self.directories[log.home].id) == assigned;
        let copy = self.futures.get(&tp).filter(lies_there);
        copy.or_else(|| self.logs.get(&tp))
    }
}

impl Process {
    /// Whether the replica rests until the controller has answered.
    pub(crate) fn holds(&self, tp: TopicPartition) -> bool {
        let asking = self.asking.get(&tp);
        asking.is_some_and(|asking| asking.purpose != Purpose::Tell)
    }

    /// Asks what was not asked yet, or was not answered.
    pub(crate) fn ask(&mut self, me: Node, disk: &Disk, context: &mut Context) {
        let (Some(controller), Some(epoch)) = (self.controller(), self.my_epoch) else {
            return;
        };
        for (&tp, asking) in self.asking.iter_mut().filter(|(_, asking)| asking.conn.is_none()) {
            let conn = Conn(context.fresh());
            asking.conn = Some(conn);
            let request = request(me, epoch, tp, disk.directories[asking.to].id);
            context.send(me, conn, controller, Message::Assign(request));
            context.out.push((me, Out::GiveUp(conn)));
        }
    }
}

fn request(
    me: Node,
    epoch: BrokerEpoch,
    tp: TopicPartition,
    directory: DirectoryId,
) -> AssignDirectoriesRequest {
    AssignDirectoriesRequest {
        broker_id: me,
        broker_epoch: epoch.get(),
        assignments: vec![DirectoryAssignment {
            topic_id: tp.topic_id.to_vec().into(),
            partition: tp.partition.get(),
            directory: directory.to_vec().into(),
        }],
    }
}

impl Broker {
    /// One of the replicas begins to move, where every directory can be used.
    pub(crate) fn begin_move(&mut self, context: &mut Context) {
        let Some(process) = &mut self.process else { return };
        if self.disk.directories.iter().any(|directory| directory.failed) {
            return;
        }
        let logs = &self.disk.logs;
        let can_move = |(tp, state): (&TopicPartition, &Role)| {
            let is_durable = logs.get(tp).is_some_and(|log| log.durable == log.records.len());
            is_durable && matches!(state, Role::Leader(_) | Role::Follower(_))
        };
        let replicas: Vec<TopicPartition> = process
            .replicas
            .iter()
            .filter(|(tp, replica)| !process.asking.contains_key(tp) && can_move((tp, replica.state.role())))
            .map(|(&tp, _)| tp)
            .collect();
        let Some(tp) = context.random.pick(&replicas) else {
            return;
        };
        let mut copy = self.disk.logs[&tp].clone();
        copy.home = 1 - copy.home;
        let asking = Asking {
            to: copy.home,
            purpose: Purpose::Move,
            conn: None,
        };
        self.disk.futures.insert(tp, copy);
        process.asking.insert(tp, asking);
        process.ask(self.id, &self.disk, context);
    }

    /// Whether the replica rests. A broker that is careless by a mutation lets it go on.
    pub(crate) fn is_held(&self, tp: TopicPartition) -> bool {
        !self.careless && self.process.as_ref().is_some_and(|process| process.holds(tp))
    }

    /// Whether the replica may take the role that the metadata gives it: it lies where it is said to lie, or has had
    /// a role before. The controller is told where else it lies.
    pub(crate) fn may_take_role(&mut self, tp: TopicPartition, record: &PartitionRegistration) -> bool {
        let (Some(process), Some(log)) = (&mut self.process, self.disk.logs.get(&tp)) else {
            return false;
        };
        if record.directory_of(BrokerId(self.id)) == Some(self.disk.directories[log.home].id) {
            // A copy of an earlier run is none any more.
            self.disk.futures.remove(&tp);
            return true;
        }
        process.asking.entry(tp).or_insert(Asking {
            to: log.home,
            purpose: Purpose::Tell,
            conn: None,
        });
        let replica = process.replicas.get(&tp);
        replica.is_some_and(|replica| !matches!(replica.state.role(), Role::Unassigned))
    }

    /// An answer about a directory, or none; false where it is about something else.
    pub(crate) fn hear_assigned(&mut self, conn: Conn, message: &Message, context: &mut Context) -> bool {
        let Some(process) = &mut self.process else {
            return false;
        };
        let asked = process
            .asking
            .iter_mut()
            .find(|(_, asking)| asking.conn == Some(conn));
        let Some((&tp, asking)) = asked else {
            return false;
        };
        asking.conn = None;
        let Message::Assigned(Some(code)) = message else {
            // Nobody knows: it is asked again.
            return true;
        };
        let (noted, purpose) = (*code == 0, asking.purpose);
        let fits = |log: Option<&Log>| log.is_some_and(|log| !self.disk.directories[log.home].failed);
        let (log_fits, copy_fits) = (fits(self.disk.logs.get(&tp)), fits(self.disk.futures.get(&tp)));
        match purpose {
            // The log's own directory failed meanwhile: the next start takes what it finds.
            Purpose::Move | Purpose::Back if !log_fits => {}
            Purpose::Move if noted && copy_fits => {
                if let Some(mut copy) = self.disk.futures.remove(&tp) {
                    copy.generation = self.disk.logs[&tp].generation + 1;
                    self.disk.logs.insert(tp, copy);
                    context.checker.counts.moves += 1;
                }
            }
            Purpose::Move if noted => {
                *asking = Asking {
                    to: 1 - asking.to,
                    purpose: Purpose::Back,
                    conn: None,
                };
                return true;
            }
            Purpose::Move | Purpose::Back => {
                self.disk.futures.remove(&tp);
            }
            Purpose::Tell => {}
        }
        process.asking.remove(&tp);
        process.moved.insert(tp);
        // What the metadata has said meanwhile.
        self.apply(context);
        self.pump(context);
        true
    }
}
