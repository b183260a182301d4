//! The rules of a leader's life, one test a rule.

use std::collections::BTreeMap;
use std::time::Duration;

use metadata::PartitionRegistration;
use protocol::{BrokerEpoch, BrokerId, DirectoryId, ErrorCode, LeaderEpoch, Offset, PartitionEpoch};

use super::{
    Assignment, Brokers, Effects, EpochLookup, Facts, IsrState, LogView, PartitionState, Role, Transition,
};
use crate::{
    AlterIsr, AlteredPartition, FetchRefused, FetchVerdict, FollowerFetch, IsrError, Now, Position,
    ReadRefused, RoleError,
};

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

#[test]
fn a_sole_replica_commits_what_is_durable() {
    let view = log(3, 3);
    let mut state = PartitionState::new(ME, LAG_MAX, view, None);
    let cluster = Cluster::default();
    let mut alone = record(Some(ME), 0, 0, &[1]);
    alone.replicas = vec![ME];
    alone.directories = vec![DirectoryId::ZERO];
    let assignment = Assignment {
        registration: &alone,
        my_epoch: epoch_of(ME),
        may_lead: true,
        min_isr: 2,
    };
    let facts = |log| Facts {
        log,
        brokers: &cluster,
        now: Now(0),
    };
    let (_, effects) = state.apply_registration(&assignment, &facts(view));
    assert_eq!(effects.high_watermark, Some(Offset(3)));
    assert_eq!(state.on_log_progress(&facts(log(9, 3))).high_watermark, None);
    assert_eq!(
        state.on_log_progress(&facts(log(9, 9))).high_watermark,
        Some(Offset(9))
    );
}

#[test]
fn the_high_watermark_is_what_every_member_has_durable() {
    let mut replica = Replica::leading(10, &[1, 2, 3]);
    replica.appended(20, 20);
    assert_eq!(
        replica.ack(TWO, 20).high_watermark,
        None,
        "broker 3 has said nothing in this epoch"
    );
    assert_eq!(replica.ack(THREE, 15).high_watermark, Some(Offset(15)));
    let (_, effects) = replica
        .fetch_in(THREE, epoch_of(THREE), 5, Some(5), 20, 17)
        .unwrap();
    assert_eq!(effects.high_watermark, Some(Offset(17)), "written is not durable");
    assert_eq!(replica.ack(THREE, 20).high_watermark, Some(Offset(20)));
    replica.appended(25, 20);
    replica.ack(TWO, 25);
    assert_eq!(
        replica.ack(THREE, 25).high_watermark,
        None,
        "not durable at the leader"
    );
    assert_eq!(replica.appended(25, 25).high_watermark, Some(Offset(25)));
}

#[test]
fn a_lower_acknowledgement_never_moves_the_high_watermark_back() {
    let mut replica = Replica::leading(10, &[1, 2]);
    replica.ack(TWO, 10);
    assert_eq!(replica.state.high_watermark(), Offset(10));
    replica.ack(TWO, 4);
    assert_eq!(replica.state.high_watermark(), Offset(10));
}

#[test]
fn below_min_isr_the_high_watermark_stands_still() {
    let mut replica = Replica::leading(10, &[1]);
    assert!(replica.state.is_under_min_isr());
    assert_eq!(replica.appended(20, 20).high_watermark, None);
    assert_eq!(replica.state.high_watermark(), Offset(0));
}

#[test]
fn a_new_leader_does_not_name_an_end_before_its_epoch_is_committed() {
    let mut replica = Replica::leading(10, &[1, 2]);
    assert_eq!(
        replica.state.settled_high_watermark(None),
        Err(ReadRefused::NotAvailable)
    );
    replica.ack(TWO, 10);
    assert_eq!(replica.state.settled_high_watermark(None), Ok(Offset(10)));
}

