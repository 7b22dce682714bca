//! The operation that a handler runs, as the handler sees it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use bytes::Bytes;
use http::StatusCode;
use http::header::HeaderValue;
use http::request::Parts;
use parking_lot::Mutex;

use crate::{Error, Key, Permit, RequestId, Result, Ticket};

use super::envelope::Envelope;
use super::observe;

/// The operation that a handler runs: an entry in the request's extensions, and an extractor in
/// axum and, with feature `actix`, in actix-web.
///
/// The extractor refuses a request without a key, in the contract's words; `Option<Execution>` is
/// `None` for it.
///
/// ```
/// use axum::{Router, routing::post};
/// use refrain::server::{Envelope, Execution, IdempotencyLayer, OnInterrupted, Verdict};
/// # async fn place(_carrier_key: &refrain::Key) -> Result<(), ()> { Ok(()) }
///
/// async fn place_call(execution: Execution) -> Result<&'static str, (Verdict, Envelope)> {
///     let failed = |error: refrain::Error| (Verdict::Release, Envelope::from(error));
///     let carrier_key = execution.downstream_key("carrier").map_err(failed)?;
///     execution.checkpoint("asked the carrier").await.map_err(failed)?;
///     if place(&carrier_key).await.is_err() {
///         // It may have placed the call. A bare error would free the key, and the next attempt
///         // would come with another carrier key.
///         let status = http::StatusCode::GATEWAY_TIMEOUT;
///         let envelope = Envelope::new(status, "carrier_failed", "the carrier did not answer");
///         return Err((Verdict::Interrupt, envelope));
///     }
///     Ok("placed")
/// }
///
/// # fn main() -> refrain::Result<()> {
/// # let store = refrain::Store::builder().open_in_memory()?;
/// let strict = IdempotencyLayer::new(store).on_interrupted(OnInterrupted::Refuse);
/// let app: Router = Router::new().route("/v1/calls", post(place_call).layer(strict));
/// # let _ = app;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Execution(Arc<ExecutionState>);

struct ExecutionState {
    key: Key,
    request_id: RequestId,
    attempt: u32,
    checkpoints: Vec<Bytes>,
    /// `None` once the operation has its verdict.
    permit: Mutex<Option<Permit>>,
    succeeded: AtomicBool,
}

impl Execution {
    /// Returns the client's key.
    pub fn key(&self) -> &Key {
        &self.0.key
    }

    /// Returns the id of the request that runs the operation.
    pub fn request_id(&self) -> &RequestId {
        &self.0.request_id
    }

    /// Returns the number of this run, counted from 1. A number above 1 means that an earlier run
    /// was interrupted.
    pub fn attempt(&self) -> u32 {
        self.0.attempt
    }

    /// Returns the recovery points that earlier attempts stored, oldest first.
    pub fn checkpoints(&self) -> &[Bytes] {
        &self.0.checkpoints
    }

    /// Stores a recovery point for later attempts: up to 16 for one operation, of up to 16 KiB
    /// each.
    ///
    /// # Durability
    ///
    /// The recovery point survives a power cut once the ticket is ready.
    ///
    /// # Errors
    ///
    /// Those of [`Permit::checkpoint`], and [`Error::Ended`] after the handler has answered.
    pub fn checkpoint(&self, data: impl Into<Bytes>) -> Ticket<()> {
        match self.0.permit.lock().as_mut() {
            Some(permit) => permit.checkpoint(data),
            None => Ticket::ready(Err(Error::Ended)),
        }
    }

    /// Returns the idempotency key for a call to another service. All attempts of this operation
    /// get the same key; different labels give different keys.
    ///
    /// A client's key that was released or has expired starts a new operation, with new downstream
    /// keys. An answer that is not kept releases the client's key. So once the other service may
    /// have acted, answer with [`Verdict::Interrupt`](super::Verdict::Interrupt) and not with a
    /// bare error.
    ///
    /// # Errors
    ///
    /// [`Error::Volatile`] if claims are not durable (see
    /// [`durable`](super::IdempotencyLayer::durable)), and [`Error::Ended`] after the handler has
    /// answered.
    pub fn downstream_key(&self, label: &str) -> Result<Key> {
        self.0.permit.lock().as_ref().ok_or(Error::Ended)?.downstream_key(label)
    }

    /// Returns what a handler that asks for its operation gets, by the request's extensions.
    pub(super) fn found(
        execution: Option<&Self>,
        id: Option<&RequestId>,
    ) -> std::result::Result<Self, Envelope> {
        if id.is_none() {
            let message = "the handler needs an idempotency layer, and there is none";
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            return Err(Envelope::new(status, "internal_error", message));
        }
        execution.cloned().ok_or_else(|| {
            let message = "an idempotency key is required";
            Envelope::new(StatusCode::BAD_REQUEST, "idempotency_key_missing", message)
                .field("idempotency-key", "Expected the header")
        })
    }

