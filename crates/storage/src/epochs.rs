//! Which leader epoch began where (KIP-101, KIP-279): pure, with Kafka's checkpoint text.

use std::fmt::Write as _;

use protocol::{LeaderEpoch, Offset};

/// Why a `leader-epoch-checkpoint` could not be read. The remedy is to rebuild it from the batches.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EpochCheckpointError {
    /// The first line is not a version that this build knows.
    #[error("leader epoch checkpoint has version {0:?}, only 0 is known")]
    Version(String),
    /// A line is not what it should be.
    #[error("leader epoch checkpoint line {0} is malformed")]
    Line(usize),
    /// Epochs or their start offsets do not increase.
    #[error("leader epoch checkpoint line {0} does not follow the one before")]
    Order(usize),
}

/// The start offset of each leader epoch of a log: epochs strictly increase, so do start offsets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EpochCache {
    entries: Vec<(LeaderEpoch, Offset)>,
}

impl EpochCache {
    /// The newest epoch known.
    pub fn latest(&self) -> Option<LeaderEpoch> {
        self.entries.last().map(|&(epoch, _)| epoch)
    }

    /// Where `epoch` began.
    pub fn start_of(&self, epoch: LeaderEpoch) -> Option<Offset> {
        let at = self
            .entries
            .binary_search_by_key(&epoch, |&(epoch, _)| epoch)
            .ok()?;
        Some(self.entries[at].1)
    }

    /// The epoch of the batch at `offset`.
    pub fn epoch_at(&self, offset: Offset) -> Option<LeaderEpoch> {
        let after = self.entries.partition_point(|&(_, start)| start <= offset);
        Some(self.entries[after.checked_sub(1)?].0)
    }

    /// Notes that `epoch` begins at `start`, and returns whether that is news. What contradicts it,
    /// entries at or beyond `start` and entries of the same or later epochs, comes from batches that
    /// are gone and is dropped.
    pub fn assign(&mut self, epoch: LeaderEpoch, start: Offset) -> bool {
        if let Some(&(latest, began)) = self.entries.last()
            && latest == epoch
            && began <= start
        {
            return false;
        }
        self.entries.retain(|&(e, s)| e < epoch && s < start);
        self.entries.push((epoch, start));
        true
    }

    /// Takes in a batch of the log: its epoch begins with it, unless that is known.
    pub fn assign_if_newer(&mut self, epoch: LeaderEpoch, base_offset: Offset) -> bool {
        self.latest().is_none_or(|latest| latest < epoch) && self.assign(epoch, base_offset)
    }

    /// The largest epoch that is at most `asked`, and where it ends; `log_end` ends the latest. An
    /// epoch older than all that are known ends where the first known one begins, as in Kafka.
    /// `None`: no epoch is known.
    pub fn end_offset(&self, asked: LeaderEpoch, log_end: Offset) -> Option<(LeaderEpoch, Offset)> {
        let after = self.entries.partition_point(|&(epoch, _)| epoch <= asked);
        let end = self.entries.get(after).map_or(log_end, |&(_, start)| start);
        match after.checked_sub(1) {
            Some(at) => Some((self.entries[at].0, end)),
            None if self.entries.is_empty() => None,
            None => Some((asked, end)),
        }
    }

    /// Forgets the epochs that begin at or after `end`: their batches are gone. Returns whether there were any.
    pub fn truncate_from_end(&mut self, end: Offset) -> bool {
        let before = self.entries.len();
        self.entries.retain(|&(_, start)| start < end);
        self.entries.len() != before
    }

    /// Forgets the epochs that ended at or before `log_start`; the one that `log_start` lies in begins
    /// there from now on. Returns whether anything changed.
    pub fn truncate_from_start(&mut self, log_start: Offset) -> bool {
        let after = self.entries.partition_point(|&(_, start)| start <= log_start);
        let Some(at) = after.checked_sub(1) else {
            return false;
        };
        if at == 0 && self.entries[0].1 == log_start {
            return false;
        }
        self.entries.drain(..at);
        self.entries[0].1 = log_start;
        true
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.entries.clear();
    }

    /// Every epoch with its start offset, oldest first.
    pub fn entries(&self) -> &[(LeaderEpoch, Offset)] {
        &self.entries
    }

    /// The text of Kafka's `leader-epoch-checkpoint`.
    pub fn to_text(&self) -> String {
        let mut text = format!("0\n{}\n", self.entries.len());
        for (epoch, start) in &self.entries {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{epoch} {start}");
        }
        text
    }

