//! Brings the replicas in line with a cluster image: creates, deletes, gives roles and settings.
//!
//! Only images that contain this process's registration count: an older one may name this broker as
//! the leader of an epoch that another process started, and may not know topics whose logs are here.
//! A lagging view never deletes data: what the metadata has not been seen to delete is put aside as
//! stray and kept for a day.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::StreamExt as _;
use metadata::{
    ClusterImage, ConfigResource, PartitionRegistration, Topic,
    configs::{CleanerSettings, TopicSettings, move_bytes_per_second},
    delta::ImageDelta,
};
use protocol::{BrokerEpoch, BrokerId, DirectoryId, TopicPartition};
use storage::{CleanerConfig, Log, LogConfig, StorageError};

use super::{Hosted, ReplicaManager};
use crate::{Partition, partition::Standing};

/// Partitions that are worked on at the same time.
const CONCURRENCY: usize = 64;

/// What has been applied so far.
#[derive(Debug, Default)]
pub(super) struct Applied {
    /// Under which registration an image was last applied.
    epoch: Option<BrokerEpoch>,
}

impl ReplicaManager {
    /// Brings the replicas from `older` to `newer`, in which this broker is registered with
    /// `my_epoch`; images without that registration are only looked at. Returns when every replica has
    /// its role and settings, or, where it is held at the end of a move, gets them next. Slow where the disk
    /// is.
    pub async fn apply_image(&self, older: &ClusterImage, newer: Arc<ClusterImage>, my_epoch: BrokerEpoch) {
        let mut applied = self.applying.lock().await;
        if self.stop.is_cancelled() {
            return;
        }
        self.shared.image.store(Arc::clone(&newer));
        let me = self.shared.broker;
        if newer
            .brokers
            .get(&me)
            .is_none_or(|registration| registration.epoch != my_epoch)
        {
            return;
        }
        self.shared.set_my_epoch(my_epoch);
        let cleaner = cleaner_config(CleanerSettings::resolve(&newer, &self.node_defaults));
        if let Err(error) = self.shared.logs.set_cleaner_config(cleaner) {
            tracing::error!(%error, "log cleaner threads could not be started");
        }
        self.moves
            .set_rate(move_bytes_per_second(&newer, &self.node_defaults));
        let first = applied.epoch.is_none();
        let affected = if applied.epoch == Some(my_epoch) {
            self.affected(&ImageDelta::between(older, &newer), &newer)
        } else {
            // A new registration: everything is looked at.
            let wanted = newer.partitions_by_broker.get(&me);
            let hosted: Vec<TopicPartition> = self.partitions.read().keys().copied().collect();
            wanted.into_iter().flatten().copied().chain(hosted).collect()
        };
        applied.epoch = Some(my_epoch);

        let (wanted, unwanted): (Vec<_>, Vec<_>) = affected
            .into_iter()
            .partition(|&tp| self.wanted(&newer, tp).is_some());
        // Deletions first: a topic created again takes the directory names of the one before.
        self.for_each(unwanted, |tp| self.remove(tp)).await;
        if first {
            self.put_strays_aside(&newer).await;
        }
        self.for_each(wanted, |tp| self.bring_in_line(tp, &newer, my_epoch))
            .await;
    }

    async fn for_each<F: Future<Output = ()>>(
        &self,
        partitions: Vec<TopicPartition>,
        work: impl FnMut(TopicPartition) -> F,
    ) {
        futures::stream::iter(partitions)
            .map(work)
            .buffer_unordered(CONCURRENCY)
            .for_each(|()| std::future::ready(()))
            .await;
    }

