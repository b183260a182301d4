//! What happens to record batches between a client's produce request and the log.
//!
//! [`validate`] judges a partition's records as Kafka's `LogValidator` and `UnifiedLog` do, opens
//! compressed batches within [bounds](protocol::records::OpenBounds), and compresses anew where the
//! topic's `compression.type` asks for it. How records are walked and codecs opened is
//! [`protocol::records`].
//!
//! All of this is CPU work on memory. [`Validator`] keeps what takes longer than a moment off the async
//! workers.

mod error;
mod rules;
#[cfg(test)]
mod tests;
mod validate;
mod validator;

pub use metadata::configs::TopicCompression;

pub use error::{RecordError, RecordFault, RecordFaultKind};
pub use rules::{RecordRules, Validated};
pub use validate::validate;
pub use validator::Validator;
