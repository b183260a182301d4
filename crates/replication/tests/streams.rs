//! Brokers with a network between them: replication streams on loopback, from logs on disk to logs on
//! disk.

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use protocol::grpc::v1::InternalHello;
use protocol::{BrokerEpoch, BrokerId, INTERNAL_PROTOCOL_VERSION, Offset, TopicPartition};
use replication::streams::{FetcherManager, LeaderService, LocalBroker, replication_server};
use replication::{Acks, FetchRead, Followers};
use support::{Broker, Cluster, ONE, TWO, append, eventually, produce, read_from, soon};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

const THREE: BrokerId = BrokerId(3);
const ALL: [BrokerId; 3] = [ONE, TWO, THREE];

struct Local {
    id: BrokerId,
    epoch: BrokerEpoch,
}

impl LocalBroker for Local {
    fn hello(&self, expected: BrokerId) -> InternalHello {
        InternalHello {
            node_id: self.id.get(),
            expected_node_id: expected.get(),
            protocol_version: INTERNAL_PROTOCOL_VERSION,
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
        Some(self.epoch)
    }
}

/// A broker on the network.
struct Node {
    broker: Broker,
    fetchers: Arc<FetcherManager>,
    port: CancellationToken,
    server: JoinHandle<()>,
}

impl Node {
    fn start(cluster: &Cluster, id: BrokerId) -> Self {
        Self::connect(Broker::start(cluster, id))
    }

    /// Opens the broker's internal port and has it fetch from the others'.
    fn connect(broker: Broker) -> Self {
        let local = Arc::new(Local {
            id: broker.id,
            epoch: broker.epoch,
        });
        let incoming = TcpIncoming::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
        let address = incoming.local_addr().expect("bound");
        broker.cluster.set_address(broker.id, address.to_string());
        let port = CancellationToken::new();
        let leader_side = Arc::clone(&broker.manager);
        let service = LeaderService::new(Arc::clone(&local) as _, leader_side, port.clone());
        let serving = Server::builder()
            .add_service(replication_server(service))
            .serve_with_incoming_shutdown(incoming.with_nodelay(Some(true)), port.clone().cancelled_owned());
        let follower_side = Arc::clone(&broker.manager);
        let fetchers = Arc::new(FetcherManager::new(local, follower_side));
        let followers: Arc<dyn Followers> = Arc::clone(&fetchers) as _;
        broker.manager.set_followers(&followers);
        Self {
            broker,
            fetchers,
            port,
            server: tokio::spawn(async move { serving.await.expect("the port is served") }),
        }
    }

    async fn stop(self) -> (Cluster, BrokerId, Arc<TempDir>) {
        self.fetchers.shutdown();
        self.port.cancel();
        self.server.await.expect("the port closes");
        self.broker.stop().await
    }