#[test]
fn a_follower_joins_when_durable_at_high_watermark_and_epoch_start() {
    let mut replica = Replica::leading(10, &[1, 2]);
    assert_eq!(
        replica.ack(THREE, 9).propose_isr,
        None,
        "at the high watermark 0 but not at the epoch's start"
    );
    replica.ack(TWO, 10);
    let (_, effects) = replica
        .fetch_in(THREE, epoch_of(THREE), 5, Some(4), 10, 9)
        .unwrap();
    assert_eq!(effects.propose_isr, None, "the last record is not durable");
    let change = replica.ack(THREE, 10).propose_isr.unwrap();
    assert_eq!(
        change,
        AlterIsr {
            new_isr: vec![(ME, epoch_of(ME)), (TWO, epoch_of(TWO)), (THREE, epoch_of(THREE))],
            leader_epoch: LeaderEpoch(5),
            partition_epoch: PartitionEpoch(7),
        }
    );
    assert_eq!(replica.ack(THREE, 10).propose_isr, None, "one proposal at a time");

    // From the proposal on the joining follower counts.
    replica.appended(20, 20);
    assert_eq!(replica.ack(TWO, 20).high_watermark, None);
    replica.decide(&change, Ok(Replica::accepted(&change)));
    assert_eq!(replica.ack(THREE, 20).high_watermark, Some(Offset(20)));
}

#[test]
fn fenced_and_stale_brokers_do_not_join() {
    let mut replica = Replica::leading(10, &[1, 2]);
    replica.ack(TWO, 10);
    replica.cluster.fenced.push(THREE);
    assert_eq!(replica.ack(THREE, 10).propose_isr, None);
    replica.cluster.fenced.clear();
    replica.cluster.epochs.insert(THREE, BrokerEpoch(99));
    assert_eq!(
        replica.fetch_in(THREE, epoch_of(THREE), 5, Some(4), 10, 10),
        Err(FetchRefused::StaleBrokerEpoch {
            asked: epoch_of(THREE),
            current: BrokerEpoch(99)
        })
    );
    // An epoch that the metadata does not show yet is heard, but does not join before it is shown.
    let (_, effects) = replica
        .fetch_in(THREE, BrokerEpoch(120), 5, Some(4), 10, 10)
        .unwrap();
    assert_eq!(effects.propose_isr, None);
}

#[test]
fn an_acknowledgement_of_an_earlier_incarnation_does_not_count() {
    let mut replica = Replica::leading(10, &[1, 2]);
    replica.ack(TWO, 10);
    replica.appended(20, 10);
    replica.ack(TWO, 20);
    replica.cluster.epochs.insert(TWO, BrokerEpoch(99));
    assert_eq!(replica.appended(20, 20).high_watermark, None);
    let (_, effects) = replica
        .fetch_in(TWO, BrokerEpoch(99), 5, Some(5), 20, 20)
        .unwrap();
    assert_eq!(effects.high_watermark, Some(Offset(20)));
}

#[test]
fn a_member_that_lags_leaves_and_counts_until_the_controller_agrees() {
    let mut replica = Replica::leading(10, &[1, 2, 3]);
    replica.ack(TWO, 10);
    replica.ack(THREE, 10);
    replica.appended(20, 20);
    let change = replica
        .pass(Duration::from_secs(40), &[TWO])
        .propose_isr
        .expect("broker 3 has been silent for more than lag_max");
    assert_eq!(change.new_isr, vec![(ME, epoch_of(ME)), (TWO, epoch_of(TWO))]);
    assert_eq!(replica.state.high_watermark(), Offset(10), "still a member");
    let effects = replica.decide(&change, Ok(Replica::accepted(&change)));
    assert_eq!(effects.high_watermark, Some(Offset(20)));
}

#[test]
fn a_member_that_fetches_at_the_end_stays_and_a_silent_one_does_not() {
    let mut replica = Replica::leading(10, &[1, 2, 3]);
    let change = replica.pass(Duration::from_secs(40), &[TWO]).propose_isr.unwrap();
    assert_eq!(change.new_isr, vec![(ME, epoch_of(ME)), (TWO, epoch_of(TWO))]);
}

#[test]
fn a_member_one_round_trip_behind_a_busy_leader_keeps_up() {
    let mut replica = Replica::leading(10, &[1, 2]);
    replica.ack(TWO, 10);
    let mut end = 10;
    for _ in 0..200 {
        // Each acknowledgement is for what the leader had two appends ago.
        replica.now = replica.now.after(Duration::from_millis(250));
        end += 10;
        replica.appended(end, end);
        replica.ack(TWO, end - 15);
        assert_eq!(replica.tick().propose_isr, None);
    }
}

