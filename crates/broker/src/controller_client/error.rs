//! Why a controller's answer did not come, and what a Kafka client is told.

use protocol::ErrorCode;

use super::LocateError;

/// A call to the active controller that brought no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControllerError {
    /// No active controller was found or reached before the deadline; nothing was asked of it.
    #[error("no active controller could be reached in time: {0}")]
    Unreachable(String),
    /// The request was sent, and the connection broke or the time was up before the answer came: it may
    /// have been carried out, now or later.
    #[error("the controller's answer did not come ({0}): the request may or may not have been carried out")]
    OutcomeUnknown(String),
    /// The controller carried it out, and this broker's own metadata did not show the result in time.
    #[error("carried out, but this broker has not seen the result yet")]
    NotSeenYet,
    /// The controller refused the request as a whole.
    #[error("{message}")]
    Refused {
        /// Kafka's code for it.
        code: ErrorCode,
        /// The controller's sentence.
        message: String,
    },
    /// The answer is not one that a controller of this version gives.
    #[error("the controller's answer was not understood: {0}")]
    Malformed(String),
}

impl ControllerError {
    /// What a Kafka client is told.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Unreachable(_) | Self::OutcomeUnknown(_) | Self::NotSeenYet => ErrorCode::RequestTimedOut,
            Self::Refused { code, .. } => *code,
            Self::Malformed(_) => ErrorCode::UnknownServerError,
        }
    }
}

impl From<LocateError> for ControllerError {
    fn from(error: LocateError) -> Self {
        Self::Unreachable(error.to_string())
    }
}
