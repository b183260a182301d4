//! The model's controller, its network, and what must hold after each step.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use metadata::PartitionRegistration;
use protocol::{BrokerEpoch, BrokerId, DirectoryId, ErrorCode, LeaderEpoch, PartitionEpoch};
use replication::{AlterIsr, AlteredPartition, Effects, FetchVerdict, IsrError, Now, Role};

use crate::broker::{Broker, Entry, Image, LAG_MAX};

thread_local! {
    static MIN_ISR: Cell<usize> = const { Cell::new(1) };
}

/// `min.insync.replicas` of this history.
pub(crate) fn min_isr() -> usize {
    MIN_ISR.get()
}

/// What may happen.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// A client appends at a broker that believes to lead.
    Append(usize),
    /// A broker's disk catches up.
    Flush(usize),
    /// A follower sends a fetch.
    Fetch(usize),
    /// A follower's oldest fetch arrives, and its answer returns.
    DeliverFetch(usize),
    /// A follower's connection breaks.
    LoseFetches(usize),
    /// A broker learns the next image.
    LearnNext(usize),
    /// A broker learns the latest image.
    LearnAll(usize),
    /// The controller takes up the oldest ISR change; `true`: its answer is lost.
    DecideIsr(bool),
    /// A decision arrives at its leader; `true`: only that there is none.
    AnswerIsr(bool),
    /// Time passes everywhere, and the leaders look at their followers.
    PassTime,
    /// The controller fences a broker, which goes on until it learns.
    Fence(usize),
    /// A process dies; `true`: with the machine's power.
    Crash(usize, bool),
    /// A fenced or dead broker's process (re)starts and registers.
    Register(usize),
    /// A broker takes itself for fenced.
    Resign(usize),
}

/// A proposal on its way to the controller, or its answer on the way back.
struct Asked {
    from: usize,
    epoch: BrokerEpoch,
    change: AlterIsr,
    outcome: Option<Result<AlteredPartition, IsrError>>,
}

pub(crate) struct World {
    brokers: Vec<Broker>,
    images: Vec<Image>,
    changes: Vec<Asked>,
    answers: Vec<Asked>,
    now: Now,
    next_value: u64,
    next_broker_epoch: i64,
    /// Everything that any replica has called committed.
    committed: Vec<Entry>,
}

impl World {
    pub(crate) fn new(min_isr: usize) -> Self {
        MIN_ISR.set(min_isr);
        let ids: Vec<BrokerId> = (0..3).map(BrokerId).collect();
        let record = PartitionRegistration {
            replicas: ids.clone(),
            directories: vec![DirectoryId::ZERO; 3],
            isr: ids,
            elr: Vec::new(),
            leader: Some(BrokerId(0)),
            leader_epoch: LeaderEpoch(0),
            partition_epoch: PartitionEpoch(0),
            adding: Vec::new(),
            removing: Vec::new(),
        };
        let image = Image {
            record: Arc::new(record),
            brokers: [0, 1, 2].map(|id| (BrokerEpoch(id), false)),
        };
        let mut world = Self {
            brokers: (0..3).map(Broker::new).collect(),
            images: vec![image.clone()],
            changes: Vec::new(),
            answers: Vec::new(),
            now: Now(0),
            next_value: 0,
            next_broker_epoch: 10,
            committed: Vec::new(),
        };
        for (id, broker) in world.brokers.iter_mut().enumerate() {
            broker.start(BrokerEpoch(id as i64), 1);
            broker.learn(image.clone(), Now(0));
        }
        world
    }

    pub(crate) fn committed(&self) -> usize {
        self.committed.len()
    }

    pub(crate) fn isr_len(&self) -> usize {
        self.image().record.isr.len()
    }

    fn image(&self) -> &Image {
        self.images.last().expect("there is always an image")
    }

    pub(crate) fn take(&mut self, step: Step) {
        let now = self.now;
        match step {
            Step::Append(at) => {
                self.next_value += 1;
                let value = self.next_value;
                self.brokers[at].append(value, now);
            }
            Step::Flush(at) => self.brokers[at].flush(now),
            Step::Fetch(at) => self.brokers[at].send_fetch(),
            Step::DeliverFetch(at) => self.deliver_fetch(at),
            Step::LoseFetches(at) => {
                if let Some(process) = &mut self.brokers[at].process {
                    process.fetches.clear();
                }
            }
            Step::LearnNext(at) => self.learn(at, 1),
            Step::LearnAll(at) => self.learn(at, usize::MAX),
            Step::DecideIsr(lose_answer) => self.decide_isr(lose_answer),
            Step::AnswerIsr(unknown) => self.answer_isr(unknown),
            Step::PassTime => {
                self.now = now.after(LAG_MAX / 4);
                for at in 0..3 {
                    let now = self.now;
                    let propose = self.brokers[at].event(now, |state, _, facts| state.on_tick(facts));
                    self.send(at, propose);
                }
            }
            Step::Fence(at) => self.fence(at),
            Step::Crash(at, power) => self.brokers[at].crash(power),
            Step::Register(at) => self.register(at),
            Step::Resign(at) => {
                if let Some(process) = &mut self.brokers[at].process {
                    process.state.resign();
                }
            }
        }
        self.check();
    }

