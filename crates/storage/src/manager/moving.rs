//! Moving a log to another log directory (KIP-113): a *future* log is filled from the current one, and takes
//! its place once it holds the same.
//!
//! The swap is two renames, each durable before the next: the current directory gives up its name, the
//! future one takes it. A process that dies in between leaves the future alone; whether it is the replica
//! then is for the metadata to say, which must name the new directory before the first rename. So there are
//! never two directories that claim to be the replica, and never none that has everything.
//!
//! Until both are durable the old log is called stray, which keeps it for a day: should the new directory
//! turn out not to hold what it took over, there is a copy left.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use protocol::{DirectoryId, Offset, PartitionIndex, TopicName, TopicPartition};

use super::{
    Hosted, LogManager, Monotonic,
    background::wall_clock_ms,
    describe::absolute,
    names::{Suffix, may_have_future, suffixed_dir},
};
use crate::{
    checkpoint::PartitionName,
    disk,
    error::StorageError,
    log::{Log, OpenOptions},
    partition_metadata,
};

/// Wishes that are remembered at most: they come from clients, for partitions that may never exist.
const WISHES_MAX: usize = 10_000;

/// Where partitions are wanted that are not here yet. Gone with the process, as in Kafka.
#[derive(Debug, Default)]
pub(super) struct Wishes(Mutex<HashMap<PartitionName, DirectoryId>>);

impl Wishes {
    /// The wish for the partition, which is fulfilled now.
    pub(super) fn take(&self, name: &PartitionName) -> Option<DirectoryId> {
        self.0.lock().remove(name)
    }

    fn remember(&self, name: PartitionName, directory: DirectoryId) {
        let mut wishes = self.0.lock();
        if wishes.len() < WISHES_MAX || wishes.contains_key(&name) {
            wishes.insert(name, directory);
        }
    }
}

/// What a path names among `log.dirs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamedDirectory {
    /// A directory that can be used.
    Online(DirectoryId),
    /// A configured directory that cannot.
    Offline,
    /// Not a configured directory.
    Unknown,
}

impl LogManager {
    /// The log directory of this absolute path, written as [`DirectoryStatus`](super::DirectoryStatus) does.
    pub fn directory_at(&self, path: &Path) -> NamedDirectory {
        let at = |configured: &Path| absolute(configured).as_os_str() == path.as_os_str();
        match self.directories.iter().find(|home| at(home.path())) {
            Some(home) if !home.is_offline() => NamedDirectory::Online(home.id()),
            Some(_) => NamedDirectory::Offline,
            None if self.unusable.iter().any(|(unusable, _)| at(unusable)) => NamedDirectory::Offline,
            None => NamedDirectory::Unknown,
        }
    }

    /// Whether the partition's name leaves room for what the future directory's adds to it (KAFKA-4893).
    pub fn may_move(topic: &TopicName, partition: PartitionIndex) -> bool {
        may_have_future(&(topic.clone(), partition))
    }

    /// Remembers where a partition is to be made that is not here yet.
    pub fn wish(&self, topic: &TopicName, partition: PartitionIndex, directory: DirectoryId) {
        self.wishes.remember((topic.clone(), partition), directory);
    }

    /// The future log of a partition, and the directory that it lies in.
    pub fn future(&self, partition: TopicPartition) -> Option<(Arc<Log>, DirectoryId)> {
        let replicas = self.replicas.read();
        let future = replicas.futures.get(&partition)?;
        Some((Arc::clone(&future.log), self.directories[future.directory].id()))
    }

    /// Whether the log is being moved: compaction waits meanwhile, or the copy might keep what a tombstone,
    /// gone before it was copied, had deleted.
    pub(super) fn is_moving(&self, partition: TopicPartition) -> bool {
        self.replicas.read().futures.contains_key(&partition)
    }

