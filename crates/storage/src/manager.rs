//! All logs of a broker: found at start, created, deleted, checkpointed, trimmed, compacted, closed.
//!
//! A partition's identity is its topic id; its directory is named after the topic, which another topic
//! may have been called before and may be called again. The manager keeps the two apart: a name is
//! free only when its directory has been renamed and the checkpoint files no longer speak of it.
//!
//! Nothing here decides that a replica should go: the reconciler does, by the metadata. What the
//! metadata does not know is kept as stray for a day, what is deleted is removed after a delay.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex, RwLock};
use protocol::{BrokerEpoch, BrokerId, ClusterId, DirectoryId, TopicName, TopicPartition};

use crate::{
    checkpoint::PartitionName, clean_shutdown, error::StorageError, flush::Flusher, health::Bell, log::Log,
    log_config::LogConfig,
};

mod background;
mod claims;
mod cleaner;
mod create;
mod delete;
mod describe;
mod directory;
mod error;
mod missing;
mod moving;
mod names;
mod startup;

pub use cleaner::CleanerConfig;
pub use describe::{DirectorySpace, DirectoryStatus, ReplicaSize};
pub use error::OpenError;
pub use moving::NamedDirectory;
pub use startup::StartupReport;

use background::Background;
use claims::{Claim, offsets_of};
use cleaner::Cleaners;
use directory::{CheckpointedOffsets, DataDirectory};

/// The clock of everything that must not follow the wall clock's jumps.
type Monotonic = Instant;

/// Logs of one directory that close at once: closing is mostly waiting for fsync, and file systems
/// commit what comes together as one.
const CLOSING_THREADS: usize = 16;

/// What the manager is told about its node.
#[derive(Clone, Debug)]
pub struct ManagerConfig {
    /// `log.dirs`.
    pub log_dirs: Vec<PathBuf>,
    /// The cluster, where it is known before the quorum was asked.
    pub cluster_id: Option<ClusterId>,
    /// `node.id`.
    pub node_id: BrokerId,
    /// `num.recovery.threads.per.data.dir`; at least one is used.
    pub recovery_threads_per_dir: usize,
    /// Settings of a log until its topic's are known.
    pub default_log: LogConfig,
    /// `log.flush.offset.checkpoint.interval.ms`: how often recovery points and log starts are written.
    pub checkpoint_interval: Duration,
    /// `log.retention.check.interval.ms`.
    pub retention_interval: Duration,
    /// `producer.id.expiration.ms`: how long an idle producer's sequence is remembered.
    pub producer_expiration: Duration,
    /// Threads that fsync, over all directories.
    pub flush_threads: usize,
    /// How long the files of a deleted partition stay that was offline, or was found deleted; one that was
    /// open goes by its log's `file.delete.delay.ms`.
    pub file_delete_delay: Duration,
    /// Compaction, until [`LogManager::set_cleaner_config`] says otherwise.
    pub cleaner: CleanerConfig,
    /// How long a stray partition is kept, at least; counted anew from each start.
    pub stray_retention: Duration,
}

impl ManagerConfig {
    /// Kafka's defaults, but for checkpoints every four seconds in place of sixty: recovery is then short.
    pub fn new(log_dirs: Vec<PathBuf>, node_id: BrokerId) -> Self {
        Self {
            log_dirs,
            cluster_id: None,
            node_id,
            recovery_threads_per_dir: 2,
            default_log: LogConfig::default(),
            checkpoint_interval: Duration::from_secs(4),
            retention_interval: Duration::from_secs(300),
            producer_expiration: Duration::from_secs(24 * 60 * 60),
            flush_threads: 4,
            file_delete_delay: Duration::from_secs(60),
            cleaner: CleanerConfig::default(),
            stray_retention: Duration::from_secs(24 * 60 * 60),
        }
    }
}

/// A log that is open.
#[derive(Clone, Debug)]
struct Hosted {
    log: Arc<Log>,
    name: PartitionName,
    /// Index into the manager's directories.
    directory: usize,
}

/// A replica that did not open: offline until it does, until it is rebuilt, or until the next start.
#[derive(Clone, Debug)]
struct Offline {
    name: PartitionName,
    directory: usize,
    /// Where its files are.
    dir: PathBuf,
    reason: String,
    /// It lacked only what may come back by itself: it is tried again when it is asked for.
    may_open: bool,
}

#[derive(Debug, Default)]
struct Replicas {
    hosted: HashMap<TopicPartition, Hosted>,
    offline: HashMap<TopicPartition, Offline>,
    /// Replicas that lie in several directories, until it is known which of them is meant; in neither of the maps
    /// above.
    contested: HashMap<TopicPartition, Vec<Claim>>,
    /// Logs on their way to another directory, as far as they were copied.
    futures: HashMap<TopicPartition, Hosted>,
    closed: bool,
}

