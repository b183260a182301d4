//! The follower's side of one stream: where each partition's conversation stands, what its log is to
//! do, and what the leader is to be told.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use protocol::{BrokerId, LeaderEpoch, StreamGeneration, TopicPartition};

use super::followed::{After, Followed, Phase};
use super::work::{AppendWork, FollowerView, Lane, MendWork, StreamMessage, Work};
use crate::Now;
use crate::exchange::FollowerFetch;
use crate::streams::wire::{Content, Fetch, News};
use crate::streams::{HEARTBEAT, SILENCE};

/// The most fetches in one message.
const FETCHES_MAX: usize = 4_096;

/// The follower's side of one stream.
///
/// Invariants: an append's `previous` is the log end after all appends begun before it; no position is
/// told while the log is being truncated; unreturned credit is exactly what is on its way or being
/// appended.
#[derive(Debug)]
pub struct FollowerStream {
    leader: BrokerId,
    lane: Lane,
    window: u64,
    partitions: BTreeMap<TopicPartition, Followed>,
    /// Pieces of work under way, by partition: they outlive a conversation and an assignment.
    under_way: BTreeMap<TopicPartition, u32>,
    /// Bytes in appends under way.
    appending_bytes: u64,
    tell: VecDeque<TopicPartition>,
    stop: Vec<TopicPartition>,
    resting: BTreeSet<(Now, TopicPartition)>,
    work: VecDeque<Work>,
    moves: Vec<TopicPartition>,
    /// Credit that the leader has not been granted again yet.
    returned: u64,
    generation: u64,
    connected: bool,
    last_heartbeat: Now,
    last_heard: Now,
}

impl FollowerStream {
    /// A stream to `leader` that holds at most `window` bytes of batches, and one batch more, at a
    /// time. Nothing is sent before [`FollowerStream::connected`].
    pub fn new(leader: BrokerId, lane: Lane, window: u64, now: Now) -> Self {
        Self {
            leader,
            lane,
            window,
            partitions: BTreeMap::new(),
            under_way: BTreeMap::new(),
            appending_bytes: 0,
            tell: VecDeque::new(),
            stop: Vec::new(),
            resting: BTreeSet::new(),
            work: VecDeque::new(),
            moves: Vec::new(),
            returned: window,
            generation: 0,
            connected: false,
            last_heartbeat: now,
            last_heard: now,
        }
    }

    /// Whether there is nothing to follow.
    pub fn is_empty(&self) -> bool {
        self.partitions.is_empty()
    }

    /// How many partitions are followed over this stream.
    pub fn len(&self) -> usize {
        self.partitions.len()
    }

    /// Follow the partition, in this epoch, from where its log stands; what was said about it before
    /// is void.
    pub fn assign(&mut self, partition: TopicPartition, leader_epoch: LeaderEpoch) {
        self.forget(partition);
        let followed = Followed::new(leader_epoch, StreamGeneration(self.generation));
        self.partitions.insert(partition, followed);
        self.settle(partition, self.last_heard);
    }

    /// Do not follow the partition over this stream any more.
    pub fn unassign(&mut self, partition: TopicPartition) {
        if self.forget(partition) {
            self.stop.push(partition);
        }
    }

    fn forget(&mut self, partition: TopicPartition) -> bool {
        match self.partitions.remove(&partition) {
            Some(Followed {
                phase: Phase::Resting(until),
                ..
            }) => {
                self.resting.remove(&(until, partition));
                true
            }
            other => other.is_some(),
        }
    }

    /// A new connection: the whole window may be granted, every conversation begins anew.
    pub fn connected(&mut self, now: Now) {
        self.returned = self.window.saturating_sub(self.appending_bytes);
        self.stop.clear();
        self.connected = true;
        self.last_heard = now;
        self.last_heartbeat = now;
        let open: Vec<_> = self.partitions.keys().copied().collect();
        for partition in open {
            let Some(followed) = self.partitions.get_mut(&partition) else {
                continue;
            };
            if followed.phase == Phase::Open {
                followed.phase = Phase::Settling(After::Start);
                self.settle(partition, now);
            }
        }
    }

    /// The connection is gone. What was received is still appended.
    pub fn disconnected(&mut self) {
        self.connected = false;
    }

    /// The leader is alive.
    pub fn on_heard(&mut self, now: Now) {
        self.last_heard = now;
    }

    /// Whether the leader has been silent for too long.
    pub fn is_silent(&self, now: Now) -> bool {
        now.since(self.last_heard) >= SILENCE
    }

