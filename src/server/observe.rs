//! The spans, events and metrics of the layer, with the features `tracing` and `metrics`. Each
//! request with a key has one span, which its handler runs in, and one event for its outcome. What
//! keeps the store from its work is an event of its own, in the same span.

#[cfg(feature = "tracing")]
use tokio::time::Instant;

#[cfg(feature = "tracing")]
use crate::error::Cause;
use crate::{Error, Key, RequestId};

use super::dialect::Reason;

#[cfg(feature = "tracing")]
mod told;

#[cfg(feature = "tracing")]
use told::Told;

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
    if let Some(suppressed) = Kind::Mistake.admit() {
        tracing::error!(suppressed, "{mistake}");
    }
    let _ = mistake;
}

/// Logs the reason why the store did not do what it was asked, which no client is told.
pub(super) fn troubled(error: &Error) {
    #[cfg(feature = "tracing")]
    {
        let kind = Kind::of(error);
        let Some(suppressed) = kind.admit() else { return };
        let error = with_causes(error);
        if kind.is_transient() {
            tracing::warn!(error, suppressed, "the store refused a request");
        } else {
            tracing::error!(error, suppressed, "the store refused a request");
        }
    }
    let _ = error;
}

/// Logs that a lookup has taken too long, and its request was refused.
pub(super) fn late() {
    #[cfg(feature = "tracing")]
    if let Some(suppressed) = Kind::Late.admit() {
        tracing::warn!(suppressed, "the store did not find a key in time");
    }
}

/// Logs the reason why the outcome of a handler is not recorded.
pub(super) fn unrecorded(error: &Error) {
    #[cfg(feature = "tracing")]
    if let Some(suppressed) = Kind::Unrecorded.admit() {
        let error = with_causes(error);
        tracing::error!(error, suppressed, "the outcome of a request could not be recorded");
    }
    let _ = error;
}

/// The kinds of events, each of which is limited by itself.
#[cfg(feature = "tracing")]
#[derive(Clone, Copy)]
enum Kind {
    Full,
    Behind,
    Limit,
    Unavailable,
    Away,
    Late,
    Shortage,
    Damage,
    Stopped,
    Unrecorded,
    Mistake,
    Other,
}

#[cfg(feature = "tracing")]
impl Kind {
    const COUNT: usize = Self::Other as usize + 1;

    fn of(error: &Error) -> Self {
        match error {
            Error::Full => Self::Full,
            Error::Behind => Self::Behind,
            Error::Limit { .. } => Self::Limit,
            Error::Unavailable { .. } => Self::Unavailable,
            Error::Foreign { .. } => Self::Away,
            Error::Io { cause: Cause::OpenFiles { .. } | Cause::FileSize { .. }, .. }
            | Error::Io { cause: Cause::DiskFull | Cause::Quota, .. } => Self::Shortage,
            Error::Corrupt { .. } => Self::Damage,
            Error::Stopped { .. } => Self::Stopped,
            _ => Self::Other,
        }
    }

    /// Returns true if the store may do by itself, later on, what it was asked.
    fn is_transient(self) -> bool {
        !matches!(self, Self::Damage | Self::Stopped | Self::Other)
    }

    fn admit(self) -> Option<u64> {
        static TOLD: [Told; Kind::COUNT] = [const { Told::new() }; Kind::COUNT];
        TOLD[self as usize].admit(Instant::now())
    }
}

/// Returns the error and all of its causes, in one line.
#[cfg(feature = "tracing")]
fn with_causes(error: &Error) -> String {
    let sources = std::iter::successors(std::error::Error::source(error), |it| it.source());
    sources.fold(error.to_string(), |whole, source| format!("{whole}: {source}"))
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

    /// Records how the request has ended, and logs it.
    pub(super) fn end(&self, outcome: &'static str) {
        #[cfg(feature = "tracing")]
        {
            self.span.record("outcome", outcome);
            tracing::debug!(parent: &self.span, "the request has ended: {outcome}");
        }
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
