//! Newtypes for every number and id that crosses a function or a wire.
//!
//! Arithmetic is limited to what makes sense: an [`Offset`] has a next one and a distance, an epoch
//! has a next one. `Option` stands where Kafka's wire uses −1; only codecs know the sentinels.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl $name {
            /// The number itself, for codecs and display.
            pub const fn get(self) -> $inner {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl From<$inner> for $name {
            fn from(value: $inner) -> Self {
                Self(value)
            }
        }
    };
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// The id of all zeroes: on Kafka's wire it means "none".
            pub const ZERO: Self = Self(Uuid::nil());

            /// A fresh random id. Its text does not begin with `-`, as in Kafka: command lines would
            /// take it for an option.
            pub fn random() -> Self {
                loop {
                    let id = Self(Uuid::new_v4());
                    if !uuid_text(id.0).starts_with('-') {
                        return id;
                    }
                }
            }

            /// Whether this is the id of all zeroes.
            pub fn is_zero(self) -> bool {
                self.0.is_nil()
            }

            /// The sixteen bytes, as they travel in Ottla's own messages.
            pub fn to_vec(self) -> Vec<u8> {
                self.0.as_bytes().to_vec()
            }

            /// Reads sixteen bytes; `None` when there are not exactly sixteen.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                Uuid::from_slice(bytes).ok().map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&uuid_text(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), uuid_text(self.0))
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidUuid;

            fn from_str(text: &str) -> Result<Self, InvalidUuid> {
                parse_uuid(text).map(Self)
            }
        }
    };
}

number! {
    /// The `node.id` of a broker or a controller; unique over both roles.
    BrokerId(i32)
}
number! {
    /// The index of a partition within its topic, from 0.
    PartitionIndex(i32)
}
number! {
    /// The position of a record in a partition's log (for the metadata log: the Raft index).
    Offset(i64)
}
number! {
    /// Counts the leaders of one partition (KIP-101); for the metadata log: the Raft term.
    LeaderEpoch(i32)
}
number! {
    /// Counts the changes of one partition's record at the controller (KIP-497).
    PartitionEpoch(i32)
}
number! {
    /// Given to a broker at each registration; a later one fences every earlier one (KIP-903).
    BrokerEpoch(i64)
}
number! {
    /// Identifies an idempotent producer (KIP-98).
    ProducerId(i64)
}
number! {
    /// Fences earlier instances of one producer id (KIP-98).
    ProducerEpoch(i16)
}
number! {
    /// Numbers the replication conversations about one partition; data of an older one is dropped.
    StreamGeneration(u64)
}
uuid_id! {
    /// Identity of a topic. A topic deleted and created again under its name has another one.
    TopicId
}
uuid_id! {
    /// Identity of one log directory, kept in its `meta.properties` (KIP-858).
    DirectoryId
}
uuid_id! {
    /// Identity of one run of one process. A restarted process has another one.
    IncarnationId
}
uuid_id! {
    /// Names one controller's claim to decide; entries decided under another claim have no effect.
    ClaimId
}

impl Offset {
    /// The first offset of a log.
    pub const ZERO: Self = Self(0);

    /// The offset that follows this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// How many offsets lie from `earlier` to `self`; `None` when `earlier` is later.
    pub const fn distance_from(self, earlier: Self) -> Option<u64> {
        if self.0 >= earlier.0 {
            Some(self.0.wrapping_sub(earlier.0) as u64)
        } else {
            None
        }
    }

    /// This offset moved forward by `count` offsets, `None` where no such offset exists.
    pub const fn checked_add(self, count: i64) -> Option<Self> {
        match self.0.checked_add(count) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }
}

impl LeaderEpoch {
    /// The epoch of a partition's first leader.
    pub const ZERO: Self = Self(0);

    /// The next leader's epoch.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// Kafka's wire form, in which −1 stands for "not known".
    pub const fn from_wire(epoch: i32) -> Option<Self> {
        if epoch < 0 { None } else { Some(Self(epoch)) }
    }

    /// Kafka's wire form of an epoch that may not be known.
    pub fn to_wire(epoch: Option<Self>) -> i32 {
        epoch.map_or(-1, Self::get)
    }
}

impl PartitionEpoch {
    /// The epoch of a partition as it was created.
    pub const ZERO: Self = Self(0);

