//! The two clocks of a shard.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::coordinator::group::Now;

/// Counts from one fixed moment. A copy is the same clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    began: Instant,
}

impl Clock {
    /// A clock whose monotonic time begins now.
    pub(super) fn start() -> Self {
        Self {
            began: Instant::now(),
        }
    }

    /// The time.
    pub(super) fn now(self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now {
            instant_ms: u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX),
            wall_ms: i64::try_from(wall.as_millis()).unwrap_or(i64::MAX),
        }
    }

    /// When the monotonic clock will show `instant_ms`; a moment beyond all plans for one beyond its range.
    pub(super) fn at(self, instant_ms: u64) -> Instant {
        /// A year: nothing waits that long without being looked at again.
        const FAR: Duration = Duration::from_secs(365 * 24 * 3600);
        self.began
            .checked_add(Duration::from_millis(instant_ms))
            .unwrap_or_else(|| Instant::now() + FAR)
    }
}
