//! Topic names, validated once where they enter and safe to build a directory name from ever after.

use std::{fmt, sync::Arc};

/// The longest topic name, in bytes; Kafka's limit, which keeps `name-partition` a valid file name.
const MAX_LENGTH: usize = 249;

/// Where consumer groups keep their members and offsets.
pub const CONSUMER_OFFSETS: &str = "__consumer_offsets";

/// Where transactions keep their state.
pub const TRANSACTION_STATE: &str = "__transaction_state";

/// A topic name that obeys Kafka's rules: 1 to 249 of `[a-zA-Z0-9._-]`, and neither `.` nor `..`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName(Arc<str>);

/// Why a text is not a topic name. On the wire: `INVALID_TOPIC_EXCEPTION`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTopicName {
    /// The name has no characters.
    #[error("topic name is empty")]
    Empty,
    /// The name would be a directory of its own.
    #[error("topic name cannot be \".\" or \"..\"")]
    Dots,
    /// The name is longer than Kafka allows.
    #[error("topic name is {0} bytes long; at most {MAX_LENGTH} are allowed")]
    TooLong(usize),
    /// The name has a character that Kafka does not allow.
    #[error("topic name {0:?} has characters other than ASCII letters, digits, '.', '_' and '-'")]
    Characters(String),
}

impl TopicName {
    /// Validates `name` by Kafka's rules.
    pub fn new(name: &str) -> Result<Self, InvalidTopicName> {
        if name.is_empty() {
            return Err(InvalidTopicName::Empty);
        }
        if name == "." || name == ".." {
            return Err(InvalidTopicName::Dots);
        }
        if name.len() > MAX_LENGTH {
            return Err(InvalidTopicName::TooLong(name.len()));
        }
        if !name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        {
            return Err(InvalidTopicName::Characters(name.to_owned()));
        }
        Ok(Self(Arc::from(name)))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the cluster keeps its own state in this topic, as Kafka's brokers have it: clients read
    /// such topics and never write or delete them by name.
    pub fn is_internal(&self) -> bool {
        matches!(&*self.0, CONSUMER_OFFSETS | TRANSACTION_STATE)
    }

    /// Whether `self` and `other` give the same metric name: Kafka refuses a topic that differs
    /// from an existing one only in `.` against `_`.
    pub fn collides_with(&self, other: &Self) -> bool {
        let fold = |b: u8| if b == b'.' { b'_' } else { b };
        self.0.len() == other.0.len() && self.0.bytes().map(fold).eq(other.0.bytes().map(fold))
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl std::borrow::Borrow<str> for TopicName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for TopicName {
    type Err = InvalidTopicName;

    fn from_str(name: &str) -> Result<Self, InvalidTopicName> {
        Self::new(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kafka_s_rules_hold() {
        for good in ["a", "a.b_c-D9", "__cluster_metadata", "...", &"x".repeat(249)] {
            assert!(TopicName::new(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a\0b", "a b", "ä", &"x".repeat(250)] {
            assert!(TopicName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn dots_and_underscores_collide() {
        let name = |s| TopicName::new(s).expect("valid");
        assert!(name("a.b").collides_with(&name("a_b")));
        assert!(!name("a.b").collides_with(&name("a-b")));
    }
}
