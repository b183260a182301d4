//! Which faults, in which order, with which pauses: a pure function of the seed.
//!
//! Kinds of faults are dealt like cards: each comes once before any comes again, so that a short run
//! sees most of them. Who leads a partition when its turn comes is the cluster's doing, not the seed's:
//! the schedule names the partition.

use std::{collections::BTreeSet, fmt, time::Duration};

use crate::random::Random;

/// What a run's cluster looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) brokers: u32,
    pub(crate) controllers: u32,
    pub(crate) partitions: i32,
    /// A pause that is to be noticed lasts longer than this.
    pub(crate) session_timeout: Duration,
}

/// Who is struck.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Victim {
    /// A broker by its number, from 1.
    Broker(u32),
    /// A controller by its number, from 1.
    Controller(u32),
    /// The broker that leads this partition when the fault comes.
    LeaderOf(i32),
}

/// What is done to the cluster. Times are in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// `kill -9` of all of them at once, and their return.
    Kill { victims: BTreeSet<Victim>, down_ms: u64 },
    /// SIGSTOP beyond the session timeout, then SIGCONT: a zombie that does not know what it missed.
    Pause { victims: BTreeSet<Victim>, for_ms: u64 },
    /// One is paused, another killed while it is; the killed one returns before the paused one goes on.
    PauseAndKill {
        paused: Victim,
        killed: Victim,
        for_ms: u64,
    },
    /// `kill -9`, and the data directory is gone when the broker returns.
    Wipe { broker: Victim, down_ms: u64 },
    /// SIGTERM, orderly end and return of one node after the other.
    RollingRestart { victims: Vec<Victim> },
}

/// A fault and how long it is quiet before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Episode {
    pub(crate) quiet_ms: u64,
    pub(crate) fault: Fault,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Card {
    KillLeader,
    KillBrokers,
    KillControllers,
    KillLeaderAndController,
    KillEverybody,
    Pause,
    PauseAndKill,
    Wipe,
    RollingRestart,
}

const DECK: [Card; 10] = [
    Card::KillLeader,
    Card::KillLeader,
    Card::KillBrokers,
    Card::KillControllers,
    Card::KillLeaderAndController,
    Card::KillEverybody,
    Card::Pause,
    Card::PauseAndKill,
    Card::Wipe,
    Card::RollingRestart,
];

/// An endless schedule.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    shape: Shape,
    random: Random,
    hand: Vec<Card>,
}

impl Schedule {
    pub(crate) const fn new(shape: Shape, seed: u64) -> Self {
        Self {
            shape,
            random: Random::new(seed),
            hand: Vec::new(),
        }
    }

    /// Half of those that go down come back at once, the others later.
    fn down_ms(&mut self) -> u64 {
        if self.random.one_in(2) {
            0
        } else {
            self.random.between(500, 6000)
        }
    }

    fn broker(&mut self) -> Victim {
        Victim::Broker(1 + self.random.below(self.shape.brokers.into()) as u32)
    }

    fn controller(&mut self) -> Victim {
        Victim::Controller(1 + self.random.below(self.shape.controllers.into()) as u32)
    }

    fn leader(&mut self) -> Victim {
        Victim::LeaderOf(self.random.below(self.shape.partitions as u64) as i32)
    }

    fn any_broker(&mut self) -> Victim {
        if self.random.one_in(2) {
            self.leader()
        } else {
            self.broker()
        }
    }

    /// At least one of them, at random.
    fn some(&mut self, all: impl Iterator<Item = Victim>) -> BTreeSet<Victim> {
        let mut all: Vec<_> = all.collect();
        self.random.shuffle(&mut all);
        let count = 1 + self.random.below(all.len() as u64) as usize;
        all.into_iter().take(count).collect()
    }

    fn beyond_session_timeout(&mut self) -> u64 {
        self.shape.session_timeout.as_millis() as u64 + self.random.between(500, 4000)
    }

    fn play(&mut self, card: Card) -> Fault {
        let Shape {
            brokers, controllers, ..
        } = self.shape;
        let all_brokers = (1..=brokers).map(Victim::Broker);
        let all_controllers = (1..=controllers).map(Victim::Controller);
        match card {
            Card::KillLeader => Fault::Kill {
                victims: BTreeSet::from([self.leader()]),
                down_ms: self.down_ms(),
            },
            Card::KillBrokers => Fault::Kill {
                victims: self.some(all_brokers),
                down_ms: self.down_ms(),
            },
            Card::KillControllers => Fault::Kill {
                victims: self.some(all_controllers),
                down_ms: self.down_ms(),
            },
            Card::KillLeaderAndController => Fault::Kill {
                victims: BTreeSet::from([self.leader(), self.controller()]),
                down_ms: self.down_ms(),
            },
            Card::KillEverybody => Fault::Kill {
                victims: all_brokers.chain(all_controllers).collect(),
                down_ms: self.down_ms(),
            },
            Card::Pause => {
                let victims = if self.random.one_in(3) {
                    BTreeSet::from([self.controller(), self.any_broker()])
                } else {
                    BTreeSet::from([self.any_broker()])
                };
                Fault::Pause {
                    victims,
                    for_ms: self.beyond_session_timeout(),
                }
            }
            Card::PauseAndKill => Fault::PauseAndKill {
                paused: self.leader(),
                killed: self.broker(),
                for_ms: self.beyond_session_timeout(),
            },
            Card::Wipe => Fault::Wipe {
                broker: self.any_broker(),
                down_ms: self.down_ms(),
            },
            Card::RollingRestart => {
                let mut victims: Vec<_> = all_brokers.collect();
                if self.random.one_in(2) {
                    victims.extend(all_controllers);
                }
                self.random.shuffle(&mut victims);
                Fault::RollingRestart { victims }
            }
        }
    }
}

