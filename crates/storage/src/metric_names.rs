//! The names of this crate's metrics.

/// Histogram of the seconds that a flush took, fdatasync included.
pub const FLUSH_SECONDS: &str = "ottla_log_flush_seconds";
/// Flushes that were run.
pub const FLUSHES_TOTAL: &str = "ottla_log_flushes_total";
/// Flushes that were asked for; over the flushes that were run, how many share one.
pub const FLUSH_REQUESTS_TOTAL: &str = "ottla_log_flush_requests_total";
/// Flushes that failed.
pub const FLUSH_FAILURES_TOTAL: &str = "ottla_log_flush_failures_total";
/// Bytes that cleaners have read; over time, their reading rate.
pub const CLEANER_READ_BYTES_TOTAL: &str = "ottla_log_cleaner_read_bytes_total";
/// Bytes that cleaners have written.
pub const CLEANER_WRITTEN_BYTES_TOTAL: &str = "ottla_log_cleaner_written_bytes_total";
/// Logs that were cleaned, counted once for each time.
pub const CLEANER_RUNS_TOTAL: &str = "ottla_log_cleaner_runs_total";
/// Cleanings that ended in a panic: a bug, whose log is left alone from then on.
pub const CLEANER_PANICS_TOTAL: &str = "ottla_log_cleaner_panics_total";
/// Histogram of the seconds that cleaning one log took.
pub const CLEANER_RUN_SECONDS: &str = "ottla_log_cleaner_run_seconds";
/// Gauge of the largest dirty share, 0 to 1, of the logs that are to be compacted.
pub const CLEANER_MAX_DIRTY_RATIO: &str = "ottla_log_cleaner_max_dirty_ratio";
/// Gauge of the seconds since a cleaner last looked for work: it grows where cleaners hang.
pub const CLEANER_SECONDS_SINCE_LAST_RUN: &str = "ottla_log_cleaner_seconds_since_last_run";
/// Gauge of the partitions that cannot be compacted, for damage or records that cannot be read.
pub const CLEANER_UNCLEANABLE_PARTITIONS: &str = "ottla_log_cleaner_uncleanable_partitions";
/// Gauge of the configured log directories that cannot be used; Kafka's `OfflineLogDirectoryCount`.
pub const OFFLINE_LOG_DIRECTORIES: &str = "ottla_log_manager_offline_log_directories";
/// Gauge for each log directory (label `directory`): 1 where it is offline. Kafka's `LogDirectoryOffline`.
pub const LOG_DIRECTORY_OFFLINE: &str = "ottla_log_directory_offline";
/// Gauge for each log directory of the bytes of batches in it.
pub const LOG_DIRECTORY_SIZE_BYTES: &str = "ottla_log_directory_size_bytes";
/// Gauge for each log directory of the bytes that its file system has.
pub const LOG_DIRECTORY_TOTAL_BYTES: &str = "ottla_log_directory_total_bytes";
/// Gauge for each log directory of the bytes that can still be written there.
pub const LOG_DIRECTORY_USABLE_BYTES: &str = "ottla_log_directory_usable_bytes";
