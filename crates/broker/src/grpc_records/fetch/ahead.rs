//! What all streams together may hold of what was read for them, and decode at a time.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::records::Validator;

/// Bytes of batches that are being read, or wait to be handed out, over all streams.
const HELD_BYTES: usize = 256 << 20;

/// The budget of a broker's streams. A clone is a handle to the same.
#[derive(Clone, Debug)]
pub(in crate::grpc_records) struct ReadAhead {
    /// Permits are bytes.
    bytes: Arc<Semaphore>,
    /// Places of their own: readers take none from the producers of the Kafka port.
    pub(super) decoding: Validator,
}

/// A part of the budget, until it is dropped.
#[derive(Debug)]
pub(super) struct Held {
    /// The semaphore is never closed; without a permit there would be no bound, and no harm.
    permit: Option<OwnedSemaphorePermit>,
    /// Whether it was not there at once.
    pub(super) waited: bool,
}

impl ReadAhead {
    pub(in crate::grpc_records) fn new() -> Self {
        Self::of(HELD_BYTES)
    }

    fn of(bytes: usize) -> Self {
        Self {
            bytes: Arc::new(Semaphore::new(bytes)),
            decoding: Validator::new(),
        }
    }

    /// Waits for `bytes` of the budget, or all of it; in the order of asking.
    pub(super) async fn take(&self, bytes: usize) -> Held {
        let permits = bytes.clamp(1, HELD_BYTES) as u32;
        if let Ok(permit) = Arc::clone(&self.bytes).try_acquire_many_owned(permits) {
            return Held {
                permit: Some(permit),
                waited: false,
            };
        }
        Held {
            permit: Arc::clone(&self.bytes).acquire_many_owned(permits).await.ok(),
            waited: true,
        }
    }
}

impl Held {
    /// Gives back what goes beyond `bytes`.
    pub(super) fn shrink_to(&mut self, bytes: usize) {
        if let Some(permit) = &mut self.permit {
            let surplus = permit.num_permits().saturating_sub(bytes);
            drop(permit.split(surplus));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_not_needed_is_there_for_others() {
        let ahead = ReadAhead::of(100);
        let mut first = ahead.take(80).await;
        assert!(!first.waited);
        let second = ahead.take(50);
        tokio::pin!(second);
        assert!(
            futures::poll!(second.as_mut()).is_pending(),
            "80 and 50 are too many"
        );
        first.shrink_to(50);
        let second = second.await;
        assert!(second.waited);
        drop((first, second));
        assert_eq!(ahead.bytes.available_permits(), 100);
    }
}
