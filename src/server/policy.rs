//! The policy for the answers that are kept, and the verdicts of handlers, which override it.

use std::fmt;
use std::sync::Arc;

use axum::response::{IntoResponseParts, ResponseParts};
use http::StatusCode;
use http::header::{HeaderMap, RETRY_AFTER};
use http::response::Parts;

use crate::http::{GRPC_STATUS, is_grpc};

/// The answers that are kept and replayed. Any other answer frees the key, and the next request
/// with the key runs the handler.
///
/// A 5xx or 408 that is not kept interrupts the key instead where claims are
/// [`durable`](super::IdempotencyLayer::durable): nobody can tell if a handler that failed or was
/// cut off has acted. In gRPC these are CANCELLED, UNKNOWN, DEADLINE_EXCEEDED, INTERNAL,
/// UNAVAILABLE and DATA_LOSS. A handler that knows that nothing happened answers with
/// [`Verdict::Release`]. In a run after an interruption any answer that is not kept interrupts the
/// key again, because an earlier run may have acted.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum KeepPolicy {
    /// 2xx and 3xx, and gRPC's OK: the successes of the contract.
    #[default]
    Success,
    /// Successes other than 304, and the refusals that the same request would meet again: 4xx, and
    /// in gRPC INVALID_ARGUMENT, NOT_FOUND, ALREADY_EXISTS, PERMISSION_DENIED and UNIMPLEMENTED.
    ///
    /// A 4xx is not kept if the next try may fare better by its meaning (RFC 9110): it has
    /// `Retry-After`, it depends on state or time (402, 408, 409, 421, 423, 424, 425, 429), or it
    /// depends on headers, which a retry may change (401, 406, 407, 411, 412, 415, 416, 417, 426,
    /// 428, 431).
    Deterministic,
    /// All answers, failures of the server included. A panic is no answer: a panic frees a volatile
    /// key, and interrupts a durable one.
    All,
    /// The answers for whose status and headers the function returns `true`.
    Custom(Arc<dyn Fn(&Parts) -> bool + Send + Sync>),
}

/// A handler's verdict on its own operation, which overrides the layer's [`KeepPolicy`].
///
/// In axum it is a part of the response, after the status and before the body; so is
/// `Extension(verdict)`. Elsewhere it is an entry in the response's extensions. The layer removes
/// it.
///
/// [`Interrupt`](Self::Interrupt) is for layers that act on interruptions: under the default,
/// [`OnInterrupted::Rerun`](super::OnInterrupted::Rerun), the next request runs the handler.
///
/// ```
/// use axum::response::IntoResponse;
/// use http::StatusCode;
/// use refrain::server::Verdict;
///
/// async fn place_call() -> impl IntoResponse {
///     // The carrier timed out, and may have placed the call.
///     (StatusCode::GATEWAY_TIMEOUT, Verdict::Interrupt, "the carrier did not answer")
/// }
/// # let _ = place_call;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The operation is done: the answer is kept, whatever its status.
    Complete,
    /// The operation is done, and the answer is not kept: a secret, or a stream.
    CompleteWithoutResponse,
    /// Nothing happened in this run: the key is freed. In a run after an interruption it is
    /// interrupted again instead, because an earlier run may have acted.
    Release,
    /// The outcome is unknown: the key is interrupted, durably, and
    /// [`OnInterrupted`](super::OnInterrupted) decides what the next request with the key gets.
    /// This answer is sent.
    Interrupt,
}

impl Verdict {
    /// Returns true if the operation is done.
    pub(super) fn is_done(self) -> bool {
        matches!(self, Self::Complete | Self::CompleteWithoutResponse)
    }
}

impl IntoResponseParts for Verdict {
    type Error = std::convert::Infallible;

    fn into_response_parts(
        self,
        mut response: ResponseParts,
    ) -> Result<ResponseParts, Self::Error> {
        response.extensions_mut().insert(self);
        Ok(response)
    }
}

impl KeepPolicy {
    /// Judges an answer that its handler gave no verdict on, by its head, which [`is_success`] says
    /// is one or not.
    pub(super) fn judge(&self, parts: &Parts, is_success: bool, run: Run) -> Verdict {
        let keeps = match self {
            Self::Success => is_success,
            Self::Custom(keeps) => keeps(parts),
            // A gRPC error without a message comes with its status in the headers.
            _ => self.keeps_head(parts) && self.keeps_grpc(&parts.headers, &parts.headers),
        };
        match keeps {
            true => Verdict::Complete,
            false => run.without_a_record(parts.status, &parts.headers, &parts.headers),
        }
    }

