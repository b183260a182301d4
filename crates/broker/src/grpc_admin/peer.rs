//! Calls that one broker makes of another in the name of a client: they are marked, so that they are
//! answered where they arrive and go no further.

use std::time::Duration;

use protocol::BrokerId;
use protocol::grpc::v1::admin_client::AdminClient;
use tonic::{Request, Status, metadata::MetadataValue, transport::Channel};

use super::AdminService;
use crate::shutdown::ShutdownError;

/// The gRPC metadata key of a call that a broker has passed on.
const PASSED_ON: &str = "ottla-passed-on";

/// Whether another broker has passed the call on: this one answers it by itself or not at all.
pub(super) fn is_passed_on<T>(request: &Request<T>) -> bool {
    request.metadata().contains_key(PASSED_ON)
}

/// The call as it goes to another broker.
pub(super) fn passed_on<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request
        .metadata_mut()
        .insert(PASSED_ON, MetadataValue::from_static("1"));
    request
}

impl AdminService {
    /// The administration of another broker, which has `patience` for each answer. An error: it was not
    /// asked anything.
    pub(super) async fn peer(
        &self,
        id: BrokerId,
        patience: Duration,
    ) -> Result<AdminClient<Channel>, Status> {
        let image = self.broker.images.current();
        self.shutdown
            .admin_of(&image, id, patience)
            .await
            .map_err(ShutdownError::into_status)
    }
}
