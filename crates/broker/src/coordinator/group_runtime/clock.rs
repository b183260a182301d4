//! The two clocks of a shard.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::coordinator::group::Now;

/// Counts from one fixed moment, and can be stopped: while nothing can be written, members are told to come
/// again, and that time must not count against them. A copy goes on by itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    /// When it showed zero, or would have, had it never been stopped.
    began: Instant,
    stopped: Option<Instant>,
}

impl Clock {
    /// A clock whose monotonic time begins now.
    pub(super) fn start() -> Self {
        Self {
            began: Instant::now(),
            stopped: None,
        }
    }

    /// Stops its monotonic time; nothing where that is stopped already.
    pub(super) fn stop(&mut self) {
        self.stopped.get_or_insert_with(Instant::now);
    }

    /// Lets it go on from where it was stopped.
    pub(super) fn go_on(&mut self) {
        if let Some(stopped) = self.stopped.take() {
            self.began += stopped.elapsed();
        }
    }

    /// The time.
    pub(super) fn now(self) -> Now {
        let moment = self.stopped.unwrap_or_else(Instant::now);
        let shows = moment.saturating_duration_since(self.began);
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now {
            instant_ms: u64::try_from(shows.as_millis()).unwrap_or(u64::MAX),
            wall_ms: i64::try_from(wall.as_millis()).unwrap_or(i64::MAX),
        }
    }

    /// When the monotonic clock will show `instant_ms`, if it is not stopped before; a moment beyond all plans
    /// for one beyond its range.
    pub(super) fn at(self, instant_ms: u64) -> Instant {
        /// A year: nothing waits that long without being looked at again.
        const FAR: Duration = Duration::from_secs(365 * 24 * 3600);
        self.began
            .checked_add(Duration::from_millis(instant_ms))
            .unwrap_or_else(|| Instant::now() + FAR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stopped_clock_shows_one_time_and_goes_on_from_there() {
        let mut clock = Clock::start();
        let shows = |clock: Clock| clock.now().instant_ms;
        tokio::time::advance(Duration::from_millis(100)).await;
        assert_eq!(shows(clock), 100);
        clock.stop();
        tokio::time::advance(Duration::from_secs(1)).await;
        clock.stop();
        assert_eq!(shows(clock), 100);
        clock.go_on();
        assert_eq!(shows(clock), 100);
        tokio::time::advance(Duration::from_millis(10)).await;
        clock.go_on();
        assert_eq!(shows(clock), 110);
        assert_eq!(clock.at(120), Instant::now() + Duration::from_millis(10));
    }
}