    /// Back with the next epoch, out of the ISR until it has caught up: what the controller makes of a
    /// registration.
    fn start_again(cluster: &Cluster, id: BrokerId, dir: Arc<TempDir>, tp: TopicPartition) -> Self {
        let epoch = BrokerEpoch(i64::from(id.0) + 100);
        cluster.register(id, epoch);
        cluster.change(tp, |record| record.isr.retain(|&member| member != id));
        Self::connect(Broker::start_in(cluster, id, epoch, dir))
    }
}

async fn start(cluster: &Cluster) -> Vec<Node> {
    let nodes: Vec<_> = ALL.iter().map(|&id| Node::start(cluster, id)).collect();
    catch_up(&nodes).await;
    nodes
}

async fn catch_up(nodes: &[Node]) {
    for node in nodes {
        node.broker.catch_up().await;
    }
}

async fn stop(nodes: Vec<Node>) {
    for node in nodes {
        node.stop().await;
    }
}

/// Waits until all replicas have and know the same, and compares it byte for byte.
async fn assert_same(nodes: &[Node], tp: TopicPartition) {
    let offsets = |node: &Node| node.broker.partition(tp).offsets();
    eventually("all replicas at the same offsets", || {
        let first = offsets(&nodes[0]);
        nodes.iter().all(|node| {
            let at = offsets(node);
            (at.log_end, at.high_watermark) == (first.log_end, first.log_end)
        })
    })
    .await;
    let mut logs = Vec::new();
    for node in nodes {
        let read = FetchRead {
            from_follower_ok: true,
            max_bytes: 64 << 20,
            ..read_from(0)
        };
        let partition = node.broker.partition(tp);
        logs.push(partition.read(read).await.expect("read").records);
    }
    assert!(logs.windows(2).all(|pair| pair[0] == pair[1]), "replicas differ");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acks_all_over_three_brokers() {
    let cluster = Cluster::with_brokers(&ALL);
    let tp = cluster.create_topic("events", &ALL);
    let nodes = start(&cluster).await;
    let leader = nodes[0].broker.partition(tp);
    for round in 0..50 {
        let appended = append(&leader, &["one at a time"], Acks::All)
            .await
            .expect("kept");
        assert_eq!(appended.base_offset, Offset(round));
    }
    let tickets: Vec<_> = (0..500)
        .map(|_| leader.append(produce(&["a", "b", "c"], Acks::All)))
        .collect();
    for ticket in tickets {
        ticket.committed(soon()).await.expect("kept");
    }
    assert_eq!(leader.offsets().log_end, Offset(1_550));
    assert_same(&nodes, tp).await;
    assert!(cluster.proposals.lock().is_empty(), "nobody left the ISR");
    stop(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_follower_catches_up_and_joins_while_producers_go_on() {
    let cluster = Cluster::with_brokers(&ALL);
    let tp = cluster.create_topic("events", &ALL);
    let mut nodes = start(&cluster).await;
    let leader = nodes[0].broker.partition(tp);
    append(&leader, &["before"], Acks::All).await.expect("kept");

    let (_, id, dir) = nodes.remove(1).stop().await;
    cluster.change(tp, |record| record.isr = vec![ONE, THREE]);
    catch_up(&nodes).await;
    for _ in 0..100 {
        append(&leader, &["while it is away"], Acks::All)
            .await
            .expect("kept");
    }
    nodes.insert(1, Node::start_again(&cluster, id, dir, tp));
    catch_up(&nodes).await;
    while leader.status().isr.len() < 3 {
        append(&leader, &["while it catches up"], Acks::All)
            .await
            .expect("kept");
    }
    catch_up(&nodes).await;
    append(&leader, &["with all three"], Acks::All)
        .await
        .expect("kept");
    assert_same(&nodes, tp).await;
    stop(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_follower_is_rebuilt_while_producers_go_on() {
    let cluster = Cluster::with_brokers(&ALL);
    let tp = cluster.create_topic("events", &ALL);
    let mut nodes = start(&cluster).await;
    let leader = nodes[0].broker.partition(tp);
    let large = "x".repeat(100_000);
    for _ in 0..60 {
        append(&leader, &[&large], Acks::All).await.expect("kept");
    }
    let (_, id, _) = nodes.remove(2).stop().await;
    let empty = Arc::new(TempDir::new().expect("a temporary directory"));
    nodes.push(Node::start_again(&cluster, id, empty, tp));
    catch_up(&nodes).await;
    while leader.status().isr.len() < 3 {
        append(&leader, &["while it is rebuilt"], Acks::All)
            .await
            .expect("kept");
    }
    assert_same(&nodes, tp).await;
    stop(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_follower_joins_where_the_log_start_lies_inside_a_batch() {
    let cluster = Cluster::with_brokers(&ALL);
    let tp = cluster.create_topic("events", &ALL);
    let mut nodes = start(&cluster).await;
    let leader = nodes[0].broker.partition(tp);
    append(&leader, &["a", "b", "c", "d"], Acks::All)
        .await
        .expect("kept");
    leader.delete_records(Some(Offset(2))).await.expect("deleted");
    let (_, id, _) = nodes.remove(2).stop().await;
    let empty = Arc::new(TempDir::new().expect("a temporary directory"));
    nodes.push(Node::start_again(&cluster, id, empty, tp));
    catch_up(&nodes).await;
    eventually("the third in the ISR", || leader.status().isr.len() == 3).await;
    append(&leader, &["e"], Acks::All).await.expect("kept");
    let rebuilt = nodes[2].broker.partition(tp);
    eventually("the same offsets", || {
        let at = rebuilt.offsets();
        (at.log_start, at.log_end) == (Offset(2), Offset(5))
    })
    .await;
    stop(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_the_old_leader_had_is_cut_after_a_failover() {
    let cluster = Cluster::with_brokers(&ALL);
    let tp = cluster.create_topic("events", &ALL);
    let mut nodes = start(&cluster).await;
    append(&nodes[0].broker.partition(tp), &["kept"], Acks::All)
        .await
        .expect("kept");
    // The leader is alone from here on, and appends what nobody will ever read.
    let one = nodes.remove(0);
    for node in &nodes {
        node.fetchers.shutdown();
    }
    append(&one.broker.partition(tp), &["lost", "lost", "lost"], Acks::Leader)
        .await
        .expect("on its own disk");
    let (mut others, mut again) = (Vec::new(), Vec::new());
    for node in nodes {
        others.push(node.stop().await);
    }
    cluster.elect(tp, TWO, &[TWO, THREE]);
    for (_, id, dir) in others {
        let epoch = BrokerEpoch(i64::from(id.0) + 100);
        cluster.register(id, epoch);
        again.push(Node::connect(Broker::start_in(&cluster, id, epoch, dir)));
    }
    catch_up(&again).await;
    let leader = again[0].broker.partition(tp);
    append(&leader, &["new"], Acks::All).await.expect("kept");
    again.push(one);
    catch_up(&again).await;
    eventually("the old leader joins", || leader.status().isr.len() == 3).await;
    append(&leader, &["newer"], Acks::All).await.expect("kept");
    assert_eq!(leader.offsets().log_end, Offset(3));
    assert_same(&again, tp).await;
    stop(again).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_follower_stays_in_sync() {
    let cluster = Cluster::with_brokers(&[ONE, TWO]);
    let tp = cluster.create_topic("events", &[ONE, TWO]);
    let busy = cluster.create_topic("busy", &[ONE, TWO]);
    let nodes = vec![Node::start(&cluster, ONE), Node::start(&cluster, TWO)];
    catch_up(&nodes).await;
    append(&nodes[0].broker.partition(tp), &["a"], Acks::All)
        .await
        .expect("kept");
    // The other partition keeps the stream busy for longer than an idle one may be silent.
    let until = tokio::time::Instant::now() + support::LAG_MAX + Duration::from_secs(1);
    while tokio::time::Instant::now() < until {
        append(&nodes[0].broker.partition(busy), &["b"], Acks::All)
            .await
            .expect("kept");
    }
    assert!(cluster.proposals.lock().is_empty(), "nobody left the ISR");
    append(&nodes[0].broker.partition(tp), &["c"], Acks::All)
        .await
        .expect("kept");
    stop(nodes).await;
}
