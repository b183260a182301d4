//! Reads several partitions for one consumer, within one limit, and waits where there is too little.

use std::sync::Arc;

use protocol::{ErrorCode, LeaderEpoch, Offset, TopicPartition};
use replication::{FetchRead, FetchedRecords, Isolation, Partition, ProgressListener, Subscription};
use tokio::{sync::Notify, time::Instant};

use crate::metric_names;

/// Whatever consumers ask for, one answer carries no more than this (and one batch).
pub(crate) const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// One partition to read.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) replica: Result<Arc<Partition>, ErrorCode>,
    pub(crate) from: Offset,
    pub(crate) max_bytes: usize,
    pub(crate) current_leader_epoch: Option<LeaderEpoch>,
    pub(crate) last_fetched_epoch: Option<LeaderEpoch>,
}

/// What holds for all of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) isolation: Isolation,
    /// With fewer bytes the answer waits, until `wait_until`.
    pub(crate) min_bytes: usize,
    /// Bytes in all; a first batch is returned however large it is.
    pub(crate) max_bytes: usize,
    /// `None`: the answer comes at once.
    pub(crate) wait_until: Option<Instant>,
}

/// Reads each partition in the order given until the limit. Waits while there are fewer than `min_bytes`,
/// unless one has something to say that should not wait.
pub(crate) async fn read(wanted: &[Wanted], limits: Limits) -> Vec<Result<FetchedRecords, ErrorCode>> {
    let max_bytes = limits.max_bytes.min(MAX_ANSWER);
    let min_bytes = limits.min_bytes.min(max_bytes);
    let wait_until = limits.wait_until.filter(|_| min_bytes > 0);
    // Listening begins before the first read: progress in between is not missed.
    let wake = Arc::new(Wake(Notify::new()));
    let listening: Vec<Subscription> = if wait_until.is_some() {
        let listener: Arc<dyn ProgressListener> = Arc::<Wake>::clone(&wake);
        wanted
            .iter()
            .filter_map(|wanted| wanted.replica.as_ref().ok())
            .map(|replica| replica.subscribe_high_watermark(Arc::clone(&listener)))
            .collect()
    } else {
        Vec::new()
    };
    let found = loop {
        let woken = wake.0.notified();
        let (found, bytes, urgent) = read_all(wanted, max_bytes, limits.isolation).await;
        let waits = wait_until.filter(|&until| bytes < min_bytes && !urgent && Instant::now() < until);
        let Some(until) = waits else {
            metrics::counter!(metric_names::TOPIC_BYTES_OUT).increment(bytes as u64);
            break found;
        };
        // A timeout leads to one last read.
        let _ = tokio::time::timeout_at(until, woken).await;
    };
    drop(listening);
    found
}

/// Wakes a read that waits.
struct Wake(Notify);

impl ProgressListener for Wake {
    fn progressed(&self, _: TopicPartition) {
        // Stores a permit where nobody waits yet.
        self.0.notify_one();
    }
}

/// One attempt: the parts, their bytes, and whether one has something to say that should not wait.
async fn read_all(
    wanted: &[Wanted],
    max_bytes: usize,
    isolation: Isolation,
) -> (Vec<Result<FetchedRecords, ErrorCode>>, usize, bool) {
    let mut left = max_bytes;
    let mut total = 0;
    let mut urgent = false;
    let mut out = Vec::with_capacity(wanted.len());
    for part in wanted {
        let replica = match &part.replica {
            Ok(replica) => replica,
            Err(error) => {
                urgent = true;
                out.push(Err(*error));
                continue;
            }
        };
        let read = replica
            .read(FetchRead {
                from: part.from,
                max_bytes: part.max_bytes.min(left),
                min_one_batch: total == 0,
                isolation,
                current_leader_epoch: part.current_leader_epoch,
                last_fetched_epoch: part.last_fetched_epoch,
                from_follower_ok: false,
            })
            .await;
        match read {
            Ok(read) => {
                urgent |= read.diverging_epoch.is_some();
                total += read.records.len();
                left = left.saturating_sub(read.records.len());
                out.push(Ok(read));
            }
            Err(error) => {
                urgent = true;
                out.push(Err(error.code()));
            }
        }
    }
    (out, total, urgent)
}
