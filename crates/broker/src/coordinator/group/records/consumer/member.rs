//! A member and what it said of itself (key 5).

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;

use super::super::{
    super::ids::InstanceId,
    RecordError,
    wire::{Reader, Writer},
};

/// The tag of what only members of the classic protocol have.
const CLASSIC: u32 = 0;

/// What a member said of itself, in all its heartbeats together or in its last JoinGroup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberSubscription {
    /// Its `group.instance.id`, if it is a static member.
    pub instance_id: Option<InstanceId>,
    /// Its `client.rack`.
    pub rack_id: Option<Arc<str>>,
    /// The client id of its last request.
    pub client_id: Arc<str>,
    /// The address of its last request.
    pub client_host: Arc<str>,
    /// The topics that it names.
    pub topics: BTreeSet<Arc<str>>,
    /// The regular expression whose topics it wants besides; never an empty one.
    pub pattern: Option<Arc<str>>,
    /// How long it may take to give partitions up, in milliseconds.
    pub rebalance_timeout_ms: i32,
    /// The assignor that it asks for.
    pub server_assignor: Option<Arc<str>>,
    /// Set for a member that speaks the classic protocol.
    pub classic: Option<ClassicProtocols>,
}

/// What a member of the classic protocol says in its JoinGroup besides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClassicProtocols {
    /// How long it may be silent, in milliseconds.
    pub session_timeout_ms: i32,
    /// In the order in which it prefers them.
    pub protocols: Vec<SupportedProtocol>,
}

/// A protocol that a classic member supports, and what it says under it (a consumer: its subscription).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SupportedProtocol {
    /// The protocol.
    pub name: Arc<str>,
    /// What the member says under it.
    pub metadata: Bytes,
}

impl MemberSubscription {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, RecordError> {
        let instance_id = reader.nullable_string()?.map(InstanceId::from);
        let rack_id = reader.nullable_string()?.map(Arc::from);
        let client_id = reader.string()?.into();
        let client_host = reader.string()?.into();
        // Each takes bytes, so that a false count ends with the record.
        let mut topics = BTreeSet::new();
        for _ in 0..reader.count()? {
            topics.insert(reader.string()?.into());
        }
        let pattern = reader.nullable_string()?.filter(|pattern| !pattern.is_empty());
        let pattern = pattern.map(Arc::from);
        let rebalance_timeout_ms = reader.i32()?;
        let server_assignor = reader.nullable_string()?.map(Arc::from);
        let mut classic = None;
        reader.known_tagged_fields(|tag, mut field| {
            if tag == CLASSIC {
                // A structure that may be null begins with a byte that says whether it is.
                if field.i8()? >= 0 {
                    classic = Some(ClassicProtocols::read(&mut field)?);
                }
                field.end()?;
            }
            Ok(())
        })?;
        Ok(Self {
            instance_id,
            rack_id,
            client_id,
            client_host,
            topics,
            pattern,
            rebalance_timeout_ms,
            server_assignor,
            classic,
        })
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        writer.nullable_string(self.instance_id.as_ref().map(InstanceId::as_str));
        writer.nullable_string(self.rack_id.as_deref());
        writer.string(&self.client_id);
        writer.string(&self.client_host);
        writer.count(self.topics.len());
        for topic in &self.topics {
            writer.string(topic);
        }
        // As Kafka: no expression is an empty one.
        writer.string(self.pattern.as_deref().unwrap_or_default());
        writer.i32(self.rebalance_timeout_ms);
        writer.nullable_string(self.server_assignor.as_deref());
        match &self.classic {
            None => writer.no_tagged_fields(),
            Some(classic) => writer.tagged_field(CLASSIC, |field| {
                field.i8(1);
                classic.write(field);
            }),
        }
    }
}

impl ClassicProtocols {
    fn read(reader: &mut Reader<'_>) -> Result<Self, RecordError> {
        let session_timeout_ms = reader.i32()?;
        let mut protocols = Vec::new();
        for _ in 0..reader.count()? {
            let name = reader.string()?.into();
            let metadata = Bytes::copy_from_slice(reader.bytes()?);
            reader.tagged_fields()?;
            protocols.push(SupportedProtocol { name, metadata });
        }
        reader.tagged_fields()?;
        Ok(Self {
            session_timeout_ms,
            protocols,
        })
    }

    fn write(&self, writer: &mut Writer) {
        writer.i32(self.session_timeout_ms);
        writer.count(self.protocols.len());
        for protocol in &self.protocols {
            writer.string(&protocol.name);
            writer.bytes(&protocol.metadata);
            writer.no_tagged_fields();
        }
        writer.no_tagged_fields();
    }
}
