//! Who waits for what is in flight, and the loop's end of each session.

use protocol::{BrokerEpoch, IncarnationId, Offset};
use tokio::sync::{oneshot, watch};

use super::operation::{Answer, Settled};
use super::sessions::{OpenedSession, SessionEnd, SessionRefusal, Signal};
use crate::decisions::{Registered, SessionId};

/// Waits until a group of records is settled.
pub(super) enum Waiting {
    /// Nobody.
    Nobody,
    /// A request.
    Answer(Answer),
    /// A broker whose session begins with its registration.
    Session(Box<PendingSession>),
}

impl Waiting {
    /// Tells whoever waits that there is no result, and why.
    pub(super) fn fail(self, settled: Settled) {
        match self {
            Self::Nobody => {}
            Self::Answer(answer) => answer(settled),
            // Registering again is harmless, whatever became of this one.
            Self::Session(pending) => pending.refuse(SessionRefusal::NotActive),
        }
    }
}

/// A registration that is being committed.
pub(super) struct PendingSession {
    pub(super) registered: Registered,
    pub(super) incarnation: IncarnationId,
    pub(super) internal_address: String,
    pub(super) reply: oneshot::Sender<Result<OpenedSession, SessionRefusal>>,
}

impl PendingSession {
    /// Tells the broker that its session does not begin.
    pub(super) fn refuse(self, refusal: SessionRefusal) {
        // A broker that has gone needs no answer.
        let _ = self.reply.send(Err(refusal));
    }
}

/// The event loop's end of a session.
pub(super) struct Link {
    pub(super) session: SessionId,
    pub(super) broker_epoch: BrokerEpoch,
    pub(super) catch_up_to: Offset,
    pub(super) signal: watch::Sender<Signal>,
    pub(super) wants_shutdown: bool,
}

impl Link {
    /// Has the stream say why, and end.
    pub(super) fn end(&self, end: SessionEnd) {
        self.signal.send_modify(|signal| {
            if end == SessionEnd::Fenced {
                signal.state.fenced = true;
            }
            signal.end.get_or_insert(end);
        });
    }
}
