//! What a consumer that goes on has to complain about: the library says it again and again.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// How often the same is said.
const AGAIN: Duration = Duration::from_secs(10);

/// What was said, and when. There are as many sentences as Kafka has errors.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    said: HashMap<String, Instant>,
}

impl Complaints {
    /// Whether to say this now: it was not said lately.
    pub(super) fn is_due(&mut self, sentence: &str, now: Instant) -> bool {
        let lately = |said: &Instant| now.saturating_duration_since(*said) < AGAIN;
        if self.said.get(sentence).is_some_and(lately) {
            return false;
        }
        self.said.insert(sentence.to_owned(), now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_said_once_in_a_while() {
        let mut complaints = Complaints::default();
        let now = Instant::now();
        assert!(complaints.is_due("all are down", now));
        assert!(!complaints.is_due("all are down", now + AGAIN / 2));
        assert!(complaints.is_due("no such topic", now + AGAIN / 2));
        assert!(complaints.is_due("all are down", now + AGAIN));
    }
}
