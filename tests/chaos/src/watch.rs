//! What is looked at while faults go on, and what the verdict on a compacted topic depends on: for how long a
//! replica was away, and whether logs were cleaned at all.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use chaos_checker::Partition;
use storage::metric_names::CLEANER_RUNS_TOTAL;

use crate::topic::{PartitionState, TopicView};

const LOOK: Duration = Duration::from_millis(500);
/// A broker that is down or stands still is not waited for.
const ANSWER: Duration = Duration::from_millis(300);

/// What was seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watched {
    /// The longest time that a replica was not seen in sync.
    pub(crate) longest_away: Duration,
    /// How many logs each broker has cleaned, at least: what it did between the last look and its death is
    /// not known.
    pub(crate) cleanings: Vec<u64>,
}

/// Watches the topic of `view` on so many brokers until told to stop. `addresses` are the brokers' client
/// ports.
pub(crate) fn run(view: &TopicView, addresses: &[SocketAddr], stop: &AtomicBool) -> Watched {
    let mut away = Away::default();
    let mut cleanings = vec![Cleanings::default(); addresses.len()];
    loop {
        // Looked at once more after the end.
        let last = stop.load(Ordering::Relaxed);
        let states = view.partitions().unwrap_or_default();
        away.look(Instant::now(), &states, addresses.len());
        for (cleanings, &address) in cleanings.iter_mut().zip(addresses) {
            if let Some(page) = metrics(address) {
                cleanings.look(&page);
            }
        }
        if last {
            return Watched {
                longest_away: away.longest,
                cleanings: cleanings.iter().map(|cleanings| cleanings.total).collect(),
            };
        }
        std::thread::sleep(LOOK);
    }
}

/// For how long replicas were not in sync. While nobody says who is, nobody is.
#[derive(Debug, Default)]
struct Away {
    last_seen: BTreeMap<(Partition, i32), Instant>,
    longest: Duration,
}

impl Away {
    fn look(&mut self, now: Instant, states: &[PartitionState], brokers: usize) {
        for state in states {
            for broker in 1..=brokers as i32 {
                let last_seen = self.last_seen.entry((state.partition, broker)).or_insert(now);
                if state.in_sync.contains(&broker) {
                    self.longest = self.longest.max(now - *last_seen);
                    *last_seen = now;
                }
            }
        }
    }
}

/// A broker's count of cleanings, which begins anew with each of its processes.
#[derive(Clone, Debug, Default)]
struct Cleanings {
    last: u64,
    total: u64,
}

impl Cleanings {
    fn look(&mut self, page: &str) {
        let now = counted(page);
        let more = now.checked_sub(self.last);
        self.total += more.unwrap_or(now);
        self.last = now;
    }
}

/// A counter that nothing was counted in may not be there.
fn counted(page: &str) -> u64 {
    let count = page
        .lines()
        .find_map(|line| line.strip_prefix(CLEANER_RUNS_TOTAL));
    count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

/// A broker's page of metrics, where it answers.
fn metrics(address: SocketAddr) -> Option<String> {
    let mut connection = TcpStream::connect_timeout(&address, ANSWER).ok()?;
    connection.set_read_timeout(Some(ANSWER)).ok()?;
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).ok()?;
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(in_sync: &[i32]) -> [PartitionState; 1] {
        [PartitionState {
            partition: 0,
            leader: Some(1),
            in_sync: in_sync.iter().copied().collect(),
        }]
    }

    #[test]
    fn a_replica_is_away_until_it_is_seen_in_sync_again() {
        let (mut away, start) = (Away::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        away.look(after(0), &state(&[1, 2]), 2);
        away.look(after(1), &state(&[1]), 2);
        // Nobody knows.
        away.look(after(5), &[], 2);
        away.look(after(8), &state(&[1, 2]), 2);
        away.look(after(9), &state(&[1, 2]), 2);
        assert_eq!(away.longest, Duration::from_secs(8));
    }

    #[test]
    fn what_each_process_has_cleaned_is_added_up() {
        let mut cleanings = Cleanings::default();
        for (count, total) in [(0, 0), (3, 3), (5, 5), (2, 7), (2, 7)] {
            cleanings.look(&format!("# TYPE x counter\n{CLEANER_RUNS_TOTAL} {count}\n"));
            assert_eq!(cleanings.total, total);
        }
        cleanings.look("nothing was counted yet");
        assert_eq!(cleanings.total, 7);
    }
}
