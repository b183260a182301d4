//! What racks have when the market has settled, and what it took.

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::coordinator::group::assignor::{market::Market, racks::Rack};

/// A lot before anything is exchanged.
#[derive(Clone, Debug)]
struct Lot {
    rack: Rack,
    near: Vec<(Rack, u32)>,
    is_kept: bool,
}

/// Partitions that are near, then lots that were kept and are at home: what the market wants more of, in
/// this order.
fn value(lots: &[Lot], racks: &[Rack]) -> (u32, usize) {
    let pairs = || lots.iter().zip(racks);
    let near = pairs().flat_map(|(lot, rack)| lot.near.iter().filter(move |(at, _)| at == rack));
    let home = pairs().filter(|(lot, rack)| lot.is_kept && lot.rack == **rack);
    (near.map(|(_, partitions)| partitions).sum(), home.count())
}

/// The best value that can be had with `racks` in any order, from `fixed` on.
fn best_value(lots: &[Lot], racks: &mut [Rack], fixed: usize) -> (u32, usize) {
    if fixed == racks.len() {
        return value(lots, racks);
    }
    let mut best = (0, 0);
    for next in fixed..racks.len() {
        racks.swap(fixed, next);
        best = best.max(best_value(lots, racks, fixed + 1));
        racks.swap(fixed, next);
    }
    best
}

/// Where the lots end, and how many offers were looked at.
fn settle(count: usize, lots: &[Lot]) -> (Vec<Rack>, u64) {
    let mut market = Market::new(count);
    for lot in lots {
        market.add(lot.rack, &lot.near, lot.is_kept);
    }
    let looks = market.settle();
    (market.racks().collect(), looks)
}

/// A lot in one of so many racks, of up to three namesakes.
fn any_lot(racks: usize) -> impl Strategy<Value = Lot> {
    let near = prop::collection::btree_map(0..racks, 1_u32..=3, 0..=racks);
    (0..racks, near, any::<bool>()).prop_map(|(rack, near, is_kept)| Lot {
        rack,
        near: near.into_iter().collect(),
        is_kept,
    })
}

proptest! {
    #[test]
    fn no_other_exchange_is_better(lots in prop::collection::vec(any_lot(4), 0..=6)) {
        let (after, _) = settle(4, &lots);
        let mut before: Vec<Rack> = lots.iter().map(|lot| lot.rack).collect();
        let (value_before, value_after) = (value(&lots, &before), value(&lots, &after));
        prop_assert_eq!(value_after, best_value(&lots, &mut before, 0));
        if value_after.0 == value_before.0 {
            prop_assert_eq!(&after, &before, "nothing moves where nothing comes nearer");
        }
        let mut sorted = after;
        sorted.sort_unstable();
        before.sort_unstable();
        prop_assert_eq!(sorted, before, "every rack has as many as it had");
    }
}

/// Numbers that look like random ones, and are the same each time.
fn numbers() -> impl Iterator<Item = usize> {
    let mut state = 1_u64;
    std::iter::repeat_with(move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    })
}

/// Lots that all lie differently, as far as there are ways to: near in three of the racks, or in two of three.
fn scattered(count: usize, racks: usize, namesakes: usize) -> Vec<Lot> {
    let mut numbers = numbers();
    let lots = (0..count).map(|number| {
        let mut near: BTreeMap<Rack, u32> = BTreeMap::new();
        for _ in 0..namesakes * 3.min(racks - 1) {
            let rack = numbers.next().unwrap_or_default() % racks;
            *near.entry(rack).or_default() += 1;
        }
        Lot {
            rack: number % racks,
            near: near.into_iter().collect(),
            is_kept: number % 2 == 0,
        }
    });
    lots.collect()
}

#[test]
fn many_racks_and_many_lots_that_all_lie_differently_are_little_work() {
    for (racks, namesakes) in [(3, 1), (3, 5), (60, 1), (60, 5)] {
        let looks = [500, 4_000].map(|count| {
            let lots = scattered(count, racks, namesakes);
            let (after, looks) = settle(racks, &lots);
            let before: Vec<Rack> = lots.iter().map(|lot| lot.rack).collect();
            assert!(value(&lots, &after) > value(&lots, &before), "there is work");
            looks
        });
        let (few, many) = (looks[0], looks[1]);
        // To ask every rack once for each lot would be as many looks for each lot as there are pairs of racks.
        assert!(few <= 500 * 8 * racks as u64, "{few} looks with {racks} racks");
        assert!(
            many <= 10 * few,
            "{many} looks for eight times as many, {few} for them"
        );
    }
}