    /// Returns true if a request with this key header is a part of the operation, which has no
    /// verdict yet.
    pub(super) fn covers(&self, key: Option<&HeaderValue>) -> bool {
        let is_same = |value: &HeaderValue| {
            Key::from_header(value.as_bytes()).ok() == Some(self.0.key.clone())
        };
        key.is_none_or(is_same) && self.0.permit.lock().is_some()
    }

    /// Lends the permit, for what only the store's backend can do; see [`Permit::claim_mut`].
    ///
    /// # Errors
    ///
    /// [`Error::Ended`] after the handler has answered.
    pub fn with_permit<T>(&self, work: impl FnOnce(&mut Permit) -> T) -> Result<T> {
        self.0.permit.lock().as_mut().ok_or(Error::Ended).map(work)
    }
}

impl fmt::Debug for Execution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Execution")
            .field("request_id", &self.0.request_id)
            .field("attempt", &self.0.attempt)
            .finish_non_exhaustive()
    }
}

/// The permit of a handler that has not started. Dropped, it frees the key: nothing was run.
pub(super) struct Unstarted(Option<Permit>);

impl Unstarted {
    pub(super) fn new(permit: Permit) -> Self {
        Self(Some(permit))
    }

    /// Returns the permit, for the handler that starts now.
    pub(super) fn start(mut self) -> Permit {
        self.0.take().expect("it is taken once")
    }

    /// Frees the key. Nothing ran, so the answer stands even if the release cannot be recorded.
    pub(super) async fn release(self) {
        let _ = self.start().release().await;
    }
}

impl Drop for Unstarted {
    fn drop(&mut self) {
        if let Some(permit) = self.0.take() {
            // Nobody is left to wait for it.
            drop(permit.release());
        }
    }
}

/// The layer's end of an [`Execution`]: the owner of the permit, which the handler borrows.
///
/// Dropped, its task was killed by the runtime in the middle of the handler, and the key stays
/// claimed.
pub(super) struct Lender(Arc<ExecutionState>);

impl Lender {
    pub(super) fn new(permit: Permit) -> Self {
        Self(Arc::new(ExecutionState {
            key: permit.key().clone(),
            request_id: permit.request_id().clone(),
            attempt: permit.attempt(),
            checkpoints: permit.checkpoints().to_vec(),
            permit: Mutex::new(Some(permit)),
            succeeded: AtomicBool::new(false),
        }))
    }

    pub(super) fn execution(&self) -> Execution {
        Execution(Arc::clone(&self.0))
    }

    pub(super) fn request_id(&self) -> &RequestId {
        &self.0.request_id
    }

    /// Notes that the handler has answered with success, before its answer is judged and its body
    /// collected.
    pub(super) fn note_success(&self) {
        self.0.succeeded.store(true, Ordering::Relaxed);
    }

    /// Returns the permit, for a verdict to end it.
    pub(super) fn end(self) -> Permit {
        self.0.permit.lock().take().expect("only the layer takes it, and once")
    }

    /// Ends the permit of a handler that was cut off by an error of its service, such as a timeout:
    /// a volatile key is free, a durable one interrupted. If it was shed, it did not run.
    pub(super) async fn cut_off(self, was_shed: bool) {
        let permit = self.end();
        if was_shed {
            // Nothing ran, so the answer stands even if the release cannot be recorded.
            let _ = permit.release().await;
        }
    }

    /// Ends the permit after a panic. If the handler has answered with success before, a function
    /// that judges answers or a broken body must not run it again.
    pub(super) async fn panicked(self) {
        let succeeded = self.0.succeeded.load(Ordering::Relaxed);
        let permit = self.end();
        if succeeded && let Err(error) = permit.complete_without_response().await {
            observe::troubled(&error);
        }
    }
}

impl Drop for Lender {
    fn drop(&mut self) {
        if let Some(permit) = self.0.permit.lock().take() {
            permit.abandon();
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Execution {
    type Rejection = Envelope;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Envelope> {
        Self::found(parts.extensions.get(), parts.extensions.get())
    }
}

impl<S: Sync> OptionalFromRequestParts<S> for Execution {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(
        parts: &mut Parts,
        _state: &S,
    ) -> Result<Option<Self>, Self::Rejection> {
        Ok(parts.extensions.get().cloned())
    }
}
