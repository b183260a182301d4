//! Validation beside the async workers, where it takes longer than a moment.

use std::sync::Arc;
use std::thread::available_parallelism;

use bytes::Bytes;
use tokio::sync::Semaphore;

use super::{
    error::RecordError,
    rules::{RecordRules, Validated},
    validate::{validate, validate_briefly},
};

/// Judges batches without holding up whoever else is served by the same thread. A clone shares the
/// bound on how many are judged at a time.
#[derive(Clone, Debug)]
pub struct Validator {
    /// One for each processor: more would only take turns.
    places: Arc<Semaphore>,
}

impl Validator {
    /// For one process.
    pub fn new() -> Self {
        let places = available_parallelism().map_or(1, usize::from);
        Self {
            places: Arc::new(Semaphore::new(places)),
        }
    }

    /// [`validate`]: at once where that is cheap, on a blocking thread where the batch is large, opens
    /// to much or is to be compressed anew. Places on those threads are given in the order of asking.
    pub async fn validate(&self, batches: Bytes, rules: RecordRules) -> Result<Validated, RecordError> {
        if let Some(judged) = validate_briefly(&batches, &rules) {
            return judged;
        }
        self.beside(move || validate(batches, &rules)).await
    }

    /// Does other work on whole batches in the same way: on a blocking thread, within the same bound.
    pub async fn beside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        // The semaphore is never closed; without a permit there would be no bound, and no harm.
        let place = Arc::clone(&self.places).acquire_owned().await.ok();
        let working = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(place);
            done
        });
        match working.await {
            Ok(done) => done,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // Cancelled: the runtime is ending, and this task with it.
                Err(_) => std::future::pending().await,
            },
        }
    }
}

impl Default for Validator {
    fn default() -> Self {
        Self::new()
    }
}
