//! One lane to one leader: the task that keeps its stream open, hands what comes to the logs, and
//! tells the leader how far they are.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use protocol::grpc::v1::{FollowerMessage, LeaderMessage, ReplicationHello};
use protocol::{BrokerEpoch, LeaderEpoch, StreamGeneration, TopicPartition};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::SILENCE;
use super::link::Link;
use super::moved::Moved;
use super::ports::{FollowerPartitions, LocalBroker, Subscription};
use super::stream_state::{FollowerStream, Lane, StreamMessage, Work};
use super::wire::{News, partition_to_wire};
use crate::Now;

/// Bytes of batches that a lane holds at most, and one batch more: less than a stream's HTTP/2 window,
/// and both lanes together less than the connection's.
const IN_SYNC_WINDOW_BYTES: u64 = 8 << 20;
const CATCHING_UP_WINDOW_BYTES: u64 = 4 << 20;
/// Messages between the task and the connection.
const CHANNEL_MESSAGES: usize = 4;
const RECONNECT_MIN: Duration = Duration::from_millis(20);
const RECONNECT_MAX: Duration = Duration::from_secs(1);
/// Failures to connect before one is a warning, and the rate of warnings after that.
const QUIET_FAILURES: u32 = 5;

/// Tells one assignment of a partition to a lane from another one of the same partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Serial(pub(super) u64);

/// What a lane is told, in order.
#[derive(Clone, Copy, Debug)]
pub(super) enum LaneCommand {
    /// Follow the partition in this epoch.
    Assign {
        partition: TopicPartition,
        leader_epoch: LeaderEpoch,
        serial: Serial,
    },
    /// Do not follow it here any more.
    Unassign(TopicPartition),
}

/// A lane's wish: the partition belongs on the other one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Move {
    pub(super) partition: TopicPartition,
    pub(super) serial: Serial,
}

/// What a lane needs of its surroundings.
pub(super) struct LaneContext {
    pub(super) lane: Lane,
    pub(super) link: Arc<Link>,
    pub(super) local: Arc<dyn LocalBroker>,
    pub(super) partitions: Arc<dyn FollowerPartitions>,
    /// Called when a partition belongs on the other lane, after this one has let it go.
    pub(super) on_move: Box<dyn Fn(Move) + Send + Sync>,
}

/// Work on a log that has ended.
enum Done {
    Appended {
        partition: TopicPartition,
        generation: StreamGeneration,
        bytes: usize,
        appended: bool,
    },
    Mended {
        partition: TopicPartition,
        mended: bool,
    },
}

struct Connection {
    inbound: Streaming<LeaderMessage>,
    outbound: mpsc::Sender<FollowerMessage>,
    /// The registration that it was opened under.
    epoch: BrokerEpoch,
}

/// Where the lane's stream stands.
enum Stream {
    /// There is nothing to follow.
    Idle,
    Down {
        retry_at: Instant,
    },
    Opening(BoxFuture<'static, Result<Box<Connection>, Status>>),
    Up(Box<Connection>),
}

/// What woke the task.
enum Event {
    Command(LaneCommand),
    Done(Done),
    Moved,
    Timer,
    Opened(Result<Box<Connection>, Status>),
    Message(Result<Option<LeaderMessage>, Status>),
    RoomToSend,
}

/// The task of one lane.
pub(super) struct LaneTask {
    context: LaneContext,
    state: FollowerStream,
    stream: Stream,
    began: Instant,
    moved: Arc<Moved>,
    assigned: HashMap<TopicPartition, (Serial, Option<Subscription>)>,
    under_way: FuturesUnordered<BoxFuture<'static, Done>>,
    failures: u32,
    /// The connection takes no message at the moment.
    full: bool,
}

impl LaneTask {
    pub(super) fn new(context: LaneContext) -> Self {
        let window = match context.lane {
            Lane::InSync => IN_SYNC_WINDOW_BYTES,
            Lane::CatchingUp => CATCHING_UP_WINDOW_BYTES,
        };
        let began = Instant::now();
        Self {
            state: FollowerStream::new(context.link.leader(), context.lane, window, Now(0)),
            context,
            stream: Stream::Idle,
            began,
            moved: Arc::default(),
            assigned: HashMap::new(),
            under_way: FuturesUnordered::new(),
            failures: 0,
            full: false,
        }
    }

