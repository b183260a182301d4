//! One stream of records: reads from whoever leads, and sends what the client takes.
//!
//! ```text
//!   idle ──▶ polled at its leader ──▶ its records are sent ──▶ idle
//!    ▲                │ the leader has changed, does not answer, refuses: a moment later
//!    └────────────────┘
//! ```
//! A partition's next offset moves only when its records are handed to the stream, and it is in one poll at a
//! time: so nothing is repeated or left out, whoever leads. While the client does not read, nothing is
//! polled, and soon nothing is held: what it has not taken is read again.

mod sending;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use metadata::ClusterImage;
use protocol::grpc::v1::FetchResponse;
use protocol::{
    BrokerId, ErrorCode, LeaderEpoch, Offset, PartitionIndex, TopicId, TopicName, TopicPartition,
};
use replication::{FetchedRecords, Isolation};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;

use super::ahead::{Held, ReadAhead};
use super::status;
use crate::context::BrokerContext;
use crate::partitions::read::Limits;
use crate::relay::{PartitionRead, Relay};

/// How long a leader waits for the first record.
const WAIT: Duration = Duration::from_secs(1);
/// Before a partition is tried again whose leader refused.
const PAUSE: Duration = Duration::from_millis(50);
/// Before a partition is tried again that had nothing, while others wait for their turn to hold something.
const TURN: Duration = Duration::from_millis(250);
/// Polls at one leader at a time: a partition that has just come to it need not wait for those that were
/// there before.
const POLLS_PER_LEADER: usize = 2;
/// For how long damaged records are asked for again: where there is another replica, it takes over.
const DAMAGED_FOR: Duration = Duration::from_secs(10);

/// What a stream reads.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) topic: TopicId,
    pub(super) name: TopicName,
    /// Whether partitions are read that the topic gets later.
    pub(super) new_partitions: bool,
    pub(super) stop_at_end: bool,
    pub(super) isolation: Isolation,
    /// Bytes that are read ahead of the client at each leader.
    pub(super) max_bytes: usize,
    pub(super) ahead: ReadAhead,
    /// The client's own.
    pub(super) deadline: Option<Instant>,
}

/// How far one partition was sent.
#[derive(Debug)]
struct Cursor {
    next: Offset,
    /// The epoch of the last record that was sent.
    epoch: Option<LeaderEpoch>,
    /// Where to stop, once that is known.
    end: Option<Offset>,
    /// Not to be polled before.
    not_before: Option<Instant>,
    damaged_since: Option<Instant>,
}

/// What one poll brought.
struct Polled {
    leader: BrokerId,
    partitions: Vec<PartitionIndex>,
    found: Vec<Result<FetchedRecords, ErrorCode>>,
    /// As much as was found, until it is handed out.
    held: Held,
    /// How much that is, in bytes.
    bytes: usize,
}

/// The task behind one stream.
pub(super) struct Reader {
    broker: BrokerContext,
    relay: Relay,
    reading: Reading,
    /// Of every partition that is not at its end.
    cursors: BTreeMap<PartitionIndex, Cursor>,
    /// Partitions that are in no poll: those that had nothing come first.
    idle: VecDeque<PartitionIndex>,
    /// Each a task of its own: what a client does not read must not stay in a connection that all share.
    polls: FuturesUnordered<AbortOnDropHandle<Polled>>,
    polls_at: HashMap<BrokerId, usize>,
    /// What a poll brings at most, as far as is known: one batch may be larger than what is asked for.
    largest_poll: usize,
    /// Partitions that the topic had when it was last looked at.
    seen: usize,
    out: mpsc::Sender<Result<FetchResponse, Status>>,
}

impl Reader {
    pub(super) fn new(
        broker: BrokerContext,
        relay: Relay,
        reading: Reading,
        offsets: Vec<(PartitionIndex, Offset)>,
        out: mpsc::Sender<Result<FetchResponse, Status>>,
    ) -> Self {
        let seen = offsets.len();
        let mut reader = Self {
            largest_poll: (reading.max_bytes / POLLS_PER_LEADER).max(1),
            broker,
            relay,
            reading,
            cursors: BTreeMap::new(),
            idle: VecDeque::new(),
            polls: FuturesUnordered::new(),
            polls_at: HashMap::new(),
            seen,
            out,
        };
        for (partition, offset) in offsets {
            reader.add(partition, offset);
        }
        reader
    }

