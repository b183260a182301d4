//! What a leader answers to a follower's position.

use protocol::{BrokerEpoch, BrokerId, LeaderEpoch, Offset};

use super::{Replica, TWO, epoch_of};
use crate::state::Effects;
use crate::{FetchRefused, FetchVerdict, RoleError};

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
