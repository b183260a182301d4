//! What is due when: sessions, rebalances, the search for what expired.

use std::collections::{BTreeMap, HashMap};

use super::ids::{GroupId, MemberId};

/// What a timer is for. There is at most one for each.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum TimerKey {
    /// A member (or a pending one) has been silent for its session timeout.
    Session(GroupId, MemberId),
    /// The members of a rebalancing group have had their time to join.
    Join(GroupId),
    /// The members of a new generation have had their time to sync.
    Sync(GroupId),
    /// A member of a consumer group has had its time to give partitions up.
    Revocation(GroupId, MemberId),
    /// A classic member of a consumer group has had its time to join again.
    MemberJoin(GroupId, MemberId),
    /// A classic member of a consumer group has had its time to sync.
    MemberSync(GroupId, MemberId),
    /// Whoever was given this id by a consumer group has had its time to join with it. While the timer is set,
    /// the id is known to be new, and not a removed member's.
    HandedOut(GroupId, MemberId),
    /// It is time to look for expired offsets.
    Expiry,
}

/// Deadlines, the earliest first; equal ones in the order in which they were set.
#[derive(Debug, Default)]
pub(super) struct Timers {
    queue: BTreeMap<(u64, u64), TimerKey>,
    places: HashMap<TimerKey, (u64, u64)>,
    set: u64,
}

impl Timers {
    /// Sets a timer, in place of the one that there may be for the same.
    pub(super) fn schedule(&mut self, key: TimerKey, at_ms: u64) {
        let place = (at_ms, self.set);
        self.set += 1;
        if let Some(old) = self.places.insert(key.clone(), place) {
            self.queue.remove(&old);
        }
        self.queue.insert(place, key);
    }

    /// Whether a timer is set.
    pub(super) fn is_set(&self, key: &TimerKey) -> bool {
        self.places.contains_key(key)
    }

    /// Takes a timer back.
    pub(super) fn cancel(&mut self, key: &TimerKey) {
        if let Some(place) = self.places.remove(key) {
            self.queue.remove(&place);
        }
    }

    /// When the next one is due.
    pub(super) fn next(&self) -> Option<u64> {
        self.queue.first_key_value().map(|((at_ms, _), _)| *at_ms)
    }

    /// Takes out one that is due.
    pub(super) fn pop_due(&mut self, now_ms: u64) -> Option<TimerKey> {
        let first = self.queue.first_entry()?;
        if first.key().0 > now_ms {
            return None;
        }
        let key = first.remove();
        self.places.remove(&key);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_come_due_in_order_and_once() {
        let mut timers = Timers::default();
        let session = |name: &str| TimerKey::Session("g".into(), name.into());
        timers.schedule(session("late"), 30);
        timers.schedule(session("moved"), 10);
        timers.schedule(session("cancelled"), 10);
        timers.schedule(session("first"), 20);
        timers.schedule(session("second"), 20);
        timers.schedule(session("moved"), 25);
        timers.cancel(&session("cancelled"));
        timers.cancel(&session("never set"));
        assert!(timers.is_set(&session("moved")) && !timers.is_set(&session("cancelled")));
        assert_eq!(timers.next(), Some(20));
        assert_eq!(timers.pop_due(19), None);
        let due: Vec<_> = std::iter::from_fn(|| timers.pop_due(29)).collect();
        assert_eq!(due, [session("first"), session("second"), session("moved")]);
        assert_eq!(timers.next(), Some(30));
        assert_eq!(timers.pop_due(30), Some(session("late")));
        assert_eq!((timers.next(), timers.pop_due(u64::MAX)), (None, None));
    }
}