    fn send(&mut self, from: usize, change: Option<AlterIsr>) {
        if let (Some(change), Some(process)) = (change, &self.brokers[from].process) {
            self.changes.push(Asked {
                from,
                epoch: process.epoch,
                change,
                outcome: None,
            });
        }
    }

    fn deliver_fetch(&mut self, at: usize) {
        let now = self.now;
        let Some(process) = &mut self.brokers[at].process else {
            return;
        };
        let Some(sent) = process.fetches.pop_front() else {
            return;
        };
        let leader = sent.to.0 as usize;
        let mut verdict = None;
        let propose = self.brokers[leader].event(now, |state, epochs, facts| {
            match state.on_follower_fetch(BrokerId(at as i32), sent.broker_epoch, &sent.fetch, epochs, facts)
            {
                Ok((answer, effects)) => {
                    verdict = Some(answer);
                    effects
                }
                Err(_) => Effects::default(),
            }
        });
        self.send(leader, propose);
        let Some(verdict) = verdict else { return };
        let log = &self.brokers[leader].log;
        let data: Vec<Entry> = match verdict {
            FetchVerdict::Continue { next } => log.iter().skip(next.0 as usize).take(2).copied().collect(),
            FetchVerdict::Diverged { .. } => Vec::new(),
        };
        let state = &self.brokers[leader]
            .process
            .as_ref()
            .expect("it has just answered")
            .state;
        let high_watermark = state.high_watermark();
        self.brokers[at].answered(sent.fetch.leader_epoch, verdict, &data, high_watermark, now);
    }

    fn learn(&mut self, at: usize, count: usize) {
        let Some(process) = &mut self.brokers[at].process else {
            return;
        };
        let from = process.seen;
        let to = self.images.len().min(from.saturating_add(count));
        process.seen = to;
        let resigned = matches!(process.state.role(), Role::Resigned(_));
        // Images between are skipped as a broker skips them: only the last one is applied. One that
        // gave up its leaderships takes up what the image that it has says.
        if to > from || (resigned && to > 0) {
            let image = self.images[to - 1].clone();
            let propose = self.brokers[at].learn(image, self.now);
            self.send(at, propose);
        }
    }

    /// The controller's compare-and-set (KIP-497, KIP-841, KIP-903).
    fn decide_isr(&mut self, lose_answer: bool) {
        if self.changes.is_empty() {
            return;
        }
        let mut change = self.changes.remove(0);
        let image = self.image();
        let record = &image.record;
        let stale = |(id, epoch): &(BrokerId, BrokerEpoch)| image.brokers[id.0 as usize].0 != *epoch;
        let fenced = |(id, _): &(BrokerId, BrokerEpoch)| image.brokers[id.0 as usize].1;
        let outcome = if image.brokers[change.from].0 != change.epoch {
            Err(IsrError::Refused(ErrorCode::StaleBrokerEpoch))
        } else if record.leader != Some(BrokerId(change.from as i32))
            || record.leader_epoch != change.change.leader_epoch
        {
            Err(IsrError::Refused(ErrorCode::FencedLeaderEpoch))
        } else if record.partition_epoch != change.change.partition_epoch {
            Err(IsrError::Refused(ErrorCode::InvalidUpdateVersion))
        } else if change
            .change
            .new_isr
            .iter()
            .any(|member| stale(member) || fenced(member))
        {
            Err(IsrError::Refused(ErrorCode::IneligibleReplica))
        } else {
            let isr: Vec<BrokerId> = change.change.new_isr.iter().map(|(id, _)| *id).collect();
            self.publish(|image, record| {
                record.isr.clone_from(&isr);
                let _ = image;
            });
            let record = &self.image().record;
            Ok(AlteredPartition {
                leader: record.leader,
                leader_epoch: record.leader_epoch,
                partition_epoch: record.partition_epoch,
                isr,
            })
        };
        change.outcome = Some(if lose_answer {
            Err(IsrError::Unknown)
        } else {
            outcome
        });
        self.answers.push(change);
    }

    fn answer_isr(&mut self, unknown: bool) {
        if unknown && !self.changes.is_empty() {
            // The caller's patience ends; the request is still on its way.
            let (from, epoch) = (self.changes[0].from, self.changes[0].epoch);
            let change = self.changes[0].change.clone();
            self.answer(&Asked {
                from,
                epoch,
                change,
                outcome: Some(Err(IsrError::Unknown)),
            });
        } else if !self.answers.is_empty() {
            let answer = self.answers.remove(0);
            self.answer(&answer);
        }
    }

