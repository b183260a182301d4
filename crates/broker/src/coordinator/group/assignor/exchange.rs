//! Members exchange what they were given, so that more of it is near them.
//!
//! **What is exchanged.** In a ring of racks each gives one lot to the next: every member has as many as
//! before. Members of one rack are near the same, so it is enough to look for rings of racks, which are few,
//! and not of members. A ring is turned if more is near afterwards, or as much and more is back in the rack of
//! the member that had it before the assignment. When no such ring is left, no other assignment that gives everyone as many has
//! more near: any other one differs from this by rings.
//!
//! **What moves.** A lot leaves who had it before only in a ring that brings at least one lot nearer. That is
//! Kafka's order too, in 3.7 and in what is proposed for later ones (KAFKA-19909): balance, then racks, then
//! owners. The other order would keep whatever came about while members started one after the other or were
//! away, and would make nothing of brokers that changed their racks; and a move costs once, a distance with
//! every byte. Where nothing comes nearer, nothing is exchanged. So an assignment that is computed again from
//! its own result stays as it is: nobody lost anything, and no ring is left.

use std::collections::BTreeMap;

use super::{
    Place,
    racks::{Rack, Racks},
};

/// In which racks a lot is near, with how many partitions; in one order of the racks for all lots.
pub(super) type Near = Vec<(Rack, u32)>;

/// What is owned as one: a partition, or partitions of several topics that stay together.
#[derive(Clone, Debug)]
pub(super) struct Lot {
    /// Who is to have it. After the exchange, that may be another one.
    pub(super) owner: Place,
    /// Who had it until now.
    pub(super) former: Option<Place>,
    /// Where it is near.
    pub(super) near: Near,
}

/// Exchanges lots among their owners. Everyone has as many as before, and as much as possible is near.
pub(super) fn exchange(lots: &mut [Lot], racks: &Racks<'_>) {
    if lots.windows(2).all(|pair| pair[0].near == pair[1].near) {
        return;
    }
    let mut market = Market::open(lots, racks);
    while market.turn_rings() {}
}

/// Lots that are worth the same wherever they are.
#[derive(Debug)]
struct Class {
    /// By racks; nothing elsewhere.
    worth: BTreeMap<Rack, i64>,
    /// Whether their first owners had them before.
    kept: bool,
}

impl Class {
    /// `home` is where the owner is, if it had the lot before. One partition that is near is worth more than
    /// all that a ring can take home.
    fn new(near: Near, home: Option<Rack>, racks: usize) -> Self {
        let unit = racks as i64 + 1;
        let near = near
            .into_iter()
            .map(|(rack, partitions)| (rack, i64::from(partitions) * unit));
        let mut worth: BTreeMap<Rack, i64> = near.collect();
        if let Some(home) = home {
            *worth.entry(home).or_default() += 1;
        }
        Self {
            worth,
            kept: home.is_some(),
        }
    }

    fn worth_in(&self, rack: Rack) -> i64 {
        self.worth.get(&rack).copied().unwrap_or(0)
    }
}

type ClassNumber = usize;

/// The lots of one class in one rack, by their owners.
#[derive(Debug, Default)]
struct Pile {
    lots: BTreeMap<Place, Vec<usize>>,
    size: usize,
}

impl Pile {
    fn put(&mut self, owner: Place, lot: usize) {
        self.lots.entry(owner).or_default().push(lot);
        self.size += 1;
    }

    /// Takes a lot, of this owner if it has one.
    fn take(&mut self, owner: Option<Place>) -> Option<usize> {
        let owner = owner
            .filter(|owner| self.lots.contains_key(owner))
            .or_else(|| self.lots.keys().next().copied())?;
        let of_owner = self.lots.get_mut(&owner)?;
        let lot = of_owner.pop();
        if of_owner.is_empty() {
            self.lots.remove(&owner);
        }
        self.size -= 1;
        lot
    }
}

/// The best that a rack can give to another one.
#[derive(Clone, Copy, Debug)]
struct Offer {
    /// What the lot is worth more there than here.
    gain: i64,
    class: ClassNumber,
}

/// One rack's part in a ring.
#[derive(Clone, Copy, Debug)]
struct Step {
    from: Rack,
    to: Rack,
    class: ClassNumber,
}

struct Market<'a> {
    lots: &'a mut [Lot],
    classes: Vec<Class>,
    /// By racks; no pile is empty.
    piles: Vec<BTreeMap<ClassNumber, Pile>>,
    /// By the rack that gives and the one that gets.
    offers: Vec<Vec<Option<Offer>>>,
}

