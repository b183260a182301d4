//! The one connection to a leader's internal port that both lanes share.

use std::time::Duration;

use metadata::ClusterImage;
use parking_lot::Mutex;
use protocol::BrokerId;
use protocol::grpc::v1::replication_client::ReplicationClient;
use tonic::transport::{Channel, Endpoint};

use super::lost_leaders::LostLeaders;
use super::{CONNECTION_WINDOW_BYTES, FRAME_BYTES, STREAM_WINDOW_BYTES};

/// What a leader's message may take, in bytes. Messages are packed to 1 MiB, but one batch is never
/// split, and a topic's `max.message.bytes` may allow what a produce request of 100 MiB can carry.
const LEADER_MESSAGE_BYTES: usize = 101 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(3);

/// Why there is no connection to a leader.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    /// The metadata does not know the broker.
    #[error("broker {0} is not registered")]
    NotRegistered(BrokerId),
    /// The metadata's address is none.
    #[error("{address:?} is not an address: {source}")]
    Address {
        /// What the broker registered.
        address: String,
        /// What is wrong with it.
        source: tonic::transport::Error,
    },
}

/// Connects to a leader wherever the metadata says that it is.
#[derive(Debug)]
pub(super) struct Link {
    leader: BrokerId,
    lost: LostLeaders,
    channel: Mutex<Option<(String, Channel)>>,
}

impl Link {
    pub(super) fn new(leader: BrokerId, lost: LostLeaders) -> Self {
        Self {
            leader,
            lost,
            channel: Mutex::new(None),
        }
    }

    pub(super) fn leader(&self) -> BrokerId {
        self.leader
    }

    /// Notes that a stream is up.
    pub(super) fn found(&self) {
        self.lost.found(self.leader);
    }

    /// Notes that a stream that was up broke.
    pub(super) fn lost(&self) {
        self.lost.lost(self.leader);
    }

    /// A client on the connection, which is made, and made again, when it is needed.
    pub(super) fn client(&self, image: &ClusterImage) -> Result<ReplicationClient<Channel>, LinkError> {
        let address = image
            .brokers
            .get(&self.leader)
            .map(|broker| broker.internal_address.clone())
            .ok_or(LinkError::NotRegistered(self.leader))?;
        let mut cached = self.channel.lock();
        let channel = match &*cached {
            Some((known, channel)) if *known == address => channel.clone(),
            _ => {
                let channel = open(&address).map_err(|source| LinkError::Address {
                    address: address.clone(),
                    source,
                })?;
                *cached = Some((address, channel.clone()));
                channel
            }
        };
        Ok(ReplicationClient::new(channel).max_decoding_message_size(LEADER_MESSAGE_BYTES))
    }
}

fn open(address: &str) -> Result<Channel, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT);
    Ok(endpoint.connect_lazy())
}
