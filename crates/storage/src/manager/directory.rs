//! One log directory: its lock, its identity, its health, and its checkpoint files.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use protocol::{BrokerId, ClusterId, DirectoryId, Offset, TopicId};
use rustix::fs::{Access, FlockOperation, access, flock};

use super::{
    OpenError,
    names::{self, Entry, Suffix},
};
use crate::{
    checkpoint::{
        CLEANER_OFFSETS, CheckpointError, LOG_START_OFFSETS, OffsetsByPartition, PartitionName,
        RECOVERY_POINTS, TOPIC_IDS, TopicIdsByPartition, read_offsets, read_topic_ids, write_by_partition,
    },
    clean_shutdown::{
        CleanShutdown, forget_last_boot, read_last_boot, same_boot, take_marker, write_last_boot,
    },
    disk,
    durable_file::sync_dir,
    error::StorageError,
    health::{Bell, DirectoryHealth},
    meta_properties::{self, MetaProperties},
    partition_metadata,
};

const LOCK_FILE: &str = ".lock";
/// What may lie in a directory that counts as empty: file systems and interrupted formatting put it there.
const NOT_COUNTED: [&str; 3] = ["lost+found", LOCK_FILE, "meta.properties.tmp"];

/// A log directory in use by this process.
#[derive(Debug)]
pub(super) struct DataDirectory {
    path: PathBuf,
    identity: Mutex<MetaProperties>,
    /// It was empty.
    new: bool,
    /// Held for as long as the directory is in use; the kernel lets go of it when the process ends.
    _lock: File,
    /// The directory itself, held open: another one in its place has another inode.
    itself: File,
    health: Arc<DirectoryHealth>,
    checkpoints: Mutex<Checkpoints>,
}

/// What the checkpoint files say, and what they must not say for longer.
#[derive(Debug, Default)]
struct Checkpoints {
    /// `None` until this process has written them.
    written: Option<CheckpointedOffsets>,
    /// Entries of partitions that did not open: kept, since the next start may open them.
    offline: CheckpointedOffsets,
    /// Names that were given up since the files were written. Until they are written again, no other
    /// partition may take such a name: it would inherit the offsets.
    given_up: BTreeSet<PartitionName>,
    /// Names of partitions that the files speak of, and that are not here: lost, not given up.
    vanished: BTreeSet<PartitionName>,
}

/// What the checkpoint files say of the partitions of one directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct CheckpointedOffsets {
    pub(super) recovery_points: OffsetsByPartition,
    pub(super) log_starts: OffsetsByPartition,
    /// Where the dirty part of compacted logs begins.
    pub(super) first_dirty: OffsetsByPartition,
    /// Whose the offsets are, where it is known: an earlier version did not note it.
    pub(super) topic_ids: TopicIdsByPartition,
}

/// What the checkpoint files say of one partition.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PartitionOffsets {
    pub(super) topic_id: Option<TopicId>,
    pub(super) recovery_point: Option<Offset>,
    pub(super) log_start: Option<Offset>,
    pub(super) first_dirty: Option<Offset>,
}

impl CheckpointedOffsets {
    /// Every partition that one of the files names an offset of.
    pub(super) fn names(&self) -> impl Iterator<Item = &PartitionName> {
        let files = [&self.recovery_points, &self.log_starts, &self.first_dirty];
        files.into_iter().flat_map(OffsetsByPartition::keys)
    }

    /// What is said of one partition.
    pub(super) fn of(&self, name: &PartitionName) -> PartitionOffsets {
        PartitionOffsets {
            topic_id: self.topic_ids.get(name).copied(),
            recovery_point: self.recovery_points.get(name).copied(),
            log_start: self.log_starts.get(name).copied(),
            first_dirty: self.first_dirty.get(name).copied(),
        }
    }

    /// Takes over what `offsets` say of a partition.
    pub(super) fn insert(&mut self, name: &PartitionName, offsets: PartitionOffsets) {
        for (file, offset) in [
            (&mut self.recovery_points, offsets.recovery_point),
            (&mut self.log_starts, offsets.log_start),
            (&mut self.first_dirty, offsets.first_dirty),
        ] {
            if let Some(offset) = offset {
                file.insert(name.clone(), offset);
            }
        }
        if let Some(topic_id) = offsets.topic_id {
            self.topic_ids.insert(name.clone(), topic_id);
        }
    }

    fn remove(&mut self, name: &PartitionName) {
        for file in [
            &mut self.recovery_points,
            &mut self.log_starts,
            &mut self.first_dirty,
        ] {
            file.remove(name);
        }
        self.topic_ids.remove(name);
    }

