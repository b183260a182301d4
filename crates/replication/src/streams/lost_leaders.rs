//! Leaders whose streams broke a moment ago: probably dead, and about to be replaced.
//!
//! A follower notices the death of a leader's process before anybody has told it: the connection is
//! reset. For a moment its metadata still names the dead leader; who answers clients from it may want to
//! wait that moment.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use protocol::BrokerId;
use tokio::time::Instant;

/// For so long after the break a leader counts as lost. An election after a crash takes tens of
/// milliseconds; a leader that is merely out of reach keeps its place, and nobody waits for it twice.
pub const LOST_FOR: Duration = Duration::from_millis(300);

/// Who was lost, and when. A clone is a handle to the same notes.
#[derive(Clone, Debug, Default)]
pub struct LostLeaders(Arc<Mutex<HashMap<BrokerId, Instant>>>);

impl LostLeaders {
    /// The moment until which `leader` counts as lost; `None` where it does not (any more).
    pub fn lost_until(&self, leader: BrokerId) -> Option<Instant> {
        let until = *self.0.lock().get(&leader)? + LOST_FOR;
        (until > Instant::now()).then_some(until)
    }

    /// A stream to `leader` that was up broke.
    pub(super) fn lost(&self, leader: BrokerId) {
        self.0.lock().insert(leader, Instant::now());
    }

    /// A stream to `leader` is up.
    pub(super) fn found(&self, leader: BrokerId) {
        self.0.lock().remove(&leader);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_leader_is_lost_for_a_moment_or_until_it_is_found() {
        let lost = LostLeaders::default();
        let (one, two) = (BrokerId(1), BrokerId(2));
        assert_eq!(lost.lost_until(one), None);
        lost.lost(one);
        lost.lost(two);
        assert_eq!(lost.lost_until(one), Some(Instant::now() + LOST_FOR));
        lost.found(two);
        assert_eq!(lost.lost_until(two), None);
        tokio::time::advance(LOST_FOR).await;
        assert_eq!(lost.lost_until(one), None);
    }
}
