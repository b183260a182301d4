//! Asks a node's internal port who answers: how a crash is told from silence.

use std::error::Error;
use std::io;
use std::time::Duration;

use protocol::grpc::v1::ProbeRequest;
use protocol::grpc::v1::node_client::NodeClient;
use protocol::{BrokerId, IncarnationId};
use tokio::time::{sleep, timeout};
use tonic::Code;
use tonic::transport::Endpoint;

use crate::decisions::ProbeResult;
use crate::identity::NodeIdentity;

/// How long a probe may take before it counts as silence.
const PROBE_TIMEOUT: Duration = Duration::from_millis(500);
/// After an answer that says nothing (a reset, a port that is just closing) the probe asks again: a
/// process that dies loses its session a moment before its port refuses.
const ASK_AGAIN: Duration = Duration::from_millis(5);

/// Probes `address` for the process `incarnation` of `broker`.
pub(crate) async fn probe(
    identity: &NodeIdentity,
    broker: BrokerId,
    address: &str,
    incarnation: IncarnationId,
) -> ProbeResult {
    let until_certain = async {
        loop {
            match ask(identity, broker, address, incarnation).await {
                ProbeResult::Silent => sleep(ASK_AGAIN).await,
                certain => return certain,
            }
        }
    };
    timeout(PROBE_TIMEOUT, until_certain)
        .await
        .unwrap_or(ProbeResult::Silent)
}

async fn ask(
    identity: &NodeIdentity,
    broker: BrokerId,
    address: &str,
    incarnation: IncarnationId,
) -> ProbeResult {
    let Ok(endpoint) = Endpoint::from_shared(format!("http://{address}")) else {
        return ProbeResult::Silent;
    };
    let channel = match endpoint.connect_timeout(PROBE_TIMEOUT).connect().await {
        Ok(channel) => channel,
        Err(error) if was_refused(&error) => return ProbeResult::Refused,
        Err(_) => return ProbeResult::Silent,
    };
    let request = ProbeRequest {
        hello: Some(identity.hello(Some(broker))),
    };
    match NodeClient::new(channel).probe(request).await {
        Ok(reply) => {
            let hello = reply.into_inner().hello.unwrap_or_default();
            let same = IncarnationId::from_slice(&hello.incarnation_id) == Some(incarnation);
            if same && hello.node_id == broker.get() {
                ProbeResult::Alive
            } else {
                ProbeResult::OtherIncarnation
            }
        }
        // Another node, or a node of another cluster, listens where the broker did.
        Err(status) if status.code() == Code::FailedPrecondition => ProbeResult::OtherIncarnation,
        Err(_) => ProbeResult::Silent,
    }
}

fn was_refused(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return io.kind() == io::ErrorKind::ConnectionRefused;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use protocol::{ClusterId, DirectoryId};
    use tokio::net::TcpListener;

    use super::*;

    fn identity() -> NodeIdentity {
        NodeIdentity {
            cluster_id: ClusterId::new("c").unwrap(),
            node_id: BrokerId(101),
            directory_id: DirectoryId::random(),
            incarnation: IncarnationId::random(),
        }
    }

    #[tokio::test]
    async fn nobody_listening_is_refused_and_a_mute_listener_is_silent() {
        let identity = identity();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let wanted = IncarnationId::random();
        let probed = probe(&identity, BrokerId(1), &address, wanted).await;
        assert_eq!(probed, ProbeResult::Silent);
        drop(listener);
        let probed = probe(&identity, BrokerId(1), &address, wanted).await;
        assert_eq!(probed, ProbeResult::Refused);
    }

    #[tokio::test]
    async fn a_port_that_is_just_closing_is_asked_again() {
        let identity = identity();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        // As in a dying process: one connection still gets through and is closed, then nobody listens.
        let dying = tokio::spawn(async move { drop(listener.accept().await) });
        let probed = probe(&identity, BrokerId(1), &address, IncarnationId::random()).await;
        assert_eq!(probed, ProbeResult::Refused);
        dying.await.unwrap();
    }
}
