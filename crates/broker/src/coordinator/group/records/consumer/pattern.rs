//! The topics that a regular expression stood for when it was last looked at (key 16).

use std::{collections::BTreeSet, sync::Arc};

use super::super::{
    RecordError,
    wire::{Reader, Writer},
};

/// What a regular expression stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvedPattern {
    /// The topics whose names it matches.
    pub topics: BTreeSet<Arc<str>>,
    /// The offset of the metadata that was looked at, in Kafka. Here 0, which is older than any: whoever
    /// loads the record looks anew.
    pub version: i64,
    /// When that was, in milliseconds since 1970.
    pub timestamp_ms: i64,
}

impl ResolvedPattern {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, RecordError> {
        let mut topics = BTreeSet::new();
        // Each takes bytes, so that a false count ends with the record.
        for _ in 0..reader.count()? {
            topics.insert(reader.string()?.into());
        }
        let version = reader.i64()?;
        let timestamp_ms = reader.i64()?;
        reader.tagged_fields()?;
        Ok(Self {
            topics,
            version,
            timestamp_ms,
        })
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        writer.count(self.topics.len());
        for topic in &self.topics {
            writer.string(topic);
        }
        writer.i64(self.version);
        writer.i64(self.timestamp_ms);
        writer.no_tagged_fields();
    }
}
