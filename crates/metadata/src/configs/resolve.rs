//! Which of the places where a key is set counts.

use std::{collections::BTreeMap, str::FromStr};

use protocol::{BrokerId, TopicName};

use super::{
    def::{ConfigDef, Synonym, list_items},
    node_table::{node_def, node_default},
};
use crate::{ClusterImage, ConfigResource};

/// What a node brings along: its own values, from file, environment and command line.
#[derive(Clone, Debug, Default)]
pub struct NodeDefaults {
    /// The node, where it is a broker: its dynamic values count for it.
    broker: Option<BrokerId>,
    /// Static values by key.
    values: BTreeMap<String, String>,
}

impl NodeDefaults {
    /// A node with these static values. Where `process.roles` says that it is a broker, values that are
    /// set at runtime for its `node.id` count for it. [`validate`](super::validate) has seen the values.
    pub fn new(values: BTreeMap<String, String>) -> Self {
        let is_broker = values
            .get("process.roles")
            .is_some_and(|roles| list_items(roles).contains(&"broker"));
        let broker = values
            .get("node.id")
            .filter(|_| is_broker)
            .and_then(|id| id.trim().parse().ok())
            .map(BrokerId);
        Self { broker, values }
    }

    /// What is known from afar of a broker: who it is, and some of its static values.
    pub fn of_broker(broker: BrokerId, values: BTreeMap<String, String>) -> Self {
        Self {
            broker: Some(broker),
            values,
        }
    }

    /// The static value of a key, exactly as it was given.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str)
    }

    /// The static value of a node's key, or else its built-in default.
    pub fn value_or_default(&self, key: &str) -> Option<&str> {
        self.value(key).or_else(|| node_default(key))
    }

    /// Every static value.
    pub fn values(&self) -> &BTreeMap<String, String> {
        &self.values
    }
}

/// Where a value was found, nearest first; the discriminants are those of DescribeConfigs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigSource {
    /// Set for the topic.
    Topic = 1,
    /// Set at runtime for this broker.
    DynamicBroker = 2,
    /// Set at runtime for all brokers.
    DynamicDefaultBroker = 3,
    /// In the node's file, environment or command line.
    StaticBroker = 4,
    /// Built in.
    Default = 5,
    /// Set for the group.
    Group = 8,
}

/// One place where a key has a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) source: ConfigSource,
    pub(crate) key: &'static str,
    /// In the unit of the key that was asked for.
    pub(crate) value: String,
}

/// Every place where a topic's key has a value that fits, nearest first.
pub(crate) fn topic_values<'a>(
    image: &'a ClusterImage,
    topic: &TopicName,
    def: &'static ConfigDef,
    node: &'a NodeDefaults,
) -> impl Iterator<Item = Found> + use<'a> {
    let topic = ConfigResource::Topic(topic.clone());
    resource_values(image, &topic, ConfigSource::Topic, def, node)
}

/// Every place where a key of something that has node keys as its defaults has a value that fits, nearest
/// first; `source` is what its own values are called.
pub(crate) fn resource_values<'a>(
    image: &'a ClusterImage,
    resource: &ConfigResource,
    source: ConfigSource,
    def: &'static ConfigDef,
    node: &'a NodeDefaults,
) -> impl Iterator<Item = Found> + use<'a> {
    let own = image.config(resource, def.name).map(|value| Found {
        source,
        key: def.name,
        value: value.to_owned(),
    });
    let inherited = def
        .synonyms
        .iter()
        .flat_map(move |&synonym| node_values(image, synonym, node));
    // Kafka's name for the default is the node's key, where that counts in the same unit.
    let same_unit = def.synonyms.iter().rfind(|synonym| synonym.scale == 1);
    let built_in = def.default.map(|value| Found {
        source: ConfigSource::Default,
        key: same_unit.map_or(def.name, |synonym| synonym.key),
        value: value.to_owned(),
    });
    own.into_iter()
        .chain(inherited)
        .chain(built_in)
        // A value that this version refuses (written by another one) gives way to the next.
        .filter(|found| def.check(&found.value).is_ok())
}

/// Every place where a node's key has a value, nearest first, without its built-in default.
pub(crate) fn node_values<'a>(
    image: &'a ClusterImage,
    synonym: Synonym,
    node: &'a NodeDefaults,
) -> impl Iterator<Item = Found> + use<'a> {
    let agreed = synonym.key == "min.insync.replicas";
    let broker = node
        .broker
        .filter(|_| !agreed)
        .and_then(|id| image.config(&ConfigResource::Broker(id), synonym.key));
    let cluster = image.config(&ConfigResource::ClusterDefault, synonym.key);
    let file = node.value(synonym.key).filter(|_| !agreed);
    [
        (ConfigSource::DynamicBroker, broker),
        (ConfigSource::DynamicDefaultBroker, cluster),
        (ConfigSource::StaticBroker, file),
    ]
    .into_iter()
    .filter_map(move |(source, value)| {
        value.map(|value| Found {
            source,
            key: synonym.key,
            value: synonym.convert(value),
        })
    })
}

/// The nearest value of a node's key that fits it, or else its built-in default. The key must be in the table,
/// and have a default of this type.
pub(super) fn node_setting<T: FromStr>(image: &ClusterImage, node: &NodeDefaults, key: &'static str) -> T {
    let def = node_def(key).expect("a key that is looked up is in the table");
    let set = node_values(image, Synonym::of(key), node)
        .map(|found| found.value)
        .filter(|value| def.check(value).is_ok())
        .find_map(|value| value.trim().to_ascii_lowercase().parse().ok());
    set.unwrap_or_else(|| {
        node_default(key)
            .and_then(|value| value.parse().ok())
            .expect("the built-in default is of the key's type")
    })
}