#[test]
fn a_leader_that_stood_still_does_not_blame_its_followers() {
    let mut replica = Replica::leading(10, &[1, 2, 3]);
    replica.ack(TWO, 10);
    replica.ack(THREE, 10);
    replica.tick();
    replica.now = replica.now.after(Duration::from_secs(60));
    assert_eq!(replica.tick().propose_isr, None);
}

#[test]
fn an_unknown_outcome_keeps_the_maximal_set_and_asks_the_same_again() {
    let mut replica = Replica::leading(10, &[1, 2]);
    replica.ack(TWO, 10);
    let change = replica.ack(THREE, 10).propose_isr.unwrap();
    replica.decide(&change, Err(IsrError::Unknown));
    replica.now = replica.now.after(Duration::from_secs(1));
    assert_eq!(replica.tick().propose_isr.as_ref(), Some(&change));
    // The first attempt may have been made, whatever the second is told.
    replica.decide(&change, Err(IsrError::Refused(ErrorCode::IneligibleReplica)));
    replica.appended(20, 20);
    assert_eq!(
        replica.ack(TWO, 20).high_watermark,
        None,
        "broker 3 may be in the ISR"
    );
    // The record tells.
    let (_, effects) = replica.apply(&record(Some(ME), 5, 9, &[1, 2]));
    assert_eq!(effects.high_watermark, Some(Offset(20)));
}

#[test]
fn a_refused_change_is_given_up_where_nothing_else_is_under_way() {
    let mut replica = Replica::leading(10, &[1, 2]);
    replica.ack(TWO, 10);
    let change = replica.ack(THREE, 10).propose_isr.unwrap();
    replica.decide(&change, Err(IsrError::Refused(ErrorCode::IneligibleReplica)));
    assert!(matches!(
        replica.state.leader().unwrap().isr(),
        IsrState::Committed { .. }
    ));
}

#[test]
fn a_stale_compare_and_set_waits_for_the_metadata() {
    let mut replica = Replica::leading(10, &[1, 2]);
    replica.ack(TWO, 10);
    let change = replica.ack(THREE, 10).propose_isr.unwrap();
    replica.decide(&change, Err(IsrError::Refused(ErrorCode::InvalidUpdateVersion)));
    assert!(replica.state.leader().unwrap().isr().is_pending());
    replica.apply(&record(Some(ME), 5, 8, &[1, 2, 3]));
    assert_eq!(
        replica.state.leader().unwrap().isr().committed(),
        [ME, TWO, THREE]
    );
}

#[test]
fn falling_below_min_isr_is_told_once() {
    let mut replica = Replica::leading(10, &[1, 2]);
    let (_, effects) = replica.apply(&record(Some(ME), 5, 8, &[1]));
    assert!(effects.fell_under_min_isr);
    let (_, effects) = replica.apply(&record(Some(ME), 5, 9, &[1]));
    assert!(!effects.fell_under_min_isr);
}

#[test]
fn older_records_are_stale() {
    let mut replica = Replica::leading(10, &[1, 2]);
    let older = record(Some(TWO), 4, 6, &[1, 2]);
    assert_eq!(replica.apply(&older).0, Transition::Stale);
    assert!(replica.state.leader().is_ok());
}

#[test]
fn fetches_of_another_epoch_are_refused() {
    let mut replica = Replica::leading(10, &[1, 2]);
    assert!(matches!(
        replica.fetch_in(TWO, epoch_of(TWO), 4, Some(4), 10, 10),
        Err(FetchRefused::Role(RoleError::Fenced { .. }))
    ));
    assert!(matches!(
        replica.fetch_in(TWO, epoch_of(TWO), 6, Some(4), 10, 10),
        Err(FetchRefused::Role(RoleError::UnknownEpoch { .. }))
    ));
    assert!(matches!(
        replica.fetch_in(BrokerId(8), BrokerEpoch(80), 5, Some(4), 10, 10),
        Err(FetchRefused::NotReplica(_))
    ));
}

