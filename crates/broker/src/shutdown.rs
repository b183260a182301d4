//! Ending a broker on request: this one, or another by way of its own client port.

use std::time::Duration;

use metadata::ClusterImage;
use protocol::{
    BrokerId,
    grpc::v1::{ShutdownBrokerRequest, admin_client::AdminClient},
};
use tokio_util::sync::CancellationToken;
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

/// How long it may take to reach another broker.
const CONNECT: Duration = Duration::from_secs(3);
/// How long a broker may take to say that it ends.
const GOODBYE: Duration = Duration::from_secs(3);
/// How often a broker that works on an answer is looked at: one may take its time, and one that hangs is found
/// out long before that.
const LOOK_AT_PEER: Duration = Duration::from_secs(2);
/// How long it may be silent when it is looked at.
const SILENT_PEER: Duration = Duration::from_secs(3);
/// The largest answer: the groups of a broker that has many.
const LARGEST_ANSWER: usize = 64 << 20;

/// Ends this broker, or asks another one to end.
#[derive(Clone, Debug)]
pub struct NodeShutdown {
    me: BrokerId,
    /// Cancelled once this broker has been asked to end.
    requested: CancellationToken,
}

/// A broker that could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ShutdownError {
    /// No such broker.
    #[error("broker {0} is not registered")]
    NotRegistered(BrokerId),
    /// It is registered, and clients cannot reach it.
    #[error("broker {0} is registered without a client listener")]
    NoListener(BrokerId),
    /// It does not answer.
    #[error("broker {0} does not answer: {1}")]
    Unreachable(BrokerId, tonic::transport::Error),
    /// It answered with a failure.
    #[error("broker {0}: {1}")]
    Failed(BrokerId, Status),
}

impl ShutdownError {
    /// As the answer of a gRPC call.
    pub fn into_status(self) -> Status {
        let sentence = self.to_string();
        match self {
            Self::NotRegistered(_) => Status::not_found(sentence),
            Self::NoListener(_) | Self::Unreachable(..) => Status::unavailable(sentence),
            Self::Failed(_, status) => Status::new(status.code(), sentence),
        }
    }
}

impl NodeShutdown {
    /// For broker `me`, which ends when `requested` is cancelled.
    pub fn new(me: BrokerId, requested: CancellationToken) -> Self {
        Self { me, requested }
    }

    /// Begins the controlled shutdown of broker `id`.
    pub async fn end(&self, image: &ClusterImage, id: BrokerId) -> Result<(), ShutdownError> {
        if id == self.me {
            tracing::info!("controlled shutdown was asked for");
            self.requested.cancel();
            return Ok(());
        }
        let mut admin = self.admin_of(image, id, GOODBYE).await?;
        admin
            .shutdown_broker(ShutdownBrokerRequest { broker_id: id.get() })
            .await
            .map(|_| ())
            .map_err(|status| ShutdownError::Failed(id, status))
    }

    /// The administration service of broker `id` itself, which has `patience` for each answer.
    pub async fn admin_of(
        &self,
        image: &ClusterImage,
        id: BrokerId,
        patience: Duration,
    ) -> Result<AdminClient<Channel>, ShutdownError> {
        let broker = image.brokers.get(&id).ok_or(ShutdownError::NotRegistered(id))?;
        let endpoint = broker.endpoints.first().ok_or(ShutdownError::NoListener(id))?;
        let channel = Endpoint::from_shared(format!("http://{}:{}", endpoint.host, endpoint.port))
            .map_err(|error| ShutdownError::Unreachable(id, error))?
            .connect_timeout(CONNECT)
            .timeout(patience)
            .http2_keep_alive_interval(LOOK_AT_PEER)
            .keep_alive_timeout(SILENT_PEER)
            .connect()
            .await
            .map_err(|error| ShutdownError::Unreachable(id, error))?;
        Ok(AdminClient::new(channel).max_decoding_message_size(LARGEST_ANSWER))
    }
}
