//! The leader's side on the internal port: the `Replication` service, one task a stream.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use metadata::ClusterImage;
use protocol::grpc::v1::replication_server::{Replication, ReplicationServer};
use protocol::grpc::v1::{FollowerMessage, LeaderMessage};
use protocol::{BrokerEpoch, BrokerId, ErrorCode, TopicPartition};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::moved::Moved;
use super::ports::{LeaderPartitions, LocalBroker, Subscription};
use super::stream_state::{LeaderStream, LeaderView, Order, ReadOrder};
use super::wire::{Fetch, News, WireError, partition_from_wire};
use super::{HEARTBEAT, SILENCE};
use crate::exchange::{FetchVerdict, FollowerFetch, Leading, ReplicaRead};

/// What a follower's message may take, in bytes: it carries positions only.
const FOLLOWER_MESSAGE_BYTES: usize = 16 << 20;
/// A message to a follower is closed when it has so many bytes of batches.
const MESSAGE_BYTES: usize = 1 << 20;
/// Or when it has so much news.
const MESSAGE_NEWS: usize = 4_096;
/// No more is read ahead while so many bytes wait to be sent.
const OUTBOX_BYTES: usize = 2 << 20;
/// No more is taken from a follower, and half of it no more is said of one's own accord, while so much
/// news waits: a follower that speaks and does not listen cannot fill the leader's memory.
const OUTBOX_NEWS: usize = 1 << 17;
/// Reads of different partitions that run side by side.
const READS_MAX: usize = 8;
/// Messages between the task and the connection.
const CHANNEL_MESSAGES: usize = 2;
/// A follower hears its leader's silence first; the leader only cleans up.
const FOLLOWER_SILENCE: Duration = SILENCE.saturating_mul(2);

/// Answers followers.
#[derive(Clone)]
pub struct LeaderService {
    local: Arc<dyn LocalBroker>,
    partitions: Arc<dyn LeaderPartitions>,
    stop: CancellationToken,
}

impl std::fmt::Debug for LeaderService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LeaderService").finish_non_exhaustive()
    }
}

/// The service as the internal port mounts it. Its server sets the windows and the frame size of
/// [`super`], and TCP_NODELAY on the accepted connections.
pub fn replication_server(service: LeaderService) -> ReplicationServer<LeaderService> {
    ReplicationServer::new(service).max_decoding_message_size(FOLLOWER_MESSAGE_BYTES)
}

impl LeaderService {
    /// A service whose streams end when `stop` is cancelled.
    pub fn new(
        local: Arc<dyn LocalBroker>,
        partitions: Arc<dyn LeaderPartitions>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            local,
            partitions,
            stop,
        }
    }

    /// The follower that a stream's first message introduces.
    fn greet(&self, first: &FollowerMessage) -> Result<Follower, Status> {
        let hello = first
            .hello
            .as_ref()
            .ok_or_else(|| Status::invalid_argument("a replication stream begins with a hello"))?;
        let node = hello
            .hello
            .as_ref()
            .ok_or_else(|| Status::invalid_argument("the hello names no node"))?;
        self.local.check(node)?;
        let follower = Follower {
            id: BrokerId(node.node_id),
            epoch: BrokerEpoch(hello.broker_epoch),
        };
        follower.check(&self.partitions.image())?;
        Ok(follower)
    }
}

/// One incarnation of a broker, on the other end of a stream.
#[derive(Clone, Copy, Debug)]
struct Follower {
    id: BrokerId,
    epoch: BrokerEpoch,
}

impl Follower {
    /// Whether it is the incarnation that the metadata knows.
    fn check(self, image: &ClusterImage) -> Result<(), Status> {
        let Self { id, epoch } = self;
        match image.brokers.get(&id) {
            Some(known) if known.epoch == epoch => Ok(()),
            Some(known) if known.epoch > epoch => Err(Status::failed_precondition(format!(
                "broker {id} presents epoch {epoch}, which a registration in epoch {} has ended",
                known.epoch
            ))),
            // This broker's metadata lags: the same greeting will fit in a moment.
            _ => Err(Status::unavailable(format!(
                "broker {id} in epoch {epoch} is not known here yet"
            ))),
        }
    }
}

