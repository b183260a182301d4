//! The rules of a replica's life, one test a rule, by subject; here a replica and the world around it.

mod commitment;
mod fetching;
mod membership;
mod roles;

use std::collections::BTreeMap;
use std::time::Duration;

use metadata::PartitionRegistration;
use protocol::{BrokerEpoch, BrokerId, DirectoryId, LeaderEpoch, Offset, PartitionEpoch};

use super::{Assignment, Brokers, Effects, EpochLookup, Facts, LogView, PartitionState, Transition};
use crate::{AlterIsr, AlteredPartition, FetchRefused, FetchVerdict, FollowerFetch, IsrError, Now, Position};

const ME: BrokerId = BrokerId(1);
const TWO: BrokerId = BrokerId(2);
const THREE: BrokerId = BrokerId(3);
const LAG_MAX: Duration = Duration::from_secs(30);

/// Broker `n` is registered with epoch `10 * n`; those in `fenced` are not eligible.
#[derive(Default)]
struct Cluster {
    fenced: Vec<BrokerId>,
    epochs: BTreeMap<BrokerId, BrokerEpoch>,
}

fn epoch_of(broker: BrokerId) -> BrokerEpoch {
    BrokerEpoch(i64::from(broker.0) * 10)
}

impl Brokers for Cluster {
    fn epoch(&self, broker: BrokerId) -> Option<BrokerEpoch> {
        Some(
            self.epochs
                .get(&broker)
                .copied()
                .unwrap_or_else(|| epoch_of(broker)),
        )
    }

    fn is_eligible(&self, broker: BrokerId) -> bool {
        !self.fenced.contains(&broker)
    }
}

/// Ends of epochs, ascending: (epoch, end offset).
struct Epochs(Vec<(i32, i64)>);

impl EpochLookup for Epochs {
    fn end_offset_for_epoch(&self, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        self.0
            .iter()
            .rev()
            .find(|(e, _)| *e <= epoch.0)
            .map(|(e, end)| (LeaderEpoch(*e), Offset(*end)))
    }
}

fn record(
    leader: Option<BrokerId>,
    leader_epoch: i32,
    partition_epoch: i32,
    isr: &[i32],
) -> PartitionRegistration {
    PartitionRegistration {
        replicas: vec![ME, TWO, THREE],
        directories: vec![DirectoryId::ZERO; 3],
        isr: isr.iter().copied().map(BrokerId).collect(),
        elr: Vec::new(),
        leader,
        leader_epoch: LeaderEpoch(leader_epoch),
        partition_epoch: PartitionEpoch(partition_epoch),
        adding: Vec::new(),
        removing: Vec::new(),
    }
}

fn log(end: i64, durable: i64) -> LogView {
    LogView {
        start: Offset(0),
        end: Offset(end),
        durable: Offset(durable),
    }
}

/// A replica on broker 1 and the world around it.
struct Replica {
    state: PartitionState,
    log: LogView,
    cluster: Cluster,
    epochs: Epochs,
    now: Now,
}

impl Replica {
    fn leading(end: i64, isr: &[i32]) -> Self {
        let log = log(end, end);
        let mut replica = Self {
            state: PartitionState::new(ME, LAG_MAX, log, None),
            log,
            cluster: Cluster::default(),
            epochs: Epochs(vec![(4, end), (5, end)]),
            now: Now(1_000),
        };
        let (transition, _) = replica.apply(&record(Some(ME), 5, 7, isr));
        assert_eq!(
            transition,
            Transition::BecameLeader {
                epoch: LeaderEpoch(5),
                start: Offset(end)
            }
        );
        replica
    }

    fn apply(&mut self, record: &PartitionRegistration) -> (Transition, Effects) {
        let assignment = Assignment {
            registration: record,
            my_epoch: epoch_of(ME),
            may_lead: true,
            min_isr: 2,
        };
        let facts = Facts {
            log: self.log,
            brokers: &self.cluster,
            now: self.now,
        };
        self.state.apply_registration(&assignment, &facts)
    }

    fn appended(&mut self, end: i64, durable: i64) -> Effects {
        self.log = log(end, durable);
        self.epochs = Epochs(vec![(4, self.state.leader().unwrap().start().0), (5, end)]);
        let facts = Facts {
            log: self.log,
            brokers: &self.cluster,
            now: self.now,
        };
        self.state.on_log_progress(&facts)
    }

    fn fetch_in(
        &mut self,
        from: BrokerId,
        broker_epoch: BrokerEpoch,
        leader_epoch: i32,
        last_epoch: Option<i32>,
        end: i64,
        durable: i64,
    ) -> Result<(FetchVerdict, Effects), FetchRefused> {
        let facts = Facts {
            log: self.log,
            brokers: &self.cluster,
            now: self.now,
        };
        let fetch = FollowerFetch {
            leader_epoch: LeaderEpoch(leader_epoch),
            position: Position {
                last_epoch: last_epoch.map(LeaderEpoch),
                log_end: Offset(end),
                durable: Offset(durable),
                log_start: Offset(0),
            },
        };
        self.state
            .on_follower_fetch(from, broker_epoch, &fetch, &self.epochs, &facts)
    }

    /// A fetch with everything right, durable up to `end`.
    fn ack(&mut self, from: BrokerId, end: i64) -> Effects {
        let last = if end <= self.state.leader().unwrap().start().0 {
            4
        } else {
            5
        };
        let (verdict, effects) = self
            .fetch_in(from, epoch_of(from), 5, (end > 0).then_some(last), end, end)
            .unwrap();
        assert_eq!(verdict, FetchVerdict::Continue { next: Offset(end) });
        effects
    }

    fn tick(&mut self) -> Effects {
        let facts = Facts {
            log: self.log,
            brokers: &self.cluster,
            now: self.now,
        };
        self.state.on_tick(&facts)
    }

    fn decide(&mut self, change: &AlterIsr, outcome: Result<AlteredPartition, IsrError>) -> Effects {
        let facts = Facts {
            log: self.log,
            brokers: &self.cluster,
            now: self.now,
        };
        self.state.on_alter_isr_result(change, outcome, &facts)
    }

    /// What the controller answers when it accepts `change`.
    fn accepted(change: &AlterIsr) -> AlteredPartition {
        AlteredPartition {
            leader: Some(ME),
            leader_epoch: change.leader_epoch,
            partition_epoch: change.partition_epoch.next(),
            isr: change.new_isr.iter().map(|(id, _)| *id).collect(),
        }
    }

    /// Time passes in ticks, with the given followers fetching at the log end.
    fn pass(&mut self, span: Duration, heartbeats: &[BrokerId]) -> Effects {
        let until = self.now.after(span);
        let mut last = Effects::default();
        while self.now < until && last.propose_isr.is_none() {
            self.now = self.now.after(Duration::from_millis(500));
            for &id in heartbeats {
                self.ack(id, self.log.end.0);
            }
            last = self.tick();
        }
        last
    }
}
