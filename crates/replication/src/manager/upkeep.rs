//! What time brings: lagging followers, proposals to repeat, hints to note, gauges to set.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use protocol::{Offset, TopicPartition};
use storage::hints::HintStore;
use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::{Hosted, ReplicaManager};
use crate::{Partition, ReplicaRole, metric_names};

/// Between two looks at the replicas, at most; half of the allowed lag where that is less.
const TICK_MAX: Duration = Duration::from_millis(500);

/// High watermarks are noted every so many ticks.
const TICKS_PER_NOTE: u32 = 10;

/// Ticks the manager's replicas until it is gone or told to stop. Those in a log directory that fails are
/// taken offline at once.
pub(super) async fn keep_up(
    manager: Weak<ReplicaManager>,
    directory_failed: Arc<Notify>,
    stop: CancellationToken,
) {
    let Some(lag_max) = manager.upgrade().map(|manager| manager.lag_max) else {
        return;
    };
    let mut clock = tokio::time::interval((lag_max / 2).clamp(Duration::from_millis(10), TICK_MAX));
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut tick: u32 = 0;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = directory_failed.notified() => {
                let Some(manager) = manager.upgrade() else {
                    return;
                };
                manager.fail_with_directories();
                continue;
            }
            _ = clock.tick() => {}
        }
        let Some(manager) = manager.upgrade() else {
            return;
        };
        let partitions = manager.partitions();
        for partition in &partitions {
            partition.tick();
        }
        if tick.is_multiple_of(TICKS_PER_NOTE) {
            manager.report(&partitions);
            manager.note_high_watermarks();
        }
        tick = tick.wrapping_add(1);
    }
}

impl ReplicaManager {
    fn report(&self, partitions: &[Arc<Partition>]) {
        let offline = {
            let hosted = self.partitions.read();
            hosted
                .values()
                .filter(|hosted| matches!(hosted, Hosted::Offline))
                .count()
        };
        let mut counts = [0_usize; 5];
        counts[4] = offline;
        for partition in partitions {
            let status = partition.status();
            counts[0] += usize::from(status.role == ReplicaRole::Leader);
            counts[1] += usize::from(status.under_replicated);
            counts[2] += usize::from(status.under_min_isr);
            counts[3] += usize::from(status.at_min_isr);
            counts[4] += usize::from(status.role == ReplicaRole::Offline);
        }
        let [leading, under_replicated, under_min_isr, at_min_isr, offline_all] = counts;
        metrics::gauge!(metric_names::PARTITION_COUNT).set((partitions.len() + offline) as f64);
        metrics::gauge!(metric_names::LEADER_COUNT).set(leading as f64);
        metrics::gauge!(metric_names::UNDER_REPLICATED).set(under_replicated as f64);
        metrics::gauge!(metric_names::UNDER_MIN_ISR).set(under_min_isr as f64);
        metrics::gauge!(metric_names::AT_MIN_ISR).set(at_min_isr as f64);
        metrics::gauge!(metric_names::OFFLINE_REPLICAS).set(offline_all as f64);
    }

    /// High watermarks that differ from what was last noted.
    pub(super) fn hint_changes(&self) -> Vec<(TopicPartition, Offset)> {
        let mut noted = self.noted.lock();
        let mut changes = Vec::new();
        for partition in self.partitions() {
            let high_watermark = partition.offsets().high_watermark;
            if noted.insert(partition.tp(), high_watermark) != Some(high_watermark) {
                changes.push((partition.tp(), high_watermark));
            }
        }
        changes
    }

    /// Notes what has changed, on a disk thread; a store that is still busy is left alone.
    fn note_high_watermarks(self: &Arc<Self>) {
        if self.hints.is_none() || self.noting.swap(true, Ordering::AcqRel) {
            return;
        }
        let (manager, changes) = (Arc::clone(self), self.hint_changes());
        self.shared.runtime.spawn(async move {
            let store = manager.hints.clone();
            let noted = manager
                .shared
                .reads
                .run(move || note_hints(store.as_deref(), changes, false));
            if noted.await.is_err() {
                tracing::debug!("high watermarks not noted: the disk is busy");
            }
            manager.noting.store(false, Ordering::Release);
        });
    }
}

/// Writes hints. Their loss costs a restarted broker a little time, so errors are only told.
pub(super) fn note_hints(store: Option<&HintStore>, changes: Vec<(TopicPartition, Offset)>, flush: bool) {
    let Some(store) = store else {
        return;
    };
    let written = if changes.is_empty() {
        Ok(())
    } else {
        store.set(changes)
    };
    let written = written.and_then(|()| if flush { store.flush() } else { Ok(()) });
    if let Err(error) = written {
        tracing::debug!(%error, "high watermarks not noted");
    }
}
