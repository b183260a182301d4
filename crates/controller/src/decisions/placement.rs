//! Where replicas go: spread over racks, then brokers, with leaders spread evenly too.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{BrokerId, DirectoryId};

use super::{View, directories::Filling};

/// More replicas of a partition are wanted than there are live brokers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("replication factor {wanted} is larger than the {live} brokers that are alive")]
pub struct NotEnoughBrokers {
    /// The replication factor.
    pub wanted: usize,
    /// Brokers that are neither fenced nor shutting down.
    pub live: usize,
}

/// Places the partitions of one request. What it has placed counts for what it places next.
///
/// Within a topic, the next leader is a broker that leads least of it, the next follower one in a rack
/// that the partition is not in yet, and there one that holds least of the topic. Ties go to the broker
/// with the least of the whole cluster, and then by the seed, so that two brokers do not always share
/// their partitions.
#[derive(Debug)]
pub struct Placer {
    live: Vec<Candidate>,
    directories: BTreeMap<BrokerId, Filling>,
    seed: u64,
}

#[derive(Debug)]
struct Candidate {
    id: BrokerId,
    rack: Option<String>,
    /// In the whole cluster.
    total: Load,
}

#[derive(Clone, Copy, Debug, Default)]
struct Load {
    leaders: usize,
    replicas: usize,
}

impl Placer {
    /// Counts what every broker of the view holds. The same view and seed give the same placement.
    pub fn new(view: View<'_>, seed: u64) -> Self {
        let mut loads: BTreeMap<BrokerId, Load> = BTreeMap::new();
        let mut filled: BTreeMap<DirectoryId, usize> = BTreeMap::new();
        for topic in view.image.topics.values() {
            for partition in topic.partitions.values() {
                if let Some(preferred) = partition.preferred_leader() {
                    loads.entry(preferred).or_default().leaders += 1;
                }
                for id in &partition.replicas {
                    loads.entry(*id).or_default().replicas += 1;
                }
                for directory in &partition.directories {
                    *filled.entry(*directory).or_default() += 1;
                }
            }
        }
        let brokers = &view.image.brokers;
        Self {
            live: brokers
                .values()
                .filter(|broker| broker.is_eligible())
                .map(|broker| Candidate {
                    id: broker.id,
                    rack: broker.rack.clone(),
                    total: loads.get(&broker.id).copied().unwrap_or_default(),
                })
                .collect(),
            directories: brokers
                .values()
                .map(|broker| (broker.id, Filling::new(&broker.log_dirs, &filled)))
                .collect(),
            seed,
        }
    }

    /// The replicas of `count` more partitions of a topic, the preferred leader of each first. `held`
    /// are those of the partitions that the topic has.
    pub fn place(
        &mut self,
        held: &[Vec<BrokerId>],
        count: usize,
        replication_factor: usize,
    ) -> Result<Vec<Vec<BrokerId>>, NotEnoughBrokers> {
        if replication_factor > self.live.len() || self.live.is_empty() {
            return Err(NotEnoughBrokers {
                wanted: replication_factor,
                live: self.live.len(),
            });
        }
        let mut topic = self.topic_loads(held);
        Ok((0..count)
            .map(|partition| self.place_partition(&mut topic, partition, replication_factor))
            .collect())
    }

    /// The online directory of the broker with the fewest replicas, the first of several as in Kafka,
    /// counting one more there; the id of all zeroes where the broker has none.
    pub fn directory(&mut self, broker: BrokerId) -> DirectoryId {
        self.directories
            .get_mut(&broker)
            .map_or(DirectoryId::ZERO, Filling::take_emptiest)
    }

    /// Each live broker's share of the topic, in the order of `live`.
    fn topic_loads(&self, held: &[Vec<BrokerId>]) -> Vec<Load> {
        let share = |candidate: &Candidate| Load {
            leaders: held
                .iter()
                .filter(|replicas| replicas.first() == Some(&candidate.id))
                .count(),
            replicas: held
                .iter()
                .filter(|replicas| replicas.contains(&candidate.id))
                .count(),
        };
        self.live.iter().map(share).collect()
    }

    fn place_partition(
        &mut self,
        topic: &mut [Load],
        partition: usize,
        replication_factor: usize,
    ) -> Vec<BrokerId> {
        let mut replicas = Vec::with_capacity(replication_factor);
        let mut racks: BTreeSet<Option<String>> = BTreeSet::new();
        let seed = self.seed;
        while replicas.len() < replication_factor {
            let leads = replicas.is_empty();
            let free = self
                .live
                .iter_mut()
                .zip(topic.iter_mut())
                .filter(|(candidate, _)| !replicas.contains(&candidate.id));
            let best = free.min_by_key(|(candidate, own)| {
                let chance = mix(seed ^ mix((partition as u64) << 32 | u64::from(candidate.id.get() as u32)));
                let total = candidate.total;
                if leads {
                    (
                        false,
                        own.leaders,
                        own.replicas,
                        total.leaders,
                        total.replicas,
                        chance,
                    )
                } else {
                    let rack_taken = racks.contains(&candidate.rack);
                    (
                        rack_taken,
                        own.replicas,
                        total.replicas,
                        own.leaders,
                        total.leaders,
                        chance,
                    )
                }
            });
            let (candidate, own) = best.expect("place() checked that there are enough live brokers");
            for load in [&mut candidate.total, own] {
                load.replicas += 1;
                load.leaders += usize::from(leads);
            }
            racks.insert(candidate.rack.clone());
            replicas.push(candidate.id);
        }
        replicas
    }
}

/// Spreads a number over all 64 bits (the finaliser of SplitMix64).
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
