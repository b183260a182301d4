//! The inside of record batches: opened and compressed within bounds, walked, searched by time.
//!
//! Records are walked, never decoded: keys, values and headers are passed over or kept as the bytes
//! they are, and recompression moves them as they are, so that headers with repeated keys and
//! whatever else clients write survive to the byte. Uncompressed records are walked in place.
//!
//! All of this is CPU work on memory: callers with large batches keep it off async workers.

mod open;
mod recompress;
mod snappy;
mod timestamp_search;
mod walk;

pub use open::{OpenBounds, open};
pub use recompress::{RecompressError, recompress};
pub use timestamp_search::{SearchError, first_at_or_after, largest_timestamp};
pub use walk::{Deltas, Malformed, RecordView, RecordWalk, Span, WalkError, put_with_timestamp_delta};
