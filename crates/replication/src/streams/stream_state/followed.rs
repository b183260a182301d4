//! One partition on a follower's stream: the phase of its conversation, and whether what the leader
//! says fits it.

use std::time::Duration;

use protocol::batch::{BatchError, BatchHeader};
use protocol::{ErrorCode, LeaderEpoch, Offset, StreamGeneration};

use super::work::Mend;
use crate::Now;
use crate::exchange::Position;
use crate::streams::wire::{Content, News};

/// Waiting times after a refusal: doubled from the first to the last.
const REST_MIN: Duration = Duration::from_millis(20);
const REST_MAX: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The next message opens a conversation.
    Starting,
    /// A conversation goes on.
    Open,
    /// It is over; appends under way end first, for they move the position that the next one begins at.
    Settling(After),
    /// The log is truncating or restarting.
    Mending,
    /// Refused; waits until then.
    Resting(Now),
}

/// What follows when the appends under way have ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    Start,
    Rest,
    Mend(Mend),
    Move,
}

#[derive(Debug)]
pub(super) struct Followed {
    pub(super) phase: Phase,
    pub(super) generation: StreamGeneration,
    pub(super) leader_epoch: LeaderEpoch,
    /// Where the log ends once the appends under way have ended.
    pub(super) expected: Offset,
    /// What the leader was told last.
    pub(super) told: Position,
    /// It stands in the queue of those to tell the leader about.
    pub(super) queued: bool,
    /// Positions that wait for the appends under way.
    pub(super) held: Option<(Offset, Offset)>,
    /// The high watermark is ahead of everything received: the replica cannot be in the ISR.
    pub(super) behind: bool,
    /// Where the last divergence was found: meeting it again means that truncation does not help.
    pub(super) diverged_at: Option<Offset>,
    pub(super) rest: Duration,
}

impl Followed {
    /// A partition that begins when nothing is under way for it.
    pub(super) fn new(leader_epoch: LeaderEpoch, generation: StreamGeneration) -> Self {
        Self {
            phase: Phase::Settling(After::Start),
            generation,
            leader_epoch,
            expected: Offset::ZERO,
            told: Position {
                last_epoch: None,
                log_end: Offset::ZERO,
                durable: Offset::ZERO,
                log_start: Offset::ZERO,
            },
            queued: false,
            held: None,
            behind: true,
            diverged_at: None,
            rest: REST_MIN,
        }
    }

    /// How long to rest now; longer the next time.
    pub(super) fn next_rest(&mut self) -> Duration {
        let rest = self.rest;
        self.rest = (rest * 2).min(REST_MAX);
        rest
    }

    /// What the leader sent is in the log: nothing is wrong any more.
    pub(super) fn went_well(&mut self) {
        self.rest = REST_MIN;
        self.diverged_at = None;
    }

    /// Whether news of this conversation can be taken; where not, what follows its end.
    pub(super) fn judge(&mut self, news: &News) -> Result<(), After> {
        if news.leader_epoch != self.leader_epoch {
            return Err(After::Rest);
        }
        match &news.content {
            Content::Over(ErrorCode::OffsetOutOfRange) if news.log_start > self.expected => {
                return Err(After::Mend(Mend::Restart {
                    log_start: news.log_start,
                }));
            }
            Content::Over(_) => return Err(After::Rest),
            &Content::Diverged { epoch, end_offset } => {
                // A truncation that left the log as it was would be answered the same for ever.
                if self.diverged_at.replace(self.expected) == Some(self.expected) {
                    return Err(After::Rest);
                }
                return Err(After::Mend(Mend::Truncate { epoch, end_offset }));
            }
            Content::Batches {
                previous,
                base,
                batches,
            } => {
                // The leader's log may start inside a batch; an empty log takes all of that batch.
                let begins_inside = self.told.log_start == self.expected;
                match batches_end(batches, *base) {
                    Ok(end)
                        if *previous == self.expected
                            && end > *previous
                            && (base >= previous || begins_inside) =>
                    {
                        self.expected = end;
                    }
                    _ => return Err(After::Rest),
                }
            }
            Content::Positions => {}
        }
        self.behind = news.high_watermark > self.expected;
        Ok(())
    }
}

/// Where a log ends that batches, the first of which begins at `base`, were appended to.
fn batches_end(batches: &[u8], base: Offset) -> Result<Offset, BatchError> {
    let mut rest = batches;
    let mut end = base;
    while !rest.is_empty() {
        let header = BatchHeader::parse(rest)?;
        if header.base_offset < end {
            return Err(BatchError::OffsetDelta(header.last_offset_delta));
        }
        end = header.next_offset();
        rest = &rest[header.size..];
    }
    Ok(end)
}
