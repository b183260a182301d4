//! A controller without a quorum says so, every few seconds, and what it waits for.

use std::time::Duration;

use broker::config::ControllerVoter;
use controller::ActiveView;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

/// From the loss of the active controller to the first line, and from line to line: an election takes
/// less.
const COMPLAIN_EVERY: Duration = Duration::from_secs(5);

/// Watches who is active until `stop`, or until the controller has ended.
pub(super) async fn watch(
    mut active: watch::Receiver<ActiveView>,
    voters: Vec<ControllerVoter>,
    stop: CancellationToken,
) {
    let voters: Vec<String> = voters
        .iter()
        .map(|voter| format!("{}@{}", voter.id, voter.address))
        .collect();
    // `None` while somebody is active.
    let mut complain_at = None;
    let mut complained = false;
    loop {
        if active.borrow_and_update().active.is_none() {
            complain_at.get_or_insert_with(|| Instant::now() + COMPLAIN_EVERY);
        } else {
            complain_at = None;
            if complained {
                complained = false;
                tracing::info!("a quorum of controllers is there");
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = active.changed() => if changed.is_err() { return },
            () = sleep_until(complain_at.unwrap_or_else(Instant::now)), if complain_at.is_some() => {
                complained = true;
                complain_at = None;
                tracing::warn!(
                    voters = voters.join(","),
                    "no quorum of controllers: waiting for a majority of the voters"
                );
            }
        }
    }
}
