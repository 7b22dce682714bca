//! The spans, events and metrics of the layer, with the features `tracing` and `metrics`. Each
//! request with a key has one span, which its handler runs in.

use std::future::Future;

use crate::{Error, Key, RequestId};

use super::dialect::Reason;

/// Counts a request that the layer refused, and logs a mistake in the server's program.
pub(super) fn refused(reason: &Reason) {
    #[cfg(feature = "metrics")]
    metrics::counter!("refrain_refused_total", "code" => reason.code()).increment(1);
    if matches!(reason, Reason::Misused(_)) {
        mistaken(reason);
    }
}

/// Logs a mistake in the server's program.
pub(super) fn mistaken(mistake: &Reason) {
    #[cfg(feature = "tracing")]
    tracing::error!("{mistake}");
    let _ = mistake;
}

/// Logs the reason why the store did not do what it was asked, which no client is told.
pub(super) fn troubled(error: &Error) {
    #[cfg(feature = "tracing")]
    {
        let sources = std::iter::successors(std::error::Error::source(error), |it| it.source());
        let whole = sources.fold(error.to_string(), |whole, source| format!("{whole}: {source}"));
        tracing::error!("{whole}");
    }
    let _ = error;
}

/// Runs a request with a key in a span of its own, and records its outcome there.
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

/// The start of the key's hash: enough to find the lines of one key, and too little to learn it.
#[cfg(feature = "tracing")]
fn short_hash(key: &Key) -> String {
    use sha2::{Digest, Sha256};

    let [a, b, c, d, ..]: [u8; 32] = Sha256::digest(key.as_str()).into();
    format!("{a:02x}{b:02x}{c:02x}{d:02x}")
}
