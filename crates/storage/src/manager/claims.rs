//! A replica that lies in several log directories: an old disk was plugged in again after its replacement
//! had been filled. So does one that a directory misses, or cannot read, while another has it.
//!
//! Its logs are opened and none of them is used until the metadata says in which directory the replica lies
//! (KIP-858). That one is the replica, be it the shorter one; what lies elsewhere becomes stray. Where the
//! metadata names none of them the replica is offline, and everything stays where it is.

use std::{path::PathBuf, sync::Arc};

use protocol::{DirectoryId, Offset, TopicPartition};

use super::{Hosted, LogManager, Offline, Replicas, directory::PartitionOffsets, names::Suffix};
use crate::{checkpoint::PartitionName, error::StorageError, log::Log, log_config::LogConfig};

/// A directory's claim to hold a replica: the log, or why it did not open.
#[derive(Clone, Debug)]
pub(super) enum Claim {
    Open(Hosted),
    Closed(Offline),
}

impl Claim {
    pub(super) fn name(&self) -> &PartitionName {
        match self {
            Self::Open(hosted) => &hosted.name,
            Self::Closed(offline) => &offline.name,
        }
    }

    /// Index into the manager's directories.
    pub(super) fn directory(&self) -> usize {
        match self {
            Self::Open(hosted) => hosted.directory,
            Self::Closed(offline) => offline.directory,
        }
    }

    /// Where its files are.
    fn dir(&self) -> PathBuf {
        match self {
            Self::Open(hosted) => hosted.log.dir(),
            Self::Closed(offline) => offline.dir.clone(),
        }
    }

    /// The log, where it opened.
    pub(super) fn open(&self) -> Option<&Hosted> {
        match self {
            Self::Open(hosted) => Some(hosted),
            Self::Closed(_) => None,
        }
    }
}

impl Replicas {
    /// Notes what a directory holds of a partition. With the second one the partition is contested.
    pub(super) fn claim(&mut self, partition: TopicPartition, claim: Claim) {
        if let Some(claims) = self.contested.get_mut(&partition) {
            claims.push(claim);
            return;
        }
        let earlier = self.hosted.remove(&partition).map(Claim::Open);
        let earlier = earlier.or_else(|| self.offline.remove(&partition).map(Claim::Closed));
        match (earlier, claim) {
            (Some(earlier), claim) => {
                self.contested.insert(partition, vec![earlier, claim]);
            }
            (None, Claim::Open(hosted)) => {
                self.hosted.insert(partition, hosted);
            }
            (None, Claim::Closed(offline)) => {
                self.offline.insert(partition, offline);
            }
        }
    }

    /// Notes again what [`Self::take`] had taken out, of a partition that was contested: it still is, for what
    /// the metadata means may be what is gone.
    pub(super) fn keep_contested(&mut self, partition: TopicPartition, claim: Claim) {
        self.contested.entry(partition).or_default().push(claim);
    }

    /// Takes out what is known of a partition: one claim at a time where it is contested.
    pub(super) fn take(&mut self, partition: TopicPartition) -> Option<Claim> {
        if let Some(hosted) = self.hosted.remove(&partition) {
            return Some(Claim::Open(hosted));
        }
        if let Some(offline) = self.offline.remove(&partition) {
            return Some(Claim::Closed(offline));
        }
        let claims = self.contested.get_mut(&partition)?;
        let claim = claims.pop();
        if claims.is_empty() {
            self.contested.remove(&partition);
        }
        claim
    }

    /// Every log that is open under its partition's name, used or contested.
    pub(super) fn open_logs(&self) -> impl Iterator<Item = (TopicPartition, &Hosted)> {
        let contested = self.contested_claims();
        let contested = contested.filter_map(|(partition, claim)| Some((partition, claim.open()?)));
        let used = self.hosted.iter().map(|(&partition, hosted)| (partition, hosted));
        used.chain(contested)
    }

    /// Every claim to a contested partition.
    pub(super) fn contested_claims(&self) -> impl Iterator<Item = (TopicPartition, &Claim)> {
        let claims = self.contested.iter();
        claims.flat_map(|(&partition, claims)| claims.iter().map(move |claim| (partition, claim)))
    }

    /// The name of everything that is not a copy; once for each claim where it is contested.
    pub(super) fn current(&self) -> impl Iterator<Item = (TopicPartition, &PartitionName)> {
        let hosted = self.hosted.iter().map(|(&id, hosted)| (id, &hosted.name));
        let offline = self.offline.iter().map(|(&id, offline)| (id, &offline.name));
        let contested = self.contested_claims().map(|(id, claim)| (id, claim.name()));
        hosted.chain(offline).chain(contested)
    }

    /// Whether something here bears the partition's own name, and not that of a copy.
    pub(super) fn has_current(&self, partition: TopicPartition) -> bool {
        self.hosted.contains_key(&partition)
            || self.offline.contains_key(&partition)
            || self.contested.contains_key(&partition)
    }
}

impl LogManager {
    /// Says which replicas were found in several directories.
    pub(super) fn report_contested(&self) {
        for (partition, claims) in &self.replicas.read().contested {
            tracing::warn!(
                %partition,
                dirs = %listed(claims),
                "a replica lies in several log directories; it is not used before the metadata says which it is"
            );
        }
    }

