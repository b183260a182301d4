//! Brings the replicas to the newest image, then shows the image to everybody else.

use std::sync::Arc;

use metadata::ClusterImage;
use protocol::BrokerEpoch;
use tokio_util::sync::CancellationToken;

use super::ImageStore;
use super::standing::Standing;

/// An image that contains the registration under this broker epoch.
#[derive(Clone, Debug)]
pub(super) struct ReadyImage {
    pub(super) image: Arc<ClusterImage>,
    pub(super) epoch: BrokerEpoch,
}

/// Applies the newest ready image until told to stop. Images that arrive while one is applied are
/// skipped but for the last: images are compared as wholes, so nothing is lost.
pub(super) async fn apply_images(standing: Arc<Standing>, images: ImageStore, stop: CancellationToken) {
    let mut ready = standing.ready.subscribe();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            changed = ready.changed() => if changed.is_err() { return },
        }
        let Some(ReadyImage { image, epoch }) = ready.borrow_and_update().clone() else {
            continue;
        };
        let older = if standing.take_resigned() {
            Arc::default()
        } else {
            images.current()
        };
        standing
            .consumer
            .apply_image(&older, Arc::clone(&image), epoch)
            .await;
        images.publish(image);
    }
}
