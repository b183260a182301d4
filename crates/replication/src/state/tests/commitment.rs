//! What is committed: the high watermark of a leader, and of a follower.

use protocol::{BrokerEpoch, DirectoryId, LeaderEpoch, Offset};

use super::{Cluster, LAG_MAX, ME, Replica, THREE, TWO, epoch_of, log, record};
use crate::state::{Assignment, Facts, PartitionState};
use crate::{Now, ReadRefused, RoleError};

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
fn falling_below_min_isr_is_told_once() {
    let mut replica = Replica::leading(10, &[1, 2]);
    let (_, effects) = replica.apply(&record(Some(ME), 5, 8, &[1]));
    assert!(effects.fell_under_min_isr);
    let (_, effects) = replica.apply(&record(Some(ME), 5, 9, &[1]));
    assert!(!effects.fell_under_min_isr);
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
