//! The spans, events and metrics of the layer, with the features `tracing` and `metrics`. Each
//! request with a key has one span, which its handler runs in.

use crate::{Error, Key, RequestId};

use super::dialect::Reason;

/// All that [`Reason::code`] returns.
#[cfg(feature = "metrics")]
const CODES: [&str; 16] = [
    "idempotency_key_missing",
    "idempotency_key_invalid",
    "unauthorized",
    "forbidden",
    "body_too_large",
    "body_too_slow",
    "body_unreadable",
    "idempotency_conflict",
    "idempotency_in_progress",
    "idempotency_interrupted",
    "idempotency_result_unavailable",
    "idempotency_outcome_unknown",
    "idempotency_record_damaged",
    "too_many_requests",
    "idempotency_unavailable",
    "internal_error",
];

/// Describes the layer's metric, and registers it at zero.
pub(super) fn register() {
    #[cfg(feature = "metrics")]
    {
        let (unit, meaning) = (metrics::Unit::Count, "requests that the layer answered itself");
        metrics::describe_counter!("refrain_refused_total", unit, meaning);
        for code in CODES {
            metrics::counter!("refrain_refused_total", "code" => code).increment(0);
        }
    }
}

/// Counts a request that the layer refused, and logs a mistake in the server's program.
pub(super) fn refused(reason: &Reason) {
    #[cfg(feature = "metrics")]
    {
        debug_assert!(CODES.contains(&reason.code()), "{} is not registered", reason.code());
        metrics::counter!("refrain_refused_total", "code" => reason.code()).increment(1);
    }
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

/// The span of a request with a key.
pub(super) struct Span {
    #[cfg(feature = "tracing")]
    span: tracing::Span,
}

impl Span {
    pub(super) fn new(key: &Key, id: &RequestId) -> Self {
        #[cfg(feature = "tracing")]
        return Self {
            span: tracing::info_span!(
                "idempotency",
                key = short_hash(key),
                request_id = %id,
                outcome = tracing::field::Empty
            ),
        };
        #[cfg(not(feature = "tracing"))]
        {
            let _ = (key, id);
            Self {}
        }
    }

    /// Returns the span that the caller runs in.
    #[cfg(feature = "actix")]
    pub(super) fn current() -> Self {
        Self {
            #[cfg(feature = "tracing")]
            span: tracing::Span::current(),
        }
    }

    /// Runs the request in the span.
    pub(super) fn around<F: Future>(&self, future: F) -> impl Future<Output = F::Output> {
        #[cfg(feature = "tracing")]
        let future = tracing::Instrument::instrument(future, self.span.clone());
        future
    }

    /// Records how the request has ended.
    pub(super) fn end(&self, outcome: &'static str) {
        #[cfg(feature = "tracing")]
        self.span.record("outcome", outcome);
        let _ = outcome;
    }
}

/// The start of the key's hash: enough to find the lines of one key, and too little to learn it.
#[cfg(feature = "tracing")]
fn short_hash(key: &Key) -> String {
    use sha2::{Digest, Sha256};

    let [a, b, c, d, ..]: [u8; 32] = Sha256::digest(key.as_str()).into();
    format!("{a:02x}{b:02x}{c:02x}{d:02x}")
}
