//! The contract's refusals: the names that the dialects give them, and what each says of the call.
//!
//! The layer for servers sends them, and the layer for clients reads them. Refusals that are not
//! listed are answers like any other: the caller mends the request, or reports the answer.

/// The meaning of a refusal for its call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// Nothing was run for the request, and the same request may be granted later.
    NotRun,
    /// Another request with the key is running.
    InProgress,
    /// The key was used for another request.
    Conflict,
    /// An earlier run was cut off, and nobody knows how far it came.
    Interrupted,
    /// The call succeeded, and its response was not kept.
    ResultUnavailable,
    /// The call ran, and its outcome is not recorded.
    OutcomeUnknown,
}

impl Meaning {
    /// Returns true if the same request may be sent again under the same key.
    pub(crate) fn is_retryable(self) -> bool {
        matches!(self, Self::NotRun | Self::InProgress)
    }
}

/// A refusal, as the dialects name it.
#[cfg_attr(not(feature = "client"), allow(dead_code, reason = "only clients read all of it"))]
pub(crate) struct Named {
    pub(crate) meaning: Meaning,
    /// The contract's code, and Stripe's where it has its own.
    codes: &'static [&'static str],
    /// The title of a problem document.
    title: &'static str,
    /// The field of the contract's envelope that names the other request.
    pub(crate) other_request: Option<&'static str>,
}

const NAMED: [Named; 10] = [
    named(Meaning::NotRun, &["body_too_slow"], "The request is too slow", None),
    named(Meaning::NotRun, &["body_unreadable"], "The request broke off", None),
    named(Meaning::NotRun, &["too_many_requests", "rate_limit"], "Too many requests", None),
    named(Meaning::NotRun, &["idempotency_unavailable"], "Idempotency is unavailable", None),
    named(
        Meaning::InProgress,
        &["idempotency_in_progress", "idempotency_key_in_use"],
        "A request is outstanding for this Idempotency-Key",
        Some("in_progress_request_id"),
    ),
    // Stripe tells a conflict by its type, and gives it no code.
    named(
        Meaning::Conflict,
        &["idempotency_conflict"],
        "Idempotency-Key is already used",
        Some("conflicts_with"),
    ),
    named(
        Meaning::Interrupted,
        &["idempotency_interrupted"],
        "A request with this Idempotency-Key was interrupted",
        Some("interrupted_request_id"),
    ),
    named(
        Meaning::ResultUnavailable,
        &["idempotency_result_unavailable"],
        "The result of this Idempotency-Key was not kept",
        Some("original_request_id"),
    ),
    named(
        Meaning::OutcomeUnknown,
        &["idempotency_outcome_unknown"],
        "The outcome of the request is unknown",
        None,
    ),
    named(
        Meaning::OutcomeUnknown,
        &["idempotency_record_damaged"],
        "The record of this Idempotency-Key is damaged",
        None,
    ),
];

const fn named(
    meaning: Meaning,
    codes: &'static [&'static str],
    title: &'static str,
    other_request: Option<&'static str>,
) -> Named {
    Named { meaning, codes, title, other_request }
}

impl Named {
    /// Returns the refusal with this code, the contract's or Stripe's.
    pub(crate) fn by_code(code: &str) -> Option<&'static Self> {
        NAMED.iter().find(|named| named.codes.contains(&code))
    }

    /// Returns the refusal whose problem document has this title: the IETF draft's titles, and the
    /// ones that this crate's IETF dialect adds.
    #[cfg(feature = "client")]
    pub(crate) fn by_title(title: &str) -> Option<&'static Self> {
        NAMED.iter().find(|named| named.title == title)
    }
}
