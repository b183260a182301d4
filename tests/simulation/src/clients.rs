//! Clients: who writes, who reads, and who creates and deletes topics.

use controller::decisions;
use protocol::grpc::v1::{CreateTopicsRequest, DeleteTopicsRequest, NewTopic, TopicRef};
use protocol::{TopicId, TopicPartition};

use crate::context::Context;
use crate::controller::{Active, Waiting};
use crate::invariants;
use crate::message::Node;
use crate::producing::Acks;
use crate::world::{Event, World};

impl World {
    pub(crate) fn partitions(&self) -> Vec<TopicPartition> {
        let topics = self.truth.topics.iter();
        topics
            .flat_map(|(&id, topic)| {
                topic
                    .partitions
                    .keys()
                    .map(move |&index| TopicPartition::new(id, index))
            })
            .collect()
    }

    pub(crate) fn someone(&mut self) -> Option<(Node, TopicPartition)> {
        let nodes: Vec<Node> = self.brokers.iter().map(|b| b.id).collect();
        let node = self
            .context
            .random
            .pick(&nodes)
            .filter(|node| !self.paused.contains_key(node))?;
        let partitions = self.partitions();
        Some((node, self.context.random.pick(&partitions)?))
    }

    /// A client writes at a broker that may believe to lead.
    pub(crate) fn write(&mut self) {
        self.create_missing();
        if let Some((_, tp)) = self.someone() {
            for node in 1..=self.context.plan.brokers {
                if !self.paused.contains_key(&node) {
                    let value = self.context.fresh() as i64;
                    let acks = if self.context.random.chance(self.context.plan.acks_one) {
                        Acks::Leader
                    } else {
                        Acks::All
                    };
                    self.with_broker(node, |broker, context| broker.produce(tp, value, acks, context));
                }
            }
        }
        if !self.healing {
            let delay = self.context.random.between(1, self.context.plan.write_every);
            self.after(delay, Event::Write);
        }
    }

    /// Creates what is not there, once brokers are live and nothing is in flight.
    pub(crate) fn create_missing(&mut self) {
        let live = self.truth.live_brokers().count() as i32 == self.context.plan.brokers;
        let term = self.term;
        let Some(active) = self.actives.iter_mut().find(|active| active.term == term) else {
            return;
        };
        for number in 0..self.context.plan.topics {
            let there = self.truth.topic(&format!("topic{number}")).is_some();
            if live && !there && active.in_flight.is_empty() {
                create(active, number, &mut self.context);
            }
        }
    }

    pub(crate) fn read(&mut self) {
        if let Some((node, tp)) = self.someone() {
            let committed = self.context.checker.history(tp).committed.len() as u64;
            let from = self
                .context
                .random
                .between(committed.saturating_sub(20), committed) as usize;
            if let Some(broker) = self.brokers.iter().find(|broker| broker.id == node) {
                invariants::read(broker, tp, from, &mut self.context);
            }
        }
        self.after(97, Event::Read);
    }

    /// A topic is deleted and created again under its name.
    pub(crate) fn recreate(&mut self, number: u64) {
        let term = self.term;
        let Some(active) = self.actives.iter_mut().find(|active| active.term == term) else {
            return;
        };
        let topics = vec![TopicRef {
            name: format!("topic{number}"),
            ..TopicRef::default()
        }];
        let request = DeleteTopicsRequest {
            topics,
            timeout_ms: 0,
        };
        let context = &mut self.context;
        active.decide(
            context,
            |view| decisions::delete_topics(view, &request),
            |_| Waiting::Nobody,
        );
        create(active, number, context);
    }
}

fn create(active: &mut Active, number: u64, context: &mut Context) {
    let id = TopicId(uuid::Uuid::from_u128(u128::from(context.fresh()) + (1 << 64)));
    let brokers = 3.min(context.plan.brokers);
    let topic = NewTopic {
        name: format!("topic{number}"),
        partitions: -1,
        replication_factor: -1,
        assignments: vec![protocol::grpc::v1::ReplicaAssignment {
            partition: 0,
            brokers: (1..=brokers)
                .map(|n| (n as u64 + number) as i32 % context.plan.brokers + 1)
                .collect(),
        }],
        configs: Vec::new(),
    };
    let request = CreateTopicsRequest {
        topics: vec![topic],
        ..CreateTopicsRequest::default()
    };
    let mut fresh = || id;
    active.decide(
        context,
        |view| decisions::create_topics(view, &request, 0, &mut fresh),
        |_| Waiting::Nobody,
    );
}
