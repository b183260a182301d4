//! FindCoordinator (key 10), versions 0–6: which broker coordinates a group or a transaction; from
//! version 4 on of several keys.
//!
//! The first group that asks has `__consumer_offsets` created. There are no transactions yet: a
//! transactional id is refused with an error that clients do not retry, so that a transactional producer
//! fails at once instead of hanging.

use std::sync::Arc;

use kafka_protocol::{
    messages::{
        ApiKey, BrokerId as WireBrokerId, FindCoordinatorRequest, FindCoordinatorResponse,
        find_coordinator_response::Coordinator,
    },
    protocol::StrBytes,
};
use metadata::ClusterImage;
use protocol::ErrorCode;

use crate::{
    coordinator::group_runtime::{GroupCoordinator, located_in},
    kafka::{
        Request,
        api::Api,
        cluster_view::{self, NodeAddress},
    },
};

pub(crate) const API: Api = Api::new(ApiKey::FindCoordinator, 0, 6);

const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;

/// Why there is no coordinator to name; the sentence is for the client.
type Refused = (ErrorCode, String);

pub(crate) async fn handle(request: Request, message: FindCoordinatorRequest) -> FindCoordinatorResponse {
    answer(
        &request.broker.groups,
        &request.listener,
        request.version,
        message,
    )
    .await
}

async fn answer(
    groups: &GroupCoordinator,
    listener: &str,
    version: i16,
    message: FindCoordinatorRequest,
) -> FindCoordinatorResponse {
    // Once for all keys: where the topic cannot be created now, that takes its time to find out.
    let image = look_up(groups, message.key_type).await;
    if version < 4 {
        let found = find(&image, listener, &message.key);
        let one = coordinator(message.key, found);
        return FindCoordinatorResponse::default()
            .with_error_code(one.error_code)
            .with_error_message(one.error_message.filter(|_| version >= 1))
            .with_node_id(one.node_id)
            .with_host(one.host)
            .with_port(one.port);
    }
    let coordinators = message.coordinator_keys.into_iter().map(|key| {
        let found = find(&image, listener, &key);
        coordinator(key, found)
    });
    FindCoordinatorResponse::default().with_coordinators(coordinators.collect())
}

/// Where coordinators for keys of this type are to be found.
async fn look_up(groups: &GroupCoordinator, key_type: i8) -> Result<Arc<ClusterImage>, Refused> {
    match key_type {
        GROUP => groups.ensure_topic().await,
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

fn find(
    image: &Result<Arc<ClusterImage>, Refused>,
    listener: &str,
    group: &str,
) -> Result<NodeAddress, Refused> {
    let image = image.as_ref().map_err(Clone::clone)?;
    let id = located_in(image, group)?;
    image
        .brokers
        .get(&id)
        .and_then(|broker| cluster_view::address(broker, listener))
        .ok_or_else(|| {
            let why = format!("broker {id} coordinates the group and has no listener {listener}");
            (ErrorCode::CoordinatorNotAvailable, why)
        })
}

fn coordinator(key: StrBytes, found: Result<NodeAddress, Refused>) -> Coordinator {
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;
    use crate::coordinator::group_runtime::tests::without_controllers;

    #[tokio::test(start_paused = true)]
    async fn many_keys_wait_for_the_topic_no_longer_than_one() {
        let groups = without_controllers(&[]);
        let ask = async |keys: &[&str]| {
            let keys = keys.iter().map(|key| StrBytes::from_string((*key).to_owned()));
            let message = FindCoordinatorRequest::default().with_coordinator_keys(keys.collect());
            let asked = Instant::now();
            let found = answer(&groups, "PLAINTEXT", 6, message).await.coordinators;
            (found, asked.elapsed())
        };
        let (_, alone) = ask(&["a"]).await;
        assert!(alone > Duration::ZERO, "it waits for a controller");
        let (found, together) = ask(&["a", "b", "c"]).await;
        assert_eq!(together, alone);
        assert_eq!(
            found.iter().map(|one| &*one.key).collect::<Vec<_>>(),
            ["a", "b", "c"]
        );
        let unavailable = ErrorCode::CoordinatorNotAvailable.code();
        assert!(found.iter().all(|one| one.error_code == unavailable));
    }
}
