//! Opening the log directories: whose they are, how they were left, and every log in them.
//!
//! Logs open in parallel, a bounded number per directory. One that does not open costs its replica,
//! not the broker: it is reported, kept where it is, and counts as offline.

use std::{
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
    claims::Claim,
    cleaner::Cleaners,
    directory::{CheckpointedOffsets, DataDirectory, Found},
    moving,
    names::{self, Suffix, suffixed_dir},
};
use crate::{
    checkpoint::PartitionName,
    descriptors,
    error::StorageError,
    flush::Flusher,
    health::Bell,
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
    /// The kernel has not been booted since [`LogManager::losses_are_known`], or the directories are new: what was
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
    /// On its way here from another directory.
    Future(
        TopicPartition,
        Result<(Arc<Log>, RecoveryReport), StorageError>,
        PathBuf,
    ),
}

impl LogManager {
    /// The controller has heard what the [`StartupReport`] says of losses: the next start need not say it again.
    /// Blocking.
    pub fn losses_are_known(&self) -> Result<(), StorageError> {
        self.directories
            .iter()
            .filter(|directory| !directory.is_offline())
            .try_for_each(|directory| directory.note_boot(&self.boot_id))
    }

    /// Opens the log directories of a broker, formatting empty ones, and every log in them. Refused
    /// before anything is changed: a directory of another node or cluster, one that another process
    /// uses, one that holds other things but no `meta.properties`, two of the same id.
    pub fn open(config: ManagerConfig, boot_id: &str) -> Result<(Arc<Self>, StartupReport), OpenError> {
        let limit = descriptors::raise_limit();
        let bell = Arc::new(Bell::default());
        let (opened, mut offline_directories) = open_directories(&config, &bell)?;
        let (mut directories, mut found) = (Vec::new(), Vec::new());
        for directory in opened {
            match directory.take_over(config.cluster_id.as_ref(), boot_id) {
                Ok(how) => {
                    found.push(how);
                    directories.push(directory);
                }
                Err(error) => leave_out(&mut offline_directories, directory.path(), error)?,
            }
        }
        if directories.is_empty() {
            return Err(none_usable(offline_directories));
        }
        let unusable = offline_directories
            .iter()
            .map(|(path, error)| (path.clone(), error.to_string()))
            .collect();
        let mut report = StartupReport::new(&found, offline_directories);
        let cleaners = Cleaners::new(config.cleaner.clone());
        let manager = Self {
            flusher: Flusher::new(config.flush_threads).map_err(OpenError::Threads)?,
            config,
            directories,
            unusable,
            boot_id: boot_id.to_owned(),
            bell,
            replicas: RwLock::new(Replicas::default()),
            names: NameLocks::default(),
            wishes: moving::Wishes::default(),
            removals: parking_lot::Mutex::default(),
            background: Background::default(),
            cleaners,
        };
        manager.load_all(&found, &mut report)?;
        if !report.damaged.is_empty() {
            // A start after this one must say so too, unless the controller has heard of it by then: the checkpoints of the
            // shorter logs no longer will.
            for directory in &manager.directories {
                match directory.forget_boot() {
                    Err(error) if error.is_exhaustion() || error.is_failing_disk() => {
                        tracing::warn!(%error, "a loss would not be told after another stop");
                    }
                    other => other?,
                }
            }
        }
        for directory in 0..manager.directories.len() {
            match manager.checkpoint_directory(directory) {
                Err(error) if error.is_exhaustion() => tracing::warn!(%error, "checkpoint put off"),
                // The directory is offline; its replicas are, and no others.
                Err(error) if error.is_failing_disk() => {}
                other => other?,
            }
        }
        if let Some(first) = manager.directories[0].health().failure()
            && manager.all_offline()
        {
            return Err(OpenError::AllOffline(first.to_owned()));
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
        let mut futures = Vec::new();
        std::thread::scope(|scope| {
            let loads: Vec<_> = found
                .iter()
                .enumerate()
                .map(|(directory, found)| scope.spawn(move || self.load_directory(directory, found)))
                .collect();
            for (directory, load) in loads.into_iter().enumerate() {
                let loaded = match load.join().expect("loading returns errors and does not panic") {
                    Ok(loaded) => loaded,
                    Err(error) if error.is_failing_disk() => {
                        self.directories[directory].health().fail(&error);
                        continue;
                    }
                    Err(error) => return Err(error),
                };
                for (name, loaded) in loaded {
                    if let Loaded::Future(partition, opened, dir) = loaded {
                        futures.push((directory, name, partition, opened, dir));
                    } else {
                        self.register(directory, name, loaded, report);
                    }
                }
            }
            // Once it is known which of them have a current log.
            for (directory, name, partition, opened, dir) in futures {
                self.register_future((partition, name, directory), opened, dir, report);
            }
            self.compare_missing_with_others();
            self.report_contested();
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
        let checkpoints = home.read_checkpoints();
        home.miss_what_vanished(&listing, &checkpoints);
        let mut futures = Vec::new();
        for (suffix, path) in listing.suffixed {
            match suffix {
                Suffix::New => fs::remove_dir_all(&path).map_err(StorageError::io("remove", &path))?,
                Suffix::Delete => self.schedule_removal(path, Monotonic::now()),
                Suffix::Stray => self.schedule_removal(path, Monotonic::now() + self.config.stray_retention),
                Suffix::Future => futures.extend(self.load_future(home, &path, found.clean.is_some())),
            }
        }
        let loaded = in_parallel(
            self.config.recovery_threads_per_dir,
            &listing.partitions,
            |name| self.load_partition(home, name, &checkpoints, found.clean.is_some()),
        );
        for (name, loaded) in listing.partitions.iter().zip(&loaded) {
            match loaded {
                Loaded::Failed(..) => home.keep_offline(name, checkpoints.of(name)),
                // Nothing of it is served: it is as if it were not there.
                Loaded::Empty | Loaded::Unidentified(_) if checkpoints.recovery_points.contains_key(name) => {
                    home.miss(name, checkpoints.of(name));
                }
                // It stays where it is, and may be anybody's.
                Loaded::Unidentified(path) if *path == home.partition_dir(name) => {
                    home.miss(name, checkpoints.of(name));
                }
                Loaded::Empty | Loaded::Unidentified(_) | Loaded::Open(..) | Loaded::Future(..) => {}
            }
        }
        Ok(listing
            .partitions
            .into_iter()
            .zip(loaded)
            .chain(futures)
            .collect())
    }

    /// Opens a future log. One that does not say whose it is was never filled, and goes.
    fn load_future(
        &self,
        home: &DataDirectory,
        dir: &Path,
        clean_shutdown: bool,
    ) -> Option<(PartitionName, Loaded)> {
        let name = dir
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(names::parse_future);
        let (Some(name), Ok(Some(topic_id))) = (name, partition_metadata::load(dir)) else {
            self.schedule_removal(dir.to_owned(), Monotonic::now());
            return None;
        };
        let partition = TopicPartition::new(topic_id, name.1);
        let opened = Log::open(
            dir,
            self.config.default_log.clone(),
            moving::reopen(clean_shutdown),
        );
        let opened = opened.map(|(log, report)| {
            log.live_in(Arc::clone(home.health()));
            (Arc::new(log), report)
        });
        if let Err(error) = &opened {
            home.health().note(error);
        }
        Some((name, Loaded::Future(partition, opened, dir.to_owned())))
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
            is_alone: false,
            clean_shutdown,
            now_ms: wall_clock_ms(),
        };
        match Log::open(&dir, self.config.default_log.clone(), options) {
            Ok((log, report)) => {
                if let Some(offset) = offsets.first_dirty {
                    log.restore_first_dirty_offset(offset);
                }
                log.live_in(Arc::clone(home.health()));
                Loaded::Open(partition, Arc::new(log), report)
            }
            Err(error) => {
                tracing::error!(dir = %dir.display(), %error, "replica is offline");
                home.health().note(&error);
                Loaded::Failed(partition, error)
            }
        }
    }

    fn register(&self, directory: usize, name: PartitionName, loaded: Loaded, report: &mut StartupReport) {
        let mut replicas = self.replicas.write();
        match loaded {
            Loaded::Open(partition, log, recovery) => {
                report.scanned_bytes += recovery.scanned_bytes;
                report.bytes_cut += recovery.bytes_cut;
                // Also where another directory holds the replica whole: nobody knows yet which of them counts.
                if recovery.lost && !report.damaged.contains(&partition) {
                    report.damaged.push(partition);
                }
                replicas.claim(partition, Claim::Open(Hosted { log, name, directory }));
            }
            Loaded::Failed(partition, error) => {
                let offline = Offline {
                    dir: self.directories[directory].partition_dir(&name),
                    name,
                    directory,
                    reason: error.to_string(),
                    may_open: error.is_exhaustion(),
                };
                report.failed.push((partition, error));
                replicas.claim(partition, Claim::Closed(offline));
            }
            Loaded::Unidentified(path) => report.unidentified.push(path),
            Loaded::Empty | Loaded::Future(..) => {}
        }
    }

    /// A future with a current log is only a copy. One without may be the replica, where the last run ended
    /// in the middle of a swap: what it lacks is missing then.
    fn register_future(
        &self,
        (partition, name, directory): (TopicPartition, PartitionName, usize),
        opened: Result<(Arc<Log>, RecoveryReport), StorageError>,
        dir: PathBuf,
        report: &mut StartupReport,
    ) {
        let mut replicas = self.replicas.write();
        let is_copy = replicas.has_current(partition) || replicas.futures.contains_key(&partition);
        match opened {
            Ok((log, recovery)) => {
                if recovery.lost && !is_copy {
                    report.damaged.push(partition);
                }
                let compacted = self.compacted_to(&replicas, partition);
                let stale = compacted.is_some_and(|offset| offset > log.log_end_offset());
                if stale {
                    tracing::warn!(dir = %dir.display(), "the log was compacted without its future log, which begins anew");
                }
                if stale || replicas.futures.contains_key(&partition) {
                    if let Err(error) = log.close(false) {
                        tracing::debug!(%partition, %error, "a future log did not close");
                    }
                    self.schedule_removal(dir, Monotonic::now());
                    return;
                }
                replicas
                    .futures
                    .insert(partition, Hosted { log, name, directory });
            }
            Err(error) if is_copy => {
                tracing::warn!(dir = %dir.display(), %error, "a future log does not open; its move is over");
                self.schedule_removal(dir, Monotonic::now());
            }
            Err(error) => {
                let offline = Offline {
                    name,
                    directory,
                    dir,
                    reason: error.to_string(),
                    may_open: error.is_exhaustion(),
                };
                report.failed.push((partition, error));
                replicas.offline.insert(partition, offline);
            }
        }
    }
}

impl LogManager {
    /// Up to where the current log of a partition was compacted; the furthest where it is contested. Tombstones
    /// below may be gone: a copy that ends earlier would keep what they had deleted.
    fn compacted_to(&self, replicas: &Replicas, partition: TopicPartition) -> Option<Offset> {
        if let Some(hosted) = replicas.hosted.get(&partition) {
            return hosted.log.first_dirty_offset();
        }
        let of_offline = |offline: &Offline| {
            let home = &self.directories[offline.directory];
            home.offline_offsets(&offline.name).first_dirty
        };
        if let Some(offline) = replicas.offline.get(&partition) {
            return of_offline(offline);
        }
        let of_claim = |claim: &Claim| match claim {
            Claim::Open(hosted) => hosted.log.first_dirty_offset(),
            Claim::Closed(offline) => of_offline(offline),
        };
        replicas
            .contested
            .get(&partition)?
            .iter()
            .filter_map(of_claim)
            .max()
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

type Failing = Vec<(PathBuf, OpenError)>;

/// Checks whose the directories are, before any of them is changed. One on a failing disk is left
/// out while there is another.
fn open_directories(
    config: &ManagerConfig,
    bell: &Arc<Bell>,
) -> Result<(Vec<DataDirectory>, Failing), OpenError> {
    let (mut opened, mut failing) = (Vec::new(), Failing::new());
    for path in &config.log_dirs {
        match DataDirectory::open(path, config.cluster_id.as_ref(), config.node_id, bell) {
            Ok(directory) => opened.push(directory),
            Err(error) => leave_out(&mut failing, path, error)?,
        }
    }
    if opened.is_empty() {
        return Err(none_usable(failing));
    }
    refuse_copies(&opened)?;
    Ok((opened, failing))
}

/// Refuses two directories of one id: the metadata could not tell which of them it names.
fn refuse_copies(directories: &[DataDirectory]) -> Result<(), OpenError> {
    for (at, second) in directories.iter().enumerate() {
        if let Some(first) = directories[..at].iter().find(|first| first.id() == second.id()) {
            return Err(OpenError::SameId {
                first: first.path().to_owned(),
                second: second.path().to_owned(),
                id: second.id(),
            });
        }
    }
    Ok(())
}

/// Notes a directory on a failing disk; any other error is the whole start's.
fn leave_out(failing: &mut Failing, path: &Path, error: OpenError) -> Result<(), OpenError> {
    if !error.is_failing_disk() {
        return Err(error);
    }
    tracing::error!(dir = %path.display(), %error, "log directory is offline");
    failing.push((path.to_owned(), error));
    Ok(())
}

fn none_usable(failing: Failing) -> OpenError {
    let first = failing.into_iter().next().map(|(_, error)| error);
    first.unwrap_or(OpenError::NoDirectory)
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
