//! Deleting a partition's log, or putting it aside as stray: by renaming first, removing later.

use std::{fs, io, path::PathBuf};

use protocol::TopicPartition;

use super::{
    Hosted, LogManager, Monotonic, Offline, Removal,
    claims::Claim,
    names::{Suffix, suffixed_dir},
};
use crate::{checkpoint::PartitionName, error::StorageError};

impl LogManager {
    /// Deletes a partition's log: the directory is renamed at once, so that the topic's name is free
    /// when this returns, and removed after `file.delete.delay.ms`. The log is closed; who still holds
    /// it gets [`StorageError::Closed`]. A partition that is not here is no error.
    pub fn delete(&self, partition: TopicPartition) -> Result<(), StorageError> {
        self.lock_and_put_aside(partition, Suffix::Delete)
    }

    /// Puts a partition's log aside that the metadata does not know: renamed and closed like a deleted
    /// one, but kept for a day, since it may be the metadata that is wrong.
    pub fn mark_stray(&self, partition: TopicPartition) -> Result<(), StorageError> {
        self.lock_and_put_aside(partition, Suffix::Stray)
    }

    fn lock_and_put_aside(&self, partition: TopicPartition, suffix: Suffix) -> Result<(), StorageError> {
        let Some(name) = self.name_of(partition) else {
            return Ok(());
        };
        let _held = self.names.lock(&name);
        self.put_aside(partition, suffix)
    }

    /// As [`LogManager::delete`]; the caller holds the lock on the replica's name.
    pub(super) fn put_aside(&self, partition: TopicPartition, suffix: Suffix) -> Result<(), StorageError> {
        if suffix == Suffix::Stray && self.is_unpaired_future(partition) {
            return self.put_future_aside(partition);
        }
        self.drop_future(partition)?;
        let was_contested = self.replicas.read().contested.contains_key(&partition);
        loop {
            // Into a variable of its own, or the lock would be held for the renaming.
            let taken = self.replicas.write().take(partition);
            let Some(claim) = taken else {
                return Ok(());
            };
            if let Err(error) = self.put_claim_aside(partition, &claim, suffix) {
                let mut replicas = self.replicas.write();
                if was_contested {
                    replicas.keep_contested(partition, claim);
                } else {
                    replicas.claim(partition, claim);
                }
                return Err(error);
            }
        }
    }

    /// Renames and closes what one directory holds of a partition, and nothing here knows any more.
    pub(super) fn put_claim_aside(
        &self,
        partition: TopicPartition,
        claim: &Claim,
        suffix: Suffix,
    ) -> Result<(), StorageError> {
        let (name, directory) = (claim.name(), claim.directory());
        let home = &self.directories[directory];
        if home.is_offline() {
            // Nothing there can be renamed. The next run that can use it finds what the metadata says then.
            if let Claim::Open(hosted) = claim
                && let Err(error) = hosted.log.close(false)
            {
                tracing::debug!(%partition, %error, "a log in an offline directory did not close");
            }
            return Ok(());
        }
        let to = suffixed_dir(home.path(), name, suffix);
        let renamed = match claim {
            Claim::Open(hosted) => hosted.log.rename_dir(&to),
            Claim::Closed(Offline { dir, .. }) => match fs::rename(dir, &to) {
                // It has vanished: that is why it is offline.
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                renamed => renamed.map_err(StorageError::io("rename", dir)),
            },
        };
        if let Err(error) = renamed {
            home.health().note(&error);
            return Err(error);
        }
        home.give_up(name);
        tracing::info!(%partition, to = %to.display(), "put aside");
        if let Claim::Open(hosted) = claim
            && let Err(error) = hosted.log.close(false)
        {
            tracing::warn!(log = %to.display(), %error, "a log that was put aside did not close");
        }
        let delay = match (suffix, claim) {
            (Suffix::Stray, _) => self.config.stray_retention,
            (Suffix::Delete | Suffix::New | Suffix::Future, Claim::Open(hosted)) => {
                hosted.log.config().file_delete_delay
            }
            // Its settings were never read.
            (Suffix::Delete | Suffix::New | Suffix::Future, Claim::Closed(_)) => {
                self.config.file_delete_delay
            }
        };
        self.schedule_removal(to, Monotonic::now() + delay);
        // The rename is not synced here. Were it undone by a power loss, the directory would still say of
        // which topic it is, and be put aside again; and a later creation syncs both.
        Ok(())
    }

    pub(super) fn name_of(&self, partition: TopicPartition) -> Option<PartitionName> {
        let replicas = self.replicas.read();
        let open = |hosted: &Hosted| hosted.name.clone();
        let hosted = replicas.hosted.get(&partition).map(open);
        let offline = || {
            replicas
                .offline
                .get(&partition)
                .map(|offline| offline.name.clone())
        };
        let contested = || {
            let claims = replicas.contested.get(&partition)?;
            claims.first().map(|claim| claim.name().clone())
        };
        hosted
            .or_else(offline)
            .or_else(contested)
            .or_else(|| replicas.futures.get(&partition).map(open))
    }

    pub(super) fn schedule_removal(&self, path: PathBuf, due: Monotonic) {
        self.removals.lock().push(Removal { path, due });
        self.background.wake();
    }

    /// Removes the directories whose time has come by `now`; one that cannot be removed is tried again.
    pub(super) fn remove_due(&self, now: Monotonic) {
        let due: Vec<Removal> = {
            let mut removals = self.removals.lock();
            removals.extract_if(.., |removal| removal.due <= now).collect()
        };
        if !due.is_empty() {
            self.forget_given_up();
        }
        for removal in due {
            match fs::remove_dir_all(&removal.path) {
                Ok(()) => tracing::info!(dir = %removal.path.display(), "removed"),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::warn!(dir = %removal.path.display(), %error, "not removed, will be tried again");
                    let due = now + self.config.file_delete_delay;
                    self.removals.lock().push(Removal { due, ..removal });
                }
            }
        }
    }

    /// Has the checkpoint files forget what was put aside, before nothing is left that shows that it was: the
    /// next start would miss it. On a full disk they cannot be written, and the removal must not wait.
    fn forget_given_up(&self) {
        for (directory, home) in self.directories.iter().enumerate() {
            if home.has_given_up()
                && let Err(error) = self.checkpoint_directory(directory)
            {
                tracing::warn!(%error, "checkpoint before a removal failed");
            }
        }
    }

    /// When the next removal is due.
    pub(super) fn next_removal(&self) -> Option<Monotonic> {
        self.removals.lock().iter().map(|removal| removal.due).min()
    }
}
