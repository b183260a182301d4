//! Who is alive: broker sessions as the active controller sees them, driven by events and the time.
//!
//! A tracker lives as long as one controller epoch. It says whom to probe, fence and unfence; it holds
//! no connection and changes no image.
//!
//! ```text
//!             connected                     silent for the session timeout: Fence
//!  Expected ─────────────► Connected ──────────────────────────────────────────────► gone
//!     │                        │ disconnected: Probe
//!     │ timeout: Fence         ▼
//!     └──────────► gone ◄── Broken   (refused, or another incarnation: Fence at once;
//!                                     else probed again until the session timeout: Fence)
//! ```

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

/// One stream of one broker; a later stream of the same broker has another number.
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
        /// The incarnation whose session broke.
        incarnation: IncarnationId,
        /// The session that broke.
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
    /// The process whose session broke answered: it will open another one.
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
    state: State,
}

#[derive(Clone, Debug)]
enum State {
    /// Unfenced when this controller was elected; it has not opened a session yet.
    Expected,
    Connected(Session),
    /// The session ended without goodbye.
    Broken {
        session: Session,
        /// When to probe again; `None` while a probe is under way.
        probe_at: Option<Now>,
    },
}

#[derive(Clone, Debug)]
struct Session {
    id: SessionId,
    epoch: BrokerEpoch,
    incarnation: IncarnationId,
    address: String,
    catch_up_to: Offset,
    applied: Option<Offset>,
}

impl SessionTracker {
    /// Begins a controller epoch at `now` with the image of its claim: every unfenced broker gets a
    /// full session timeout to open a session, and is not probed before it had one.
    pub fn new(session_timeout_ms: u64, image: &ClusterImage, now: Now) -> Self {
        let expected = image.live_brokers().map(|broker| {
            let expected = Broker {
                deadline: now.plus(session_timeout_ms),
                state: State::Expected,
            };
            (broker.id, expected)
        });
        Self {
            session_timeout_ms,
            next_session: 0,
            brokers: expected.collect(),
        }
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
        let id = SessionId(self.next_session);
        self.next_session += 1;
        let session = Session {
            id,
            epoch,
            incarnation,
            address: internal_address,
            catch_up_to,
            applied: None,
        };
        let entry = Broker {
            deadline: now.plus(self.session_timeout_ms),
            state: State::Connected(session),
        };
        self.brokers.insert(broker, entry);
        id
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
        let entry = self.brokers.get_mut(&broker).ok_or(SessionOver)?;
        let State::Connected(session) = &mut entry.state else {
            return Err(SessionOver);
        };
        if session.id != id {
            return Err(SessionOver);
        }
        entry.deadline = now.plus(self.session_timeout_ms);
        session.applied = session.applied.max(Some(applied));
        let unfence = fenced && applied >= session.catch_up_to;
        Ok(unfence
            .then_some(SessionAction::Unfence(broker, session.epoch))
            .into_iter()
            .collect())
    }

    /// A session's stream ended. The end of one that is over already means nothing.
    pub fn disconnected(&mut self, broker: BrokerId, id: SessionId) -> Option<SessionAction> {
        let entry = self.brokers.get_mut(&broker)?;
        let State::Connected(session) = &entry.state else {
            return None;
        };
        if session.id != id {
            return None;
        }
        let session = session.clone();
        let probe = session.probe(broker);
        // The deadline stays: it counts from the last heartbeat.
        entry.state = State::Broken {
            session,
            probe_at: None,
        };
        Some(probe)
    }

    /// What the probe of a broken session found. Of a session that is over it means nothing.
    pub fn probe_result(
        &mut self,
        broker: BrokerId,
        id: SessionId,
        result: ProbeResult,
        now: Now,
    ) -> Option<SessionAction> {
        let entry = self.brokers.get_mut(&broker)?;
        let State::Broken { session, probe_at } = &mut entry.state else {
            return None;
        };
        if session.id != id {
            return None;
        }
        match result {
            ProbeResult::Refused | ProbeResult::OtherIncarnation => {
                self.brokers.remove(&broker);
                Some(SessionAction::Fence(broker))
            }
            ProbeResult::Alive | ProbeResult::Silent => {
                *probe_at = Some(now.plus(PROBE_INTERVAL_MS));
                None
            }
        }
    }

