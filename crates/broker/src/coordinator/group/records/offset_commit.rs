//! A committed offset: keys of versions 0 and 1, values of versions 0 to 4.

use std::sync::Arc;

use bytes::Bytes;
use protocol::{LeaderEpoch, Offset, PartitionIndex};

use super::{
    super::ids::GroupId,
    RecordError,
    wire::{Reader, Writer},
};

/// Whose offset, in which partition.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OffsetKey {
    /// The group.
    pub group: GroupId,
    /// The topic's name: Kafka's keys have no topic id.
    pub topic: Arc<str>,
    /// The partition of it.
    pub partition: PartitionIndex,
}

impl OffsetKey {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, RecordError> {
        Ok(Self {
            group: reader.string()?.into(),
            topic: reader.string()?.into(),
            partition: PartitionIndex(reader.i32()?),
        })
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        writer.string(self.group.as_str());
        writer.string(&self.topic);
        writer.i32(self.partition.0);
    }
}

/// An offset that a group committed, and what it said about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetValue {
    /// The next offset to consume.
    pub offset: Offset,
    /// The epoch of the last record consumed, if the client knew it (KIP-320).
    pub leader_epoch: Option<LeaderEpoch>,
    /// Whatever the client wanted to keep with it.
    pub metadata: Box<str>,
    /// When it was committed, in milliseconds since 1970.
    pub commit_timestamp_ms: i64,
    /// When it expires whatever the group does, if the client said so (OffsetCommit below 5).
    pub expire_timestamp_ms: Option<i64>,
}

impl OffsetValue {
    pub(super) fn decode(value: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader::new(value);
        let version = reader.i16()?;
        if !(0..=4).contains(&version) {
            return Err(RecordError::UnsupportedValue { key: 1, version });
        }
        reader.flexible = version >= 4;
        let offset = Offset(reader.i64()?);
        let leader_epoch = if version >= 3 {
            LeaderEpoch::from_wire(reader.i32()?)
        } else {
            None
        };
        let metadata = reader.string()?.into();
        let commit_timestamp_ms = reader.i64()?;
        let expire_timestamp_ms = if version == 1 {
            Some(reader.i64()?).filter(|&at| at != -1)
        } else {
            None
        };
        reader.tagged_fields()?;
        reader.end()?;
        Ok(Self {
            offset,
            leader_epoch,
            metadata,
            commit_timestamp_ms,
            expire_timestamp_ms,
        })
    }

    /// Version 3; version 1, the only one with an expiry and one without the epoch, where there is
    /// an expiry.
    pub(super) fn encode(&self) -> Bytes {
        let mut writer = Writer::default();
        writer.i16(if self.expire_timestamp_ms.is_some() { 1 } else { 3 });
        writer.i64(self.offset.0);
        if self.expire_timestamp_ms.is_none() {
            writer.i32(LeaderEpoch::to_wire(self.leader_epoch));
        }
        writer.string(&self.metadata);
        writer.i64(self.commit_timestamp_ms);
        if let Some(at) = self.expire_timestamp_ms {
            writer.i64(at);
        }
        writer.finish()
    }
}