    /// Decides what a contested replica is, by the directory `home` that the metadata names: its log, with
    /// `config`. The others are stray from then on. `None` where nothing is contested; an error, and nothing
    /// changed, where the metadata names a directory that holds none of the logs, or one that does not open.
    ///
    /// The caller holds the lock on `name`.
    pub(super) fn decide_contest(
        &self,
        partition: TopicPartition,
        name: &PartitionName,
        home: Option<DirectoryId>,
        config: &LogConfig,
    ) -> Result<Option<Arc<Log>>, StorageError> {
        let Some(claims) = self.replicas.read().contested.get(&partition).cloned() else {
            return Ok(None);
        };
        // What is offline may come back and hold it too.
        self.home_for(home)?;
        let dirs = listed(&claims);
        let is_meant =
            |claim: &Claim| claim.name() == name && Some(self.directories[claim.directory()].id()) == home;
        let (mut meant, mut others): (Vec<Claim>, Vec<Claim>) = claims.into_iter().partition(is_meant);
        if meant.is_empty() {
            // Where the operator has left one, that one.
            let is_here = |claim: &Claim| {
                let home = &self.directories[claim.directory()];
                home.is_offline() || claim.dir().try_exists().unwrap_or(true)
            };
            let (here, gone) = others.into_iter().partition(is_here);
            (meant, others) = (here, gone);
            if meant.len() != 1 || others.is_empty() {
                others.append(&mut meant);
            }
        }
        let meant = match <[Claim; 1]>::try_from(meant) {
            Ok([meant]) => meant,
            Err(meant) => {
                let how_many = if meant.is_empty() { "none" } else { "several" };
                return Err(StorageError::Failed {
                    path: meant
                        .first()
                        .or_else(|| others.first())
                        .map(Claim::dir)
                        .unwrap_or_default(),
                    reason: format!(
                        "the replica lies in {dirs}, and the metadata has it in {how_many} of these: \
                         move all but one out of the log directories and restart the broker"
                    ),
                });
            }
        };
        let log = match meant {
            Claim::Open(hosted) => {
                let log = Arc::clone(&hosted.log);
                log.set_config(config.clone());
                let mut replicas = self.replicas.write();
                replicas.contested.remove(&partition);
                replicas.hosted.insert(partition, hosted);
                log
            }
            Claim::Closed(offline) => {
                let opened = self.open_again(partition, offline, config.clone());
                let log = opened.map_err(|error| self.still_contested(partition, error, &dirs))?;
                self.replicas.write().contested.remove(&partition);
                log
            }
        };
        for claim in others {
            tracing::warn!(
                %partition,
                dir = %claim.dir().display(),
                used = %log.dir().display(),
                "the metadata has the replica elsewhere: what lies here is put aside as stray"
            );
            if let Err(error) = self.put_claim_aside(partition, &claim, Suffix::Stray) {
                self.leave_where_it_is(partition, &claim, &error);
            }
        }
        Ok(Some(log))
    }

    /// The log that the metadata means does not open. Whatever else there is stays, for it may be all that can
    /// be read.
    fn still_contested(&self, partition: TopicPartition, error: StorageError, dirs: &str) -> StorageError {
        let mut replicas = self.replicas.write();
        // It may be worse than it was.
        if let Some(offline) = replicas.offline.remove(&partition)
            && let Some(claims) = replicas.contested.get_mut(&partition)
            && let Some(claim) = claims.iter_mut().find(|claim| claim.dir() == offline.dir)
        {
            *claim = Claim::Closed(offline);
        }
        match error {
            StorageError::Failed { path, reason } => StorageError::Failed {
                path,
                reason: format!("{reason}; the replica lies in {dirs}, and the metadata names this one"),
            },
            other => other,
        }
    }

    /// A log that is not the replica could not be renamed. The next start decides again.
    fn leave_where_it_is(&self, partition: TopicPartition, claim: &Claim, error: &StorageError) {
        tracing::error!(%partition, dir = %claim.dir().display(), %error, "it could not be renamed and stays");
        let Claim::Open(Hosted { log, name, directory }) = claim else {
            return;
        };
        self.directories[*directory].keep_offline(name, offsets_of(partition, log));
        if let Err(error) = log.close(true) {
            tracing::debug!(%partition, %error, "a log that is not used did not close");
        }
    }
}

/// What the checkpoint files are to say of an open log.
pub(super) fn offsets_of(partition: TopicPartition, log: &Log) -> PartitionOffsets {
    let start = log.log_start_offset();
    PartitionOffsets {
        topic_id: Some(partition.topic_id),
        recovery_point: Some(log.recovery_point()),
        log_start: Some(start).filter(|&start| start > Offset::ZERO),
        first_dirty: log.first_dirty_offset(),
    }
}

fn listed(claims: &[Claim]) -> String {
    let dirs: Vec<String> = claims
        .iter()
        .map(|claim| claim.dir().display().to_string())
        .collect();
    dirs.join(" and ")
}
