//! Questions to the store, asked where they may take their time.

use tokio::task::spawn_blocking;

use crate::{Operation, Store};

/// Asks the store about the key of an operation: on a thread that may block if the answer has to be
/// read from the disk, so that no other task waits for it.
pub(super) async fn ask<T: Send + 'static>(
    store: &Store,
    operation: &Operation,
    question: fn(&Store, &Operation) -> T,
) -> T {
    if !store.reads_disk(operation.scope(), operation.key()) {
        return question(store, operation);
    }
    let asked = (store.clone(), operation.clone());
    let answer = spawn_blocking(move || question(&asked.0, &asked.1)).await;
    // The runtime shuts down, and takes no more work.
    answer.unwrap_or_else(|_| question(store, operation))
}