#[tonic::async_trait]
impl Replication for LeaderService {
    type ReplicateStream = ReceiverStream<Result<LeaderMessage, Status>>;

    async fn replicate(
        &self,
        request: Request<Streaming<FollowerMessage>>,
    ) -> Result<Response<Self::ReplicateStream>, Status> {
        let mut inbound = request.into_inner();
        let first = timeout(SILENCE, inbound.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no hello came"))??
            .ok_or_else(|| Status::invalid_argument("the stream ended before its hello"))?;
        let follower = self.greet(&first)?;
        let (outbound, messages) = mpsc::channel(CHANNEL_MESSAGES);
        let view = View {
            follower,
            partitions: Arc::clone(&self.partitions),
        };
        let task = StreamTask {
            view,
            state: LeaderStream::new(),
            moved: Arc::default(),
            subscriptions: HashMap::new(),
            reads: FuturesUnordered::new(),
            outbox: Outbox::default(),
            heard: Instant::now(),
            sent: Instant::now(),
        };
        let stop = self.stop.clone();
        tokio::spawn(async move {
            let ended = tokio::select! {
                ended = task.run(first, inbound, outbound.clone()) => ended,
                () = stop.cancelled() => Err(Status::unavailable("the broker is shutting down")),
            };
            match ended {
                Ok(()) => tracing::debug!(follower = %follower.id, "replication stream ended"),
                Err(status) => {
                    tracing::info!(follower = %follower.id, reason = status.message(), "replication stream ended");
                    // A follower that does not read does not hear why.
                    let _ = outbound.try_send(Err(status));
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(messages)))
    }
}

/// The view of one follower on the partitions.
struct View {
    follower: Follower,
    partitions: Arc<dyn LeaderPartitions>,
}

impl LeaderView for View {
    fn fetch(&self, partition: TopicPartition, fetch: &FollowerFetch) -> Result<FetchVerdict, ErrorCode> {
        self.partitions
            .fetch(self.follower.id, self.follower.epoch, partition, fetch)
    }

    fn positions(&self, partition: TopicPartition) -> Result<Leading, ErrorCode> {
        self.partitions.positions(partition)
    }
}

type ReadOutcome = (ReadOrder, Result<ReplicaRead, ErrorCode>);

struct StreamTask {
    view: View,
    state: LeaderStream,
    moved: Arc<Moved>,
    subscriptions: HashMap<TopicPartition, Subscription>,
    reads: FuturesUnordered<BoxFuture<'static, ReadOutcome>>,
    outbox: Outbox,
    heard: Instant,
    sent: Instant,
}

impl StreamTask {
    /// Until the follower ends the stream, or an error ends it.
    async fn run(
        mut self,
        first: FollowerMessage,
        mut inbound: Streaming<FollowerMessage>,
        outbound: mpsc::Sender<Result<LeaderMessage, Status>>,
    ) -> Result<(), Status> {
        self.hear(first)?;
        loop {
            self.serve();
            tokio::select! {
                message = inbound.message(), if self.outbox.news < OUTBOX_NEWS => match message? {
                    Some(message) => self.hear(message)?,
                    None => return Ok(()),
                },
                Some((order, outcome)) = self.reads.next() => self.take_read(&order, outcome),
                () = self.moved.wait() => {
                    for partition in self.moved.take() {
                        self.state.on_progress(partition);
                    }
                }
                permit = outbound.reserve(), if !self.outbox.is_empty() => {
                    let Ok(permit) = permit else {
                        return Ok(());
                    };
                    if let Some(message) = self.outbox.pop() {
                        permit.send(Ok(message));
                        self.sent = Instant::now();
                    }
                }
                () = sleep_until(self.sent + HEARTBEAT), if self.outbox.is_empty() => {
                    self.view.follower.check(&self.view.partitions.image())?;
                    self.outbox.push_heartbeat();
                }
                () = sleep_until(self.heard + FOLLOWER_SILENCE) => {
                    return Err(Status::deadline_exceeded("the follower has been silent for too long"));
                }
            }
        }
    }

    fn hear(&mut self, message: FollowerMessage) -> Result<(), Status> {
        self.heard = Instant::now();
        for stopped in &message.stop {
            let partition = partition_from_wire(stopped).map_err(malformed)?;
            self.state.on_stop(partition);
            self.subscriptions.remove(&partition);
        }
        self.state.on_credit(message.credit);
        for fetch in &message.fetches {
            let fetch = Fetch::from_wire(fetch).map_err(malformed)?;
            let news = self.state.on_fetch(&fetch, &self.view);
            self.say(news);
            self.subscribe(fetch.partition);
        }
        if message.heartbeat {
            for news in self.state.on_heartbeat(&self.view) {
                self.say(Some(news));
            }
        }
        Ok(())
    }

    /// Before the state first looks at a new conversation's partition, so that no move is missed.
    fn subscribe(&mut self, partition: TopicPartition) {
        if self.state.contains(partition) && !self.subscriptions.contains_key(&partition) {
            let listener = Arc::clone(&self.moved);
            if let Some(subscription) = self.view.partitions.subscribe(partition, listener) {
                self.subscriptions.insert(partition, subscription);
            }
        }
    }

    fn say(&mut self, news: Option<News>) {
        if let Some(news) = news {
            if !self.state.contains(news.partition) {
                self.subscriptions.remove(&news.partition);
            }
            self.outbox.push(news);
        }
    }

    fn take_read(&mut self, order: &ReadOrder, outcome: Result<ReplicaRead, ErrorCode>) {
        let news = self.state.on_read(order, outcome, &self.view);
        self.say(news);
    }

    /// Has the state give its orders, as far as there is room for what they bring.
    fn serve(&mut self) {
        while self.reads.len() < READS_MAX
            && self.outbox.bytes < OUTBOX_BYTES
            && self.outbox.news < OUTBOX_NEWS / 2
        {
            match self.state.next(&self.view) {
                Some(Order::Say(news)) => self.say(Some(news)),
                Some(Order::Read(order)) => {
                    let read = self.view.partitions.read(order);
                    self.reads.push(Box::pin(async move { (order, read.await) }));
                }
                None => return,
            }
        }
    }
}

fn malformed(error: WireError) -> Status {
    Status::invalid_argument(error.to_string())
}

/// News that waits to be sent, packed into messages.
#[derive(Default)]
struct Outbox {
    messages: VecDeque<(LeaderMessage, usize)>,
    /// Of batches.
    bytes: usize,
    news: usize,
}

impl Outbox {
    fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    fn push(&mut self, news: News) {
        let bytes = news.batch_bytes();
        self.bytes += bytes;
        self.news += 1;
        match self.messages.back_mut() {
            Some((message, size)) if *size + bytes <= MESSAGE_BYTES && message.data.len() < MESSAGE_NEWS => {
                message.data.push(news.into_wire());
                *size += bytes;
            }
            _ => {
                let message = LeaderMessage {
                    data: vec![news.into_wire()],
                    heartbeat: false,
                };
                self.messages.push_back((message, bytes));
            }
        }
    }

    fn push_heartbeat(&mut self) {
        let message = LeaderMessage {
            data: Vec::new(),
            heartbeat: true,
        };
        self.messages.push_back((message, 0));
    }

    fn pop(&mut self) -> Option<LeaderMessage> {
        let (message, bytes) = self.messages.pop_front()?;
        self.bytes -= bytes;
        self.news -= message.data.len();
        Some(message)
    }
}