    /// Makes a future log of an open log, empty, in the directory `to`; the one that is there already
    /// where it lies in that directory. It is the caller's to fill.
    pub fn begin_move(&self, partition: TopicPartition, to: DirectoryId) -> Result<Arc<Log>, StorageError> {
        let Some(name) = self.name_of(partition) else {
            return Err(self.not_here());
        };
        let _held = self.names.lock(&name);
        self.refuse_when_closed()?;
        if let Some((future, directory)) = self.future(partition) {
            return if directory == to {
                Ok(future)
            } else {
                Err(self.not_here())
            };
        }
        let current = self.usable(partition)?.ok_or_else(|| self.not_here())?;
        let directory = self.online(to).ok_or(StorageError::Offline { directory: to })?;
        let home = &self.directories[directory];
        // In the way at the end it would be met too late: the metadata names the new directory by then.
        self.free_place(home, &name)?;
        let dir = suffixed_dir(home.path(), &name, Suffix::Future);
        let made = disk::create_dir(&dir)
            .and_then(|()| {
                partition_metadata::store(&dir, partition.topic_id)
                    .map_err(StorageError::io("write the metadata of", &dir))
            })
            .and_then(|()| home.sync())
            .and_then(|()| {
                let options = OpenOptions {
                    recovery_point: None,
                    log_start_offset: current.log_start_offset(),
                    is_alone: false,
                    clean_shutdown: false,
                    now_ms: wall_clock_ms(),
                };
                Log::open(&dir, current.config().as_ref().clone(), options)
            });
        let log = match made {
            Ok((log, _)) => Arc::new(log),
            Err(error) => {
                home.health().note(&error);
                // The next start removes it otherwise: a future without a current log is none.
                let _ = fs::remove_dir_all(&dir);
                return Err(error);
            }
        };
        log.live_in(Arc::clone(home.health()));
        tracing::info!(%partition, to = %dir.display(), "a replica begins to move to another log directory");
        let future = Hosted {
            log: Arc::clone(&log),
            name,
            directory,
        };
        self.replicas.write().futures.insert(partition, future);
        Ok(log)
    }

    /// Gives up the move of a partition: its future log goes. Without one nothing happens.
    pub fn cancel_move(&self, partition: TopicPartition) -> Result<(), StorageError> {
        let Some(name) = self.name_of(partition) else {
            return Ok(());
        };
        let _held = self.names.lock(&name);
        self.drop_future(partition)
    }

    /// As [`LogManager::cancel_move`]; the caller holds the lock on the partition's name.
    pub(super) fn drop_future(&self, partition: TopicPartition) -> Result<(), StorageError> {
        self.end_future(partition, Suffix::Delete, Duration::ZERO)
    }

    /// Renames and closes a future log, which is removed after `delay`.
    fn end_future(
        &self,
        partition: TopicPartition,
        suffix: Suffix,
        delay: Duration,
    ) -> Result<(), StorageError> {
        let Some(future) = self.replicas.write().futures.remove(&partition) else {
            return Ok(());
        };
        let home = &self.directories[future.directory];
        tracing::info!(%partition, dir = %future.log.dir().display(), "the replica's move ends");
        if !home.is_offline() {
            let to = suffixed_dir(home.path(), &future.name, suffix);
            if let Err(error) = future.log.rename_dir(&to) {
                home.health().note(&error);
                self.replicas.write().futures.insert(partition, future);
                return Err(error);
            }
            self.schedule_removal(to, Monotonic::now() + delay);
        }
        if let Err(error) = future.log.close(false) {
            tracing::debug!(%partition, %error, "a future log did not close");
        }
        Ok(())
    }

    /// Puts the future log of a partition in the place of the current one, which goes after its log's
    /// `file.delete.delay.ms`. The caller has seen to it that these two hold the same, that the future is
    /// durable, that nothing is appended meanwhile, and that the metadata names the new directory. Refused
    /// where they are not, or no longer, the partition's current and future log.
    ///
    /// After an error the current log is where it was, or the replica has failed; what is left of it is kept as
    /// stray.
    pub fn complete_move(
        &self,
        partition: TopicPartition,
        (compared, copy): (&Arc<Log>, &Arc<Log>),
    ) -> Result<(), StorageError> {
        let Some(name) = self.name_of(partition) else {
            return Err(self.not_here());
        };
        let _held = self.names.lock(&name);
        self.refuse_when_closed()?;
        let (current, future) = {
            let replicas = self.replicas.read();
            let current = replicas.hosted.get(&partition).cloned();
            let future = replicas.futures.get(&partition).cloned();
            current.zip(future).ok_or_else(|| self.not_here())?
        };
        let known = Arc::ptr_eq(&current.log, compared) && Arc::ptr_eq(&future.log, copy);
        if !known || copy.durable_offset() != compared.log_end_offset() {
            return Err(StorageError::NotTheSame { path: copy.dir() });
        }
        let (old_home, new_home) = (
            &self.directories[current.directory],
            &self.directories[future.directory],
        );
        self.free_place(new_home, &name)?;
        if new_home.is_given_up(&name) {
            self.checkpoint_directory(future.directory)?;
        }
        let aside = suffixed_dir(old_home.path(), &name, Suffix::Stray);
        current
            .log
            .rename_dir(&aside)
            .inspect_err(|error| old_home.health().note(error))?;
        let place = new_home.partition_dir(&name);
        let swapped = old_home
            .sync()
            .inspect_err(|error| old_home.health().note(error))
            .and_then(|()| {
                future
                    .log
                    .rename_dir(&place)
                    .inspect_err(|error| new_home.health().note(error))
            });
        if let Err(error) = swapped {
            let back = old_home.partition_dir(&name);
            if let Err(again) = current.log.rename_dir(&back).and_then(|()| old_home.sync()) {
                // What is left is a future that has everything, where the metadata has the replica.
                old_home.health().fail(&again);
            }
            return Err(error);
        }
        // Without it the name may not survive a power loss, but the directory and what it is would, as a future
        // in the place that the metadata names; and if they do not, the old log is there.
        let durable = new_home
            .sync()
            .inspect_err(|error| new_home.health().note(error))
            .is_ok();
        future.log.set_config(current.log.config().as_ref().clone());
        {
            let mut replicas = self.replicas.write();
            replicas.futures.remove(&partition);
            let moved = Hosted {
                log: Arc::clone(&future.log),
                name: name.clone(),
                directory: future.directory,
            };
            replicas.hosted.insert(partition, moved);
        }
        // Retention may have gone on in the old one since the two were compared.
        if let Err(error) = future.log.advance_log_start(current.log.log_start_offset()) {
            tracing::warn!(%partition, %error, "a log that has moved may begin earlier than it did");
        }
        old_home.give_up(&name);
        for directory in [future.directory, current.directory] {
            if let Err(error) = self.checkpoint_directory(directory) {
                tracing::warn!(%error, "checkpoint after a move put off");
            }
        }
        self.discard_moved_away(&current, aside, durable);
        tracing::info!(%partition, dir = %place.display(), "the replica has moved");
        Ok(())
    }

