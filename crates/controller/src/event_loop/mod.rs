//! The one task in which a controller decides.
//!
//! Events are drained, decided one after the other on the speculative image, packed into as few entries
//! as fit and proposed without waiting for the ones before. A reply waits for its entry.
//!
//! ```text
//!            leads                    the claim is applied
//! Standby ──────────► Claiming ────────────────────────────► Active
//!    ▲                   │                                      │
//!    └───────────────────┴── term over, or the quorum silent ───┘
//! ```
//!
//! Only an active controller decides: one whose own claim entry is in its image, so that every earlier
//! decision is in it too. Losing leadership drops the speculation; what was in flight is answered with
//! what becomes of it, and never proposed again.

mod active;
mod batch;
mod clock;
mod leadership;
mod operation;
mod sessions;
mod view;
mod waiting;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesOrdered;
use metadata::configs::NodeDefaults;
use metadata::{ClusterImage, records};
use protocol::{BrokerId, Offset};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::active::{Active, Effect};
use self::batch::{ENTRY_BYTES, Packed, pack};
use self::clock::Clock;
use self::leadership::{Leadership, claimed};
use self::operation::Settled;
pub(crate) use self::operation::{Call, CallError, CallResult, Operation};
pub(crate) use self::sessions::{
    Applied, OpenSession, OpenedSession, SessionEnd, SessionEvent, SessionRefusal, Signal,
};
pub use self::view::{ActiveController, ActiveView};
use self::waiting::Waiting;
use crate::decisions::{Now, ProbeResult, SessionId};
use crate::identity::NodeIdentity;
use crate::metric;
use crate::prober;
use crate::raft::{LogPosition, Proposal, ProposalError, RaftNode};

/// Events that wait for the loop; senders wait for room.
pub(crate) const EVENT_QUEUE: usize = 1024;
/// Events that are decided before what they gave is proposed.
const EVENTS_PER_ROUND: usize = 512;
/// How often the loop looks around although nothing happens.
const IDLE: Duration = Duration::from_millis(200);
/// How long no claim is made after one did not take hold: Raft's own news of why is on its way.
const CLAIM_PAUSE: Duration = Duration::from_millis(10);
/// How often the gauges are brought up to date.
const GAUGES: Duration = Duration::from_secs(1);

/// What the loop is told.
pub(crate) enum Event {
    /// A request.
    Operation(Box<dyn Operation>),
    /// A broker asks for a session.
    Open(OpenSession),
    /// Something happened in a session.
    Session(BrokerId, SessionId, SessionEvent),
    /// A probe of a broken session, or of one that was not opened, came back.
    Probed(BrokerId, SessionId, ProbeResult),
    /// A probe of a process that has the newcomer's id came back.
    RivalProbed(OpenSession, ProbeResult),
}

/// What the loop is made with.
#[derive(Clone, Debug)]
pub(crate) struct LoopSettings {
    pub(crate) identity: Arc<NodeIdentity>,
    pub(crate) defaults: NodeDefaults,
    pub(crate) session_timeout: Duration,
    /// `None`: leaderships stay where they are.
    pub(crate) rebalance_interval: Option<Duration>,
    /// A leader that hears nothing from a majority for this long stops deciding.
    pub(crate) quorum_timeout: Duration,
}

/// What others may watch.
pub(crate) struct LoopWatches {
    /// Who decides.
    pub(crate) active: watch::Receiver<ActiveView>,
    /// What each live broker has applied, while this controller is active.
    pub(crate) applied: watch::Receiver<Applied>,
}

/// The loop's state; see the module.
pub(crate) struct EventLoop {
    node: RaftNode,
    settings: LoopSettings,
    events: mpsc::Receiver<Event>,
    /// For the tasks that the loop starts. Weak: the loop ends with its last user.
    own_events: mpsc::WeakSender<Event>,
    images: watch::Receiver<Arc<ClusterImage>>,
    leadership: Leadership,
    in_flight: FuturesOrdered<Proposal>,
    /// Who waits for each proposal in flight, in the same order.
    waiting: VecDeque<Vec<Waiting>>,
    view: watch::Sender<ActiveView>,
    applied: watch::Sender<Applied>,
    clock: Clock,
    rebalance_at: Option<Instant>,
    gauges_at: Instant,
    claim_at: Instant,
}

/// What woke the loop.
enum Wake {
    Stop,
    Event(Event),
    Settled(Result<LogPosition, ProposalError>),
    Claimed(Result<LogPosition, ProposalError>),
    Image,
    Role(bool),
    Time,
}

