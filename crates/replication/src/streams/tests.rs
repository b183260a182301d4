//! Both tasks over a real connection on loopback, with partitions in memory.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use metadata::{BrokerRegistration, ClusterImage};
use parking_lot::Mutex;
use protocol::grpc::v1::replication_client::ReplicationClient;
use protocol::grpc::v1::{FollowerMessage, InternalHello, PartitionFetch, ReplicationHello};
use protocol::{
    BrokerEpoch, BrokerId, ErrorCode, IncarnationId, LeaderEpoch, PartitionIndex, TopicId, TopicPartition,
};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tokio_stream::StreamExt as _;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Status};

use super::model::Model;
use super::stream_state::{AppendWork, FollowerView, MendWork, ReadOrder};
use super::{
    FetcherManager, FollowerPartitions, LeaderPartitions, LeaderService, LocalBroker, Subscription,
    replication_server,
};
use crate::exchange::{
    FetchVerdict, FollowerFetch, Followers, Following, Leading, ProgressListener, ReplicaRead,
};

const LEADER: BrokerId = BrokerId(1);
const FOLLOWER: BrokerId = BrokerId(2);
const PATIENCE: Duration = Duration::from_secs(60);

struct Broker {
    id: BrokerId,
    epoch: watch::Sender<Option<BrokerEpoch>>,
}

impl LocalBroker for Broker {
    fn hello(&self, expected: BrokerId) -> InternalHello {
        InternalHello {
            node_id: self.id.get(),
            expected_node_id: expected.get(),
            ..Default::default()
        }
    }

    fn check(&self, hello: &InternalHello) -> Result<(), Status> {
        if hello.expected_node_id == self.id.get() {
            Ok(())
        } else {
            Err(Status::failed_precondition("another node was expected"))
        }
    }

    fn epoch(&self) -> Option<BrokerEpoch> {
        *self.epoch.borrow()
    }
}

type Listeners = HashMap<TopicPartition, Vec<Arc<dyn ProgressListener>>>;

/// The partitions of both brokers.
#[derive(Default)]
struct Partitions {
    models: Mutex<BTreeMap<TopicPartition, Model>>,
    listeners: Mutex<Listeners>,
    changed: Notify,
    image: Mutex<Arc<ClusterImage>>,
}

impl Partitions {
    fn progressed(&self, partition: TopicPartition) {
        for listener in self.listeners.lock().get(&partition).into_iter().flatten() {
            listener.progressed(partition);
        }
        self.changed.notify_waiters();
    }

    fn with<T>(&self, partition: TopicPartition, act: impl FnOnce(&mut Model) -> T) -> T {
        let done = act(self.models.lock().entry(partition).or_default());
        self.progressed(partition);
        done
    }

    fn produce(&self, partition: TopicPartition, count: i64) {
        self.with(partition, |model| {
            for _ in 0..count {
                let value = model.leader.len() as i64;
                model.leader.push((model.epoch, value));
            }
        });
    }

    async fn wait_until(&self, met: impl Fn(&BTreeMap<TopicPartition, Model>) -> bool) {
        let waiting = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if met(&self.models.lock()) {
                    return;
                }
                changed.await;
            }
        };
        let met = timeout(PATIENCE, waiting).await.is_ok();
        assert!(met, "the condition was not met in time: {:?}", self.models.lock());
    }

    async fn wait_until_settled(&self) {
        self.wait_until(|models| models.values().all(Model::is_settled))
            .await;
    }
}

impl LeaderPartitions for Partitions {
    fn image(&self) -> Arc<ClusterImage> {
        Arc::clone(&self.image.lock())
    }

    fn fetch(
        &self,
        from: BrokerId,
        _: BrokerEpoch,
        partition: TopicPartition,
        fetch: &FollowerFetch,
    ) -> Result<FetchVerdict, ErrorCode> {
        assert_eq!(from, FOLLOWER);
        if !self.models.lock().contains_key(&partition) {
            return Err(ErrorCode::UnknownTopicId);
        }
        self.with(partition, |model| model.fetch(fetch))
    }