    fn answer(&mut self, answer: &Asked) {
        let same_process = self.brokers[answer.from]
            .process
            .as_ref()
            .is_some_and(|process| process.epoch == answer.epoch);
        if let (true, Some(outcome)) = (same_process, answer.outcome.clone()) {
            let propose = self.brokers[answer.from].event(self.now, |state, _, facts| {
                state.on_alter_isr_result(&answer.change, outcome, facts)
            });
            self.send(answer.from, propose);
        }
    }

    fn publish(&mut self, change: impl FnOnce(&mut Image, &mut PartitionRegistration)) {
        let mut image = self.image().clone();
        let mut record = PartitionRegistration::clone(&image.record);
        change(&mut image, &mut record);
        record.partition_epoch = record.partition_epoch.next();
        record.assert_invariants();
        image.record = Arc::new(record);
        self.images.push(image);
    }

    /// Takes a broker out of the ISR, unless it is the last member, and elects another leader.
    fn take_out(image: &Image, record: &mut PartitionRegistration, at: usize) {
        let id = BrokerId(at as i32);
        if record.isr.len() > 1 {
            record.isr.retain(|&member| member != id);
        }
        if record.leader == Some(id) {
            record.leader = None;
            record.leader_epoch = record.leader_epoch.next();
        }
        Self::elect(image, record);
    }

    fn elect(image: &Image, record: &mut PartitionRegistration) {
        if record.leader.is_none() {
            let live = |id: &&BrokerId| !image.brokers[id.0 as usize].1;
            record.leader = record.isr.iter().find(live).copied();
            if record.leader.is_some() {
                record.leader_epoch = record.leader_epoch.next();
            }
        }
    }

    fn fence(&mut self, at: usize) {
        self.publish(|image, record| {
            image.brokers[at].1 = true;
            Self::take_out(image, record, at);
        });
    }

    /// A new registration: the old incarnation is fenced in the same entry, then the broker is live.
    fn register(&mut self, at: usize) {
        let running = self.brokers[at].process.is_some();
        if running && !self.image().brokers[at].1 {
            return;
        }
        self.next_broker_epoch += 1;
        let epoch = BrokerEpoch(self.next_broker_epoch);
        self.publish(|image, record| {
            image.brokers[at] = (epoch, true);
            Self::take_out(image, record, at);
        });
        self.publish(|image, record| {
            image.brokers[at].1 = false;
            Self::elect(image, record);
        });
        let registered_in = self.images.len() - 2;
        match &mut self.brokers[at].process {
            // A live broker opens a new session and keeps its state.
            Some(process) => process.epoch = epoch,
            None => self.brokers[at].start(epoch, registered_in),
        }
    }

    /// Everybody comes back and nothing fails any more: the partition has to become whole again.
    pub(crate) fn heal(&mut self) {
        for at in 0..3 {
            if self.brokers[at].process.is_none() || self.image().brokers[at].1 {
                self.take(Step::Register(at));
            }
        }
        for round in 0..500 {
            if round % 4 == 0 {
                let leader = self.image().record.leader.map_or(0, |id| id.0 as usize);
                if round < 40 {
                    self.take(Step::Append(leader));
                }
                self.now = self.now.after(Duration::from_secs(31));
                self.take(Step::PassTime);
            }
            for at in 0..3 {
                self.take(Step::LearnAll(at));
                self.take(Step::Fetch(at));
                self.take(Step::DeliverFetch(at));
                self.take(Step::Flush(at));
            }
            self.take(Step::DecideIsr(false));
            self.take(Step::AnswerIsr(false));
        }
        let end = self.brokers[0].end();
        for broker in &self.brokers {
            let state = &broker.process.as_ref().expect("everybody is back").state;
            assert_eq!(broker.end(), end, "logs differ after healing");
            assert_eq!(
                state.high_watermark(),
                end,
                "broker {} has not committed all",
                broker.id
            );
        }
        assert_eq!(self.isr_len(), 3, "somebody did not come back into the ISR");
    }

    fn check(&mut self) {
        for broker in &self.brokers {
            let Some(process) = &broker.process else { continue };
            process.state.assert_invariants(broker.view());
            let high_watermark = process.state.high_watermark().0 as usize;
            for (at, entry) in broker.log.iter().enumerate().take(high_watermark) {
                match self.committed.get(at) {
                    Some(known) => assert_eq!(
                        known, entry,
                        "broker {} calls another record committed at {at}",
                        broker.id
                    ),
                    None => self.committed.push(*entry),
                }
            }
        }
        // Whoever may be elected has everything that was committed, on its disk.
        for id in &self.image().record.isr {
            let broker = &self.brokers[id.0 as usize];
            assert!(
                broker.durable >= self.committed.len()
                    && broker.log[..self.committed.len()] == self.committed[..],
                "broker {id} is in the ISR without {} committed records: {} durable of {:?}",
                self.committed.len(),
                broker.durable,
                broker.log.len(),
            );
        }
    }
}