    /// Lets go of the log that another has taken the place of. It is kept for as long as a stray one where the
    /// other may not be `durable`.
    fn discard_moved_away(&self, moved_away: &Hosted, aside: PathBuf, durable: bool) {
        let Hosted { log, name, directory } = moved_away;
        let to = suffixed_dir(self.directories[*directory].path(), name, Suffix::Delete);
        let (dir, delay) = match durable.then(|| log.rename_dir(&to)) {
            Some(Ok(())) => (to, log.config().file_delete_delay),
            Some(Err(error)) => {
                tracing::warn!(dir = %aside.display(), %error, "a log that was moved away is kept for longer");
                (aside, self.config.stray_retention)
            }
            None => (aside, self.config.stray_retention),
        };
        if let Err(error) = log.close(false) {
            tracing::debug!(dir = %dir.display(), %error, "a log that was moved away did not close");
        }
        self.schedule_removal(dir, Monotonic::now() + delay);
    }

    /// Whether only a future log of the partition is here: after a crash in a swap it is the only copy.
    pub(super) fn is_unpaired_future(&self, partition: TopicPartition) -> bool {
        let replicas = self.replicas.read();
        replicas.futures.contains_key(&partition) && !replicas.has_current(partition)
    }

    /// Keeps a future log as stray that has no current one; that one is missed no longer. The caller holds the
    /// lock on the name.
    pub(super) fn put_future_aside(&self, partition: TopicPartition) -> Result<(), StorageError> {
        let name = self.name_of(partition);
        self.end_future(partition, Suffix::Stray, self.config.stray_retention)?;
        if let Some(name) = name {
            self.miss_no_longer(partition, &name);
        }
        Ok(())
    }

    /// Makes a future log the replica that has no current log here: the last run ended in the middle of a
    /// swap. The caller holds the lock on the name, and the metadata names the future's directory.
    pub(super) fn finish_swap(&self, partition: TopicPartition) -> Result<Arc<Log>, StorageError> {
        let future = self.replicas.read().futures.get(&partition).cloned();
        let future = future.ok_or_else(|| self.not_here())?;
        let home = &self.directories[future.directory];
        if home.is_given_up(&future.name) {
            self.checkpoint_directory(future.directory)?;
        }
        let place = home.partition_dir(&future.name);
        future
            .log
            .rename_dir(&place)
            .and_then(|()| home.sync())
            .inspect_err(|error| home.health().note(error))?;
        tracing::info!(%partition, dir = %place.display(), "the replica's move is finished");
        self.miss_no_longer(partition, &future.name);
        let mut replicas = self.replicas.write();
        replicas.futures.remove(&partition);
        let log = Arc::clone(&future.log);
        replicas.hosted.insert(partition, future);
        Ok(log)
    }

    fn not_here(&self) -> StorageError {
        StorageError::Closed {
            path: self.first_dir().to_owned(),
        }
    }
}

/// How a future log is opened again. It is only a copy, so nothing of it is known to be durable.
pub(super) fn reopen(clean_shutdown: bool) -> OpenOptions {
    OpenOptions {
        recovery_point: None,
        log_start_offset: Offset::ZERO,
        is_alone: false,
        clean_shutdown,
        now_ms: wall_clock_ms(),
    }
}
