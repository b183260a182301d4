//! Opening the log directories: whose they are, how they were left, and every log in them.
//!
//! Logs open in parallel, a bounded number per directory. One that does not open costs its replica,
//! not the broker: it is reported, kept where it is, and counts as offline.

use std::{
    collections::hash_map::Entry,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::RwLock;
use protocol::{BrokerEpoch, Offset, TopicPartition};

use super::{
    Background, Hosted, LogManager, ManagerConfig, Monotonic, NameLocks, Offline, OpenError, Replicas,
    background::wall_clock_ms,
    cleaner::Cleaners,
    directory::{CheckpointedOffsets, DataDirectory, Found},
    names::{Suffix, suffixed_dir},
};
use crate::{
    checkpoint::PartitionName,
    descriptors,
    error::StorageError,
    flush::Flusher,
    log::{Log, OpenOptions},
    partition_metadata::{self, PartitionMetadataError},
    recovery::RecoveryReport,
};

/// How the last process left the directories, and what became of their logs.
#[derive(Debug)]
pub struct StartupReport {
    /// Replicas that may lack something that was durable: they leave the ISR while another member of
    /// ISR or ELR lives.
    pub damaged: Vec<TopicPartition>,
    /// Replicas that did not open: offline until they are deleted or marked stray, and created again;
    /// where only space or descriptors lacked, until they are created again.
    pub failed: Vec<(TopicPartition, StorageError)>,
    /// Directories of partitions that lost their topic id and were put aside as stray.
    pub unidentified: Vec<PathBuf>,
    /// Directories on failing disks: their replicas are offline, the broker runs on the others.
    pub offline_directories: Vec<(PathBuf, OpenError)>,
    /// Every directory was closed cleanly, or is new.
    pub clean: bool,
    /// The broker epoch under which the last process closed them: all of them, and all under the same.
    pub previous_broker_epoch: Option<BrokerEpoch>,
    /// The kernel has not been booted since the directories were last used, or they are new: what was
    /// in the page cache is not lost.
    pub same_boot: bool,
    /// Bytes that recovery read.
    pub scanned_bytes: u64,
    /// Bytes of torn tails that recovery cut off.
    pub bytes_cut: u64,
}

/// A partition directory, as its loading left it.
enum Loaded {
    Open(TopicPartition, Arc<Log>, RecoveryReport),
    Failed(TopicPartition, StorageError),
    Unidentified(PathBuf),
    /// It held nothing and is gone.
    Empty,
}

impl LogManager {
    /// Opens the log directories of a broker, formatting empty ones, and every log in them. Refused
    /// before anything is changed: a directory of another node or cluster, one that another process
    /// uses, one that holds other things but no `meta.properties`.
    pub fn open(config: ManagerConfig, boot_id: &str) -> Result<(Arc<Self>, StartupReport), OpenError> {
        let limit = descriptors::raise_limit();
        let (directories, offline_directories) = open_directories(&config)?;
        let mut found = Vec::new();
        for directory in &directories {
            found.push(directory.take_over(config.cluster_id.as_ref(), boot_id)?);
        }
        let mut report = StartupReport::new(&found, offline_directories);
        let cleaners = Cleaners::new(config.cleaner.clone());
        let manager = Self {
            flusher: Flusher::new(config.flush_threads).map_err(OpenError::Threads)?,
            config,
            directories,
            replicas: RwLock::new(Replicas::default()),
            names: NameLocks::default(),
            removals: parking_lot::Mutex::default(),
            background: Background::default(),
            cleaners,
        };
        manager.load_all(&found, &mut report)?;
        for directory in 0..manager.directories.len() {
            match manager.checkpoint_directory(directory) {
                Err(error) if error.is_exhaustion() => tracing::warn!(%error, "checkpoint put off"),
                other => other?,
            }
        }
        let replicas = manager.replicas.read().hosted.len();
        if let Some(warning) = descriptors::low_limit_warning(limit, replicas) {
            tracing::warn!("{warning}");
        }
        tracing::info!(
            replicas,
            failed = report.failed.len(),
            clean = report.clean,
            scanned_bytes = report.scanned_bytes,
            bytes_cut = report.bytes_cut,
            "log directories opened"
        );
        Ok((Arc::new(manager), report))
    }

    fn load_all(&self, found: &[Found], report: &mut StartupReport) -> Result<(), OpenError> {
        std::thread::scope(|scope| {
            let loads: Vec<_> = found
                .iter()
                .enumerate()
                .map(|(directory, found)| scope.spawn(move || self.load_directory(directory, found)))
                .collect();
            for (directory, load) in loads.into_iter().enumerate() {
                for (name, loaded) in load.join().expect("loading returns errors and does not panic")? {
                    self.register(directory, name, loaded, report)?;
                }
            }
            Ok(())
        })
    }

    fn load_directory(
        &self,
        directory: usize,
        found: &Found,
    ) -> Result<Vec<(PartitionName, Loaded)>, OpenError> {
        let home = &self.directories[directory];
        let listing = home.list()?;
        for (suffix, path) in listing.suffixed {
            match suffix {
                Suffix::New => fs::remove_dir_all(&path).map_err(StorageError::io("remove", &path))?,
                Suffix::Delete => self.schedule_removal(path, Monotonic::now()),
                Suffix::Stray => self.schedule_removal(path, Monotonic::now() + self.config.stray_retention),
            }
        }
        let checkpoints = home.read_checkpoints();
        for name in checkpoints.names() {
            if listing.partitions.binary_search(name).is_err() {
                // Its directory is gone: who takes the name next must not inherit its offsets.
                home.give_up(name);
            }
        }
        let loaded = in_parallel(
            self.config.recovery_threads_per_dir,
            &listing.partitions,
            |name| self.load_partition(home, name, &checkpoints, found.clean.is_some()),
        );
        for (name, loaded) in listing.partitions.iter().zip(&loaded) {
            if matches!(loaded, Loaded::Failed(..)) {
                home.keep_offline(name, checkpoints.of(name));
            }
        }
        Ok(listing.partitions.into_iter().zip(loaded).collect())
    }

    fn load_partition(
        &self,
        home: &DataDirectory,
        name: &PartitionName,
        checkpoints: &CheckpointedOffsets,
        clean_shutdown: bool,
    ) -> Loaded {
        let dir = home.partition_dir(name);
        let topic_id = match partition_metadata::load(&dir) {
            Ok(Some(topic_id)) => topic_id,
            Ok(None) => return put_aside_unidentified(home, name, &dir, "it has no partition.metadata"),
            Err(error @ PartitionMetadataError::Malformed { .. }) => {
                return put_aside_unidentified(home, name, &dir, &error.to_string());
            }
            Err(error @ PartitionMetadataError::Io { .. }) => {
                tracing::error!(%error, "the partition's identity cannot be read; it stays closed");
                return Loaded::Unidentified(dir);
            }
        };
        let partition = TopicPartition::new(topic_id, name.1);
        let offsets = checkpoints.of(name);
        let options = OpenOptions {
            recovery_point: offsets.recovery_point,
            log_start_offset: offsets.log_start.unwrap_or(Offset::ZERO),
            clean_shutdown,
            now_ms: wall_clock_ms(),
        };
        match Log::open(&dir, self.config.default_log.clone(), options) {
            Ok((log, report)) => {
                if let Some(offset) = offsets.first_dirty {
                    log.restore_first_dirty_offset(offset);
                }
                Loaded::Open(partition, Arc::new(log), report)
            }
            Err(error) => {
                tracing::error!(dir = %dir.display(), %error, "replica is offline");
                Loaded::Failed(partition, error)
            }
        }
    }

    fn register(
        &self,
        directory: usize,
        name: PartitionName,
        loaded: Loaded,
        report: &mut StartupReport,
    ) -> Result<(), OpenError> {
        let mut replicas = self.replicas.write();
        match loaded {
            Loaded::Open(partition, log, recovery) => {
                report.scanned_bytes += recovery.scanned_bytes;
                report.bytes_cut += recovery.bytes_cut;
                if recovery.lost {
                    report.damaged.push(partition);
                }
                match replicas.hosted.entry(partition) {
                    Entry::Occupied(other) => {
                        return Err(OpenError::Duplicate {
                            partition,
                            first: other.get().log.dir(),
                            second: log.dir(),
                        });
                    }
                    Entry::Vacant(place) => place.insert(Hosted { log, name, directory }),
                };
            }
            Loaded::Failed(partition, error) => {
                let offline = Offline {
                    name,
                    directory,
                    reason: error.to_string(),
                    may_open: error.is_exhaustion(),
                };
                report.failed.push((partition, error));
                replicas.offline.insert(partition, offline);
            }
            Loaded::Unidentified(path) => report.unidentified.push(path),
            Loaded::Empty => {}
        }
        Ok(())
    }
}

impl StartupReport {
    fn new(found: &[Found], offline_directories: Vec<(PathBuf, OpenError)>) -> Self {
        let used: Vec<&Found> = found.iter().filter(|found| !found.new).collect();
        let epoch = |found: &Found| found.clean.as_ref().and_then(|clean| clean.broker_epoch);
        let first_epoch = used.first().and_then(|found| epoch(found));
        Self {
            damaged: Vec::new(),
            failed: Vec::new(),
            unidentified: Vec::new(),
            offline_directories,
            clean: used.iter().all(|found| found.clean.is_some()),
            previous_broker_epoch: first_epoch
                .filter(|_| used.iter().all(|found| epoch(found) == first_epoch)),
            same_boot: used.iter().all(|found| found.same_boot),
            scanned_bytes: 0,
            bytes_cut: 0,
        }
    }
}

type Opened = (Vec<DataDirectory>, Vec<(PathBuf, OpenError)>);

/// Checks whose the directories are, before any of them is changed. One on a failing disk is left
/// out while there is another.
fn open_directories(config: &ManagerConfig) -> Result<Opened, OpenError> {
    let (mut opened, mut failing) = (Vec::new(), Vec::new());
    for path in &config.log_dirs {
        match DataDirectory::open(path, config.cluster_id.as_ref(), config.node_id) {
            Ok(directory) => opened.push(directory),
            Err(error) if error.is_failing_disk() => {
                tracing::error!(dir = %path.display(), %error, "log directory is offline");
                failing.push((path.clone(), error));
            }
            Err(error) => return Err(error),
        }
    }
    if opened.is_empty() {
        let first = failing.into_iter().next().map(|(_, error)| error);
        return Err(first.unwrap_or(OpenError::NoDirectory));
    }
    Ok((opened, failing))
}

/// Deals with a directory that has a partition's name but does not say of which topic: nothing in it
/// may be served. An empty one goes, any other is kept as stray.
fn put_aside_unidentified(home: &DataDirectory, name: &PartitionName, dir: &Path, reason: &str) -> Loaded {
    if fs::remove_dir(dir).is_ok() {
        return Loaded::Empty;
    }
    let to = suffixed_dir(home.path(), name, Suffix::Stray);
    tracing::error!(dir = %dir.display(), reason, to = %to.display(), "partition without identity is put aside");
    match fs::rename(dir, &to).and_then(|()| crate::durable_file::sync_dir(home.path())) {
        Ok(()) => Loaded::Unidentified(to),
        Err(error) => {
            tracing::error!(dir = %dir.display(), %error, "it cannot be renamed; it stays closed");
            Loaded::Unidentified(dir.to_owned())
        }
    }
}

/// Applies `work` to every item on up to `threads` threads; results are in the items' order.
pub(super) fn in_parallel<T: Sync, R: Send>(
    threads: usize,
    items: &[T],
    work: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let take = || {
        let mut done = Vec::new();
        while let Some((index, item)) = {
            let index = next.fetch_add(1, Ordering::Relaxed);
            items.get(index).map(|item| (index, item))
        } {
            done.push((index, work(item)));
        }
        done
    };
    let threads = threads.clamp(1, items.len().max(1));
    let mut results: Vec<(usize, R)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(take)).collect();
        let join = |worker: std::thread::ScopedJoinHandle<'_, Vec<(usize, R)>>| {
            worker.join().expect("work returns errors and does not panic")
        };
        workers.into_iter().flat_map(join).collect()
    });
    results.sort_unstable_by_key(|&(index, _)| index);
    results.into_iter().map(|(_, result)| result).collect()
}
