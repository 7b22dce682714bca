//! Spans, with feature `tracing`: one for each request with a key, around its handler too.

use std::future::Future;

use tokio::task::JoinHandle;

use crate::key::{Key, RequestId};

/// Runs a task that belongs to the request at hand.
pub(super) fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    #[cfg(feature = "tracing")]
    let future = tracing::Instrument::in_current_span(future);
    tokio::spawn(future)
}

/// Does what a request with a key asks for, in a span of its own.
#[cfg(feature = "tracing")]
pub(super) async fn request<T>(
    key: &Key,
    id: &RequestId,
    future: impl Future<Output = T>,
    outcome: impl FnOnce(&T) -> &'static str,
) -> T {
    use tracing::Instrument;

    let key = short_hash(key);
    let span =
        tracing::info_span!("idempotency", key, request_id = %id, outcome = tracing::field::Empty);
    let done = future.instrument(span.clone()).await;
    span.record("outcome", outcome(&done));
    done
}

#[cfg(not(feature = "tracing"))]
pub(super) async fn request<T>(
    _key: &Key,
    _id: &RequestId,
    future: impl Future<Output = T>,
    _outcome: impl FnOnce(&T) -> &'static str,
) -> T {
    future.await
}

/// Enough of a key to find its lines by, and too little to learn it from.
#[cfg(feature = "tracing")]
fn short_hash(key: &Key) -> String {
    use sha2::{Digest, Sha256};

    let [a, b, c, d, ..]: [u8; 32] = Sha256::digest(key.as_str()).into();
    format!("{a:02x}{b:02x}{c:02x}{d:02x}")
}
