//! A request to the active controller on its way through the event loop: decided once, answered when
//! what was decided is committed.

use std::fmt;

use protocol::Offset;
use protocol::grpc::v1::MetadataRecord;
use tokio::sync::oneshot;

use crate::decisions::{Outcome, View};

/// How the entry that carries a decision ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Settled {
    /// The decision holds; an image of at least this offset shows it.
    Committed(Offset),
    /// The decision never reached the log.
    NotController,
    /// Leadership was lost while the decision was in flight: nobody knows whether it holds.
    Unknown,
    /// The decision contradicts the image, which is a defect; nothing was proposed.
    Contradiction(String),
}

/// Why a request has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallError {
    /// Nothing was decided, or nothing of it reached the log.
    #[error("this controller is not the active one")]
    NotController,
    /// The decision may hold or not.
    #[error("leadership was lost before the decision was known to be committed; its outcome is unknown")]
    OutcomeUnknown,
    /// A defect.
    #[error("the decision contradicts the metadata: {0}")]
    Contradiction(String),
    /// The controller is stopping.
    #[error("the controller is stopping")]
    Stopping,
}

/// Answers a request when its decision is settled.
pub(crate) type Answer = Box<dyn FnOnce(Settled) + Send>;

/// What an operation decided.
pub(crate) struct Decided {
    /// To be committed together.
    pub(crate) records: Vec<MetadataRecord>,
    /// Called when they are, or never will be.
    pub(crate) answer: Answer,
}

/// A request that needs a decision.
pub(crate) trait Operation: Send {
    /// Decides on the speculative image.
    fn decide(self: Box<Self>, view: View<'_>) -> Decided;

    /// Answers that this controller is not the active one.
    fn refuse(self: Box<Self>);
}

/// The result of a [`Call`]: what was decided, and the offset that shows it.
pub(crate) type CallResult<R> = Result<(R, Offset), CallError>;

/// An operation whose result goes to one waiting task.
pub(crate) struct Call<D, R> {
    decide: D,
    reply: oneshot::Sender<CallResult<R>>,
}

impl<D, R> Call<D, R> {
    /// The operation, and where its result arrives.
    pub(crate) fn new(decide: D) -> (Box<Self>, oneshot::Receiver<CallResult<R>>) {
        let (reply, result) = oneshot::channel();
        (Box::new(Self { decide, reply }), result)
    }
}

impl<D, R> Operation for Call<D, R>
where
    D: FnOnce(View<'_>) -> Outcome<R> + Send,
    R: Send + 'static,
{
    fn decide(self: Box<Self>, view: View<'_>) -> Decided {
        let Self { decide, reply } = *self;
        let Outcome {
            records,
            reply: result,
        } = decide(view);
        Decided {
            records,
            answer: Box::new(move |settled| {
                // Whoever asked may have gone; the decision holds all the same.
                let _ = reply.send(match settled {
                    Settled::Committed(offset) => Ok((result, offset)),
                    Settled::NotController => Err(CallError::NotController),
                    Settled::Unknown => Err(CallError::OutcomeUnknown),
                    Settled::Contradiction(what) => Err(CallError::Contradiction(what)),
                });
            }),
        }
    }

    fn refuse(self: Box<Self>) {
        let _ = self.reply.send(Err(CallError::NotController));
    }
}

impl<D, R> fmt::Debug for Call<D, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Call")
    }
}