    /// Judges a response again by its trailers, which hold gRPC's status. A gRPC response without a
    /// status was cut off after the operation was done, and cannot be replayed.
    pub(super) fn judge_trailers(
        &self,
        parts: &Parts,
        trailers: Option<&HeaderMap>,
        run: Run,
    ) -> Verdict {
        let headers = &parts.headers;
        let has_status = |map: &HeaderMap| map.contains_key(GRPC_STATUS);
        let is_cut = is_grpc(headers) && !has_status(headers) && !trailers.is_some_and(has_status);
        match (self, trailers) {
            (Self::Success | Self::Deterministic, _) if is_cut => Verdict::CompleteWithoutResponse,
            (_, Some(trailers)) if !self.keeps_grpc(headers, trailers) => {
                run.without_a_record(parts.status, headers, trailers)
            }
            _ => Verdict::Complete,
        }
    }

    fn keeps_head(&self, Parts { status, headers, .. }: &Parts) -> bool {
        let success = status.is_success()
            || status.is_redirection()
            || *status == StatusCode::SWITCHING_PROTOCOLS;
        match self {
            Self::Success => success,
            Self::Deterministic if success => *status != StatusCode::NOT_MODIFIED,
            Self::Deterministic => {
                let passes = is_transient(*status) || headers.contains_key(RETRY_AFTER);
                status.is_client_error() && !passes
            }
            Self::All | Self::Custom(_) => true,
        }
    }

    fn keeps_grpc(&self, headers: &HeaderMap, status_in: &HeaderMap) -> bool {
        let Some(status) = status_in.get(GRPC_STATUS).filter(|_| is_grpc(headers)) else {
            return true;
        };
        match self {
            Self::Success => status == "0",
            Self::Deterministic => {
                // Not 9 and 11, which by gRPC's own definition pass when the state changes.
                const KEPT: [&str; 6] = ["0", "3", "5", "6", "7", "12"];
                KEPT.iter().any(|kept| status == kept)
            }
            Self::All | Self::Custom(_) => true,
        }
    }
}

/// Returns true if a handler says that it has done what it was asked for.
pub(super) fn is_success(parts: &Parts) -> bool {
    let success = KeepPolicy::Success;
    success.keeps_head(parts) && success.keeps_grpc(&parts.headers, &parts.headers)
}

/// A run, by what its claim tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Run {
    /// Nothing would outlive a crash, and nobody asks.
    Volatile,
    /// The first of a durable operation.
    First,
    /// One after an interruption: an earlier one may have acted.
    Again,
}

impl Run {
    /// Returns the verdict on an answer that is not kept.
    fn without_a_record(
        self,
        status: StatusCode,
        headers: &HeaderMap,
        status_in: &HeaderMap,
    ) -> Verdict {
        let is_doubtful = match self {
            Self::Volatile => false,
            Self::First => is_unknown(status, headers, status_in),
            Self::Again => true,
        };
        if is_doubtful { Verdict::Interrupt } else { Verdict::Release }
    }
}

/// Returns whether nobody can tell from an answer if its request was done: the handler has failed, or
/// was cut off.
fn is_unknown(status: StatusCode, headers: &HeaderMap, status_in: &HeaderMap) -> bool {
    // CANCELLED, UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE and DATA_LOSS.
    const GRPC: [&str; 6] = ["1", "2", "4", "13", "14", "15"];
    let grpc = status_in.get(GRPC_STATUS).filter(|_| is_grpc(headers));
    status.is_server_error()
        || status == StatusCode::REQUEST_TIMEOUT
        || grpc.is_some_and(|grpc| GRPC.iter().any(|unknown| grpc == unknown))
}

/// Returns whether a status says that the same request may get another answer later, or with other
/// headers.
fn is_transient(status: StatusCode) -> bool {
    let by_state = matches!(status.as_u16(), 402 | 408 | 409 | 421 | 423 | 424 | 425 | 429);
    let by_headers =
        matches!(status.as_u16(), 401 | 406 | 407 | 411 | 412 | 415..=417 | 426 | 428 | 431);
    by_state || by_headers
}

impl fmt::Debug for KeepPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Success => "Success",
            Self::Deterministic => "Deterministic",
            Self::All => "All",
            Self::Custom(_) => "Custom",
        })
    }
}
