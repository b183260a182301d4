//! What is known of one configuration key, and whether a value fits it.

/// Kafka's type of a key; the discriminants are those of DescribeConfigs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigKind {
    /// `true` or `false`.
    Boolean = 1,
    /// Any text.
    String = 2,
    /// A 32-bit number.
    Int = 3,
    /// A 64-bit number.
    Long = 5,
    /// A number with a fraction.
    Double = 6,
    /// Texts separated by commas.
    List = 7,
}

/// Which values of its kind a key takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Valid {
    /// All of them.
    Any,
    /// Any text but the empty one.
    NonEmpty,
    /// Numbers from this one.
    AtLeast(i64),
    /// Numbers from the first to the second, both included.
    Between(i64, i64),
    /// Fractions from 0 to 1.
    Ratio,
    /// One of these texts; for a list, any selection of them without repetition.
    OneOf(&'static [&'static str]),
    /// One of these texts, in upper case, lower case or both.
    OneOfAnyCase(&'static [&'static str]),
}

/// When a changed value takes effect, in Kafka's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpdateMode {
    /// At the next start: the value comes from the node's file, environment or command line.
    ReadOnly,
    /// At once, for one broker or for all.
    PerBroker,
    /// At once, only for all brokers together.
    ClusterWide,
}

/// A node's key that gives a topic's key its default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Synonym {
    /// The node's key.
    pub key: &'static str,
    /// How many of the topic key's units one of the node key's units is: `log.retention.hours` counts
    /// 3,600,000 for `retention.ms`. Negative values mean "no limit" and are not multiplied.
    pub scale: i64,
}

impl Synonym {
    /// A node's key in the topic key's own unit.
    pub const fn of(key: &'static str) -> Self {
        Self { key, scale: 1 }
    }

    /// A node's key in a larger unit.
    pub const fn scaled(key: &'static str, scale: i64) -> Self {
        Self { key, scale }
    }

    /// The node's value in the topic key's unit.
    pub(crate) fn convert(self, value: &str) -> String {
        match value.trim().parse::<i64>() {
            Ok(number) if self.scale != 1 && number > 0 => number.saturating_mul(self.scale).to_string(),
            _ => value.to_owned(),
        }
    }
}

/// One configuration key.
#[derive(Clone, Copy, Debug)]
pub struct ConfigDef {
    /// Kafka's name; Ottla's own begin with `ottla.`.
    pub name: &'static str,
    /// The type of its values.
    pub kind: ConfigKind,
    /// The built-in default as text; `None` where there is none or it depends on something else,
    /// which `doc` then says.
    pub default: Option<&'static str>,
    /// When a change takes effect; topic keys always do at once and say `ClusterWide`.
    pub update: UpdateMode,
    /// For a topic's key: node keys that give its default, the first one that is set counting.
    pub synonyms: &'static [Synonym],
    /// Which values are taken.
    pub valid: Valid,
    /// One or two sentences for users.
    pub doc: &'static str,
}

/// Why a key or value is refused. On Kafka's wire: `INVALID_CONFIG`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// No such key.
    #[error("unknown configuration key {key:?} for {scope}{}", suggestion(.nearest.as_deref()))]
    UnknownKey {
        /// The key.
        key: String,
        /// Where it was to be set: "a topic", "a broker", "a node".
        scope: &'static str,
        /// The known key that looks most like it.
        nearest: Option<String>,
    },
    /// The value does not fit the key.
    #[error("invalid value {value:?} for configuration {key}: {why}")]
    InvalidValue {
        /// The key.
        key: String,
        /// The value.
        value: String,
        /// What would fit.
        why: String,
    },
    /// The key cannot be changed while the node runs.
    #[error("configuration {key} cannot be changed at runtime: set it in the node's file and restart")]
    ReadOnly {
        /// The key.
        key: String,
    },
    /// The key cannot be set for a single broker.
    #[error("configuration {key} cannot be set for a single broker: set the cluster-wide default")]
    ClusterWideOnly {
        /// The key.
        key: String,
    },
    /// A required key is not there.
    #[error("required configuration {key} is missing")]
    Missing {
        /// The key.
        key: String,
    },
    /// Two keys that do not go together.
    #[error("{0}")]
    Conflict(String),
}

fn suggestion(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |key| format!("; did you mean {key}?"))
}

impl ConfigDef {
    /// Whether `value` fits this key.
    pub fn check(&self, value: &str) -> Result<(), ConfigError> {
        let value_trimmed = value.trim();
        let result = match self.kind {
            ConfigKind::Boolean => match value_trimmed.to_ascii_lowercase().as_str() {
                "true" | "false" => Ok(()),
                _ => Err("expected true or false".to_owned()),
            },
            ConfigKind::String => self.check_text(value_trimmed),
            ConfigKind::Int => match value_trimmed.parse::<i32>() {
                Ok(number) => self.check_number(number.into()),
                Err(_) => Err("expected a whole number of 32 bits".to_owned()),
            },
            ConfigKind::Long => match value_trimmed.parse::<i64>() {
                Ok(number) => self.check_number(number),
                Err(_) => Err("expected a whole number of 64 bits".to_owned()),
            },
            ConfigKind::Double => match value_trimmed.parse::<f64>() {
                Ok(number) if number.is_finite() => match self.valid {
                    Valid::Ratio if !(0.0..=1.0).contains(&number) => {
                        Err("expected a number from 0 to 1".to_owned())
                    }
                    _ => Ok(()),
                },
                _ => Err("expected a number".to_owned()),
            },
            ConfigKind::List => self.check_list(value_trimmed),
        };
        result.map_err(|why| ConfigError::InvalidValue {
            key: self.name.to_owned(),
            value: value.chars().take(200).collect(),
            why,
        })
    }

    fn check_number(&self, number: i64) -> Result<(), String> {
        match self.valid {
            Valid::AtLeast(least) if number < least => Err(format!("must be at least {least}")),
            Valid::Between(least, most) if !(least..=most).contains(&number) => {
                Err(format!("must be from {least} to {most}"))
            }
            _ => Ok(()),
        }
    }

    fn check_text(&self, text: &str) -> Result<(), String> {
        match self.valid {
            Valid::OneOf(allowed) if !allowed.contains(&text) => {
                Err(format!("must be one of {}", allowed.join(", ")))
            }
            Valid::OneOfAnyCase(allowed) if !allowed.iter().any(|one| one.eq_ignore_ascii_case(text)) => {
                Err(format!("must be one of {}", allowed.join(", ")))
            }
            Valid::NonEmpty if text.is_empty() => Err("must not be empty".to_owned()),
            _ => Ok(()),
        }
    }

    fn check_list(&self, text: &str) -> Result<(), String> {
        let items = list_items(text);
        match self.valid {
            Valid::NonEmpty if items.is_empty() => Err("must not be empty".to_owned()),
            Valid::OneOf(allowed) => {
                if items.is_empty() || items.iter().any(|item| !allowed.contains(item)) {
                    return Err(format!("must be a list of {}", allowed.join(", ")));
                }
                let repeated = items
                    .iter()
                    .enumerate()
                    .any(|(i, item)| items.get(..i).is_some_and(|before| before.contains(item)));
                if repeated {
                    Err("names a value twice".to_owned())
                } else {
                    Ok(())
                }
            }
            _ => Ok(()),
        }
    }
}

/// The items of a comma-separated list, without blanks.
pub fn list_items(text: &str) -> Vec<&str> {
    text.split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
        .collect()
}
