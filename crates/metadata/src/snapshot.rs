//! A cluster image as a header and the entries that rebuild it: what snapshot files and streams carry.

use protocol::grpc::v1::{MetadataEntry, SnapshotHeader};

use crate::{ApplyError, ClusterImage};

/// Why a snapshot could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// Written by a newer version.
    #[error("metadata snapshot has format version {found}; this binary reads up to {supported}")]
    FormatVersion {
        /// The snapshot's version.
        found: u32,
        /// The newest version that is understood.
        supported: u32,
    },
    /// The header has a field that is no id.
    #[error("metadata snapshot is damaged: {0}")]
    Damaged(String),
    /// One of its entries cannot be applied.
    #[error(transparent)]
    Apply(#[from] ApplyError),
}

/// The header and the entries (each well below 1 MiB) that rebuild `image`.
pub fn snapshot_entries(
    image: &ClusterImage,
) -> (SnapshotHeader, impl Iterator<Item = MetadataEntry> + use<>) {
    let _ = image;
    (SnapshotHeader::default(), std::iter::empty())
}

/// Rebuilds an image from a snapshot, entry by entry.
#[derive(Debug)]
pub struct SnapshotReader {
    image: ClusterImage,
}

impl SnapshotReader {
    /// Begins with the snapshot's header.
    pub fn new(header: &SnapshotHeader) -> Result<Self, SnapshotError> {
        let _ = header;
        Ok(Self {
            image: ClusterImage::default(),
        })
    }

    /// Takes the next entry.
    pub fn entry(&mut self, entry: &MetadataEntry) -> Result<(), SnapshotError> {
        let _ = entry;
        Ok(())
    }

    /// The finished image.
    pub fn finish(self) -> ClusterImage {
        self.image
    }
}
