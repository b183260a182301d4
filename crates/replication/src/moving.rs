//! Filling a future log from the current one (KIP-113): what the next step is, and taking it.
//!
//! The two belong to one replica, and yet are compared like those of a follower and its leader: by the end of
//! the future's last epoch. A current log that was truncated meanwhile, in this run or an earlier one, is
//! found out that way, and nothing has to be remembered.

use protocol::{LeaderEpoch, Offset};
use storage::{AppendError, Log, ReadRequest, StorageError};

use crate::{
    EpochLookup,
    partition::{LogEpochs, append_following, last_epoch},
};

/// Bytes that are copied at once.
const CHUNK: usize = 1 << 20;
/// Steps in which two logs at rest become the same, at most: a log of a terabyte in chunks. More means that
/// they never will.
const STEPS_MAX: usize = 1 << 20;

/// One of the two logs.
pub(crate) struct Side<'a> {
    pub(crate) start: Offset,
    pub(crate) end: Offset,
    /// Epoch of the last batch.
    pub(crate) last_epoch: Option<LeaderEpoch>,
    pub(crate) epochs: &'a dyn EpochLookup,
}

/// What brings the future log closer to the current one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// They have nothing in common: begin anew, empty, at this offset.
    Restart(Offset),
    /// The current log has another history from here on, or none.
    Truncate(Offset),
    /// Take what follows this offset.
    Copy(Offset),
    /// There is nothing more to take.
    Same,
}

/// Compares the logs. Each step leaves less between them, as long as the current log rests.
pub(crate) fn next_step(current: &Side<'_>, future: &Side<'_>) -> Step {
    if future.end < current.start || future.start > current.start {
        return Step::Restart(current.start);
    }
    let agreed = agreed_end(current, future).min(current.end);
    if agreed < future.start {
        Step::Restart(current.start)
    } else if agreed < future.end {
        Step::Truncate(agreed)
    } else if future.end < current.end {
        Step::Copy(future.end)
    } else {
        Step::Same
    }
}

/// Up to where the future's history can be the current log's (KIP-101, KIP-279).
fn agreed_end(current: &Side<'_>, future: &Side<'_>) -> Offset {
    let Some(epoch) = future.last_epoch else {
        return future.end;
    };
    match current.epochs.end_offset_for_epoch(epoch) {
        // Nothing there is as old as what the future has.
        None => future.start,
        Some((found, end)) if found == epoch => end,
        Some((found, end)) => {
            let own = future.epochs.end_offset_for_epoch(found);
            own.map_or(future.start, |(_, own)| own.min(end))
        }
    }
}

/// What a step has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Batches of so many bytes were taken; whether they were as many as are taken at once.
    Copied { bytes: u64, whole_chunk: bool },
    /// The future log was cut.
    Cut,
    /// They hold the same.
    Same,
}

/// Why a future log cannot be filled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MoveError {
    /// One of the disks refused, or the current log is damaged.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The batches cannot follow, which their order in the current log rules out.
    #[error(transparent)]
    Append(AppendError),
    /// Two logs at rest did not become the same.
    #[error("the copy does not become the same as the log")]
    Stuck,
}

impl From<AppendError> for MoveError {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Storage(error) => Self::Storage(error),
            other => Self::Append(other),
        }
    }
}

impl MoveError {
    /// Whether trying again may help: space or descriptors lack, or the current log was cut while it was
    /// read.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Storage(StorageError::OffsetOutOfRange { .. }) => true,
            Self::Storage(error) => error.is_exhaustion(),
            Self::Append(_) | Self::Stuck => false,
        }
    }
}

/// Takes one step. Blocks on the disk.
pub(crate) fn take_step(current: &Log, future: &Log) -> Result<Progress, MoveError> {
    let (current_epochs, future_epochs) = (LogEpochs(current), LogEpochs(future));
    match next_step(&side(current, &current_epochs), &side(future, &future_epochs)) {
        Step::Restart(at) => {
            future.truncate_fully_and_start_at(at)?;
            Ok(Progress::Cut)
        }
        Step::Truncate(to) => {
            future.truncate_to(to)?;
            Ok(Progress::Cut)
        }
        Step::Copy(from) => {
            // The end as of now: a log that is written to all the time is caught up with all the same.
            let upper = current.log_end_offset();
            let read = current.read(ReadRequest {
                from,
                upper,
                max_bytes: CHUNK,
                min_one_batch: true,
            })?;
            let whole_chunk = read.next_offset < upper && !read.bytes.is_empty();
            let bytes = read.bytes.len() as u64;
            if !read.bytes.is_empty() {
                append_following(future, from, read.bytes)?;
            }
            Ok(Progress::Copied { bytes, whole_chunk })
        }
        Step::Same => Ok(Progress::Same),
    }
}

fn side<'a>(log: &Log, epochs: &'a LogEpochs<'_>) -> Side<'a> {
    let end = log.log_end_offset();
    Side {
        start: log.log_start_offset(),
        end,
        last_epoch: last_epoch(log, end),
        epochs,
    }
}

