//! Ending a broker on request: this one, or another by way of its own client port.

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
const CONNECT: std::time::Duration = std::time::Duration::from_secs(3);

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
        let mut admin = self.admin_of(image, id).await?;
        admin
            .shutdown_broker(ShutdownBrokerRequest { broker_id: id.get() })
            .await
            .map(|_| ())
            .map_err(|status| ShutdownError::Failed(id, status))
    }

    /// The administration service of broker `id` itself.
    pub async fn admin_of(
        &self,
        image: &ClusterImage,
        id: BrokerId,
    ) -> Result<AdminClient<Channel>, ShutdownError> {
        let broker = image.brokers.get(&id).ok_or(ShutdownError::NotRegistered(id))?;
        let endpoint = broker.endpoints.first().ok_or(ShutdownError::NoListener(id))?;
        let channel = Endpoint::from_shared(format!("http://{}:{}", endpoint.host, endpoint.port))
            .map_err(|error| ShutdownError::Unreachable(id, error))?
            .connect_timeout(CONNECT)
            .timeout(CONNECT)
            .connect()
            .await
            .map_err(|error| ShutdownError::Unreachable(id, error))?;
        Ok(AdminClient::new(channel))
    }
}
