//! Producer ids for gRPC clients. With one, a batch whose fate is unknown can be sent again: the leader
//! recognises it (KIP-98). Calls borrow a producer each, for as long as they write, so there are as many as
//! calls at a time, and a partition remembers few.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use protocol::{ErrorCode, ProducerId, TopicPartition};
use tokio::time::{Instant, sleep, timeout_at};

use super::batches::Sequence;
use crate::producer_ids::ProducerIds;

/// Before the controller is asked again for a block of ids.
const PAUSE: Duration = Duration::from_millis(100);
/// Producers that wait for another call at most.
const KEPT: usize = 256;
/// A producer that has written to so many partitions is not kept.
const PARTITIONS: usize = 1000;
/// Nor one that nobody wanted for so long: leaders forget producers (`producer.id.expiration.ms`).
const IDLE: Duration = Duration::from_secs(600);

/// Producers that nobody uses now. A clone is a handle to the same.
#[derive(Clone, Debug)]
pub(super) struct Producers {
    ids: ProducerIds,
    idle: Arc<Mutex<Vec<Producer>>>,
}

/// A producer id, and the next sequence number in each partition that it has written to.
#[derive(Debug)]
pub(super) struct Producer {
    id: ProducerId,
    next: HashMap<TopicPartition, i32>,
    used: Instant,
}

impl Producers {
    pub(super) fn new(ids: ProducerIds) -> Self {
        Self {
            ids,
            idle: Arc::default(),
        }
    }

    /// A producer for the caller alone. One that is not given back, as after a batch whose fate is
    /// unknown, is forgotten.
    pub(super) async fn borrow(&self, deadline: Instant) -> Result<Producer, ErrorCode> {
        if let Some(producer) = self.kept() {
            return Ok(producer);
        }
        loop {
            // Nothing was sent yet: whoever waited in vain may simply try again.
            let id = timeout_at(deadline, self.ids.next()).await;
            match id.unwrap_or(Err(ErrorCode::CoordinatorLoadInProgress)) {
                Ok(id) => {
                    return Ok(Producer {
                        id,
                        next: HashMap::new(),
                        used: Instant::now(),
                    });
                }
                Err(error) if Instant::now() + PAUSE >= deadline => return Err(error),
                Err(_) => sleep(PAUSE).await,
            }
        }
    }

    /// The one that was used last.
    fn kept(&self) -> Option<Producer> {
        let mut idle = self.idle.lock();
        idle.retain(Producer::is_fresh);
        idle.pop()
    }

    /// For whoever comes next. Everything that was sent with it has been acknowledged.
    pub(super) fn give_back(&self, mut producer: Producer) {
        producer.used = Instant::now();
        let mut idle = self.idle.lock();
        if producer.next.len() <= PARTITIONS && idle.len() < KEPT {
            idle.push(producer);
        }
    }
}

impl Producer {
    /// Whether leaders still remember it for sure.
    pub(super) fn is_fresh(&self) -> bool {
        self.used.elapsed() < IDLE
    }

    /// With what the next batch to `tp` is sent.
    pub(super) fn sequence(&self, tp: TopicPartition) -> Sequence {
        Sequence {
            producer: self.id,
            next: self.next.get(&tp).copied().unwrap_or(0),
        }
    }

    /// Everything up to `sequence` was acknowledged.
    pub(super) fn reached(&mut self, tp: TopicPartition, sequence: Sequence) {
        self.used = Instant::now();
        self.next.insert(tp, sequence.next);
    }
}
