//! What befalls a cluster, and how it ends.

use protocol::BrokerId;

use crate::controller::VOTERS;
use crate::invariants;
use crate::message::Node;
use crate::settings::Mutation;
use crate::world::{Event, World, directory_id};

/// A kind of fault without a weight: it comes with a second directory.
const FAIL_DIRECTORY: usize = usize::MAX;

impl World {
    /// One fault, and when the next one comes.
    pub(crate) fn fault(&mut self) {
        if self.healing {
            return;
        }
        let brokers: Vec<Node> = self.brokers.iter().map(|broker| broker.id).collect();
        let weights = self.context.plan.weights;
        let kinds: Vec<usize> = (0..weights.len())
            .flat_map(|kind| std::iter::repeat_n(kind, weights[kind] as usize))
            .collect();
        let broker = self.context.random.pick(&brokers).unwrap_or(1);
        let controller = self.context.random.pick(&VOTERS).unwrap_or(VOTERS[0]);
        let span = self.context.random.between(50, 6_000);
        self.context.checker.counts.faults += 1;
        let fails = self.context.plan.directories > 1 && self.context.random.chance(25);
        let kind = if fails {
            Some(FAIL_DIRECTORY)
        } else {
            self.context.random.pick(&kinds)
        };
        match kind {
            Some(FAIL_DIRECTORY) => self.fail_directory(broker, span),
            Some(0) => self.crash(broker, false, span),
            Some(1) => self.crash(broker, true, span),
            Some(2) => {
                for &broker in &brokers {
                    self.crash(broker, true, span);
                }
            }
            Some(3) => self.wipe(broker, span),
            Some(4) => self.pause(broker, span),
            Some(5) => {
                let others: Vec<Node> = brokers
                    .iter()
                    .chain(&VOTERS)
                    .copied()
                    .filter(|n| *n != broker)
                    .collect();
                if let Some(other) = self.context.random.pick(&others) {
                    self.block(broker, other, span);
                    if self.context.random.chance(50) {
                        self.block(other, broker, span);
                    }
                }
            }
            Some(6) => {
                // A controller alone, perhaps the active one: it goes on deciding what never commits.
                for other in VOTERS.into_iter().filter(|other| *other != controller) {
                    self.block(controller, other, span);
                    self.block(other, controller, span);
                }
                self.after(span / 2 + 1, Event::Elect);
            }
            Some(7) => {
                if self.context.random.chance(50) {
                    self.pause(controller, span);
                }
                self.elect();
            }
            Some(8) => {
                if self.context.random.chance(30) {
                    self.recreate(0);
                }
                for conn in self.connections_of(broker) {
                    if self.context.random.chance(50) {
                        self.break_off(conn, 100);
                    }
                }
            }
            // A leader dies together with the active controller.
            Some(9) => {
                let partitions = self.partitions();
                let leader = self
                    .context
                    .random
                    .pick(&partitions)
                    .and_then(|tp| self.truth.partition(tp)?.leader);
                let power = self.context.random.chance(50);
                self.crash(leader.map_or(broker, BrokerId::get), power, span);
                self.elect();
            }
            _ => {}
        }
        let next = self.context.random.between(1, self.context.plan.fault_every);
        self.after(next, Event::Fault);
    }

    fn crash(&mut self, node: Node, power: bool, back_after: u64) {
        self.after(back_after, Event::Start(node));
        if self.run_of(node) == 0 {
            return;
        }
        for conn in self.connections_of(node) {
            self.break_off(conn, 200);
        }
        self.paused.remove(&node);
        self.with_broker(node, |broker, context| {
            broker.process = None;
            let mut lost = false;
            for log in broker.disk.logs.values_mut().filter(|_| power) {
                let written = log.records.len() as u64;
                let kept = context.random.between(log.durable as u64, written);
                lost |= kept < written;
                log.truncate(kept as usize);
            }
            context.checker.counts.unsynced_losses += u64::from(lost);
        });
    }

    /// A disk is lost, whatever else is going on: with `min.insync.replicas` 2 one of them may be, until
    /// everything that was on it is there again.
    fn wipe(&mut self, node: Node, back_after: u64) {
        self.note_recoveries();
        if self.brokers.iter().any(|broker| broker.hurt) {
            return;
        }
        self.crash(node, false, back_after);
        self.context.checker.counts.disk_losses += 1;
        let fresh = self.context.fresh();
        self.with_broker(node, |broker, context| {
            broker.disk.logs.clear();
            broker.disk.futures.clear();
            broker.wiped = true;
            broker.hurt = true;
            if !context.is(Mutation::KeepsDirectory) {
                for (at, directory) in broker.disk.directories.iter_mut().enumerate() {
                    directory.id = directory_id(2, at, fresh);
                }
            }
        });
    }

