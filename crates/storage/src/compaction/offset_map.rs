//! The newest offset of each key, in bounded memory: keys are hashed to 128 bits and not kept.
//!
//! The hash is keyed anew for each map, by two independent SipHashes: a client that does not know
//! the keys cannot make two of its records collide, and by chance it does not happen.

use std::hash::{BuildHasher, Hasher, RandomState};

use protocol::Offset;

/// Bytes of a slot: sixteen of hash, eight of offset, as in Kafka's `SkimpyOffsetMap`.
const SLOT: usize = size_of::<Slot>();
/// A map smaller than this is not worth a bound.
const SLOTS_MIN: usize = 16;

/// Two halves of a hash, and the offset plus one: all zeroes is an empty slot, which the system hands
/// out without writing it.
type Slot = [u64; 3];

/// An open-addressed table with linear probing.
#[derive(Debug)]
pub(crate) struct OffsetMap {
    slots: Vec<Slot>,
    keys: [RandomState; 2],
    len: usize,
    /// Keys that fit by the load factor.
    capacity: usize,
    /// Every record below this offset has been looked at.
    end: Offset,
}

impl OffsetMap {
    /// A map of at most `bytes`, filled up to `load_factor` (0 to 1), for about `expected` keys, that
    /// knows records from `start` on.
    pub(crate) fn new(bytes: u64, load_factor: f64, expected: u64, start: Offset) -> Self {
        let load_factor = if load_factor > 0.0 && load_factor < 1.0 {
            load_factor
        } else {
            0.9
        };
        let most = usize::try_from(bytes / SLOT as u64)
            .unwrap_or(usize::MAX)
            .max(SLOTS_MIN);
        let wanted = (expected as f64 / load_factor).ceil() + 1.0;
        let slots = most.min(wanted as usize).max(SLOTS_MIN);
        Self {
            slots: vec![[0; 3]; slots],
            keys: [RandomState::new(), RandomState::new()],
            len: 0,
            capacity: ((slots as f64 * load_factor) as usize).clamp(1, slots - 1),
            end: start,
        }
    }

    /// Whether another key might not fit.
    pub(crate) fn is_full(&self) -> bool {
        self.len >= self.capacity
    }

    /// How many keys there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Every record from the start up to here is in the map.
    pub(crate) fn end(&self) -> Offset {
        self.end
    }

    /// Everything below `end` has been looked at.
    pub(crate) fn covers_up_to(&mut self, end: Offset) {
        self.end = self.end.max(end);
    }

    /// Notes the newest offset of a key. The caller sees to it that the map is not full.
    pub(crate) fn put(&mut self, key: &[u8], offset: Offset) {
        let hash = self.hash(key);
        let at = self.find(hash);
        if self.slots[at][2] == 0 {
            debug_assert!(self.len < self.slots.len() - 1, "probing must end");
            self.len += 1;
        }
        self.slots[at] = [hash[0], hash[1], offset.0 as u64 + 1];
    }

    /// The newest offset of a key.
    pub(crate) fn get(&self, key: &[u8]) -> Option<Offset> {
        let slot = self.slots[self.find(self.hash(key))];
        slot[2].checked_sub(1).map(|offset| Offset(offset as i64))
    }

    fn hash(&self, key: &[u8]) -> [u64; 2] {
        self.keys.each_ref().map(|state| {
            let mut hasher = state.build_hasher();
            hasher.write(key);
            hasher.finish()
        })
    }

    /// The slot of this hash, or the empty one where it would go.
    fn find(&self, hash: [u64; 2]) -> usize {
        let mut at = (hash[0] % self.slots.len() as u64) as usize;
        while self.slots[at][2] != 0 && self.slots[at][..2] != hash {
            at = (at + 1) % self.slots.len();
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn memory_is_bounded_and_the_bound_is_told() {
        let mut map = OffsetMap::new(24 * 100, 0.9, u64::MAX, Offset(5));
        assert_eq!(map.slots.len(), 100);
        let mut put = 0;
        while !map.is_full() {
            map.put(&u64::to_be_bytes(put), Offset(put as i64));
            put += 1;
        }
        assert_eq!((put, map.len()), (90, 90));
        assert_eq!(map.get(b"absent"), None);
        assert_eq!(map.end(), Offset(5));
        // What is expected to be small takes little, whatever is allowed.
        assert_eq!(OffsetMap::new(1 << 40, 0.9, 9, Offset(0)).slots.len(), 16);
        assert!(!OffsetMap::new(0, 7.0, 1000, Offset(0)).is_full());
    }

    proptest! {
        #[test]
        fn it_is_a_map(puts in proptest::collection::vec((0..40_u8, 0..1000_i64), 0..200)) {
            let mut map = OffsetMap::new(24 * 50, 0.9, 1000, Offset(0));
            let mut model = HashMap::new();
            for (key, offset) in puts {
                map.put(&[key], Offset(offset));
                model.insert(key, offset);
            }
            prop_assert_eq!(map.len(), model.len());
            for key in 0..=255_u8 {
                prop_assert_eq!(map.get(&[key]).map(Offset::get), model.get(&key).copied());
            }
        }
    }
}
