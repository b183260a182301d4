//! Whose records count while a log is walked for compaction: those of aborted transactions do not,
//! and the marker that ended a transaction stays for as long as one of its batches does.
//!
//! The rules of Kafka's `CleanedTransactionMetadata`. Which transactions were aborted is known from
//! the segments' `.txnindex` files.

use std::collections::{BTreeMap, HashMap, HashSet};

use protocol::{Offset, ProducerId, batch::BatchHeader};

use crate::format::AbortedEntry;

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Marker {
    Abort,
    Commit,
    /// A control record that ends no transaction.
    Other,
}

impl Marker {
    /// By a control record's key: version i16, type i16.
    pub(crate) fn of_key(key: Option<&[u8]>) -> Self {
        match key.and_then(|key| key.get(2..4)) {
            Some([0, 0]) => Self::Abort,
            Some([0, 1]) => Self::Commit,
            _ => Self::Other,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Aborted {
    entry: AbortedEntry,
    /// One of its batches was met.
    seen: bool,
}

/// A walk over batches in order of their offsets.
#[derive(Debug, Default)]
pub(crate) struct Transactions {
    /// Aborted ones that begin later, by their first offset.
    ahead: BTreeMap<(Offset, ProducerId), AbortedEntry>,
    aborted: HashMap<ProducerId, Aborted>,
    /// Producers of batches that were met without their transaction's end, which is no abort.
    committed: HashSet<ProducerId>,
    kept: Vec<AbortedEntry>,
}

impl Transactions {
    /// Of a log whose segments' indexes name these as aborted.
    pub(crate) fn new(aborted: &[AbortedEntry]) -> Self {
        let keyed = |&entry: &AbortedEntry| ((entry.first_offset, entry.producer_id), entry);
        Self {
            ahead: aborted.iter().map(keyed).collect(),
            ..Self::default()
        }
    }

    /// The next batch, of data. Whether its records were aborted.
    pub(crate) fn on_data(&mut self, header: &BatchHeader) -> bool {
        self.advance(header.last_offset());
        let Some(producer_id) = header.producer_id.filter(|_| header.is_transactional()) else {
            return false;
        };
        if let Some(aborted) = self.aborted.get_mut(&producer_id) {
            aborted.seen = true;
            return true;
        }
        self.committed.insert(producer_id);
        false
    }

    /// The next batch, of control records; `None` where it has none left. Whether nothing is left of
    /// the transaction that it ended.
    pub(crate) fn on_marker(&mut self, header: &BatchHeader, marker: Option<Marker>) -> bool {
        self.advance(header.last_offset());
        let Some(producer_id) = header.producer_id else {
            return marker.is_none();
        };
        match marker {
            None => true,
            Some(Marker::Abort) => match self.aborted.remove(&producer_id) {
                Some(aborted) if aborted.seen => {
                    self.kept.push(aborted.entry);
                    false
                }
                _ => true,
            },
            Some(Marker::Commit) => !self.committed.remove(&producer_id),
            Some(Marker::Other) => false,
        }
    }

    /// The aborted transactions since the last call whose markers stay: the new segment's index.
    pub(crate) fn take_kept(&mut self) -> Vec<AbortedEntry> {
        std::mem::take(&mut self.kept)
    }

    fn advance(&mut self, offset: Offset) {
        while let Some(next) = self.ahead.first_entry().filter(|next| next.key().0 <= offset) {
            let entry = next.remove();
            self.aborted
                .entry(entry.producer_id)
                .or_insert(Aborted { entry, seen: false });
        }
    }
}

#[cfg(test)]
mod tests {
    use protocol::batch::BatchBuilder;

    use super::*;

    fn header(offset: i64, producer_id: i64, attributes: i16) -> BatchHeader {
        let builder = BatchBuilder {
            base_offset: Offset(offset),
            producer_id,
            producer_epoch: 0,
            attributes,
            ..BatchBuilder::default()
        };
        BatchHeader::parse(&builder.build_records(&[(None, None)])).expect("whole")
    }

    fn data(offset: i64, producer_id: i64) -> BatchHeader {
        header(offset, producer_id, 0x10)
    }

    fn marker(offset: i64, producer_id: i64) -> BatchHeader {
        header(offset, producer_id, 0x30)
    }

    fn aborted(producer_id: i64, first: i64, last: i64) -> AbortedEntry {
        AbortedEntry {
            producer_id: ProducerId(producer_id),
            first_offset: Offset(first),
            last_offset: Offset(last),
            last_stable_offset: Offset(last),
        }
    }

    #[test]
    fn a_marker_outlives_the_batches_of_its_transaction() {
        let mut walk = Transactions::new(&[aborted(1, 0, 4), aborted(1, 10, 12)]);
        assert!(walk.on_data(&data(0, 1)));
        assert!(!walk.on_data(&data(1, 2)));
        assert!(!walk.on_data(&header(2, 1, 0)), "not part of a transaction");
        assert!(
            !walk.on_marker(&marker(4, 1), Some(Marker::Abort)),
            "a batch was there"
        );
        assert!(!walk.on_marker(&marker(5, 2), Some(Marker::Commit)));
        assert_eq!(walk.take_kept(), [aborted(1, 0, 4)]);
        // Nothing is left of these.
        assert!(walk.on_marker(&marker(6, 2), Some(Marker::Commit)));
        assert!(walk.on_marker(&marker(12, 1), Some(Marker::Abort)));
        assert!(walk.on_marker(&marker(13, 1), None));
        assert!(!walk.on_marker(&marker(14, 1), Some(Marker::Other)));
        assert!(walk.take_kept().is_empty());
    }

    #[test]
    fn markers_are_known_by_their_keys() {
        assert_eq!(Marker::of_key(Some(&[0, 0, 0, 0])), Marker::Abort);
        assert_eq!(Marker::of_key(Some(&[0, 0, 0, 1])), Marker::Commit);
        assert_eq!(Marker::of_key(Some(&[0, 0, 0, 2])), Marker::Other);
        assert_eq!(Marker::of_key(Some(&[0])), Marker::Other);
        assert_eq!(Marker::of_key(None), Marker::Other);
    }
}
