//! What passes between the event loop and the stream of one broker's session.

use std::collections::BTreeMap;

use protocol::grpc::v1::{BrokerState, ControllerAddress, Heartbeat, KafkaError, Register};
use protocol::{BrokerEpoch, BrokerId, LeaderEpoch, Offset};
use tokio::sync::{oneshot, watch};

use crate::decisions::SessionId;

/// A broker asks for a session.
#[derive(Debug)]
pub(crate) struct OpenSession {
    /// Its first message.
    pub(crate) register: Box<Register>,
    /// Told when the registration is committed, or refused.
    pub(crate) reply: oneshot::Sender<Result<OpenedSession, SessionRefusal>>,
}

/// A session that has begun.
#[derive(Debug)]
pub(crate) struct OpenedSession {
    pub(crate) broker: BrokerId,
    pub(crate) session: SessionId,
    pub(crate) broker_epoch: BrokerEpoch,
    /// The registration is in images from here on.
    pub(crate) catch_up_to: Offset,
    pub(crate) controller_epoch: LeaderEpoch,
    /// What the stream shall say.
    pub(crate) signal: watch::Receiver<Signal>,
}

/// Why a session did not begin.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum SessionRefusal {
    /// Somebody else is active, or nobody, or it is not known.
    NotActive,
    /// The broker cannot be part of the cluster as it is.
    Refused(KafkaError),
}

/// What a session's stream shall tell the broker; the newest is enough.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Signal {
    /// Heartbeats answered so far: each one is answered, even if nothing else changed.
    pub(crate) answered: u64,
    /// How the broker stands.
    pub(crate) state: BrokerState,
    /// Set once: the stream says this and ends.
    pub(crate) end: Option<SessionEnd>,
}

/// Why the controller ends a session.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum SessionEnd {
    /// The broker is fenced: it may register again.
    Fenced,
    /// A later session of the same broker began.
    Replaced,
    /// This controller is no longer the active one.
    NotActive(Option<ControllerAddress>),
}

/// What a session's stream reports.
#[derive(Debug)]
pub(crate) enum SessionEvent {
    /// The broker sent a heartbeat.
    Heartbeat(Heartbeat),
    /// The stream ended.
    Disconnected,
}

/// What each live broker has applied of the metadata log; −1 where it has not said yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Applied {
    pub(crate) brokers: BTreeMap<BrokerId, Offset>,
}

impl Applied {
    /// Whether all of them show what `offset` changed.
    pub(crate) fn everywhere(&self, offset: Offset) -> bool {
        self.brokers.values().all(|&applied| applied >= offset)
    }
}
