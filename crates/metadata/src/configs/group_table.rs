//! Every key of a consumer group that Ottla honours. Names, types and defaults are Kafka's 4.x.

use super::def::{ConfigDef, ConfigKind, Synonym, UpdateMode, Valid};

/// A time of a group's members, in milliseconds.
const fn millis(
    name: &'static str,
    default: &'static str,
    synonyms: &'static [Synonym],
    doc: &'static str,
) -> ConfigDef {
    ConfigDef {
        name,
        kind: ConfigKind::Int,
        default: Some(default),
        update: UpdateMode::ClusterWide,
        synonyms,
        valid: Valid::AtLeast(1),
        doc,
    }
}

/// A group's key for how often its members are to be heard of.
pub(crate) const HEARTBEAT: &str = "consumer.heartbeat.interval.ms";
/// A group's key for how long its members may be silent.
pub(crate) const SESSION: &str = "consumer.session.timeout.ms";

/// Group keys, in the order of their names.
pub static GROUP_CONFIGS: &[ConfigDef] = &[
    millis(
        HEARTBEAT,
        "5000",
        &[Synonym::of("group.consumer.heartbeat.interval.ms")],
        "How often members of the KIP-848 protocol are to send heartbeats. It must lie between \
         `group.consumer.min.heartbeat.interval.ms` and `group.consumer.max.heartbeat.interval.ms`, and below \
         the session timeout.",
    ),
    millis(
        SESSION,
        "45000",
        &[Synonym::of("group.consumer.session.timeout.ms")],
        "How long members of the KIP-848 protocol may be silent. It must lie between \
         `group.consumer.min.session.timeout.ms` and `group.consumer.max.session.timeout.ms`.",
    ),
];

/// The definition of a group's key.
pub(crate) fn group_def(key: &str) -> Option<&'static ConfigDef> {
    GROUP_CONFIGS.iter().find(|def| def.name == key)
}
