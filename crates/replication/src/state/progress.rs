//! How far one follower has come in this leader epoch.

use std::time::Duration;

use protocol::{BrokerEpoch, Offset};

use crate::Now;

/// A log end of the leader's and when it was that: the follower was caught up at `at` once it has
/// reached `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    at: Now,
    end: Offset,
}

/// What a leader knows of a follower. Begins anew with each leader epoch and each broker epoch:
/// earlier acknowledgements are not evidence about this history and this disk.
///
/// Acknowledgements arrive in a stream, many within one round trip, so none of them may have reached
/// the log end of the one before. A mark is therefore kept until it is reached, not replaced by each
/// message: lag is measured to within one round trip, however dense the acknowledgements are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FollowerProgress {
    broker_epoch: Option<BrokerEpoch>,
    durable: Option<Offset>,
    log_end: Option<Offset>,
    mark: Mark,
    caught_up_at: Option<Now>,
}

impl FollowerProgress {
    /// A follower that has said nothing yet, while the leader's log ends at `end`. An in-sync one
    /// counts as caught up until it has had its time.
    pub(super) fn unheard(in_sync: bool, end: Offset, now: Now) -> Self {
        Self {
            broker_epoch: None,
            durable: None,
            log_end: None,
            mark: Mark { at: now, end },
            caught_up_at: in_sync.then_some(now),
        }
    }

    /// Takes an acknowledgement: everything below `durable` of the leader's own history is durable at
    /// the follower, whose log ends at `log_end`.
    pub(super) fn acknowledged(
        &mut self,
        broker_epoch: BrokerEpoch,
        durable: Offset,
        log_end: Offset,
        leader_end: Offset,
        now: Now,
    ) {
        if self.broker_epoch != Some(broker_epoch) {
            let in_sync = self.broker_epoch.is_none() && self.caught_up_at.is_some();
            let caught_up_at = self.caught_up_at;
            *self = Self::unheard(in_sync, leader_end, now);
            self.broker_epoch = Some(broker_epoch);
            self.caught_up_at = if in_sync { caught_up_at } else { None };
        }
        // A follower that lost its tail says so by a lower offset: what it no longer has does not count.
        self.durable = Some(durable);
        self.log_end = Some(log_end);
        let here = Mark {
            at: now,
            end: leader_end,
        };
        if durable >= leader_end {
            self.caught_up_at = Some(now);
            self.mark = here;
        } else if durable >= self.mark.end {
            self.caught_up_at = self.caught_up_at.max(Some(self.mark.at));
            self.mark = here;
        }
    }

    /// Counts the follower as caught up now: it joins, or the leader itself was not running.
    pub(super) fn excuse(&mut self, now: Now) {
        self.caught_up_at = self.caught_up_at.max(Some(now));
    }

    /// Whether the follower was caught up within the last `lag_max`.
    pub(super) fn keeps_up(&self, now: Now, lag_max: Duration) -> bool {
        self.caught_up_at.is_some_and(|at| now.since(at) <= lag_max)
    }

    /// The broker epoch of its fetches.
    pub fn broker_epoch(&self) -> Option<BrokerEpoch> {
        self.broker_epoch
    }

    /// Everything below is durable at the follower, as acknowledged in this leader epoch.
    pub fn durable(&self) -> Option<Offset> {
        self.durable
    }

    /// The follower's log end, as acknowledged in this leader epoch.
    pub fn log_end(&self) -> Option<Offset> {
        self.log_end
    }
}
