//! Compaction: of each key, the log keeps the last record.
//!
//! The parts that decide are pure: [`plan`] (what is dirty, what is cleaned together), [`offset_map`]
//! (the newest offset of each key, in bounded memory), [`transactions`] (whose records count),
//! [`filter`] (what is left of one batch). `Log::compact` applies them to files and swaps the result
//! in; `LogManager`'s cleaner threads choose the log, at the [`Throttle`]'s pace.
//!
//! The rules are those of Kafka's `Cleaner` and `LogCleanerManager`: records keep their offsets and
//! bytes; batches keep their offset range and sequence; a tombstone goes `delete.retention.ms` after
//! a cleaning first met it as the last record of its key (KIP-534); the last batch of each active
//! producer stays, empty if need be. What differs: the last batch of every segment that is written
//! stays too, so that a segment's extent is known from its batches alone.

pub(crate) mod filter;
pub(crate) mod offset_map;
pub(crate) mod plan;
mod throttle;
pub(crate) mod transactions;

pub use filter::FilterError;
pub use plan::Dirtiness;
pub use throttle::Throttle;