#[test]
fn a_diverged_log_is_told_where_and_acknowledges_nothing() {
    let mut replica = Replica::leading(10, &[1, 2]);
    let (verdict, effects) = replica.fetch_in(TWO, epoch_of(TWO), 5, Some(4), 14, 14).unwrap();
    assert_eq!(
        verdict,
        FetchVerdict::Diverged {
            epoch: Some(LeaderEpoch(4)),
            end_offset: Offset(10)
        }
    );
    assert_eq!(effects, Effects::default());
    let (verdict, _) = replica.fetch_in(TWO, epoch_of(TWO), 5, Some(3), 8, 8).unwrap();
    assert_eq!(
        verdict,
        FetchVerdict::Diverged {
            epoch: None,
            end_offset: Offset(0)
        }
    );
    assert_eq!(
        replica.state.leader().unwrap().follower(TWO).unwrap().durable(),
        None
    );
}

#[test]
fn a_log_that_ends_before_the_leaders_start_begins_anew() {
    let mut replica = Replica::leading(10, &[1, 2]);
    replica.log.start = Offset(6);
    replica.state.on_log_start(Offset(6));
    assert_eq!(
        replica.fetch_in(TWO, epoch_of(TWO), 5, None, 0, 0),
        Err(FetchRefused::OutOfRange {
            log_end: Offset(0),
            log_start: Offset(6)
        })
    );
}

#[test]
fn a_follower_takes_the_leaders_high_watermark_as_far_as_it_has_the_records() {
    let view = log(10, 10);
    let cluster = Cluster::default();
    let facts = |log| Facts {
        log,
        brokers: &cluster,
        now: Now(0),
    };
    let mut state = PartitionState::new(ME, LAG_MAX, view, None);
    let following = record(Some(TWO), 5, 7, &[1, 2]);
    let assignment = Assignment {
        registration: &following,
        my_epoch: epoch_of(ME),
        may_lead: true,
        min_isr: 2,
    };
    state.apply_registration(&assignment, &facts(view));
    assert_eq!(state.following(), Some((TWO, LeaderEpoch(5))));
    let effects = state.on_leader_high_watermark(Offset(15), &facts(view));
    assert_eq!(effects.high_watermark, Some(Offset(10)));
    let effects = state.on_log_progress(&facts(log(20, 10)));
    assert_eq!(effects.high_watermark, Some(Offset(15)));
    assert_eq!(
        state.check_read(Offset(15), None, true, log(20, 20)),
        Ok(Offset(15))
    );
    assert_eq!(
        state.check_read(Offset(16), None, true, log(20, 20)),
        Err(ReadRefused::NotAvailable),
        "never out of range: the leader may have it"
    );
    assert_eq!(
        state.check_read(Offset(1), None, false, log(20, 20)),
        Err(RoleError::NotLeader.into())
    );
}

#[test]
fn no_process_resumes_an_epoch_it_did_not_start() {
    let view = log(10, 10);
    let cluster = Cluster::default();
    let facts = Facts {
        log: view,
        brokers: &cluster,
        now: Now(0),
    };
    let mut state = PartitionState::new(ME, LAG_MAX, view, None);
    let leading = record(Some(ME), 5, 7, &[1, 2]);
    let before = Assignment {
        registration: &leading,
        my_epoch: epoch_of(ME),
        may_lead: false,
        min_isr: 2,
    };
    let (transition, _) = state.apply_registration(&before, &facts);
    assert_eq!(
        transition,
        Transition::BecameFollower {
            leader: None,
            epoch: LeaderEpoch(5)
        }
    );
}

#[test]
fn a_resigned_leader_refuses_until_the_metadata_says_it_leads() {
    let mut replica = Replica::leading(10, &[1, 2]);
    replica.ack(TWO, 10);
    assert!(replica.state.resign());
    assert_eq!(replica.state.check_append(None), Err(RoleError::NotLeader));
    let (transition, _) = replica.apply(&record(Some(ME), 5, 7, &[1, 2]));
    assert!(matches!(transition, Transition::BecameLeader { .. }));
    assert_eq!(replica.state.high_watermark(), Offset(10));
    replica.state.resign();
    let (transition, _) = replica.apply(&record(Some(TWO), 6, 8, &[2]));
    assert!(matches!(
        transition,
        Transition::BecameFollower {
            leader: Some(TWO),
            ..
        }
    ));
    assert!(matches!(replica.state.role(), Role::Follower(_)));
}