    fn positions(&self, partition: TopicPartition) -> Result<Leading, ErrorCode> {
        let models = self.models.lock();
        let model = models.get(&partition).ok_or(ErrorCode::UnknownTopicId)?;
        Ok(model.positions())
    }

    fn read(&self, order: ReadOrder) -> BoxFuture<'static, Result<ReplicaRead, ErrorCode>> {
        let read = self.models.lock()[&order.partition].read(&order);
        async move { read }.boxed()
    }

    fn subscribe(
        &self,
        partition: TopicPartition,
        listener: Arc<dyn ProgressListener>,
    ) -> Option<Subscription> {
        self.listeners.lock().entry(partition).or_default().push(listener);
        Some(Box::new(()))
    }
}

impl FollowerView for Partitions {
    fn following(&self, partition: TopicPartition) -> Option<Following> {
        let models = self.models.lock();
        Some(models.get(&partition)?.following(LEADER))
    }
}

impl FollowerPartitions for Partitions {
    fn image(&self) -> Arc<ClusterImage> {
        LeaderPartitions::image(self)
    }

    fn append(&self, append: AppendWork) -> BoxFuture<'static, bool> {
        let appended = self.with(append.partition, |model| {
            let appended = model.append(append.leader_epoch, append.previous, &append.batches);
            if appended {
                model.durable = model.follower.len();
                model.learn(append.high_watermark);
            }
            appended
        });
        async move { appended }.boxed()
    }

    fn mend(&self, work: MendWork) -> BoxFuture<'static, bool> {
        let mended = self.with(work.partition, |model| model.mend(&work));
        async move { mended }.boxed()
    }

    fn subscribe(
        &self,
        partition: TopicPartition,
        listener: Arc<dyn ProgressListener>,
    ) -> Option<Subscription> {
        LeaderPartitions::subscribe(self, partition, listener)
    }
}

/// A leader's internal port and a follower's fetchers, over shared partitions.
struct Pair {
    partitions: Arc<Partitions>,
    follower: Arc<Broker>,
    fetchers: FetcherManager,
    port: Option<Port>,
}

struct Port {
    address: SocketAddr,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

fn registration(id: BrokerId, epoch: i64, address: &str) -> Arc<BrokerRegistration> {
    Arc::new(BrokerRegistration {
        id,
        epoch: BrokerEpoch(epoch),
        incarnation: IncarnationId::ZERO,
        endpoints: Vec::new(),
        internal_address: address.to_owned(),
        rack: None,
        log_dirs: Vec::new(),
        fenced: false,
        in_controlled_shutdown: false,
        version: String::new(),
    })
}

impl Pair {
    fn new() -> Self {
        let partitions = Arc::new(Partitions::default());
        let follower = Arc::new(Broker {
            id: FOLLOWER,
            epoch: watch::Sender::new(Some(BrokerEpoch(1))),
        });
        let fetchers = FetcherManager::new(Arc::clone(&follower) as _, Arc::clone(&partitions) as _);
        Self {
            partitions,
            follower,
            fetchers,
            port: None,
        }
    }

    fn register(&self, id: BrokerId, epoch: i64, address: &str) {
        let mut image = self.partitions.image.lock();
        let mut newer = ClusterImage::clone(&image);
        newer.brokers.insert(id, registration(id, epoch, address));
        *image = Arc::new(newer);
    }

    /// Starts the leader's port, at the address it had if it had one.
    fn serve(&mut self, at: Option<SocketAddr>) {
        let at = at.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)));
        let incoming = TcpIncoming::bind(at).expect("the port can be bound");
        let address = incoming.local_addr().expect("bound");
        let stop = CancellationToken::new();
        let leader = Broker {
            id: LEADER,
            epoch: watch::Sender::new(Some(BrokerEpoch(1))),
        };
        let service = LeaderService::new(Arc::new(leader), Arc::clone(&self.partitions) as _, stop.clone());
        let server = Server::builder()
            .add_service(replication_server(service))
            .serve_with_incoming_shutdown(incoming.with_nodelay(Some(true)), stop.clone().cancelled_owned());
        let task = tokio::spawn(async move { server.await.expect("the server runs") });
        self.register(LEADER, 1, &address.to_string());
        self.register(FOLLOWER, 1, "127.0.0.1:1");
        self.port = Some(Port { address, stop, task });
    }

    async fn stop_serving(&mut self) -> SocketAddr {
        let port = self.port.take().expect("it serves");
        port.stop.cancel();
        timeout(PATIENCE, port.task)
            .await
            .expect("streams end with the service")
            .expect("no panic");
        port.address
    }

    fn follow(&self, partition: TopicPartition, in_sync: bool) {
        let following = self.partitions.with(partition, |model| model.following(LEADER));
        let following = Following { in_sync, ..following };
        self.fetchers.update(partition, Some(following));
    }
}

