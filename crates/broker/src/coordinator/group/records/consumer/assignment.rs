//! What a member is to have (key 7), and what it has (key 8).

use std::collections::{BTreeMap, BTreeSet};

use protocol::{PartitionIndex, TopicId};

use super::super::{
    super::{assignor::Assignment, ids::GroupEpoch},
    RecordError,
    wire::{Reader, Writer},
};

/// How far a member is on the way to its target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MemberState {
    /// It has what the target of its epoch gives it.
    #[default]
    Stable,
    /// It is to give partitions up, and has not said yet that it did.
    UnrevokedPartitions,
    /// It waits for partitions that others have not given up yet.
    UnreleasedPartitions,
    /// What a later version of Kafka calls it; such a member has to join anew.
    Unknown,
}

impl MemberState {
    fn from_wire(state: i8) -> Self {
        match state {
            0 => Self::Stable,
            1 => Self::UnrevokedPartitions,
            2 => Self::UnreleasedPartitions,
            _ => Self::Unknown,
        }
    }

    fn to_wire(self) -> i8 {
        match self {
            Self::Stable => 0,
            Self::UnrevokedPartitions => 1,
            Self::UnreleasedPartitions => 2,
            Self::Unknown => 127,
        }
    }

    /// Its name, as Kafka writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stable => "STABLE",
            Self::UnrevokedPartitions => "UNREVOKED_PARTITIONS",
            Self::UnreleasedPartitions => "UNRELEASED_PARTITIONS",
            Self::Unknown => "UNKNOWN",
        }
    }
}

/// What a member has. A partition is its own from the heartbeat that gives it until the one in which it
/// says that it gave it up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CurrentAssignment {
    /// The epoch that it has reached; [`GroupEpoch::AWAY`] of a static member that will be back.
    pub epoch: GroupEpoch,
    /// The one before: the answer that told it the epoch may have been lost.
    pub previous_epoch: GroupEpoch,
    /// How far it is.
    pub state: MemberState,
    /// What it has and keeps.
    pub assigned: Assignment,
    /// What it has and is to give up.
    pub revoking: Assignment,
}

impl Default for CurrentAssignment {
    /// Of a member that has just come.
    fn default() -> Self {
        Self {
            epoch: GroupEpoch::JOINING,
            previous_epoch: GroupEpoch(-1),
            state: MemberState::Stable,
            assigned: Assignment::new(),
            revoking: Assignment::new(),
        }
    }
}

impl CurrentAssignment {
    /// Every partition that nobody else may have.
    pub fn held(&self) -> impl Iterator<Item = (TopicId, PartitionIndex)> {
        [&self.assigned, &self.revoking]
            .into_iter()
            .flatten()
            .flat_map(|(topic, partitions)| partitions.iter().map(|partition| (*topic, *partition)))
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, RecordError> {
        let epoch = GroupEpoch(reader.i32()?);
        if epoch < GroupEpoch::JOINING && epoch != GroupEpoch::AWAY {
            return Err(RecordError::Epoch(epoch.0));
        }
        let previous_epoch = GroupEpoch(reader.i32()?);
        let state = MemberState::from_wire(reader.i8()?);
        let assigned = read_assignment(reader)?;
        let revoking = read_assignment(reader)?;
        reader.tagged_fields()?;
        Ok(Self {
            epoch,
            previous_epoch,
            state,
            assigned,
            revoking,
        })
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        writer.i32(self.epoch.0);
        writer.i32(self.previous_epoch.0);
        writer.i8(self.state.to_wire());
        write_assignment(&self.assigned, writer);
        write_assignment(&self.revoking, writer);
        writer.no_tagged_fields();
    }
}

pub(super) fn read_target(reader: &mut Reader<'_>) -> Result<Assignment, RecordError> {
    let assignment = read_assignment(reader)?;
    reader.tagged_fields()?;
    Ok(assignment)
}

pub(super) fn write_target(assignment: &Assignment, writer: &mut Writer) {
    write_assignment(assignment, writer);
    writer.no_tagged_fields();
}

fn read_assignment(reader: &mut Reader<'_>) -> Result<Assignment, RecordError> {
    let mut assignment: Assignment = BTreeMap::new();
    // Each takes bytes, so that a false count ends with the record.
    for _ in 0..reader.count()? {
        let topic = TopicId(reader.uuid()?);
        let mut partitions = BTreeSet::new();
        for _ in 0..reader.count()? {
            partitions.insert(read_partition(reader)?);
        }
        // Kafka 4.3 adds epochs of partitions, which only tell when a late commit is still good.
        reader.tagged_fields()?;
        if !partitions.is_empty() {
            assignment.entry(topic).or_default().append(&mut partitions);
        }
    }
    Ok(assignment)
}

fn write_assignment(assignment: &Assignment, writer: &mut Writer) {
    writer.count(assignment.len());
    for (topic, partitions) in assignment {
        writer.uuid(topic.0);
        writer.count(partitions.len());
        for partition in partitions {
            writer.i32(partition.0);
        }
        writer.no_tagged_fields();
    }
}

pub(super) fn read_partition(reader: &mut Reader<'_>) -> Result<PartitionIndex, RecordError> {
    match reader.i32()? {
        index if index >= 0 => Ok(PartitionIndex(index)),
        index => Err(RecordError::Partition(index)),
    }
}
