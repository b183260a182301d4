//! Idempotent producers: each writes to one partition, has at most five batches under way, and repeats
//! what was not answered, from the first one on, after every error, silence or broken connection.
//!
//! Until its first batch is acknowledged a producer has no second one under way, which real clients do not care
//! about. A leader that knows nothing of a producer takes any sequence, as Kafka's does up to 4.4 (it cannot tell
//! such a producer from one whose records retention has deleted, KIP-360). So where a first batch is refused
//! (another leads, the ISR is too small) and the second one, under way behind it, arrives when that has passed, the
//! second is taken and the first one's repetitions are out of order for ever: the client gives it up in the end and
//! reports it as failed (KAFKA-14359, KAFKA-15591). Once one batch is acknowledged it is committed, and every later
//! leader knows the producer. [`Mutation::EagerProducers`] takes the caution away.

use std::collections::VecDeque;

use protocol::{BrokerId, TopicPartition};

use crate::message::{Conn, Message, Node, Out};
use crate::settings::Mutation;
use crate::world::{Event, World};

/// The first producer's node number.
pub(crate) const FIRST: Node = 201;
/// As many as a leader recognises when they are repeated.
const IN_FLIGHT: i32 = 5;
/// After so long without an answer (ms) everything is asked again on another connection.
const PATIENCE: u64 = 1_500;

/// A producer, and what it waits for.
pub(crate) struct Producer {
    node: Node,
    id: i64,
    pub(crate) tp: TopicPartition,
    next: i32,
    acknowledged: bool,
    /// Sequences and values without an answer, in order.
    pub(crate) unanswered: VecDeque<(i32, i64)>,
    conn: Option<(Conn, Node)>,
    /// How many of the unanswered ones went out on this connection.
    sent: usize,
    heard: u64,
}

impl World {
    /// One producer looks around.
    pub(crate) fn produce(&mut self, node: Node) {
        let delay = self.context.random.between(1, 2 * self.context.plan.write_every);
        self.after(delay, Event::Produce(node));
        let partitions = self.partitions();
        let Some(tp) = self.context.random.pick(&partitions) else {
            return;
        };
        let known = self.producers.iter().position(|p| p.node == node);
        let known = known.filter(|&at| partitions.contains(&self.producers[at].tp));
        let at = known.unwrap_or_else(|| {
            // Its topic was deleted, or it is the first one: another producer takes its place.
            self.producers.retain(|p| p.node != node);
            self.producers.push(Producer {
                node,
                id: self.context.fresh() as i64,
                tp,
                next: 0,
                acknowledged: false,
                unanswered: VecDeque::new(),
                conn: None,
                sent: 0,
                heard: 0,
            });
            self.producers.len() - 1
        });
        let known_leader = self.truth.partition(self.producers[at].tp).and_then(|p| p.leader);
        let guess = self.context.random.between(1, self.context.plan.brokers as u64) as Node;
        let target = known_leader
            .filter(|_| self.healing || self.context.random.chance(85))
            .map_or(guess, BrokerId::get);
        let (producer, context) = (&mut self.producers[at], &mut self.context);
        let careful = !producer.acknowledged && !context.is(Mutation::EagerProducers);
        let room = if careful { 1 } else { IN_FLIGHT };
        let oldest = producer
            .unanswered
            .front()
            .map_or(producer.next, |oldest| oldest.0);
        if !self.healing && producer.next - oldest < room {
            producer
                .unanswered
                .push_back((producer.next, context.fresh() as i64));
            producer.next += 1;
        }
        if let Some((conn, _)) = producer.conn.filter(|_| context.now >= producer.heard + PATIENCE) {
            context.out.push((node, Out::Close(conn)));
            producer.conn = None;
        }
        if producer.unanswered.is_empty() {
            return;
        }
        let (conn, to) = *producer.conn.get_or_insert_with(|| {
            producer.sent = 0;
            producer.heard = context.now;
            (Conn(context.fresh()), target)
        });
        for &(sequence, value) in producer.unanswered.iter().skip(producer.sent) {
            let batch = Message::Produce(producer.tp, producer.id, sequence, value);
            context.send(node, conn, to, batch);
        }
        producer.sent = producer.unanswered.len();
    }

    /// A leader answers a producer, or its connection is gone.
    pub(crate) fn answered(&mut self, node: Node, conn: Conn, message: &Message) {
        let (producers, context) = (&mut self.producers, &mut self.context);
        let current = |p: &&mut Producer| p.node == node && p.conn.is_some_and(|(open, _)| open == conn);
        let Some(producer) = producers.iter_mut().find(current) else {
            return;
        };
        producer.heard = context.now;
        match message {
            Message::Produced(sequence, Some(_)) => {
                producer.acknowledged = true;
                let before = producer.unanswered.len();
                producer.unanswered.retain(|(waiting, _)| waiting != sequence);
                producer.sent -= before - producer.unanswered.len();
            }
            Message::Produced(_, None) => {
                context.out.push((node, Out::Close(conn)));
                producer.conn = None;
            }
            _ => producer.conn = None,
        }
    }
}