    /// News from the leader. What the logs are to do about it is then in
    /// [`FollowerStream::take_work`].
    pub fn on_news(&mut self, news: News, now: Now) {
        let bytes = news.batch_bytes() as u64;
        let partition = news.partition;
        let current = self
            .partitions
            .get_mut(&partition)
            .filter(|followed| followed.phase == Phase::Open && followed.generation == news.generation);
        let Some(followed) = current else {
            self.returned += bytes;
            return;
        };
        let after = match followed.judge(&news) {
            Ok(()) => {
                self.receive(news);
                return;
            }
            Err(after) => after,
        };
        self.returned += bytes;
        self.close(partition, after, now);
    }

    /// Takes what is known to follow directly.
    fn receive(&mut self, news: News) {
        let partition = news.partition;
        let Some(followed) = self.partitions.get_mut(&partition) else {
            return;
        };
        let (previous, batches) = match news.content {
            Content::Batches {
                previous, batches, ..
            } => (previous, batches),
            // Positions wait for the appends before them: one pair for each partition is enough.
            _ if self.under_way.contains_key(&partition) => {
                followed.held = Some((news.high_watermark, news.log_start));
                return;
            }
            _ => (followed.expected, Bytes::new()),
        };
        followed.held = None;
        let append = AppendWork {
            partition,
            generation: news.generation,
            leader_epoch: followed.leader_epoch,
            previous,
            batches,
            high_watermark: news.high_watermark,
            log_start: news.log_start,
        };
        self.begin(append);
    }

    fn begin(&mut self, append: AppendWork) {
        *self.under_way.entry(append.partition).or_insert(0) += 1;
        self.appending_bytes += append.batches.len() as u64;
        self.work.push_back(Work::Append(append));
    }

    /// An append has ended: in the log (not necessarily durable) or not at all. `bytes` is the length
    /// of what was to be appended.
    pub fn on_appended(
        &mut self,
        partition: TopicPartition,
        generation: StreamGeneration,
        bytes: usize,
        appended: bool,
        now: Now,
    ) {
        self.returned += bytes as u64;
        self.appending_bytes = self.appending_bytes.saturating_sub(bytes as u64);
        let last = self.ended(partition);
        let Some(followed) = self.partitions.get_mut(&partition) else {
            return;
        };
        match followed.phase {
            Phase::Settling(_) if last => self.settle(partition, now),
            Phase::Open if followed.generation == generation => {
                if !appended {
                    self.close(partition, After::Rest, now);
                    return;
                }
                followed.went_well();
                if last && self.lane == Lane::CatchingUp && !followed.behind {
                    self.close(partition, After::Move, now);
                    return;
                }
                let held = if last { followed.held.take() } else { None };
                if let Some((high_watermark, log_start)) = held {
                    let append = AppendWork {
                        partition,
                        generation,
                        leader_epoch: followed.leader_epoch,
                        previous: followed.expected,
                        batches: Bytes::new(),
                        high_watermark,
                        log_start,
                    };
                    self.begin(append);
                }
                self.on_progress(partition);
            }
            _ => {}
        }
    }

    /// Counts a piece of work as ended; whether it was the last one of its partition.
    fn ended(&mut self, partition: TopicPartition) -> bool {
        match self.under_way.get_mut(&partition) {
            Some(count) if *count > 1 => {
                *count -= 1;
                false
            }
            _ => self.under_way.remove(&partition).is_some(),
        }
    }

    /// A truncation or a restart has ended.
    pub fn on_mended(&mut self, partition: TopicPartition, mended: bool, now: Now) {
        self.ended(partition);
        if let Some(followed) = self.partitions.get_mut(&partition) {
            if followed.phase == Phase::Mending {
                followed.phase = Phase::Settling(if mended { After::Start } else { After::Rest });
            }
            if !mended {
                // The log could not be cut now, for want of space say: the same answer is to be tried again.
                followed.diverged_at = None;
            }
            // An assignment during the work has waited for its end.
            self.settle(partition, now);
        }
    }

    /// The replica's log has become durable further on.
    pub fn on_progress(&mut self, partition: TopicPartition) {
        if let Some(followed) = self.partitions.get_mut(&partition)
            && followed.phase == Phase::Open
            && !followed.queued
        {
            followed.queued = true;
            self.tell.push_back(partition);
        }
    }

    /// Time has passed.
    pub fn on_tick(&mut self, now: Now) {
        while let Some(&(until, partition)) = self.resting.first() {
            if until > now {
                break;
            }
            self.resting.pop_first();
            if let Some(followed) = self.partitions.get_mut(&partition)
                && followed.phase == Phase::Resting(until)
            {
                followed.phase = Phase::Settling(After::Start);
                self.settle(partition, now);
            }
        }
    }

