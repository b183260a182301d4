//! A cluster image as a header and the entries that rebuild it: what snapshot files and streams carry.

use prost::Message;
use protocol::{
    ClaimId, ClusterId, LeaderEpoch, Offset, TopicPartition,
    grpc::v1::{
        BeginTransactionRecord, ClusterRecord, FeatureRecord, MetadataEntry, MetadataRecord,
        ProducerIdsRecord, SnapshotHeader, metadata_record::Record,
    },
};

use crate::{ApplyError, ClusterImage, image_apply, records};

/// The version of [`SnapshotHeader`] that this binary writes, and the newest it reads.
pub const SNAPSHOT_FORMAT_VERSION: u32 = 1;

/// An entry of a snapshot is closed once its records reach this many bytes: far below what a gRPC
/// message may hold (4 MiB), far above what a single record needs.
const ENTRY_BYTES: usize = 128 * 1024;

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

/// The header and the entries (each well below 1 MiB) that rebuild `image`, made as they are asked for.
///
/// A metadata transaction that is open in the image stays open in the rebuilt one: its records come
/// last, after a begin marker.
pub fn snapshot_entries(
    image: &ClusterImage,
) -> (SnapshotHeader, impl Iterator<Item = MetadataEntry> + use<>) {
    let header = SnapshotHeader {
        format_version: SNAPSHOT_FORMAT_VERSION,
        last_offset: image.offset.map_or(-1, Offset::get),
        last_epoch: image.epoch.get(),
        claim_id: image.claim.to_vec().into(),
    };
    let entries = Entries {
        claim: image.claim,
        records: image_records(image.clone()).peekable(),
    };
    (header, entries)
}

/// Cuts a sequence of records into entries.
struct Entries<I: Iterator> {
    claim: ClaimId,
    records: std::iter::Peekable<I>,
}

impl<I: Iterator<Item = MetadataRecord>> Iterator for Entries<I> {
    type Item = MetadataEntry;

    fn next(&mut self) -> Option<MetadataEntry> {
        self.records.peek()?;
        let mut chunk = Vec::new();
        let mut bytes = 0;
        while bytes < ENTRY_BYTES {
            let Some(record) = self.records.next() else { break };
            bytes += record.encoded_len();
            chunk.push(record);
        }
        Some(records::entry(self.claim, chunk))
    }
}

/// Every record that rebuilds the image, in an order in which each finds what it refers to.
fn image_records(image: ClusterImage) -> impl Iterator<Item = MetadataRecord> {
    let cluster = image.cluster_id.as_ref().map(ClusterId::to_string);
    let cluster = cluster.map(|cluster_id| records::record(Record::Cluster(ClusterRecord { cluster_id })));
    let producer_ids = (image.next_producer_id.get() != 0).then(|| {
        records::record(Record::ProducerIds(ProducerIdsRecord {
            broker_id: -1,
            broker_epoch: -1,
            next_producer_id: image.next_producer_id.get(),
        }))
    });
    let features = image.features.into_iter().map(|(name, level)| {
        records::record(Record::Feature(FeatureRecord {
            name,
            level: level.into(),
        }))
    });
    let brokers = image
        .brokers
        .into_iter()
        .flat_map(|(_, broker)| records::broker_records(&broker));
    let topics = image.topics.into_iter().flat_map(|(id, topic)| {
        let created = std::iter::once(records::topic_record(id, &topic.name));
        let partitions = topic
            .partitions
            .clone()
            .into_iter()
            .map(move |(index, partition)| {
                records::partition_record(TopicPartition::new(id, index), &partition)
            });
        created.chain(partitions)
    });
    let configs = image.configs.into_iter().flat_map(|(resource, keys)| {
        keys.into_iter()
            .map(move |(key, value)| records::config_record(&resource, &key, Some(&value)))
    });
    let pending = image.pending.into_iter().flat_map(|pending| {
        let begin = Record::BeginTransaction(BeginTransactionRecord::default());
        std::iter::once(records::record(begin)).chain(pending)
    });
    cluster
        .into_iter()
        .chain(producer_ids)
        .chain(features)
        .chain(brokers)
        .chain(topics)
        .chain(configs)
        .chain(pending)
}

/// Rebuilds an image from a snapshot, entry by entry.
#[derive(Debug)]
pub struct SnapshotReader {
    image: ClusterImage,
    last_offset: Option<Offset>,
}

impl SnapshotReader {
    /// Begins with the snapshot's header.
    pub fn new(header: &SnapshotHeader) -> Result<Self, SnapshotError> {
        if header.format_version > SNAPSHOT_FORMAT_VERSION {
            return Err(SnapshotError::FormatVersion {
                found: header.format_version,
                supported: SNAPSHOT_FORMAT_VERSION,
            });
        }
        if header.format_version == 0 {
            return Err(SnapshotError::Damaged("it has no format version".to_owned()));
        }
        let claim = ClaimId::from_slice(&header.claim_id).ok_or_else(|| {
            SnapshotError::Damaged(format!("claim id has {} bytes, not 16", header.claim_id.len()))
        })?;
        let last_offset = match header.last_offset {
            -1 => None,
            offset if offset >= 0 => Some(Offset(offset)),
            offset => return Err(SnapshotError::Damaged(format!("{offset} is not an offset"))),
        };
        Ok(Self {
            image: ClusterImage {
                epoch: LeaderEpoch(header.last_epoch),
                claim,
                ..ClusterImage::default()
            },
            last_offset,
        })
    }

    /// Takes the next entry.
    pub fn entry(&mut self, entry: &MetadataEntry) -> Result<(), SnapshotError> {
        image_apply::check_version(self.last_offset.unwrap_or_default(), entry)?;
        self.image
            .fold_all(&entry.records)
            .map_err(SnapshotError::Damaged)
    }

    /// The finished image. Whether every entry has come is known to the file's or stream's framing.
    pub fn finish(self) -> ClusterImage {
        ClusterImage {
            offset: self.last_offset,
            ..self.image
        }
    }
}