impl EventLoop {
    /// The loop, where events go, and what it publishes.
    pub(crate) fn new(node: RaftNode, settings: LoopSettings) -> (Self, mpsc::Sender<Event>, LoopWatches) {
        let (sender, events) = mpsc::channel(EVENT_QUEUE);
        let (view, active) = watch::channel(ActiveView::default());
        let applied = watch::Sender::new(Applied::default());
        let now = Instant::now();
        let watches = LoopWatches {
            active,
            applied: applied.subscribe(),
        };
        let event_loop = Self {
            images: node.images(),
            node,
            settings,
            events,
            own_events: sender.downgrade(),
            leadership: Leadership::Standby,
            in_flight: FuturesOrdered::new(),
            waiting: VecDeque::new(),
            view,
            applied,
            clock: Clock::new(now),
            rebalance_at: None,
            gauges_at: now,
            claim_at: now,
        };
        (event_loop, sender, watches)
    }

    /// Runs until it is told to stop or nobody can send events any more.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut role_changes = self.node.role_changes();
        loop {
            self.follow_role().await;
            let wake_at = self.wake_at();
            let wake = tokio::select! {
                biased;
                () = stop.cancelled() => Wake::Stop,
                changed = role_changes.changed() => Wake::Role(changed),
                Some(result) = self.in_flight.next() => Wake::Settled(result),
                claimed = claimed(&mut self.leadership) => Wake::Claimed(claimed),
                changed = self.images.changed() => if changed.is_ok() { Wake::Image } else { Wake::Stop },
                event = self.events.recv() => event.map_or(Wake::Stop, Wake::Event),
                () = tokio::time::sleep_until(wake_at) => Wake::Time,
            };
            match wake {
                Wake::Stop => break,
                Wake::Event(event) => {
                    self.take(event);
                    for _ in 1..EVENTS_PER_ROUND {
                        match self.events.try_recv() {
                            Ok(event) => self.take(event),
                            Err(_) => break,
                        }
                    }
                }
                Wake::Settled(result) => self.settle(result),
                Wake::Claimed(result) => self.claimed(result),
                Wake::Image => self.rebase(),
                Wake::Role(true) => {}
                // Raft is gone; what is known of it says why.
                Wake::Role(false) => break,
                Wake::Time => {}
            }
            self.look_around();
            self.start_effects();
            self.propose().await;
            self.publish_applied();
        }
        self.publish_view(&self.node.role());
        self.step_down();
        self.events.close();
        while let Ok(event) = self.events.try_recv() {
            Self::refuse(event);
        }
    }

    fn now(&mut self) -> Now {
        self.clock.read(Instant::now())
    }

    fn wake_at(&mut self) -> Instant {
        let Now(now) = self.now();
        let idle = Instant::now() + IDLE;
        let deadline = match &self.leadership {
            Leadership::Active { active, .. } => active.next_deadline(),
            Leadership::Standby | Leadership::Claiming { .. } => None,
        };
        deadline.map_or(idle, |Now(deadline)| {
            idle.min(Instant::now() + Duration::from_millis(deadline.saturating_sub(now)))
        })
    }

    fn take(&mut self, event: Event) {
        let now = self.now();
        let Leadership::Active { active, .. } = &mut self.leadership else {
            Self::refuse(event);
            return;
        };
        let committed = self.images.borrow().clone();
        // At most what the next entry's offset will be: entries of Raft's own may come in between.
        let next_offset = Offset(committed.offset.map_or(-1, Offset::get) + 1 + self.waiting.len() as i64);
        match event {
            Event::Operation(operation) => {
                active.operate(operation);
                active.end_unregistered();
            }
            Event::Open(open) => active.register(open, &committed, next_offset, false),
            Event::Session(broker, session, SessionEvent::Heartbeat(heartbeat)) => {
                active.heartbeat(broker, session, &heartbeat, &committed, now);
            }
            Event::Session(broker, session, SessionEvent::Disconnected) => {
                active.disconnected(broker, session, now);
            }
            Event::Probed(broker, session, result) => active.probed(broker, session, result, now),
            Event::RivalProbed(open, ProbeResult::Alive) => {
                tracing::warn!(hello = ?open.register.hello, "two processes run with one node.id; the newcomer is refused");
                Active::refuse_rival(open);
            }
            Event::RivalProbed(open, _) => active.register(open, &committed, next_offset, true),
        }
    }

    fn refuse(event: Event) {
        match event {
            Event::Operation(operation) => operation.refuse(),
            Event::Open(open) | Event::RivalProbed(open, _) => {
                let _ = open.reply.send(Err(SessionRefusal::NotActive));
            }
            Event::Session(..) | Event::Probed(..) => {}
        }
    }

    /// The oldest proposal in flight came to its end.
    fn settle(&mut self, result: Result<LogPosition, ProposalError>) {
        let waiting = self.waiting.pop_front().unwrap_or_default();
        let now = self.now();
        match result {
            Ok(LogPosition { offset, .. }) => {
                // The state machine publishes an image before it answers.
                let image = self.images.borrow().clone();
                for waiting in waiting {
                    self.settle_one(waiting, offset, &image, now);
                }
            }
            Err(error) => {
                let settled = match error {
                    ProposalError::NotLeader => Settled::NotController,
                    ProposalError::Unknown => Settled::Unknown,
                };
                for waiting in waiting {
                    waiting.fail(settled.clone());
                }
                // What was speculated after it rests on something that may not be.
                self.step_down();
            }
        }
        self.rebase();
    }

    fn settle_one(&mut self, waiting: Waiting, offset: Offset, image: &ClusterImage, now: Now) {
        match (waiting, &mut self.leadership) {
            (Waiting::Nobody, _) => {}
            (Waiting::Answer(answer), _) => answer(Settled::Committed(offset)),
            (Waiting::Session(pending), Leadership::Active { active, .. }) => {
                active.begin_session(*pending, offset, image, now);
            }
            (waiting @ Waiting::Session(_), _) => waiting.fail(Settled::NotController),
        }
    }

    /// Brings the speculation and the sessions' states up to the committed image.
    fn rebase(&mut self) {
        let image = self.images.borrow_and_update().clone();
        let nothing_in_flight = self.waiting.is_empty();
        if let Leadership::Active { active, .. } = &mut self.leadership {
            active.committed(&image, nothing_in_flight);
        }
    }

    /// What the passing of time asks for.
    fn look_around(&mut self) {
        let now = self.now();
        if let Leadership::Active { active, .. } = &mut self.leadership {
            active.tick(now);
            if let (Some(at), Some(interval)) = (self.rebalance_at, self.settings.rebalance_interval)
                && at <= Instant::now()
            {
                active.rebalance();
                self.rebalance_at = Some(Instant::now() + interval);
            }
        }
        if self.gauges_at <= Instant::now() {
            self.gauges_at = Instant::now() + GAUGES;
            let view = self.view.borrow();
            metric::gauges(&self.images.borrow(), &view);
        }
    }

    fn start_effects(&mut self) {
        let Leadership::Active { active, .. } = &mut self.leadership else {
            return;
        };
        for effect in active.take_effects() {
            let events = self.own_events.clone();
            let identity = Arc::clone(&self.settings.identity);
            // Ends by itself: a probe is bounded in time.
            tokio::spawn(async move {
                let event = match effect {
                    Effect::Probe {
                        broker,
                        address,
                        incarnation,
                        session,
                    } => {
                        let result = prober::probe(&identity, broker, &address, incarnation).await;
                        Event::Probed(broker, session, result)
                    }
                    Effect::ProbeRival {
                        address,
                        incarnation,
                        open,
                    } => {
                        let broker = open.register.hello.as_ref().map_or(-1, |hello| hello.node_id);
                        let result = prober::probe(&identity, BrokerId(broker), &address, incarnation).await;
                        Event::RivalProbed(open, result)
                    }
                };
                if let Some(events) = events.upgrade() {
                    // The loop has ended: nobody wants to know.
                    let _ = events.send(event).await;
                }
            });
        }
    }

    /// Proposes what was decided.
    async fn propose(&mut self) {
        let Leadership::Active { active, .. } = &mut self.leadership else {
            return;
        };
        let decided = active.take_decided();
        if decided.is_empty() {
            return;
        }
        let (epoch, claim) = (active.epoch, active.claim);
        let mut undisputed = Vec::new();
        for Packed { records, waiting } in pack(decided, ENTRY_BYTES) {
            if records.is_empty() {
                // Nothing changes, but what was in flight when this was decided must hold.
                match self.waiting.back_mut() {
                    Some(last) => last.extend(waiting),
                    None => undisputed.extend(waiting),
                }
                continue;
            }
            let entry = records::entry(claim, records);
            let proposal = self.node.propose(epoch, &entry).await;
            self.in_flight.push_back(proposal);
            self.waiting.push_back(waiting);
        }
        let now = self.now();
        let image = self.images.borrow().clone();
        for waiting in undisputed {
            self.settle_one(waiting, image.offset.unwrap_or(Offset(-1)), &image, now);
        }
    }

    fn publish_applied(&self) {
        if let Leadership::Active { active, .. } = &self.leadership {
            let applied = active.applied(&self.images.borrow());
            self.applied.send_if_modified(|published| {
                let changed = *published != applied;
                *published = applied;
                changed
            });
        }
    }
}
