//! The gRPC services of the client port: administration, records, health and reflection.

use protocol::grpc::FILE_DESCRIPTOR_SET;
use protocol::grpc::v1::admin_server::AdminServer;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::{HealthReporter, health_reporter};
use tonic_reflection::server::Builder;

use crate::grpc_admin::AdminService;
use crate::grpc_records::RecordsService;
use crate::session::SessionStatus;

/// Services that clients may know of, by their full names.
const PUBLIC: [&str; 3] = ["ottla.v1.Admin", "ottla.v1.Records", "grpc.health.v1.Health"];
/// Those whose health can be asked for: the whole server's, under the empty name, and our own.
const WATCHED: [&str; 3] = ["", "ottla.v1.Admin", "ottla.v1.Records"];

/// `admin`, `records`, health, and reflection (v1 and v1alpha: older grpcurl knows only the latter).
///
/// Their health follows `status` until `stop`.
pub(super) fn routes(
    admin: AdminService,
    records: RecordsService,
    status: watch::Receiver<SessionStatus>,
    stop: CancellationToken,
) -> Result<Routes, tonic_reflection::server::Error> {
    let (reporter, health) = health_reporter();
    tokio::spawn(report(reporter, status, stop));
    let reflection = || {
        let builder = Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
        PUBLIC.into_iter().fold(builder, Builder::with_service_name)
    };
    Ok(Routes::new(AdminServer::new(admin))
        .add_service(records.server())
        .add_service(health)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?))
}

async fn report(
    reporter: HealthReporter,
    mut status: watch::Receiver<SessionStatus>,
    stop: CancellationToken,
) {
    loop {
        let serving = if status.borrow_and_update().is_ready() {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        for service in WATCHED {
            reporter.set_service_status(service, serving).await;
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = status.changed() => if changed.is_err() { return },
        }
    }
}