    /// When something is due without anything happening. What needs a message is left out where none
    /// can be sent.
    pub fn next_deadline(&self, can_speak: bool) -> Option<Now> {
        let heartbeat = can_speak.then(|| self.last_heartbeat.after(HEARTBEAT));
        let silence = self.connected.then(|| self.last_heard.after(SILENCE));
        let rest = self.resting.first().map(|&(until, _)| until);
        [heartbeat, silence, rest].into_iter().flatten().min()
    }

    /// The next piece of work for a log.
    pub fn take_work(&mut self) -> Option<Work> {
        self.work.pop_front()
    }

    /// Partitions that belong on the other lane; they are not followed here any more.
    pub fn take_moves(&mut self) -> Vec<TopicPartition> {
        std::mem::take(&mut self.moves)
    }

    /// What the leader is to be told now, if anything.
    pub fn message(&mut self, now: Now, view: &dyn FollowerView) -> Option<StreamMessage> {
        let mut message = StreamMessage {
            heartbeat: now.since(self.last_heartbeat) >= HEARTBEAT,
            stop: std::mem::take(&mut self.stop),
            ..Default::default()
        };
        while message.fetches.len() < FETCHES_MAX {
            let Some(partition) = self.tell.pop_front() else {
                break;
            };
            message.fetches.extend(self.fetch(partition, now, view));
        }
        // A few grants a window: enough not to starve the leader, few enough not to be traffic.
        let due = self.returned >= self.window.div_ceil(4);
        let empty = message.fetches.is_empty() && message.stop.is_empty() && !message.heartbeat;
        if empty && !due {
            return None;
        }
        message.credit = std::mem::take(&mut self.returned);
        if message.heartbeat {
            self.last_heartbeat = now;
        }
        Some(message)
    }

    fn fetch(&mut self, partition: TopicPartition, now: Now, view: &dyn FollowerView) -> Option<Fetch> {
        let followed = self.partitions.get_mut(&partition)?;
        if !std::mem::take(&mut followed.queued) {
            return None;
        }
        let following = view
            .following(partition)
            .filter(|at| at.leader == self.leader && at.leader_epoch == followed.leader_epoch);
        match followed.phase {
            Phase::Starting => {
                let Some(following) = following else {
                    // Its role is changing: the next assignment tells, or the next try.
                    self.close(partition, After::Rest, now);
                    return None;
                };
                self.generation += 1;
                followed.generation = StreamGeneration(self.generation);
                followed.phase = Phase::Open;
                followed.expected = following.position.log_end;
                followed.held = None;
                followed.behind = true;
                followed.told = following.position;
            }
            Phase::Open => {
                let position = following?.position;
                if position.durable <= followed.told.durable {
                    return None;
                }
                followed.told = position;
            }
            _ => return None,
        }
        Some(Fetch {
            partition,
            generation: followed.generation,
            fetch: FollowerFetch {
                leader_epoch: followed.leader_epoch,
                position: followed.told,
            },
        })
    }

    /// Ends the conversation; `after` is done when no append is under way.
    fn close(&mut self, partition: TopicPartition, after: After, now: Now) {
        if let Some(followed) = self.partitions.get_mut(&partition) {
            followed.phase = Phase::Settling(after);
            self.settle(partition, now);
        }
    }

    fn settle(&mut self, partition: TopicPartition, now: Now) {
        if self.under_way.contains_key(&partition) {
            return;
        }
        let Some(followed) = self.partitions.get_mut(&partition) else {
            return;
        };
        let Phase::Settling(after) = followed.phase else {
            return;
        };
        let (leader_epoch, judged) = (followed.leader_epoch, followed.told);
        match after {
            After::Start => {
                followed.phase = Phase::Starting;
                if !std::mem::replace(&mut followed.queued, true) {
                    self.tell.push_back(partition);
                }
            }
            After::Rest => {
                let until = now.after(followed.next_rest());
                followed.phase = Phase::Resting(until);
                self.resting.insert((until, partition));
            }
            After::Mend(mend) => {
                followed.phase = Phase::Mending;
                self.under_way.insert(partition, 1);
                self.work.push_back(Work::Mend(MendWork {
                    partition,
                    leader_epoch,
                    judged,
                    mend,
                }));
            }
            After::Move => {
                self.unassign(partition);
                self.moves.push(partition);
            }
        }
    }
}