    /// Until the lane's owner is gone or `stop` is cancelled.
    pub(super) async fn run(
        mut self,
        mut commands: mpsc::UnboundedReceiver<LaneCommand>,
        stop: CancellationToken,
    ) {
        loop {
            self.advance();
            let can_speak = matches!(self.stream, Stream::Up(_)) && !self.full;
            let deadline = self.state.next_deadline(can_speak).map(|at| self.instant(at));
            let event = tokio::select! {
                () = stop.cancelled() => return,
                command = commands.recv() => match command {
                    Some(command) => Event::Command(command),
                    None => return,
                },
                Some(done) = self.under_way.next() => Event::Done(done),
                () = self.moved.wait() => Event::Moved,
                event = next_event(&mut self.stream, self.full) => event,
                () = wait_until(deadline) => Event::Timer,
            };
            self.take(event);
            // What else is there already goes into the same message to the leader.
            while let Ok(command) = commands.try_recv() {
                self.take(Event::Command(command));
            }
        }
    }

    fn now(&self) -> Now {
        Now(self.began.elapsed().as_millis() as u64)
    }

    fn instant(&self, at: Now) -> Instant {
        self.began + Duration::from_millis(at.0)
    }

    fn take(&mut self, event: Event) {
        let now = self.now();
        match event {
            Event::Command(LaneCommand::Assign {
                partition,
                leader_epoch,
                serial,
            }) => {
                let subscription = match self.assigned.remove(&partition) {
                    Some((_, Some(subscription))) => Some(subscription),
                    _ => {
                        let listener = Arc::clone(&self.moved);
                        self.context.partitions.subscribe(partition, listener)
                    }
                };
                self.assigned.insert(partition, (serial, subscription));
                self.state.assign(partition, leader_epoch);
                // A leader that was given up may be back: the metadata has news about it.
                if let Stream::Down { retry_at } = &mut self.stream {
                    *retry_at = (*retry_at).min(Instant::now() + RECONNECT_MIN);
                }
            }
            Event::Command(LaneCommand::Unassign(partition)) => {
                self.assigned.remove(&partition);
                self.state.unassign(partition);
            }
            Event::Done(Done::Appended {
                partition,
                generation,
                bytes,
                appended,
            }) => self
                .state
                .on_appended(partition, generation, bytes, appended, now),
            Event::Done(Done::Mended { partition, mended }) => self.state.on_mended(partition, mended, now),
            Event::Moved => {
                for partition in self.moved.take() {
                    self.state.on_progress(partition);
                }
            }
            Event::Timer => {}
            Event::Opened(Ok(connection)) => {
                self.state.connected(now);
                self.context.link.found();
                self.full = false;
                self.stream = Stream::Up(connection);
            }
            Event::Opened(Err(status)) => self.down(&status),
            Event::Message(Ok(Some(message))) => self.hear(message, now),
            Event::Message(Ok(None)) => self.down(&Status::unavailable("the leader ended the stream")),
            Event::Message(Err(status)) => self.down(&status),
            Event::RoomToSend => self.full = false,
        }
        self.state.on_tick(now);
    }

    fn hear(&mut self, message: LeaderMessage, now: Now) {
        self.failures = 0;
        self.state.on_heard(now);
        for data in message.data {
            match News::from_wire(data) {
                Ok(news) => self.state.on_news(news, now),
                Err(error) => {
                    self.down(&Status::invalid_argument(error.to_string()));
                    return;
                }
            }
        }
    }

    /// Does what the state wants: work for the logs, moves, a connection, a message.
    fn advance(&mut self) {
        let now = self.now();
        while let Some(work) = self.state.take_work() {
            self.begin(work);
        }
        for partition in self.state.take_moves() {
            if let Some((serial, _)) = self.assigned.remove(&partition) {
                (self.context.on_move)(Move { partition, serial });
            }
        }
        if self.state.is_empty() {
            // The stops of the last partitions need no telling: the stream ends.
            self.stream = Stream::Idle;
            self.state.disconnected();
            return;
        }
        match &self.stream {
            Stream::Idle => self.stream = Stream::Opening(self.open()),
            Stream::Down { retry_at } if *retry_at <= Instant::now() => {
                self.stream = Stream::Opening(self.open());
            }
            Stream::Up(connection) => {
                if self.state.is_silent(now) {
                    self.down(&Status::deadline_exceeded("the leader is silent"));
                } else if self
                    .context
                    .local
                    .epoch()
                    .is_some_and(|epoch| epoch != connection.epoch)
                {
                    self.down(&Status::aborted("this broker has registered again"));
                } else {
                    self.speak(now);
                }
            }
            _ => {}
        }
    }

