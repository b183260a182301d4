//! A market on which racks exchange lots in rings, until no ring gains anything.
//!
//! **How rings are found.** Every rack has a price. An offer *pays* if it gains more than the price of the rack
//! that gets is above that of the rack that gives; then the price of the one that gets rises until it pays no
//! more. Once no offer pays, no ring gains anything, for around a ring the differences of prices add up to
//! nothing. Until then, who raised whose price leads to the rings: a rack that offers what pays to another
//! one, whose price is behind its own, closes one. And that ring gains: prices never fall, so each is at most
//! what the rack before and its offer make it, and one of them is less. (This is Bellman's and Ford's search
//! for the best ways, from everywhere at once; prices are what the ways gain.)
//!
//! A ring is turned for as long as it gains. Then the search goes on with the prices as they are: only the
//! racks of the ring have other offers now, and they are asked again, as are those whose prices rise.
//!
//! **What it costs.** To ask a rack is one look at its best offer to each of the others. Offers are kept in
//! heaps: what a lot offers is put there when it comes to a rack, and dropped when it comes up after the lot
//! has left. So a move costs as many heaps as there are racks where the lot is near, and the logarithm of
//! what is in them.

use std::collections::{BTreeMap, BinaryHeap};

use super::racks::Rack;

/// A lot that a rack can give to another one. The greatest is the best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Offer {
    /// What the lot is worth more there than here.
    gain: i64,
    /// Of two that gain as much, the last: what is owned in a range stays one for longer.
    lot: LotNumber,
}

/// A lot's place among those that were added.
type LotNumber = usize;

#[derive(Debug)]
struct Lot {
    /// Where it is now.
    rack: Rack,
    /// By racks, and more than nothing there; nothing elsewhere.
    worth: BTreeMap<Rack, i64>,
}

impl Lot {
    fn worth_in(&self, rack: Rack) -> i64 {
        self.worth.get(&rack).copied().unwrap_or(0)
    }
}

/// What a rack offers, the best first. Some of it may have left the rack.
#[derive(Clone, Debug)]
struct Stall {
    /// Every lot, as if it were worth nothing elsewhere.
    to_any: BinaryHeap<Offer>,
    /// By racks, the lots that are worth something there.
    to: Vec<BinaryHeap<Offer>>,
}

/// Racks with their lots, and how far they are with exchanging them.
#[derive(Debug)]
pub(super) struct Market {
    lots: Vec<Lot>,
    /// By racks, as what follows.
    stalls: Vec<Stall>,
    prices: Vec<i64>,
    /// Whose offer made the price what it is, while that rack has the same offers.
    raised_by: Vec<Option<Rack>>,
    /// Whether any of its offers may pay.
    may_pay: Vec<bool>,
    /// How many offers have been looked at.
    looks: u64,
}

impl Market {
    pub(super) fn new(racks: usize) -> Self {
        let stall = Stall {
            to_any: BinaryHeap::new(),
            to: vec![BinaryHeap::new(); racks],
        };
        Self {
            lots: Vec::new(),
            stalls: vec![stall; racks],
            prices: vec![0; racks],
            raised_by: vec![None; racks],
            may_pay: vec![true; racks],
            looks: 0,
        }
    }

    /// Adds a lot that is in this rack. It is near in those, with so many partitions; if its owner has kept
    /// it, its home is where it is.
    pub(super) fn add(&mut self, rack: Rack, near: &[(Rack, u32)], is_kept: bool) {
        // One partition that is near is worth more than all that a ring can take home.
        let unit = self.stalls.len() as i64 + 1;
        let near = near
            .iter()
            .map(|&(rack, partitions)| (rack, i64::from(partitions) * unit));
        let mut worth: BTreeMap<Rack, i64> = near.collect();
        if is_kept {
            *worth.entry(rack).or_default() += 1;
        }
        self.lots.push(Lot { rack, worth });
        self.put(self.lots.len() - 1, rack);
    }

    /// Has racks exchange lots until no ring gains anything.
    ///
    /// Returns how many offers were looked at, which is what it costs.
    pub(super) fn settle(&mut self) -> u64 {
        while self.may_pay.contains(&true) {
            for rack in 0..self.may_pay.len() {
                if std::mem::take(&mut self.may_pay[rack]) {
                    self.ask(rack);
                }
            }
        }
        self.looks
    }

    /// Where each lot is, in the order in which they were added.
    pub(super) fn racks(&self) -> impl Iterator<Item = Rack> {
        self.lots.iter().map(|lot| lot.rack)
    }

    /// Puts a lot into a rack, with all that it offers from there.
    fn put(&mut self, number: LotNumber, rack: Rack) {
        let lot = &mut self.lots[number];
        lot.rack = rack;
        let here = lot.worth_in(rack);
        let offer = |there: i64| Offer {
            gain: there - here,
            lot: number,
        };
        let stall = &mut self.stalls[rack];
        stall.to_any.push(offer(0));
        for (&to, &there) in &lot.worth {
            stall.to[to].push(offer(there));
        }
    }

    /// A rack's best offer to another one; `None` if it has nothing.
    fn best(&mut self, from: Rack, to: Rack) -> Option<Offer> {
        self.looks += 1;
        let stall = &mut self.stalls[from];
        let heaps = [&mut stall.to_any, &mut stall.to[to]];
        let [to_any, to_this] = heaps.map(|offers| {
            while let Some(&offer) = offers.peek() {
                if self.lots[offer.lot].rack == from {
                    return Some(offer);
                }
                offers.pop();
            }
            None
        });
        to_any.max(to_this)
    }

    /// Raises the prices of racks to which this one's offers pay, or turns the first ring that is found.
    fn ask(&mut self, from: Rack) {
        let raised = std::iter::successors(Some(from), |&rack| self.raised_by[rack]);
        let raised: Vec<Rack> = raised.collect();
        for to in 0..self.stalls.len() {
            let Some(offer) = self.best(from, to) else {
                return;
            };
            let price = self.prices[from] + offer.gain;
            if price <= self.prices[to] {
                continue;
            }
            if let Some(end) = raised.iter().position(|&rack| rack == to) {
                return self.turn(raised[..=end].iter().rev().copied().collect());
            }
            self.prices[to] = price;
            self.raised_by[to] = Some(from);
            self.may_pay[to] = true;
        }
    }

    /// Turns a ring for as long as it gains something: each of the racks gives to the next one.
    fn turn(&mut self, ring: Vec<Rack>) {
        while let Some(lots) = self.lots_of(&ring) {
            for (step, lot) in lots.into_iter().enumerate() {
                self.put(lot, ring[(step + 1) % ring.len()]);
            }
        }
        for &rack in &ring {
            self.may_pay[rack] = true;
        }
        for raised_by in &mut self.raised_by {
            raised_by.take_if(|rack| ring.contains(rack));
        }
    }

    /// What each rack of a ring is to give, if that gains something.
    fn lots_of(&mut self, ring: &[Rack]) -> Option<Vec<LotNumber>> {
        let mut gain = 0;
        let mut lots = Vec::with_capacity(ring.len());
        for (step, &from) in ring.iter().enumerate() {
            let offer = self.best(from, ring[(step + 1) % ring.len()])?;
            gain += offer.gain;
            lots.push(offer.lot);
        }
        (gain > 0).then_some(lots)
    }
}
