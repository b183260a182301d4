//! Who is in sync: joining, leaving, and proposals whose outcome is not known.

use std::time::Duration;

use protocol::{BrokerEpoch, ErrorCode, LeaderEpoch, Offset, PartitionEpoch};

use super::{ME, Replica, THREE, TWO, epoch_of, record};
use crate::state::IsrState;
use crate::{AlterIsr, FetchRefused, IsrError};

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