    /// Topic and record of a partition that names this broker as a replica.
    fn wanted<'a>(
        &self,
        image: &'a ClusterImage,
        tp: TopicPartition,
    ) -> Option<(&'a Arc<Topic>, &'a Arc<PartitionRegistration>)> {
        let topic = image.topics.get(&tp.topic_id)?;
        let record = topic.partitions.get(&tp.partition)?;
        record
            .replicas
            .contains(&self.shared.broker)
            .then_some((topic, record))
    }

    /// The partitions that a difference between images touches here.
    fn affected(&self, delta: &ImageDelta, newer: &ClusterImage) -> BTreeSet<TopicPartition> {
        let me = self.shared.broker;
        let settings_of_all = delta.changed_configs.iter().any(|resource| match resource {
            ConfigResource::ClusterDefault => true,
            ConfigResource::Broker(id) => *id == me,
            ConfigResource::Topic(_) | ConfigResource::Group(_) => false,
        });
        let hosted = self.partitions.read();
        let mut affected: BTreeSet<TopicPartition> = hosted
            .iter()
            .filter(|(tp, hosted)| {
                settings_of_all
                    || delta.removed_topics.contains(&tp.topic_id)
                    || newer.topics.get(&tp.topic_id).is_none_or(|topic| {
                        let settings = ConfigResource::Topic(topic.name.clone());
                        delta.changed_configs.contains(&settings)
                    })
                    || matches!(hosted, Hosted::Online(partition) if partition.has_resigned())
            })
            .map(|(&tp, _)| tp)
            .collect();
        affected.extend(
            delta
                .changed_partitions
                .iter()
                .filter(|(tp, record)| record.replicas.contains(&me) || hosted.contains_key(*tp))
                .map(|(&tp, _)| tp),
        );
        affected
    }

    /// The metadata has been seen to take the replica away.
    async fn remove(&self, tp: TopicPartition) {
        let Some(hosted) = self.partitions.write().remove(&tp) else {
            return;
        };
        if let Hosted::Online(partition) = &hosted {
            tracing::info!(topic = %partition.topic(), partition = %tp.partition, "deleting the replica");
            // Retired first: what a move lets go then does nothing any more.
            let (retired, ()) = tokio::join!(biased; partition.retire(), self.abandon_move(tp));
            if retired.is_err() {
                return;
            }
        } else {
            self.abandon_move(tp).await;
        }
        let (logs, hints) = (Arc::clone(&self.shared.logs), self.hints.clone());
        self.noted.lock().remove(&tp);
        let deleted = self.shared.run_for_metadata(move || {
            if let Some(hints) = hints
                && let Err(error) = hints.remove(tp)
            {
                tracing::debug!(%error, "high-watermark hint not removed");
            }
            logs.delete(tp)
        });
        match deleted.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%tp, %error, "replica not deleted"),
            Err(busy) => tracing::error!(%tp, %busy, "replica not deleted"),
        }
    }

    /// Logs that were found at the start and that the metadata does not give to this broker.
    async fn put_strays_aside(&self, image: &ClusterImage) {
        let found = self.shared.logs.names().into_iter().map(|(tp, _)| tp);
        let strays = found.filter(|&tp| self.wanted(image, tp).is_none()).collect();
        self.for_each(strays, |tp| async move {
            let logs = Arc::clone(&self.shared.logs);
            match self.shared.run_for_metadata(move || logs.mark_stray(tp)).await {
                Ok(Ok(())) => {
                    tracing::warn!(%tp, "the metadata does not know this replica: put aside as stray");
                }
                Ok(Err(error)) => tracing::error!(%tp, %error, "stray replica not put aside"),
                Err(busy) => tracing::error!(%tp, %busy, "stray replica not put aside"),
            }
        })
        .await;
    }

    /// Gives a replica its log, settings and role.
    async fn bring_in_line(&self, tp: TopicPartition, image: &ClusterImage, my_epoch: BrokerEpoch) {
        let Some((topic, record)) = self.wanted(image, tp) else {
            return;
        };
        let settings = TopicSettings::resolve(image, &topic.name, &self.node_defaults);
        let log_config = log_config(&settings);
        let assigned = record
            .directory_of(self.shared.broker)
            .unwrap_or(DirectoryId::ZERO);
        let hosted = self.partitions.read().get(&tp).cloned();
        let partition = match hosted {
            // Nothing is built anew while the directory may come back with all that is in it.
            Some(Hosted::Online(partition))
                if partition.is_failed()
                    && !(is_expendable(record, self.shared.broker) && self.is_directory_online(tp)) =>
            {
                return;
            }
            Some(Hosted::Online(partition)) if !partition.is_failed() => partition,
            failed_or_new => match self
                .open(tp, topic, record, failed_or_new, log_config.clone())
                .await
            {
                Ok(partition) => {
                    let online = Hosted::Online(Arc::clone(&partition));
                    self.partitions.write().insert(tp, online);
                    partition
                }
                Err(error) => {
                    tracing::error!(topic = %topic.name, partition = %tp.partition, %error, "replica is offline");
                    self.partitions.write().insert(tp, Hosted::Offline);
                    return;
                }
            },
        };
        if let Some(here) = self.shared.logs.directory_of(tp)
            && here != assigned
        {
            self.tell_directory(tp);
            if !assigned.is_zero() && partition.is_unassigned() {
                // No role before the controller knows where the replica lies: were that directory lost, it
                // would count on a replica that is gone.
                return;
            }
        }
        let standing = Standing {
            registration: Arc::clone(record),
            my_epoch,
            may_lead: true,
            min_isr: settings.min_insync_replicas,
            log_config,
        };
        self.resume_move(&partition);
        tokio::select! {
            // Queued for the log before the other is looked at, and there it stays.
            biased;
            taken = partition.apply(standing) => if let Err(busy) = taken {
                tracing::error!(topic = %topic.name, partition = %tp.partition, %busy, "role not taken");
            },
            () = self.is_held_for_long(tp) => {
                tracing::info!(%tp, "the replica takes its role when its move lets it go");
            }
        }
    }

    /// Opens or creates the log. A damaged one is put aside, as evidence, and built anew from the
    /// leader once nobody counts on it any more.
    async fn open(
        &self,
        tp: TopicPartition,
        topic: &Arc<Topic>,
        record: &PartitionRegistration,
        before: Option<Hosted>,
        config: LogConfig,
    ) -> Result<Arc<Partition>, StorageError> {
        let logs = Arc::clone(&self.shared.logs);
        let hints = self.hints.clone();
        let name = topic.name.clone();
        let expendable = is_expendable(record, self.shared.broker);
        let home = record.directory_of(self.shared.broker);
        let gone = |_| StorageError::Closed {
            path: self.shared.logs.first_dir().to_owned(),
        };
        let failed = match before {
            Some(Hosted::Online(failed)) => {
                self.abandon_move(tp).await;
                failed.retire().await.map_err(gone)?;
                true
            }
            Some(Hosted::Offline) | None => false,
        };
        let opened = self.shared.run_for_metadata(move || {
            if failed {
                logs.mark_stray(tp)?;
            }
            if expendable && logs.directory_of(tp).is_none() {
                // A future log alone may be the replica, whole, or not even half of it, where its current log
                // went with its disk. Nobody counts on it: the leader's is surely whole.
                logs.cancel_move(tp)?;
            }
            let log = match logs.create(tp, &name, home, config.clone()) {
                Err(StorageError::Failed { .. }) if expendable => {
                    logs.mark_stray(tp)?;
                    logs.create(tp, &name, home, config)?
                }
                other => other?,
            };
            let remembered = hints.and_then(|hints| match hints.get(tp) {
                Ok(hint) => hint,
                Err(error) => {
                    tracing::debug!(%tp, %error, "high-watermark hint not read");
                    None
                }
            });
            Ok::<(Arc<Log>, _), StorageError>((log, remembered))
        });
        let (log, remembered) = opened.await.map_err(gone)??;
        let name = topic.name.clone();
        Ok(Partition::new(
            tp,
            name,
            log,
            &self.shared,
            self.lag_max,
            remembered,
        ))
    }
}

