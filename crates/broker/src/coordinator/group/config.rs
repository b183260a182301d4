//! What an operator can set about groups.

/// Settings of the group coordinator; the names are Kafka's, with dots for underscores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupConfig {
    /// `group.min.session.timeout.ms`: a shorter session timeout is refused.
    pub group_min_session_timeout_ms: i32,
    /// `group.max.session.timeout.ms`: a longer session timeout is refused.
    pub group_max_session_timeout_ms: i32,
    /// `group.initial.rebalance.delay.ms`: how long the first rebalance of an empty group waits for
    /// more members, again and again while members come, up to their rebalance timeout.
    pub group_initial_rebalance_delay_ms: i32,
    /// `group.max.size`: members beyond it are refused.
    pub group_max_size: usize,
    /// `offset.metadata.max.bytes`: the longest metadata of a committed offset, in characters as
    /// Kafka counts them (UTF-16 units).
    pub offset_metadata_max_bytes: usize,
    /// `offsets.retention.minutes`, in milliseconds: how long offsets outlive their use.
    pub offsets_retention_ms: i64,
    /// `offsets.retention.check.interval.ms`: how often expired offsets and groups are looked for.
    pub offsets_retention_check_interval_ms: u64,
    /// How long a new member may wait for its first rebalance before it must join again: nothing
    /// tells whether the client behind a parked request is still there. Kafka's constant.
    pub new_member_join_timeout_ms: u64,
    /// The largest record, and the largest set of records of one commit, in bytes: at most what one
    /// batch of `__consumer_offsets` may hold, less the batch's header.
    pub max_records_bytes: usize,
}

impl Default for GroupConfig {
    /// Kafka's defaults.
    fn default() -> Self {
        Self {
            group_min_session_timeout_ms: 6_000,
            group_max_session_timeout_ms: 1_800_000,
            group_initial_rebalance_delay_ms: 3_000,
            group_max_size: i32::MAX as usize,
            offset_metadata_max_bytes: 4_096,
            offsets_retention_ms: 7 * 24 * 60 * 60 * 1_000,
            offsets_retention_check_interval_ms: 600_000,
            new_member_join_timeout_ms: 5 * 60 * 1_000,
            max_records_bytes: 1_000_000,
        }
    }
}
