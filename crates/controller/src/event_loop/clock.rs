//! The time by which sessions are judged.

use std::time::Duration;

use tokio::time::Instant;

use crate::decisions::Now;

/// Counts the time in which the event loop listened. A loop that stood still (a stopped process, a sleeping
/// machine) has not listened either: what it missed does not count against the brokers.
pub(super) struct Clock {
    read_at: Instant,
    millis: f64,
}

impl Clock {
    /// The most that passes between two readings. The loop looks around more often than that.
    const STEP: Duration = Duration::from_millis(500);

    /// Begins at zero.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            read_at: now,
            millis: 0.0,
        }
    }

    /// The time at `now`; it never goes back.
    pub(super) fn read(&mut self, now: Instant) -> Now {
        let passed = now.saturating_duration_since(self.read_at).min(Self::STEP);
        self.read_at = now;
        self.millis += passed.as_secs_f64() * 1000.0;
        Now(self.millis as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_that_nobody_listened_in_does_not_count() {
        let start = Instant::now();
        let mut clock = Clock::new(start);
        assert_eq!(clock.read(start + Duration::from_millis(200)), Now(200));
        assert_eq!(clock.read(start + Duration::from_secs(3600)), Now(700));
        assert_eq!(clock.read(start), Now(700), "it never goes back");
    }
}
