//! Replicas that the checkpoint files speak of and that are not where they were: a disk has lost them, or they
//! lie elsewhere now. None is built anew, nor taken from elsewhere unseen, while it may still count.

use std::collections::BTreeSet;

use protocol::{DirectoryId, Offset, TopicPartition};

use super::{
    Hosted, LogManager, Offline,
    claims::Claim,
    directory::{CheckpointedOffsets, DataDirectory, Listing},
};
use crate::{checkpoint::PartitionName, error::StorageError};

impl DataDirectory {
    /// Notes what the checkpoint files speak of and `listing` does not show.
    pub(super) fn miss_what_vanished(&self, listing: &Listing, checkpoints: &CheckpointedOffsets) {
        for name in checkpoints.names() {
            if listing.partitions.binary_search(name).is_ok() {
                continue;
            }
            let offsets = checkpoints.of(name);
            if offsets.recovery_point.is_some() && !listing.was_deleted(name, offsets.topic_id) {
                tracing::error!(
                    dir = %self.partition_dir(name).display(),
                    "the partition is gone, although nothing here has deleted it; it is not built anew while it counts"
                );
                self.miss(name, offsets);
            } else {
                // Who takes the name next must not inherit its offsets.
                self.give_up(name);
            }
        }
    }

    /// Whether something has the partition's name, or nobody can say.
    fn may_hold(&self, name: &PartitionName) -> bool {
        self.partition_dir(name).try_exists().unwrap_or(true)
    }
}

impl LogManager {
    /// A replica that one directory misses and another has was moved by hand, or built anew there, if that one
    /// has all that was durable in the first. Otherwise, and where the first has something that cannot be read,
    /// both claim to hold it: the other may be an old disk.
    pub(super) fn compare_missing_with_others(&self) {
        let missing = self.directories.iter().flat_map(DataDirectory::missing);
        let missing: BTreeSet<PartitionName> = missing.collect();
        if missing.is_empty() {
            return;
        }
        let found: BTreeSet<(TopicPartition, PartitionName)> = {
            let replicas = self.replicas.read();
            // Whether a copy that did not open is the replica, only the metadata knows.
            let is_copy = |id: &TopicPartition| {
                let offline = replicas.offline.get(id);
                offline.is_some_and(|offline| self.is_future(offline))
            };
            let current = replicas.current();
            let current = current.filter(|(id, name)| missing.contains(*name) && !is_copy(id));
            current.map(|(id, name)| (id, name.clone())).collect()
        };
        for (partition, name) in found {
            let longest = self.longest(partition);
            for (directory, home) in self.directories.iter().enumerate() {
                if !home.misses(&name, partition.topic_id) {
                    continue;
                }
                let durable = home.offline_offsets(&name).recovery_point;
                if longest >= durable && !home.may_hold(&name) {
                    home.give_up(&name);
                    continue;
                }
                let missed = self.missed(directory, &name);
                self.replicas.write().claim(partition, Claim::Closed(missed));
            }
        }
    }

    /// Where the longest log ends that is open of a partition.
    fn longest(&self, partition: TopicPartition) -> Option<Offset> {
        let replicas = self.replicas.read();
        let claims = replicas.contested.get(&partition).into_iter().flatten();
        let open = replicas.hosted.get(&partition).into_iter();
        let open = open.chain(claims.filter_map(Claim::open));
        open.map(|Hosted { log, .. }| log.log_end_offset()).max()
    }

    /// Fails a replica whose log was in the directory where the metadata has it, and is there no more: an empty
    /// one in its place would count for as much. It is offline until it is deleted or marked stray. What is known
    /// to have been another topic's is missed no longer: that topic is gone with its name.
    pub(super) fn refuse_what_vanished(
        &self,
        partition: TopicPartition,
        name: &PartitionName,
        home: Option<DirectoryId>,
    ) -> Result<(), StorageError> {
        for directory in &self.directories {
            if directory.misses_another(name, partition.topic_id) {
                tracing::info!(
                    dir = %directory.partition_dir(name).display(),
                    "what is gone from here belonged to another topic of the same name"
                );
                directory.give_up(name);
            }
        }
        let home = home.filter(|id| !id.is_zero());
        let misses = |directory: &DataDirectory| {
            !directory.is_offline()
                && home.is_none_or(|id| id == directory.id())
                && directory.misses(name, partition.topic_id)
        };
        let Some(directory) = self.directories.iter().position(misses) else {
            return Ok(());
        };
        let missed = self.missed(directory, name);
        let (path, reason) = (missed.dir.clone(), missed.reason.clone());
        self.replicas.write().offline.insert(partition, missed);
        Err(StorageError::Failed { path, reason })
    }

    /// A replica that the directory misses, as one that does not open.
    fn missed(&self, directory: usize, name: &PartitionName) -> Offline {
        let home = &self.directories[directory];
        let dir = home.partition_dir(name);
        let reason = if home.may_hold(name) {
            "which topic it belongs to cannot be read"
        } else {
            "its directory is gone, which nothing here has deleted"
        };
        Offline {
            name: name.clone(),
            directory,
            dir,
            reason: reason.to_owned(),
            may_open: false,
        }
    }

    /// Forgets that a replica has vanished: it is here, or nobody counts on it. What another topic of the name
    /// has lost is still missed.
    pub(super) fn miss_no_longer(&self, partition: TopicPartition, name: &PartitionName) {
        let misses = |home: &&DataDirectory| home.misses(name, partition.topic_id);
        for home in self.directories.iter().filter(misses) {
            home.give_up(name);
        }
    }
}
