//! Three brokers, and gRPC clients of each.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use bytes::Bytes;
use prost::Message;
use protocol::grpc::v1::{
    AdminCreateTopicsRequest, AdminDeleteTopicsRequest, AdminNewTopic, AdminReplicas, EarliestOffset,
    FetchRequest, FetchResponse, KafkaError, NewRecord, ProduceRequest, admin_client::AdminClient,
    fetch_request::Start, records_client::RecordsClient,
};
use tempfile::TempDir;
use tonic::{
    Status, Streaming,
    transport::{Channel, Endpoint},
};

use crate::support::{
    Client, DevNode, free_port,
    server_node::{ServerNode, broker_properties, loopback},
};

/// No step takes longer, however busy the machine is.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

/// Broker 1, which is the controller too, and brokers 2 and 3 beside it.
pub(crate) struct Cluster {
    /// By broker, from 1 on.
    ports: Vec<u16>,
    others: Vec<ServerNode>,
    first: DevNode,
    _dir: TempDir,
}

impl Cluster {
    /// The cluster of the tests that leave it as it was.
    pub(crate) fn shared() -> Arc<Self> {
        static CLUSTER: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
        let mut cluster = CLUSTER.lock().unwrap_or_else(PoisonError::into_inner);
        cluster.upgrade().unwrap_or_else(|| {
            let started = Arc::new(Self::start());
            *cluster = Arc::downgrade(&started);
            started
        })
    }

    pub(crate) fn start() -> Self {
        let first = DevNode::start(&[]);
        let dir = tempfile::tempdir().unwrap();
        let voters = format!("1@127.0.0.1:{}", first.address().port() + 10_100);
        let mut ports = vec![first.address().port()];
        let mut others = Vec::new();
        for id in [2, 3] {
            let port = free_port();
            let logs = dir.path().join(format!("logs-{id}"));
            let entries = broker_properties(id, port, &voters, &logs);
            others.push(ServerNode::start(dir.path(), &format!("broker-{id}"), &entries));
            ports.push(port);
        }
        for (node, &port) in others.iter_mut().zip(&ports[1..]) {
            node.expect_ready(loopback(port), PATIENCE);
        }
        Self {
            ports,
            others,
            first,
            _dir: dir,
        }
    }

    /// Ends broker 2 or 3 as a crash would.
    pub(crate) fn kill(&mut self, broker: usize) {
        self.others[broker - 2].kill();
    }

    /// Sends broker 2 or 3 a signal by its name.
    pub(crate) fn signal(&self, broker: usize, name: &str) {
        self.others[broker - 2].signal(name);
    }

    pub(crate) fn http_get(&self, path: &str) -> String {
        self.first.http_get(path).expect("an answer")
    }

    /// A channel to a broker, by its number from 1 on.
    pub(crate) fn channel(&self, broker: usize) -> Channel {
        Endpoint::from_shared(format!("http://{}", loopback(self.ports[broker - 1])))
            .unwrap()
            .connect_lazy()
    }

    /// A connection of a Kafka client to a broker.
    pub(crate) fn kafka(&self, broker: usize) -> Client {
        Client::connect(loopback(self.ports[broker - 1]))
    }

    pub(crate) fn records(&self, broker: usize) -> RecordsClient<Channel> {
        RecordsClient::new(self.channel(broker))
    }

    pub(crate) fn admin(&self, broker: usize) -> AdminClient<Channel> {
        AdminClient::new(self.channel(broker))
    }

    /// Creates a topic whose partitions have these replicas, the first of which leads.
    pub(crate) async fn topic(&self, name: &str, partitions: &[&[i32]], configs: &[(&str, &str)]) {
        let assignments = partitions.iter().enumerate().map(|(partition, replicas)| {
            let broker_ids = replicas.to_vec();
            (partition as i32, AdminReplicas { broker_ids })
        });
        let configs = configs
            .iter()
            .map(|&(key, value)| (key.to_owned(), value.to_owned()));
        let topic = AdminNewTopic {
            name: name.to_owned(),
            assignments: assignments.collect(),
            configs: configs.collect(),
            ..AdminNewTopic::default()
        };
        let request = AdminCreateTopicsRequest {
            topics: vec![topic],
            ..AdminCreateTopicsRequest::default()
        };
        let created = self
            .admin(1)
            .admin_create_topics(request)
            .await
            .unwrap()
            .into_inner();
        let error = created.topics[0].error.clone().unwrap_or_default();
        assert_eq!(error.code, 0, "{name}: {}", error.message);
    }

    pub(crate) async fn delete(&self, name: &str) {
        let request = AdminDeleteTopicsRequest {
            names: vec![name.to_owned()],
            timeout_ms: None,
        };
        let deleted = self
            .admin(1)
            .admin_delete_topics(request)
            .await
            .unwrap()
            .into_inner();
        assert_eq!(deleted.topics[0].error.clone().unwrap_or_default().code, 0);
    }
}

/// Runs a test, which must come to an end.
pub(crate) fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(async {
            tokio::time::timeout(2 * PATIENCE, test)
                .await
                .expect("the test comes to an end");
        });
}

pub(crate) fn value(text: &str) -> NewRecord {
    NewRecord {
        value: Some(Bytes::copy_from_slice(text.as_bytes())),
        ..NewRecord::default()
    }
}

pub(crate) fn to(topic: &str, records: Vec<NewRecord>) -> ProduceRequest {
    ProduceRequest {
        topic: topic.to_owned(),
        records,
        ..ProduceRequest::default()
    }
}

/// Everything from the first record on.
pub(crate) fn from_earliest(topic: &str) -> FetchRequest {
    FetchRequest {
        topic: topic.to_owned(),
        start: Some(Start::Earliest(EarliestOffset {})),
        ..FetchRequest::default()
    }
}

/// The next message of a stream, which must come.
pub(crate) async fn next(stream: &mut Streaming<FetchResponse>) -> Result<Option<FetchResponse>, Status> {
    let message = tokio::time::timeout(PATIENCE, stream.message()).await;
    message.expect("a message, or the stream's end")
}

/// Everything that comes until the stream ends by itself, by partition.
pub(crate) async fn read_out(
    mut stream: Streaming<FetchResponse>,
) -> BTreeMap<i32, Vec<protocol::grpc::v1::FetchedRecord>> {
    let mut found: BTreeMap<i32, Vec<_>> = BTreeMap::new();
    while let Some(message) = next(&mut stream).await.unwrap() {
        found
            .entry(message.partition)
            .or_default()
            .extend(message.records);
    }
    found
}

/// `google.rpc.Status` and `google.protobuf.Any`, as far as they are looked at.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(message, repeated, tag = "3")]
    details: Vec<Detail>,
}

#[derive(Clone, PartialEq, Message)]
struct Detail {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

/// A message among a status's details, by its name.
pub(crate) fn detail<M: Message + Default>(status: &Status, name: &str) -> M {
    let told = RpcStatus::decode(status.details()).unwrap();
    let named = format!("type.googleapis.com/ottla.v1.{name}");
    let detail = told.details.iter().find(|detail| detail.type_url == named);
    let detail = detail.unwrap_or_else(|| panic!("{status:?} has no {name}"));
    M::decode(detail.value.clone()).unwrap()
}

/// Kafka's code in a status.
pub(crate) fn kafka_code(status: &Status) -> i32 {
    detail::<KafkaError>(status, "KafkaError").code
}
