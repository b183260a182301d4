//! One partition in memory, at its leader and at its one follower: what the streams' tests replicate.

use bytes::Bytes;
use protocol::batch::{BatchBuilder, Batches};
use protocol::{BrokerId, ErrorCode, LeaderEpoch, Offset};

use super::stream_state::{Mend, MendWork, ReadOrder};
use crate::exchange::{FetchVerdict, FollowerFetch, Following, Leading, Position, ReplicaRead};

/// A record: the epoch it was appended in and a value that no other record has.
pub(crate) type Record = (LeaderEpoch, i64);

/// One partition of the leader and its one follower.
#[derive(Debug, Default)]
pub(crate) struct Model {
    pub(crate) epoch: LeaderEpoch,
    pub(crate) leader: Vec<Record>,
    pub(crate) leader_start: usize,
    pub(crate) high_watermark: usize,
    pub(crate) follower: Vec<Record>,
    pub(crate) follower_start: usize,
    pub(crate) durable: usize,
    pub(crate) follower_high_watermark: usize,
    pub(crate) appends_refused: usize,
}

fn last_epoch(log: &[Record]) -> Option<LeaderEpoch> {
    log.last().map(|record| record.0)
}

/// The largest epoch of a log that is not above `asked`, and where it ends.
fn epoch_end(log: &[Record], asked: LeaderEpoch) -> Option<(LeaderEpoch, usize)> {
    let end = log.iter().rposition(|record| record.0 <= asked)? + 1;
    Some((log[end - 1].0, end))
}

impl Model {
    pub(crate) fn position(&self) -> Position {
        Position {
            last_epoch: last_epoch(&self.follower),
            log_end: Offset(self.follower.len() as i64),
            durable: Offset(self.durable as i64),
            log_start: Offset(self.follower_start as i64),
        }
    }

    /// What the follower's side sees of it.
    pub(crate) fn following(&self, leader: BrokerId) -> Following {
        Following {
            leader,
            leader_epoch: self.epoch,
            in_sync: true,
            position: self.position(),
        }
    }

    /// What the leader's side sees of it.
    pub(crate) fn positions(&self) -> Leading {
        Leading {
            leader_epoch: self.epoch,
            log_end: Offset(self.leader.len() as i64),
            high_watermark: Offset(self.high_watermark as i64),
            log_start: Offset(self.leader_start as i64),
        }
    }

    pub(crate) fn fetch(&mut self, fetch: &FollowerFetch) -> Result<FetchVerdict, ErrorCode> {
        if fetch.leader_epoch < self.epoch {
            return Err(ErrorCode::FencedLeaderEpoch);
        }
        if fetch.leader_epoch > self.epoch {
            return Err(ErrorCode::UnknownLeaderEpoch);
        }
        let end = fetch.position.log_end.get() as usize;
        if end < self.leader_start {
            return Err(ErrorCode::OffsetOutOfRange);
        }
        if let Some(asked) = fetch.position.last_epoch {
            let known = epoch_end(&self.leader, asked);
            if known.is_none_or(|(epoch, at)| epoch != asked || end > at) {
                return Ok(FetchVerdict::Diverged {
                    epoch: known.map(|(epoch, _)| epoch),
                    end_offset: Offset(known.map_or(0, |(_, at)| at as i64)),
                });
            }
        }
        let acked = (fetch.position.durable.get() as usize).min(self.leader.len());
        self.high_watermark = self.high_watermark.max(acked);
        Ok(FetchVerdict::Continue {
            next: fetch.position.log_end,
        })
    }

    pub(crate) fn read(&self, order: &ReadOrder) -> Result<ReplicaRead, ErrorCode> {
        if order.leader_epoch != self.epoch {
            return Err(ErrorCode::FencedLeaderEpoch);
        }
        let from = order.from.get() as usize;
        if from < self.leader_start {
            return Err(ErrorCode::OffsetOutOfRange);
        }
        let mut bytes = Vec::new();
        let mut next = from;
        while next < self.leader.len() {
            let (epoch, value) = self.leader[next];
            let builder = BatchBuilder {
                base_offset: Offset(next as i64),
                leader_epoch: epoch,
                base_timestamp: value,
                ..Default::default()
            };
            let batch = builder.build_records(&[(None, None)]);
            if !bytes.is_empty() && bytes.len() + batch.len() > order.max_bytes {
                break;
            }
            bytes.extend_from_slice(&batch);
            next += 1;
        }
        Ok(ReplicaRead {
            batches: bytes.into(),
            base: order.from,
            next: Offset(next as i64),
            high_watermark: Offset(self.high_watermark as i64),
            log_start: Offset(self.leader_start as i64),
        })
    }

    pub(crate) fn append(&mut self, leader_epoch: LeaderEpoch, previous: Offset, batches: &Bytes) -> bool {
        if leader_epoch != self.epoch || previous.get() as usize != self.follower.len() {
            self.appends_refused += 1;
            return false;
        }
        for batch in Batches::new(batches.clone()) {
            let (header, _) = batch.expect("the model builds whole batches");
            assert_eq!(header.base_offset.get() as usize, self.follower.len(), "a gap");
            self.follower.push((header.leader_epoch, header.base_timestamp));
        }
        true
    }

    fn truncate(&mut self, work: &MendWork, epoch: Option<LeaderEpoch>, end: Offset) -> bool {
        let Position {
            last_epoch, log_end, ..
        } = self.position();
        if work.leader_epoch != self.epoch
            || (last_epoch, log_end) != (work.judged.last_epoch, work.judged.log_end)
        {
            return false;
        }
        let own = epoch.and_then(|epoch| epoch_end(&self.follower, epoch));
        let keep = own.map_or(0, |(_, at)| at.min(end.get() as usize));
        self.follower.truncate(keep);
        self.durable = self.durable.min(keep);
        true
    }

    fn restart(&mut self, leader_epoch: LeaderEpoch, log_start: Offset) -> bool {
        let start = log_start.get() as usize;
        if leader_epoch != self.epoch || self.follower.len() >= start {
            return false;
        }
        // What lies below the leader's start is gone there; the model fills it in so that offsets stay
        // indexes.
        self.follower = self.leader[..start].to_vec();
        self.follower_start = start;
        self.durable = start;
        true
    }

    pub(crate) fn mend(&mut self, work: &MendWork) -> bool {
        match work.mend {
            Mend::Truncate { epoch, end_offset } => self.truncate(work, epoch, end_offset),
            Mend::Restart { log_start } => self.restart(work.leader_epoch, log_start),
        }
    }

    pub(crate) fn learn(&mut self, high_watermark: Offset) {
        let told = (high_watermark.get() as usize).min(self.follower.len());
        self.follower_high_watermark = self.follower_high_watermark.max(told);
    }

    /// Whether everything is replicated, committed, and known to be.
    pub(crate) fn is_settled(&self) -> bool {
        self.leader == self.follower && self.follower_high_watermark == self.leader.len()
    }

    /// What is committed is at the follower, on disk, and the same.
    pub(crate) fn assert_invariants(&self) {
        assert!(
            self.high_watermark <= self.durable,
            "committed, not durable: {self:?}"
        );
        assert_eq!(
            self.leader[..self.high_watermark],
            self.follower[..self.high_watermark],
            "committed and not the same"
        );
        assert!(self.follower_high_watermark <= self.high_watermark);
    }
}
