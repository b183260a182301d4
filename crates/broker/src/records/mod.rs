//! What happens to record batches between a client's produce request and the log, and when an
//! offset is looked up by time.
//!
//! * [`validate`] judges a partition's records as Kafka's `LogValidator` and `UnifiedLog` do, opens
//!   compressed batches within [bounds](OpenBounds), and compresses anew where the topic's
//!   `compression.type` asks for it.
//! * [`first_at_or_after`] finds the first record of a batch at or after a timestamp, and
//!   [`decompress`] opens batches for a log that does the same.
//!
//! Records are walked, never decoded: keys, values and headers are skipped over, and recompression
//! moves their bytes as they are, so that headers with repeated keys and whatever else clients
//! write survive to the byte. Uncompressed records are walked in place, without an allocation.
//!
//! All of this is CPU work on memory: callers with large batches keep it off the async workers.

mod error;
mod open;
mod recompress;
mod rules;
mod snappy;
#[cfg(test)]
mod tests;
mod timestamp_search;
mod validate;
mod walk;

pub use metadata::configs::TopicCompression;

pub use error::{RecordError, RecordFault, RecordFaultKind};
pub use open::{OpenBounds, decompress};
pub use rules::{RecordRules, Validated};
pub use timestamp_search::{SearchError, first_at_or_after};
pub use validate::validate;
pub use walk::Malformed;
