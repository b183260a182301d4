//! What the cluster knows about itself.
//!
//! **Owns** the [`ClusterImage`] (brokers, topics, partitions, configs, producer ids, features), the
//! one function that changes it ([`ClusterImage::apply`]), the form of the log's records
//! ([`records`]), snapshots, the differences between two images ([`delta`]), and the table of
//! configuration keys ([`configs`]).
//!
//! **Never** decides anything (that is the controller's), does I/O or reads a clock. Controllers,
//! brokers and restarts run the same [`ClusterImage::apply`] over the same entries and therefore hold
//! the same image at the same offset.

pub mod configs;
pub mod delta;
mod image;
mod image_apply;
pub mod records;
mod snapshot;

pub use image::{
    BrokerRegistration, ClusterImage, ConfigResource, Endpoint, PartitionRegistration, Topic, TopicDirectory,
};
pub use image_apply::ApplyError;
pub use records::METADATA_FORMAT_VERSION;
pub use snapshot::{SNAPSHOT_FORMAT_VERSION, SnapshotError, SnapshotReader, snapshot_entries};
