//! What holds for a resource and why: the content of DescribeConfigs.

use super::{
    GROUP_CONFIGS, NODE_CONFIGS, TOPIC_CONFIGS, TopicSettings,
    def::{ConfigDef, ConfigKind, Synonym, UpdateMode},
    resolve::{ConfigSource, Found, NodeDefaults, node_values, resource_values, topic_values},
};
use crate::{ClusterImage, ConfigResource};

/// One key of one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedConfig {
    /// The key.
    pub name: &'static str,
    /// The value that counts; `None` where there is none.
    pub value: Option<String>,
    /// Where it was found.
    pub source: ConfigSource,
    /// Whether nobody set it.
    pub is_default: bool,
    /// Every place where the key has a value, the one that counts first.
    pub synonyms: Vec<ConfigSynonym>,
    /// The key's type.
    pub kind: ConfigKind,
    /// What it is for.
    pub doc: &'static str,
    /// Whether the value must not be shown.
    pub sensitive: bool,
    /// Whether it cannot be changed while the node runs.
    pub read_only: bool,
}

/// One place where a key has a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigSynonym {
    /// The key as it is called there.
    pub name: &'static str,
    /// The value, in the described key's unit.
    pub value: String,
    /// Where.
    pub source: ConfigSource,
}

/// Every key of a resource, in the order of their names, as the node with these defaults sees it. The
/// cluster-wide default has only the keys that are set there. A broker can be described by itself alone:
/// only it knows its static values.
pub fn describe(
    image: &ClusterImage,
    resource: &ConfigResource,
    node: &NodeDefaults,
) -> Vec<DescribedConfig> {
    match resource {
        ConfigResource::Topic(topic) => {
            let settings = TopicSettings::resolve(image, topic, node);
            let describe_key = |def: &'static ConfigDef| {
                let mut found: Vec<_> = topic_values(image, topic, def, node).collect();
                if found.is_empty() {
                    // min.insync.replicas alone has a default that depends on the topic.
                    found.push(Found {
                        source: ConfigSource::Default,
                        key: def.name,
                        value: settings.min_insync_replicas.to_string(),
                    });
                }
                described(def, found)
            };
            TOPIC_CONFIGS.iter().map(describe_key).collect()
        }
        ConfigResource::Group(_) => GROUP_CONFIGS
            .iter()
            .map(|def| {
                let found = resource_values(image, resource, ConfigSource::Group, def, node);
                described(def, found.collect())
            })
            .collect(),
        ConfigResource::Broker(_) => NODE_CONFIGS
            .iter()
            .map(|def| {
                let set = node_values(image, Synonym::of(def.name), node);
                let built_in = def.default.map(|value| Found {
                    source: ConfigSource::Default,
                    key: def.name,
                    value: value.to_owned(),
                });
                described(def, set.chain(built_in).collect())
            })
            .collect(),
        ConfigResource::ClusterDefault => NODE_CONFIGS
            .iter()
            .filter_map(|def| {
                let value = image.config(resource, def.name)?;
                let found = Found {
                    source: ConfigSource::DynamicDefaultBroker,
                    key: def.name,
                    value: value.to_owned(),
                };
                Some(described(def, vec![found]))
            })
            .collect(),
    }
}

/// The value of one key of a resource, after defaults. `None` where there is none, or no such key.
pub fn effective_value(
    image: &ClusterImage,
    resource: &ConfigResource,
    key: &str,
    node: &NodeDefaults,
) -> Option<String> {
    let mut described = describe(image, resource, node).into_iter();
    described.find(|config| config.name == key)?.value
}

fn described(def: &'static ConfigDef, found: Vec<Found>) -> DescribedConfig {
    let source = found.first().map_or(ConfigSource::Default, |found| found.source);
    DescribedConfig {
        name: def.name,
        value: found.first().map(|found| found.value.clone()),
        source,
        is_default: source == ConfigSource::Default,
        synonyms: found
            .into_iter()
            .map(|found| ConfigSynonym {
                name: found.key,
                value: found.value,
                source: found.source,
            })
            .collect(),
        kind: def.kind,
        doc: def.doc,
        // None of the keys so far is a secret.
        sensitive: false,
        read_only: def.update == UpdateMode::ReadOnly,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use protocol::BrokerId;

    use super::*;
    use crate::records;

    #[test]
    fn a_topic_is_described_with_the_reasons() {
        let topic = ConfigResource::Topic("t".parse().expect("valid"));
        let set = [
            records::config_record(&topic, "retention.ms", Some("5")),
            records::config_record(&ConfigResource::ClusterDefault, "log.retention.ms", Some("6")),
        ];
        let image = ClusterImage::default().speculate(&set).expect("fits");
        let file = BTreeMap::from([("log.retention.hours".to_owned(), "1".to_owned())]);
        let node = NodeDefaults::of_broker(BrokerId(1), file);
        let described = describe(&image, &topic, &node);
        assert_eq!(described.len(), TOPIC_CONFIGS.len());
        let retention = described
            .iter()
            .find(|key| key.name == "retention.ms")
            .expect("there");
        assert_eq!(retention.value.as_deref(), Some("5"));
        assert_eq!(
            (retention.source, retention.is_default),
            (ConfigSource::Topic, false)
        );
        let synonyms: Vec<_> = retention
            .synonyms
            .iter()
            .map(|s| (s.name, s.value.as_str()))
            .collect();
        let expected = [
            ("retention.ms", "5"),
            ("log.retention.ms", "6"),
            ("log.retention.hours", "3600000"),
            ("log.retention.ms", "604800000"),
        ];
        assert_eq!(synonyms, expected);
        let min_isr = described
            .iter()
            .find(|key| key.name == "min.insync.replicas")
            .expect("there");
        assert_eq!((min_isr.value.as_deref(), min_isr.is_default), (Some("1"), true));
    }

    #[test]
    fn a_broker_is_described_from_its_file() {
        let file = BTreeMap::from([("node.id".to_owned(), "1".to_owned())]);
        let node = NodeDefaults::of_broker(BrokerId(1), file);
        let image = ClusterImage::default();
        let described = describe(&image, &ConfigResource::Broker(BrokerId(1)), &node);
        let id = described.iter().find(|key| key.name == "node.id").expect("there");
        assert_eq!(
            (id.value.as_deref(), id.source, id.read_only),
            (Some("1"), ConfigSource::StaticBroker, true)
        );
        assert_eq!(describe(&image, &ConfigResource::ClusterDefault, &node), []);
    }
}
