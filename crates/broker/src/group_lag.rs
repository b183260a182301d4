//! How far the groups of this broker lag, for `/metrics`: measured every few seconds, from what is
//! committed and from the ends of the partitions, which other leaders are asked for in one call each.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use protocol::grpc::v1::offset_query::At;
use protocol::grpc::v1::{LatestOffset, OffsetQuery};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::coordinator::group::{GROUP_STATES, GroupLag, GroupShard};
use crate::coordinator::group_runtime::GroupCoordinator;
use crate::grpc_admin::AdminService;
use crate::http::PassingSeries;
use crate::metric_names;

/// Between two measurements.
const INTERVAL: Duration = Duration::from_secs(10);
/// Ends of a partition that are remembered at most. They reach back to when it was first seen: the older, the
/// farther they are apart.
const SAMPLES: usize = 60;
/// A topic's name and a partition of it.
type Place = (Arc<str>, i32);

/// Measures until `stop`, and keeps `shown` to what was found; `admin` reaches the leaders of all partitions.
pub(crate) async fn measure(
    groups: GroupCoordinator,
    admin: AdminService,
    shown: PassingSeries,
    stop: CancellationToken,
) {
    let mut clock = tokio::time::interval(INTERVAL);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut ends = Ends::default();
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
        let answered = ask(&admin, &places).await;
        ends.take(Instant::now(), &places, answered);
        // All of them anew: what was not found is not shown any more.
        shown.show(&render(&found, &ends, Instant::now()));
    }
}

fn report_groups(found: &[GroupLag]) {
    let members: usize = found.iter().map(|group| group.members).sum();
    metrics::gauge!(metric_names::GROUP_MEMBERS).set(members as f64);
    // All of them, so that one that no group is in any more shows zero.
    for state in GROUP_STATES {
        let count = found.iter().filter(|group| group.state == state).count();
        metrics::gauge!(metric_names::GROUPS, "state" => state).set(count as f64);
    }
}

/// The ends of partitions, where their leaders say them.
async fn ask(admin: &AdminService, places: &BTreeSet<Place>) -> BTreeMap<Place, i64> {
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
        .iter()
        .zip(answers)
        .filter_map(|(place, answer)| Some((place.clone(), answer.offset?)))
        .collect()
}