    fn add(&mut self, partition: PartitionIndex, next: Offset) {
        let cursor = Cursor {
            next,
            epoch: None,
            end: None,
            not_before: None,
            damaged_since: None,
        };
        self.cursors.insert(partition, cursor);
        self.idle.push_back(partition);
    }

    /// Runs until the stream's end, or until the client is gone.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let out = self.out.clone();
        let deadline = self.reading.deadline;
        let ended = tokio::select! {
            ended = self.read() => ended,
            () = out.closed() => return,
            () = stop.cancelled() => Err(Status::unavailable("the broker is shutting down")),
            () = reached(deadline) => Err(Status::deadline_exceeded("the call's deadline has passed")),
        };
        if let Err(status) = ended {
            // A client that is gone needs no reason.
            let _ = out.send(Err(status)).await;
        }
    }

    async fn read(&mut self) -> Result<(), Status> {
        let mut images = self.broker.images.subscribe();
        loop {
            let image = Arc::clone(&images.borrow_and_update());
            self.look_at(&image)?;
            if self.cursors.is_empty() {
                return Ok(());
            }
            let again = self.poll_idle(&image);
            tokio::select! {
                Some(polled) = self.polls.next() => match polled {
                    Ok(polled) => if let Some(stalled) = self.take(polled).await? {
                        self.let_go(stalled);
                        // The client has taken what waits.
                        let room = self.out.reserve().await;
                        room.map_err(|_| Status::cancelled("the client is gone"))?;
                    },
                    Err(error) => return Err(Status::internal(format!("a read failed: {error}"))),
                },
                () = reached(again) => {}
                changed = images.changed() => if changed.is_err() {
                    return Err(Status::unavailable("the broker is shutting down"));
                },
            }
        }
    }

    /// Gives back everything that is held for a client that does not read, and whatever is being polled;
    /// `partition` comes last when it goes on.
    fn let_go(&mut self, partition: PartitionIndex) {
        self.polls.clear();
        self.polls_at.clear();
        let (first, last): (Vec<_>, Vec<_>) =
            self.cursors.keys().copied().partition(|other| *other > partition);
        self.idle = first.into_iter().chain(last).collect();
    }

    /// Sees whether the topic is still there, and whether it has grown.
    fn look_at(&mut self, image: &ClusterImage) -> Result<(), Status> {
        let Some(topic) = image.topics.get(&self.reading.topic) else {
            let name = &self.reading.name;
            let why = if image.topic(name.as_str()).is_some() {
                format!("topic {name} was deleted; one that was created since has its name")
            } else {
                format!("topic {name} was deleted")
            };
            return Err(status::refused(ErrorCode::UnknownTopicId, why));
        };
        if self.reading.new_partitions && topic.partitions.len() > self.seen {
            for partition in self.seen..topic.partitions.len() {
                self.add(PartitionIndex(partition as i32), Offset::ZERO);
            }
            self.seen = topic.partitions.len();
        }
        Ok(())
    }

    /// Begins polls for what is idle. Returns when something is due that is not yet.
    fn poll_idle(&mut self, image: &Arc<ClusterImage>) -> Option<Instant> {
        let now = Instant::now();
        let mut later = None;
        let mut by_leader: BTreeMap<BrokerId, Vec<(PartitionIndex, LeaderEpoch)>> = BTreeMap::new();
        self.idle.retain(|partition| {
            let due = self.cursors.get(partition).and_then(|cursor| cursor.not_before);
            if let Some(due) = due.filter(|due| *due > now) {
                later = Some(later.map_or(due, |later: Instant| later.min(due)));
                return true;
            }
            let tp = TopicPartition::new(self.reading.topic, *partition);
            let known = image
                .partition(tp)
                .and_then(|known| Some((known.leader?, known.leader_epoch)));
            // Without a leader there is nothing to do until there is another image.
            let Some((leader, epoch)) = known else { return true };
            if self.polls_at.get(&leader).copied().unwrap_or(0) >= POLLS_PER_LEADER {
                return true;
            }
            by_leader.entry(leader).or_default().push((*partition, epoch));
            false
        });
        for (leader, partitions) in by_leader {
            *self.polls_at.entry(leader).or_default() += 1;
            self.polls.push(self.poll(leader, partitions));
        }
        later
    }

    fn poll(
        &self,
        leader: BrokerId,
        partitions: Vec<(PartitionIndex, LeaderEpoch)>,
    ) -> AbortOnDropHandle<Polled> {
        let reads: Vec<PartitionRead> = partitions
            .iter()
            .filter_map(|(partition, _)| {
                let cursor = self.cursors.get(partition)?;
                Some(PartitionRead {
                    tp: TopicPartition::new(self.reading.topic, *partition),
                    from: cursor.next,
                    last_epoch: cursor.epoch,
                })
            })
            .collect();
        let mut limits = Limits {
            isolation: self.reading.isolation,
            min_bytes: 1,
            max_bytes: (self.reading.max_bytes / POLLS_PER_LEADER).max(1),
            wait_until: None,
        };
        let (ahead, at_most) = (self.reading.ahead.clone(), self.largest_poll);
        let (relay, images, topic) = (
            self.relay.clone(),
            self.broker.images.subscribe(),
            self.reading.topic,
        );
        let poll = async move {
            let mut held = ahead.take(at_most).await;
            // While others wait for their turn, what is not there is not waited for.
            limits.wait_until = (!held.waited).then(|| Instant::now() + WAIT);
            let found = tokio::select! {
                found = relay.read(leader, &reads, limits) => found,
                // It may hang at a broker that does not lead any more.
                () = replaced(images, topic, &partitions) => {
                    vec![Err(ErrorCode::NotLeaderOrFollower); reads.len()]
                }
            };
            let bytes = found.iter().flatten().map(|found| found.records.len()).sum();
            held.shrink_to(bytes);
            Polled {
                leader,
                partitions: partitions.into_iter().map(|(partition, _)| partition).collect(),
                found,
                held,
                bytes,
            }
        };
        AbortOnDropHandle::new(tokio::spawn(poll))
    }

    /// Sends what a poll brought, up to the partition at which the client stopped to read, if it did.
    async fn take(&mut self, polled: Polled) -> Result<Option<PartitionIndex>, Status> {
        self.largest_poll = self.largest_poll.max(polled.bytes);
        if let Some(polls) = self.polls_at.get_mut(&polled.leader) {
            *polls -= 1;
        }
        for (partition, found) in polled.partitions.into_iter().zip(polled.found) {
            // A partition is in one poll at a time, and leaves the cursors only here.
            let Some(mut cursor) = self.cursors.remove(&partition) else {
                continue;
            };
            let before = cursor.next;
            let mut taken = true;
            match found {
                Ok(found) => {
                    let nothing = found.records.is_empty() && polled.held.waited;
                    cursor.not_before = nothing.then(|| Instant::now() + TURN);
                    cursor.damaged_since = None;
                    taken = self.send(partition, &mut cursor, found).await?;
                }
                Err(error) => self.failed(partition, &mut cursor, error)?,
            }
            if cursor.end.is_some_and(|end| cursor.next >= end) {
                continue;
            }
            if cursor.next == before {
                self.idle.push_front(partition);
            } else {
                self.idle.push_back(partition);
            }
            self.cursors.insert(partition, cursor);
            if !taken {
                return Ok(Some(partition));
            }
        }
        Ok(None)
    }

    /// Decides whether a partition that could not be read is tried again.
    fn failed(&self, partition: PartitionIndex, cursor: &mut Cursor, error: ErrorCode) -> Result<(), Status> {
        let now = Instant::now();
        let damaged = error == ErrorCode::CorruptMessage
            && now.duration_since(*cursor.damaged_since.get_or_insert(now)) >= DAMAGED_FOR;
        if damaged || !error.is_retriable() {
            let why = match error {
                ErrorCode::OffsetOutOfRange => "it is not in the log",
                ErrorCode::CorruptMessage => "the log is damaged",
                _ => "it cannot be read",
            };
            let why = format!("partition {partition} at offset {}: {why}", cursor.next);
            return Err(status::refused(error, why));
        }
        tracing::debug!(topic = %self.reading.name, %partition, %error, "reading again");
        cursor.not_before = Some(now + PAUSE);
        Ok(())
    }
}

/// Waits for a moment that may never come.
async fn reached(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// Waits until one of the partitions has another leader than in these epochs, or is gone.
async fn replaced(
    mut images: watch::Receiver<Arc<ClusterImage>>,
    topic: TopicId,
    partitions: &[(PartitionIndex, LeaderEpoch)],
) {
    let other = |image: &Arc<ClusterImage>| {
        partitions.iter().any(|(partition, epoch)| {
            image
                .partition(TopicPartition::new(topic, *partition))
                .is_none_or(|known| known.leader_epoch != *epoch)
        })
    };
    if images.wait_for(other).await.is_err() {
        // The store is gone, and with it this broker.
        std::future::pending::<()>().await;
    }
}
