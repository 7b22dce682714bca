//! Questions to the store, asked where they may take their time.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::{Operation, Store};

/// The lookups of a layer that read from the disk at a time.
const MAX_LOOKUPS: usize = 64;
/// The time for a place among them, and again for the lookup itself.
const WITHIN: Duration = Duration::from_secs(10);

/// The places of lookups that read from the disk.
#[derive(Clone, Debug)]
pub(super) struct Lookups(Arc<Semaphore>);

impl Default for Lookups {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_LOOKUPS)))
    }
}

impl Lookups {
    /// Asks the store about the key of an operation: on a thread that may block if the answer has to
    /// be read from the disk, so that no other task waits for it. `None` if the answer is late.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        store: &Store,
        operation: &Operation,
        question: fn(&Store, &Operation) -> T,
    ) -> Option<T> {
        if !store.reads_disk(operation.scope(), operation.key()) {
            return Some(question(store, operation));
        }
        let place = timeout(WITHIN, Arc::clone(&self.0).acquire_owned()).await.ok()?.ok()?;
        let asked = (store.clone(), operation.clone());
        let answer = spawn_blocking(move || {
            let _place = place;
            question(&asked.0, &asked.1)
        });
        match timeout(WITHIN, answer).await.ok()? {
            Ok(answer) => Some(answer),
            Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
            // The runtime shuts down.
            Err(_) => None,
        }
    }
}
