//! Bounds the disk rate of all cleaners together (`log.cleaner.io.max.bytes.per.second`).

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// A debt of at most this long is kept for later: what a pause has left unused is not made up for.
const BURST: Duration = Duration::from_millis(300);

/// Bytes read and written, paid off at a rate. Shared by all cleaner threads.
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

    /// Another rate from now on.
    pub fn set_rate(&self, bytes_per_second: f64) {
        self.state.lock().bytes_per_second = bytes_per_second;
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
}
