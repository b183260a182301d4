//! What of a log is dirty, whether it is worth a cleaning, and which segments are cleaned together:
//! Kafka's `LogCleanerManager` and `Cleaner.groupSegmentsBySize`, without files.

use std::ops::Range;

use protocol::Offset;

use crate::{format::MAX_RELATIVE, log_config::LogConfig};

/// Segments that are cleaned into one, at most: each has its file open while it is replaced.
const GROUP_MAX: usize = 64;

/// What is known of a sealed segment before a cleaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentFacts {
    pub(crate) base: Offset,
    /// Bytes of batches.
    pub(crate) size: u64,
    /// Bytes of the larger of its two index files.
    pub(crate) index_size: u64,
    /// Largest timestamp, or when it was last written, ms since 1970.
    pub(crate) newest_ms: i64,
    /// The first batch's timestamp, ms since 1970, where it has one and is asked for.
    pub(crate) first_ms: Option<i64>,
}

/// The bounds of a log, within which it may be cleaned.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// The log's generation, read before the rest.
    pub(crate) generation: u64,
    pub(crate) log_start: Offset,
    pub(crate) log_end: Offset,
    /// Base of the active segment.
    pub(crate) active: Offset,
    /// Nothing from here on is cleaned: not committed, not decided, or not on the disk.
    pub(crate) stable: Offset,
    /// Where the last cleaning ended.
    pub(crate) first_dirty: Option<Offset>,
}

impl Bounds {
    /// Where the dirty part begins. A log that was truncated below its cleaned part, or begun anew, is
    /// all dirty.
    fn first_dirty(&self) -> Offset {
        self.first_dirty
            .filter(|dirty| (self.log_start..=self.log_end).contains(dirty))
            .unwrap_or(self.log_start)
    }

    /// Which of the sealed segments are dirty: their times count.
    pub(crate) fn dirty(&self, sealed: &[SegmentFacts]) -> Range<usize> {
        floor(sealed, self.first_dirty())..sealed.len()
    }
}

/// How dirty a log is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dirtiness {
    /// The log's generation when this was found out: a later one voids it.
    pub(crate) generation: u64,
    /// Below, each key has one record at most.
    pub first_dirty: Offset,
    /// From here on nothing may be cleaned yet: where a segment begins.
    pub first_uncleanable: Offset,
    /// Bytes of segments that begin below the first dirty offset.
    pub clean_bytes: u64,
    /// Bytes of dirty segments that may be cleaned.
    pub cleanable_bytes: u64,
    /// `max.compaction.lag.ms` is over for a dirty record.
    pub overdue: bool,
}

impl Dirtiness {
    /// The dirty share of what may be cleaned, 0 to 1.
    pub fn ratio(&self) -> f64 {
        let total = self.clean_bytes + self.cleanable_bytes;
        if total == 0 {
            0.0
        } else {
            self.cleanable_bytes as f64 / total as f64
        }
    }

    /// Whether a cleaning is due, by `min.cleanable.dirty.ratio` and `max.compaction.lag.ms`.
    pub fn is_due(&self, config: &LogConfig) -> bool {
        self.cleanable_bytes > 0 && (self.overdue || self.ratio() > config.min_cleanable_dirty_ratio)
    }
}

/// Works out how dirty a log is. `sealed` are its segments but the active one, in order.
pub(crate) fn assess(sealed: &[SegmentFacts], bounds: &Bounds, config: &LogConfig, now_ms: i64) -> Dirtiness {
    let first_dirty = bounds.first_dirty();
    let dirty = || sealed[bounds.dirty(sealed)].iter();
    let mut limit = bounds.stable.min(bounds.active);
    let min_lag = config.min_compaction_lag_ms();
    if min_lag > 0
        && let Some(young) = dirty().find(|segment| segment.newest_ms > now_ms.saturating_sub(min_lag))
    {
        limit = limit.min(young.base);
    }
    // Segments are cleaned whole: the one that holds the limit is out.
    let first_uncleanable = match sealed.get(floor(sealed, limit)) {
        Some(holder) if limit < bounds.active => holder.base,
        _ => limit.min(bounds.active),
    };
    let below = |segment: &&SegmentFacts| segment.base < first_uncleanable;
    let oldest = dirty().filter_map(|segment| segment.first_ms).min();
    let overdue = config
        .max_compaction_lag_ms()
        .zip(oldest)
        .is_some_and(|(lag, oldest)| oldest < now_ms.saturating_sub(lag));
    Dirtiness {
        generation: bounds.generation,
        first_dirty,
        first_uncleanable,
        clean_bytes: sealed
            .iter()
            .filter(|segment| segment.base < first_dirty)
            .map(|segment| segment.size)
            .sum(),
        cleanable_bytes: if first_dirty < first_uncleanable {
            dirty().filter(below).map(|segment| segment.size).sum()
        } else {
            0
        },
        overdue,
    }
}

/// The segment that holds `offset`, or the first.
fn floor(sealed: &[SegmentFacts], offset: Offset) -> usize {
    sealed
        .partition_point(|segment| segment.base <= offset)
        .saturating_sub(1)
}

