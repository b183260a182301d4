//! The leader's side of one stream: which partition is served next, from where, and whether credit
//! allows it.

use std::collections::{BTreeMap, VecDeque};

use protocol::{ErrorCode, LeaderEpoch, Offset, StreamGeneration, TopicPartition};

use crate::exchange::{FetchVerdict, FollowerFetch, Leading, ReplicaRead};
use crate::streams::wire::{Content, Fetch, News};

/// The most bytes that one read of a partition takes, unless its first batch alone is larger: the
/// turn of one partition before the next one's.
pub(crate) const READ_BYTES: usize = 1 << 20;

/// The most credit that a follower can gather, in bytes. Above it grants are ignored.
const CREDIT_MAX: i64 = 64 << 20;

/// The partitions that this broker leads, as a stream sees them.
pub trait LeaderView {
    /// Takes a follower's fetch as an acknowledgement and says how it goes on. An error ends the
    /// conversation about the partition.
    fn fetch(&self, partition: TopicPartition, fetch: &FollowerFetch) -> Result<FetchVerdict, ErrorCode>;

    /// Where the partition stands, read as of one leader epoch.
    fn positions(&self, partition: TopicPartition) -> Result<Leading, ErrorCode>;
}

/// What the stream wants done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Send this.
    Say(News),
    /// Read this, and hand the outcome to [`LeaderStream::on_read`].
    Read(ReadOrder),
}

/// A read for a follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadOrder {
    /// The partition.
    pub partition: TopicPartition,
    /// The conversation that the read is for.
    pub generation: StreamGeneration,
    /// The first offset wanted.
    pub from: Offset,
    /// Bytes wanted at most, beyond a first batch that alone is larger.
    pub max_bytes: usize,
    /// The epoch that must still be the leader's.
    pub leader_epoch: LeaderEpoch,
}

#[derive(Debug)]
struct Conversation {
    generation: StreamGeneration,
    /// The newest fetch: what a heartbeat repeats.
    acked: FollowerFetch,
    /// Everything below has been sent, or lay below the follower's log end when it began.
    next: Offset,
    /// The follower has been told to truncate; it opens the next conversation when it has.
    diverged: bool,
    /// A read is under way.
    reading: bool,
    /// The partition moved while a read was under way.
    moved: bool,
    /// It stands among the ready.
    queued: bool,
    /// It stands among the starved.
    starved: bool,
    /// The high watermark and log start that the follower was told last.
    told: Option<(Offset, Offset)>,
}

/// The leader's side of one stream.
///
/// Invariants: a conversation has at most one read under way; at most the credit that the follower
/// granted, and one batch, is sent without a further grant; partitions that are ready take turns.
#[derive(Debug, Default)]
pub struct LeaderStream {
    /// Bytes that may still be sent and are not promised to a read. Below zero after a batch that was
    /// larger than what was left.
    credit: i64,
    conversations: BTreeMap<TopicPartition, Conversation>,
    /// Partitions to look at, in turn.
    ready: VecDeque<TopicPartition>,
    /// Partitions that have batches to send and wait for credit.
    starved: VecDeque<TopicPartition>,
}

impl LeaderStream {
    /// A stream on which nothing was said yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The partitions of which the follower is to hear.
    pub fn partitions(&self) -> impl Iterator<Item = TopicPartition> {
        self.conversations.keys().copied()
    }

    /// Whether a conversation about the partition is open.
    pub fn contains(&self, partition: TopicPartition) -> bool {
        self.conversations.contains_key(&partition)
    }

    /// The follower grants more bytes.
    pub fn on_credit(&mut self, bytes: u64) {
        let bytes = i64::try_from(bytes).unwrap_or(CREDIT_MAX);
        self.set_credit(self.credit.saturating_add(bytes).min(CREDIT_MAX));
    }

    fn set_credit(&mut self, credit: i64) {
        self.credit = credit;
        if credit > 0 {
            for partition in std::mem::take(&mut self.starved) {
                if let Some(conversation) = self.conversations.get_mut(&partition) {
                    conversation.starved = false;
                }
                self.on_progress(partition);
            }
        }
    }