    /// The epoch after one more change.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// A partition, by the identity of its topic: what crosses every internal wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TopicPartition {
    /// The topic's identity.
    pub topic_id: TopicId,
    /// The partition's index in it.
    pub partition: PartitionIndex,
}

impl TopicPartition {
    /// Names one partition of a topic.
    pub const fn new(topic_id: TopicId, partition: PartitionIndex) -> Self {
        Self { topic_id, partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic_id, self.partition)
    }
}

/// The name of a cluster, given once by `ottla format --cluster-id`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClusterId(String);

/// A cluster id that is empty, too long or has a character outside `[A-Za-z0-9._-]`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cluster id {0:?} is not valid: use 1 to 64 of the characters A-Z a-z 0-9 . _ -")]
pub struct InvalidClusterId(String);

impl ClusterId {
    /// Accepts 1 to 64 characters of `[A-Za-z0-9._-]`; Kafka's base64 ids are among them.
    pub fn new(id: impl Into<String>) -> Result<Self, InvalidClusterId> {
        let id = id.into();
        let valid = (1..=64).contains(&id.len())
            && id
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        if valid {
            Ok(Self(id))
        } else {
            Err(InvalidClusterId(id))
        }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that is neither Kafka's 22-character id nor a hyphenated UUID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an id: expected 22 characters of URL-safe base64, as Kafka prints ids")]
pub struct InvalidUuid(String);

const BASE64_URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Kafka prints a UUID as 22 characters of URL-safe base64 without padding.
fn uuid_text(id: Uuid) -> String {
    let value = id.as_u128();
    // 128 bits are 21 digits of 6 bits and one last digit that carries 2 bits, shifted left by 4.
    let digit = |i: u32| {
        let bits = if i == 21 {
            (value << 4) & 0x3f
        } else {
            (value >> (122 - 6 * i)) & 0x3f
        };
        char::from(BASE64_URL[bits as usize])
    };
    (0..22).map(digit).collect()
}

fn parse_uuid(text: &str) -> Result<Uuid, InvalidUuid> {
    let invalid = || InvalidUuid(text.chars().take(64).collect());
    if text.len() == 36 {
        return Uuid::parse_str(text).map_err(|_| invalid());
    }
    if text.len() != 22 {
        return Err(invalid());
    }
    let mut value: u128 = 0;
    for (i, byte) in text.bytes().enumerate() {
        let digit = BASE64_URL.iter().position(|&b| b == byte).ok_or_else(invalid)? as u128;
        if i == 21 {
            if digit & 0xf != 0 {
                return Err(invalid());
            }
            value |= digit >> 4;
        } else {
            value |= digit << (122 - 6 * i);
        }
    }
    Ok(Uuid::from_u128(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_print_as_kafka_prints_them() {
        // Kafka's Uuid(1, 2).toString() is documented by its own test as this text.
        let id = TopicId(Uuid::from_u64_pair(0, 1));
        assert_eq!(id.to_string(), "AAAAAAAAAAAAAAAAAAAAAQ");
        assert_eq!("AAAAAAAAAAAAAAAAAAAAAQ".parse::<TopicId>(), Ok(id));
    }

    #[test]
    fn id_text_round_trips() {
        for _ in 0..100 {
            let id = DirectoryId::random();
            assert_eq!(id.to_string().parse::<DirectoryId>(), Ok(id));
            assert_eq!(id.0.to_string().parse::<DirectoryId>(), Ok(id));
        }
    }

    #[test]
    fn random_ids_are_no_options() {
        assert!((0..1_000).all(|_| !DirectoryId::random().to_string().starts_with('-')));
    }

    #[test]
    fn bad_ids_are_refused_with_their_text() {
        for bad in ["", "short", "AAAAAAAAAAAAAAAAAAAAA!", "AAAAAAAAAAAAAAAAAAAAAR"] {
            assert!(bad.parse::<TopicId>().is_err(), "{bad}");
        }
        assert!(ClusterId::new("a b").is_err());
        assert!(ClusterId::new("").is_err());
        assert!(ClusterId::new("MkU3OEVBNTcwNTJENDM2Qg").is_ok());
    }

    #[test]
    fn offsets_know_their_distance() {
        assert_eq!(Offset(7).distance_from(Offset(3)), Some(4));
        assert_eq!(Offset(3).distance_from(Offset(7)), None);
        assert_eq!(Offset(i64::MAX).checked_add(1), None);
    }
}
