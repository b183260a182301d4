//! The table of configuration keys: names, types, defaults and bounds.
//!
//! One table ([`TOPIC_CONFIGS`], [`GROUP_CONFIGS`], [`NODE_CONFIGS`]) serves validation ([`validate`]),
//! typed lookup ([`TopicSettings`], [`GroupTimes`], [`NodeDefaults`]), DescribeConfigs ([`describe`]) and the generated
//! documentation ([`to_markdown`]).
//!
//! Where a topic's key is set in several places, the nearest wins: the topic itself, then this
//! broker's dynamic value, then the cluster-wide dynamic default, then the node's file, then the
//! built-in default. `min.insync.replicas` alone is the same on every node at every offset, because
//! controllers and leaders must agree on it (KIP-966): it is never set for a single broker, and the
//! value in a controller's file reaches the others as the cluster-wide default.

mod absent;
mod cleaner_settings;
mod def;
mod describe;
mod group_table;
mod group_times;
mod markdown;
mod move_rate;
mod node_table;
mod resolve;
mod topic_settings;
mod topic_table;
mod validate;

pub use absent::{KNOWN_BUT_ABSENT, is_known_but_absent};
pub use cleaner_settings::CleanerSettings;
pub use def::list_items;
pub use def::{ConfigDef, ConfigError, ConfigKind, Synonym, UpdateMode, Valid};
pub use describe::{ConfigSynonym, DescribedConfig, describe, effective_value};
pub use group_table::GROUP_CONFIGS;
pub use group_times::GroupTimes;
pub use markdown::to_markdown;
pub use move_rate::move_bytes_per_second;
pub use node_table::{NODE_CONFIGS, node_default};
pub use resolve::{ConfigSource, NodeDefaults};
pub use topic_settings::{
    CleanupPolicy, TopicCompression, TopicSettings, flush_messages, min_insync_replicas,
    unclean_leader_election,
};
pub use topic_table::TOPIC_CONFIGS;
pub use validate::{Scope, config_kind, validate};
