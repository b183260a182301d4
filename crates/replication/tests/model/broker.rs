//! One broker of the model: a log in memory around the real state machine.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use metadata::PartitionRegistration;
use protocol::{BrokerEpoch, BrokerId, LeaderEpoch, Offset};
use replication::{
    AlterIsr, Assignment, Brokers, Effects, EpochLookup, Facts, FetchVerdict, FollowerFetch, LogView, Now,
    PartitionState, Position, Transition,
};
use storage::epochs::EpochCache;

pub(crate) const LAG_MAX: Duration = Duration::from_secs(10);

/// What the controller has published once.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) record: Arc<PartitionRegistration>,
    /// Epoch and whether it is fenced, by broker.
    pub(crate) brokers: [(BrokerEpoch, bool); 3],
}

impl Brokers for Image {
    fn epoch(&self, broker: BrokerId) -> Option<BrokerEpoch> {
        self.brokers.get(broker.0 as usize).map(|(epoch, _)| *epoch)
    }

    fn is_eligible(&self, broker: BrokerId) -> bool {
        self.brokers
            .get(broker.0 as usize)
            .is_some_and(|(_, fenced)| !fenced)
    }
}

/// A record is its epoch and a number that no other record has.
pub(crate) type Entry = (LeaderEpoch, u64);

/// A fetch on its way, under the broker epoch of the process that sent it.
#[derive(Clone, Debug)]
pub(crate) struct SentFetch {
    pub(crate) to: BrokerId,
    pub(crate) broker_epoch: BrokerEpoch,
    pub(crate) fetch: FollowerFetch,
}

pub(crate) struct Broker {
    pub(crate) id: BrokerId,
    pub(crate) log: Vec<Entry>,
    pub(crate) durable: usize,
    epochs: EpochCache,
    /// `None`: the process is down.
    pub(crate) process: Option<Process>,
}

pub(crate) struct Process {
    pub(crate) state: PartitionState,
    /// Under which registration it acts.
    pub(crate) epoch: BrokerEpoch,
    pub(crate) image: Option<Image>,
    /// How many of the controller's images it has seen.
    pub(crate) seen: usize,
    pub(crate) fetches: VecDeque<SentFetch>,
}

struct Lookup<'a>(&'a EpochCache, Offset);

impl EpochLookup for Lookup<'_> {
    fn end_offset_for_epoch(&self, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        self.0.end_offset(epoch, self.1)
    }
}

impl Broker {
    pub(crate) fn new(id: i32) -> Self {
        Self {
            id: BrokerId(id),
            log: Vec::new(),
            durable: 0,
            epochs: EpochCache::default(),
            process: None,
        }
    }

    pub(crate) fn end(&self) -> Offset {
        Offset(self.log.len() as i64)
    }

    pub(crate) fn view(&self) -> LogView {
        LogView {
            start: Offset::ZERO,
            end: self.end(),
            durable: Offset(self.durable as i64),
        }
    }

    fn position(&self) -> Position {
        Position {
            last_epoch: self.log.last().map(|(epoch, _)| *epoch),
            log_end: self.end(),
            durable: Offset(self.durable as i64),
            log_start: Offset::ZERO,
        }
    }

    /// The process starts under a registration, with what its disk has.
    pub(crate) fn start(&mut self, epoch: BrokerEpoch, seen: usize) {
        self.epochs = EpochCache::default();
        for (at, (epoch, _)) in self.log.iter().enumerate() {
            self.epochs.assign(*epoch, Offset(at as i64));
        }
        self.process = Some(Process {
            state: PartitionState::new(self.id, LAG_MAX, self.view(), None),
            epoch,
            image: None,
            seen,
            fetches: VecDeque::new(),
        });
    }

    /// The process ends; without power, so does what was not durable.
    pub(crate) fn crash(&mut self, power: bool) {
        self.process = None;
        if power {
            self.log.truncate(self.durable);
        }
    }

