//! How far the groups of this broker lag, for `/metrics`: measured every few seconds, from what is
//! committed and from the ends of the partitions, which other leaders are asked for in one call each.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use protocol::grpc::v1::offset_query::At;
use protocol::grpc::v1::{LatestOffset, OffsetQuery};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::coordinator::group::{GroupLag, GroupShard};
use crate::coordinator::group_runtime::GroupCoordinator;
use crate::grpc_admin::AdminService;
use crate::metric_names;

/// Between two measurements.
const INTERVAL: Duration = Duration::from_secs(10);
/// Ends of a partition that are remembered: ten minutes of them.
const SAMPLES: usize = 60;
/// Every state of a group, so that one that no group is in any more shows zero.
const STATES: [&str; 5] = [
    "Empty",
    "PreparingRebalance",
    "CompletingRebalance",
    "Stable",
    "Dead",
];

/// A topic's name and a partition of it.
type Place = (Arc<str>, i32);
/// The labels of one lag: group, topic, partition.
type Series = (String, Arc<str>, i32);

/// Measures until `stop`; `admin` reaches the leaders of all partitions.
pub(crate) async fn measure(groups: GroupCoordinator, admin: AdminService, stop: CancellationToken) {
    let mut clock = tokio::time::interval(INTERVAL);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut ends = Ends::default();
    let mut shown = BTreeSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = clock.tick() => {}
        }
        let shards = groups.look_at_all(GroupShard::lag_view).await;
        let found: Vec<GroupLag> = shards.into_iter().flat_map(|view| view.groups).collect();
        report_groups(&found);
        let places: BTreeSet<Place> = found
            .iter()
            .flat_map(|group| &group.offsets)
            .map(|(topic, partition, _)| (Arc::clone(topic), partition.get()))
            .collect();
        ends.take(Instant::now(), ask(&admin, places).await);
        shown = report_lags(&found, &ends, shown);
    }
}

fn report_groups(found: &[GroupLag]) {
    let members: usize = found.iter().map(|group| group.members).sum();
    metrics::gauge!(metric_names::GROUP_MEMBERS).set(members as f64);
    for state in STATES {
        let count = found.iter().filter(|group| group.state == state).count();
        metrics::gauge!(metric_names::GROUPS, "state" => state).set(count as f64);
    }
}

/// The ends of partitions, where their leaders say them.
async fn ask(admin: &AdminService, places: BTreeSet<Place>) -> BTreeMap<Place, i64> {
    let queries = places
        .iter()
        .map(|(topic, partition)| OffsetQuery {
            topic: topic.to_string(),
            partition: *partition,
            at: Some(At::Latest(LatestOffset {})),
        })
        .collect();
    let answers = admin.find_offsets(queries, false).await;
    places
        .into_iter()
        .zip(answers)
        .filter_map(|(place, answer)| Some((place, answer.offset?)))
        .collect()
}

/// Sets the gauges; what was shown before and is no more becomes "not a number", which queries ignore.
fn report_lags(found: &[GroupLag], ends: &Ends, before: BTreeSet<Series>) -> BTreeSet<Series> {
    let mut shown = BTreeSet::new();
    for group in found {
        for (topic, partition, committed) in &group.offsets {
            let place = (Arc::clone(topic), partition.get());
            let Some(lag) = ends.lag(&place, committed.offset.get(), Instant::now()) else {
                continue;
            };
            let series = (group.group.to_string(), place.0, place.1);
            show(&series, lag.records as f64, lag.behind.as_secs_f64());
            shown.insert(series);
        }
    }
    for gone in before.difference(&shown) {
        show(gone, f64::NAN, f64::NAN);
    }
    shown
}

fn show((group, topic, partition): &Series, records: f64, seconds: f64) {
    let labels = [
        ("group", group.clone()),
        ("topic", topic.to_string()),
        ("partition", partition.to_string()),
    ];
    metrics::gauge!(metric_names::GROUP_LAG, &labels).set(records);
    metrics::gauge!(metric_names::GROUP_LAG_SECONDS, &labels).set(seconds);
}

/// How far one group is behind on one partition.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Lag {
    records: i64,
    behind: Duration,
}

/// Where partitions ended, and when.
#[derive(Debug, Default)]
struct Ends(BTreeMap<Place, VecDeque<(Instant, i64)>>);

impl Ends {
    /// Takes a measurement. Partitions that nobody has committed for any more are forgotten.
    fn take(&mut self, now: Instant, ends: BTreeMap<Place, i64>) {
        self.0.retain(|place, _| ends.contains_key(place));
        for (place, end) in ends {
            let samples = self.0.entry(place).or_default();
            // A topic deleted and created again begins anew.
            if samples.back().is_some_and(|&(_, last)| end < last) {
                samples.clear();
            }
            if samples.len() == SAMPLES {
                samples.pop_front();
            }
            samples.push_back((now, end));
        }
    }

    /// Records between `committed` and the end, and how long ago the first of them was written, as far
    /// as the samples tell; never more than they reach back. `None`: the end is not known.
    fn lag(&self, place: &Place, committed: i64, now: Instant) -> Option<Lag> {
        let samples = self.0.get(place)?;
        let &(_, end) = samples.back()?;
        let records = end.saturating_sub(committed).max(0);
        if records == 0 {
            return Some(Lag {
                records,
                behind: Duration::ZERO,
            });
        }
        let passed = samples.partition_point(|&(_, end)| end <= committed);
        let &(after, later_end) = samples.get(passed)?;
        let wrote = match passed.checked_sub(1).and_then(|at| samples.get(at)) {
            // Between two samples, records are taken to have come evenly.
            Some(&(before, end)) => {
                let share = (committed - end) as f64 / (later_end - end) as f64;
                before + (after - before).mul_f64(share)
            }
            None => after,
        };
        Some(Lag {
            records,
            behind: now.saturating_duration_since(wrote),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampled(ends: &[i64]) -> (Ends, Place, Instant) {
        let place: Place = (Arc::from("orders"), 0);
        let (mut all, start) = (Ends::default(), Instant::now());
        for (at, &end) in (0..).zip(ends) {
            all.take(start + INTERVAL * at, BTreeMap::from([(place.clone(), end)]));
        }
        (all, place, start + INTERVAL * (ends.len() as u32 - 1))
    }

    #[test]
    fn records_and_seconds_behind() {
        let (ends, place, now) = sampled(&[100, 200, 300]);
        let lag = |committed| {
            let lag = ends.lag(&place, committed, now).expect("known");
            (lag.records, lag.behind.as_secs_f64())
        };
        assert_eq!(lag(300), (0, 0.0));
        assert_eq!(lag(999), (0, 0.0), "an end that is older than the commit");
        assert_eq!(lag(250), (50, 5.0));
        assert_eq!(lag(200), (100, 10.0));
        assert_eq!(lag(0), (300, 20.0), "as far as the samples reach back");
    }

    #[test]
    fn a_topic_that_begins_anew_has_no_past() {
        let (ends, place, now) = sampled(&[500, 3]);
        let lag = ends.lag(&place, 0, now).expect("known");
        assert_eq!((lag.records, lag.behind), (3, Duration::ZERO));
    }
}
