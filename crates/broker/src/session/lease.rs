//! The broker's own side of the session timeout: without contact for so long the controller has fenced
//! it, so it stops leading by itself.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::standing::Standing;

/// Resigns once the last contact is older than `timeout`.
pub(super) async fn watch_lease(standing: Arc<Standing>, timeout: Duration, stop: CancellationToken) {
    let mut contact = standing.contact.subscribe();
    loop {
        let last = *contact.borrow_and_update();
        let expired = async {
            match last {
                Some(last) => sleep_until(last + timeout).await,
                // Resigned, or never unfenced: nothing can expire before the next contact.
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            changed = contact.changed() => if changed.is_err() { return },
            () = expired => {
                warn!(
                    timeout_ms = timeout.as_millis(),
                    "no controller was heard of for the session timeout: resigning every leadership"
                );
                standing.resign();
            }
        }
    }
}
