//! Who is alive: broker sessions as the active controller sees them, driven by events and the time.
//!
//! A tracker lives as long as one controller epoch. It says whom to probe, fence and unfence; it holds
//! no connection and changes no image.
//!
//! ```text
//!               connected                  silent for the session timeout: Fence
//!      Away ─────────────────► Connected ───────────────────────────────────────► gone
//!     │    ▲                       │
//!     │    └───────────────────────┘ disconnected: Probe at once
//!     ├── the process is dead (refused, or another incarnation): Fence ─────────► gone
//!     └── silent: probed again and again; session timeout: Fence ───────────────► gone
//! ```
//!
//! A new controller begins with every unfenced broker `Away`: each gets a moment to come by itself, and is
//! probed then (`docs/decisions/0013`).

use std::collections::BTreeMap;

use metadata::ClusterImage;
use protocol::{BrokerEpoch, BrokerId, IncarnationId, Offset};

/// A moment on a clock that never goes back, in milliseconds since any one beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now(pub u64);

impl Now {
    /// This moment moved by so many milliseconds.
    #[must_use]
    pub const fn plus(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis))
    }
}

/// One stream of one broker; a later stream has another number, under another controller epoch too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// What the controller shall do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionAction {
    /// Ask the broker's internal port who answers, and report it with [`SessionTracker::probe_result`].
    Probe {
        /// Whom.
        broker: BrokerId,
        /// `host:port` of its internal port.
        address: String,
        /// The incarnation that is looked for.
        incarnation: IncarnationId,
        /// Its session that broke, or that it has not opened yet.
        session: SessionId,
    },
    /// Fence the broker and end its session, where it has one: a broker that is alive opens another.
    Fence(BrokerId),
    /// Unfence the broker: it has caught up.
    Unfence(BrokerId, BrokerEpoch),
}

/// What a probe found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeResult {
    /// The connection was refused: no process listens.
    Refused,
    /// Another process answered.
    OtherIncarnation,
    /// The process that is looked for answered: it will open a session.
    Alive,
    /// Nothing came back.
    Silent,
}

/// A heartbeat of a session that is over: its stream must be ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the session is over")]
pub struct SessionOver;

/// How long after an unsuccessful probe the next one follows, in milliseconds.
const PROBE_INTERVAL_MS: u64 = 100;

/// How long a new controller waits before it probes the brokers that have not come by themselves, in
/// milliseconds. A live one finds it within a fraction of that, so that a change of controllers alone
/// costs no probes; a dead one costs its partitions this long.
pub(super) const GRACE_MS: u64 = 500;

/// Probes that are under way at once; the next ones wait, whoever is due longest first. One of silence
/// takes half a second, so that within a session timeout some two hundred silent brokers get their turn.
pub(super) const PROBES_AT_ONCE: usize = 32;

/// The sessions of one controller epoch.
#[derive(Clone, Debug)]
pub struct SessionTracker {
    session_timeout_ms: u64,
    next_session: u64,
    brokers: BTreeMap<BrokerId, Broker>,
}

#[derive(Clone, Debug)]
struct Broker {
    /// When it is fenced if nothing is heard of it.
    deadline: Now,
    /// Its session; in a new controller's tracker the one that it is expected to open.
    session: SessionId,
    epoch: BrokerEpoch,
    incarnation: IncarnationId,
    /// `host:port` of its internal port.
    address: String,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Connected {
        catch_up_to: Offset,
        applied: Option<Offset>,
    },
    /// Its session ended without goodbye, or it has not opened one with this controller yet.
    Away { probe: Probe },
}

#[derive(Clone, Copy, Debug)]
enum Probe {
    Due(Now),
    UnderWay,
}

impl SessionTracker {
    /// Begins a controller epoch at `now` with the image of its claim: every unfenced broker has a full
    /// session timeout to open a session. One that has not after a short grace is probed: where its process
    /// is dead there is nothing to wait for.
    pub fn new(session_timeout_ms: u64, image: &ClusterImage, now: Now) -> Self {
        let mut tracker = Self {
            session_timeout_ms,
            // A process may be the active controller more than once: what it heard of an earlier epoch's
            // sessions must mean nothing to this one's.
            next_session: u64::from(image.epoch.get().unsigned_abs()) << 32,
            brokers: BTreeMap::new(),
        };
        for broker in image.live_brokers() {
            let expected = Broker {
                deadline: now.plus(session_timeout_ms),
                session: tracker.next_session(),
                epoch: broker.epoch,
                incarnation: broker.incarnation,
                address: broker.internal_address.clone(),
                state: State::Away {
                    probe: Probe::Due(now.plus(GRACE_MS)),
                },
            };
            tracker.brokers.insert(broker.id, expected);
        }
        tracker
    }

    /// A registered broker opened a session. It may be unfenced once it has applied `catch_up_to`.
    /// An earlier session of the broker is over.
    pub fn connected(
        &mut self,
        broker: BrokerId,
        epoch: BrokerEpoch,
        incarnation: IncarnationId,
        internal_address: String,
        catch_up_to: Offset,
        now: Now,
    ) -> SessionId {
        let session = self.next_session();
        let entry = Broker {
            deadline: now.plus(self.session_timeout_ms),
            session,
            epoch,
            incarnation,
            address: internal_address,
            state: State::Connected {
                catch_up_to,
                applied: None,
            },
        };
        self.brokers.insert(broker, entry);
        session
    }