impl<'a> Market<'a> {
    fn open(lots: &'a mut [Lot], racks: &Racks<'_>) -> Self {
        let mut numbers: BTreeMap<(Near, Option<Rack>), ClassNumber> = BTreeMap::new();
        let mut piles: Vec<BTreeMap<ClassNumber, Pile>> = Vec::new();
        piles.resize_with(racks.count(), BTreeMap::new);
        for (number, lot) in lots.iter_mut().enumerate() {
            let rack = racks.of_member(lot.owner);
            let home = (lot.former == Some(lot.owner)).then_some(rack);
            let next = numbers.len();
            let class = *numbers
                .entry((std::mem::take(&mut lot.near), home))
                .or_insert(next);
            piles[rack].entry(class).or_default().put(lot.owner, number);
        }
        let mut classes: Vec<(ClassNumber, Class)> = numbers
            .into_iter()
            .map(|((near, home), number)| (number, Class::new(near, home, racks.count())))
            .collect();
        classes.sort_unstable_by_key(|(number, _)| *number);
        let mut market = Self {
            lots,
            classes: classes.into_iter().map(|(_, class)| class).collect(),
            piles,
            offers: Vec::new(),
        };
        market.offers = (0..racks.count()).map(|rack| market.offers_of(rack)).collect();
        market
    }

    /// What a rack can give to each.
    fn offers_of(&self, from: Rack) -> Vec<Option<Offer>> {
        let offers = self.piles[from].keys().map(|&class| {
            let gain = -self.classes[class].worth_in(from);
            Offer { gain, class }
        });
        // Where nothing of it is near, the best is what is worth least here.
        let anywhere = offers.reduce(|best, offer| if offer.gain > best.gain { offer } else { best });
        let mut best = vec![anywhere; self.piles.len()];
        for &class in self.piles[from].keys() {
            let worth = &self.classes[class].worth;
            let here = self.classes[class].worth_in(from);
            for (&to, &there) in worth {
                let gain = there - here;
                if best[to].is_none_or(|best| gain > best.gain) {
                    best[to] = Some(Offer { gain, class });
                }
            }
        }
        best
    }

    /// Turns the rings that are found first, as often as that is worth the same. False if there is none.
    fn turn_rings(&mut self) -> bool {
        let rings = self.rings();
        for ring in &rings {
            self.turn(ring);
        }
        !rings.is_empty()
    }

    /// Rings of racks that gain something, no two of them with a rack in common: Bellman's and Ford's search
    /// for the best ways, from everywhere at once, until a way comes back to itself.
    fn rings(&self) -> Vec<Vec<Step>> {
        let racks = self.piles.len();
        let mut gained = vec![0_i64; racks];
        let mut through: Vec<Option<Step>> = vec![None; racks];
        // Without such a ring, no best way has more racks than there are.
        for _ in 0..=racks {
            let mut is_better = false;
            for from in 0..racks {
                for to in (0..racks).filter(|&to| to != from) {
                    if let Some(Offer { gain, class }) = self.offers[from][to]
                        && gained[from] + gain > gained[to]
                    {
                        gained[to] = gained[from] + gain;
                        through[to] = Some(Step { from, to, class });
                        is_better = true;
                    }
                }
            }
            if !is_better {
                break;
            }
            let rings = closed(&through);
            if !rings.is_empty() {
                return rings;
            }
        }
        Vec::new()
    }

    /// Turns a ring for as long as all of its racks have lots of its classes.
    fn turn(&mut self, ring: &[Step]) {
        // Each lot goes to the owner of the next one. So the next one is best of who had this one before: it
        // gets back what it had. Only a lot that its owner has not kept can have had another one.
        let begin = ring.iter().position(|step| !self.classes[step.class].kept);
        let mut ring = ring.to_vec();
        ring.rotate_left(begin.unwrap_or(0));

        let sizes = ring.iter().map(|step| self.piles[step.from][&step.class].size);
        for _ in 0..sizes.min().unwrap_or(0) {
            let mut wanted = None;
            let mut given = Vec::with_capacity(ring.len());
            for step in &ring {
                let pile = self.piles[step.from].get_mut(&step.class);
                let lot = pile.and_then(|pile| pile.take(wanted));
                let lot = lot.expect("each pile has a lot for each turn");
                wanted = self.lots[lot].former;
                given.push((lot, self.lots[lot].owner));
            }
            for (number, step) in ring.iter().enumerate() {
                let (lot, _) = given[number];
                let (_, owner) = given[(number + 1) % given.len()];
                self.lots[lot].owner = owner;
                let pile = self.piles[step.to].entry(step.class).or_default();
                pile.put(owner, lot);
            }
        }
        for step in &ring {
            self.piles[step.from].retain(|_, pile| pile.size > 0);
            self.offers[step.from] = self.offers_of(step.from);
        }
    }
}

/// The rings among the ways that were found, by the step that leads to each rack.
fn closed(through: &[Option<Step>]) -> Vec<Vec<Step>> {
    let mut rings = Vec::new();
    let mut seen: Vec<Option<Rack>> = vec![None; through.len()];
    for start in 0..through.len() {
        let mut at = start;
        while seen[at].is_none() {
            seen[at] = Some(start);
            let Some(step) = through[at] else {
                break;
            };
            at = step.from;
        }
        // Who comes back to where it was itself, has gone around.
        let mut ring = Vec::new();
        if seen[at] == Some(start) {
            let end = at;
            while let Some(step) = through[at] {
                ring.push(step);
                at = step.from;
                if at == end {
                    break;
                }
            }
        }
        if !ring.is_empty() {
            ring.reverse();
            rings.push(ring);
        }
    }
    rings
}