/// Whether nobody counts on this broker's replica: another leads, and this one is neither in sync nor eligible.
/// Whoever is in the ELR may be elected as soon as the leader dies (KIP-966): built anew, and empty still, it would
/// take every acknowledged record with it. The controller strikes out a replica that is reported as failed; then
/// it may begin anew.
fn is_expendable(record: &PartitionRegistration, broker: BrokerId) -> bool {
    record.leader.is_some_and(|leader| leader != broker)
        && !record.isr.contains(&broker)
        && !record.elr.contains(&broker)
}

/// The storage part of a topic's settings.
fn log_config(settings: &TopicSettings) -> LogConfig {
    LogConfig {
        segment_bytes: settings.segment_bytes,
        segment_ms: settings.segment_age,
        index_interval_bytes: settings.index_interval_bytes,
        segment_index_bytes: settings.segment_index_bytes,
        retention_ms: settings.retention,
        retention_bytes: settings.retention_bytes,
        max_message_bytes: settings.max_message_bytes,
        flush_messages: settings.flush_messages,
        flush_ms: settings.flush_interval,
        delete: settings.cleanup_policy.delete,
        compact: settings.cleanup_policy.compact,
        min_cleanable_dirty_ratio: settings.min_cleanable_dirty_ratio,
        min_compaction_lag: settings.min_compaction_lag,
        max_compaction_lag: settings.max_compaction_lag,
        delete_retention: settings.delete_retention,
        file_delete_delay: settings.file_delete_delay,
        preallocate: settings.preallocate,
        message_timestamp_type: settings.timestamp_type,
    }
}

/// What compaction may use on this broker.
fn cleaner_config(settings: CleanerSettings) -> CleanerConfig {
    CleanerConfig {
        enabled: settings.enabled,
        threads: settings.threads,
        dedupe_buffer_bytes: settings.dedupe_buffer_bytes,
        load_factor: settings.load_factor,
        io_buffer_bytes: settings.io_buffer_bytes,
        max_bytes_per_second: settings.max_bytes_per_second,
        backoff: settings.backoff,
    }
}

#[cfg(test)]
mod tests {
    use protocol::{LeaderEpoch, PartitionEpoch};

    use super::*;

    const ME: BrokerId = BrokerId(1);
    const OTHER: BrokerId = BrokerId(2);

    fn expendable(leader: Option<BrokerId>, isr: &[BrokerId], elr: &[BrokerId]) -> bool {
        let record = PartitionRegistration {
            replicas: vec![ME, OTHER],
            directories: vec![DirectoryId::ZERO; 2],
            isr: isr.to_vec(),
            elr: elr.to_vec(),
            leader,
            leader_epoch: LeaderEpoch(1),
            partition_epoch: PartitionEpoch(1),
            adding: Vec::new(),
            removing: Vec::new(),
        };
        is_expendable(&record, ME)
    }

    #[test]
    fn a_replica_that_may_be_elected_is_not_thrown_away() {
        assert!(!expendable(Some(OTHER), &[OTHER, ME], &[]), "in sync");
        assert!(
            !expendable(Some(OTHER), &[OTHER], &[ME]),
            "eligible when the leader dies"
        );
        assert!(!expendable(None, &[], &[ME]), "the last that has everything");
        assert!(!expendable(None, &[], &[OTHER]), "nobody has it to copy from");
        assert!(!expendable(None, &[], &[]), "it may be elected uncleanly");
        assert!(!expendable(Some(ME), &[ME], &[]));
        assert!(expendable(Some(OTHER), &[OTHER], &[]));
    }
}
