//! What the handlers of admin requests share: deadlines, and error codes with their sentences.

use std::time::Duration;

use kafka_protocol::protocol::StrBytes;
use protocol::{ErrorCode, grpc::v1::KafkaError};
use tokio::time::Instant;

use crate::controller_client::ControllerError;

/// However long a client is willing to wait, a call to the controller takes no longer.
const LONGEST: Duration = Duration::from_secs(300);

/// A little more than the controller is given, so that its own "timed out" arrives.
const MARGIN: Duration = Duration::from_millis(500);

/// The client's timeout in milliseconds, as the controller is told, and when the call itself ends.
pub(crate) fn deadline(timeout_ms: i32) -> (u32, Instant) {
    let timeout = Duration::from_millis(timeout_ms.max(0) as u64).min(LONGEST);
    (timeout.as_millis() as u32, Instant::now() + timeout + MARGIN)
}

/// A code and a sentence as the wire takes them; no sentence where nothing went wrong.
pub(crate) fn outcome(error: Option<KafkaError>) -> (i16, Option<StrBytes>) {
    let error = error.unwrap_or_default();
    let message =
        (error.code != 0 && !error.message.is_empty()).then(|| StrBytes::from_string(error.message));
    (
        i16::try_from(error.code).unwrap_or(ErrorCode::UnknownServerError.code()),
        message,
    )
}

/// What became of a call that brought no reply.
pub(crate) fn failure(error: &ControllerError) -> (i16, Option<StrBytes>) {
    (
        error.code().code(),
        Some(StrBytes::from_string(error.to_string())),
    )
}

/// A refusal of this broker's own.
pub(crate) fn refusal(code: ErrorCode, message: impl Into<String>) -> (i16, Option<StrBytes>) {
    (code.code(), Some(StrBytes::from_string(message.into())))
}
