//! Creating a partition's log, or opening one again that lacked only space or descriptors.

use std::{fs, sync::Arc};

use protocol::{DirectoryId, Offset, TopicName, TopicPartition};

use super::{
    Hosted, LogManager, Monotonic, Offline,
    background::wall_clock_ms,
    directory::DataDirectory,
    names::{Suffix, suffixed_dir},
};
use crate::{
    checkpoint::PartitionName,
    error::StorageError,
    log::{Log, OpenOptions},
    log_config::LogConfig,
    partition_metadata,
};

impl LogManager {
    /// The log of a partition, created if it is not here yet, with `config` from here on: one that was found
    /// at the start has had no settings but defaults, and retention must never go by those. A directory of that
    /// name that belongs to another topic is put aside as stray. A replica that did not open for want of space or
    /// descriptors is tried again; one that is damaged stays [`StorageError::Failed`] until it is deleted or
    /// marked stray: only then is it built anew. So is one whose log was here and has vanished, and one that lies
    /// in several directories of which `home` is none; where it is one of them, that one has the replica.
    ///
    /// A new log goes where [`LogManager::wish`] wants it, else into the directory `home`, where the metadata
    /// says one (KIP-858), else into the one with the fewest logs. [`StorageError::Offline`] where the
    /// directory of an old or a new log cannot be used, whatever was wished: a replica is not built anew while
    /// the old one may come back.
    pub fn create(
        &self,
        partition: TopicPartition,
        topic: &TopicName,
        home: Option<DirectoryId>,
        config: LogConfig,
    ) -> Result<Arc<Log>, StorageError> {
        if let Some(log) = self.found(partition, home)? {
            log.set_config(config);
            return Ok(log);
        }
        let name = (topic.clone(), partition.partition);
        let _held = self.names.lock(&name);
        self.refuse_when_closed()?;
        if let Some(log) = self.found(partition, home)? {
            log.set_config(config);
            return Ok(log);
        }
        if let Some(log) = self.decide_contest(partition, &name, home, &config)? {
            return Ok(log);
        }
        let offline = self.replicas.read().offline.get(&partition).cloned();
        match offline {
            Some(offline) if offline.may_open && self.is_future(&offline) => {
                self.open_future_again(partition, offline)?;
            }
            Some(offline) => return self.open_again(partition, offline, config),
            None => {}
        }
        self.put_aside_holder_of(&name)?;
        if let Some((future, directory)) = self.future(partition) {
            if home == Some(directory) {
                let log = self.finish_swap(partition)?;
                log.set_config(config);
                return Ok(log);
            }
            // What it was to be a copy of is not here. It may only be offline: then so is the replica.
            self.home_for(home)?;
            if home.is_some_and(|id| !id.is_zero()) {
                // It lay there when the copy was begun: lost, or put aside by a swap that went wrong.
                return Err(StorageError::Failed {
                    path: future.dir(),
                    reason: "only a copy is left here of the log, which is gone from its own directory"
                        .to_owned(),
                });
            }
            self.drop_future(partition)?;
        }
        self.refuse_what_vanished(partition, &name, home)?;

        // A wish does not make up for a directory that may come back with the log.
        let directory = self.home_for(home)?;
        let wished = self.wishes.take(&name).and_then(|id| self.online(id));
        let directory = wished.unwrap_or(directory);
        self.make(partition, name, directory, config)
            .inspect_err(|error| self.directories[directory].health().note(error))
    }

    /// Whether what did not open is a future log that has no current one.
    pub(super) fn is_future(&self, offline: &Offline) -> bool {
        offline.dir != self.directories[offline.directory].partition_dir(&offline.name)
    }

