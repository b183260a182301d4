//! Groups of the KIP-848 protocol as they are written down: keys of versions 3 to 8 and 16.
//!
//! Such a group is many small records, so that a heartbeat writes only what it changed: the group's epoch
//! and its target's, and for each member what it said, what it is to have and what it has. All values are
//! of version 0 and flexible; keys are not.

mod assignment;
mod group;
mod member;
mod pattern;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;

pub use assignment::{CurrentAssignment, MemberState};
pub use group::{ConsumerGroupMetadata, PartitionMetadata, TopicMetadata};
pub use member::{ClassicProtocols, MemberSubscription, SupportedProtocol};
pub use pattern::ResolvedPattern;

use super::{
    super::{
        assignor::Assignment,
        ids::{GroupEpoch, MemberId},
    },
    RecordError,
    wire::{Reader, Writer},
};

/// A change of one key of a group of the KIP-848 protocol; `None` stands for a tombstone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConsumerChange {
    /// Key 3: the group's epoch.
    Group(Option<ConsumerGroupMetadata>),
    /// Key 4: the partitions of its topics, which Kafka wrote until 4.0. It is read and forgotten.
    PartitionMetadata(Option<Arc<PartitionMetadata>>),
    /// Key 5: a member and what it subscribes to.
    Member(MemberId, Option<Arc<MemberSubscription>>),
    /// Key 6: the epoch for which the target assignment was computed.
    TargetEpoch(Option<GroupEpoch>),
    /// Key 7: what a member is to have.
    Target(MemberId, Option<Arc<Assignment>>),
    /// Key 8: what a member has, and how far it is on its way to its target.
    Current(MemberId, Option<Arc<CurrentAssignment>>),
    /// Key 16: the topics that a regular expression stands for.
    Pattern(Arc<str>, Option<Arc<ResolvedPattern>>),
}

impl ConsumerChange {
    /// Whether this is a key's version.
    pub(super) fn has_key(version: i16) -> bool {
        matches!(version, 3..=8 | 16)
    }

    /// Reads what stands behind the group's id in a key of one of these versions, to its end, and the
    /// value.
    pub(super) fn decode(
        version: i16,
        mut key: Reader<'_>,
        value: Option<&[u8]>,
    ) -> Result<Self, RecordError> {
        /// A value of the only version that there is.
        fn read<'a, T>(
            key: i16,
            value: Option<&'a [u8]>,
            body: impl FnOnce(&mut Reader<'a>) -> Result<T, RecordError>,
        ) -> Result<Option<T>, RecordError> {
            let Some(value) = value else {
                return Ok(None);
            };
            let mut reader = Reader::new(value);
            let version = reader.i16()?;
            if version != 0 {
                return Err(RecordError::UnsupportedValue { key, version });
            }
            reader.flexible = true;
            let read = body(&mut reader)?;
            reader.end()?;
            Ok(Some(read))
        }
        let change = match version {
            3 => Self::Group(read(version, value, ConsumerGroupMetadata::read)?),
            4 => Self::PartitionMetadata(read(version, value, PartitionMetadata::read)?.map(Arc::new)),
            5 => {
                let member = key.string()?.into();
                let subscription = read(version, value, MemberSubscription::read)?;
                Self::Member(member, subscription.map(Arc::new))
            }
            6 => Self::TargetEpoch(read(version, value, group::read_target_epoch)?),
            7 => {
                let member = key.string()?.into();
                let target = read(version, value, assignment::read_target)?;
                Self::Target(member, target.map(Arc::new))
            }
            8 => {
                let member = key.string()?.into();
                let current = read(version, value, CurrentAssignment::read)?;
                Self::Current(member, current.map(Arc::new))
            }
            16 => {
                let pattern = key.string()?.into();
                let resolved = read(version, value, ResolvedPattern::read)?;
                Self::Pattern(pattern, resolved.map(Arc::new))
            }
            _ => return Err(RecordError::UnsupportedKey(version)),
        };
        key.end()?;
        Ok(change)
    }

    /// The version of the key, and what stands behind the group's id in it.
    pub(super) fn key(&self) -> (i16, Option<&str>) {
        match self {
            Self::Group(_) => (3, None),
            Self::PartitionMetadata(_) => (4, None),
            Self::Member(member, _) => (5, Some(member.as_str())),
            Self::TargetEpoch(_) => (6, None),
            Self::Target(member, _) => (7, Some(member.as_str())),
            Self::Current(member, _) => (8, Some(member.as_str())),
            Self::Pattern(pattern, _) => (16, Some(pattern)),
        }
    }

    /// The value; `None` for a tombstone.
    pub(super) fn encode_value(&self) -> Option<Bytes> {
        let mut writer = Writer::default();
        writer.i16(0);
        writer.flexible = true;
        match self {
            Self::Group(value) => value.as_ref()?.write(&mut writer),
            Self::PartitionMetadata(value) => value.as_ref()?.write(&mut writer),
            Self::Member(_, value) => value.as_ref()?.write(&mut writer),
            Self::TargetEpoch(value) => group::write_target_epoch((*value)?, &mut writer),
            Self::Target(_, value) => assignment::write_target(value.as_ref()?, &mut writer),
            Self::Current(_, value) => value.as_ref()?.write(&mut writer),
            Self::Pattern(_, value) => value.as_ref()?.write(&mut writer),
        }
        Some(writer.finish())
    }

    /// Whether it only takes something away.
    pub fn is_tombstone(&self) -> bool {
        match self {
            Self::Group(value) => value.is_none(),
            Self::PartitionMetadata(value) => value.is_none(),
            Self::Member(_, value) => value.is_none(),
            Self::TargetEpoch(value) => value.is_none(),
            Self::Target(_, value) => value.is_none(),
            Self::Current(_, value) => value.is_none(),
            Self::Pattern(_, value) => value.is_none(),
        }
    }
}
