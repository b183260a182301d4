//! The names of this crate's metrics.

/// Histogram of the seconds that a flush took, fdatasync included.
pub const FLUSH_SECONDS: &str = "ottla_log_flush_seconds";
/// Flushes that were run.
pub const FLUSHES_TOTAL: &str = "ottla_log_flushes_total";
/// Flushes that were asked for; over the flushes that were run, how many share one.
pub const FLUSH_REQUESTS_TOTAL: &str = "ottla_log_flush_requests_total";
/// Flushes that failed.
pub const FLUSH_FAILURES_TOTAL: &str = "ottla_log_flush_failures_total";