    /// Opens a future log again that lacked only space or descriptors.
    fn open_future_again(&self, partition: TopicPartition, offline: Offline) -> Result<(), StorageError> {
        let home = &self.directories[offline.directory];
        if home.is_offline() {
            return Err(StorageError::Offline { directory: home.id() });
        }
        let (log, _) = Log::open(&offline.dir, self.config.default_log.clone(), options(None, None))?;
        log.live_in(Arc::clone(home.health()));
        let Offline { name, directory, .. } = offline;
        let log = Arc::new(log);
        let mut replicas = self.replicas.write();
        replicas.offline.remove(&partition);
        replicas
            .futures
            .insert(partition, Hosted { log, name, directory });
        Ok(())
    }

    /// The log that is here, unless the replica is to lie in a directory that is offline: what lies elsewhere
    /// may be from before it moved there.
    fn found(
        &self,
        partition: TopicPartition,
        home: Option<DirectoryId>,
    ) -> Result<Option<Arc<Log>>, StorageError> {
        let found = self.usable(partition)?;
        if found.is_some() && self.directory_of(partition) != home {
            self.home_for(home)?;
        }
        Ok(found)
    }

    /// The log, where it is open and its directory online.
    pub(super) fn usable(&self, partition: TopicPartition) -> Result<Option<Arc<Log>>, StorageError> {
        let replicas = self.replicas.read();
        let Some(hosted) = replicas.hosted.get(&partition) else {
            return Ok(None);
        };
        let home = &self.directories[hosted.directory];
        if home.is_offline() {
            return Err(StorageError::Offline { directory: home.id() });
        }
        Ok(Some(Arc::clone(&hosted.log)))
    }

    /// Where a new log goes.
    pub(super) fn home_for(&self, assigned: Option<DirectoryId>) -> Result<usize, StorageError> {
        let assigned = assigned.filter(|id| !id.is_zero());
        let directory = match assigned {
            Some(id) => self.online(id),
            None => self.emptiest_directory(),
        };
        directory.ok_or_else(|| StorageError::Offline {
            directory: assigned.unwrap_or(DirectoryId::ZERO),
        })
    }

    /// Makes the log's directory and opens it. The caller holds the lock on its name.
    fn make(
        &self,
        partition: TopicPartition,
        name: PartitionName,
        directory: usize,
        config: LogConfig,
    ) -> Result<Arc<Log>, StorageError> {
        let home = &self.directories[directory];
        if home.is_given_up(&name) {
            self.checkpoint_directory(directory)?;
        }
        let dir = home.partition_dir(&name);
        self.free_place(home, &name)?;
        // Made under another name first: a partition's directory without its topic id never exists.
        let new = suffixed_dir(home.path(), &name, Suffix::New);
        fs::create_dir(&new).map_err(StorageError::io("create", &new))?;
        let made = partition_metadata::store(&new, partition.topic_id)
            .map_err(StorageError::io("write the metadata of", &new))
            .and_then(|()| fs::rename(&new, &dir).map_err(StorageError::io("name", &dir)));
        if let Err(error) = made {
            // The next start removes it otherwise.
            let _ = fs::remove_dir_all(&new);
            return Err(error);
        }
        let opened = home
            .sync()
            .and_then(|()| Log::open(&dir, config, options(None, None)));
        match opened {
            Ok((log, _)) => self.host(partition, log, name, directory),
            Err(error) => {
                // The directory is there and says whose it is; only its log does not open yet.
                let offline = Offline {
                    name,
                    directory,
                    dir,
                    reason: error.to_string(),
                    may_open: true,
                };
                self.replicas.write().offline.insert(partition, offline);
                Err(error)
            }
        }
    }

    /// Puts aside what has the partition's name in a directory where no replica that is known here lies. The
    /// caller holds the lock on the name.
    pub(super) fn free_place(&self, home: &DataDirectory, name: &PartitionName) -> Result<(), StorageError> {
        let dir = home.partition_dir(name);
        if !dir.exists() {
            return Ok(());
        }
        let stray = suffixed_dir(home.path(), name, Suffix::Stray);
        tracing::warn!(dir = %dir.display(), to = %stray.display(), "it is no replica of this broker's and is put aside");
        fs::rename(&dir, &stray).map_err(StorageError::io("rename", &dir))?;
        self.schedule_removal(stray, Monotonic::now() + self.config.stray_retention);
        Ok(())
    }