    /// The follower no longer follows the partition over this stream.
    pub fn on_stop(&mut self, partition: TopicPartition) {
        self.conversations.remove(&partition);
    }

    /// The partition's log or high watermark moved, or its role changed.
    pub fn on_progress(&mut self, partition: TopicPartition) {
        if let Some(conversation) = self.conversations.get_mut(&partition) {
            if conversation.reading {
                conversation.moved = true;
            } else if !conversation.queued {
                conversation.queued = true;
                self.ready.push_back(partition);
            }
        }
    }

    /// A fetch: the first of its generation opens a conversation, later ones acknowledge.
    pub fn on_fetch(&mut self, fetch: &Fetch, view: &dyn LeaderView) -> Option<News> {
        let partition = fetch.partition;
        let mut opens = true;
        if let Some(known) = self.conversations.get(&partition) {
            if fetch.generation < known.generation || (fetch.generation == known.generation && known.diverged)
            {
                return None;
            }
            opens = fetch.generation > known.generation;
            // What was never sent cannot be acknowledged; believing it would commit what is not there.
            let beyond = fetch.fetch.position.log_end > known.next;
            if !opens && (beyond || fetch.fetch.leader_epoch != known.acked.leader_epoch) {
                return Some(self.end(
                    partition,
                    fetch.generation,
                    &fetch.fetch,
                    ErrorCode::InvalidRequest,
                    view,
                ));
            }
        }
        self.judge(partition, fetch.generation, fetch.fetch, opens, view)
    }

    /// The follower is alive and stands where it stood: every conversation's last fetch again.
    pub fn on_heartbeat(&mut self, view: &dyn LeaderView) -> Vec<News> {
        let open: Vec<_> = self
            .conversations
            .iter()
            .filter(|(_, conversation)| !conversation.diverged)
            .map(|(&partition, conversation)| (partition, conversation.generation, conversation.acked))
            .collect();
        open.into_iter()
            .filter_map(|(partition, generation, acked)| {
                self.judge(partition, generation, acked, false, view)
            })
            .collect()
    }

    fn judge(
        &mut self,
        partition: TopicPartition,
        generation: StreamGeneration,
        fetch: FollowerFetch,
        opens: bool,
        view: &dyn LeaderView,
    ) -> Option<News> {
        let (next, verdict) = match view.fetch(partition, &fetch) {
            Err(code) => return Some(self.end(partition, generation, &fetch, code, view)),
            Ok(FetchVerdict::Continue { next }) => (next, None),
            Ok(FetchVerdict::Diverged { epoch, end_offset }) => (
                fetch.position.log_end,
                Some(Content::Diverged { epoch, end_offset }),
            ),
        };
        let diverged = verdict.is_some();
        if opens {
            let conversation = Conversation {
                generation,
                acked: fetch,
                next,
                diverged,
                reading: false,
                moved: false,
                queued: !diverged,
                starved: false,
                told: None,
            };
            self.conversations.insert(partition, conversation);
            if !diverged {
                self.ready.push_back(partition);
            }
        } else if let Some(conversation) = self.conversations.get_mut(&partition) {
            conversation.acked = fetch;
            conversation.diverged = diverged;
        }
        verdict.map(|content| say(partition, generation, &fetch, content, view))
    }

    fn end(
        &mut self,
        partition: TopicPartition,
        generation: StreamGeneration,
        fetch: &FollowerFetch,
        code: ErrorCode,
        view: &dyn LeaderView,
    ) -> News {
        self.conversations.remove(&partition);
        say(partition, generation, fetch, Content::Over(code), view)
    }