    /// The time moved on.
    pub fn tick(&mut self, now: Now) -> Vec<SessionAction> {
        let mut actions = Vec::new();
        self.brokers.retain(|&broker, entry| {
            if entry.deadline <= now {
                actions.push(SessionAction::Fence(broker));
                return false;
            }
            if let State::Broken { session, probe_at } = &mut entry.state
                && probe_at.is_some_and(|at| at <= now)
            {
                *probe_at = None;
                actions.push(session.probe(broker));
            }
            true
        });
        actions
    }

    /// When [`Self::tick`] has something to do next.
    pub fn next_deadline(&self) -> Option<Now> {
        let entries = self.brokers.values();
        entries
            .map(|entry| match entry.state {
                State::Broken {
                    probe_at: Some(at), ..
                } => entry.deadline.min(at),
                State::Broken { probe_at: None, .. } | State::Expected | State::Connected(_) => {
                    entry.deadline
                }
            })
            .min()
    }

    /// Ends whatever is known of a broker: it was unregistered, or said goodbye.
    pub fn forget(&mut self, broker: BrokerId) {
        self.brokers.remove(&broker);
    }

    /// The incarnation that has a live session, where one has.
    pub fn connected_incarnation(&self, broker: BrokerId) -> Option<IncarnationId> {
        self.session(broker).map(|session| session.incarnation)
    }

    /// What the broker's live session has applied of the metadata log.
    pub fn applied(&self, broker: BrokerId) -> Option<Offset> {
        self.session(broker)?.applied
    }

    /// Whether every unfenced broker of the image has applied the metadata log up to `offset`.
    pub fn all_applied(&self, image: &ClusterImage, offset: Offset) -> bool {
        image
            .live_brokers()
            .all(|broker| self.applied(broker.id).is_some_and(|applied| applied >= offset))
    }

    fn session(&self, broker: BrokerId) -> Option<&Session> {
        match &self.brokers.get(&broker)?.state {
            State::Connected(session) => Some(session),
            State::Broken { .. } | State::Expected => None,
        }
    }
}

impl Session {
    fn probe(&self, broker: BrokerId) -> SessionAction {
        SessionAction::Probe {
            broker,
            address: self.address.clone(),
            incarnation: self.incarnation,
            session: self.id,
        }
    }
}

#[cfg(test)]
mod tests {
    use metadata::{BrokerRegistration, records};
    use protocol::grpc::v1::{BrokerChangeRecord, metadata_record::Record};

    use super::*;

    const B: BrokerId = BrokerId(1);
    const TIMEOUT: u64 = 3000;

    fn incarnation() -> IncarnationId {
        IncarnationId::from_slice(&[1; 16]).expect("16 bytes")
    }

    fn image(fenced: bool) -> ClusterImage {
        let broker = BrokerRegistration {
            id: B,
            epoch: BrokerEpoch(5),
            incarnation: incarnation(),
            endpoints: vec![],
            internal_address: "host:1".to_owned(),
            rack: None,
            log_dirs: vec![],
            fenced: true,
            in_controlled_shutdown: false,
            version: String::new(),
        };
        let unfence = records::record(Record::BrokerChange(BrokerChangeRecord {
            broker_id: 1,
            broker_epoch: 5,
            fenced: Some(fenced),
            in_controlled_shutdown: None,
        }));
        ClusterImage::default()
            .speculate(&[records::register_broker_record(&broker), unfence])
            .expect("fits")
    }

    fn connect(tracker: &mut SessionTracker, now: Now) -> SessionId {
        let address = "host:1".to_owned();
        tracker.connected(B, BrokerEpoch(5), incarnation(), address, Offset(10), now)
    }

    fn probe(session: SessionId) -> SessionAction {
        SessionAction::Probe {
            broker: B,
            address: "host:1".to_owned(),
            incarnation: incarnation(),
            session,
        }
    }