    /// Runs one event of the live process, if there is one and it knows the cluster.
    pub(crate) fn event(
        &mut self,
        now: Now,
        event: impl FnOnce(&mut PartitionState, &dyn EpochLookup, &Facts<'_>) -> Effects,
    ) -> Option<AlterIsr> {
        let log = self.view();
        let lookup = Lookup(&self.epochs, log.end);
        let process = self.process.as_mut()?;
        let image = process.image.as_ref()?;
        let facts = Facts {
            log,
            brokers: image,
            now,
        };
        event(&mut process.state, &lookup, &facts).propose_isr
    }

    /// Takes an image in which this process is registered.
    pub(crate) fn learn(&mut self, image: Image, now: Now) -> Option<AlterIsr> {
        let process = self.process.as_mut()?;
        if image.epoch(self.id) != Some(process.epoch) {
            return None;
        }
        let record = Arc::clone(&image.record);
        process.image = Some(image);
        let min_isr = crate::world::min_isr();
        let epoch = process.epoch;
        let mut became = Transition::Stale;
        let propose = self.event(now, |state, _, facts| {
            let assignment = Assignment {
                registration: &record,
                my_epoch: epoch,
                may_lead: true,
                min_isr,
            };
            let (transition, effects) = state.apply_registration(&assignment, facts);
            became = transition;
            effects
        });
        match became {
            Transition::BecameLeader { epoch, start } => {
                self.epochs.assign(epoch, start);
            }
            Transition::BecameFollower { .. } => {
                let end = self.end();
                self.epochs.truncate_from_end(end);
            }
            Transition::Updated | Transition::Stale | Transition::Failed => {}
        }
        propose
    }

    /// Sends a fetch from where the log is now.
    pub(crate) fn send_fetch(&mut self) {
        let position = self.position();
        if let Some(process) = &mut self.process
            && let Some((to, leader_epoch)) = process.state.following()
        {
            process.fetches.push_back(SentFetch {
                to,
                broker_epoch: process.epoch,
                fetch: FollowerFetch {
                    leader_epoch,
                    position,
                },
            });
        }
    }

    pub(crate) fn append(&mut self, value: u64, now: Now) {
        let Some(process) = &self.process else { return };
        if let Ok(epoch) = process.state.check_append(None) {
            self.push((epoch, value));
            self.event(now, |state, _, facts| state.on_log_progress(facts));
        }
    }

    fn push(&mut self, entry: Entry) {
        self.epochs.assign(entry.0, self.end());
        self.log.push(entry);
    }

    pub(crate) fn flush(&mut self, now: Now) {
        if self.process.is_some() {
            self.durable = self.log.len();
            self.event(now, |state, _, facts| state.on_log_progress(facts));
        }
    }

    /// Takes the leader's answer: the same rules as `Partition::append_replicated` and
    /// `Partition::truncate_for`.
    pub(crate) fn answered(
        &mut self,
        epoch: LeaderEpoch,
        verdict: FetchVerdict,
        data: &[Entry],
        high_watermark: Offset,
        now: Now,
    ) {
        let Some(process) = &mut self.process else { return };
        if process.state.check_follows(epoch).is_err() {
            return;
        }
        match verdict {
            FetchVerdict::Continue { next } => {
                if next != self.end() {
                    return;
                }
                for entry in data {
                    self.push(*entry);
                }
                self.event(now, |state, _, facts| {
                    state.on_leader_high_watermark(high_watermark, facts)
                });
            }
            FetchVerdict::Diverged { epoch, end_offset } => {
                let own_end = epoch
                    .and_then(|epoch| self.epochs.end_offset(epoch, self.end()))
                    .map_or(Offset::ZERO, |(_, end)| end);
                let target = self.end().min(end_offset).min(own_end);
                self.log.truncate(target.0 as usize);
                self.durable = self.durable.min(self.log.len());
                self.epochs.truncate_from_end(target);
                let view = self.view();
                if let Some(process) = &mut self.process {
                    process.state.on_truncated(view);
                }
            }
        }
    }
}