    /// Reads Kafka's `leader-epoch-checkpoint`.
    pub fn from_text(text: &str) -> Result<Self, EpochCheckpointError> {
        let mut lines = text.lines();
        match lines.next() {
            Some("0") => {}
            other => {
                let shown = other.unwrap_or_default().chars().take(40).collect();
                return Err(EpochCheckpointError::Version(shown));
            }
        }
        let count: usize = lines
            .next()
            .and_then(|line| line.parse().ok())
            .ok_or(EpochCheckpointError::Line(2))?;
        let mut entries: Vec<(LeaderEpoch, Offset)> = Vec::new();
        for (at, line) in lines.enumerate() {
            let (epoch, start) = parse_line(line).ok_or(EpochCheckpointError::Line(at + 3))?;
            if entries.last().is_some_and(|&(e, s)| epoch <= e || start <= s) {
                return Err(EpochCheckpointError::Order(at + 3));
            }
            entries.push((epoch, start));
        }
        if entries.len() == count {
            Ok(Self { entries })
        } else {
            Err(EpochCheckpointError::Line(2))
        }
    }
}

fn parse_line(line: &str) -> Option<(LeaderEpoch, Offset)> {
    let (epoch, start) = line.split_once(' ')?;
    let (epoch, start) = (epoch.parse().ok()?, start.parse().ok()?);
    (epoch >= 0 && start >= 0).then_some((LeaderEpoch(epoch), Offset(start)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cache(entries: &[(i32, i64)]) -> EpochCache {
        EpochCache {
            entries: entries
                .iter()
                .map(|&(e, s)| (LeaderEpoch(e), Offset(s)))
                .collect(),
        }
    }

    #[test]
    fn an_epoch_ends_where_the_next_begins() {
        let cache = cache(&[(2, 10), (5, 30), (6, 40)]);
        let end = |asked| cache.end_offset(LeaderEpoch(asked), Offset(55));
        assert_eq!(end(6), Some((LeaderEpoch(6), Offset(55))));
        assert_eq!(end(9), Some((LeaderEpoch(6), Offset(55))));
        assert_eq!(end(5), Some((LeaderEpoch(5), Offset(40))));
        assert_eq!(end(4), Some((LeaderEpoch(2), Offset(30))));
        assert_eq!(end(1), Some((LeaderEpoch(1), Offset(10))));
        assert_eq!(EpochCache::default().end_offset(LeaderEpoch(1), Offset(5)), None);
    }

    #[test]
    fn an_assignment_drops_what_contradicts_it() {
        let mut epochs = cache(&[(1, 0), (3, 20), (4, 30)]);
        assert!(!epochs.assign(LeaderEpoch(4), Offset(35)));
        assert!(epochs.assign(LeaderEpoch(6), Offset(20)));
        assert_eq!(epochs, cache(&[(1, 0), (6, 20)]));
        // A leader whose epoch wrote nothing leaves no trace once the next one starts there.
        assert!(epochs.assign(LeaderEpoch(7), Offset(20)));
        assert_eq!(epochs, cache(&[(1, 0), (7, 20)]));
    }

    #[test]
    fn truncation_works_from_both_ends() {
        let mut epochs = cache(&[(1, 0), (3, 20), (4, 30)]);
        assert!(epochs.truncate_from_end(Offset(30)));
        assert_eq!(epochs, cache(&[(1, 0), (3, 20)]));
        assert!(epochs.truncate_from_start(Offset(25)));
        assert_eq!(epochs, cache(&[(3, 25)]));
        assert!(!epochs.truncate_from_start(Offset(10)));
        assert_eq!(epochs.epoch_at(Offset(25)), Some(LeaderEpoch(3)));
        assert_eq!(epochs.epoch_at(Offset(24)), None);
    }

    #[test]
    fn the_text_is_kafkas() {
        let epochs = cache(&[(0, 0), (7, 1234)]);
        assert_eq!(epochs.to_text(), "0\n2\n0 0\n7 1234\n");
        assert_eq!(EpochCache::from_text("0\n2\n0 0\n7 1234\n"), Ok(epochs));
        assert_eq!(EpochCache::from_text("0\n0\n"), Ok(EpochCache::default()));
        for bad in [
            "",
            "1\n0\n",
            "0\nx\n",
            "0\n1\n",
            "0\n1\n0 0\n1 1\n",
            "0\n1\n0\n",
            "0\n2\n1 5\n0 6\n",
            "0\n1\n-1 0\n",
        ] {
            assert!(EpochCache::from_text(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_history_stays_in_order(steps in proptest::collection::vec((0..4_u8, 0..9_i32, 0..50_i64), 0..40)) {
            let mut epochs = EpochCache::default();
            for (what, epoch, offset) in steps {
                match what {
                    0 | 1 => { epochs.assign(LeaderEpoch(epoch), Offset(offset)); }
                    2 => { epochs.truncate_from_end(Offset(offset)); }
                    _ => { epochs.truncate_from_start(Offset(offset)); }
                }
                prop_assert!(epochs.entries().is_sorted_by(|a, b| a.0 < b.0 && a.1 < b.1));
                prop_assert_eq!(EpochCache::from_text(&epochs.to_text()), Ok(epochs.clone()));
            }
        }

        #[test]
        fn foreign_text_never_panics(text in "[0-9 \n-]{0,60}") {
            let _ = EpochCache::from_text(&text);
        }
    }
}