/// Which of these segments are cleaned into one, so that none grows past `segment.bytes`,
/// `segment.index.bytes`, or what a relative offset can express. `end` is where the last one ends.
pub(crate) fn group(sealed: &[SegmentFacts], end: Offset, config: &LogConfig) -> Vec<Range<usize>> {
    let most_bytes = u64::from(config.segment_bytes).min(MAX_RELATIVE);
    let most_index = u64::from(config.segment_index_bytes);
    let ends_at = |at: usize| sealed.get(at + 1).map_or(end, |next| next.base);
    let mut groups = Vec::new();
    let mut at = 0;
    while at < sealed.len() {
        let (begin, first) = (at, &sealed[at]);
        let (mut size, mut index_size) = (first.size, first.index_size);
        at += 1;
        while let Some(next) = sealed.get(at) {
            size += next.size;
            index_size += next.index_size;
            let near = ends_at(at)
                .distance_from(first.base)
                .is_some_and(|distance| distance <= MAX_RELATIVE);
            if size > most_bytes || index_size > most_index || !near || at - begin == GROUP_MAX {
                break;
            }
            at += 1;
        }
        groups.push(begin..at);
    }
    groups
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn segments(bases: &[i64]) -> Vec<SegmentFacts> {
        let facts = |&base| SegmentFacts {
            base: Offset(base),
            size: 100,
            index_size: 8,
            newest_ms: base,
            first_ms: Some(base),
        };
        bases.iter().map(facts).collect()
    }

    fn bounds(stable: i64, first_dirty: Option<i64>) -> Bounds {
        Bounds {
            generation: 0,
            log_start: Offset(0),
            log_end: Offset(50),
            active: Offset(40),
            stable: Offset(stable),
            first_dirty: first_dirty.map(Offset),
        }
    }

    #[test]
    fn only_whole_committed_segments_are_cleanable() {
        let (sealed, config) = (segments(&[0, 10, 20, 30]), LogConfig::default());
        for (stable, first_uncleanable, cleanable) in [
            (0, 0, 0),
            (9, 0, 0),
            (10, 10, 100),
            (19, 10, 100),
            (39, 30, 300),
            (40, 40, 400),
            (50, 40, 400),
        ] {
            let dirtiness = assess(&sealed, &bounds(stable, None), &config, 0);
            assert_eq!(
                (dirtiness.first_uncleanable, dirtiness.cleanable_bytes),
                (Offset(first_uncleanable), cleanable),
                "{stable}"
            );
            assert_eq!(dirtiness.is_due(&config), cleanable > 0);
        }
    }

    #[test]
    fn the_dirty_share_decides() {
        let sealed = segments(&[0, 10, 20, 30]);
        let config = LogConfig::default();
        let at = |dirty| assess(&sealed, &bounds(50, dirty), &config, 0);
        assert_eq!((at(Some(20)).ratio(), at(Some(20)).is_due(&config)), (0.5, false));
        assert!(at(Some(10)).is_due(&config));
        assert_eq!(
            at(Some(35)).cleanable_bytes,
            100,
            "a segment is dirty from its beginning"
        );
        assert_eq!(at(Some(40)).cleanable_bytes, 0);
        // A checkpoint outside the log is none.
        assert_eq!(at(Some(51)).first_dirty, Offset(0));
        let later = Bounds {
            log_start: Offset(15),
            ..bounds(50, Some(5))
        };
        assert_eq!(assess(&sealed, &later, &config, 0).first_dirty, Offset(15));
    }

    #[test]
    fn young_segments_wait_and_old_ones_do_not() {
        let sealed = segments(&[0, 10, 20, 30]);
        let patient = LogConfig {
            min_compaction_lag: Duration::from_millis(80),
            ..LogConfig::default()
        };
        let at = |now| assess(&sealed, &bounds(50, None), &patient, now).first_uncleanable;
        assert_eq!((at(95), at(90), at(110)), (Offset(20), Offset(20), Offset(40)));
        let hasty = LogConfig {
            max_compaction_lag: Some(Duration::from_millis(100)),
            min_cleanable_dirty_ratio: 1.0,
            ..LogConfig::default()
        };
        let due = |now| assess(&sealed, &bounds(50, Some(30)), &hasty, now).is_due(&hasty);
        assert_eq!((due(130), due(131)), (false, true));
    }

    #[test]
    fn groups_stay_within_every_bound() {
        let sealed = segments(&[0, 10, 20, 30]);
        let limits = |segment_bytes, segment_index_bytes| LogConfig {
            segment_bytes,
            segment_index_bytes,
            ..LogConfig::default()
        };
        let group = |config: &LogConfig| group(&sealed, Offset(40), config);
        assert_eq!(group(&limits(1000, 1000)), vec![Range { start: 0, end: 4 }]);
        assert_eq!(group(&limits(200, 1000)), [0..2, 2..4]);
        assert_eq!(group(&limits(1000, 24)), [0..3, 3..4]);
        assert_eq!(group(&limits(1, 1)), [0..1, 1..2, 2..3, 3..4]);
        let far = segments(&[0, 10, 10 + i64::from(i32::MAX)]);
        let end = Offset(20 + i64::from(i32::MAX));
        assert_eq!(super::group(&far, end, &limits(1000, 1000)), [0..1, 1..2, 2..3]);
        let many = segments(&(0..100).collect::<Vec<_>>());
        let groups = super::group(&many, Offset(100), &limits(1 << 20, 1 << 20));
        assert_eq!(groups, [0..GROUP_MAX, GROUP_MAX..100]);
    }
}