/// The lags in Prometheus' text format; nothing where there is none.
fn render(found: &[GroupLag], ends: &Ends, now: Instant) -> String {
    let mut series = Vec::new();
    for group in found {
        let name = escaped(group.group.as_str());
        for (topic, partition, committed) in &group.offsets {
            let place = (Arc::clone(topic), partition.get());
            if let Some(lag) = ends.lag(&place, committed.get(), now) {
                let topic = escaped(topic);
                series.push((
                    format!(r#"group="{name}",topic="{topic}",partition="{partition}""#),
                    lag,
                ));
            }
        }
    }
    let mut text = String::new();
    if series.is_empty() {
        return text;
    }
    let mut family = |name: &str, help: &str, value: fn(&Lag) -> f64| {
        // Writing to a string does not fail.
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n");
        for (labels, lag) in &series {
            let _ = writeln!(text, "{name}{{{labels}}} {}", value(lag));
        }
        text.push('\n');
    };
    let (records, seconds) = (metric_names::GROUP_LAG, metric_names::GROUP_LAG_SECONDS);
    family(records, metric_names::GROUP_LAG_HELP, |lag| lag.records as f64);
    family(seconds, metric_names::GROUP_LAG_SECONDS_HELP, |lag| {
        lag.behind.as_secs_f64()
    });
    text
}

/// A label's value as the format wants it: group ids are whatever clients say.
fn escaped(value: &str) -> Cow<'_, str> {
    if !value.contains(['\\', '"', '\n']) {
        return Cow::Borrowed(value);
    }
    let escaped = value.replace('\\', r"\\").replace('"', "\\\"");
    Cow::Owned(escaped.replace('\n', r"\n"))
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
    /// Takes a measurement of these places. Others are forgotten: nobody has committed for them any more.
    /// One whose leader did not answer keeps what is known of it, and its lag grows older meanwhile.
    fn take(&mut self, now: Instant, places: &BTreeSet<Place>, ends: BTreeMap<Place, i64>) {
        self.0.retain(|place, _| places.contains(place));
        for (place, end) in ends {
            let samples = self.0.entry(place).or_default();
            // A topic deleted and created again begins anew.
            if samples.back().is_some_and(|&(_, last)| end < last) {
                samples.clear();
            }
            if samples.len() == SAMPLES {
                thin_out(samples, now);
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

/// Drops the sample that is missed least: whose neighbours are closest to each other, measured by its age.
/// Never the oldest or the newest.
fn thin_out(samples: &mut VecDeque<(Instant, i64)>, now: Instant) {
    let missed = |at: usize| {
        let gap = samples[at + 1].0 - samples[at - 1].0;
        gap.as_secs_f64() / (now - samples[at].0).as_secs_f64()
    };
    let inner = 1..samples.len().saturating_sub(1);
    if let Some(least) = inner.min_by(|&a, &b| missed(a).total_cmp(&missed(b))) {
        samples.remove(least);
    }
}

#[cfg(test)]
mod tests {
    use protocol::{Offset, PartitionIndex};

    use super::*;

    fn sampled(ends: &[i64]) -> (Ends, Place, Instant) {
        let place: Place = (Arc::from("orders"), 0);
        let (mut all, start) = (Ends::default(), Instant::now());
        for (at, &end) in (0..).zip(ends) {
            let places = BTreeSet::from([place.clone()]);
            all.take(
                start + INTERVAL * at,
                &places,
                BTreeMap::from([(place.clone(), end)]),
            );
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

    #[test]
    fn a_leader_that_does_not_answer_leaves_what_is_known() {
        let (mut ends, place, mut now) = sampled(&[100, 200]);
        let places = BTreeSet::from([place.clone()]);
        for _ in 0..3 {
            now += INTERVAL;
            ends.take(now, &places, BTreeMap::new());
        }
        let lag = ends.lag(&place, 100, now).expect("known");
        assert_eq!((lag.records, lag.behind), (100, INTERVAL * 4));
        now += INTERVAL;
        ends.take(now, &places, BTreeMap::from([(place.clone(), 900)]));
        let lag = ends.lag(&place, 100, now).expect("known");
        assert_eq!((lag.records, lag.behind), (800, INTERVAL * 5), "it goes on");
        // Nobody reads it any more.
        ends.take(now, &BTreeSet::new(), BTreeMap::new());
        assert_eq!(ends.lag(&place, 100, now), None);
    }

    #[test]
    fn a_long_lag_is_seen_with_few_samples() {
        /// A day of them.
        const ROUNDS: i64 = 24 * 360;
        let (mut ends, place, start) = sampled(&[0]);
        let places = BTreeSet::from([place.clone()]);
        let mut now = start;
        for round in 1..=ROUNDS {
            now += INTERVAL;
            ends.take(now, &places, BTreeMap::from([(place.clone(), round)]));
            assert!(ends.0[&place].len() <= SAMPLES);
        }
        for rounds in [1, 10, 100, 1000, ROUNDS - 1] {
            let lag = ends.lag(&place, ROUNDS - rounds, now).expect("known");
            let expected = INTERVAL.as_secs_f64() * rounds as f64;
            let error = (lag.behind.as_secs_f64() - expected).abs();
            // One record came in each round, so that what lies between two samples is no guess.
            assert!(error < 0.001, "{rounds} rounds: {error} s");
        }
        let samples = ends.0.get_mut(&place).expect("known").make_contiguous();
        assert_eq!(samples[0].0, start);
        for pair in samples.windows(2) {
            let (gap, age) = (pair[1].0 - pair[0].0, now - pair[0].0);
            assert!(gap <= INTERVAL || gap * 2 <= age, "{gap:?} apart, {age:?} ago");
        }
    }

    #[test]
    fn the_series_are_those_that_are_there() {
        let (ends, place, now) = sampled(&[100, 200, 300]);
        let group = |name: &str, committed| GroupLag {
            group: name.into(),
            kind: crate::coordinator::group::GroupKind::Classic,
            state: "Empty",
            members: 0,
            offsets: vec![
                (Arc::clone(&place.0), PartitionIndex(0), Offset(committed)),
                (Arc::from("unknown"), PartitionIndex(0), Offset(0)),
            ],
        };
        let found = [group("g", 250), group("a\"b\\c\nd", 300)];
        let shown = r#"# HELP ottla_group_lag Records between a group's committed offset and its partition's end
# TYPE ottla_group_lag gauge
ottla_group_lag{group="g",topic="orders",partition="0"} 50
ottla_group_lag{group="a\"b\\c\nd",topic="orders",partition="0"} 0

# HELP ottla_group_lag_seconds How long ago the first record was written that a group has not committed
# TYPE ottla_group_lag_seconds gauge
ottla_group_lag_seconds{group="g",topic="orders",partition="0"} 5
ottla_group_lag_seconds{group="a\"b\\c\nd",topic="orders",partition="0"} 0

"#;
        assert_eq!(render(&found, &ends, now), shown);
        // The group has died, or is another broker's by now.
        assert!(!render(&found[1..], &ends, now).contains("group=\"g\""));
        assert_eq!(render(&[], &ends, now), "");
    }
}