    fn extend(&mut self, other: Self) {
        self.recovery_points.extend(other.recovery_points);
        self.log_starts.extend(other.log_starts);
        self.first_dirty.extend(other.first_dirty);
        self.topic_ids.extend(other.topic_ids);
    }
}

/// How a log directory was found.
#[derive(Debug)]
pub(super) struct Found {
    /// It was empty and is formatted now.
    pub(super) new: bool,
    /// The last process closed it, and says under which epoch.
    pub(super) clean: Option<CleanShutdown>,
    /// The kernel has not been booted since.
    pub(super) same_boot: bool,
}

/// The entries of a log directory that matter at start.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) partitions: Vec<PartitionName>,
    pub(super) suffixed: Vec<(Suffix, PathBuf)>,
}

impl Listing {
    /// Whether a deletion of ours has taken the partition's name, which the checkpoint files have not noted any
    /// more: of this topic, where it is known. What is stray says nothing. It is kept for a day, in which the
    /// replica may have come back and vanished; and one without identity was put aside because it is missed.
    pub(super) fn was_deleted(&self, name: &PartitionName, topic_id: Option<TopicId>) -> bool {
        self.suffixed.iter().any(|(suffix, path)| {
            let entry = path.file_name().and_then(|entry| entry.to_str());
            let is_meant = |deleted| topic_id.is_none_or(|topic_id| topic_id == deleted);
            *suffix == Suffix::Delete
                && entry.is_some_and(|entry| names::is_suffixed_of(entry, name))
                && partition_metadata::load(path).is_ok_and(|deleted| deleted.is_some_and(is_meant))
        })
    }
}