/// The logs of a broker. Shared by `Arc`; every method that touches the disk blocks.
pub struct LogManager {
    config: ManagerConfig,
    directories: Vec<DataDirectory>,
    /// Configured directories that could not be used at the start, and why.
    unusable: Vec<(PathBuf, String)>,
    /// The kernel's run.
    boot_id: String,
    bell: Arc<Bell>,
    replicas: RwLock<Replicas>,
    names: NameLocks,
    wishes: moving::Wishes,
    removals: Mutex<Vec<Removal>>,
    flusher: Flusher,
    background: Background,
    cleaners: Cleaners,
}

/// A directory that has lost its name and goes when its time has come.
#[derive(Debug)]
struct Removal {
    path: PathBuf,
    due: Monotonic,
}

impl fmt::Debug for LogManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dirs: Vec<_> = self.directories.iter().map(DataDirectory::path).collect();
        f.debug_struct("LogManager")
            .field("directories", &dirs)
            .field("logs", &self.replicas.read().hosted.len())
            .finish_non_exhaustive()
    }
}

impl LogManager {
    /// Ids of the log directories that were usable at the start, in the order of `log.dirs`.
    pub fn directories(&self) -> Vec<DirectoryId> {
        self.directories.iter().map(DataDirectory::id).collect()
    }

    /// Ids of the log directories that can be used, in the order of `log.dirs`.
    pub fn online_directories(&self) -> Vec<DirectoryId> {
        let online = self.directories.iter().filter(|home| !home.is_offline());
        online.map(DataDirectory::id).collect()
    }

    /// Ids of the log directories that went offline since the start.
    pub fn offline_directories(&self) -> Vec<DirectoryId> {
        let offline = self.directories.iter().filter(|home| home.is_offline());
        offline.map(DataDirectory::id).collect()
    }

    /// How many configured directories cannot be used: at the start, or since.
    pub fn unusable_directories(&self) -> usize {
        self.unusable.len() + self.directories.iter().filter(|home| home.is_offline()).count()
    }

    /// Whether no log directory is left.
    pub fn all_offline(&self) -> bool {
        self.directories.iter().all(DataDirectory::is_offline)
    }

    /// Has `listener` called whenever a log directory goes offline, on the thread that met the failure: it
    /// must be short and must not wait. The first listener stays.
    pub fn on_directory_failure(&self, listener: impl Fn() + Send + Sync + 'static) {
        self.bell.set(Box::new(listener));
    }

    /// The directory of this id, where it can be used.
    fn online(&self, id: DirectoryId) -> Option<usize> {
        let usable = |home: &DataDirectory| home.id() == id && !home.is_offline();
        self.directories.iter().position(usable)
    }

    /// Every open log.
    pub fn logs(&self) -> Vec<(TopicPartition, Arc<Log>)> {
        let replicas = self.replicas.read();
        let pair = |(&partition, hosted): (&TopicPartition, &Hosted)| (partition, Arc::clone(&hosted.log));
        replicas.hosted.iter().map(pair).collect()
    }

    /// The log of a partition, if it is open here.
    pub fn get(&self, partition: TopicPartition) -> Option<Arc<Log>> {
        let replicas = self.replicas.read();
        replicas
            .hosted
            .get(&partition)
            .map(|hosted| Arc::clone(&hosted.log))
    }

    /// Replicas that did not open, with the reason, and were not deleted or rebuilt since.
    pub fn offline(&self) -> Vec<(TopicPartition, String)> {
        let replicas = self.replicas.read();
        let pair = |(&partition, offline): (&TopicPartition, &Offline)| (partition, offline.reason.clone());
        replicas.offline.iter().map(pair).collect()
    }

    /// Names of all partitions that have a directory here, open, offline or in several.
    pub fn names(&self) -> Vec<(TopicPartition, TopicName)> {
        let replicas = self.replicas.read();
        let unpaired = replicas
            .futures
            .iter()
            .filter(|&(&id, _)| !replicas.has_current(id));
        let hosted = replicas
            .hosted
            .iter()
            .chain(unpaired)
            .map(|(&id, hosted)| (id, hosted.name.0.clone()));
        let offline = replicas
            .offline
            .iter()
            .map(|(&id, offline)| (id, offline.name.0.clone()));
        let contested = replicas
            .contested
            .iter()
            .filter_map(|(&id, claims)| Some((id, claims.first()?.name().0.clone())));
        hosted.chain(offline).chain(contested).collect()
    }

    /// The log directory that holds a partition, open or offline; `None` also where several do and it is not known
    /// which of them is meant.
    pub fn directory_of(&self, partition: TopicPartition) -> Option<DirectoryId> {
        let replicas = self.replicas.read();
        let hosted = replicas.hosted.get(&partition).map(|hosted| hosted.directory);
        let directory =
            hosted.or_else(|| replicas.offline.get(&partition).map(|offline| offline.directory))?;
        Some(self.directories[directory].id())
    }

    /// The first log directory: where a broker keeps what belongs to no partition.
    pub fn first_dir(&self) -> &Path {
        self.directories[0].path()
    }

    /// Writes the cluster id, now known, into the directories that lack it; refuses if one has another.
    pub fn set_cluster_id(&self, cluster_id: &ClusterId) -> Result<(), OpenError> {
        self.directories
            .iter()
            .filter(|directory| !directory.is_offline())
            .try_for_each(|directory| directory.learn_cluster_id(Some(cluster_id)))
    }

