//! The records of `__consumer_offsets`, in Kafka's own schemas.
//!
//! A key begins with a version that also says what the record is about: 0 and 1 a committed offset,
//! 2 a classic group, 3 to 8 and 16 groups of the KIP-848 protocol, others share and streams groups.
//! A value begins with the version of its own schema. A null value is a tombstone.
//!
//! Written are key 1 with value 3 (value 1 for an offset with an expiry of its own), key 2 with value 3, and
//! keys 3 to 8 and 16 with value 0: what Kafka 4 writes. Read are all versions that Kafka 4 reads.

mod consumer;
mod group_metadata;
mod offset_commit;
#[cfg(test)]
mod tests;
pub(super) mod wire;

use std::sync::Arc;

use bytes::Bytes;

pub use consumer::{
    ClassicProtocols, ConsumerChange, ConsumerGroupMetadata, CurrentAssignment, MemberState,
    MemberSubscription, PartitionMetadata, ResolvedPattern, SupportedProtocol, TopicMetadata,
};
pub use group_metadata::{GroupMetadata, MemberMetadata};
pub use offset_commit::{OffsetKey, OffsetValue};

use super::ids::GroupId;
use wire::{Reader, Writer};

/// A record as it goes into the partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoordinatorRecord {
    /// The key: compaction keeps the last record of each.
    pub key: Bytes,
    /// The value; `None` is a tombstone.
    pub value: Option<Bytes>,
}

impl CoordinatorRecord {
    /// Key and value together, in bytes.
    pub fn size(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, Bytes::len)
    }

    /// What it takes of a batch at most, in bytes: key, value and what frames them.
    pub fn framed_size(&self) -> usize {
        self.size() + Self::FRAMING
    }

    /// What a record's framing takes at most besides key and value, in bytes: lengths and differences of
    /// variable size, attributes, and that there are no headers.
    const FRAMING: usize = 32;
}

/// A record that cannot be read. Its key's state stays as the records before it left it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// It ends before it should.
    #[error("the record ends in the middle of a field")]
    Truncated,
    /// A length is negative or larger than anything that is ever written.
    #[error("a length in the record is impossible")]
    Length,
    /// Something is null that never is.
    #[error("a field that cannot be null is")]
    Null,
    /// A string is no UTF-8.
    #[error("a string in the record is not UTF-8")]
    Utf8,
    /// There are bytes after the last field.
    #[error("the record goes on after its last field")]
    LeftOver,
    /// It is about something that this broker does not know; Kafka skips such records too.
    #[error("records with keys of version {0} are not supported")]
    UnsupportedKey(i16),
    /// Its value's schema is newer than this broker, or never was.
    #[error("version {version} of the values under keys of version {key} is not supported")]
    UnsupportedValue {
        /// The version of the key.
        key: i16,
        /// The version of the value.
        version: i16,
    },
    /// A group with the same member or the same static member twice, or members without a protocol.
    #[error("the group in the record contradicts itself")]
    Inconsistent,
    /// No group or member is ever in such an epoch.
    #[error("the record has an epoch {0}")]
    Epoch(i32),
    /// No topic has such a partition.
    #[error("the record has a partition {0}")]
    Partition(i32),
}

/// A change of one key's state: what a record means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// An offset was committed, or (`None`) forgotten.
    Offset(OffsetKey, Option<OffsetValue>),
    /// A classic group was written down, or (`None`) deleted.
    Classic(GroupId, Option<Arc<GroupMetadata>>),
    /// Something about a group of the KIP-848 protocol.
    Consumer(GroupId, ConsumerChange),
}

impl Change {
    /// The group that it is about.
    pub fn group(&self) -> &GroupId {
        match self {
            Self::Offset(key, _) => &key.group,
            Self::Classic(group, _) | Self::Consumer(group, _) => group,
        }
    }

    /// Reads a record of any version that Kafka 4 reads.
    pub fn decode(key: &[u8], value: Option<&[u8]>) -> Result<Self, RecordError> {
        let mut reader = Reader::new(key);
        let version = reader.i16()?;
        match version {
            0 | 1 => {
                let key = OffsetKey::read(&mut reader)?;
                reader.end()?;
                let value = value.map(OffsetValue::decode).transpose()?;
                Ok(Self::Offset(key, value))
            }
            2 => {
                let group = GroupId::from(reader.string()?);
                reader.end()?;
                let value = value.map(GroupMetadata::decode).transpose()?.map(Arc::new);
                Ok(Self::Classic(group, value))
            }
            _ if ConsumerChange::has_key(version) => {
                let group = GroupId::from(reader.string()?);
                let change = ConsumerChange::decode(version, reader, value)?;
                Ok(Self::Consumer(group, change))
            }
            _ => Err(RecordError::UnsupportedKey(version)),
        }
    }

    /// The record for this change, in the versions that Kafka 4 writes.
    pub fn encode(&self) -> CoordinatorRecord {
        let mut key = Writer::default();
        let value = match self {
            Self::Offset(offset_key, value) => {
                key.i16(1);
                offset_key.write(&mut key);
                value.as_ref().map(OffsetValue::encode)
            }
            Self::Classic(group, value) => {
                key.i16(2);
                key.string(group.as_str());
                value.as_deref().map(GroupMetadata::encode)
            }
            Self::Consumer(group, change) => {
                let (version, rest) = change.key();
                key.i16(version);
                key.string(group.as_str());
                if let Some(rest) = rest {
                    key.string(rest);
                }
                change.encode_value()
            }
        };
        CoordinatorRecord {
            key: key.finish(),
            value,
        }
    }
}
