//! Where the broker keeps its current view of the cluster: read without waiting, awaited by offset.

use std::sync::Arc;

use arc_swap::ArcSwap;
use metadata::ClusterImage;
use protocol::Offset;
use tokio::sync::watch;
use tokio::time::Instant;

/// The broker's image of the cluster. A clone is a handle to the same image.
///
/// Only the session's applier publishes; what it publishes has been applied by the replicas already, so
/// whoever waits for an offset here knows that this broker acts on it.
#[derive(Clone, Debug)]
pub struct ImageStore {
    current: Arc<ArcSwap<ClusterImage>>,
    published: Arc<watch::Sender<Arc<ClusterImage>>>,
}

/// The image did not reach the offset in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this broker's metadata did not reach offset {wanted} in time: it is at {reached:?}")]
pub struct ImageBehind {
    /// The offset that was awaited.
    pub wanted: Offset,
    /// The offset of the image when the time was up.
    pub reached: Option<Offset>,
}

impl Default for ImageStore {
    fn default() -> Self {
        Self::new()
    }
}

impl ImageStore {
    /// A store with the empty image.
    pub fn new() -> Self {
        let image = Arc::new(ClusterImage::default());
        Self {
            current: Arc::new(ArcSwap::new(Arc::clone(&image))),
            published: Arc::new(watch::Sender::new(image)),
        }
    }

    /// The image as it is now; lock-free.
    pub fn current(&self) -> Arc<ClusterImage> {
        self.current.load_full()
    }

    /// Every later image, with the current one as a start. A slow reader skips images, never order.
    pub fn subscribe(&self) -> watch::Receiver<Arc<ClusterImage>> {
        self.published.subscribe()
    }

    /// Waits until the image contains `offset`.
    pub async fn wait_for_offset(
        &self,
        offset: Offset,
        deadline: Instant,
    ) -> Result<Arc<ClusterImage>, ImageBehind> {
        let mut images = self.subscribe();
        let reached = images.wait_for(|image| image.offset >= Some(offset));
        match tokio::time::timeout_at(deadline, reached).await {
            Ok(Ok(image)) => Ok(Arc::clone(&image)),
            // The store holds the sender, so the channel never closes while `self` lives.
            Ok(Err(_)) | Err(_) => Err(ImageBehind {
                wanted: offset,
                reached: self.current().offset,
            }),
        }
    }

    /// Makes `image` the current one. For the session's applier alone.
    pub fn publish(&self, image: Arc<ClusterImage>) {
        self.current.store(Arc::clone(&image));
        self.published.send_replace(image);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn image_at(offset: i64) -> Arc<ClusterImage> {
        let mut image = ClusterImage::default();
        image.offset = Some(Offset(offset));
        Arc::new(image)
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_ends_with_the_offset_or_the_deadline() {
        let store = ImageStore::new();
        store.publish(image_at(3));
        let soon = Instant::now() + Duration::from_secs(1);
        assert_eq!(
            store
                .wait_for_offset(Offset(2), soon)
                .await
                .map(|image| image.offset),
            Ok(Some(Offset(3)))
        );
        let behind = store.wait_for_offset(Offset(4), soon).await;
        assert_eq!(
            behind.map(|image| image.offset),
            Err(ImageBehind {
                wanted: Offset(4),
                reached: Some(Offset(3))
            })
        );

        let later = Instant::now() + Duration::from_secs(1);
        let (waited, ()) = tokio::join!(store.wait_for_offset(Offset(4), later), async {
            store.publish(image_at(4));
        });
        assert!(waited.is_ok());
        assert_eq!(store.current().offset, Some(Offset(4)));
    }
}