impl Iterator for Schedule {
    type Item = Episode;

    fn next(&mut self) -> Option<Episode> {
        let card = match self.hand.pop() {
            Some(card) => card,
            None => {
                let mut deck = DECK.to_vec();
                self.random.shuffle(&mut deck);
                let card = deck.pop()?;
                self.hand = deck;
                card
            }
        };
        // Sometimes the next fault comes before the last one is over for the cluster.
        let quiet_ms = if self.random.one_in(3) {
            self.random.between(0, 300)
        } else {
            self.random.between(500, 4000)
        };
        let fault = self.play(card);
        Some(Episode { quiet_ms, fault })
    }
}

impl Fault {
    /// What it is counted as.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Kill { .. } => "kill",
            Self::Pause { .. } => "pause",
            Self::PauseAndKill { .. } => "pause-and-kill",
            Self::Wipe { .. } => "wipe",
            Self::RollingRestart { .. } => "rolling-restart",
        }
    }
}

impl fmt::Display for Victim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broker(number) => write!(f, "broker {number}"),
            Self::Controller(number) => write!(f, "controller {number}"),
            Self::LeaderOf(partition) => write!(f, "leader of partition {partition}"),
        }
    }
}

/// Names with commas between them.
fn list<'a>(victims: impl IntoIterator<Item = &'a Victim>) -> String {
    let names: Vec<_> = victims.into_iter().map(ToString::to_string).collect();
    names.join(", ")
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill { victims, down_ms } => {
                write!(f, "kill -9 {}, back after {down_ms} ms", list(victims))
            }
            Self::Pause { victims, for_ms } => write!(f, "pause {} for {for_ms} ms", list(victims)),
            Self::PauseAndKill {
                paused,
                killed,
                for_ms,
            } => write!(f, "pause {paused} for {for_ms} ms and kill -9 {killed} meanwhile"),
            Self::Wipe { broker, down_ms } => {
                write!(f, "kill -9 and wipe {broker}, back after {down_ms} ms")
            }
            Self::RollingRestart { victims } => write!(f, "rolling restart: {}", list(victims)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape {
        brokers: 3,
        controllers: 3,
        partitions: 3,
        session_timeout: Duration::from_secs(3),
    };

    fn first(seed: u64, count: usize) -> Vec<Episode> {
        Schedule::new(SHAPE, seed).take(count).collect()
    }

    #[test]
    fn a_seed_is_a_schedule() {
        assert_eq!(first(7, 50), first(7, 50));
        assert_eq!(first(7, 50)[..20], first(7, 20)[..]);
        assert_ne!(first(7, 50), first(8, 50));
    }

    #[test]
    fn a_seed_stays_the_schedule_it_was() {
        let mut random = Random::new(0);
        // SplitMix64's own test vector.
        assert_eq!(random.next(), 0xE220_A839_7B1D_CDAF);
        assert_eq!(random.next(), 0x6E78_9E6A_A1B9_65F4);
    }

    #[test]
    fn every_kind_comes_in_every_deal() {
        for seed in 0..50 {
            let kinds: BTreeSet<_> = first(seed, DECK.len())
                .iter()
                .map(|episode| episode.fault.kind())
                .collect();
            assert_eq!(kinds.len(), 5, "seed {seed}");
        }
    }

    #[test]
    fn victims_exist_and_pauses_are_noticed() {
        let exists = |victim: &Victim| match *victim {
            Victim::Broker(number) | Victim::Controller(number) => (1..=3).contains(&number),
            Victim::LeaderOf(partition) => (0..3).contains(&partition),
        };
        for episode in first(3, 500) {
            match episode.fault {
                Fault::Kill { victims, .. } => {
                    assert!(!victims.is_empty() && victims.iter().all(exists));
                }
                Fault::Pause { victims, for_ms } => {
                    assert!(victims.iter().all(exists) && for_ms > 3000);
                }
                Fault::PauseAndKill {
                    paused,
                    killed,
                    for_ms,
                } => {
                    assert!(exists(&paused) && exists(&killed) && for_ms > 3000);
                }
                Fault::Wipe { broker, .. } => assert!(exists(&broker)),
                Fault::RollingRestart { victims } => assert!(victims.iter().all(exists)),
            }
        }
    }
}