    /// One of a broker's directories fails, under its process or while there is none, and is mended later. It
    /// counts as a lost disk, as whose it may end.
    fn fail_directory(&mut self, node: Node, span: u64) {
        self.note_recoveries();
        if self.brokers.iter().any(|broker| broker.hurt) || self.paused.contains_key(&node) {
            return;
        }
        self.context.checker.counts.directory_failures += 1;
        if self.context.random.chance(30) {
            self.crash(node, false, span / 2);
        }
        let at = self.context.random.between(0, 1) as usize;
        let blank = self.context.random.chance(40);
        self.with_broker(node, |broker, context| {
            broker.hurt = true;
            broker.fail_directory(at, context);
        });
        self.after(span, Event::Mend(node, at, blank));
    }

    /// A directory that had failed is found by the next start, with what was synced; or a blank one in its place.
    pub(crate) fn mend(&mut self, node: Node, at: usize, blank: bool) {
        let back_after = self.context.random.between(50, 2_000);
        self.crash(node, false, back_after);
        let fresh = self.context.fresh();
        self.with_broker(node, |broker, context| {
            let directory = &mut broker.disk.directories[at];
            directory.failed = false;
            if blank {
                broker.disk.logs.retain(|_, log| log.home != at);
                broker.disk.futures.retain(|_, copy| copy.home != at);
                broker.wiped = true;
                if !context.is(Mutation::KeepsDirectory) {
                    directory.id = directory_id(2, at, fresh);
                }
                return;
            }
            for log in broker.disk.logs.values_mut().filter(|log| log.home == at) {
                let kept = context
                    .random
                    .between(log.durable as u64, log.records.len() as u64);
                log.truncate(kept as usize);
            }
        });
    }

    /// Whose disk was wiped or has failed, and who is in sync everywhere again.
    fn note_recoveries(&mut self) {
        let partitions = self.partitions();
        for broker in self.brokers.iter_mut().filter(|broker| {
            broker.hurt && !broker.wiped && broker.disk.directories.iter().all(|at| !at.failed)
        }) {
            let id = BrokerId(broker.id);
            broker.hurt = partitions.iter().any(|&tp| {
                let known = self.truth.partition(tp);
                known.is_some_and(|p| p.replicas.contains(&id) && !p.isr.contains(&id))
            });
        }
    }

    fn pause(&mut self, node: Node, span: u64) {
        self.paused.entry(node).or_default();
        self.after(span, Event::Resume(node));
    }

    fn block(&mut self, from: Node, to: Node, span: u64) {
        self.blocked.insert((from, to));
        self.after(span, Event::Unblock(from, to));
    }

    /// Faults end; everybody comes back. `None`: the cluster became whole, by then; else which invariant does
    /// not hold, and why.
    pub(crate) fn heal(&mut self) -> Option<(&'static str, String)> {
        const PATIENCE: u64 = 120_000;
        self.healing = true;
        self.blocked.clear();
        for node in self.paused.keys().copied().collect::<Vec<_>>() {
            self.after(0, Event::Resume(node));
        }
        for node in 1..=self.context.plan.brokers {
            self.after(0, Event::Start(node));
        }
        self.after(10, Event::Elect);
        let deadline = self.context.now + PATIENCE;
        let mut missing = None;
        while self.context.now < deadline && self.context.checker.broken.is_none() {
            let before = self.context.checker.counts.acknowledgements;
            self.after(0, Event::Write);
            self.run_until(self.context.now + 2_000);
            let whole = invariants::missing(&self.brokers, &self.truth).map(|what| ("EventuallyWhole", what));
            missing = whole.or_else(|| {
                let waiting = invariants::waiting(&self.brokers, &self.producers)?;
                Some(("EventuallyWriteIsAcceptedOrRejected", waiting))
            });
            if missing.is_none() && self.context.checker.counts.acknowledgements > before {
                return None;
            }
        }
        missing.or_else(|| Some(("EventuallyWhole", "no write is acknowledged".to_owned())))
    }
}
