//! Where configuration values come from, and which one holds.
//!
//! The file has Kafka's keys. An environment variable `OTTLA_NODE_ID` stands for `node.id`; `--set
//! key=value` beats both. A key that nobody knows is an error that names the nearest known one; a key
//! that Kafka has and Ottla does not is a warning.

use std::{collections::BTreeMap, fs::File, io::BufReader, path::Path};

use anyhow::{Context, bail};
use metadata::{
    ClusterImage,
    configs::{
        CleanerSettings, ConfigError, NODE_CONFIGS, NodeDefaults, Scope, is_known_but_absent, validate,
    },
};

/// Environment variables that are not configuration keys.
const RESERVED: [&str; 3] = ["OTTLA_BOOTSTRAP_SERVER", "OTTLA_LOG", "OTTLA_BIN"];

/// Validated keys and values, as they were written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Properties {
    pub(crate) values: BTreeMap<String, String>,
    /// Keys of Kafka's that have no effect here.
    pub(crate) without_effect: Vec<String>,
}

/// The three sources, in the order in which they override each other.
#[derive(Clone, Debug, Default)]
pub(crate) struct Layers {
    file: BTreeMap<String, String>,
    environment: BTreeMap<String, String>,
    command_line: BTreeMap<String, String>,
}

impl Layers {
    /// Reads a properties file.
    pub(crate) fn with_file(mut self, path: &Path) -> anyhow::Result<Self> {
        let file =
            File::open(path).with_context(|| format!("cannot open the configuration {}", path.display()))?;
        let values = java_properties::read(BufReader::new(file))
            .with_context(|| format!("{} is not a properties file", path.display()))?;
        self.file = values.into_iter().collect();
        Ok(self)
    }

    /// Takes values that stand as if in a file.
    pub(crate) fn with_values<const N: usize>(mut self, values: [(&str, String); N]) -> Self {
        self.file
            .extend(values.map(|(key, value)| (key.to_owned(), value)));
        self
    }

    /// Takes the variables that begin with `OTTLA_`.
    pub(crate) fn with_environment(mut self, variables: impl Iterator<Item = (String, String)>) -> Self {
        for (variable, value) in variables {
            let Some(name) = variable.strip_prefix("OTTLA_") else {
                continue;
            };
            if RESERVED.contains(&variable.as_str()) {
                continue;
            }
            let as_variable = |key: &str| key.replace('.', "_").to_ascii_uppercase();
            match NODE_CONFIGS.iter().find(|def| as_variable(def.name) == name) {
                Some(def) => self.environment.insert(def.name.to_owned(), value),
                // Refused by name when all is validated, with the nearest key.
                None => self
                    .environment
                    .insert(name.to_ascii_lowercase().replace('_', "."), value),
            };
        }
        self
    }

    /// Takes `--set key=value` arguments.
    pub(crate) fn with_settings(mut self, settings: &[String]) -> anyhow::Result<Self> {
        for setting in settings {
            let Some((key, value)) = setting.split_once('=') else {
                bail!("--set {setting:?} is not of the form key=value");
            };
            self.command_line.insert(key.trim().to_owned(), value.to_owned());
        }
        Ok(self)
    }

    /// Lays the sources over each other and validates every key and value.
    pub(crate) fn resolve(self) -> Result<Properties, ConfigError> {
        let mut values = self.file;
        values.extend(self.environment);
        values.extend(self.command_line);
        let (absent, values): (BTreeMap<_, _>, BTreeMap<_, _>) =
            values.into_iter().partition(|(key, _)| is_known_but_absent(key));
        for (key, value) in &values {
            validate(Scope::Node, key, value)?;
        }
        let node = NodeDefaults::new(values.clone());
        CleanerSettings::resolve(&ClusterImage::default(), &node).check()?;
        Ok(Properties {
            values,
            without_effect: absent.into_keys().collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers() -> Layers {
        Layers::default().with_values([("node.id", "1".to_owned()), ("num.partitions", "2".to_owned())])
    }

    #[test]
    fn environment_beats_file_and_command_line_beats_both() {
        let variables = [
            ("OTTLA_NODE_ID".to_owned(), "7".to_owned()),
            ("OTTLA_NUM_PARTITIONS".to_owned(), "3".to_owned()),
            ("OTTLA_BOOTSTRAP_SERVER".to_owned(), "elsewhere:9092".to_owned()),
            ("HOME".to_owned(), "/".to_owned()),
        ];
        let properties = layers()
            .with_environment(variables.into_iter())
            .with_settings(&["num.partitions=4".to_owned()])
            .expect("well formed")
            .resolve()
            .expect("valid");
        assert_eq!(properties.values["node.id"], "7");
        assert_eq!(properties.values["num.partitions"], "4");
        assert_eq!(properties.values.len(), 2);
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest_known_one() {
        let error = layers()
            .with_settings(&["num.partition=4".to_owned()])
            .expect("well formed")
            .resolve()
            .expect_err("unknown key");
        assert!(error.to_string().contains("num.partitions"), "{error}");
    }

    #[test]
    fn a_malformed_setting_is_refused() {
        assert!(layers().with_settings(&["num.partitions".to_owned()]).is_err());
    }
}