/// Makes the future log the same as the current one, which rests, down to its start and to an epoch that has
/// no batch yet, and makes all of it durable. Returns the bytes that were copied. Blocks on the disk.
pub(crate) fn settle(current: &Log, future: &Log) -> Result<u64, MoveError> {
    let mut steps = 0..STEPS_MAX;
    let mut copied = 0;
    loop {
        match take_step(current, future)? {
            Progress::Same => break,
            Progress::Copied { bytes, .. } => copied += bytes,
            Progress::Cut => {}
        }
        steps.next().ok_or(MoveError::Stuck)?;
    }
    let start = current.log_start_offset();
    if future.log_start_offset() < start {
        future.advance_log_start(start)?;
    }
    if let Some(epoch) = current.latest_epoch()
        && future.latest_epoch() < Some(epoch)
        && let Some(begins) = current.epoch_start(epoch)
    {
        future.assign_epoch_start(epoch, begins);
    }
    let durable = future.flush()?;
    if durable < current.log_end_offset() {
        return Err(MoveError::Stuck);
    }
    Ok(copied)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Epochs by where they begin.
    struct Epochs {
        starts: Vec<(i32, i64)>,
        end: i64,
    }

    impl EpochLookup for Epochs {
        fn end_offset_for_epoch(&self, asked: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
            let first = self.starts.first()?;
            let next = self.starts.iter().find(|&&(epoch, _)| epoch > asked.get());
            let end = next.map_or(self.end, |&(_, start)| start);
            let found = self.starts.iter().rev().find(|&&(epoch, _)| epoch <= asked.get());
            Some(match found {
                Some(&(epoch, _)) => (LeaderEpoch(epoch), Offset(end)),
                None => (asked, Offset(first.1)),
            })
        }
    }

    /// The step between logs of these starts, epochs and ends.
    fn step(current: (i64, &[(i32, i64)], i64), future: (i64, &[(i32, i64)], i64)) -> Step {
        let epochs = |(_, starts, end): (i64, &[(i32, i64)], i64)| Epochs {
            starts: starts.to_vec(),
            end,
        };
        let (current_epochs, future_epochs) = (epochs(current), epochs(future));
        let side = |(start, starts, end): (i64, &[(i32, i64)], i64)| {
            let has_batch = |&&(_, begins): &&(i32, i64)| begins < end;
            let last = starts.iter().rev().find(has_batch);
            (
                Offset(start),
                Offset(end),
                last.map(|&(epoch, _)| LeaderEpoch(epoch)),
            )
        };
        let with = |(start, end, last_epoch), epochs| Side {
            start,
            end,
            last_epoch,
            epochs,
        };
        next_step(
            &with(side(current), &current_epochs),
            &with(side(future), &future_epochs),
        )
    }

    #[test]
    fn a_copy_is_taken_on_until_it_is_the_same() {
        let current: (i64, &[(i32, i64)], i64) = (0, &[(0, 0), (2, 50)], 100);
        assert_eq!(step(current, (0, &[], 0)), Step::Copy(Offset(0)));
        assert_eq!(step(current, (0, &[(0, 0)], 40)), Step::Copy(Offset(40)));
        assert_eq!(step(current, (0, &[(0, 0)], 50)), Step::Copy(Offset(50)));
        assert_eq!(step(current, (0, &[(0, 0), (2, 50)], 100)), Step::Same);
        assert_eq!(step((7, &[], 7), (7, &[], 7)), Step::Same);
    }

    #[test]
    fn what_was_truncated_is_cut_from_the_copy_too() {
        let copy: (i64, &[(i32, i64)], i64) = (0, &[(0, 0), (1, 50)], 80);
        // Epoch 1 ended at 60 and epoch 3 went on from there.
        let current: (i64, &[(i32, i64)], i64) = (0, &[(0, 0), (1, 50), (3, 60)], 100);
        assert_eq!(step(current, copy), Step::Truncate(Offset(60)));
        // Epoch 1 never was.
        let current: (i64, &[(i32, i64)], i64) = (0, &[(0, 0), (3, 30)], 100);
        assert_eq!(step(current, copy), Step::Truncate(Offset(30)));
        // Shorter, with the same epochs.
        let current: (i64, &[(i32, i64)], i64) = (0, &[(0, 0), (1, 50)], 70);
        assert_eq!(step(current, copy), Step::Truncate(Offset(70)));
        // Nothing is left of it.
        assert_eq!(step((0, &[], 0), copy), Step::Truncate(Offset(0)));
    }

    #[test]
    fn a_copy_that_does_not_reach_the_log_begins_anew() {
        let current: (i64, &[(i32, i64)], i64) = (60, &[(1, 60)], 100);
        assert_eq!(step(current, (0, &[(0, 0)], 40)), Step::Restart(Offset(60)));
        assert_eq!(
            step(current, (0, &[(0, 0), (1, 50)], 70)),
            Step::Copy(Offset(70)),
            "the older beginning goes at the end"
        );
        // The log began anew, further back.
        assert_eq!(
            step((20, &[(2, 20)], 30), (60, &[(1, 60)], 100)),
            Step::Restart(Offset(20))
        );
    }
}
