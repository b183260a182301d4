//! Producers that wait for an offset to be passed: by the durable offset (`acks=1`) or by the high
//! watermark (`acks=all`). Ordered by offset, so that progress releases exactly those it concerns.

use std::collections::BTreeMap;

use protocol::Offset;
use tokio::sync::oneshot;

use crate::error::AppendRefused;

/// What a producer is told about its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendResult {
    /// Offset of the first record.
    pub base_offset: Offset,
    /// The timestamp stamped on the records (ms since 1970), with LogAppendTime.
    pub log_append_time: Option<i64>,
    /// The partition's first offset.
    pub log_start_offset: Offset,
}

/// Where the outcome of an append goes. Dropping it answers that the outcome is not known.
pub(crate) type Reply = oneshot::Sender<Result<AppendResult, AppendRefused>>;

/// An answer that is due. Sent outside of the partition's lock.
#[derive(Debug)]
pub(crate) struct Due {
    reply: Reply,
    answer: Result<AppendResult, AppendRefused>,
}

impl Due {
    pub(crate) fn new(reply: Reply, answer: Result<AppendResult, AppendRefused>) -> Self {
        Self { reply, answer }
    }

    pub(crate) fn send(self) {
        // A producer that has gone, or whose time was up, is not told.
        let _ = self.reply.send(self.answer);
    }
}

/// Waiting producers of one partition.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    waiting: BTreeMap<(Offset, u64), (AppendResult, Reply)>,
    next: u64,
    prune_at: usize,
}

/// Below this many there is no need to look for waiters that gave up.
const PRUNE_MIN: usize = 256;

impl Waiters {
    /// Answers with `result` once everything below `until` is passed.
    pub(crate) fn wait(&mut self, until: Offset, result: AppendResult, reply: Reply) {
        // Those whose time was up leave when the offset is passed; while it is not, their number stays
        // within twice that of the living, at a cost that is constant on average.
        if self.waiting.len() >= self.prune_at.max(PRUNE_MIN) {
            self.waiting.retain(|_, (_, reply)| !reply.is_closed());
            self.prune_at = self.waiting.len() * 2;
        }
        self.waiting.insert((until, self.next), (result, reply));
        self.next += 1;
    }

    /// Takes out everybody whose offset is at most `reached`.
    pub(crate) fn release(&mut self, reached: Offset, due: &mut Vec<Due>) {
        while let Some(entry) = self.waiting.first_entry() {
            if entry.key().0 > reached {
                break;
            }
            let (result, reply) = entry.remove();
            due.push(Due::new(reply, Ok(result)));
        }
    }

    /// Takes out everybody.
    pub(crate) fn refuse_all(&mut self, why: AppendRefused, due: &mut Vec<Due>) {
        for (_, (_, reply)) in std::mem::take(&mut self.waiting) {
            due.push(Due::new(reply, Err(why)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(base: i64) -> AppendResult {
        AppendResult {
            base_offset: Offset(base),
            log_append_time: None,
            log_start_offset: Offset(0),
        }
    }

    #[test]
    fn progress_releases_in_order_and_no_further() {
        let mut waiters = Waiters::default();
        let mut answers = Vec::new();
        for until in [3, 1, 2, 2] {
            let (reply, answer) = oneshot::channel();
            waiters.wait(Offset(until), result(until - 1), reply);
            answers.push((until, answer));
        }
        let mut due = Vec::new();
        waiters.release(Offset(2), &mut due);
        assert_eq!(due.len(), 3);
        due.into_iter().for_each(Due::send);
        for (until, mut answer) in answers {
            let expected = (until <= 2).then(|| Ok(result(until - 1)));
            assert_eq!(answer.try_recv().ok(), expected);
        }
    }

    #[test]
    fn those_that_gave_up_do_not_pile_up() {
        let mut waiters = Waiters::default();
        for until in 0..100_000 {
            let (reply, _) = oneshot::channel();
            waiters.wait(Offset(until), result(until), reply);
        }
        assert!(waiters.waiting.len() <= PRUNE_MIN);
    }
}
