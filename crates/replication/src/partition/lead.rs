//! The leader's side of replication: followers' fetches and what is sent to them.

use protocol::{BrokerEpoch, BrokerId, ErrorCode, LeaderEpoch, Offset};
use storage::ReadRequest;

use super::{After, LogEpochs, Partition};
use crate::{
    Effects, FetchRefused, FetchVerdict, FollowerFetch, Leading, ReadRefused, ReplicaRead, RoleError,
};

impl Partition {
    /// Where the replica stands as the leader.
    pub fn leading(&self) -> Result<Leading, RoleError> {
        let core = self.core.lock();
        let leader_epoch = core.state.check_append(None)?;
        let view = core.view(&self.log.load());
        Ok(Leading {
            leader_epoch,
            log_end: view.end,
            high_watermark: core.state.high_watermark(),
            log_start: view.start,
        })
    }

    /// A follower's fetch, which is also its acknowledgement.
    pub fn on_follower_fetch(
        &self,
        from: BrokerId,
        broker_epoch: BrokerEpoch,
        fetch: &FollowerFetch,
    ) -> Result<FetchVerdict, FetchRefused> {
        let mut after = After::default();
        let mut verdict = None;
        self.core.lock().event(self, &mut after, |state, facts| {
            match state.on_follower_fetch(from, broker_epoch, fetch, &LogEpochs(&self.log.load()), facts) {
                Ok((answer, effects)) => {
                    verdict = Some(Ok(answer));
                    effects
                }
                Err(refused) => {
                    verdict = Some(Err(refused));
                    Effects::default()
                }
            }
        });
        self.carry_out(after);
        verdict.expect("the event sets the verdict")
    }

    /// Reads what follows `from` for a follower of this leader epoch: also what is not committed, and
    /// not durable here, so that the disks of all replicas work at the same time.
    pub async fn read_for_follower(
        &self,
        from: Offset,
        max_bytes: usize,
        epoch: LeaderEpoch,
    ) -> Result<ReplicaRead, ErrorCode> {
        let (upper, high_watermark, log_start, tail) = {
            let core = self.core.lock();
            core.state.check_append(Some(epoch)).map_err(RoleError::code)?;
            let view = core.view(&self.log.load());
            let tail = core.tail.find(from, max_bytes);
            (view.end, core.state.high_watermark(), view.start, tail)
        };
        let nothing = ReplicaRead {
            batches: bytes::Bytes::new(),
            base: from,
            next: from,
            high_watermark,
            log_start,
        };
        if from < log_start || from > upper {
            return Err(ErrorCode::OffsetOutOfRange);
        }
        if from == upper {
            return Ok(nothing);
        }
        if let Some(found) = tail {
            return Ok(ReplicaRead {
                next: found.next,
                batches: found.into_bytes(),
                ..nothing
            });
        }
        let log = self.log.load_full();
        let read = ReadRequest {
            from,
            upper,
            max_bytes,
            min_one_batch: true,
        };
        match self.shared.reads.run(move || log.read(read)).await {
            Err(_busy) => Err(ReadRefused::Busy.code()),
            Ok(Err(error)) => Err(self.read_refused(from, &error, false).code()),
            Ok(Ok(outcome)) => Ok(ReplicaRead {
                base: outcome.first.unwrap_or(from),
                next: outcome.next_offset,
                batches: outcome.bytes,
                ..nothing
            }),
        }
    }
}
