//! Names of the metrics that this crate reports. Nouns are those of Kafka's own metrics.

/// Gauge: partitions that this broker leads.
pub const LEADER_COUNT: &str = "ottla_replica_manager_leader_count";
/// Gauge: replicas that this broker holds.
pub const PARTITION_COUNT: &str = "ottla_replica_manager_partition_count";
/// Gauge: led partitions with a replica outside the ISR.
pub const UNDER_REPLICATED: &str = "ottla_replica_manager_under_replicated_partitions";
/// Gauge: led partitions with fewer in-sync replicas than `min.insync.replicas`.
pub const UNDER_MIN_ISR: &str = "ottla_replica_manager_under_min_isr_partition_count";
/// Gauge: led partitions with exactly `min.insync.replicas` in-sync replicas.
pub const AT_MIN_ISR: &str = "ottla_replica_manager_at_min_isr_partition_count";
/// Gauge: replicas whose storage has failed.
pub const OFFLINE_REPLICAS: &str = "ottla_replica_manager_offline_replica_count";
/// Counter: ISR changes proposed that take a follower in.
pub const ISR_EXPANDS: &str = "ottla_replica_manager_isr_expands_total";
/// Counter: ISR changes proposed that take followers out.
pub const ISR_SHRINKS: &str = "ottla_replica_manager_isr_shrinks_total";
/// Counter: bytes appended by clients.
pub const BYTES_IN: &str = "ottla_partition_bytes_in_total";
/// Counter: bytes appended from leaders.
pub const REPLICATION_BYTES_IN: &str = "ottla_partition_replication_bytes_in_total";
/// Counter: reads and appends refused because too much disk work was waiting.
pub const DISK_BUSY: &str = "ottla_disk_busy_total";

/// Tells the recorder what each of them means.
pub fn describe() {
    metrics::describe_gauge!(LEADER_COUNT, "Partitions that this broker leads");
    metrics::describe_gauge!(PARTITION_COUNT, "Replicas that this broker holds");
    metrics::describe_gauge!(UNDER_REPLICATED, "Led partitions with a replica outside the ISR");
    metrics::describe_gauge!(UNDER_MIN_ISR, "Led partitions below min.insync.replicas");
    metrics::describe_gauge!(AT_MIN_ISR, "Led partitions exactly at min.insync.replicas");
    metrics::describe_gauge!(OFFLINE_REPLICAS, "Replicas whose storage has failed");
    metrics::describe_counter!(ISR_EXPANDS, "Proposed ISR changes that take a follower in");
    metrics::describe_counter!(ISR_SHRINKS, "Proposed ISR changes that take followers out");
    metrics::describe_counter!(BYTES_IN, metrics::Unit::Bytes, "Bytes appended by clients");
    metrics::describe_counter!(
        REPLICATION_BYTES_IN,
        metrics::Unit::Bytes,
        "Bytes appended from leaders"
    );
    metrics::describe_counter!(
        DISK_BUSY,
        "Requests refused because too much disk work was waiting"
    );
}
