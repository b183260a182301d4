//! What the records say of a group as a whole: its epoch, its target's, and (until Kafka 4.0) its topics.

use std::{collections::BTreeSet, sync::Arc};

use protocol::{PartitionIndex, TopicId};

use super::{
    super::{
        super::ids::GroupEpoch,
        RecordError,
        wire::{Reader, Writer},
    },
    assignment::read_partition,
};

/// The tag of the hash; Kafka has it since 4.1.
const METADATA_HASH: u32 = 0;

/// The epoch of a group, and what its topics looked like then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConsumerGroupMetadata {
    /// Grows whenever members, their subscriptions or the topics change.
    pub epoch: GroupEpoch,
    /// Over the topics that the group subscribes to; 0 where an older record did not say.
    pub metadata_hash: i64,
}

impl ConsumerGroupMetadata {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, RecordError> {
        let epoch = read_epoch(reader)?;
        let mut metadata_hash = 0;
        reader.known_tagged_fields(|tag, mut field| {
            if tag == METADATA_HASH {
                metadata_hash = field.i64()?;
                field.end()?;
            }
            Ok(())
        })?;
        Ok(Self { epoch, metadata_hash })
    }

    pub(super) fn write(self, writer: &mut Writer) {
        writer.i32(self.epoch.0);
        if self.metadata_hash == 0 {
            writer.no_tagged_fields();
        } else {
            writer.tagged_field(METADATA_HASH, |field| field.i64(self.metadata_hash));
        }
    }
}

/// Groups count from 0 on.
fn read_epoch(reader: &mut Reader<'_>) -> Result<GroupEpoch, RecordError> {
    match reader.i32()? {
        epoch if epoch >= 0 => Ok(GroupEpoch(epoch)),
        epoch => Err(RecordError::Epoch(epoch)),
    }
}

pub(super) fn read_target_epoch(reader: &mut Reader<'_>) -> Result<GroupEpoch, RecordError> {
    let epoch = read_epoch(reader)?;
    reader.tagged_fields()?;
    Ok(epoch)
}

pub(super) fn write_target_epoch(epoch: GroupEpoch, writer: &mut Writer) {
    writer.i32(epoch.0);
    writer.no_tagged_fields();
}

/// The topics of a group as Kafka wrote them down until 4.0. Nothing is built on them: a coordinator that
/// finds them writes a tombstone with the group's next epoch, as Kafka 4.1 does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionMetadata {
    /// The topics.
    pub topics: Vec<TopicMetadata>,
}

/// One topic in a [`PartitionMetadata`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicMetadata {
    /// Its identity.
    pub id: TopicId,
    /// Its name.
    pub name: Arc<str>,
    /// How many partitions it had.
    pub partitions: i32,
    /// The racks of partitions, where they were known.
    pub racks: Vec<(PartitionIndex, BTreeSet<Arc<str>>)>,
}

impl PartitionMetadata {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, RecordError> {
        // Each takes bytes, so that a false count ends with the record; here and below.
        let mut topics = Vec::new();
        for _ in 0..reader.count()? {
            topics.push(TopicMetadata::read(reader)?);
        }
        reader.tagged_fields()?;
        Ok(Self { topics })
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        writer.count(self.topics.len());
        for topic in &self.topics {
            topic.write(writer);
        }
        writer.no_tagged_fields();
    }
}

impl TopicMetadata {
    fn read(reader: &mut Reader<'_>) -> Result<Self, RecordError> {
        let id = TopicId(reader.uuid()?);
        let name = reader.string()?.into();
        let partitions = reader.i32()?;
        let mut racks = Vec::new();
        for _ in 0..reader.count()? {
            let partition = read_partition(reader)?;
            let mut names = BTreeSet::new();
            for _ in 0..reader.count()? {
                names.insert(reader.string()?.into());
            }
            reader.tagged_fields()?;
            racks.push((partition, names));
        }
        reader.tagged_fields()?;
        Ok(Self {
            id,
            name,
            partitions,
            racks,
        })
    }

    fn write(&self, writer: &mut Writer) {
        writer.uuid(self.id.0);
        writer.string(&self.name);
        writer.i32(self.partitions);
        writer.count(self.racks.len());
        for (partition, names) in &self.racks {
            writer.i32(partition.0);
            writer.count(names.len());
            for name in names {
                writer.string(name);
            }
            writer.no_tagged_fields();
        }
        writer.no_tagged_fields();
    }
}
