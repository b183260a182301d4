//! Members exchange what they were given, so that more of it is near them.
//!
//! **What is exchanged.** In a ring of racks each gives one lot to the next: every rack has as many as before.
//! Members of one rack are near the same, so it is enough to look for rings of racks, which are few, and not
//! of members. A ring is turned if more is near afterwards, or as much and more is back in the rack of the
//! member that had it before the assignment. Racks trade on a [`Market`] until no such ring is left; then no
//! other assignment that gives everyone as many has more near: any other one differs from this by rings.
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
    market::Market,
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
    let mut market = Market::new(racks.count());
    for lot in lots.iter() {
        let is_kept = lot.former == Some(lot.owner);
        market.add(racks.of_member(lot.owner), &lot.near, is_kept);
    }
    market.settle();
    hand_out(lots, market.racks(), racks);
}

/// Gives what has come to each rack to those of its members who gave something away, as many as they gave:
/// to whom had it before if possible, or else to the first of them.
fn hand_out(lots: &mut [Lot], now_in: impl Iterator<Item = Rack>, racks: &Racks<'_>) {
    let came = lots.iter_mut().zip(now_in);
    let mut came: Vec<(&mut Lot, Rack)> = came
        .filter(|(lot, rack)| racks.of_member(lot.owner) != *rack)
        .collect();
    // How many each of a rack's members gave away.
    let mut room: Vec<BTreeMap<Place, usize>> = vec![BTreeMap::new(); racks.count()];
    for (lot, _) in &came {
        *room[racks.of_member(lot.owner)].entry(lot.owner).or_default() += 1;
    }
    came.retain_mut(|(lot, rack)| {
        let former = lot.former.filter(|former| room[*rack].contains_key(former));
        if let Some(former) = former {
            give(lot, former, &mut room[*rack]);
        }
        former.is_none()
    });
    for (lot, rack) in came {
        let first = room[rack].keys().next().copied();
        let first = first.expect("a rack gets as many as it gives");
        give(lot, first, &mut room[rack]);
    }
}

/// Gives a lot to a member that has room.
fn give(lot: &mut Lot, to: Place, room: &mut BTreeMap<Place, usize>) {
    lot.owner = to;
    if let Some(left) = room.get_mut(&to) {
        *left -= 1;
        if *left == 0 {
            room.remove(&to);
        }
    }
}
