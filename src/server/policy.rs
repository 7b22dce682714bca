//! The policies of a route: for the answers that are kept, and for keys whose run was interrupted.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use axum::response::{IntoResponseParts, ResponseParts};
use bytes::Bytes;
use http::header::{HeaderMap, RETRY_AFTER};
use http::response::Parts;
use http::{Response, StatusCode, request};

use crate::http::{GRPC_STATUS, is_grpc};
use crate::{Attempt, Key, Record, RequestId};

/// The answers that are kept and replayed. Any other answer frees the key, and the next request
/// with the key runs the handler.
///
/// Where claims are [`durable`](super::IdempotencyLayer::durable), a 5xx or 408 that is not kept
/// interrupts the key instead: nobody can tell if a handler that failed or was cut off has acted. In
/// gRPC these are CANCELLED, UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE and DATA_LOSS. A
/// handler that knows that nothing happened answers with [`Verdict::Release`]. In a run after an
/// interruption any answer that is not kept interrupts the key again, because an earlier run may have
/// acted.
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
/// [`OnInterrupted::Rerun`], the next request runs the handler.
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
    /// The outcome is unknown: the key is interrupted, durably, and [`OnInterrupted`] decides what
    /// the next request with the key gets. This answer is sent.
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
    /// Judges an answer that its handler gave no verdict on, by its head.
    pub(super) fn judge(&self, parts: &Parts, run: Run) -> Verdict {
        let keeps = match self {
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

/// What is known of a run from its claim.
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

/// An earlier request with the key, of which a client is to hear; the argument of
/// [`authorize_replay`](super::IdempotencyLayer::authorize_replay).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Earlier {
    /// The id of the earlier request; `None` if its record is damaged.
    pub request_id: Option<RequestId>,
    /// The record of the earlier request; `None` while it runs, if it was interrupted, and if its
    /// record cannot be read.
    pub record: Option<Record>,
}

type Recovering = Pin<Box<dyn Future<Output = Recovery> + Send>>;

/// The policy for keys whose last run was interrupted, as by a crash in mid-handler.
///
/// | policy | claims | the next request with the key |
/// | --- | --- | --- |
/// | [`Rerun`](Self::Rerun) | volatile | runs the handler |
/// | [`Refuse`](Self::Refuse) | durable | gets 409 `idempotency_interrupted` |
/// | [`Recover`](Self::Recover) | durable | gets the finding of a function |
///
/// With [`durable`](super::IdempotencyLayer::durable), claims are durable under `Rerun` too.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum OnInterrupted {
    /// The handler runs again.
    #[default]
    Rerun,
    /// 409 `idempotency_interrupted`, until the claim expires or is resolved.
    Refuse,
    /// A function finds out what the run did; made by [`recover`](Self::recover).
    Recover(Hook),
}

/// The function of [`OnInterrupted::Recover`]; made by [`OnInterrupted::recover`].
#[derive(Clone)]
pub struct Hook(Arc<dyn Fn(Interruption) -> Recovering + Send + Sync>);

impl OnInterrupted {
    /// Returns a policy that asks a function for the outcome of an interrupted run. The function
    /// holds the key, so other requests with the key wait for it, and it goes on if its client hangs
    /// up.
    ///
    /// ```
    /// use refrain::server::{IdempotencyLayer, OnInterrupted};
    /// # async fn find_call(_downstream: refrain::Key) -> Option<String> { None }
    /// # fn main() -> refrain::Result<()> {
    /// # let store = refrain::Store::builder().open_in_memory()?;
    ///
    /// let ask_the_carrier = OnInterrupted::recover(|interruption| async move {
    ///     match find_call(interruption.downstream_key("carrier")).await {
    ///         Some(call) => interruption.respond(http::Response::new(call.into())),
    ///         None => interruption.rerun(),
    ///     }
    /// });
    /// let layer = IdempotencyLayer::new(store).on_interrupted(ask_the_carrier);
    /// # let _ = layer;
    /// # Ok(())
    /// # }
    /// ```
    pub fn recover<F, R>(hook: F) -> Self
    where
        F: Fn(Interruption) -> R + Send + Sync + 'static,
        R: Future<Output = Recovery> + Send + 'static,
    {
        Self::Recover(Hook(Arc::new(move |interruption| Box::pin(hook(interruption)))))
    }
}

impl Hook {
    pub(super) async fn ask(&self, interruption: Interruption) -> Recovery {
        (self.0)(interruption).await
    }
}

impl fmt::Debug for OnInterrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rerun => "Rerun",
            Self::Refuse => "Refuse",
            Self::Recover(_) => "Recover",
        })
    }
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hook")
    }
}

/// An interrupted run, and the request that asks again; the argument of a recovery function.
///
/// One of [`rerun`](Self::rerun), [`respond`](Self::respond), [`done`](Self::done) and
/// [`refuse`](Self::refuse) ends it. See [`OnInterrupted::recover`] for an example.
#[derive(Debug)]
#[must_use = "an interruption ends in a Recovery"]
pub struct Interruption {
    pub(super) attempt: Attempt,
    pub(super) key: Key,
    pub(super) request: request::Parts,
}

impl Interruption {
    /// Returns the head of the request that asks again.
    pub fn request(&self) -> &request::Parts {
        &self.request
    }

    /// Returns the client's key.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Returns the id of the request that was interrupted.
    pub fn request_id(&self) -> &RequestId {
        self.attempt.request_id()
    }

    /// Returns the number of the interrupted run, counted from 1.
    pub fn attempt(&self) -> u32 {
        self.attempt.number()
    }

    /// Returns the checkpoints of the interrupted run, oldest first.
    pub fn checkpoints(&self) -> &[Bytes] {
        self.attempt.checkpoints()
    }

    /// Returns the key that the run handed to another service under a label.
    pub fn downstream_key(&self, label: &str) -> Key {
        self.attempt.downstream_key(label)
    }

    /// Runs the handler as the next attempt, because the run did nothing or is safe to repeat.
    ///
    /// # Durability
    ///
    /// The new attempt is durable before the handler runs.
    pub fn rerun(self) -> Recovery {
        Recovery { attempt: self.attempt, finding: Finding::Rerun }
    }

    /// Answers with this response, because the run succeeded. It is recorded, sent, and replayed
    /// from now on.
    ///
    /// # Durability
    ///
    /// The record is durable before the response is sent.
    pub fn respond(self, response: Response<Bytes>) -> Recovery {
        Recovery { attempt: self.attempt, finding: Finding::Respond(Box::new(response)) }
    }

    /// Records that the run succeeded and that its response is lost. The answer is 409
    /// `idempotency_result_unavailable`, from now on.
    pub fn done(self) -> Recovery {
        Recovery { attempt: self.attempt, finding: Finding::Done }
    }

    /// Leaves the outcome unknown. The answer is 409 `idempotency_interrupted`, and the next
    /// request calls the function again.
    pub fn refuse(self) -> Recovery {
        Recovery { attempt: self.attempt, finding: Finding::Refuse }
    }
}

/// The finding of a recovery function; made by an [`Interruption`].
#[derive(Debug)]
#[must_use = "a Recovery is the answer of the function"]
pub struct Recovery {
    pub(super) attempt: Attempt,
    pub(super) finding: Finding,
}

#[derive(Debug)]
pub(super) enum Finding {
    Rerun,
    Respond(Box<Response<Bytes>>),
    Done,
    Refuse,
}
