//! FindCoordinator (key 10), versions 0–6: which broker coordinates a group or a transaction; from
//! version 4 on of several keys.
//!
//! The first group that asks has `__consumer_offsets` created. There are no transactions yet: a
//! transactional id is refused with an error that clients do not retry, so that a transactional producer
//! fails at once instead of hanging.

use kafka_protocol::{
    messages::{
        ApiKey, BrokerId as WireBrokerId, FindCoordinatorRequest, FindCoordinatorResponse,
        find_coordinator_response::Coordinator,
    },
    protocol::StrBytes,
};
use protocol::ErrorCode;

use crate::kafka::{
    Request,
    api::Api,
    cluster_view::{self, NodeAddress},
};

pub(crate) const API: Api = Api::new(ApiKey::FindCoordinator, 0, 6);

const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;

pub(crate) async fn handle(request: Request, message: FindCoordinatorRequest) -> FindCoordinatorResponse {
    if request.version < 4 {
        let found = find(&request, message.key_type, &message.key).await;
        let one = coordinator(message.key, found);
        return FindCoordinatorResponse::default()
            .with_error_code(one.error_code)
            .with_error_message(one.error_message.filter(|_| request.version >= 1))
            .with_node_id(one.node_id)
            .with_host(one.host)
            .with_port(one.port);
    }
    let mut coordinators = Vec::with_capacity(message.coordinator_keys.len());
    for key in message.coordinator_keys {
        let found = find(&request, message.key_type, &key).await;
        coordinators.push(coordinator(key, found));
    }
    FindCoordinatorResponse::default().with_coordinators(coordinators)
}

async fn find(request: &Request, key_type: i8, key: &str) -> Result<NodeAddress, (ErrorCode, String)> {
    match key_type {
        GROUP => {
            let id = request.broker.groups.locate(key).await?;
            let image = request.broker.images.current();
            image
                .brokers
                .get(&id)
                .and_then(|broker| cluster_view::address(broker, &request.listener))
                .ok_or_else(|| {
                    let why = format!(
                        "broker {id} coordinates the group and has no listener {}",
                        request.listener
                    );
                    (ErrorCode::CoordinatorNotAvailable, why)
                })
        }
        TRANSACTION => Err((
            ErrorCode::TransactionalIdAuthorizationFailed,
            String::from(
                "Transactions are not served by this version: configure the producer without transactional.id.",
            ),
        )),
        _ => Err((
            ErrorCode::InvalidRequest,
            String::from("The key type is neither group (0) nor transaction (1)."),
        )),
    }
}

fn coordinator(key: StrBytes, found: Result<NodeAddress, (ErrorCode, String)>) -> Coordinator {
    let answer = Coordinator::default().with_key(key);
    match found {
        Ok(node) => answer
            .with_node_id(WireBrokerId(node.id.get()))
            .with_host(StrBytes::from_string(node.host))
            .with_port(i32::from(node.port)),
        Err((error, why)) => answer
            .with_node_id(WireBrokerId(-1))
            .with_port(-1)
            .with_error_code(error.code())
            .with_error_message(Some(StrBytes::from_string(why))),
    }
}