    #[test]
    fn a_new_controller_waits_a_full_session_timeout_and_does_not_probe() {
        let mut tracker = SessionTracker::new(TIMEOUT, &image(false), Now(100));
        assert_eq!(tracker.next_deadline(), Some(Now(3100)));
        assert_eq!(tracker.tick(Now(3099)), []);
        assert_eq!(tracker.tick(Now(3100)), [SessionAction::Fence(B)]);
        assert_eq!(tracker.tick(Now(9000)), []);
        let fenced = SessionTracker::new(TIMEOUT, &image(true), Now(100));
        assert_eq!(fenced.next_deadline(), None);
    }

    #[test]
    fn a_broker_is_unfenced_once_it_has_caught_up() {
        let mut tracker = SessionTracker::new(TIMEOUT, &image(true), Now(0));
        let id = connect(&mut tracker, Now(0));
        assert_eq!(tracker.heartbeat(B, id, Offset(9), true, Now(1)), Ok(vec![]));
        let unfence = SessionAction::Unfence(B, BrokerEpoch(5));
        assert_eq!(
            tracker.heartbeat(B, id, Offset(10), true, Now(2)),
            Ok(vec![unfence])
        );
        assert_eq!(tracker.heartbeat(B, id, Offset(10), false, Now(3)), Ok(vec![]));
        assert!(tracker.all_applied(&image(false), Offset(10)));
        assert!(!tracker.all_applied(&image(false), Offset(11)));
    }

    #[test]
    fn a_dead_process_is_fenced_by_the_probe() {
        for dead in [ProbeResult::Refused, ProbeResult::OtherIncarnation] {
            let mut tracker = SessionTracker::new(TIMEOUT, &image(false), Now(0));
            let id = connect(&mut tracker, Now(0));
            assert_eq!(tracker.disconnected(B, id), Some(probe(id)));
            let fence = tracker.probe_result(B, id, dead, Now(1));
            assert_eq!(fence, Some(SessionAction::Fence(B)));
        }
    }

    #[test]
    fn a_silent_broker_is_probed_until_the_session_timeout() {
        let mut tracker = SessionTracker::new(TIMEOUT, &image(false), Now(0));
        let id = connect(&mut tracker, Now(0));
        assert_eq!(tracker.disconnected(B, id), Some(probe(id)));
        assert_eq!(tracker.probe_result(B, id, ProbeResult::Silent, Now(500)), None);
        assert_eq!(tracker.next_deadline(), Some(Now(600)));
        assert_eq!(tracker.tick(Now(600)), [probe(id)]);
        assert_eq!(tracker.probe_result(B, id, ProbeResult::Alive, Now(700)), None);
        assert_eq!(tracker.tick(Now(3000)), [SessionAction::Fence(B)]);
        assert_eq!(tracker.probe_result(B, id, ProbeResult::Refused, Now(3001)), None);
    }

    #[test]
    fn news_of_an_old_session_means_nothing() {
        let mut tracker = SessionTracker::new(TIMEOUT, &image(false), Now(0));
        let old = connect(&mut tracker, Now(0));
        assert!(tracker.disconnected(B, old).is_some());
        let new = connect(&mut tracker, Now(10));
        assert_eq!(tracker.probe_result(B, old, ProbeResult::Refused, Now(11)), None);
        assert_eq!(tracker.disconnected(B, old), None);
        assert_eq!(
            tracker.heartbeat(B, old, Offset(1), false, Now(12)),
            Err(SessionOver)
        );
        assert_eq!(tracker.heartbeat(B, new, Offset(1), false, Now(12)), Ok(vec![]));
    }

    #[test]
    fn a_connected_broker_that_falls_silent_is_fenced_and_its_session_is_over() {
        let mut tracker = SessionTracker::new(TIMEOUT, &image(false), Now(0));
        let id = connect(&mut tracker, Now(0));
        assert_eq!(tracker.tick(Now(3000)), [SessionAction::Fence(B)]);
        assert_eq!(
            tracker.heartbeat(B, id, Offset(1), true, Now(3001)),
            Err(SessionOver)
        );
    }
}
