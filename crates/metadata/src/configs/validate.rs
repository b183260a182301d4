//! Whether a key may be set to a value in a place.

use super::{
    GROUP_CONFIGS, NODE_CONFIGS, TOPIC_CONFIGS,
    def::{ConfigDef, ConfigError, ConfigKind, UpdateMode},
    group_table::group_def,
    node_table::node_def,
    topic_table::topic_def,
};

/// Where a key is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// For one topic.
    Topic,
    /// For one consumer group.
    Group,
    /// At runtime for one broker.
    Broker,
    /// At runtime for all brokers.
    ClusterDefault,
    /// In a node's file, environment or command line.
    Node,
}

impl Scope {
    fn name(self) -> &'static str {
        match self {
            Self::Topic => "a topic",
            Self::Group => "a group",
            Self::Broker | Self::ClusterDefault => "a broker",
            Self::Node => "a node",
        }
    }

    fn table(self) -> &'static [ConfigDef] {
        match self {
            Self::Topic => TOPIC_CONFIGS,
            Self::Group => GROUP_CONFIGS,
            Self::Broker | Self::ClusterDefault | Self::Node => NODE_CONFIGS,
        }
    }

    fn definition(self, key: &str) -> Result<&'static ConfigDef, ConfigError> {
        let found = match self {
            Self::Topic => topic_def(key),
            Self::Group => group_def(key),
            Self::Broker | Self::ClusterDefault | Self::Node => node_def(key),
        };
        found.ok_or_else(|| ConfigError::UnknownKey {
            key: key.chars().take(200).collect(),
            scope: self.name(),
            nearest: nearest(key, self.table()),
        })
    }
}

/// Whether `key` may be set to `value` there. Keys for which
/// [`is_known_but_absent`](super::is_known_but_absent) holds are unknown here.
pub fn validate(scope: Scope, key: &str, value: &str) -> Result<(), ConfigError> {
    let def = scope.definition(key)?;
    match (scope, def.update) {
        (Scope::Broker | Scope::ClusterDefault, UpdateMode::ReadOnly) => {
            Err(ConfigError::ReadOnly { key: key.to_owned() })
        }
        (Scope::Broker, UpdateMode::ClusterWide) => Err(ConfigError::ClusterWideOnly { key: key.to_owned() }),
        _ => def.check(value),
    }
}

/// The type of a key, for list operations and listings.
pub fn config_kind(scope: Scope, key: &str) -> Result<ConfigKind, ConfigError> {
    scope.definition(key).map(|def| def.kind)
}

/// The known key that looks most like `key`, where one looks like it at all.
fn nearest(key: &str, table: &[ConfigDef]) -> Option<String> {
    /// Below this, a suggestion would be a guess.
    const LIKENESS: f64 = 0.8;
    let key: String = key.chars().take(100).collect();
    table
        .iter()
        .map(|def| (strsim::jaro_winkler(def.name, &key), def.name))
        .filter(|(likeness, _)| *likeness >= LIKENESS)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, name)| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_fits_its_own_key() {
        for def in TOPIC_CONFIGS.iter().chain(GROUP_CONFIGS).chain(NODE_CONFIGS) {
            assert_eq!(
                def.default.map(|value| def.check(value)).transpose(),
                Ok(def.default.map(|_| ()))
            );
            assert!(!def.doc.is_empty());
        }
        assert!(TOPIC_CONFIGS.is_sorted_by_key(|def| def.name));
        assert!(GROUP_CONFIGS.is_sorted_by_key(|def| def.name));
        assert!(NODE_CONFIGS.is_sorted_by_key(|def| def.name));
    }

    #[test]
    fn a_topic_s_synonyms_are_node_keys_that_fit() {
        for def in TOPIC_CONFIGS {
            assert!(!def.synonyms.is_empty(), "{}", def.name);
            for synonym in def.synonyms {
                let node = node_def(synonym.key).expect("a node key");
                assert!(node.kind == def.kind || synonym.scale != 1, "{}", def.name);
                assert_ne!(node.update, UpdateMode::ReadOnly, "{}", def.name);
                if let Some(value) = node.default {
                    assert_eq!(Some(synonym.convert(value).as_str()), def.default, "{}", def.name);
                }
            }
        }
    }

    #[test]
    fn a_group_s_synonyms_are_node_keys_with_its_defaults() {
        for def in GROUP_CONFIGS {
            for synonym in def.synonyms {
                let node = node_def(synonym.key).expect("a node key");
                assert_eq!((node.kind, node.default), (def.kind, def.default), "{}", def.name);
            }
        }
    }

    #[test]
    fn errors_name_value_and_nearest_key() {
        let error = |scope, key, value| validate(scope, key, value).expect_err("refused").to_string();
        assert_eq!(
            error(Scope::Topic, "retension.ms", "1"),
            "unknown configuration key \"retension.ms\" for a topic; did you mean retention.ms?"
        );
        assert_eq!(
            error(Scope::Node, "zzz", "1"),
            "unknown configuration key \"zzz\" for a node"
        );
        assert_eq!(
            error(Scope::Topic, "segment.bytes", "12"),
            "invalid value \"12\" for configuration segment.bytes: must be at least 1048576"
        );
        assert_eq!(
            error(Scope::Topic, "cleanup.policy", "compact,remove"),
            "invalid value \"compact,remove\" for configuration cleanup.policy: must be a list of compact, delete"
        );
        assert!(error(Scope::Broker, "node.id", "1").contains("restart"));
        assert!(error(Scope::Broker, "min.insync.replicas", "1").contains("cluster-wide"));
        assert!(error(Scope::Topic, "preallocate", "yes").contains("true or false"));
        assert!(error(Scope::Topic, "min.cleanable.dirty.ratio", "1.5").contains("from 0 to 1"));
        assert_eq!(
            validate(Scope::Topic, "cleanup.policy", "compact, delete"),
            Ok(())
        );
        assert_eq!(
            validate(Scope::ClusterDefault, "min.insync.replicas", "2"),
            Ok(())
        );
        assert_eq!(validate(Scope::Broker, "log.retention.ms", "-1"), Ok(()));
    }
}