    /// The threads that flush logs.
    pub fn flusher(&self) -> &Flusher {
        &self.flusher
    }

    /// Writes the recovery points and log starts that have changed, of every directory. A directory
    /// that cannot be written is logged: its logs notice by themselves when they flush.
    pub fn checkpoint(&self) {
        for directory in 0..self.directories.len() {
            if let Err(error) = self.checkpoint_directory(directory) {
                tracing::error!(%error, "checkpoint failed");
            }
        }
    }

    fn checkpoint_directory(&self, directory: usize) -> Result<(), StorageError> {
        let home = &self.directories[directory];
        if home.is_offline() {
            return Ok(());
        }
        let mut told = Vec::new();
        home.write_checkpoints(|| {
            let mut offsets = CheckpointedOffsets::default();
            for (partition, hosted) in self.replicas.read().open_logs() {
                if hosted.directory == directory {
                    let generation = hosted.log.generation();
                    let of_log = offsets_of(partition, &hosted.log);
                    offsets.insert(&hosted.name, of_log);
                    told.extend(
                        of_log
                            .recovery_point
                            .map(|point| (Arc::clone(&hosted.log), point, generation)),
                    );
                }
            }
            offsets
        })
        .inspect_err(|error| home.health().note(error))?;
        for (log, recovery_point, generation) in told {
            log.note_checkpoint(recovery_point, generation);
        }
        Ok(())
    }

    /// Ends the background work, closes every log, and marks the directories whose logs all closed as
    /// cleanly shut down under `broker_epoch`. Calling it again does nothing.
    pub fn close(&self, broker_epoch: Option<BrokerEpoch>) {
        {
            let mut replicas = self.replicas.write();
            if replicas.closed {
                return;
            }
            replicas.closed = true;
        }
        self.cleaners.stop();
        self.background.stop();
        self.flusher.shutdown();
        std::thread::scope(|scope| {
            for directory in 0..self.directories.len() {
                scope.spawn(move || self.close_directory(directory, broker_epoch));
            }
        });
    }

    fn close_directory(&self, directory: usize, broker_epoch: Option<BrokerEpoch>) {
        if self.directories[directory].is_offline() {
            // Whoever can read it next has to look at all of it.
            return;
        }
        let (logs, offline): (Vec<_>, usize) = {
            let replicas = self.replicas.read();
            let hosted = replicas
                .open_logs()
                .map(|(_, hosted)| hosted)
                .chain(replicas.futures.values())
                .filter(|hosted| hosted.directory == directory);
            let offline = replicas
                .offline
                .values()
                .filter(|offline| offline.directory == directory);
            let contested = replicas
                .contested_claims()
                .filter(|(_, claim)| claim.open().is_none() && claim.directory() == directory);
            (
                hosted.map(|hosted| Arc::clone(&hosted.log)).collect(),
                offline.count() + contested.count(),
            )
        };
        let failures = startup::in_parallel(CLOSING_THREADS, &logs, |log| {
            log.close(true).map_err(|error| {
                tracing::error!(log = %log.dir().display(), %error, "log did not close cleanly");
            })
        })
        .into_iter()
        .filter(Result::is_err)
        .count();
        let path = self.directories[directory].path();
        if let Err(error) = self.checkpoint_directory(directory) {
            tracing::error!(%error, "last checkpoint failed; the next start recovers");
            return;
        }
        if self.directories[directory].is_offline() {
            return;
        }
        if failures + offline > 0 {
            tracing::warn!(dir = %path.display(), failures, offline, "not marked as cleanly closed");
            return;
        }
        let marker = clean_shutdown::CleanShutdown { broker_epoch };
        if let Err(error) = clean_shutdown::write_marker(path, &marker) {
            tracing::error!(dir = %path.display(), %error, "clean-shutdown marker not written; the next start recovers");
        }
    }

    fn refuse_when_closed(&self) -> Result<(), StorageError> {
        if self.replicas.read().closed {
            return Err(StorageError::Closed {
                path: self.first_dir().to_owned(),
            });
        }
        Ok(())
    }
}

/// One operation at a time for each partition name; operations on different names run side by side.
#[derive(Debug, Default)]
struct NameLocks {
    held: Mutex<HashSet<PartitionName>>,
    released: Condvar,
}

#[derive(Debug)]
struct NameGuard<'a> {
    locks: &'a NameLocks,
    name: PartitionName,
}

impl NameLocks {
    fn lock(&self, name: &PartitionName) -> NameGuard<'_> {
        let mut held = self.held.lock();
        while !held.insert(name.clone()) {
            self.released.wait(&mut held);
        }
        NameGuard {
            locks: self,
            name: name.clone(),
        }
    }
}

impl Drop for NameGuard<'_> {
    fn drop(&mut self) {
        self.locks.held.lock().remove(&self.name);
        self.locks.released.notify_all();
    }
}

#[cfg(test)]
mod tests;
