//! A classic group as it is written down: values of versions 0 to 4 under keys of version 2.

use std::{collections::HashSet, sync::Arc};

use bytes::Bytes;

use super::{
    super::ids::{GenerationId, InstanceId, MemberId},
    RecordError,
    wire::{Reader, Writer},
};

/// What outlives the coordinator of a classic group: one finished generation of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMetadata {
    /// What kind of group it is: `consumer`, `connect`, …; empty when it never had members.
    pub protocol_type: Arc<str>,
    /// The generation.
    pub generation: GenerationId,
    /// The protocol that its members agreed on; `None` without members.
    pub protocol: Option<Arc<str>>,
    /// The member that made the assignment.
    pub leader: Option<MemberId>,
    /// Since when the group is in its state, in milliseconds since 1970; `None` in old records.
    pub state_timestamp_ms: Option<i64>,
    /// The members; none when the group is empty.
    pub members: Vec<MemberMetadata>,
}

/// One member of a group as it is written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberMetadata {
    /// Its id.
    pub member_id: MemberId,
    /// Its `group.instance.id`, if it is a static member.
    pub instance_id: Option<InstanceId>,
    /// The client id that it joined with.
    pub client_id: Arc<str>,
    /// The address that it joined from.
    pub client_host: Arc<str>,
    /// How long it may take to join again, in milliseconds.
    pub rebalance_timeout_ms: i32,
    /// How long it may be silent, in milliseconds.
    pub session_timeout_ms: i32,
    /// What it said under the group's protocol.
    pub subscription: Bytes,
    /// What the leader assigned to it.
    pub assignment: Bytes,
}

/// What a version of the value has.
#[derive(Clone, Copy)]
struct Version(i16);

impl Version {
    /// The version that is written: the last one that is not flexible, as Kafka does (KIP-915).
    const WRITTEN: i16 = 3;

    fn rebalance_timeout(self) -> bool {
        self.0 >= 1
    }

    fn state_timestamp(self) -> bool {
        self.0 >= 2
    }

    fn instance_id(self) -> bool {
        self.0 >= 3
    }

    fn flexible(self) -> bool {
        self.0 >= 4
    }
}

impl GroupMetadata {
    pub(super) fn decode(value: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader::new(value);
        let version = reader.i16()?;
        if !(0..=4).contains(&version) {
            return Err(RecordError::UnsupportedValue { key: 2, version });
        }
        let version = Version(version);
        reader.flexible = version.flexible();
        let protocol_type = reader.string()?.into();
        let generation = GenerationId(reader.i32()?);
        let protocol = reader.nullable_string()?.map(Arc::from);
        let leader = reader.nullable_string()?.map(MemberId::from);
        let state_timestamp_ms = if version.state_timestamp() {
            Some(reader.i64()?).filter(|&at| at != -1)
        } else {
            None
        };
        // Each takes bytes, so that a false count ends with the record.
        let mut members = Vec::new();
        for _ in 0..reader.count()? {
            members.push(MemberMetadata::read(&mut reader, version)?);
        }
        reader.tagged_fields()?;
        reader.end()?;
        let group = Self {
            protocol_type,
            generation,
            protocol,
            leader,
            state_timestamp_ms,
            members,
        };
        if group.is_consistent() {
            Ok(group)
        } else {
            Err(RecordError::Inconsistent)
        }
    }

    fn is_consistent(&self) -> bool {
        let mut ids = HashSet::new();
        let mut instances = HashSet::new();
        let no_duplicates = self.members.iter().all(|member| {
            let new_instance = member.instance_id.as_ref().is_none_or(|id| instances.insert(id));
            ids.insert(&member.member_id) && new_instance
        });
        let has_protocol = self.protocol.is_some() && !self.protocol_type.is_empty();
        no_duplicates && (has_protocol || self.members.is_empty())
    }

    pub(super) fn encode(&self) -> Bytes {
        let mut writer = Writer::default();
        writer.i16(Version::WRITTEN);
        writer.string(&self.protocol_type);
        writer.i32(self.generation.0);
        writer.nullable_string(self.protocol.as_deref());
        writer.nullable_string(self.leader.as_ref().map(MemberId::as_str));
        writer.i64(self.state_timestamp_ms.unwrap_or(-1));
        writer.count(self.members.len());
        for member in &self.members {
            member.write(&mut writer);
        }
        writer.finish()
    }
}

impl MemberMetadata {
    fn read(reader: &mut Reader<'_>, version: Version) -> Result<Self, RecordError> {
        let member_id = reader.string()?.into();
        let instance_id = if version.instance_id() {
            reader.nullable_string()?.map(InstanceId::from)
        } else {
            None
        };
        let client_id = reader.string()?.into();
        let client_host = reader.string()?.into();
        let rebalance_timeout = if version.rebalance_timeout() {
            Some(reader.i32()?).filter(|&timeout| timeout != -1)
        } else {
            None
        };
        let session_timeout_ms = reader.i32()?;
        let subscription = Bytes::copy_from_slice(reader.bytes()?);
        let assignment = Bytes::copy_from_slice(reader.bytes()?);
        reader.tagged_fields()?;
        Ok(Self {
            member_id,
            instance_id,
            client_id,
            client_host,
            // Before there was one, members had the session timeout to join again.
            rebalance_timeout_ms: rebalance_timeout.unwrap_or(session_timeout_ms),
            session_timeout_ms,
            subscription,
            assignment,
        })
    }

    fn write(&self, writer: &mut Writer) {
        writer.string(self.member_id.as_str());
        writer.nullable_string(self.instance_id.as_ref().map(InstanceId::as_str));
        writer.string(&self.client_id);
        writer.string(&self.client_host);
        writer.i32(self.rebalance_timeout_ms);
        writer.i32(self.session_timeout_ms);
        writer.bytes(&self.subscription);
        writer.bytes(&self.assignment);
    }
}