/// The status with which the leader ends a stream that says this.
async fn refused(pair: &Pair, messages: Vec<FollowerMessage>) -> Status {
    let address = pair.port.as_ref().expect("it serves").address;
    let mut client = ReplicationClient::connect(format!("http://{address}"))
        .await
        .expect("the port is open");
    // The request stays open: it is the leader who ends it.
    let messages = tokio_stream::iter(messages).chain(tokio_stream::pending());
    let ending = async {
        let mut answers = client.replicate(messages).await?.into_inner();
        while answers.message().await?.is_some() {}
        Ok::<(), Status>(())
    };
    timeout(PATIENCE, ending)
        .await
        .expect("the stream ends")
        .expect_err("the stream is refused")
}

fn hello(node: i32, expected: BrokerId, epoch: i64) -> FollowerMessage {
    let node = InternalHello {
        node_id: node,
        expected_node_id: expected.get(),
        ..Default::default()
    };
    FollowerMessage {
        hello: Some(ReplicationHello {
            hello: Some(node),
            broker_epoch: epoch,
        }),
        ..Default::default()
    }
}

fn partitions(count: i32) -> Vec<TopicPartition> {
    let topic = TopicId::random();
    (0..count)
        .map(|index| TopicPartition::new(topic, PartitionIndex(index)))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_of_both_lanes_are_replicated_while_producers_go_on() {
    let mut pair = Pair::new();
    pair.serve(None);
    let all = partitions(8);
    for (index, &partition) in all.iter().enumerate() {
        pair.partitions.produce(partition, 2_000);
        pair.follow(partition, index % 2 == 0);
    }
    for round in 0..20 {
        for &partition in &all {
            pair.partitions.produce(partition, round);
        }
        tokio::task::yield_now().await;
    }
    pair.partitions.wait_until_settled().await;
    // Everything stands still: one record more goes all the way by itself.
    pair.partitions.produce(all[3], 1);
    pair.partitions.wait_until_settled().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_comes_back_is_followed_again() {
    let mut pair = Pair::new();
    pair.serve(None);
    let partition = partitions(1)[0];
    pair.partitions.produce(partition, 10);
    pair.follow(partition, true);
    pair.partitions.wait_until_settled().await;
    let address = pair.stop_serving().await;
    pair.partitions.produce(partition, 10);
    pair.serve(Some(address));
    pair.partitions.wait_until_settled().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_where_nobody_answers_is_given_up() {
    let mut pair = Pair::new();
    let hole = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a free port");
    let address = hole.local_addr().expect("bound").to_string();
    pair.register(FOLLOWER, 1, "127.0.0.1:1");
    pair.register(LEADER, 1, &address);
    let partition = partitions(1)[0];
    pair.partitions.produce(partition, 5);
    pair.follow(partition, true);
    // It has been tried, and says nothing.
    let _silent = hole.accept().await.expect("the follower connects");
    pair.serve(None);
    pair.partitions.wait_until_settled().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_diverged_follower_truncates_to_where_the_logs_agree() {
    let mut pair = Pair::new();
    pair.serve(None);
    let partition = partitions(1)[0];
    pair.partitions.produce(partition, 5);
    pair.partitions.with(partition, |model| {
        model.follower = model.leader[..3].to_vec();
        // Appended by a leader whose records nobody else has.
        model
            .follower
            .extend([(LeaderEpoch(0), -1), (LeaderEpoch(1), -2), (LeaderEpoch(1), -3)]);
        model.leader.truncate(3);
        model
            .leader
            .extend([(LeaderEpoch(2), 100), (LeaderEpoch(2), 101)]);
        model.durable = model.follower.len();
        model.epoch = LeaderEpoch(2);
    });
    pair.follow(partition, true);
    pair.partitions.wait_until_settled().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_below_the_leaders_log_start_begins_anew() {
    let mut pair = Pair::new();
    pair.serve(None);
    let partition = partitions(1)[0];
    pair.partitions.produce(partition, 50);
    pair.partitions.with(partition, |model| {
        model.leader_start = 40;
        model.high_watermark = 40;
    });
    pair.follow(partition, false);
    pair.partitions.wait_until_settled().await;
    pair.partitions
        .with(partition, |model| assert_eq!(model.follower_start, 40));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_registration_opens_a_new_stream() {
    let mut pair = Pair::new();
    pair.serve(None);
    let partition = partitions(1)[0];
    pair.partitions.produce(partition, 5);
    // The leader has not heard of the registration that the follower presents.
    pair.follower.epoch.send_replace(Some(BrokerEpoch(7)));
    pair.follow(partition, true);
    pair.register(FOLLOWER, 7, "127.0.0.1:1");
    pair.partitions.wait_until_settled().await;
    // Another one ends the stream and opens the next.
    pair.register(FOLLOWER, 9, "127.0.0.1:1");
    pair.follower.epoch.send_replace(Some(BrokerEpoch(9)));
    pair.partitions.produce(partition, 5);
    pair.partitions.wait_until_settled().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_followed_any_more_is_left_alone() {
    let mut pair = Pair::new();
    pair.serve(None);
    let all = partitions(2);
    for &partition in &all {
        pair.partitions.produce(partition, 5);
        pair.follow(partition, true);
    }
    pair.partitions.wait_until_settled().await;
    pair.fetchers.update(all[0], None);
    // The stop is on the way before what comes after it on the same stream.
    pair.partitions.produce(all[1], 1);
    pair.partitions
        .wait_until(|models| models[&all[1]].is_settled())
        .await;
    pair.follow(all[0], false);
    pair.partitions.produce(all[0], 1);
    pair.partitions.wait_until_settled().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_and_nonsense_are_refused_by_name() {
    let mut pair = Pair::new();
    pair.serve(None);
    pair.register(FOLLOWER, 5, "127.0.0.1:1");
    let no_hello = refused(&pair, vec![FollowerMessage::default()]).await;
    assert_eq!(no_hello.code(), Code::InvalidArgument);
    let wrong_node = refused(&pair, vec![hello(2, BrokerId(9), 5)]).await;
    assert_eq!(wrong_node.code(), Code::FailedPrecondition);
    let earlier = refused(&pair, vec![hello(2, LEADER, 4)]).await;
    assert_eq!(earlier.code(), Code::FailedPrecondition);
    assert!(earlier.message().contains("epoch 4"), "{earlier}");
    // What may become true is refused for now only.
    let later = refused(&pair, vec![hello(2, LEADER, 6)]).await;
    assert_eq!(later.code(), Code::Unavailable);
    let unknown = refused(&pair, vec![hello(77, LEADER, 1)]).await;
    assert_eq!(unknown.code(), Code::Unavailable);

    let nonsense = FollowerMessage {
        fetches: vec![PartitionFetch {
            topic_id: vec![1, 2, 3].into(),
            ..Default::default()
        }],
        ..Default::default()
    };
    let malformed = refused(&pair, vec![hello(2, LEADER, 5), nonsense]).await;
    assert_eq!(malformed.code(), Code::InvalidArgument);
    assert!(malformed.message().contains("3 bytes"), "{malformed}");
    // A registration that ends while its stream is open ends the stream.
    let (ended, ()) = tokio::join!(refused(&pair, vec![hello(2, LEADER, 5)]), async {
        pair.register(FOLLOWER, 8, "127.0.0.1:1");
    });
    assert_eq!(ended.code(), Code::FailedPrecondition);
}
