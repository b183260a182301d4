//! How long a shard lets things rest that have just failed: its writes, and the reading of its log.
//!
//! An append that fails voids the shard's state, and the whole log is read again. While a disk is full, each
//! commit that is tried would cost such a load: so after a failure writes are refused for a while, longer
//! each time, and reads and heartbeats are answered from what is committed.

use std::time::Duration;

use replication::AppendRefused;
use tokio::time::Instant;

/// The first pause, and the least.
const SHORTEST: Duration = Duration::from_millis(100);
/// No pause is longer: so long after the cause is gone, groups can commit again at the latest.
const LONGEST: Duration = Duration::from_secs(10);

/// Pauses that grow while something fails again and again.
#[derive(Debug)]
pub(super) struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(SHORTEST)
    }
}

impl Backoff {
    /// How long to wait this time; twice as long the next.
    pub(super) fn wait(&mut self) -> Duration {
        let longer = self.0.saturating_mul(2).min(LONGEST);
        std::mem::replace(&mut self.0, longer)
    }

    /// It went well: the next pause is a short one.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }
}

/// Whether writes rest.
#[derive(Debug, Default)]
pub(super) struct WritePause {
    backoff: Backoff,
    resting: Option<Resting>,
}

#[derive(Clone, Copy, Debug)]
struct Resting {
    why: AppendRefused,
    length: Duration,
    until: Instant,
}

impl WritePause {
    /// An append was refused at `now`. Returns how long writes rest, from the end of the load that follows.
    pub(super) fn begin(&mut self, why: AppendRefused, now: Instant) -> Duration {
        let length = self.backoff.wait();
        let until = now + length;
        self.resting = Some(Resting { why, length, until });
        length
    }

    /// The log was read anew: a pause that is under way begins now, or a long load would eat it up.
    pub(super) fn loaded(&mut self, now: Instant) {
        if let Some(resting) = &mut self.resting {
            resting.until = now + resting.length;
        }
    }

    /// An append went through.
    pub(super) fn end(&mut self) {
        *self = Self::default();
    }

    /// Whether an append may be tried; else, why the last one failed.
    pub(super) fn check(&self, now: Instant) -> Result<(), AppendRefused> {
        match self.resting {
            Some(resting) if now < resting.until => Err(resting.why),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_bound_and_begin_anew() {
        let mut backoff = Backoff::default();
        let waits: Vec<u128> = (0..9).map(|_| backoff.wait().as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        backoff.reset();
        assert_eq!(backoff.wait(), SHORTEST);
    }

    /// A disk that stays full for an hour, with commits all the time and loads that take two seconds each:
    /// the log is not read for each of the commits.
    #[test]
    fn writes_rest_between_the_loads() {
        let start = Instant::now();
        let mut pause = WritePause::default();
        let (mut now, mut loads) = (start, 0);
        while now < start + Duration::from_secs(3600) {
            now += Duration::from_millis(10);
            if pause.check(now).is_ok() {
                pause.begin(AppendRefused::Storage, now);
                now += Duration::from_secs(2);
                pause.loaded(now);
                loads += 1;
                assert_eq!(pause.check(now), Err(AppendRefused::Storage));
            }
        }
        assert!(loads < 320, "{loads}");
        // The disk has room again.
        now += LONGEST;
        assert_eq!(pause.check(now), Ok(()));
        pause.end();
        pause.begin(AppendRefused::Busy, now);
        assert_eq!(pause.check(now + SHORTEST), Ok(()));
    }
}
