//! The newest batches of a partition that this broker leads, as they lie in its log: what followers are
//! sent next. Without it each of them has the same bytes copied out of the page cache and their
//! checksums computed again, on another thread.
//!
//! A tail holds only what is in the log: it is emptied whenever the replica does not lead any more and
//! before the log is cut. It holds nothing that is committed, because every in-sync follower has that;
//! a follower that is further behind reads the log.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use protocol::batch::{BatchHeader, placed_prefix};
use protocol::{LeaderEpoch, Offset};

/// Bytes that the tails of all partitions of a broker hold together.
const BROKER_BYTES_MAX: usize = 16 << 20;
/// Bytes that one partition's tail holds: what its followers are behind at most while they keep up.
const PARTITION_BYTES_MAX: usize = 4 << 20;
/// What a piece takes beside its bytes.
const PIECE_OVERHEAD: usize = 128;

/// Counts what the tails of a broker hold.
#[derive(Debug, Default)]
pub(crate) struct TailBudget {
    taken: AtomicUsize,
}

impl TailBudget {
    fn take(&self, bytes: usize) -> bool {
        self.taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
                taken.checked_add(bytes).filter(|&sum| sum <= BROKER_BYTES_MAX)
            })
            .is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.taken.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// The batches of one append.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    base: Offset,
    next: Offset,
    batches: usize,
    bytes: Bytes,
}

impl Piece {
    /// Copies what was appended to `base..next` in `epoch`, with the offsets and the epoch that the log
    /// gave it; `None` where the batches do not fill that range.
    pub(super) fn placed(bytes: &[u8], base: Offset, next: Offset, epoch: LeaderEpoch) -> Option<Self> {
        let mut copy = bytes.to_vec();
        let (mut at, mut offset, mut batches) = (0, base, 0);
        while at < copy.len() {
            let header = BatchHeader::parse(&copy[at..]).ok()?;
            let prefix = placed_prefix(&copy[at..], offset, epoch);
            copy[at..at + prefix.len()].copy_from_slice(&prefix);
            offset = offset.checked_add(i64::from(header.last_offset_delta) + 1)?;
            at += header.size;
            batches += 1;
        }
        (offset == next).then(|| Self {
            base,
            next,
            batches,
            bytes: copy.into(),
        })
    }

    fn cost(&self) -> usize {
        self.bytes.len() + PIECE_OVERHEAD
    }
}

/// What a tail has for a follower.
#[derive(Debug)]
pub(super) struct Found {
    /// The offset after the last batch.
    pub(super) next: Offset,
    pieces: Vec<Bytes>,
}

impl Found {
    /// The batches, back to back. A single append's are not copied.
    pub(super) fn into_bytes(mut self) -> Bytes {
        match self.pieces.pop() {
            Some(sole) if self.pieces.is_empty() => sole,
            Some(last) => {
                self.pieces.push(last);
                self.pieces.concat().into()
            }
            None => Bytes::new(),
        }
    }
}

/// The newest batches of one partition, oldest first.
#[derive(Debug)]
pub(super) struct Tail {
    pieces: VecDeque<Piece>,
    /// What they cost; taken from the budget.
    taken: usize,
    budget: Arc<TailBudget>,
}

impl Tail {
    pub(super) fn new(budget: &Arc<TailBudget>) -> Self {
        Self {
            pieces: VecDeque::new(),
            taken: 0,
            budget: Arc::clone(budget),
        }
    }

    /// Takes what has just been appended; older pieces make room for it. Where there is none, it is
    /// read from the log.
    pub(super) fn push(&mut self, piece: Piece) {
        let cost = piece.cost();
        if self.pieces.back().is_some_and(|last| last.next != piece.base) {
            self.clear();
        }
        while self.taken + cost > PARTITION_BYTES_MAX || !self.budget.take(cost) {
            if !self.drop_oldest() {
                return;
            }
        }
        self.taken += cost;
        self.pieces.push_back(piece);
    }

    /// Everything below the high watermark is with all who read here.
    pub(super) fn forget_below(&mut self, high_watermark: Offset) {
        while self
            .pieces
            .front()
            .is_some_and(|piece| piece.next <= high_watermark)
        {
            self.drop_oldest();
        }
        if self.pieces.is_empty() {
            // A burst's room is not kept by thousands of partitions.
            self.pieces = VecDeque::new();
        }
    }

    pub(super) fn clear(&mut self) {
        self.budget.give_back(std::mem::take(&mut self.taken));
        self.pieces = VecDeque::new();
    }

    /// Whole appends from exactly `from` on, up to `max_bytes`; a first batch that alone is larger is
    /// found all the same.
    pub(super) fn find(&self, from: Offset, max_bytes: usize) -> Option<Found> {
        let at = self.pieces.binary_search_by_key(&from, |piece| piece.base).ok()?;
        let mut found = Found {
            next: from,
            pieces: Vec::new(),
        };
        let mut bytes = 0;
        for piece in self.pieces.range(at..) {
            bytes += piece.bytes.len();
            let is_large_batch = found.pieces.is_empty() && piece.batches == 1;
            if bytes > max_bytes && !is_large_batch {
                break;
            }
            found.pieces.push(piece.bytes.clone());
            found.next = piece.next;
        }
        (!found.pieces.is_empty()).then_some(found)
    }

