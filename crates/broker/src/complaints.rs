//! Log lines about strange clients, a few at a time: they come in crowds.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

/// At most one line in so many milliseconds.
const COMPLAIN_EVERY_MS: u64 = 10_000;

/// Lets one log line pass in a while and counts the others. A clone shares the count.
#[derive(Clone, Debug)]
pub(crate) struct Complaints(Arc<Ledger>);

#[derive(Debug)]
struct Ledger {
    began: Instant,
    next_ms: AtomicU64,
    swallowed: AtomicU64,
}

/// What a line that may be written adds about those that were not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Turn {
    /// Lines that were not written since the last one that was.
    pub(crate) swallowed: u64,
}

impl fmt::Display for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.swallowed {
            0 => Ok(()),
            more => write!(f, " (and {more} more since the last such line)"),
        }
    }
}

impl Complaints {
    /// Nothing was written yet: the first line passes.
    pub(crate) fn new() -> Self {
        Self(Arc::new(Ledger {
            began: Instant::now(),
            next_ms: AtomicU64::new(0),
            swallowed: AtomicU64::new(0),
        }))
    }

    /// Whether a line may be written now. `None` counts as one that was not.
    pub(crate) fn may_speak(&self) -> Option<Turn> {
        let ledger = &self.0;
        let now = ledger.began.elapsed().as_millis() as u64;
        let next = ledger.next_ms.load(Ordering::Relaxed);
        let mine = now >= next
            && ledger
                .next_ms
                .compare_exchange(
                    next,
                    now + COMPLAIN_EVERY_MS,
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                )
                .is_ok();
        if mine {
            let swallowed = ledger.swallowed.swap(0, Ordering::Relaxed);
            Some(Turn { swallowed })
        } else {
            ledger.swallowed.fetch_add(1, Ordering::Relaxed);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_line_in_a_while_tells_of_the_others() {
        let complaints = Complaints::new();
        assert_eq!(complaints.may_speak(), Some(Turn { swallowed: 0 }));
        assert_eq!(complaints.clone().may_speak(), None);
        assert_eq!(complaints.may_speak(), None);
        tokio::time::advance(Duration::from_millis(COMPLAIN_EVERY_MS)).await;
        let turn = complaints.may_speak().expect("it has been a while");
        assert!(turn.to_string().contains("2 more"), "{turn}");
    }
}
