//! FindCoordinator (key 10), versions 0–6: which broker coordinates a group or a transaction.
//!
//! There are no groups and no transactions yet. A group's coordinator is "not available", which
//! clients take as a reason to ask again; a transactional id is refused with an error that clients do
//! not retry, so that a transactional producer fails at once instead of hanging.

use kafka_protocol::{
    messages::{
        ApiKey, BrokerId as WireBrokerId, FindCoordinatorRequest, FindCoordinatorResponse,
        find_coordinator_response::Coordinator,
    },
    protocol::StrBytes,
};
use protocol::ErrorCode;

use crate::kafka::{Request, api::Api};

pub(crate) const API: Api = Api::new(ApiKey::FindCoordinator, 0, 6);

const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;

pub(crate) async fn handle(request: Request, message: FindCoordinatorRequest) -> FindCoordinatorResponse {
    let (error, text) = match message.key_type {
        GROUP => (
            ErrorCode::CoordinatorNotAvailable,
            "Consumer groups are not served by this version.",
        ),
        TRANSACTION => (
            ErrorCode::TransactionalIdAuthorizationFailed,
            "Transactions are not served by this version: configure the producer without transactional.id.",
        ),
        _ => (
            ErrorCode::InvalidRequest,
            "The key type is neither group (0) nor transaction (1).",
        ),
    };
    let text = StrBytes::from_static_str(text);
    let nobody = WireBrokerId(-1);
    if request.version < 4 {
        return FindCoordinatorResponse::default()
            .with_error_code(error.code())
            .with_error_message((request.version >= 1).then_some(text))
            .with_node_id(nobody)
            .with_port(-1);
    }
    let coordinators = message.coordinator_keys.into_iter().map(|key| {
        Coordinator::default()
            .with_key(key)
            .with_node_id(nobody)
            .with_port(-1)
            .with_error_code(error.code())
            .with_error_message(Some(text.clone()))
    });
    FindCoordinatorResponse::default().with_coordinators(coordinators.collect())
}
