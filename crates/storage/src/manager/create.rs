//! Creating a partition's log.

use std::{fs, sync::Arc};

use protocol::{Offset, TopicName, TopicPartition};

use super::{
    Hosted, LogManager,
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
    /// The log of a partition, created if it is not here yet. A directory of that name that belongs to
    /// another topic is put aside as stray. A replica that did not open at start stays
    /// [`StorageError::Failed`] until it is deleted or marked stray: only then is it built anew.
    pub fn create(
        &self,
        partition: TopicPartition,
        topic: &TopicName,
        config: LogConfig,
    ) -> Result<Arc<Log>, StorageError> {
        if let Some(log) = self.get(partition) {
            return Ok(log);
        }
        let name = (topic.clone(), partition.partition);
        let _held = self.names.lock(&name);
        self.refuse_when_closed()?;
        if let Some(log) = self.get(partition) {
            return Ok(log);
        }
        self.refuse_when_offline(partition)?;
        self.put_aside_holder_of(&name)?;

        let directory = self.emptiest_directory();
        let home = &self.directories[directory];
        if home.is_given_up(&name) {
            self.checkpoint_directory(directory)?;
        }
        let dir = home.partition_dir(&name);
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
        home.sync()?;
        let options = OpenOptions {
            recovery_point: None,
            log_start_offset: Offset::ZERO,
            clean_shutdown: false,
            now_ms: super::background::wall_clock_ms(),
        };
        let (log, _) = Log::open(&dir, config, options)?;
        let log = Arc::new(log);
        let hosted = Hosted {
            log: Arc::clone(&log),
            name,
            directory,
        };
        let mut replicas = self.replicas.write();
        if replicas.closed {
            // The close that came in between does not know of this log; nobody has written to it.
            drop(replicas);
            log.close(true)?;
            return Err(StorageError::Closed { path: dir });
        }
        replicas.hosted.insert(partition, hosted);
        drop(replicas);
        Ok(log)
    }

    fn refuse_when_offline(&self, partition: TopicPartition) -> Result<(), StorageError> {
        match self.replicas.read().offline.get(&partition) {
            None => Ok(()),
            Some(offline) => Err(StorageError::Failed {
                path: self.directories[offline.directory].partition_dir(&offline.name),
                reason: offline.reason.clone(),
            }),
        }
    }

    /// Frees a directory name that another topic's replica still has, hosted or offline.
    fn put_aside_holder_of(&self, (topic, index): &PartitionName) -> Result<(), StorageError> {
        let holders: Vec<TopicPartition> = {
            let replicas = self.replicas.read();
            let named = |name: &PartitionName| (&name.0, name.1) == (topic, *index);
            let hosted = replicas
                .hosted
                .iter()
                .filter(|(_, hosted)| named(&hosted.name))
                .map(|(&id, _)| id);
            let offline = replicas
                .offline
                .iter()
                .filter(|(_, offline)| named(&offline.name))
                .map(|(&id, _)| id);
            hosted.chain(offline).collect()
        };
        for holder in holders {
            tracing::warn!(%holder, %topic, partition = %index, "its directory's name is wanted for another topic");
            self.put_aside(holder, Suffix::Stray)?;
        }
        Ok(())
    }

    fn emptiest_directory(&self) -> usize {
        let mut counts = vec![0_usize; self.directories.len()];
        let replicas = self.replicas.read();
        for hosted in replicas.hosted.values() {
            counts[hosted.directory] += 1;
        }
        let emptiest = counts.iter().enumerate().min_by_key(|&(_, count)| count);
        emptiest.map_or(0, |(directory, _)| directory)
    }
}