    /// A heartbeat: the broker has applied the metadata log up to `applied`, and is fenced or not in
    /// the speculative image.
    pub fn heartbeat(
        &mut self,
        broker: BrokerId,
        id: SessionId,
        applied: Offset,
        fenced: bool,
        now: Now,
    ) -> Result<Vec<SessionAction>, SessionOver> {
        let deadline = now.plus(self.session_timeout_ms);
        let entry = self.of_session(broker, id).ok_or(SessionOver)?;
        let State::Connected {
            catch_up_to,
            applied: before,
        } = &mut entry.state
        else {
            return Err(SessionOver);
        };
        *before = (*before).max(Some(applied));
        let unfence = fenced && applied >= *catch_up_to;
        let action = unfence.then_some(SessionAction::Unfence(broker, entry.epoch));
        entry.deadline = deadline;
        Ok(action.into_iter().collect())
    }

    /// A session's stream ended. The end of one that is over already means nothing.
    pub fn disconnected(&mut self, broker: BrokerId, id: SessionId, now: Now) -> Vec<SessionAction> {
        let Some(entry) = self.of_session(broker, id) else {
            return Vec::new();
        };
        if let State::Connected { .. } = entry.state {
            // The deadline stays: it counts from the last heartbeat.
            entry.state = State::Away {
                probe: Probe::Due(now),
            };
        }
        self.probe_due(now)
    }

    /// What a probe found. Of a session that is over it means nothing: the broker has opened another one
    /// since, or is fenced already.
    pub fn probe_result(
        &mut self,
        broker: BrokerId,
        id: SessionId,
        result: ProbeResult,
        now: Now,
    ) -> Option<SessionAction> {
        let entry = self.of_session(broker, id)?;
        let State::Away { probe } = &mut entry.state else {
            return None;
        };
        match result {
            ProbeResult::Refused | ProbeResult::OtherIncarnation => {
                self.brokers.remove(&broker);
                Some(SessionAction::Fence(broker))
            }
            ProbeResult::Alive | ProbeResult::Silent => {
                *probe = Probe::Due(now.plus(PROBE_INTERVAL_MS));
                None
            }
        }
    }

    /// The time moved on.
    pub fn tick(&mut self, now: Now) -> Vec<SessionAction> {
        let mut actions = Vec::new();
        self.brokers.retain(|&broker, entry| {
            let silent = entry.deadline <= now;
            if silent {
                actions.push(SessionAction::Fence(broker));
            }
            !silent
        });
        actions.extend(self.probe_due(now));
        actions
    }

    /// When [`Self::tick`] has something to do next.
    pub fn next_deadline(&self) -> Option<Now> {
        // Who waits for a free probe is due when one of those under way has ended.
        let probes_wait = self.probes_under_way() >= PROBES_AT_ONCE;
        let entries = self.brokers.values();
        entries
            .map(|entry| match entry.state {
                State::Away {
                    probe: Probe::Due(at),
                } if !probes_wait => entry.deadline.min(at),
                State::Away { .. } | State::Connected { .. } => entry.deadline,
            })
            .min()
    }

    /// Ends whatever is known of a broker: it was unregistered, or said goodbye.
    pub fn forget(&mut self, broker: BrokerId) {
        self.brokers.remove(&broker);
    }

    /// The incarnation that has a live session, where one has.
    pub fn connected_incarnation(&self, broker: BrokerId) -> Option<IncarnationId> {
        let entry = self.brokers.get(&broker)?;
        matches!(entry.state, State::Connected { .. }).then_some(entry.incarnation)
    }

    /// What the broker's live session has applied of the metadata log.
    pub fn applied(&self, broker: BrokerId) -> Option<Offset> {
        match self.brokers.get(&broker)?.state {
            State::Connected { applied, .. } => applied,
            State::Away { .. } => None,
        }
    }

    /// Whether every unfenced broker of the image has applied the metadata log up to `offset`.
    pub fn all_applied(&self, image: &ClusterImage, offset: Offset) -> bool {
        image
            .live_brokers()
            .all(|broker| self.applied(broker.id).is_some_and(|applied| applied >= offset))
    }

    fn next_session(&mut self) -> SessionId {
        let id = SessionId(self.next_session);
        self.next_session += 1;
        id
    }

    fn of_session(&mut self, broker: BrokerId, id: SessionId) -> Option<&mut Broker> {
        self.brokers.get_mut(&broker).filter(|entry| entry.session == id)
    }

    fn probes_under_way(&self) -> usize {
        let states = self.brokers.values().map(|entry| entry.state);
        states
            .filter(|state| {
                matches!(
                    state,
                    State::Away {
                        probe: Probe::UnderWay
                    }
                )
            })
            .count()
    }

    /// The probes that begin now.
    fn probe_due(&mut self, now: Now) -> Vec<SessionAction> {
        let free = PROBES_AT_ONCE.saturating_sub(self.probes_under_way());
        let mut due: Vec<_> = self
            .brokers
            .iter_mut()
            .filter_map(|(&broker, entry)| match entry.state {
                State::Away {
                    probe: Probe::Due(at),
                } if at <= now => Some((at, broker, entry)),
                State::Away { .. } | State::Connected { .. } => None,
            })
            .collect();
        due.sort_by_key(|&(at, broker, _)| (at, broker));
        due.into_iter()
            .take(free)
            .map(|(_, broker, entry)| {
                entry.state = State::Away {
                    probe: Probe::UnderWay,
                };
                SessionAction::Probe {
                    broker,
                    address: entry.address.clone(),
                    incarnation: entry.incarnation,
                    session: entry.session,
                }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests;
