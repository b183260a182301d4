//! The network: connections that are in order within each direction, lose what was under way when they
//! break, and are found to be broken by and by.

use controller::decisions::{ProbeResult, SessionId};
use protocol::{IncarnationId, LeaderEpoch};

use crate::controller::VOTERS;
use crate::message::{Conn, Message, Node};
use crate::producers;
use crate::world::{Event, World};

impl World {
    pub(crate) fn deliver(&mut self, conn: Conn, from: Node, to: Node, run: u64, message: Message) {
        if VOTERS.contains(&to) {
            match self.actives.iter_mut().rev().find(|active| active.node == to) {
                Some(active) => active.hear(from, conn, message, &mut self.context),
                None => self.refuse(conn, to, from, &message),
            }
        } else if to >= producers::FIRST {
            self.answered(to, conn, &message);
        } else if let Message::Produce(tp, producer, sequence, value) = message {
            let running = self.run_of(to);
            if running != 0 && (run == 0 || run == running) {
                self.with_broker(to, |broker, context| {
                    broker.produce_in_sequence((conn, from), tp, (producer, sequence), value, context);
                });
            }
        } else if run == 0 || self.run_of(to) == run {
            self.with_broker(to, |broker, context| {
                if !broker.hear(conn, &message, context) {
                    broker.hear_stream(from, conn, message, context);
                }
            });
        }
    }

    /// A controller that is not active says so.
    pub(crate) fn refuse(&mut self, conn: Conn, me: Node, to: Node, message: &Message) {
        let answer = match message {
            Message::Register(_) => Message::Ended(crate::message::Ended::NotActive),
            Message::Alter(_) => Message::Altered(Err(protocol::ErrorCode::NotController)),
            Message::Assign(_) => Message::Assigned(None),
            _ => return,
        };
        self.context.send(me, conn, to, answer);
    }

    pub(crate) fn probe(&mut self, from: Node, session: SessionId, broker: Node, incarnation: IncarnationId) {
        let process = self
            .brokers
            .iter()
            .find(|b| b.id == broker)
            .and_then(|b| b.process.as_ref());
        let cut = self.blocked.contains(&(from, broker)) || self.blocked.contains(&(broker, from));
        let found = match process {
            _ if cut || self.paused.contains_key(&broker) => ProbeResult::Silent,
            None => ProbeResult::Refused,
            Some(process) if process.incarnation == incarnation => ProbeResult::Alive,
            Some(_) => ProbeResult::OtherIncarnation,
        };
        let term = self
            .actives
            .iter()
            .rev()
            .find(|a| a.node == from)
            .map_or(LeaderEpoch(0), |a| a.term);
        let delay = self.context.random.between(1, 20);
        self.after(delay, Event::Probed(from, term, session, broker, found));
    }

    pub(crate) fn send(&mut self, conn: Conn, from: Node, to: Node, message: Message) {
        if self.dead.contains(&conn) {
            return;
        }
        self.ends.insert(conn, (from, to));
        if self.blocked.contains(&(from, to)) {
            return self.break_off(conn, 3_000);
        }
        let mut delay = self.context.random.between(0, self.context.plan.delay);
        if !self.healing && self.context.random.chance(1) {
            delay += self.context.random.between(0, 1_000);
        }
        let at = (self.context.now + delay).max(self.arrivals.get(&(conn, to)).copied().unwrap_or(0));
        self.arrivals.insert((conn, to), at);
        let run = self.run_of(to);
        self.after(
            at - self.context.now,
            Event::Deliver(conn, from, to, run, message),
        );
    }

    pub(crate) fn close(&mut self, conn: Conn) {
        self.break_off(conn, 50);
    }

    /// Nothing is sent on the connection any more; both ends find out by and by.
    pub(crate) fn break_off(&mut self, conn: Conn, within: u64) {
        let Some(&(a, b)) = self.ends.get(&conn) else {
            return;
        };
        if !self.dead.insert(conn) {
            return;
        }
        for (from, to) in [(a, b), (b, a)] {
            let delay = self.context.random.between(1, within);
            let at = (self.context.now + delay).max(self.arrivals.get(&(conn, to)).copied().unwrap_or(0));
            let run = self.run_of(to);
            self.after(
                at - self.context.now,
                Event::Deliver(conn, from, to, run, Message::Reset),
            );
        }
    }

    /// All connections that this node has.
    pub(crate) fn connections_of(&self, node: Node) -> Vec<Conn> {
        let ends = self.ends.iter();
        ends.filter(|(conn, (a, b))| !self.dead.contains(conn) && (*a == node || *b == node))
            .map(|(conn, _)| *conn)
            .collect()
    }
}
