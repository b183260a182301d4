//! Replicas are spread evenly, over racks first.

use std::collections::{BTreeMap, BTreeSet};

use controller::decisions::{NotEnoughBrokers, Placer};
use proptest::prelude::*;
use protocol::BrokerId;

use crate::cluster::Cluster;

const RACKS: [&str; 4] = ["a", "b", "c", "d"];

fn counts(of: impl Iterator<Item = BrokerId>, brokers: i32) -> Vec<usize> {
    let mut counts: BTreeMap<BrokerId, usize> = (1..=brokers).map(|id| (BrokerId(id), 0)).collect();
    for id in of {
        *counts.entry(id).or_default() += 1;
    }
    counts.into_values().collect()
}

fn spread(counts: &[usize]) -> usize {
    counts.iter().max().unwrap_or(&0) - counts.iter().min().unwrap_or(&0)
}

proptest! {
    #[test]
    fn a_topic_is_spread_evenly(
        brokers_per_rack in 1..5i32,
        racks in 1..5usize,
        partitions in 1..60usize,
        factor in 1..6usize,
        seed: u64,
    ) {
        // Racks of equal size: only then can brokers be equal too.
        let brokers = brokers_per_rack * racks as i32;
        let all: Vec<_> = (1..=brokers).collect();
        let cluster = Cluster::with_brokers(&all, |id| RACKS[id as usize % racks]);
        let placed = Placer::new(cluster.view(), seed).place(&[], partitions, factor);
        if factor > all.len() {
            prop_assert_eq!(placed, Err(NotEnoughBrokers { wanted: factor, live: all.len() }));
            return Ok(());
        }
        let placed = placed.expect("enough brokers");
        prop_assert_eq!(placed.len(), partitions);
        prop_assert_eq!(&placed, &Placer::new(cluster.view(), seed).place(&[], partitions, factor).expect("same"));
        for replicas in &placed {
            prop_assert_eq!(replicas.iter().collect::<BTreeSet<_>>().len(), factor);
            let in_racks: BTreeSet<_> = replicas.iter().map(|id| id.get() as usize % racks).collect();
            prop_assert_eq!(in_racks.len(), factor.min(racks));
        }
        let leaders = counts(placed.iter().map(|replicas| replicas[0]), brokers);
        prop_assert!(spread(&leaders) <= 1, "leaders {:?}", leaders);
        let replicas = counts(placed.iter().flatten().copied(), brokers);
        prop_assert!(spread(&replicas) <= 2, "replicas {:?}", replicas);
    }
}

#[test]
fn a_small_topic_goes_to_the_brokers_with_least() {
    let mut cluster = Cluster::with_brokers(&[1, 2, 3], |_| "");
    for name in ["a", "b", "c"] {
        cluster.create(name, &[1, 2], &[]);
    }
    let placed = Placer::new(cluster.view(), 0).place(&[], 1, 1).expect("enough");
    assert_eq!(placed, [[BrokerId(3)]]);
}

#[test]
fn brokers_do_not_always_share_their_partitions() {
    let all: Vec<_> = (1..=6).collect();
    let cluster = Cluster::with_brokers(&all, |_| "");
    let placed = Placer::new(cluster.view(), 1).place(&[], 60, 2).expect("enough");
    let pairs: BTreeSet<_> = placed.into_iter().collect();
    assert!(pairs.len() > 12, "{} different pairs of 30", pairs.len());
}

#[test]
fn fenced_brokers_get_nothing() {
    let mut cluster = Cluster::with_brokers(&[1, 2, 3], |_| "");
    cluster.fence(2);
    let placed = Placer::new(cluster.view(), 0).place(&[], 4, 2).expect("enough");
    assert!(placed.iter().flatten().all(|&id| id != BrokerId(2)));
}