    pub(super) fn open_again(
        &self,
        partition: TopicPartition,
        offline: Offline,
        config: LogConfig,
    ) -> Result<Arc<Log>, StorageError> {
        let home = &self.directories[offline.directory];
        if home.is_offline() {
            return Err(StorageError::Offline { directory: home.id() });
        }
        let dir = offline.dir.clone();
        if !offline.may_open {
            return Err(StorageError::Failed {
                path: dir,
                reason: offline.reason,
            });
        }
        let offsets = home.offline_offsets(&offline.name);
        let (log, report) = Log::open(&dir, config, options(offsets.recovery_point, offsets.log_start))?;
        if let Some(offset) = offsets.first_dirty {
            log.restore_first_dirty_offset(offset);
        }
        if report.lost {
            // The start would have reported it, so that the replica leaves the ISR: nobody does now.
            let reason = "records that were durable are missing".to_owned();
            let damaged = Offline {
                reason: reason.clone(),
                may_open: false,
                ..offline
            };
            self.replicas.write().offline.insert(partition, damaged);
            return Err(StorageError::Failed { path: dir, reason });
        }
        tracing::info!(dir = %dir.display(), "replica is open again");
        let Offline { name, directory, .. } = offline;
        let log = self.host(partition, log, name.clone(), directory)?;
        home.forget_offline(&name);
        Ok(log)
    }

    fn host(
        &self,
        partition: TopicPartition,
        log: Log,
        name: PartitionName,
        directory: usize,
    ) -> Result<Arc<Log>, StorageError> {
        let log = Arc::new(log);
        log.live_in(Arc::clone(self.directories[directory].health()));
        self.miss_no_longer(partition, &name);
        let mut replicas = self.replicas.write();
        if replicas.closed {
            // The close that came in between does not know of this log; nobody has written to it.
            drop(replicas);
            log.close(true)?;
            return Err(StorageError::Closed { path: log.dir() });
        }
        replicas.offline.remove(&partition);
        let hosted = Hosted {
            log: Arc::clone(&log),
            name,
            directory,
        };
        replicas.hosted.insert(partition, hosted);
        Ok(log)
    }

    /// Frees a directory name that another topic's replica still has, hosted or offline.
    fn put_aside_holder_of(&self, name: &PartitionName) -> Result<(), StorageError> {
        let mut holders: Vec<TopicPartition> = {
            let replicas = self.replicas.read();
            let holders = replicas.current().filter(|(_, held)| *held == name);
            holders.map(|(id, _)| id).collect()
        };
        // A contested one, once for each claim.
        holders.dedup();
        for holder in holders {
            tracing::warn!(%holder, topic = %name.0, partition = %name.1, "its directory's name is wanted for another topic");
            self.put_aside(holder, Suffix::Stray)?;
        }
        Ok(())
    }

    /// The online directory with the fewest logs, the first of several.
    fn emptiest_directory(&self) -> Option<usize> {
        let mut counts = vec![0_usize; self.directories.len()];
        let replicas = self.replicas.read();
        for hosted in replicas.hosted.values().chain(replicas.futures.values()) {
            counts[hosted.directory] += 1;
        }
        let online = counts
            .iter()
            .enumerate()
            .filter(|&(directory, _)| !self.directories[directory].is_offline());
        let emptiest = online.min_by_key(|&(_, count)| count);
        emptiest.map(|(directory, _)| directory)
    }
}

/// How a log is opened that nobody has closed properly.
fn options(recovery_point: Option<Offset>, log_start: Option<Offset>) -> OpenOptions {
    OpenOptions {
        recovery_point,
        log_start_offset: log_start.unwrap_or(Offset::ZERO),
        is_alone: false,
        clean_shutdown: false,
        now_ms: wall_clock_ms(),
    }
}
