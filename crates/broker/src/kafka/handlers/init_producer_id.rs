//! InitProducerId (key 22), versions 0–5: an identity for an idempotent producer (KIP-98).
//!
//! Ids come from blocks that the controller hands out, so no two producers ever share one. A
//! transactional id is refused with an error that clients do not retry: there are no transactions yet.

use kafka_protocol::messages::{ApiKey, InitProducerIdRequest, InitProducerIdResponse};
use protocol::ErrorCode;

use crate::kafka::{Request, api::Api};

pub(crate) const API: Api = Api::new(ApiKey::InitProducerId, 0, 5);

pub(crate) async fn handle(request: Request, message: InitProducerIdRequest) -> InitProducerIdResponse {
    let failed = |error: ErrorCode| {
        InitProducerIdResponse::default()
            .with_error_code(error.code())
            .with_producer_id((-1).into())
            .with_producer_epoch(-1)
    };
    if (message.producer_id.0 < 0) != (message.producer_epoch < 0) {
        // An id without an epoch, or an epoch without an id (KIP-360).
        return failed(ErrorCode::InvalidRequest);
    }
    match message.transactional_id {
        Some(id) if id.is_empty() => failed(ErrorCode::InvalidRequest),
        Some(_) => failed(ErrorCode::TransactionalIdAuthorizationFailed),
        None => match request.broker.producer_ids.next().await {
            Ok(id) => InitProducerIdResponse::default()
                .with_producer_id(id.get().into())
                .with_producer_epoch(0),
            Err(error) => failed(error),
        },
    }
}
