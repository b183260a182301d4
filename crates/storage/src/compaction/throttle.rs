//! Bounds the disk rate of work that may wait: of all cleaners together (`log.cleaner.io.max.bytes.per.second`), of
//! all replicas that move (`replica.alter.log.dirs.io.max.bytes.per.second`).

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// A debt of at most this long is kept for later: what a pause has left unused is not made up for.
const BURST: Duration = Duration::from_millis(300);

/// Bytes read and written, paid off at a rate. Shared by all who do the same work.
#[derive(Debug)]
pub struct Throttle {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    bytes_per_second: f64,
    /// When everything taken so far is paid off.
    paid_at: Option<Instant>,
}

impl Throttle {
    /// At most so many bytes a second; infinity for no bound.
    pub fn new(bytes_per_second: f64) -> Self {
        Self {
            state: Mutex::new(State {
                bytes_per_second,
                paid_at: None,
            }),
        }
    }

    /// Another rate from now on. What is owed at the old one is forgiven: at a low rate it may be days.
    pub fn set_rate(&self, bytes_per_second: f64) {
        let mut state = self.state.lock();
        if state.bytes_per_second.total_cmp(&bytes_per_second).is_ne() {
            *state = State {
                bytes_per_second,
                paid_at: None,
            };
        }
    }

    /// How long it takes until everything is paid off: for who waits before the next work, and not after it.
    pub fn owed(&self, now: Instant) -> Duration {
        let paid_at = self.state.lock().paid_at;
        paid_at.map_or(Duration::ZERO, |paid| paid.saturating_duration_since(now))
    }

    /// Notes that `bytes` were read or written; how long to pause before the next.
    pub fn take(&self, bytes: u64, now: Instant) -> Duration {
        let mut state = self.state.lock();
        if !state.bytes_per_second.is_finite() || state.bytes_per_second <= 0.0 {
            state.paid_at = None;
            return Duration::ZERO;
        }
        let cost =
            Duration::try_from_secs_f64(bytes as f64 / state.bytes_per_second).unwrap_or(Duration::MAX);
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        let begin = state.paid_at.map_or(earliest, |paid| paid.max(earliest));
        // A rate so low that the clock ends before the debt is an hour's pause at a time.
        let paid = begin
            .checked_add(cost)
            .unwrap_or_else(|| begin + Duration::from_secs(3600));
        state.paid_at = Some(paid);
        paid.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_paid_off_at_the_rate() {
        let throttle = Throttle::new(1000.0);
        let start = Instant::now();
        assert_eq!(throttle.take(300, start), Duration::ZERO, "a burst is free");
        assert_eq!(throttle.take(500, start), Duration::from_millis(500));
        assert_eq!(
            throttle.take(100, start + Duration::from_millis(500)),
            Duration::from_millis(100)
        );
        // A long pause earns no more than a burst.
        let later = start + Duration::from_secs(100);
        assert_eq!(throttle.take(1300, later), Duration::from_secs(1));
        throttle.set_rate(f64::INFINITY);
        assert_eq!(throttle.take(u64::MAX, later), Duration::ZERO);
        throttle.set_rate(f64::MIN_POSITIVE);
        assert!(throttle.take(u64::MAX, later) > Duration::from_secs(3000));
    }

    #[test]
    fn who_waits_before_the_work_is_told_what_is_owed_and_another_rate_forgives_it() {
        let throttle = Throttle::new(1.0);
        let now = Instant::now();
        assert_eq!(throttle.owed(now), Duration::ZERO);
        throttle.take(1 << 20, now);
        assert!(throttle.owed(now) > Duration::from_secs(1_000_000));
        throttle.set_rate(1.0);
        assert!(!throttle.owed(now).is_zero(), "the same rate is no other");
        throttle.set_rate(1e9);
        assert_eq!(throttle.owed(now), Duration::ZERO);
    }
}
