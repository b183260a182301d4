//! Which records of the metadata make a leader or a follower, and which do not.

use protocol::{LeaderEpoch, Offset};

use super::{Cluster, LAG_MAX, ME, Replica, TWO, epoch_of, log, record};
use crate::state::{Assignment, Facts, PartitionState, Role, Transition};
use crate::{Now, RoleError};

#[test]
fn older_records_are_stale() {
    let mut replica = Replica::leading(10, &[1, 2]);
    let older = record(Some(TWO), 4, 6, &[1, 2]);
    assert_eq!(replica.apply(&older).0, Transition::Stale);
    assert!(replica.state.leader().is_ok());
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