    fn speak(&mut self, now: Now) {
        let Stream::Up(connection) = &self.stream else {
            return;
        };
        self.full = false;
        loop {
            let Ok(permit) = connection.outbound.try_reserve() else {
                self.full = true;
                return;
            };
            let Some(message) = self.state.message(now, &*self.context.partitions) else {
                return;
            };
            permit.send(to_wire(message));
        }
    }

    fn begin(&mut self, work: Work) {
        let partitions = &self.context.partitions;
        let done: BoxFuture<'static, Done> = match work {
            Work::Append(append) => {
                let (partition, generation, bytes) =
                    (append.partition, append.generation, append.batches.len());
                let appending = partitions.append(append);
                Box::pin(async move {
                    Done::Appended {
                        partition,
                        generation,
                        bytes,
                        appended: appending.await,
                    }
                })
            }
            Work::Mend(mend) => {
                let partition = mend.partition;
                let mending = partitions.mend(mend);
                Box::pin(async move {
                    Done::Mended {
                        partition,
                        mended: mending.await,
                    }
                })
            }
        };
        self.under_way.push(done);
    }

    fn open(&self) -> BoxFuture<'static, Result<Box<Connection>, Status>> {
        let client = self.context.link.client(&self.context.partitions.image());
        let epoch = self.context.local.epoch();
        let hello = self.context.local.hello(self.context.link.leader());
        Box::pin(async move {
            let mut client = client.map_err(|error| Status::unavailable(error.to_string()))?;
            let epoch = epoch.ok_or_else(|| Status::unavailable("this broker is not registered yet"))?;
            let (outbound, messages) = mpsc::channel(CHANNEL_MESSAGES);
            let first = FollowerMessage {
                hello: Some(ReplicationHello {
                    hello: Some(hello),
                    broker_epoch: epoch.get(),
                }),
                ..Default::default()
            };
            outbound
                .try_send(first)
                .map_err(|_| Status::internal("the hello did not fit an empty channel"))?;
            let opened = timeout(SILENCE, client.replicate(ReceiverStream::new(messages)));
            let inbound = opened
                .await
                .map_err(|_| Status::deadline_exceeded("the leader did not answer the hello"))??
                .into_inner();
            Ok(Box::new(Connection {
                inbound,
                outbound,
                epoch,
            }))
        })
    }

    fn down(&mut self, status: &Status) {
        let wait = RECONNECT_MIN
            .saturating_mul(1 << self.failures.min(10))
            .min(RECONNECT_MAX);
        self.failures = self.failures.saturating_add(1);
        let (leader, lane) = (self.context.link.leader(), self.context.lane.name());
        let reason = status.message();
        if self.failures.is_multiple_of(QUIET_FAILURES) {
            tracing::warn!(%leader, lane, failures = self.failures, reason, "no replication stream to the leader");
        } else {
            tracing::debug!(%leader, lane, reason, "the replication stream to the leader broke");
        }
        if matches!(self.stream, Stream::Up(_)) {
            self.context.link.lost();
        }
        self.state.disconnected();
        self.stream = Stream::Down {
            retry_at: Instant::now() + wait,
        };
    }
}

/// The next event of the stream itself. Cancel-safe: nothing is taken before it is returned.
async fn next_event(stream: &mut Stream, full: bool) -> Event {
    match stream {
        Stream::Idle => std::future::pending().await,
        Stream::Down { retry_at } => {
            sleep_until(*retry_at).await;
            Event::Timer
        }
        Stream::Opening(opening) => Event::Opened(opening.await),
        Stream::Up(connection) => tokio::select! {
            message = connection.inbound.message() => Event::Message(message),
            // A closed channel has room too: the stream's end comes by `inbound`.
            _ = connection.outbound.reserve(), if full => Event::RoomToSend,
        },
    }
}

async fn wait_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn to_wire(message: StreamMessage) -> FollowerMessage {
    FollowerMessage {
        hello: None,
        fetches: message
            .fetches
            .into_iter()
            .map(super::wire::Fetch::to_wire)
            .collect(),
        credit: message.credit,
        stop: message.stop.into_iter().map(partition_to_wire).collect(),
        heartbeat: message.heartbeat,
    }
}