impl DataDirectory {
    /// Creates the directory if it is absent, locks it, and checks whose it is. Nothing in it is changed
    /// but for the lock file: another directory may yet be refused.
    pub(super) fn open(
        path: &Path,
        cluster_id: Option<&ClusterId>,
        node_id: BrokerId,
        bell: &Arc<Bell>,
    ) -> Result<Self, OpenError> {
        if !path.is_dir() {
            fs::create_dir_all(path).map_err(StorageError::io("create", path))?;
            if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                sync_dir(parent).map_err(StorageError::io("sync", parent))?;
            }
        }
        let lock = acquire_lock(path)?;
        let identity = meta_properties::load(path)?;
        match &identity {
            Some(identity) => identity.verify(path, cluster_id, node_id)?,
            None => refuse_unless_empty(path)?,
        }
        let new = identity.is_none();
        let identity = identity.unwrap_or_else(|| MetaProperties {
            cluster_id: None,
            node_id,
            directory_id: DirectoryId::random(),
        });
        Ok(Self {
            path: path.to_owned(),
            identity: Mutex::new(identity),
            new,
            _lock: lock,
            itself: File::open(path).map_err(StorageError::io("open", path))?,
            health: Arc::new(DirectoryHealth::new(path, Arc::clone(bell))),
            checkpoints: Mutex::default(),
        })
    }

    /// Takes the directory into use: formats a new one, and takes the last process's marker from another.
    pub(super) fn take_over(
        &self,
        cluster_id: Option<&ClusterId>,
        boot_id: &str,
    ) -> Result<Found, OpenError> {
        let path = &self.path;
        if self.new {
            let mut identity = self.identity.lock();
            identity.cluster_id = cluster_id.cloned();
            identity.store(path)?;
            tracing::info!(dir = %path.display(), directory_id = %identity.directory_id, "formatted an empty log directory");
        } else {
            self.learn_cluster_id(cluster_id)?;
        }
        let io = |source| StorageError::io("read the shutdown marker of", path)(source);
        let last_boot = read_last_boot(path).map_err(io)?;
        let found = Found {
            new: self.new,
            clean: take_marker(path).map_err(io)?,
            same_boot: self.new || last_boot.is_some_and(|last| same_boot(&last, boot_id)),
        };
        if found.new || found.clean.is_some() {
            self.note_boot(boot_id)?;
        }
        Ok(found)
    }

    /// Notes the kernel's run, once there is no loss that is not told yet: until then each start after an unclean
    /// stop finds another run's id, or none.
    pub(super) fn note_boot(&self, boot_id: &str) -> Result<(), StorageError> {
        let path = &self.path;
        let last_boot = read_last_boot(path).map_err(StorageError::io("read", path))?;
        if last_boot.is_some_and(|last| same_boot(&last, boot_id)) {
            return Ok(());
        }
        // On a full disk the older boot id stays, which no later boot has: that is the safe side.
        match write_last_boot(path, boot_id).map_err(StorageError::io("write", path)) {
            Err(error) if error.is_exhaustion() => {
                tracing::warn!(%error, "the boot id was not noted");
                Ok(())
            }
            noted => noted,
        }
    }

    /// Forgets the kernel's run: something is lost, whatever became of the page cache.
    pub(super) fn forget_boot(&self) -> Result<(), StorageError> {
        forget_last_boot(&self.path).map_err(StorageError::io("remove the boot id of", &self.path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn id(&self) -> DirectoryId {
        self.identity.lock().directory_id
    }

    pub(super) fn health(&self) -> &Arc<DirectoryHealth> {
        &self.health
    }

    pub(super) fn is_offline(&self) -> bool {
        self.health.failure().is_some()
    }

    /// Takes the directory offline where its path leads elsewhere, or it cannot be written any more. Logs
    /// that are idle would not notice; and files that are open would work on in a directory that is gone.
    pub(super) fn probe(&self) {
        if !self.is_offline()
            && let Err(error) = self.look()
        {
            self.health.fail(&error);
        }
    }

    fn look(&self) -> Result<(), StorageError> {
        let inode = |found: fs::Metadata| (found.dev(), found.ino());
        let opened = self
            .itself
            .metadata()
            .map_err(StorageError::io("stat", &self.path))?;
        let found = fs::metadata(&self.path).map_err(StorageError::io("stat", &self.path))?;
        if inode(opened) != inode(found) {
            let error = io::Error::other("another directory has taken its place");
            return Err(StorageError::io("use", &self.path)(error));
        }
        access(&self.path, Access::WRITE_OK | Access::EXEC_OK)
            .map_err(|errno| StorageError::io("write to", &self.path)(errno.into()))
    }

    /// Adds the cluster id to a directory that has none yet; refuses another one.
    pub(super) fn learn_cluster_id(&self, cluster_id: Option<&ClusterId>) -> Result<(), OpenError> {
        let Some(cluster_id) = cluster_id else {
            return Ok(());
        };
        let mut identity = self.identity.lock();
        identity.verify(&self.path, Some(cluster_id), identity.node_id)?;
        if identity.cluster_id.is_none() {
            let mut named = identity.clone();
            named.cluster_id = Some(cluster_id.clone());
            named.store(&self.path)?;
            *identity = named;
        }
        Ok(())
    }

    /// What lies in the directory.
    pub(super) fn list(&self) -> Result<Listing, StorageError> {
        let io = |source| StorageError::io("list", &self.path)(source);
        let mut listing = Listing::default();
        for entry in disk::list(&self.path)? {
            if !entry.file_type().map_err(io)?.is_dir() {
                continue;
            }
            match entry.file_name().to_str().map_or(Entry::Other, Entry::of) {
                Entry::Partition(name) => listing.partitions.push(name),
                Entry::Suffixed(suffix) => listing.suffixed.push((suffix, entry.path())),
                Entry::Other => {}
            }
        }
        listing.partitions.sort_unstable();
        Ok(listing)
    }

    /// The directory of a partition in this log directory.
    pub(super) fn partition_dir(&self, name: &PartitionName) -> PathBuf {
        names::partition_dir(&self.path, name)
    }

    /// Reads the checkpoint files. One that cannot be read says nothing: recovery then looks at more
    /// than it would have to, log starts fall back to where the first segment begins, and a compacted
    /// log is dirty from there on; what has vanished may be anybody's.
    pub(super) fn read_checkpoints(&self) -> CheckpointedOffsets {
        let offsets = |file| usable(read_offsets(&self.path.join(file)));
        CheckpointedOffsets {
            recovery_points: offsets(RECOVERY_POINTS),
            log_starts: offsets(LOG_START_OFFSETS),
            first_dirty: offsets(CLEANER_OFFSETS),
            topic_ids: usable(read_topic_ids(&self.path.join(TOPIC_IDS))),
        }
    }

    /// Keeps what the checkpoint files said of a partition that did not open.
    pub(super) fn keep_offline(&self, name: &PartitionName, offsets: PartitionOffsets) {
        self.checkpoints.lock().offline.insert(name, offsets);
    }

    /// What is kept of a partition that did not open.
    pub(super) fn offline_offsets(&self, name: &PartitionName) -> PartitionOffsets {
        self.checkpoints.lock().offline.of(name)
    }

    /// The partition is open: from now on its log tells its offsets.
    pub(super) fn forget_offline(&self, name: &PartitionName) {
        self.checkpoints.lock().offline.remove(name);
    }

    /// Notes that the partition's directory has lost its name.
    pub(super) fn give_up(&self, name: &PartitionName) {
        let mut checkpoints = self.checkpoints.lock();
        checkpoints.offline.remove(name);
        checkpoints.vanished.remove(name);
        checkpoints.given_up.insert(name.clone());
    }

    /// Notes that the partition was here, and is not. The checkpoint files go on speaking of it, so that the
    /// next start knows it too.
    pub(super) fn miss(&self, name: &PartitionName, offsets: PartitionOffsets) {
        let mut checkpoints = self.checkpoints.lock();
        checkpoints.offline.insert(name, offsets);
        checkpoints.vanished.insert(name.clone());
    }

    /// Whether a partition of this name was here and has vanished, of this topic or of one that is not known.
    pub(super) fn misses(&self, name: &PartitionName, topic_id: TopicId) -> bool {
        self.vanished_of(name, topic_id) == Some(true)
    }

    /// Whether what has vanished under the name is known to have been another topic's.
    pub(super) fn misses_another(&self, name: &PartitionName, topic_id: TopicId) -> bool {
        self.vanished_of(name, topic_id) == Some(false)
    }

    /// Whether what has vanished under the name may have been this topic's; `None` where nothing has.
    fn vanished_of(&self, name: &PartitionName, topic_id: TopicId) -> Option<bool> {
        let checkpoints = self.checkpoints.lock();
        let known = checkpoints.offline.topic_ids.get(name);
        let vanished = checkpoints.vanished.contains(name);
        vanished.then(|| known.is_none_or(|&known| known == topic_id))
    }

    /// The partitions that have vanished.
    pub(super) fn missing(&self) -> Vec<PartitionName> {
        self.checkpoints.lock().vanished.iter().cloned().collect()
    }

    /// Whether names were given up that the checkpoint files still speak of.
    pub(super) fn has_given_up(&self) -> bool {
        !self.checkpoints.lock().given_up.is_empty()
    }

    /// Whether the checkpoint files may still speak of an earlier holder of the name.
    pub(super) fn is_given_up(&self, name: &PartitionName) -> bool {
        self.checkpoints.lock().given_up.contains(name)
    }

    /// Writes the checkpoint files whose contents have changed. `current` is asked under the lock, so
    /// that an older answer never replaces a newer one.
    pub(super) fn write_checkpoints(
        &self,
        current: impl FnOnce() -> CheckpointedOffsets,
    ) -> Result<(), StorageError> {
        let mut checkpoints = self.checkpoints.lock();
        let mut next = checkpoints.offline.clone();
        next.extend(current());
        if checkpoints.given_up.is_empty() && checkpoints.written.as_ref() == Some(&next) {
            return Ok(());
        }
        // Until all are written nothing is known of the files.
        let written = checkpoints
            .written
            .take()
            .filter(|_| checkpoints.given_up.is_empty());
        let written = written.as_ref();
        // Before the others: an offset must never be taken for another topic's.
        if written.is_none_or(|w| w.topic_ids != next.topic_ids) {
            self.write_checkpoint(TOPIC_IDS, &next.topic_ids)?;
        }
        if written.is_none_or(|w| w.log_starts != next.log_starts) {
            self.write_checkpoint(LOG_START_OFFSETS, &next.log_starts)?;
        }
        if written.is_none_or(|w| w.first_dirty != next.first_dirty) {
            self.write_checkpoint(CLEANER_OFFSETS, &next.first_dirty)?;
        }
        if written.is_none_or(|w| w.recovery_points != next.recovery_points) {
            self.write_checkpoint(RECOVERY_POINTS, &next.recovery_points)?;
        }
        checkpoints.written = Some(next);
        checkpoints.given_up.clear();
        Ok(())
    }

    fn write_checkpoint<T: Display>(
        &self,
        file: &str,
        entries: &BTreeMap<PartitionName, T>,
    ) -> Result<(), StorageError> {
        let path = self.path.join(file);
        write_by_partition(&path, entries).map_err(StorageError::io("write", &path))
    }

    /// Makes renames and creations of partition directories durable.
    pub(super) fn sync(&self) -> Result<(), StorageError> {
        disk::sync_dir(&self.path)
    }
}

/// What a checkpoint file says; nothing where it cannot be read.
fn usable<T: Default>(read: Result<Option<T>, CheckpointError>) -> T {
    let read = read.unwrap_or_else(|error| {
        tracing::error!(%error, "checkpoint file is not usable");
        None
    });
    read.unwrap_or_default()
}

fn acquire_lock(dir: &Path) -> Result<File, OpenError> {
    let path = dir.join(LOCK_FILE);
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(StorageError::io("open", &path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(OpenError::InUse(dir.to_owned())),
        Err(errno) => Err(StorageError::io("lock", &path)(io::Error::from(errno)).into()),
    }
}

fn refuse_unless_empty(dir: &Path) -> Result<(), OpenError> {
    for entry in disk::list(dir)? {
        let name = entry.file_name();
        if !NOT_COUNTED.iter().any(|&known| name == *known) {
            return Err(OpenError::NotEmpty {
                dir: dir.to_owned(),
                found: name.to_string_lossy().into_owned(),
            });
        }
    }
    Ok(())
}