    /// Returns whether there was one.
    fn drop_oldest(&mut self) -> bool {
        let Some(piece) = self.pieces.pop_front() else {
            return false;
        };
        self.taken -= piece.cost();
        self.budget.give_back(piece.cost());
        true
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use protocol::batch::{BatchBuilder, Batches};

    use super::*;

    const EPOCH: LeaderEpoch = LeaderEpoch(7);

    /// Two batches of one append: three records.
    fn piece(base: i64, value: &[u8]) -> Piece {
        let mut bytes = BatchBuilder::default().build_records(&[(None, Some(value)), (None, None)]);
        bytes.extend_from_slice(&BatchBuilder::default().build_records(&[(None, Some(value))]));
        Piece::placed(&bytes, Offset(base), Offset(base + 3), EPOCH).expect("three offsets")
    }

    fn tail() -> Tail {
        Tail::new(&Arc::default())
    }

    #[test]
    fn batches_are_placed_as_in_the_log() {
        let bytes = piece(40, b"v").bytes;
        let headers: Vec<_> = Batches::new(bytes.clone())
            .map(|batch| batch.expect("whole").0)
            .collect();
        let offsets: Vec<_> = headers.iter().map(|h| (h.base_offset, h.last_offset())).collect();
        assert_eq!(offsets, [(Offset(40), Offset(41)), (Offset(42), Offset(42))]);
        assert!(headers.iter().all(|header| header.leader_epoch == EPOCH));
        let other = Piece::placed(&bytes, Offset(40), Offset(44), EPOCH);
        assert!(other.is_none(), "not the offsets that were appended");
    }

    #[test]
    fn appends_are_found_where_they_begin_and_only_whole() {
        let mut tail = tail();
        for base in [0, 3, 6] {
            tail.push(piece(base, b"v"));
        }
        let one = piece(0, b"v").bytes.len();
        assert!(tail.find(Offset(1), usize::MAX).is_none());
        assert!(tail.find(Offset(9), usize::MAX).is_none());
        assert!(
            tail.find(Offset(0), one - 1).is_none(),
            "the log gives its first batch"
        );
        let two = tail.find(Offset(3), 2 * one).expect("it is there");
        assert_eq!(two.next, Offset(9));
        assert_eq!(
            two.into_bytes(),
            [piece(3, b"v").bytes, piece(6, b"v").bytes].concat()
        );
        let first = tail.find(Offset(0), 2 * one - 1).expect("it is there");
        assert_eq!(first.next, Offset(3));
        assert_eq!(first.into_bytes(), piece(0, b"v").bytes);
    }

    #[test]
    fn a_batch_larger_than_asked_for_is_found() {
        let mut tail = tail();
        let bytes = BatchBuilder::default().build_records(&[(None, Some(b"v"))]);
        tail.push(Piece::placed(&bytes, Offset(5), Offset(6), EPOCH).expect("one offset"));
        let found = tail.find(Offset(5), 1).expect("it is there");
        assert_eq!((found.next, found.into_bytes().len()), (Offset(6), bytes.len()));
    }

    #[test]
    fn what_is_committed_or_not_followed_is_forgotten() {
        let mut tail = tail();
        tail.push(piece(0, b"v"));
        tail.push(piece(3, b"v"));
        tail.forget_below(Offset(2));
        assert!(tail.find(Offset(0), usize::MAX).is_some(), "half of it");
        tail.forget_below(Offset(3));
        assert!(tail.find(Offset(0), usize::MAX).is_none());
        assert!(tail.find(Offset(3), usize::MAX).is_some());
        // A gap: something was appended that the tail was not given.
        tail.push(piece(9, b"v"));
        assert!(tail.find(Offset(3), usize::MAX).is_none());
        assert!(tail.find(Offset(9), usize::MAX).is_some());
    }

    #[test]
    fn room_is_bounded_and_given_back() {
        let budget = Arc::new(TailBudget::default());
        let large = vec![0; 700 << 10];
        let mut tails: Vec<_> = (0..5).map(|_| Tail::new(&budget)).collect();
        for tail in &mut tails {
            for i in 0..10 {
                tail.push(piece(3 * i, &large));
                assert!(tail.taken <= PARTITION_BYTES_MAX);
            }
        }
        assert!(budget.taken.load(Ordering::Relaxed) <= BROKER_BYTES_MAX);
        assert!(
            tails[0].find(Offset(27), usize::MAX).is_some(),
            "the newest stays"
        );
        drop(tails);
        assert_eq!(budget.taken.load(Ordering::Relaxed), 0);
    }
}