    /// What to do next; `None` until something happens. Reads may run side by side.
    pub fn next(&mut self, view: &dyn LeaderView) -> Option<Order> {
        while let Some(partition) = self.ready.pop_front() {
            let Some(conversation) = self.conversations.get_mut(&partition) else {
                continue;
            };
            // A conversation begun anew while its partition was queued stands there twice.
            if !std::mem::take(&mut conversation.queued) || conversation.diverged {
                continue;
            }
            if conversation.reading {
                conversation.moved = true;
                continue;
            }
            let generation = conversation.generation;
            let fetch = conversation.acked;
            let positions = match view.positions(partition) {
                Ok(positions) if positions.leader_epoch == fetch.leader_epoch => positions,
                Ok(positions) => {
                    let code = if positions.leader_epoch > fetch.leader_epoch {
                        ErrorCode::FencedLeaderEpoch
                    } else {
                        ErrorCode::UnknownLeaderEpoch
                    };
                    return Some(Order::Say(self.end(partition, generation, &fetch, code, view)));
                }
                Err(code) => return Some(Order::Say(self.end(partition, generation, &fetch, code, view))),
            };
            let wanted = positions.log_end > conversation.next;
            if wanted && self.credit > 0 {
                let max_bytes = READ_BYTES.min(self.credit as usize);
                self.credit -= max_bytes as i64;
                conversation.reading = true;
                conversation.moved = false;
                return Some(Order::Read(ReadOrder {
                    partition,
                    generation,
                    from: conversation.next,
                    max_bytes,
                    leader_epoch: fetch.leader_epoch,
                }));
            }
            if wanted && !conversation.starved {
                conversation.starved = true;
                self.starved.push_back(partition);
            }
            let told = (positions.high_watermark, positions.log_start);
            if conversation.told != Some(told) {
                conversation.told = Some(told);
                return Some(Order::Say(News {
                    partition,
                    generation,
                    leader_epoch: fetch.leader_epoch,
                    high_watermark: positions.high_watermark,
                    log_start: positions.log_start,
                    content: Content::Positions,
                }));
            }
        }
        None
    }

    /// A read's outcome: what to send of it, if its conversation still goes on.
    pub fn on_read(
        &mut self,
        order: &ReadOrder,
        outcome: Result<ReplicaRead, ErrorCode>,
        view: &dyn LeaderView,
    ) -> Option<News> {
        let promised = order.max_bytes as i64;
        let current = self
            .conversations
            .get_mut(&order.partition)
            .filter(|conversation| conversation.generation == order.generation);
        let Some(conversation) = current else {
            self.set_credit(self.credit + promised);
            return None;
        };
        conversation.reading = false;
        let fetch = conversation.acked;
        let read = match outcome {
            Ok(read) => read,
            Err(code) => {
                self.set_credit(self.credit + promised);
                return Some(self.end(order.partition, order.generation, &fetch, code, view));
            }
        };
        let sent = read.batches.len() as i64;
        let told = (read.high_watermark, read.log_start);
        let news = conversation.told != Some(told) || sent > 0;
        conversation.told = Some(told);
        conversation.next = conversation.next.max(read.next);
        // An empty read means that there is nothing before the next progress.
        if (sent > 0 || conversation.moved) && !conversation.queued {
            conversation.queued = true;
            self.ready.push_back(order.partition);
        }
        self.set_credit(self.credit + promised - sent);
        news.then_some(News {
            partition: order.partition,
            generation: order.generation,
            leader_epoch: order.leader_epoch,
            high_watermark: read.high_watermark,
            log_start: read.log_start,
            content: if sent > 0 {
                Content::Batches {
                    previous: order.from,
                    base: read.base,
                    batches: read.batches,
                }
            } else {
                Content::Positions
            },
        })
    }
}

/// News outside the flow of batches: the positions are the leader's where there are any.
fn say(
    partition: TopicPartition,
    generation: StreamGeneration,
    fetch: &FollowerFetch,
    content: Content,
    view: &dyn LeaderView,
) -> News {
    let positions = view.positions(partition).ok();
    News {
        partition,
        generation,
        leader_epoch: fetch.leader_epoch,
        high_watermark: positions.map_or(Offset::ZERO, |at| at.high_watermark),
        log_start: positions.map_or(Offset::ZERO, |at| at.log_start),
        content,
    }
}
