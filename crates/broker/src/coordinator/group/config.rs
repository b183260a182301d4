//! What an operator can set about groups.

use std::{collections::BTreeMap, sync::Arc};

use super::{assignor::AssignorKind, ids::GroupId};

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
    /// `group.consumer.session.timeout.ms`: how long a member of the KIP-848 protocol may be silent.
    pub consumer_session_timeout_ms: i32,
    /// `group.consumer.heartbeat.interval.ms`: how often such members are told to heartbeat.
    pub consumer_heartbeat_interval_ms: i32,
    /// `group.consumer.max.size`: members beyond it are refused.
    pub consumer_group_max_size: usize,
    /// `group.consumer.assignors`: those that members may ask for; the first is that of groups whose
    /// members ask for none.
    pub consumer_assignors: Vec<AssignorKind>,
    /// `group.consumer.migration.policy`.
    pub consumer_migration_policy: MigrationPolicy,
    /// What groups have of their own in place of the above.
    pub consumer_overrides: Arc<BTreeMap<GroupId, ConsumerOverrides>>,
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
            consumer_session_timeout_ms: 45_000,
            consumer_heartbeat_interval_ms: 5_000,
            consumer_group_max_size: i32::MAX as usize,
            consumer_assignors: AssignorKind::ALL.to_vec(),
            consumer_migration_policy: MigrationPolicy::default(),
            consumer_overrides: Arc::default(),
            offset_metadata_max_bytes: 4_096,
            offsets_retention_ms: 7 * 24 * 60 * 60 * 1_000,
            offsets_retention_check_interval_ms: 600_000,
            new_member_join_timeout_ms: 5 * 60 * 1_000,
            max_records_bytes: 1_000_000,
        }
    }
}

impl GroupConfig {
    /// How long a member of this group may be silent, in milliseconds.
    pub(super) fn consumer_session_timeout_of(&self, group: &GroupId) -> i32 {
        let own = self.consumer_overrides.get(group);
        own.and_then(|own| own.session_timeout_ms)
            .unwrap_or(self.consumer_session_timeout_ms)
    }

    /// How often the members of this group are told to heartbeat, in milliseconds.
    pub(super) fn consumer_heartbeat_interval_of(&self, group: &GroupId) -> i32 {
        let own = self.consumer_overrides.get(group);
        own.and_then(|own| own.heartbeat_interval_ms)
            .unwrap_or(self.consumer_heartbeat_interval_ms)
    }
}

/// Settings of one group of the KIP-848 protocol (the `GROUP` resource of the configuration APIs); what is
/// not set is as for all groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConsumerOverrides {
    /// `consumer.session.timeout.ms`.
    pub session_timeout_ms: Option<i32>,
    /// `consumer.heartbeat.interval.ms`.
    pub heartbeat_interval_ms: Option<i32>,
}

/// Whether groups change their protocol while they run (`group.consumer.migration.policy`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MigrationPolicy {
    /// Never.
    Disabled,
    /// From the classic protocol to that of KIP-848.
    Upgrade,
    /// From the protocol of KIP-848 to the classic one.
    Downgrade,
    /// Both ways.
    #[default]
    Bidirectional,
}

impl MigrationPolicy {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Disabled,
        Self::Upgrade,
        Self::Downgrade,
        Self::Bidirectional,
    ];

    /// The policy of this name, in any case.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|policy| policy.name().eq_ignore_ascii_case(name))
    }

    /// Its name in the settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Upgrade => "upgrade",
            Self::Downgrade => "downgrade",
            Self::Bidirectional => "bidirectional",
        }
    }

    /// Whether a classic group may become one of the KIP-848 protocol.
    pub fn allows_upgrade(self) -> bool {
        matches!(self, Self::Upgrade | Self::Bidirectional)
    }

    /// Whether a group of the KIP-848 protocol may become a classic one.
    pub fn allows_downgrade(self) -> bool {
        matches!(self, Self::Downgrade | Self::Bidirectional)
    }
}
