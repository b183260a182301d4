//! Connections to the internal ports of other brokers, each made when it is first needed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use protocol::BrokerId;
use protocol::grpc::v1::InternalHello;
use protocol::grpc::v1::relay_client::RelayClient;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use crate::identity::NodeIdentity;
use crate::listener::Http2Windows;
use crate::session::ImageStore;

/// The largest answer: what one read returns at most, which is one batch where that is larger, and a
/// topic's `max.message.bytes` may allow what a produce request of 100 MiB can carry.
const ANSWER_BYTES: usize = 101 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(3);

/// The other brokers. A clone is a handle to the same connections.
#[derive(Clone, Debug)]
pub(crate) struct Peers {
    identity: Arc<NodeIdentity>,
    images: ImageStore,
    /// By broker, with the address that it had.
    channels: Arc<Mutex<HashMap<BrokerId, (String, Channel)>>>,
}

impl Peers {
    pub(crate) fn new(identity: Arc<NodeIdentity>, images: ImageStore) -> Self {
        Self {
            identity,
            images,
            channels: Arc::default(),
        }
    }

    /// This node's greeting for broker `id`.
    pub(super) fn hello(&self, id: BrokerId) -> InternalHello {
        self.identity.hello(Some(id))
    }

    /// A client of broker `id`, wherever the metadata says that it is.
    pub(super) fn client(&self, id: BrokerId) -> Result<RelayClient<Channel>, Status> {
        let image = self.images.current();
        let broker = image
            .brokers
            .get(&id)
            .ok_or_else(|| Status::unavailable("it is not registered"))?;
        let address = &broker.internal_address;
        let mut channels = self.channels.lock();
        let channel = match channels.get(&id) {
            Some((known, channel)) if known == address => channel.clone(),
            _ => {
                let channel = open(address)
                    .map_err(|error| Status::unavailable(format!("{address:?} is no address: {error}")))?;
                channels.insert(id, (address.clone(), channel.clone()));
                channel
            }
        };
        Ok(RelayClient::new(channel).max_decoding_message_size(ANSWER_BYTES))
    }
}

fn open(address: &str) -> Result<Channel, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .initial_stream_window_size(Http2Windows::NODES.stream)
        .initial_connection_window_size(Http2Windows::NODES.connection)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT);
    Ok(endpoint.connect_lazy())
}
